//! Whose a port is, whatever becomes of proxies, clocks and commits: model proxies ask the functions of the
//! database in a random order, and after each step nobody may have what another one has open.
//!
//! A few seconds by default, or as many as `TML_PROXY_ALLOCATION_SECONDS` says;
//! `TML_PROXY_ALLOCATION_SEED` repeats a run.

mod process;
mod world;

use std::{
    env,
    hash::{BuildHasher, RandomState},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    database::Database,
    harness::{
        figure,
        postgresql::{Client, NEEDS},
        require::require,
    },
};
use process::{Given, Process};
use world::{COOLDOWN, HELD, LEASE, NAMES, RESERVED, Random, World, holder};

/// What a host holds is its next job's at once, whoever has it open yet, and nobody else's for a month.
#[test]
fn the_port_of_a_host_goes_to_its_next_job_and_to_others_after_a_month() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = World::new(&database, 1);
    world.start("us-1");
    let write = |world: &mut World<'_>, owner: &str, is_there: bool| {
        world.random = Random(1);
        while world.processes[0].term.is_none() {
            world.beat(0);
        }
        let (epoch, term) = (world.epoch(0), world.processes[0].term.expect("it leads"));
        let change = match is_there {
            true => {
                json!([{"port": 40_001, "owner": owner, "holder": holder(owner), "target": "192.0.2.1:22"}])
            }
            false => json!([{"port": 40_001, "owner": owner}]),
        };
        let values = format!("{epoch}, 0, {term}, 1000, null, '{change}'");
        let answer = world.call(0, "region_write", &values);
        answer["refused"][0]["why"].as_str().map(str::to_owned)
    };
    assert_eq!(write(&mut world, "job-5/ssh", true), None);
    assert_eq!(
        write(&mut world, "job-7/ssh", true).as_deref(),
        Some("taken")
    );
    assert_eq!(write(&mut world, "job-5/ssh", false), None);
    // Nobody has confirmed anything.
    assert_eq!(write(&mut world, "job-7/ssh", true), None);
    assert_eq!(write(&mut world, "job-7/ssh", false), None);
    for (seconds, refused) in [(0, true), (3600, true), (HELD, false)] {
        world.passes(seconds);
        world.processes[0].term = None;
        world.beat(0);
        world.read(0);
        world.apply(0);
        world.beat(0);
        for owner in ["job-1/ssh", "job-6/ssh"] {
            let why = write(&mut world, owner, true);
            assert_eq!(why.is_some(), refused, "{owner} after {seconds} s: {why:?}");
            if why.is_none() {
                return;
            }
        }
    }
}

/// Three processes with ports beforehand, of which the first leads.
fn with_reserved(database: &Database) -> World<'_> {
    let mut world = World::new(database, 1);
    for name in NAMES {
        world.start(name);
    }
    let is_ready = |world: &World<'_>| {
        let mut processes = world.processes.iter();
        let has_all = |one: &Process| one.reserved.len() == RESERVED && one.applied > 0;
        world.processes[0].term.is_some() && processes.all(has_all)
    };
    while !is_ready(&world) {
        world.passes(1);
        world.all_beat();
    }
    world
}

/// The first to tell has it for the job, everywhere; what the others gave to it rests.
#[test]
fn a_job_that_several_gave_a_port_while_they_were_cut_off_has_one_of_them_afterwards() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = with_reserved(&database);
    let owner = "job-0/ssh";
    let mut ports = Vec::new();
    for process in &mut world.processes {
        process.is_silent = true;
        let port = *process.reserved.keys().next().expect("one");
        let (owner, has_ended) = (owner.to_owned(), false);
        process.open.insert(port, owner.clone());
        process.given.insert(port, Given { owner, has_ended });
        ports.push(port);
    }
    world.check();
    let ports_of = |world: &World<'_>| {
        let rows = world.rows("owner", "true").into_iter();
        let rows = rows.filter(|(_, known)| known == owner);
        rows.map(|(port, _)| port).collect::<Vec<_>>()
    };
    for at in [1, 0, 2] {
        world.processes[at].is_silent = false;
        while !world.processes[at].given.is_empty() {
            world.beat(at);
        }
        assert_eq!(ports_of(&world), [ports[1]]);
        world.read(at);
        world.apply(at);
        world.check();
    }
    let mut lost = vec![ports[0], ports[2]];
    lost.sort_unstable();
    let rest = world.rows("released::text", "true");
    assert_eq!(rest.into_keys().collect::<Vec<_>>(), lost);
    world.converges();
}

