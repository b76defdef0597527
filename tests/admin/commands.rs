//! The commands, as an operator types them.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
    thread,
};

use serde_json::Value;

use crate::{
    desk::Desk,
    harness::{
        Line, Target, TempDir, mapping, ports, process,
        process::Running,
        proxy::PROGRAM,
        require::{Need, require},
        wait_for,
    },
};

#[test]
fn each_session_is_told_once_to_end() {
    let desk = Desk::new("", "");
    let mut pairs: Vec<_> = (0..15).map(|_| desk.scene.pair()).collect();
    assert_eq!(
        desk.succeed(&["kill", "--mapping", "m"]),
        "15 sessions told to end\n"
    );
    for (client, _) in &mut pairs {
        client.expect_reset();
    }
}

#[test]
fn one_session_is_killed_and_the_others_go_on() {
    let desk = Desk::new("", "");
    let (mut first, _first_server) = desk.scene.pair();
    let (mut second, mut second_server) = desk.scene.pair();
    let sessions = json(&desk, &["sessions", "--json"]);
    let wanted = first.addr().to_string();
    let all = sessions["sessions"].as_array().expect("a list");
    let found = all
        .iter()
        .find(|session| session["client"] == wanted.as_str());
    let number = found.expect("it is live")["session"].to_string();

    assert_eq!(desk.succeed(&["kill", &number]), "1 session told to end\n");
    first.expect_reset();
    let line = desk.scene.ended(first.addr(), "killed");
    assert_eq!(line.text("end"), "KD");
    second.exchange(&mut second_server, b"still here");

    let killed = json(
        &desk,
        &[
            "kill",
            "--mapping",
            "m",
            "--source",
            "127.0.0.0/8",
            "--json",
        ],
    );
    assert_eq!(killed["sessions"], 1);
    second.expect_reset();
}

#[test]
fn every_reading_command_prints_json_and_aligned_text() {
    let desk = Desk::new("", "");
    let _pair = desk.scene.pair();
    for command in ["status", "mappings", "sessions", "events"] {
        json(&desk, &[command, "--json"]);
        let text = desk.succeed(&[command]);
        assert!(!text.contains('\x1b'), "no colour in a pipe: {text}");
        let narrow = process::succeed(desk.prepare(&[command]).env("COLUMNS", "40"));
        let fits = narrow.lines().all(|line| line.chars().count() <= 40);
        assert!(fits, "{narrow}");
    }
    let sessions = desk.succeed(&["sessions"]);
    let lines: Vec<&str> = sessions.lines().collect();
    assert_eq!(lines.len(), 2, "{sessions}");
    assert_eq!(lines[0].find("MAPPING"), lines[1].find("m "), "{sessions}");
}

#[test]
fn exit_codes_tell_a_refusal_from_nobody_there() {
    let desk = Desk::new("", "");
    let code = |arguments: &[&str]| desk.command(arguments).status.code();
    assert_eq!(code(&["kill", "999"]), Some(1));
    assert_eq!(code(&["drain", "nothing"]), Some(1));
    assert_eq!(code(&["kill"]), Some(2));
    desk.scene.proxy.write_config("version = ");
    assert_eq!(code(&["reload"]), Some(1));

    let nobody = process::output(Command::new(PROGRAM).args(["status", "--socket", "/nobody"]));
    assert_eq!(nobody.status.code(), Some(5));
    let stderr = String::from_utf8_lossy(&nobody.stderr);
    assert!(
        stderr.contains("/nobody") && stderr.contains("running"),
        "{stderr}"
    );
}

