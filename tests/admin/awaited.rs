//! Connections whose PROXY header is awaited, as an operator meets them.

use std::time::Duration;

use tml_proxy::admin::api::model::{Session, Sessions};

use crate::{
    desk::Desk,
    harness::{Peer, wait_for},
};

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.80 50622 443\r\nhello";

fn desk() -> Desk {
    Desk::new(
        "",
        "accept_proxy = [\"127.0.0.1\"]\nproxy_header_timeout = \"60s\"",
    )
}

/// A connection that has said nothing yet, and how it is listed.
fn awaited(desk: &Desk) -> (Peer, Session) {
    let front = Peer::connect(desk.scene.port);
    let listed = wait_for("the connection to be listed", || {
        let sessions: Sessions = desk.get("/api/v1/sessions");
        sessions.sessions.into_iter().next()
    });
    (front, listed)
}

#[test]
fn a_connection_whose_header_is_awaited_is_listed_and_can_be_killed() {
    let desk = desk();
    for _ in 0..3 {
        let (mut front, listed) = awaited(&desk);
        assert_eq!(listed.client, front.addr().to_string());
        assert_eq!(listed.stage, "awaiting_header");
        assert!(desk.succeed(&["sessions"]).contains("awaiting_header"));
        let killed = desk.succeed(&["kill", &listed.session.to_string()]);
        assert_eq!(killed, "1 session told to end\n");
        front.expect_reset();
        desk.scene.ends(front.addr(), "killed", 0, 0);
    }
    assert!(!desk.scene.target.is_called(Duration::ZERO));
    desk.scene.proxy.settles();
}

#[test]
fn a_connection_that_says_whose_it_is_while_its_mapping_is_paused_waits() {
    let desk = desk();
    let (mut front, _) = awaited(&desk);
    desk.succeed(&["pause", "m"]);
    // The workers hear of it before they hear of the header.
    desk.succeed(&["sessions"]);
    front.send(HEADER);
    assert!(!desk.scene.target.is_called(Duration::from_millis(200)));
    desk.succeed(&["resume", "m"]);
    desk.scene.target.accept().expect(b"hello");
}

#[test]
fn the_time_of_a_drain_is_that_of_a_connection_whose_header_is_awaited_too() {
    let desk = desk();
    let (mut front, _) = awaited(&desk);
    desk.succeed(&["drain", "m", "--within", "50ms"]);
    front.expect_reset();
    desk.scene.ends(front.addr(), "drain_deadline", 0, 0);

    // And that of the session it becomes.
    desk.succeed(&["resume", "m"]);
    let (mut front, _) = awaited(&desk);
    desk.succeed(&["drain", "m", "--within", "500ms"]);
    front.send(HEADER);
    let mut server = desk.scene.target.accept();
    server.expect(b"hello");
    server.expect_reset();
    desk.scene.proxy.settles();
}