/// What it got meanwhile is not what its job has left.
#[test]
fn a_board_with_a_port_goes_back_to_it_after_its_job_had_another_one_in_an_outage() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = with_reserved(&database);
    let (own, [before, next]) = (40_001, ["job-5/ssh", "job-7/ssh"]);
    assert_eq!(world.wants(own, before), None);
    let ends = json!({"port": own, "owner": before});
    assert_eq!(world.leader_writes(&ends), None);
    let other = world.is_told_of(1, next);
    assert_eq!(world.wants(other, next).as_deref(), Some("cooling"));
    assert_eq!(world.wants(own, next), None);
    world.goes_on(COOLDOWN + 10);
    assert_eq!(
        world.rows("owner", "true").get(&own),
        Some(&next.to_owned())
    );
    assert!(world.rows("released::text", "true").is_empty());
    world.converges();
}

/// What the manual has an operator do.
#[test]
fn after_an_older_backup_was_restored_no_job_gets_the_port_of_one_that_a_proxy_still_serves() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = with_reserved(&database);
    world.snapshot();
    let port = 40_001;
    assert_eq!(world.wants(port, "job-0/ssh"), None);
    world.all_beat();
    world.all_beat();
    assert!(
        world
            .processes
            .iter()
            .all(|one| one.open.contains_key(&port))
    );
    for process in &mut world.processes[1..] {
        process.is_silent = true;
    }
    // The first to reach it knows nothing.
    world.end(0, false);
    world.restore();
    database.query("update tml_proxy.region set timeline = ''");
    world.start("us-1");
    world.processes.rotate_right(1);
    assert_eq!(world.wants(port, "job-1/ssh").as_deref(), Some("unsettled"));
    world.check();
    for process in &mut world.processes {
        process.is_silent = false;
    }
    while !world.owners.contains_key(&port) {
        world.all_beat();
    }
    assert_eq!(world.wants(port, "job-1/ssh").as_deref(), Some("taken"));
    world.converges();
}

/// As one that jobs had from the region.
#[test]
fn a_reserved_port_that_one_proxy_cannot_bind_is_left_alone_by_all() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = with_reserved(&database);
    let port = *world.processes[1].reserved.keys().next().expect("one");
    let used = json!([{"port": port, "owner": "job-0/ssh", "is_blocked": true}]);
    let epoch = world.epoch(1);
    let values = format!("{epoch}, '{used}', '[]', 0");
    let answer = world.call(1, "region_reserve", &values);
    assert_eq!(answer["refused"], json!([]), "{answer}");
    for owner in ["job-0/ssh", "job-1/ssh"] {
        assert_eq!(world.wants(port, owner).as_deref(), Some("blocked"));
    }
    world.goes_on(COOLDOWN * 2);
    assert_eq!(world.wants(port, "job-1/ssh").as_deref(), Some("blocked"));
    assert!(!world.rows("reserved_by", "true").contains_key(&port));
    world.goes_on(600);
    let why = world.wants(port, "job-1/ssh");
    assert_ne!(why.as_deref(), Some("blocked"));
}

