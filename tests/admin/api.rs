//! What the API says.

use std::thread;

use tml_proxy::admin::{
    Access, OPERATIONS,
    api::model::{Events, Mappings, Ready, Sessions, Status},
};

use crate::{desk::Desk, harness::wait_until};

#[test]
fn everything_can_be_read_everywhere_and_changed_on_the_socket_only() {
    let desk = Desk::new("", "");
    for operation in OPERATIONS {
        let (method, path) = (operation.method, operation.path);
        if operation.access == Access::Read {
            assert_eq!(desk.ask(method, path, "").status, 200, "{path}");
            assert_eq!(desk.ask_tcp(method, path, "").status, 200, "{path}");
            assert_eq!(desk.ask("DELETE", path, "").status, 405, "{path}");
        } else {
            let answer = desk.ask_tcp(method, path, "{}");
            assert_eq!(answer.status, 403, "{path}");
            assert!(answer.error().contains("unix socket"), "{answer:?}");
        }
    }
    desk.scene.finish();
}

#[test]
fn a_page_of_another_site_cannot_read_it_under_a_name_of_its_own() {
    let desk = Desk::new("hosts = [\"proxy.example.org\"]\n", "");
    let port = desk.scene.proxy.admin().port();
    let ask = |host: &str| desk.ask_tcp_as(host, "GET", "/api/v1/sessions", "");
    for host in [
        "rebound.example.net".to_owned(),
        format!("rebound.example.net:{port}"),
    ] {
        let answer = ask(&host);
        assert_eq!(answer.status, 421, "{answer:?}");
        assert!(answer.error().contains("admin.hosts"), "{answer:?}");
    }
    for host in ["127.0.0.1", "[::1]", "localhost", "Proxy.Example.org"] {
        assert_eq!(ask(host).status, 200, "{host}");
        assert_eq!(ask(&format!("{host}:{port}")).status, 200, "{host}");
    }
    desk.scene.finish();
}

#[test]
fn a_live_session_is_shown_with_all_that_is_known_of_it() {
    let desk = Desk::new("", "");
    let (mut client, mut server) = desk.scene.pair();
    client.exchange(&mut server, b"hello");
    let addr = client.addr().to_string();
    wait_until("both directions to be counted", || {
        let sessions: Sessions = desk.get("/api/v1/sessions");
        sessions.sessions[0].bytes_down == 5
    });
    let sessions: Sessions = desk.get("/api/v1/sessions?mapping=m&source=127.0.0.1&sort=bytes");
    assert_eq!(sessions.total, 1);
    let session = &sessions.sessions[0];
    assert_eq!(
        (session.mapping.as_str(), session.stage.as_str()),
        ("m", "open")
    );
    assert_eq!((session.bytes_up, session.bytes_down), (5, 5));
    assert_eq!(session.client, addr);
    assert_eq!(session.target, desk.scene.target.addr().to_string());
    let local = session.local.as_deref().expect("it is connected");
    assert_eq!(
        local,
        server.stream().peer_addr().expect("connected").to_string()
    );

    for elsewhere in ["mapping=x", "source=192.0.2.0/24", "session=999"] {
        let sessions: Sessions = desk.get(&format!("/api/v1/sessions?{elsewhere}"));
        assert_eq!(sessions.total, 0, "{elsewhere}");
    }
    let status: Status = desk.get("/api/v1/status");
    assert_eq!(
        (status.sessions, status.mappings, status.sessions_opened),
        (1, 1, 1)
    );
    assert!(
        status.ready.ready && status.problems.is_empty(),
        "{status:?}"
    );
    let mappings: Mappings = desk.get("/api/v1/mappings");
    assert_eq!(mappings.mappings[0].sessions, 1);
    assert_eq!(mappings.mappings[0].state, "accepting");
    drop((client, server));
    desk.scene.finish();
}

#[test]
fn a_limit_of_the_configuration_is_not_blamed_on_descriptors() {
    let desk = Desk::new("[limits]\nmax_sessions = 1\n", "");
    let _pair = desk.scene.pair();
    let status: Status = desk.get("/api/v1/status");
    let texts: Vec<_> = status
        .problems
        .iter()
        .map(|problem| &problem.text)
        .collect();
    assert!(
        texts
            .iter()
            .any(|text| text.ends_with("Raise limits.max_sessions.")),
        "{texts:?}"
    );
}

