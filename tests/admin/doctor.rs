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

#[test]
fn a_healthy_deployment_is_called_so() {
    let desk = Desk::new("", "");
    let socket = desk.socket().display().to_string();
    let (code, findings) = doctor(&desk.scene.proxy.file(), &["--socket", &socket]);
    assert_eq!(code, Some(0), "{findings:?}");
    assert_eq!(grade(&findings, "admin socket"), "good", "{findings:?}");
    assert_eq!(grade(&findings, "targets"), "good", "{findings:?}");
    assert_eq!(grade(&findings, "ways"), "good", "{findings:?}");
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
        assert_eq!(grade(&findings, "targets"), "good", "{findings:?}");
    });
}
