//! Sessions belong to a job and end with it. Needs root and network namespaces, because nothing on
//! this machine's own addresses is a job.

use super::{
    board::Switchboard,
    harness::{
        lab::{Lab, TARGET},
        require::{Need, require},
    },
    stage::{Stage, closes, opens},
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
    let proxy = stage.proxy_with(&lab.setup(), "");
    let id = stage.ready(1, "fd9d:773b:e6f8:1::1");
    super::stage::refuses(&proxy, &id, "own_address");
}
