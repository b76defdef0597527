//! Sessions belong to a job and end with it. Needs root and network namespaces, because nothing on
//! this machine's own addresses is a job.

use std::process::Command;

use super::{
    board::Switchboard,
    harness::{
        Proxy, TempDir, config,
        lab::{Lab, PORT, TARGET},
        mapping,
        process::succeed,
        proxy::PROGRAM,
        require::{Need, require},
    },
    stage::{Stage, closes, opens, refuses},
};

fn staged() -> Option<(Lab, Stage)> {
    if !require(&[Need::Root, Need::Tool("ip")]) {
        return None;
    }
    let lab = Lab::new();
    let stage = lab.proxy.run(|| Stage::with(Switchboard::start(), 20));
    Some((lab, stage))
}

#[test]
fn the_sessions_of_a_job_are_listed_and_killed_by_its_id() {
    let Some((lab, stage)) = staged() else { return };
    let target = lab.listen(22);
    let dir = TempDir::new();
    let socket = dir.join("admin.sock");
    let text = config([
        format!("[admin]\nsocket = {socket:?}\n"),
        mapping("static", PORT, target.addr(), ""),
        stage.section(""),
    ]);
    let proxy = Proxy::start_with(&lab.setup(), &text);
    let id = stage.ready(1, &TARGET.to_string());
    let mut of_the_job = (lab.connect(opens(&proxy, &id)), target.accept());
    let mut other = (lab.connect(PORT), target.accept());
    of_the_job.0.exchange(&mut of_the_job.1, b"hello");
    let command = |words: &[&str]| {
        succeed(
            Command::new(PROGRAM)
                .args(words)
                .arg("--socket")
                .arg(&socket),
        )
    };
    let listed = command(&["sessions", "--job", &id]);
    assert!(
        listed.contains(&of_the_job.0.addr().to_string()),
        "{listed}"
    );
    assert_eq!(listed.lines().count(), 2, "a head and a session: {listed}");
    assert_eq!(command(&["kill", "--job", &id]), "1 session told to end\n");
    of_the_job.0.expect_reset();
    other.0.exchange(&mut other.1, b"not affected");
}

#[test]
fn no_session_of_an_ended_job_reaches_the_next_one_at_its_address() {
    let Some((lab, stage)) = staged() else { return };
    let target = lab.listen(22);
    let proxy = stage.proxy_with(&lab.setup(), "");
    let first = stage.ready(1, &TARGET.to_string());
    let port = opens(&proxy, &first);
    let mut client = lab.connect(port);
    let mut job = target.accept();
    client.exchange(&mut job, b"first");
    stage.finalize(&first);
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "mapping_removed");
    closes(&proxy, &first);
    let second = stage.ready(2, &TARGET.to_string());
    let next = opens(&proxy, &second);
    assert_ne!(next, port);
    let mut client = lab.connect(next);
    let mut job = target.accept();
    client.exchange(&mut job, b"second");
    assert!(
        lab.client
            .run(|| std::net::TcpStream::connect((super::harness::lab::PROXY, port)).is_err()),
        "the old port still answers"
    );
}

#[test]
fn no_session_of_a_board_lives_into_its_next_job_whatever_becomes_of_others() {
    let Some((lab, stage)) = staged() else { return };
    let target = lab.listen(22);
    let rule = "[[switchboard.expose]]\nname = \"ssh\"\nport = 22\nallocate = \"host\"\n";
    let section = stage.section_with("on_remove = \"keep\"", rule);
    let proxy = Proxy::start_with(&lab.setup(), &config([section]));
    let mut before = stage.ready(1, &TARGET.to_string());
    let port = opens(&proxy, &before);
    for number in 2..5 {
        let mut client = lab.connect(port);
        let mut job = target.accept();
        client.exchange(&mut job, b"one job");
        stage.finalize(&before);
        // Its successor may be there before it is known to have ended, or not.
        if number % 2 == 0 {
            closes(&proxy, &before);
        }
        let next = stage.ready(number, &TARGET.to_string());
        client.expect_reset();
        let line = proxy.ended_session(client.addr());
        assert_eq!(line.text("mapping"), format!("job/{before}/ssh"));
        assert_eq!(line.text("reason"), "mapping_removed");
        assert_eq!(opens(&proxy, &next), port);
        before = next;
    }
}