/// Whoever had it may have given it to a job, of which nobody was told.
#[test]
fn what_a_proxy_had_beforehand_rests_once_it_is_gone_and_is_nobodys_until_then() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    for how in ["crashes", "is removed", "is silent"] {
        let mut world = with_reserved(&database);
        world.processes[1].is_silent = true;
        while world.processes[1].given.is_empty() {
            world.give(1);
        }
        world.check();
        let port = *world.processes[1].given.keys().next().expect("one");
        let wants = |world: &mut World<'_>| world.wants(port, "next/ssh");
        assert_eq!(wants(&mut world).as_deref(), Some("reserved"), "{how}");
        match how {
            "crashes" => {
                // Started again on the same machine.
                world.end(1, false);
                world.start("us-2");
            }
            "is removed" => {
                let sql = "select tml_proxy.remove('us-2')";
                world.database.query(sql);
                world.processes.remove(1);
            }
            _ => world.goes_on(LEASE),
        }
        assert_eq!(wants(&mut world).as_deref(), Some("cooling"), "{how}");
        world.goes_on(COOLDOWN - 10);
        assert_eq!(wants(&mut world).as_deref(), Some("cooling"), "{how}");
        world.goes_on(20);
        // Another one may have it beforehand by now.
        let why = wants(&mut world);
        assert_ne!(why.as_deref(), Some("cooling"), "{how}");
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn a_port_never_has_two_owners_whatever_happens() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let seconds = variable("TML_PROXY_ALLOCATION_SECONDS").unwrap_or(4);
    let given = variable("TML_PROXY_ALLOCATION_SEED");
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    let (mut steps, mut stories) = (0_u32, 0_u32);
    loop {
        let story = format!("TML_PROXY_ALLOCATION_SEED={seed}");
        let mut world = World::new(&database, seed);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..200 {
                world.step();
                steps += 1;
            }
            world.converges();
        }));
        if let Err(panic) = told {
            let from = world.story.len().saturating_sub(60);
            println!("{}\nto repeat it: {story}", world.story[from..].join("\n"));
            std::panic::resume_unwind(panic);
        }
        stories += 1;
        if given.is_some() || Instant::now() >= until {
            break;
        }
        seed = seed.wrapping_add(1);
    }
    println!("{steps} steps of {stories} stories, the last with TML_PROXY_ALLOCATION_SEED={seed}");
}

/// What four sessions ask for at a time, in batches, until all ports are given away.
#[test]
fn no_port_is_given_to_two_who_ask_at_once() {
    const SESSIONS: usize = 4;
    const BATCH: usize = 50;
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    database.query("select tml_proxy.register('us-1', 'us', '1', 'x')");
    database.query("select tml_proxy.region_beat('us-1', 'x', 60000, null, 0, 0, true, null)");
    let each = variable("TML_PROXY_ALLOCATION_PORTS").unwrap_or(1000) as usize / SESSIONS;
    let addr = database.server_addr();
    let began = Instant::now();
    let refused: usize = thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                let name = &database.name;
                scope.spawn(move || {
                    let mut client = Client::connect_to(addr, name).expect("the server is there");
                    let mut refused = 0;
                    let mut wanted: Vec<_> = (0..each).map(|number| (number, number)).collect();
                    while !wanted.is_empty() {
                        let batch: Vec<_> = wanted.drain(..wanted.len().min(BATCH)).collect();
                        // All want the same ports first.
                        let changes: Vec<_> = batch
                            .iter()
                            .map(|(number, port)| {
                                json!({"port": 20_000 + port, "owner": format!("{session}-{number}/ssh"),
                                    "target": "192.0.2.1:22"})
                            })
                            .collect();
                        let changes = Value::from(changes);
                        let beat = "select tml_proxy.region_beat('us-1', 'x', 60000, null, 0, 0, true, null)";
                        client.query(beat).expect("an answer");
                        let answer = client
                            .query(&format!(
                                "select (tml_proxy.region_write('us-1', 'x', null, 1000000, 1, 60000, null, \
                                 '{changes}'))::text"
                            ))
                            .expect("an answer");
                        let answer: Value = serde_json::from_str(&answer).expect("JSON");
                        let again = answer["refused"].as_array().expect("nobody else leads");
                        refused += again.len();
                        for one in again {
                            let port = one["port"].as_u64().expect("a port") as usize - 20_000;
                            let owner = one["owner"].as_str().expect("an owner");
                            let number = owner.split(['-', '/']).nth(1).expect("one of these");
                            // Elsewhere, where others look too.
                            let next = (port + each) % (SESSIONS * each);
                            wanted.push((number.parse().expect("a number"), next));
                        }
                    }
                    refused
                })
            })
            .collect();
        let sessions = sessions.into_iter();
        sessions
            .map(|session| session.join().expect("it has not failed"))
            .sum()
    });
    let took = began.elapsed();
    let given = "select count(*) || ' ' || count(distinct owner) from tml_proxy.port where owner is not null";
    let all = each * SESSIONS;
    assert_eq!(database.query(given), format!("{all} {all}"));
    figure(
        "ports given away a second to four who ask at once",
        format!(
            "{:.0} ({all} in {took:.1?}, {refused} refused because another one had the port)",
            all as f64 / took.as_secs_f64()
        ),
    );
}
