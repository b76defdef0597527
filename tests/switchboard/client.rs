//! The token goes where it belongs and shows nowhere.

use std::{fs, net::TcpListener, sync::Arc};

use tml_proxy::provider::switchboard::{
    client::{BaseUrl, Client, ClientSettings, Failure, Patience},
    watch::Purpose,
};

use crate::{
    board::{Fault, Kind, Route, Switchboard},
    follower::{BY_WATCHES, Follower, PATIENCE, ask, settings},
    harness::{TempDir, wait_until},
};

fn secure() -> Switchboard {
    Switchboard::of(Kind {
        secure: true,
        ..Kind::default()
    })
}

#[test]
fn a_token_that_was_replaced_is_read_again() {
    let board = Switchboard::start();
    ask(&board, async |client| {
        client.hosts().await.expect("the first token");
        board.accept_only("bmV3");
        assert_eq!(client.hosts().await, Err(Failure::Unauthorized));
        fs::write(board.token_file(), "bmV3\n").expect("own file");
        client
            .hosts()
            .await
            .expect("the token that the file holds now");
    });
}

#[test]
fn a_token_file_that_is_gone_leaves_the_token_in_use() {
    let board = Switchboard::start();
    ask(&board, async |client| {
        fs::remove_file(board.token_file()).expect("own file");
        assert!(client.renew_token().await.is_err());
        client.hosts().await.expect("the token known so far");
    });
}

#[test]
fn a_redirection_does_not_get_the_token() {
    let board = Switchboard::start();
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("a socket");
    let place = format!("http://{}/", elsewhere.local_addr().expect("bound"));
    board.misbehave(Route::Hosts, Fault::Redirect(place));
    let answer = ask(&board, async |client| client.hosts().await);
    assert_eq!(answer, Err(Failure::Status { status: 307 }));
    assert!(elsewhere.accept().is_err(), "nobody came");
}

#[test]
fn no_failure_shows_the_token() {
    let board = Switchboard::start();
    let token = board.token();
    let mut shown = String::new();
    for fault in [
        Fault::Status(401),
        Fault::Status(500),
        Fault::Slam,
        Fault::Half,
        Fault::Hang,
        Fault::Body("{}"),
    ] {
        board.misbehave(Route::Hosts, fault);
        ask(&board, async |client| {
            let failure = client.hosts().await.expect_err("a fault");
            shown.push_str(&format!(
                "{failure} {failure:?} {client:?} {}",
                client.base()
            ));
        });
    }
    board.stop();
    ask(&board, async |client| {
        let failure = client.hosts().await.expect_err("nobody there");
        assert!(matches!(failure, Failure::Connect { .. }), "{failure}");
        shown.push_str(&format!("{failure} {failure:?}"));
    });
    assert!(!shown.contains(&token), "{shown}");
}

#[test]
fn a_name_that_the_certificate_has_not_is_not_trusted() {
    let board = secure();
    let mut settings = settings(&board);
    let url = settings.url.to_string().replace("localhost", "127.0.0.1");
    settings.url = BaseUrl::parse(&url).expect("a URL");
    assert_untrusted(&settings);
}

#[test]
fn an_authority_that_is_not_in_ca_file_is_not_trusted() {
    let (board, other) = (secure(), secure());
    let settings = ClientSettings {
        ca_file: other.ca_file(),
        ..settings(&board)
    };
    assert_untrusted(&settings);
}

#[track_caller]
fn assert_untrusted(settings: &ClientSettings) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let client = Client::new(settings, PATIENCE, Arc::default()).expect("usable settings");
        let failure = client.hosts().await.expect_err("no trust");
        assert!(matches!(failure, Failure::Connect { .. }), "{failure:?}");
        assert!(failure.to_string().contains("certificate"), "{failure}");
    });
}

#[test]
fn settings_that_are_of_no_use_are_refused_by_name() {
    let board = Switchboard::start();
    let dir = TempDir::new();
    let good = settings(&board);
    let cases = [
        (
            ClientSettings {
                token_file: dir.join("missing"),
                ..good.clone()
            },
            "token_file",
        ),
        (
            ClientSettings {
                token_file: dir.write("empty", ""),
                ..good.clone()
            },
            "token_file",
        ),
        (
            ClientSettings {
                ca_file: Some(dir.write("no.pem", "sesame")),
                ..good.clone()
            },
            "ca_file",
        ),
    ];
    for (settings, name) in cases {
        let refused =
            Client::new(&settings, Patience::default(), Arc::default()).expect_err("no use");
        let shown = format!("{refused} {refused:?}");
        assert!(refused.to_string().starts_with(name), "{shown}");
        assert!(!shown.contains("sesame"), "{shown}");
    }
}

#[test]
fn jobs_are_followed_over_tls() {
    let board = secure();
    let host = board.add_host(1);
    let id = board.add_job(1, 1, "ready");
    let follower = Follower::start(&board, BY_WATCHES);
    follower.wait_for_job(&id);
    wait_until("both watches", || {
        board.watches(&id) == 1 && board.watches(&host) == 1
    });
    let new = board.add_job(2, 1, "assigned");
    follower.wait_for_job(&new);
    board.put(&id, "finalized");
    follower.wait_for_end(&id);
    assert_eq!(follower.stats.watches_open(Purpose::Host), 1);
}
