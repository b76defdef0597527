//! The listener that anybody may ask.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::{
    board::{Fault, Generation, Kind, Route, Switchboard},
    harness::{
        DEADLINE, Proxy, TempDir, config, metrics, ports,
        process::{output, succeed},
        proxy::PROGRAM,
        wait_until,
    },
    stage::{HOST, Stage, closes, opens, status},
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
        (format!("/api/v1/endpoints?job={id}&jobs={id}"), " 400 "),
        (
            format!("/api/v1/endpoints?jobs={}", vec![&*id; 65].join(",")),
            " 400 ",
        ),
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

/// Connects from an address of the loopback network.
fn connect_from(source: [u8; 4], lookup: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source = SocketAddr::from((source, 0));
    socket.bind(&source.into()).expect("an own address");
    socket.connect(&lookup.into()).expect("connects");
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("an open socket");
    stream
}

/// The status line of an answer to whoever asks from there.
fn ask_from(source: [u8; 4], lookup: SocketAddr, path: &str) -> String {
    let mut stream = connect_from(source, lookup);
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn silent_connections_of_one_address_or_of_many_keep_nobody_from_asking() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    let path = format!("/api/v1/endpoints?job={id}");
    let silent: Vec<TcpStream> = (0..600u16)
        .map(|number| {
            // The first half is one address, the second many.
            let [high, low] = number.saturating_sub(300).to_be_bytes();
            let mut stream = connect_from([127, 1, high, low], lookup);
            // It may be ended already for one that came later.
            let _ = stream.write_all(if number % 2 == 0 { b"GET /api" } else { b"" });
            stream
        })
        .collect();
    for last in 1..=10 {
        let status = ask_from([127, 2, 0, last], lookup, &path);
        assert!(status.contains(" 200 "), "{status:?}");
        // From their address, too.
        let status = ask_from([127, 1, 0, 0], lookup, &path);
        assert!(status.contains(" 200 "), "{status:?}");
    }
    drop(silent);
}

#[test]
fn questions_from_nine_thousand_addresses_keep_nobody_from_asking() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    let path = format!("/api/v1/endpoints?job={id}");
    std::thread::scope(|scope| {
        for part in 0..4u8 {
            scope.spawn(move || {
                for number in 0..2250u16 {
                    let [high, low] = number.to_be_bytes();
                    ask_from([127, 3 + part, high, low], lookup, "/api/v1/endpoints");
                }
            });
        }
    });
    let status = ask_from([127, 2, 0, 1], lookup, &path);
    assert!(status.contains(" 200 "), "{status:?}");
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
        format!("tml-proxy: {unknown}: there is no such job, or it has finished long ago\n")
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
    let annotation = |id: &str| stage.board.job(id)["annotations"]["proxy/p.example.org"].clone();
    wait_until("the job to be annotated", || {
        annotation(&id) == format!("p.example.org:{port}")
    });
    stage.board.put(&id, "initializing");
    wait_until("the annotation to go", || annotation(&id).is_null());
}

