//! Proxies that sleep, that hear nothing of their database and are told nothing of that, and that go ways of
//! their own for a while.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    board::Switchboard,
    database::{Database, eventually, is, membership},
    harness::{
        Target,
        lab::TARGET,
        postgresql::NEEDS,
        require::{Need, require},
        wait_until,
    },
    pooler::{POOLER, Pooler},
    shared::{Member, leader, open_at_all},
    stage::Stage,
};

#[test]
fn a_leader_whose_packets_get_lost_keeps_sessions_and_ports_while_another_leads() {
    if !require(&[&NEEDS[..], &[Need::Tool("nft"), POOLER]].concat()) {
        return;
    }
    let database = Database::start();
    let pooler = Pooler::start(&database);
    let stage = Stage::with(Switchboard::start(), 20);
    let pooled = Member::start_through(pooler.addr, &database, &stage, "us-2", "us", |text| {
        text.replace(&database.url(), &pooler.url(&database))
    });
    let members = [Member::start(&database, &stage, "us-1", "us"), pooled];
    let job = stage.ready(1, &TARGET.to_string());
    let port = open_at_all(&members, &job);
    let mut sessions = members.each_ref().map(|member| member.session(port));
    // Each of them leads, and is cut off: from the database, and from a pooler before it.
    for round in 0..2 {
        let leads = leader(&members);
        let (lost, other) = (&members[leads], &members[1 - leads]);
        lost.cut_off(true);
        eventually("the other to lead", || other.role() == "leading");
        is(&lost.proxy, "away");
        // Meanwhile it could have nothing written.
        eventually("it to lead no more", || lost.role() != "leading");
        let error = membership(&lost.proxy)["error"].to_string();
        assert!(error.contains("within 5s"), "{error}");
        let said = lost.proxy.wait_for_line(
            0,
            "the fleet's database cannot be asked; what is known stays",
        );
        assert!(said.text("why").contains("within 5s"), "{said:?}");
        let (client, server) = &mut sessions[leads];
        client.exchange(server, b"meanwhile");
        drop(lost.session(port));
        let next = stage.ready(2 + round, &format!("fdb0:7e57::{}", 2 + round));
        let next_port = other.opens(&next);
        assert_eq!(lost.port(&next), None);
        lost.cut_off(false);
        is(&lost.proxy, "connected");
        assert_eq!(lost.opens(&next), next_port);
        assert_eq!(lost.opens(&job), port);
        assert_eq!(other.role(), "leading");
    }
    for (client, server) in &mut sessions {
        client.exchange(server, b"after");
    }
}

/// The shortest there is.
const LEASE: Duration = Duration::from_secs(60);

fn short_lease(text: String) -> String {
    text + "lease = \"1m\"\n"
}

/// Where the second job is, in the same networks as the first.
const NEXT_TARGET: Ipv6Addr = Ipv6Addr::new(0xfd9d, 0x773b, 0xe6f8, 1, 0, 0, 0, 0x11);

#[test]
#[ignore = "takes a minute: the shortest lease"]
fn a_proxy_that_slept_past_its_lease_leads_nobody_who_waited_to_the_next_job_of_the_port() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 1);
    let start = |name| Member::start_edited(&database, &stage, name, "us", short_lease);
    let members = ["us-1", "us-2"].map(start);
    let next_targets = members.each_ref().map(|member| {
        let target = &member.lab.target;
        target.ip(&format!("addr add {NEXT_TARGET}/64 dev far nodad"));
        target.run(|| Target::bind_to(SocketAddr::from((NEXT_TARGET, 22))))
    });
    let job = stage.ready(1, &TARGET.to_string());
    let port = open_at_all(&members, &job);
    let leads = leader(&members);
    let (asleep, other) = (&members[leads], &members[1 - leads]);
    let (mut client, mut server) = asleep.session(port);
    asleep.proxy.signal(Signal::STOP);
    let threads = format!("/proc/{}/task", asleep.proxy.id());
    wait_until("all of it to stand still", || {
        let mut threads = fs::read_dir(&threads).expect("it runs");
        threads.all(|thread| {
            let status = thread.map(|thread| thread.path().join("status"));
            let status = status.and_then(fs::read_to_string);
            status.is_ok_and(|status| status.contains("T (stopped)"))
        })
    });
    let connect = || {
        let mut client = asleep.lab.connect(port);
        client.send(b"for whoever has the port");
        client
    };
    // The kernel takes connections for it.
    let waited: Vec<_> = (0..3).map(|_| connect()).collect();
    stage.finalize(&job);
    let next = stage.ready(2, &NEXT_TARGET.to_string());
    // There is no other port, and it is not free as long as the one that sleeps may serve it.
    assert_eq!(other.opens(&next), port);
    let (mut its_client, mut its_server) =
        (other.lab.connect(port), next_targets[1 - leads].accept());
    its_client.exchange(&mut its_server, b"the next job's");
    let came_late: Vec<_> = (0..3).map(|_| connect()).collect();
    asleep.proxy.signal(Signal::CONT);
    for mut client in waited.into_iter().chain(came_late) {
        client.expect_reset();
    }
    assert_eq!(asleep.opens(&next), port);
    let mut client_of_next = asleep.lab.connect(port);
    let mut server_of_next = next_targets[leads].accept();
    client_of_next.exchange(&mut server_of_next, b"the next job's");
    for target in [&asleep.target, &next_targets[leads]] {
        assert!(!target.is_called(Duration::ZERO), "somebody who waited");
    }
    // The session from before has ended with its job, and neither end has got anything.
    client.expect_reset();
    server.expect_reset();
    let line = asleep.proxy.ended_session(client.addr());
    assert_eq!(line.text("reason"), "mapping_removed");
    its_client.exchange(&mut its_server, b"as ever");
}

#[test]
#[ignore = "takes a minute: the shortest lease"]
fn a_proxy_that_had_ports_of_its_own_for_longer_than_its_lease_ends_no_session_when_it_shares_them()
{
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 20);
    let start = |name| Member::start_edited(&database, &stage, name, "us", short_lease);
    let members = ["us-1", "us-2"].map(start);
    let job = stage.ready(1, &TARGET.to_string());
    let port = open_at_all(&members, &job);
    leader(&members);
    let [own, other] = &members;
    let (mut client, mut server) = own.session(port);
    own.proxy.reload(&(own.text.clone() + "ports = \"own\"\n"));
    let since = Instant::now();
    eventually("it to have left the region", || own.role().is_null());
    assert_eq!(own.opens(&job), port);
    eventually("the other to lead", || other.role() == "leading");
    thread::sleep(LEASE.saturating_sub(since.elapsed()) + Duration::from_secs(5));
    client.exchange(&mut server, b"meanwhile");
    own.proxy.reload(&own.text);
    eventually("it to take part", || own.role() == "serving");
    assert_eq!(own.opens(&job), port);
    client.exchange(&mut server, b"after");
    drop(own.session(port));
    let closed = own
        .proxy
        .said(|line| line.message() == "job no longer exposed");
    assert!(closed.is_empty(), "{closed:?}");
    let next = stage.ready(2, "fdb0:7e57::2");
    open_at_all(&members, &next);
}