#[test]
fn errors_are_json_too_where_json_is_asked_for() {
    let error = |arguments: &[&str], code| {
        let output = process::output(Command::new(PROGRAM).args(arguments).arg("--json"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let why = json["error"]
            .as_str()
            .expect("an error in words")
            .to_owned();
        assert!(!why.is_empty(), "{arguments:?}");
        why
    };
    for command in [
        "status",
        "mappings",
        "endpoints",
        "sessions",
        "kill 1",
        "pause m",
        "drain m",
        "drain m --wait",
        "resume m",
        "reload",
        "upgrade",
        "upgrade --if-changed",
        "events",
        "events --follow",
        "top --once",
        "log-level info",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--socket", "/nobody"]).collect();
        assert!(error(&arguments, 5).starts_with("/nobody: "), "{command}");
    }
    for command in ["check", "doctor"] {
        assert!(error(&[command, "--config", "/nobody"], 1).contains("/nobody"));
    }
    assert!(error(&["kill"], 2).contains("SESSION"));
    assert!(error(&["status", "--what"], 2).contains("--what"));
}

#[test]
fn a_reload_names_the_mappings_that_it_touched() {
    let desk = Desk::new("", "");
    let target = Target::bind();
    let more = |name: &str| mapping(name, ports::free(), target.addr(), "");
    let before = desk.config("") + &more("board-1") + &more("board-2");
    desk.scene.proxy.reload(&before);
    let after = desk.config("max_sessions = 7") + &more("board-2") + &more("board-3");
    desk.scene.proxy.write_config(&after);
    let from = desk.scene.proxy.log().len();
    let said = desk.succeed(&["reload"]);
    for line in [
        "\nadded: board-3\n",
        "\nremoved: board-1\n",
        "\nchanged: board-2, m\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let line = desk.scene.proxy.wait_for_line(from, "reload done");
    assert_eq!(line.text("mappings_added"), "board-3");
    assert_eq!(line.text("mappings_removed"), "board-1");
    assert_eq!(line.text("mappings_changed"), "board-2, m");
    assert!(!desk.succeed(&["reload"]).contains("changed:"));

    let many: String = (0..50)
        .map(|number| more(&format!("many-{number:02}")))
        .collect();
    desk.scene.proxy.write_config(&(after + &many));
    let json = json(&desk, &["reload", "--json"]);
    assert_eq!(json["mappings_added"]["count"], 50, "{json}");
    assert_eq!(json["mappings_added"]["names"][19], "many-19", "{json}");
    assert!(json["mappings_added"]["names"][20].is_null(), "{json}");
    let many = |line: &Line| line.message() == "reload done" && line.number("added") == 50;
    let line = desk.scene.proxy.log().wait(from, "that reload", many);
    let named = line.text("mappings_added");
    assert!(named.ends_with("many-19 and 30 more"), "{line}");
}

#[test]
fn a_path_that_is_no_socket_is_called_so() {
    let dir = TempDir::new();
    let file = dir.write("file", "");
    for path in [dir.path(), &file] {
        let mut command = Command::new(PROGRAM);
        let output = process::output(command.args(["status", "--socket"]).arg(path));
        assert_eq!(output.status.code(), Some(5));
        let stderr = String::from_utf8_lossy(&output.stderr);
        let expected = format!("tml-proxy: {}: it is not a socket\n", path.display());
        assert_eq!(stderr, expected);
    }
}

#[test]
fn following_events_ends_with_the_proxy() {
    let dir = TempDir::new();
    let path = dir.join("admin.sock");
    let listener = UnixListener::bind(&path).expect("a fresh name");
    let follow = thread::spawn(move || {
        let mut command = Command::new(PROGRAM);
        process::output(command.args(["events", "--follow", "--socket"]).arg(path))
    });
    let asked = || {
        let (mut stream, _) = listener.accept().expect("a request");
        let mut request = [0; 4096];
        let length = stream.read(&mut request).expect("a request");
        assert!(request[..length].starts_with(b"GET /api/v1/events?"));
        stream
    };
    let answer = "HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\n{\"events\":[]}";
    asked().write_all(answer.as_bytes()).expect("taken");
    // The proxy stops while it has a request.
    let unanswered = asked();
    drop(listener);
    drop(unanswered);
    let output = follow.join().expect("running does not panic");
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.ends_with(": the proxy went away\n"), "{stderr}");
}

const JOB: &str = "00000001-0000-4000-8000-000000000000";

/// What a command asks of a server that answers `status` and `body`.
fn ask_foreign(words: &[&str], status: &str, body: &str) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let lookup = listener.local_addr().expect("it is bound").to_string();
    let answer = format!("HTTP/1.0 {status}\r\n\r\n{body}");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a request");
        // It is sent in one piece.
        let _ = stream.read(&mut [0; 4096]).expect("a request");
        stream.write_all(answer.as_bytes()).expect("taken");
    });
    let mut command = Command::new(PROGRAM);
    let output = process::output(command.args(words).args(["--lookup", &lookup]));
    server.join().expect("a request came");
    output
}

