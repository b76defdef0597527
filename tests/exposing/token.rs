//! Tokens expire and are replaced while the proxy runs.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{
    board::{Fault, Route},
    harness::{
        Proxy, Setup, TempDir, config,
        process::lone_user,
        require::{Need, require},
        wait_until,
    },
    stage::{Stage, opens, status},
};

/// A proxy that reads its token from a file in `dir`.
fn started(stage: &Stage, dir: &TempDir, setup: &Setup<'_>) -> Proxy {
    let known = stage.board.token_file();
    let file = dir.join("token");
    if !file.exists() {
        fs::copy(&known, &file).expect("own file");
    }
    let (known, file) = (known.display().to_string(), file.display().to_string());
    let section = stage.section("").replace(&known, &file);
    let proxy = Proxy::start_with(setup, &config([section]));
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    proxy
}

/// Puts `token` where the proxy reads it, as a careful operator does.
fn replace(dir: &TempDir, token: &str) {
    let new = dir.write("token.new", token);
    fs::rename(new, dir.join("token")).expect("both in one directory");
}

/// Waits until the switchboard refuses the token that is in use.
fn is_refused(proxy: &Proxy) {
    wait_until("the token to be refused", || {
        let error = status(proxy)["error"].clone();
        error.as_str().is_some_and(|error| error.starts_with("401"))
    });
}

#[test]
fn a_token_that_was_replaced_is_in_use_before_the_old_one_is_refused() {
    let stage = Stage::new(10);
    let dir = TempDir::new();
    let proxy = started(&stage, &dir, &Setup::default());
    // The switchboard does not take it yet, which shows that it is in use.
    replace(&dir, "bmV3\n");
    is_refused(&proxy);
    stage.board.accept_only("bmV3");
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    // A reload is enough as well, and a token may be written over.
    let from = proxy.log().len();
    dir.write("token", "bmV3ZXI=\n");
    proxy.reload_file();
    proxy.wait_for_line(
        from,
        "the token of token_file has been replaced, the new one is in use",
    );
    is_refused(&proxy);
    stage.board.accept_only("bmV3ZXI=");
    wait_until("all to be well", || status(&proxy)["state"] == "following");
}

#[test]
fn a_token_file_that_becomes_unreadable_is_said_and_leaves_the_token_in_use() {
    let stage = Stage::new(10);
    let dir = TempDir::new();
    let proxy = started(&stage, &dir, &Setup::default());
    fs::write(dir.join("token"), "").expect("own file");
    wait_until("it to be said", || {
        proxy.reload_file();
        !status(&proxy)["token_error"].is_null()
    });
    let (_, page) = proxy.page("/");
    assert!(page.contains("the one in use stays"), "{page}");
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    fs::copy(stage.board.token_file(), dir.join("token")).expect("own file");
    proxy.reload_file();
    wait_until("it to be read", || status(&proxy)["token_error"].is_null());
}

#[test]
fn a_token_that_is_about_to_expire_is_said_to_be() {
    let stage = Stage::new(10);
    let expires = |seconds: u64| {
        let at = std::time::SystemTime::now() + std::time::Duration::from_secs(seconds);
        let text = humantime::format_rfc3339_seconds(at).to_string();
        stage.board.token_expires(&text);
        humantime::parse_rfc3339(&text)
            .expect("just written")
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after it")
            .as_secs()
    };
    let soon = expires(3600);
    let dir = TempDir::new();
    let proxy = started(&stage, &dir, &Setup::default());
    const SERIES: &str = "tml_proxy_switchboard_token_expiration_timestamp_seconds";
    proxy.wait_until_metrics("its end", |metrics| metrics.sum(SERIES, &[]) == soon);
    let lasts = status(&proxy)["token_lasts_ms"].as_u64();
    assert!(lasts.is_some_and(|lasts| lasts <= 3_600_000), "{lasts:?}");
    let (_, page) = proxy.page("/");
    assert!(
        page.contains("The token for the switchboard expires in"),
        "{page}"
    );
    let late = expires(30 * 24 * 3600);
    stage.board.accept_only("bmV3");
    replace(&dir, "bmV3\n");
    proxy.reload_file();
    proxy.wait_until_metrics("the end of the new one", |metrics| {
        metrics.sum(SERIES, &[]) == late
    });
    let (_, page) = proxy.page("/");
    assert!(!page.contains("expires in"), "{page}");
}

#[test]
fn the_end_of_a_token_that_was_read_after_a_refusal_is_known() {
    let stage = Stage::new(10);
    let dir = TempDir::new();
    let proxy = started(&stage, &dir, &Setup::default());
    replace(&dir, "bmV3\n");
    stage.board.accept_only("bmV3");
    stage.board.token_expires("2100-01-01T00:00:00Z");
    proxy.wait_until_metrics("the end of the new one", |metrics| {
        let series = "tml_proxy_switchboard_token_expiration_timestamp_seconds";
        metrics.sum(series, &[]) == 4_102_444_800
    });
}

#[test]
fn a_switchboard_that_does_not_say_how_long_a_token_lasts_is_followed_all_the_same() {
    let stage = Stage::new(10);
    stage.board.misbehave(Route::Tokens, Fault::Status(404));
    let proxy = started(&stage, &TempDir::new(), &Setup::default());
    assert!(status(&proxy)["token_expires"].is_null());
}

/// As the manual has it: the service is in a group that may read the token, which is root's.
#[test]
fn a_service_without_privilege_takes_a_new_token_of_roots_by_its_group() {
    if !require(&[Need::Root, Need::Tool("setpriv")]) {
        return;
    }
    let (user, group) = (lone_user(), lone_user() + 1);
    let stage = Stage::new(10);
    let (dir, own) = (TempDir::new(), TempDir::new());
    let install = |token: &str| {
        let new = dir.write("token.new", token);
        std::os::unix::fs::chown(&new, Some(0), Some(group)).expect("root");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o640)).expect("own file");
        fs::rename(new, dir.join("token")).expect("both in one directory");
    };
    let given = |path: &Path| {
        std::os::unix::fs::chown(path, Some(user), Some(user)).expect("root");
    };
    let state = own.join("state");
    fs::create_dir(&state).expect("a fresh directory");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("own directory");
    given(&state);
    install(&stage.board.token());
    let section = stage
        .section("")
        .replace(
            &stage.board.token_file().display().to_string(),
            &dir.join("token").display().to_string(),
        )
        .replace(
            &stage.state_dir().display().to_string(),
            &state.display().to_string(),
        );
    let words = [
        "setpriv",
        "--reuid",
        &user.to_string(),
        "--regid",
        &user.to_string(),
    ];
    let words = words.iter().map(|word| (*word).to_owned());
    let setup = Setup {
        through: words
            .chain(["--groups".to_owned(), group.to_string()])
            .collect(),
        ..Setup::default()
    };
    let proxy = Proxy::start_with(&setup, &config([section]));
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    stage.board.accept_only("bmV3");
    is_refused(&proxy);
    install("bmV3\n");
    wait_until("the new token to be in use", || {
        status(&proxy)["state"] == "following"
    });
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
}
