//! Jobs that come while the database is away, on proxies that have ports beforehand.

use serde_json::Value;

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

/// What a proxy says of its region.
fn counted(member: &Member, what: &str) -> Value {
    document(&member.proxy, "/api/v1/fleet")["regions"][0][what].clone()
}

/// By the map before, that port is nobody's.
#[test]
fn a_session_at_a_reserved_port_outlives_that_the_database_is_lost_again_before_its_map_is_read() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::alone();
    let stage = Stage::with(Switchboard::start(), 20);
    let reserve = |text| text + "reserve = 2\n";
    let members = [Member::start_edited(
        &database, &stage, "us-1", "us", reserve,
    )];
    let [member] = &members;
    reserved(&members, 2);
    assert_eq!(counted(member, "used"), 0);
    // Nobody gets to know the map while there is a row in `held`.
    let role = &database.name;
    database.query(&format!(
        "create table public.held (one integer);
         create sequence public.asked;
         alter function tml_proxy.region_map(text, text, bigint) rename to region_map_now;
         create function tml_proxy.region_map(text, text, bigint) returns jsonb
         language plpgsql security definer as $$ begin
             if exists (select from public.held) then
                 perform nextval('public.asked');
                 raise exception 'it is not to be had';
             end if;
             return tml_proxy.region_map_now($1, $2, $3);
         end $$;
         grant execute on function tml_proxy.region_map(text, text, bigint) to {role};
         insert into public.held values (1)"
    ));
    database.server().server.kill();
    eventually("it to be alone", || member.role() == "alone");
    let job = stage.ready(1, &job_address());
    let port = member.opens(&job);
    let (mut client, mut server) = member.session(port);
    database.server().start_again();
    eventually("it to have asked for the map a few times", || {
        let asked = database.query("select last_value from public.asked");
        asked.parse::<u32>().expect("a number") >= 4
    });
    let owners = "select count(*) from tml_proxy.port where owner is not null";
    assert_eq!(database.query(owners), "1");
    assert_eq!(member.role(), "alone");
    client.exchange(&mut server, b"meanwhile");
    database.query("delete from public.held");
    eventually("it to lead", || member.role() == "leading");
    // Nothing was written by whoever leads.
    eventually("it to be counted", || {
        counted(member, "used") == 1 && counted(member, "reserved") == 2
    });
    assert_eq!(member.opens(&job), port);
    client.exchange(&mut server, b"after");
}

#[test]
fn ports_are_reserved_again_once_jobs_have_left_that_used_all() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let stage = Stage::with(Switchboard::start(), 6);
    let reserve = |text| text + "reserve = 2\n";
    let members = [Member::start_edited(
        &database, &stage, "us-1", "us", reserve,
    )];
    let [member] = &members;
    reserved(&members, 2);
    let jobs: Vec<_> = (1..=6)
        .map(|number| stage.ready(number, &format!("fdb0:7e57::{number}")))
        .collect();
    for job in &jobs {
        member.opens(job);
    }
    reserved(&members, 0);
    for job in &jobs[1..] {
        stage.finalize(job);
    }
    eventually("all but one to be free or reserved", || {
        let counts = ["used", "cooling", "free", "reserved"].map(|what| counted(member, what));
        counts == [1, 0, 3, 2]
    });
}