fn endpoint(job: &str, host: &str) -> String {
    format!(
        "{{\"endpoints\":[{{\"job\":\"{job}\",\"rule\":\"ssh\",\"host\":\"{host}\",\"port\":22,\
         \"state\":\"open\"}}]}}"
    )
}

#[test]
fn a_foreign_server_cannot_steer_the_terminal() {
    let host = "p\\u001b]0;PWNED\\u0007\\n ProxyCommand evil";
    let error = "{\"error\":\"no\\u001b[2J\\ntml-proxy: all is well\"}";
    for (status, body, code) in [
        ("200 OK", endpoint(JOB, host), 4),
        ("404 Not Found", error.to_owned(), 1),
    ] {
        for more in [&["--json"][..], &[]] {
            let words = [&["endpoints", "--job", JOB], more].concat();
            let output = ask_foreign(&words, status, &body);
            assert_eq!(output.status.code(), Some(code), "{output:?}");
            let (said, silent) = match more {
                [] => (&output.stderr, &output.stdout),
                _ => (&output.stdout, &output.stderr),
            };
            assert!(silent.is_empty(), "{output:?}");
            let said = String::from_utf8_lossy(said);
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(!said.trim_end().contains(char::is_control), "{said}");
        }
    }
}

#[test]
fn a_foreign_server_cannot_lead_to_jobs_it_was_not_asked_for() {
    let asked = ask_foreign(&["ssh-config", JOB], "200 OK", &endpoint(JOB, "h"));
    assert!(asked.status.success(), "{asked:?}");
    let other = JOB.replace("00000001", "00000002");
    let other = ask_foreign(&["ssh-config", JOB], "200 OK", &endpoint(&other, "h"));
    assert_eq!(other.status.code(), Some(4), "{other:?}");
    assert!(other.stdout.is_empty(), "{other:?}");
}

#[test]
fn nobody_at_a_lookup_is_told_in_words() {
    let mut command = Command::new(PROGRAM);
    let lookup = format!("127.0.0.1:{}", ports::free());
    let output = process::output(command.args(["endpoints", "--job", JOB, "--lookup", &lookup]));
    assert_eq!(output.status.code(), Some(5));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let expected = format!("tml-proxy: {lookup}: Connection refused (is this");
    assert!(stderr.starts_with(&expected), "{stderr}");
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = process::succeed(Command::new(PROGRAM).args(["completions", shell]));
        assert!(script.contains("log-level"), "{shell}");
    }
    let dir = TempDir::new();
    process::succeed(Command::new(PROGRAM).arg("man").arg(dir.path()));
    for page in ["tml-proxy.1", "tml-proxy-run.1", "tml-proxy-drain.1"] {
        let page = fs::read_to_string(dir.join(page)).expect("a page for each command");
        assert!(page.contains(".SH NAME"), "{page}");
    }
    let page =
        fs::read_to_string(dir.join("tml-proxy.toml.5")).expect("a page of the configuration");
    assert!(
        page.contains("[[mapping]]") && page.contains("idle_timeout"),
        "{page}"
    );
}