#[test]
fn nonsense_is_answered_in_words() {
    let desk = Desk::new("", "");
    for (method, path, body, status) in [
        ("GET", "/nothing", "", 404),
        ("GET", "/api/v1/sessions?sort=colour", "", 400),
        ("GET", "/api/v1/sessions?source=here", "", 400),
        ("GET", "/api/v1/sessions?unknown=1", "", 400),
        ("POST", "/api/v1/sessions/kill", "{}", 400),
        ("POST", "/api/v1/sessions/kill", "{", 400),
        ("POST", "/api/v1/sessions/kill", "{\"session\": 999}", 404),
        ("POST", "/api/v1/sessions/kill", "{\"mapping\": \"x\"}", 404),
        (
            "POST",
            "/api/v1/sessions/kill",
            "{\"sesion\": 5, \"mapping\": \"m\"}",
            422,
        ),
        (
            "POST",
            "/api/v1/mappings/drain",
            "{\"mapping\": \"m\", \"withn\": \"2s\"}",
            422,
        ),
        (
            "POST",
            "/api/v1/mappings/pause",
            "{\"mapping\": \"x\"}",
            404,
        ),
        (
            "POST",
            "/api/v1/mappings/drain",
            "{\"mapping\": \"m\", \"within\": \"soon\"}",
            400,
        ),
        (
            "POST",
            "/api/v1/mappings/pause",
            "{\"mapping\": \"m\", \"within\": \"1s\"}",
            400,
        ),
        ("PUT", "/api/v1/log/level", "{\"level\": \"loud\"}", 400),
    ] {
        let answer = desk.ask(method, path, body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert!(!answer.error().is_empty(), "{path}");
    }
    desk.scene.finish();
}

#[test]
fn whoever_waits_for_an_event_learns_of_it() {
    let desk = Desk::new("", "");
    let events: Events = desk.get("/api/v1/events");
    let latest = events.events.last().expect("the start is one").number;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let events: Events = desk.get(&format!("/api/v1/events?after={latest}&wait=30"));
            events
        });
        desk.succeed(&["log-level", "warn"]);
        let events = waiting.join().expect("an answer");
        assert_eq!(events.events[0].message, "log level set by an operator");
        assert_eq!(events.events[0].fields["level"], "warn");
    });
}

#[test]
fn a_proxy_that_stops_is_not_ready_and_says_why() {
    let desk = Desk::new("", "");
    let (client, server) = desk.scene.pair();
    desk.scene.proxy.signal(rustix::process::Signal::TERM);
    desk.scene.proxy.wait_for_line(0, "stopping");
    let answer = desk.ask("GET", "/readyz", "");
    assert_eq!(answer.status, 503);
    let ready: Ready = serde_json::from_str(&answer.body).expect("a document");
    assert_eq!(ready.reasons, ["the proxy is stopping"]);
    assert_eq!(desk.ask("POST", "/api/v1/reload", "").status, 503);
    assert_eq!(desk.ask("GET", "/livez", "").status, 200);
    drop((client, server));
}

#[test]
fn a_failed_reload_is_a_problem_until_one_succeeds() {
    let desk = Desk::new("", "");
    desk.scene.proxy.write_config("version = 2");
    let answer = desk.ask("POST", "/api/v1/reload", "");
    assert_eq!(answer.status, 409);
    assert!(answer.error().contains("version"), "{answer:?}");
    let status: Status = desk.get("/api/v1/status");
    assert!(
        status.problems[0].text.contains("reload failed"),
        "{status:?}"
    );
    desk.scene
        .proxy
        .write_config(&desk.config("max_sessions = 7"));
    assert_eq!(
        desk.ask("POST", "/api/v1/reload", "").json()["repolicied"],
        1
    );
    let status: Status = desk.get("/api/v1/status");
    assert!(status.problems.is_empty(), "{status:?}");
    assert_eq!((status.reload.succeeded, status.reload.failed), (1, 1));
    desk.scene.finish();
}