/// A command that asks `servers`.
fn asking(servers: &[String], words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(words);
    for server in servers {
        command.args(["--lookup", server]);
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_finished_job_one_not_heard_of_and_one_that_never_was_are_told_apart() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    let unknown = id.replace("10b", "10c");
    let ask = |id: &str| {
        let path = format!("/api/v1/endpoints?job={id}");
        let (status, body) = metrics::get(lookup, &path).expect("an answer");
        (status, body)
    };
    stage.finalize(&id);
    closes(&proxy, &id);
    let (status, body) = ask(&id);
    assert!(
        status.contains(" 410 ") && body.contains("has finished"),
        "{status} {body}"
    );
    let (status, body) = ask(&unknown);
    assert!(
        status.contains(" 404 ") && body.contains("no such job"),
        "{status} {body}"
    );
    stage.board.stop();
    wait_until("it to be noticed", || {
        super::stage::status(&proxy)["state"] == "away"
    });
    let (status, body) = ask(&unknown);
    assert!(
        status.contains(" 503 ") && body.contains("has not answered for"),
        "{status} {body}"
    );
    let (status, _) = ask(&id);
    assert!(status.contains(" 410 "), "{status}");
    let command = output(&mut asking(&[lookup.to_string()], &["ssh", &unknown]));
    assert_eq!(command.status.code(), Some(1));
    assert!(
        stderr(&command).contains("has not been heard of"),
        "{command:?}"
    );
    let words = ["endpoints", "--json", "--job", &unknown];
    let command = output(&mut asking(&[lookup.to_string()], &words));
    assert_eq!(command.status.code(), Some(1), "{command:?}");
    let answer: Value = serde_json::from_slice(&command.stdout).expect("JSON");
    assert_eq!(answer["endpoints"][0]["reason"], "not_heard_of");
}

#[test]
fn no_job_is_said_never_to_have_been_by_a_proxy_that_cannot_know() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    wait_until("all to be well", || status(&proxy)["state"] == "following");
    let path = "/api/v1/endpoints?job=10c00000-0000-7000-8000-000000000001";
    let ask = |what: &str, code: &str, words: &str| {
        wait_until(what, || {
            std::thread::sleep(Duration::from_millis(250));
            let (status, body) = metrics::get(lookup, path).expect("an answer");
            status.contains(code) && body.contains(words)
        });
    };
    ask("a job that is none", " 404 ", "no such job");
    stage.board.misbehave(Route::Listing, Fault::Status(500));
    ask("no listing to be had", " 503 ", "has listed no jobs for");
    stage.board.misbehave(Route::Listing, Fault::Status(403));
    ask("a listing that is refused", " 503 ", "lists no jobs");
    stage.board.behave();
    ask("all to be well", " 404 ", "no such job");
    stage.board.set_admin(false);
    ask("the rights to be gone", " 404 ", "may not read it");
}

#[test]
fn a_job_that_is_not_ready_is_said_to_be_what_it_is_and_leaves_the_others_printed() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    let ready = stage.ready(1, "fdb0:7e57::1");
    let starting = stage.board.add_job(2, HOST, "initializing");
    let finished = stage.ready(3, "fdb0:7e57::3");
    opens(&proxy, &ready);
    opens(&proxy, &finished);
    stage.finalize(&finished);
    closes(&proxy, &finished);
    wait_until("the job to be known", || {
        !super::stage::endpoints(&proxy, &starting).is_empty()
    });
    let servers = [lookup.to_string()];
    let all = output(&mut asking(
        &servers,
        &["ssh-config", &finished, &starting, &ready],
    ));
    assert_eq!(all.status.code(), Some(1), "{all:?}");
    let blocks = String::from_utf8_lossy(&all.stdout).into_owned();
    assert!(blocks.starts_with(&format!("Host {ready}\n")), "{blocks}");
    let expected = format!(
        "tml-proxy: {finished}: job has finished\n\
         tml-proxy: {starting}: \"ssh\" is closed (job is initializing)\n"
    );
    assert_eq!(stderr(&all), expected);
    let one = output(&mut asking(&servers, &["ssh-config", &starting]));
    assert_eq!((one.status.code(), one.stdout.len()), (Some(1), 0));
    let shown = succeed(&mut asking(&servers, &["endpoints", "--job", &starting]));
    assert!(shown.contains("closed (job is initializing)"), "{shown}");
}

#[test]
fn thirty_jobs_do_not_run_into_the_limit() {
    let stage = Stage::new(100);
    let (proxy, lookup) = started(&stage);
    let jobs: Vec<_> = (1..=60)
        .map(|number| stage.ready(number, &format!("fdb0:7e57::{number}")))
        .collect();
    jobs.iter().for_each(|id| _ = opens(&proxy, id));
    let mut words = vec!["ssh-config"];
    words.extend(jobs.iter().map(String::as_str));
    let blocks = succeed(&mut asking(&[lookup.to_string()], &words));
    assert_eq!(blocks.matches("Host 10b").count(), 60);
}

