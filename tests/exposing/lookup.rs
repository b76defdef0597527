//! The listener that anybody may ask.

use std::net::SocketAddr;

use serde_json::Value;

use super::{
    board::{Generation, Kind, Switchboard},
    harness::{
        Proxy, config, metrics, ports,
        process::{output, succeed},
        proxy::PROGRAM,
        wait_until,
    },
    stage::{Stage, opens},
};

fn started(stage: &Stage) -> (Proxy, SocketAddr) {
    let lookup = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let proxy = stage.proxy(&format!("lookup = \"{lookup}\""));
    (proxy, lookup)
}

#[test]
fn whoever_knows_a_job_learns_where_it_is_and_nothing_else() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    let id = stage.ready(1, "fdb0:7e57::1");
    let other = stage.ready(2, "fdb0:7e57::2");
    let port = opens(&proxy, &id);
    opens(&proxy, &other);
    let ask = |path: &str| metrics::get(lookup, path).expect("an answer");
    let (status, body) = ask(&format!("/api/v1/endpoints?job={id}"));
    assert!(status.contains(" 200 "), "{status}");
    let found: Value = serde_json::from_str(&body).expect("JSON");
    let found = found["endpoints"].as_array().expect("a list");
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0]["port"], &found[0]["host"]),
        (&port.into(), &"p.example.org".into())
    );
    assert!(
        !body.contains("fdb0"),
        "an internal address is told: {body}"
    );
    let unknown = other.replace("10b", "10c");
    for (path, expected) in [
        ("/api/v1/endpoints".to_owned(), " 400 "),
        ("/api/v1/endpoints?job=".to_owned(), " 400 "),
        ("/api/v1/endpoints?job=%25".to_owned(), " 400 "),
        (format!("/api/v1/endpoints?job={}", &id[..35]), " 400 "),
        (format!("/api/v1/endpoints?job={unknown}"), " 404 "),
        ("/".to_owned(), " 404 "),
        ("/metrics".to_owned(), " 404 "),
        ("/api/v1/status".to_owned(), " 404 "),
        ("/api/v1/mappings".to_owned(), " 404 "),
    ] {
        let (status, body) = ask(&path);
        assert!(status.contains(expected), "{path}: {status}");
        assert!(
            !body.contains(&other) && !body.contains("fdb0"),
            "{path}: {body}"
        );
    }
}

#[test]
fn who_asks_too_often_has_to_wait() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    let path = format!("/api/v1/endpoints?job={id}");
    let answers: Vec<_> = (0..100)
        .map(|_| metrics::get(lookup, &path).expect("an answer").0)
        .collect();
    assert!(answers[0].contains(" 200 "));
    assert!(answers.iter().any(|status| status.contains(" 429 ")));
}

#[test]
fn the_commands_ask_it_too() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    let command = |words: &[&str]| {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(words).args(["--lookup", &lookup.to_string()]);
        command
    };
    let text = succeed(&mut command(&["endpoints", "--job", &id]));
    assert!(text.contains(&format!("p.example.org:{port}")), "{text}");
    let text = succeed(&mut command(&["ssh-config", &id]));
    let expected = format!(
        "Host {id}\n    HostName p.example.org\n    Port {port}\n    HostKeyAlias job-{id}\n"
    );
    assert_eq!(text, expected);
    let unknown = id.replace("10b", "10c");
    let refused = output(&mut command(&["ssh", &unknown]));
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&refused.stderr),
        "tml-proxy: there is no such job\n"
    );
    let moved = ports::free();
    let section = stage.section(&format!("lookup = \"127.0.0.1:{moved}\""));
    proxy.reload(&config([section]));
    assert!(metrics::get(lookup, "/").is_err(), "the old one is closed");
    let (status, _) = metrics::get(SocketAddr::from(([127, 0, 0, 1], moved)), "/").expect("open");
    assert!(status.contains(" 404 "));
}

#[test]
fn the_endpoint_is_written_where_users_of_the_switchboard_look() {
    let board = Switchboard::of(Kind {
        generation: Generation::Fourth,
        ..Kind::default()
    });
    let stage = Stage::with(board, 10);
    let proxy = stage.proxy("publish = \"proxy\"");
    let id = stage.ready(1, "fdb0:7e57::1");
    let port = opens(&proxy, &id);
    let annotation = |id: &str| stage.board.job(id)["annotations"]["proxy"].clone();
    wait_until("the job to be annotated", || {
        annotation(&id) == format!("p.example.org:{port}")
    });
    stage.board.put(&id, "initializing");
    wait_until("the annotation to go", || annotation(&id).is_null());
}
