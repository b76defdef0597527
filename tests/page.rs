//! The status page in a real browser. Screenshots stay in `target/tmp/` for whoever wants to look.

mod harness;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use harness::{
    Peer, Proxy, Target, TempDir, config, mapping, ports, process,
    require::{Need, require},
};

/// A browser that asks nobody but the proxy for anything.
fn chromium(profile: &TempDir) -> Command {
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--timeout=20000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()));
    command
}

fn url(proxy: &Proxy) -> String {
    format!("http://{}/", proxy.admin())
}

fn screenshot(proxy: &Proxy, name: &str, options: &[&str]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
    let profile = TempDir::new();
    process::succeed(
        chromium(&profile)
            .args(options)
            .arg(format!("--screenshot={}", path.display()))
            .arg(url(proxy)),
    );
    let image = std::fs::read(&path).expect("a screenshot");
    assert!(
        image.starts_with(b"\x89PNG") && image.len() > 10_000,
        "{}",
        path.display()
    );
    path
}

/// The document as the browser has it after `time` virtual milliseconds.
fn document(proxy: &Proxy, time: u32) -> String {
    let profile = TempDir::new();
    process::succeed(
        chromium(&profile)
            .arg(format!("--virtual-time-budget={time}"))
            .args(["--dump-dom", "--enable-logging=stderr"])
            .arg(url(proxy)),
    )
}

struct Stage {
    proxy: Proxy,
    target: Target,
    port: u16,
}

impl Stage {
    fn new() -> Self {
        let (target, port) = (Target::bind(), ports::free());
        let proxy = Proxy::start(&config([
            mapping("board-14", port, target.addr(), ""),
            mapping(
                "lab/range",
                ports::free(),
                "[fd9d::10]:22",
                "max_sessions = 5",
            ),
        ]));
        Self {
            proxy,
            target,
            port,
        }
    }

    fn pair(&self) -> (Peer, Peer) {
        (Peer::connect(self.port), self.target.accept())
    }
}

#[test]
fn the_page_shows_sessions_and_trouble_in_both_colour_schemes_and_on_a_phone() {
    if !require(&[Need::Tool("chromium")]) {
        return;
    }
    let stage = Stage::new();
    let mut pairs: Vec<(Peer, Peer)> = (0..8).map(|_| stage.pair()).collect();
    for (client, server) in &mut pairs {
        client.exchange(server, &[b'x'; 4000]);
    }
    stage.proxy.reload_fails("version = \"<b>nonsense\"");
    let page = document(&stage.proxy, 1000);
    for text in [
        "Something is wrong",
        "The last reload failed",
        "board-14",
        "[fd9d::10]:22",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(
        page.contains("&lt;b&gt;nonsense"),
        "text from outside is text: {page}"
    );
    assert!(!page.contains("<b>nonsense"), "{page}");
    screenshot(&stage.proxy, "light", &["--window-size=1280,1600"]);
    screenshot(
        &stage.proxy,
        "dark",
        &[
            "--window-size=1280,1600",
            "--blink-settings=preferredColorScheme=0",
        ],
    );
    screenshot(&stage.proxy, "phone", &["--window-size=500,1600"]);
    // Without a script there is what was served, and that is all of it.
    let (_, served) = stage.proxy.page("/");
    assert!(served.contains("board-14") && served.contains("The last reload failed"));
}

#[test]
fn the_page_refreshes_itself_under_its_own_policy() {
    if !require(&[Need::Tool("chromium")]) {
        return;
    }
    let stage = Stage::new();
    let page = document(&stage.proxy, 16_000);
    assert!(page.contains("All is well"), "{page}");
    // Only a script that was allowed to run, and to fetch, says so.
    assert!(page.contains("<body class=\"live\">"), "{page}");
}
