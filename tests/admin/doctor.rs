//! `doctor` on this machine, whatever that is.

use std::process::Command;

use serde_json::Value;

use crate::{
    desk::Desk,
    harness::{Target, config, mapping, ports, process, proxy::PROGRAM},
};

fn doctor(file: &std::path::Path, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = process::output(
        Command::new(PROGRAM)
            .args(["doctor", "--json", "--config"])
            .arg(file)
            .args(more),
    );
    let findings = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        findings.unwrap_or_else(|error| panic!("{error}: {output:?}")),
    )
}

/// The grade of the finding about something.
fn grade<'f>(findings: &'f [Value], about: &str) -> &'f str {
    let about = |finding: &&Value| {
        finding["check"]
            .as_str()
            .is_some_and(|check| check.contains(about))
    };
    let finding = findings.iter().find(about);
    finding
        .and_then(|finding| finding["grade"].as_str())
        .unwrap_or("none")
}

/// The finding with this name.
#[track_caller]
fn exact<'f>(findings: &'f [Value], check: &str) -> &'f Value {
    let finding = findings.iter().find(|finding| finding["check"] == check);
    finding.unwrap_or_else(|| panic!("{check}: {findings:?}"))
}

#[test]
fn a_healthy_deployment_is_called_so() {
    let desk = Desk::new("", "");
    let socket = desk.socket().display().to_string();
    let (code, findings) = doctor(&desk.scene.proxy.file(), &["--socket", &socket]);
    assert_eq!(code, Some(0), "{findings:?}");
    assert_eq!(grade(&findings, "admin socket"), "good", "{findings:?}");
    assert_eq!(grade(&findings, "targets"), "good", "{findings:?}");
    assert_eq!(exact(&findings, "targets")["grade"], "good");
    assert_eq!(grade(&findings, "ways"), "good", "{findings:?}");
}

#[test]
fn targets_are_not_all_right_while_some_do_not_answer() {
    let dir = crate::harness::TempDir::new();
    let target = Target::bind();
    let silent = format!("127.0.0.1:{}", ports::free());
    let file = dir.write(
        "some.toml",
        config([
            mapping("up", ports::free(), target.addr(), ""),
            mapping("down", ports::free(), silent, ""),
        ]),
    );
    let (_, findings) = doctor(&file, &[]);
    let sum = exact(&findings, "targets");
    assert_eq!(
        (&sum["grade"], &sum["found"]),
        (&"poor".into(), &"1 of 2 answer".into())
    );
}

#[test]
fn a_machine_from_which_no_target_can_be_reached_is_not_called_healthy() {
    let dir = crate::harness::TempDir::new();
    let silent = || format!("127.0.0.1:{}", ports::free());
    let file = dir.write(
        "none.toml",
        config([
            mapping("one", ports::free(), silent(), ""),
            mapping("two", ports::free(), silent(), ""),
        ]),
    );
    let (code, findings) = doctor(&file, &[]);
    assert_eq!(code, Some(1), "{findings:?}");
    let sum = exact(&findings, "targets");
    assert_eq!(
        (&sum["grade"], &sum["found"]),
        (&"bad".into(), &"0 of 2 answer".into())
    );
}

