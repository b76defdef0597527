//! The session log's options. Its lines field by field are in `src/manual/log.md`.

use std::process::Stdio;

use tml_proxy::admin::api::model::{Event, Events};

use crate::{
    desk::Desk,
    harness::{Line, Peer, process::Running},
};

/// A line with the parts that differ from run to run replaced by what they are.
fn shape(desk: &Desk, line: &Line, client: &Peer) -> String {
    let mut text = line.to_string();
    let known = [
        (client.addr().to_string(), "CLIENT"),
        (desk.scene.target.addr().to_string(), "TARGET"),
        (format!("*:{}", desk.scene.port), "LISTEN"),
    ];
    for (value, name) in known {
        text = text.replace(&value, name);
    }
    text
}

#[test]
fn an_opening_line_has_what_is_known_by_then() {
    let desk = Desk::new("[log]\nsession_openings = true\n", "");
    let (client, server) = desk.scene.pair();
    let local = server.stream().peer_addr().expect("connected").to_string();
    let line = desk.scene.proxy.wait_for_line(0, "session opened");
    assert_eq!(
        shape(&desk, &line.without(&["timestamp", "connect_ms"]), &client).replace(&local, "LOCAL"),
        r#"{"level":"INFO","message":"session opened","session":1,"mapping":"m","client":"CLIENT","listen":"LISTEN","target":"TARGET","local":"LOCAL"}"#
    );
    assert!(line.has("connect_ms") && line.has("timestamp"));
    drop(server);
    let closed = client.addr();
    drop(client);
    let end = desk.scene.ended(closed, "closed");
    assert_eq!(end.number("session"), 1);
}

#[test]
fn a_closing_line_has_everything() {
    let desk = Desk::new("", "");
    let (mut client, mut server) = desk.scene.pair();
    client.exchange(&mut server, b"hello");
    let local = server.stream().peer_addr().expect("connected").to_string();
    client.finish();
    server.expect_end();
    server.finish();
    let line = desk.scene.ended(client.addr(), "closed");
    let timeless = line.without(&["timestamp", "connect_ms", "duration_ms"]);
    assert_eq!(
        shape(&desk, &timeless, &client).replace(&local, "LOCAL"),
        r#"{"level":"INFO","message":"session ended","session":1,"mapping":"m","client":"CLIENT","listen":"LISTEN","target":"TARGET","local":"LOCAL","bytes_up":5,"bytes_down":5,"end":"--","reason":"closed"}"#
    );
    assert!(line.has("connect_ms") && line.has("duration_ms"));
}

#[test]
fn a_flood_of_refusals_gets_few_lines_and_is_counted() {
    let desk = Desk::new("[log]\nrefusals_per_second = 1\n", "deny = [\"127.0.0.1\"]");
    for _ in 0..50 {
        Peer::connect(desk.scene.port).expect_reset();
    }
    let proxy = &desk.scene.proxy;
    proxy.wait_until("tml_proxy_refusals_total", &[("cause", "denied")], 50);
    let withheld = proxy
        .metrics()
        .sum("tml_proxy_session_log_sampled_total", &[]);
    let lines = || {
        proxy
            .log()
            .all(|line| line.text("reason") == "denied")
            .len() as u64
    };
    crate::harness::wait_until("every granted line to be written", || {
        lines() + withheld == 50
    });
    assert!(withheld > 0, "{withheld}");
}

/// Who did it is known by the socket, whatever they say.
#[test]
fn what_an_operator_does_is_logged_with_user_and_process() {
    let desk = Desk::new("", "");
    let (mut client, _server) = desk.scene.pair();
    for (command, message) in [
        (&["pause", "m"][..], "mapping set by an operator"),
        (&["resume", "m"], "mapping set by an operator"),
        (&["drain", "m"], "mapping set by an operator"),
        (
            &["kill", "--mapping", "m"],
            "sessions killed by an operator",
        ),
        (&["reload"], "reload asked for by an operator"),
        (&["log-level", "debug"], "log level set by an operator"),
    ] {
        let from = desk.scene.proxy.log().len();
        let mut running = Running::start(desk.prepare(command).stdout(Stdio::null()));
        assert_eq!(running.wait().code(), Some(0), "{command:?}");
        let line = desk.scene.proxy.wait_for_line(from, message);
        let user = u64::from(rustix::process::geteuid().as_raw());
        assert_eq!(line.number("uid"), user, "{line}");
        assert_eq!(line.number("pid"), u64::from(running.id()), "{line}");
        let events: Events = desk.get("/api/v1/events");
        let pid = running.id().to_string();
        let said = |event: &Event| event.message == message && event.fields["pid"] == pid;
        assert!(events.events.iter().any(said), "{events:?}");
    }
    client.expect_reset();
}

#[test]
fn the_level_can_be_changed_while_it_runs() {
    let desk = Desk::new("", "");
    desk.succeed(&["log-level", "error"]);
    desk.scene
        .proxy
        .wait_for_line(0, "log level set by an operator");
    let before = desk.scene.proxy.log().len();
    let (client, _) = desk.scene.pair();
    drop(client);
    desk.scene.proxy.settles();
    desk.succeed(&["reload"]);
    desk.succeed(&["log-level", "info"]);
    let line = desk.scene.proxy.log().wait(before, "any line", |_| true);
    assert_eq!(
        line.message(),
        "log level set by an operator",
        "neither a session nor a reload is an error"
    );
    // Events do not depend on it.
    assert!(desk.succeed(&["events"]).contains("reload done"));
}