#[test]
fn a_job_that_moves_keeps_its_port_and_loses_its_sessions() {
    const OTHER: std::net::Ipv6Addr =
        std::net::Ipv6Addr::new(0xfd9d, 0x773b, 0xe6f8, 1, 0, 0, 0, 0x11);
    let Some((lab, stage)) = staged() else { return };
    lab.target.ip(&format!("addr add {OTHER}/64 dev far nodad"));
    let target = lab.listen(22);
    let moved = lab
        .target
        .run(|| super::harness::Target::bind_to((OTHER, 22).into()));
    let proxy = stage.proxy_with(&lab.setup(), "");
    let id = stage.ready(1, &TARGET.to_string());
    let port = opens(&proxy, &id);
    let mut client = lab.connect(port);
    let mut job = target.accept();
    client.exchange(&mut job, b"before");
    stage
        .board
        .change(&id, |job| job["job_ip_address"] = OTHER.to_string().into());
    client.expect_reset();
    let line = proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "mapping_retargeted");
    assert_eq!(opens(&proxy, &id), port);
    let mut client = lab.connect(port);
    let mut job = moved.accept();
    client.exchange(&mut job, b"after");
}

#[test]
fn an_address_of_this_machine_is_no_job() {
    let Some((lab, stage)) = staged() else { return };
    // A prefix that is routed here as a whole.
    lab.proxy
        .ip("-6 route add local fd9d:773b:e6f8:2::/64 dev lo");
    // As with keepalived: binding an address then says nothing about whose it is.
    lab.proxy.sysctl("net.ipv6.ip_nonlocal_bind", "1");
    let proxy = stage.proxy_with(&lab.setup(), "");
    for (number, address) in [(1, "fd9d:773b:e6f8:1::1"), (2, "fd9d:773b:e6f8:2::77")] {
        let id = stage.ready(number, address);
        refuses(&proxy, &id, "own_address");
    }
    let other = stage.ready(3, &TARGET.to_string());
    opens(&proxy, &other);
}

#[test]
fn a_jobs_address_that_comes_to_be_this_machines_is_no_longer_led_to() {
    const LATER: &str = "fd9d:773b:e6f8:1::99";
    let Some((lab, stage)) = staged() else { return };
    let proxy = stage.proxy_with(&lab.setup(), "");
    let id = stage.ready(1, LATER);
    let port = opens(&proxy, &id);
    lab.proxy.ip(&format!("addr add {LATER}/64 dev back nodad"));
    refuses(&proxy, &id, "own_address");
    lab.proxy.ip(&format!("addr del {LATER}/64 dev back"));
    assert_eq!(opens(&proxy, &id), port);
}

#[test]
fn a_reload_that_takes_ports_away_says_which_sessions_it_ends() {
    let Some((lab, stage)) = staged() else { return };
    let target = lab.listen(22);
    let proxy = stage.proxy_with(&lab.setup(), "");
    let id = stage.ready(1, &TARGET.to_string());
    let port = opens(&proxy, &id);
    let mut pair = (lab.connect(port), target.accept());
    pair.0.exchange(&mut pair.1, b"hello");
    let other = match port == stage.first {
        true => stage.first + 1,
        false => stage.first,
    };
    let from = proxy.log().len();
    proxy.reload(&config([stage.section(&format!("ports = {other}"))]));
    let line = proxy.wait_for_line(from, "the reload ends sessions of a job");
    assert_eq!(line.text("mapping"), format!("job/{id}/ssh"));
    assert_eq!(line.number("sessions"), 1);
    assert!(line.text("why").contains("switchboard.ports"), "{line}");
    pair.0.expect_reset();
}