#[test]
fn lookups_are_asked_in_order_until_one_knows_where_the_job_is() {
    let (stage, other) = (Stage::new(10), Stage::new(10));
    let (proxy, lookup) = started(&stage);
    let (elsewhere, first) = started(&other);
    let id = stage.ready(1, "fdb0:7e57::1");
    opens(&proxy, &id);
    wait_until("all to be well", || {
        status(&elsewhere)["state"] == "following"
    });
    let nobody = format!("127.0.0.1:{}", ports::free());
    let servers = [nobody.clone(), first.to_string(), lookup.to_string()];
    let block = succeed(&mut asking(&servers, &["ssh-config", &id]));
    assert!(block.starts_with(&format!("Host {id}\n")), "{block}");
    let mut command = Command::new(PROGRAM);
    command.args(["ssh-config", &id]);
    command.env("TML_PROXY_LOOKUP", servers.join(","));
    assert_eq!(succeed(&mut command), block);
    let without = output(&mut asking(&servers[..2], &["ssh-config", &id]));
    let said = stderr(&without);
    assert!(!said.contains("no such job"), "{without:?}");
    assert!(said.contains("not everybody answers"), "{without:?}");
    let without = output(&mut asking(&servers[1..2], &["ssh-config", &id]));
    assert!(stderr(&without).contains("no such job"), "{without:?}");
    let nowhere = output(&mut asking(&[nobody], &["ssh-config", &id]));
    assert_eq!(nowhere.status.code(), Some(5), "{nowhere:?}");
}

#[test]
fn a_lookup_without_a_job_or_a_port_is_told_what_is_missing() {
    for (words, expected) in [
        (
            ["endpoints", "--lookup", "p.example.org:9423"],
            "which job?",
        ),
        (
            ["ssh-config", "--lookup", "p.example.org:9423"],
            "which job?",
        ),
        (["endpoints", "--lookup", "p.example.org"], "no port in it"),
    ] {
        let output = output(Command::new(PROGRAM).args(words));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(stderr(&output).contains(expected), "{output:?}");
    }
}

/// `ssh --wait` with an ssh of the test's own, which prints what it is given.
fn waiting(lookup: SocketAddr, id: &str, dir: &TempDir) -> (Child, BufReader<impl Read>) {
    let ssh = dir.write("ssh", "#!/bin/sh\necho \"$@\"\n");
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).expect("own file");
    let mut command = asking(&[lookup.to_string()], &["ssh", "--wait", id]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", dir.path().display()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it can be run");
    let said = BufReader::new(child.stderr.take().expect("asked for"));
    (child, said)
}

fn next_line(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    line
}

#[test]
fn ssh_waits_for_a_job_that_is_on_its_way_and_says_how_far_it_is() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    let id = stage.board.add_job(1, HOST, "queued");
    wait_until("the job to be known", || {
        !super::stage::endpoints(&proxy, &id).is_empty()
    });
    let dir = TempDir::new();
    let (mut child, mut said) = waiting(lookup, &id, &dir);
    assert!(next_line(&mut said).contains("(job is queued); waiting"));
    stage.board.put(&id, "initializing");
    assert!(next_line(&mut said).contains("(job is initializing); waiting"));
    stage.board.change(&id, |job| {
        job["state"] = json!("ready");
        job["job_ip_address"] = json!("fdb0:7e57::1");
    });
    let mut given = String::new();
    let mut stdout = child.stdout.take().expect("asked for");
    stdout.read_to_string(&mut given).expect("text");
    assert!(child.wait().expect("a child").success());
    let port = opens(&proxy, &id);
    assert_eq!(
        given,
        format!("-o HostKeyAlias=job-{id} -p {port} p.example.org\n")
    );
}

#[test]
fn ssh_that_waits_ends_with_the_job_and_with_an_interrupt() {
    let stage = Stage::new(10);
    let (proxy, lookup) = started(&stage);
    let ids = [1, 2].map(|number| stage.board.add_job(number, HOST, "queued"));
    for id in &ids {
        wait_until("the job to be known", || {
            !super::stage::endpoints(&proxy, id).is_empty()
        });
    }
    let dir = TempDir::new();
    let (mut child, mut said) = waiting(lookup, &ids[0], &dir);
    next_line(&mut said);
    stage.finalize(&ids[0]);
    assert!(next_line(&mut said).contains("job has finished"));
    assert_eq!(child.wait().expect("a child").code(), Some(1));
    let (mut child, mut said) = waiting(lookup, &ids[1], &dir);
    next_line(&mut said);
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    assert_eq!(child.wait().expect("a child").signal(), Some(2));
}