#[test]
fn more_bytes_than_there_is_memory_are_refused() {
    let mut command = Command::new(PROGRAM);
    command.args([
        "doctor",
        "--config",
        "/nobody",
        "--push",
        "1000000000000000",
    ]);
    let output = process::output(&mut command);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_socket_that_was_named_is_told_of_where_the_file_has_none() {
    let dir = crate::harness::TempDir::new();
    let target = Target::bind();
    let file = dir.write(
        "none.toml",
        config([mapping("m", ports::free(), target.addr(), "")]),
    );
    let (_, findings) = doctor(&file, &["--socket", "/nope/sock"]);
    let found = exact(&findings, "admin socket")["found"].as_str();
    assert!(
        found.is_some_and(|found| found.starts_with("/nope/sock: ")),
        "{findings:?}"
    );
}

#[test]
fn a_listener_that_run_could_not_open_is_bad() {
    let dir = crate::harness::TempDir::new();
    let target = Target::bind();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it is bound");
    let elsewhere = format!("203.0.113.7:{}", ports::free());
    let file = |listen: &str, more: &str| {
        let mapping = mapping("m", listen, target.addr(), more);
        dir.write(
            "listen.toml",
            config(["[admin]\nlisten = \"off\"\n", &mapping]),
        )
    };
    for (listen, why) in [
        (taken.to_string(), "the port is in use"),
        (elsewhere.clone(), "this machine does not have the address"),
    ] {
        let (code, findings) = doctor(&file(&listen, ""), &["--socket", "/nobody"]);
        assert_eq!(code, Some(1), "{findings:?}");
        let named = findings.iter().any(|finding| {
            let found = finding["found"].as_str().unwrap_or_default();
            finding["grade"] == "bad" && found.contains(&listen) && found.contains(why)
        });
        assert!(named, "{findings:?}");
    }
    let file = file(&elsewhere, "freebind = true");
    let (code, findings) = doctor(&file, &["--socket", "/nobody"]);
    assert_eq!(code, Some(0), "{findings:?}");
    assert_eq!(grade(&findings, "listeners"), "good", "{findings:?}");
}

#[test]
fn a_port_of_the_running_proxy_is_not_called_taken() {
    let desk = Desk::new("", "");
    let socket = desk.socket().display().to_string();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it is bound");
    let dir = crate::harness::TempDir::new();
    let more = mapping("more", taken, desk.scene.target.addr(), "");
    let file = dir.write("more.toml", format!("{}{more}", desk.config("")));
    let (code, findings) = doctor(&file, &["--socket", &socket]);
    assert_eq!(code, Some(1), "{findings:?}");
    let bad: Vec<_> = (findings.iter())
        .filter(|finding| finding["grade"] == "bad")
        .collect();
    let found = bad[0]["found"].as_str().unwrap_or_default();
    assert!(
        bad.len() == 1 && found.contains(&taken.to_string()),
        "{bad:?}"
    );

    // Without a socket it is known by its admin address.
    let admin = format!("[admin]\nlisten = \"{}\"\n", desk.scene.proxy.admin());
    let rest = desk.scene.config("").replacen("version = 1\n", "", 1);
    let file = dir.write("same.toml", config([admin, rest]));
    let (code, findings) = doctor(&file, &["--socket", "/nobody"]);
    assert_eq!(code, Some(0), "{findings:?}");
    assert_eq!(grade(&findings, "listeners"), "good", "{findings:?}");
    assert_eq!(grade(&findings, "admin.listen"), "none", "{findings:?}");
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    let desk = Desk::new("", "");
    let silent = ports::free();
    let stranger = "bind = \"2001:db8::77\"\n";
    let dir = crate::harness::TempDir::new();
    let file = dir.write(
        "bad.toml",
        config([
            mapping("nobody", ports::free(), format!("127.0.0.1:{silent}"), ""),
            mapping(
                "stranger",
                ports::free(),
                desk.scene.target.addr(),
                stranger,
            ),
        ]),
    );
    let (code, findings) = doctor(&file, &["--socket", "/nobody"]);
    assert_eq!(code, Some(1), "{findings:?}");
    assert_eq!(grade(&findings, "source address"), "bad", "{findings:?}");
    assert_eq!(
        grade(&findings, &format!("127.0.0.1:{silent}")),
        "poor",
        "{findings:?}"
    );
    for finding in &findings {
        let needs_advice = finding["grade"] == "bad";
        assert!(!needs_advice || finding["advice"].is_string(), "{finding}");
    }
}

#[test]
fn bytes_are_pushed_both_ways_where_a_target_echoes() {
    let dir = crate::harness::TempDir::new();
    let target = Target::bind();
    let file = dir.write(
        "echo.toml",
        config([mapping("echo", ports::free(), target.addr(), "")]),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut server = target.accept();
            let bytes = [b'.'; 9000];
            server.expect(&bytes);
            server.send(&bytes);
        });
        let (_, findings) = doctor(&file, &["--push", "9000"]);
        assert_eq!(exact(&findings, "targets")["grade"], "good");
    });
}
