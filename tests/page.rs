//! The status page in a real browser. Screenshots stay in `target/tmp/` for whoever wants to look.

#[path = "page/browser.rs"]
mod browser;
mod harness;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use browser::Browser;
use harness::{
    Peer, Proxy, Target, TempDir, config, mapping, ports, process,
    proxy::PROGRAM,
    require::{Need, require},
    wait_until,
};
use rustix::process::Signal;

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
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()));
    command
}

/// How long a browser that shows a page once may take to load it.
const LONGEST: &str = "--timeout=20000";

fn url(proxy: &Proxy) -> String {
    format!("http://{}/", proxy.admin())
}

fn screenshot(proxy: &Proxy, name: &str, options: &[&str]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
    let profile = TempDir::new();
    process::succeed(
        chromium(&profile)
            .args(options)
            .arg(LONGEST)
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
            .args([LONGEST, "--dump-dom", "--enable-logging=stderr"])
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

/// What the page says of itself.
const STATE: &str = "document.body?.className";

/// The page in a browser that has begun to refresh it, where there is one.
fn watched() -> Option<(Stage, Browser)> {
    if !require(&[Need::Tool("chromium")]) {
        return None;
    }
    let stage = Stage::new();
    let mut browser = Browser::open(&url(&stage.proxy));
    browser.comes_to(STATE, "live");
    Some((stage, browser))
}

#[test]
fn the_page_is_not_called_live_while_the_proxy_hangs() {
    let Some((stage, mut browser)) = watched() else {
        return;
    };
    stage.proxy.signal(Signal::STOP);
    wait_until("the proxy to hang", || {
        process::is_stopped(stage.proxy.id())
    });
    browser.comes_to(STATE, "stale");
    browser.comes_to(
        "document.title.startsWith('No answer – tml-proxy on ')",
        true,
    );
    stage.proxy.signal(Signal::CONT);
    browser.comes_to(STATE, "live");
    browser.comes_to(
        "document.title.startsWith('All is well – tml-proxy on ')",
        true,
    );
}

/// Whether the content is what it was when it was last asked to be remembered.
const REMEMBER: &str = "document.querySelector('main').remembered = true";
const REMEMBERED: &str = "document.querySelector('main').remembered === true";

#[test]
fn the_place_in_a_table_and_the_focus_on_it_stay() {
    let Some((_stage, mut browser)) = watched() else {
        return;
    };
    browser.value(REMEMBER);
    browser.value("document.querySelector('.scroll').focus()");
    let place = "document.querySelector('.scroll').scrollLeft";
    browser.value(&format!("{place} = 50"));
    browser.comes_to(REMEMBERED, false);
    assert_eq!(browser.value(place), 50);
    let focus = "document.activeElement.getAttribute('aria-labelledby')";
    assert_eq!(browser.value(focus), "mappings");
    assert_eq!(browser.value(STATE), "live");
}

#[test]
fn selected_text_stays_selected_and_the_page_says_that_it_waits() {
    let Some((_stage, mut browser)) = watched() else {
        return;
    };
    browser.value(REMEMBER);
    browser.value("getSelection().selectAllChildren(document.querySelector('h2'))");
    browser.comes_to(STATE, "paused");
    assert_eq!(browser.value(REMEMBERED), true);
    assert_eq!(browser.value("getSelection().toString()"), "All is well");
    browser.value("getSelection().removeAllRanges()");
    browser.comes_to(STATE, "live");
    assert_eq!(browser.value(REMEMBERED), false);
}

/// 300 mappings of which 43 lead to nobody, one is paused and one drained with a session left.
struct Crowd {
    proxy: Proxy,
    _pairs: Vec<(Peer, Peer)>,
    _target: Target,
    _dir: TempDir,
}

impl Crowd {
    fn new() -> Self {
        let (target, dir) = (Target::bind(), TempDir::new());
        let socket = dir.join("admin.sock");
        let nobody = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let named: Vec<(String, u16)> = (0..300)
            .map(|number| match number % 7 {
                0 => (format!("dead-{number:03}"), ports::free()),
                _ => (
                    format!("board-{number:03}/in-the-second-laboratory"),
                    ports::free(),
                ),
            })
            .collect();
        let mappings = named.iter().map(|(name, port)| {
            let target = if name.starts_with("dead") {
                nobody
            } else {
                target.addr()
            };
            mapping(name, *port, target, "")
        });
        let text = config(mappings);
        let text = text.replacen(
            "version = 1\n",
            &format!("version = 1\n[admin]\nsocket = {socket:?}\n"),
            1,
        );
        let proxy = Proxy::start(&text);
        for (_, port) in named.iter().filter(|(name, _)| name.starts_with("dead")) {
            Peer::connect(*port).expect_reset();
        }
        let mut pairs = Vec::new();
        for (_, port) in &named[1..6] {
            let (mut client, mut server) = (Peer::connect(*port), target.accept());
            client.exchange(&mut server, &[b'x'; 4000]);
            pairs.push((client, server));
        }
        for arguments in [
            &["pause", &named[8].0][..],
            &["drain", &named[1].0, "--within", "1h"],
        ] {
            let mut command = Command::new(PROGRAM);
            process::succeed(command.args(arguments).arg("--socket").arg(&socket));
        }
        wait_until("the dead ones to be found", || {
            proxy
                .page("/")
                .1
                .contains("43 failing, 1 paused, 1 drained")
        });
        Self {
            proxy,
            _pairs: pairs,
            _target: target,
            _dir: dir,
        }
    }
}

#[test]
fn of_300_mappings_the_dead_ones_are_seen_first_and_nothing_is_cut() {
    if !require(&[Need::Tool("chromium"), Need::Tool("base64")]) {
        return;
    }
    let crowd = Crowd::new();
    let (_, page) = crowd.proxy.page("/");
    let warned = "of 43 mappings: dead-000, dead-007, ";
    assert!(
        page.contains(warned) && page.contains(" and 23 more."),
        "{page}"
    );
    assert!(page.len() < 100_000, "{} bytes", page.len());
    let mut browser = Browser::open(&url(&crowd.proxy));
    browser.comes_to(STATE, "live");
    let first = "[...document.querySelectorAll('#mappings ~ .scroll tbody tr')].slice(0, 45)";
    let marked = format!("{first}.filter((row) => row.className).length");
    assert_eq!(browser.value(&marked), 45);
    assert_eq!(
        browser.value(&format!(
            "{first}[43].innerText.includes('drained, 1 left for ')"
        )),
        true
    );
    for width in [390, 1024, 1440] {
        for scheme in ["light", "dark"] {
            browser.shows_as(width, scheme);
            let wide = "document.documentElement.scrollWidth";
            assert_eq!(
                browser.value(&format!("{wide} <= innerWidth")),
                true,
                "{width}"
            );
            let name = format!("crowd-{width}-{scheme}");
            browser.screenshot(
                &Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png")),
            );
        }
        let cut = "[...document.querySelectorAll('.scroll')].some((table) => table.scrollWidth > table.clientWidth)";
        if width == 1440 {
            assert_eq!(browser.value(cut), false, "a table is cut");
        }
        let top = |of: &str| format!("document.querySelector('{of}').getBoundingClientRect().top");
        let tables_first = format!("{} < {}", top("#mappings"), top(".charts"));
        assert_eq!(browser.value(&tables_first), width == 390, "{width}");
    }

    browser.value("document.querySelector('input').value = 'dead-07'");
    browser.value("document.querySelector('form').submit()");
    let rows = "document.querySelectorAll('#mappings ~ .scroll tbody tr').length";
    browser.comes_to(rows, 2);
    // What is fetched from then on is what was searched for.
    browser.comes_to(STATE, "live");
    assert_eq!(browser.value(rows), 2);
    assert_eq!(
        browser.value("document.querySelector('input').value"),
        "dead-07"
    );
    browser.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("page-crowd-search.png"));
}
