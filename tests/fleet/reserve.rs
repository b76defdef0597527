//! Jobs that come while the database is away, on proxies that have ports beforehand.

use super::{
    board::Switchboard,
    database::{Database, document, eventually},
    harness::{postgresql::NEEDS, require::require},
    shared::{Member, job_address, leader, open_at_all},
    stage::Stage,
};

/// Waits until the proxies of the region have so many ports beforehand, and all know.
#[track_caller]
fn reserved(members: &[Member], count: u64) {
    eventually("ports to be reserved", || {
        members.iter().all(|member| {
            let fleet = document(&member.proxy, "/api/v1/fleet");
            fleet["regions"][0]["reserved"] == count
        })
    });
}

#[test]
fn a_job_that_comes_while_the_database_is_away_is_reachable_and_has_one_port_everywhere_afterwards()
{
    if !require(&NEEDS) {
        return;
    }
    let database = Database::alone();
    let stage = Stage::with(Switchboard::start(), 40);
    let members = ["us-1", "us-2", "us-3"].map(|name| {
        Member::start_edited(&database, &stage, name, "us", |text| text + "reserve = 2\n")
    });
    leader(&members);
    // A job that ends meanwhile, whose place the next one takes.
    let before = stage.ready(1, &job_address());
    open_at_all(&members, &before);
    reserved(&members, 6);

    database.server().server.kill();
    for member in &members {
        eventually("it to be alone", || member.role() == "alone");
    }
    stage.finalize(&before);
    let job = stage.ready(2, &job_address());
    let ports = members.each_ref().map(|member| member.opens(&job));
    for port in ports {
        let same = ports.iter().filter(|other| **other == port);
        assert_eq!(same.count(), 1, "{ports:?}");
    }
    let mut sessions: Vec<_> = (members.iter().zip(ports))
        .map(|(member, port)| member.session(port))
        .collect();
    // Another image of the program knows what it has given away.
    members[1].upgrade();
    eventually("it to be alone", || members[1].role() == "alone");
    assert_eq!(members[1].opens(&job), ports[1]);
    let next = stage.ready(3, "fdb0:7e57::3");
    for member in &members {
        assert!(!ports.contains(&member.opens(&next)));
    }
    let waits = stage.ready(4, "fdb0:7e57::4");
    for member in &members {
        let is_spent = |line: &str| line.starts_with("every port is used");
        eventually("no port to be left", || {
            !member
                .proxy
                .said(|line| is_spent(line.message()))
                .is_empty()
        });
        assert_eq!(member.port(&waits), None);
    }
    for (member, (client, server)) in members.iter().zip(&mut sessions) {
        client.exchange(server, b"meanwhile");
        let closed = member
            .proxy
            .said(|line| line.message() == "job no longer exposed");
        assert_eq!(closed.len(), 1, "{closed:?}");
    }

    database.server().start_again();
    let mut kept = 0;
    eventually("it to have one port on all", || {
        let now = members.each_ref().map(|member| member.port(&job));
        kept = now[0].unwrap_or(0);
        now.iter().all(|port| *port == now[0] && port.is_some())
    });
    let winner = ports.iter().position(|port| *port == kept);
    let winner = winner.expect("it is one of those that it had");
    let (client, server) = &mut sessions[winner];
    client.exchange(server, b"after");
    drop(sessions);
    for member in &members {
        drop(member.session(kept));
        for port in ports.iter().filter(|port| **port != kept) {
            member.proxy.stops_listening(*port);
        }
    }
    open_at_all(&members, &next);
    open_at_all(&members, &waits);
    reserved(&members, 6);

    // What is too many is given back.
    for member in &members {
        member
            .proxy
            .reload(&member.text.replace("reserve = 2", "reserve = 1"));
    }
    reserved(&members, 3);
    assert_eq!(open_at_all(&members, &job), kept);
}