#[test]
fn completions_know_topics_levels_and_the_mappings_of_the_running_proxy() {
    for shell in ["bash", "zsh", "fish"] {
        let script = process::succeed(Command::new(PROGRAM).args(["completions", shell]));
        for value in ["haproxy", "trace", "mappings --names"] {
            assert!(script.contains(value), "{shell}: {value}");
        }
    }
    if !require(&[Need::Tool("bash")]) {
        return;
    }
    let desk = Desk::new("", "");
    let target = Target::bind();
    let more = mapping("board-1", ports::free(), target.addr(), "");
    desk.scene.proxy.reload(&(desk.config("") + &more));
    let socket = desk.socket();
    let program = Path::new(PROGRAM);
    let dir = program.parent().expect("a directory");
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let script = format!(
            "PATH={}:$PATH; source <(tml-proxy completions bash); COMP_WORDS=({}{}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); cur=${{COMP_WORDS[COMP_CWORD]}}; \
             _tml-proxy_or_mapping tml-proxy \"$cur\" x; echo \"${{COMPREPLY[@]}}\"",
            dir.display(),
            line,
            if words.last() == Some(&"") { "''" } else { "" },
        );
        process::succeed(Command::new("bash").args(["-c", &script]))
            .trim()
            .to_owned()
    };
    let socket = socket.display();
    assert_eq!(
        complete(&format!("tml-proxy drain --socket {socket} ")),
        "m board-1"
    );
    assert_eq!(
        complete(&format!(
            "tml-proxy sessions --socket {socket} --mapping bo"
        )),
        "board-1"
    );
    assert_eq!(complete("tml-proxy drain --with"), "--within");
    assert_eq!(complete("tml-proxy log-level tr"), "trace");
    assert_eq!(complete("tml-proxy help hap"), "haproxy");
}

#[test]
fn the_schema_of_the_configuration_can_be_had_without_its_source() {
    let schema = process::succeed(Command::new(PROGRAM).args(["config", "schema"]));
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(
        schema["properties"]["process"]["additionalProperties"],
        false
    );
}

#[test]
fn what_there_is_to_know_of_a_command_is_in_its_help_and_its_man_page() {
    let dir = TempDir::new();
    process::succeed(Command::new(PROGRAM).arg("man").arg(dir.path()));
    for (command, words) in [
        ("run", "a second one ends at once"),
        ("ssh-config", "One Host block a job"),
        ("kill", "Both sides see a reset"),
        ("pause", "its sessions go on"),
        ("drain", "stays drained through reloads"),
        ("reload", "It is all or nothing"),
        ("top", "q quits"),
        ("doctor", "Run it as the user the proxy runs as"),
    ] {
        let help = process::succeed(Command::new(PROGRAM).args([command, "--help"]));
        // Lines are broken where they fit.
        let help: Vec<_> = help.split_whitespace().collect();
        let help = help.join(" ");
        assert!(help.contains(words), "{help}");
        let page = dir.join(&format!("tml-proxy-{command}.1"));
        let page = fs::read_to_string(page).expect("a page for each command");
        assert!(page.contains(words), "{page}");
    }
    let list = process::succeed(Command::new(PROGRAM).arg("--help"));
    assert!(
        list.contains("End live sessions") && !list.contains("Both sides"),
        "{list}"
    );
}

#[test]
fn the_first_event_is_followed_too_where_there_was_none_before() {
    let dir = TempDir::new();
    let socket = dir.join("admin.sock");
    let listener = UnixListener::bind(&socket).expect("a socket of its own");
    listener
        .set_nonblocking(true)
        .expect("an open socket does as it is told");
    let mut follower = Running::start(
        Command::new(PROGRAM)
            .args(["events", "--follow", "--socket"])
            .arg(&socket),
    );
    let first = answer(&listener, r#"{"events":[]}"#);
    assert!(first.starts_with("GET /api/v1/events?after=0&wait=0 "));
    let second = answer(&listener, r#"{"events":[]}"#);
    assert!(
        second.starts_with("GET /api/v1/events?after=0&wait=25 "),
        "{second}"
    );
    drop(listener);
    assert_eq!(follower.wait().code(), Some(5));
}

/// Answers the next request and gives what was asked.
#[track_caller]
fn answer(listener: &UnixListener, body: &str) -> String {
    let (mut stream, _) = wait_for("a request", || listener.accept().ok());
    let mut asked = vec![0; 4096];
    let read = stream.read(&mut asked).expect("a request in one piece");
    let answer = format!("HTTP/1.0 200 OK\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).expect("taken");
    String::from_utf8_lossy(&asked[..read]).into_owned()
}

#[track_caller]
fn json(desk: &Desk, arguments: &[&str]) -> Value {
    serde_json::from_str(&desk.succeed(arguments)).expect("JSON")
}
