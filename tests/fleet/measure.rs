//! What it takes to tell each other:
//! `cargo test --release --test fleet measure -- --ignored --nocapture --test-threads 1`.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    board::{Kind, Switchboard},
    database::{Database, eventually, is, knows, open_at},
    harness::{Proxy, config, figure, postgresql::NEEDS, require::require, wait_until},
    shared::{Member, leader},
    stage::{Stage, opens, status},
};

/// Jobs that come one after the other.
const JOBS: u32 = 50;

/// How long idle proxies are watched.
const IDLE: Duration = Duration::from_secs(10);

#[test]
#[ignore = "a measurement"]
fn a_job_is_known_elsewhere_and_idle_proxies_ask_little() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::alone();
    let stage = Stage::with(Switchboard::start(), JOBS as u16);
    let section = stage.section("");
    let fleet = database.section("us-1", "us", "");
    let one = Proxy::start(&config([section, fleet]));
    let other = database.proxy("eu-1", "eu");
    is(&one, "connected");
    knows(&other, "us-1", "up");
    let mut took: Vec<Duration> = (0..JOBS)
        .map(|number| {
            let job = stage.ready(number + 1, &format!("fdb0:7e57::{number:x}"));
            opens(&one, &job);
            let open = Instant::now();
            wait_until("it to be known", || open_at(&other, &job) == ["us-1"]);
            open.elapsed()
        })
        .collect();
    took.sort_unstable();
    let at = |share: f64| took[(share * f64::from(JOBS - 1)) as usize];
    figure(
        "from a job's port being open to its being known on the other proxy",
        format!("{:?} at half of the jobs, {:?} at 99 %", at(0.5), at(0.99)),
    );
    // A third that is idle as well, and time for what is under way.
    let third = database.proxy("eu-2", "eu");
    is(&third, "connected");
    figure(
        "transactions a second of each of three idle proxies",
        asked_idle(&database),
    );
}

/// Transactions a second of each of three proxies, once nothing is under way.
fn asked_idle(database: &Database) -> String {
    let asked = || {
        let sql = "select pg_stat_force_next_flush(); \
                   select xact_commit from pg_stat_database where datname = current_database()";
        let asked: f64 = database.query(sql).parse().expect("a number");
        asked
    };
    thread::sleep(IDLE);
    let before = asked();
    thread::sleep(IDLE);
    let more = asked() - before;
    format!("{:.2}", more / 3.0 / IDLE.as_secs_f64())
}

/// Jobs that are there before, and those that come then.
const KNOWN: u32 = 1000;
const MORE: u32 = 100;

/// Between two of those.
const APART: Duration = Duration::from_millis(200);

#[test]
#[ignore = "a measurement"]
fn a_job_that_is_there_is_soon_open_on_all_proxies_of_its_region() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::alone();
    // Each job has a watch, and a host of its own.
    let board = Switchboard::of(Kind {
        secure: true,
        ..Kind::default()
    });
    let stage = Stage::with(board, 3 * KNOWN as u16 / 2);
    for host in 0..KNOWN + MORE {
        stage.board.add_host(host);
    }
    let ready = |number: u32| stage.ready_on(number, number, &format!("fdb0:7e57::1:{number:x}"));
    for number in 0..KNOWN {
        ready(number);
    }
    let members = ["us-1", "us-2", "us-3"];
    let members = members.map(|name| {
        Member::start_edited(&database, &stage, name, "us", |text| {
            // As production has it: the quick readings of tests would be what is measured.
            let text = text.replace("poll = \"200ms\"", "poll = \"5s\"");
            text.replace("refresh = \"1s\"", "refresh = \"60s\"")
        })
    });
    for member in &members {
        eventually("the jobs to be open", || {
            status(&member.proxy)["endpoints"] == KNOWN
        });
    }
    // Watches are opened one by one, and what is watched is read then.
    let asked = || {
        let of = |member: &Member| {
            let metrics = member.proxy.metrics();
            metrics.sum("tml_proxy_switchboard_requests_total", &[])
        };
        members.iter().map(of).sum::<u64>()
    };
    let mut before = 0;
    wait_until("nothing to be read any more", || {
        thread::sleep(Duration::from_secs(1));
        let now = asked();
        std::mem::replace(&mut before, now) == now
    });
    let mut from_first = Vec::new();
    let mut from_event = Vec::new();
    for number in KNOWN..KNOWN + MORE {
        // New jobs are looked for at most ten times a second.
        thread::sleep(APART);
        let event = Instant::now();
        let job = ready(number);
        let is_open = |member: &Member| member.port(&job).is_some();
        wait_until("one to have it open", || members.iter().any(is_open));
        let open = Instant::now();
        wait_until("all to have it open", || members.iter().all(is_open));
        from_first.push(open.elapsed());
        from_event.push(event.elapsed());
    }
    for (what, mut took) in [
        ("the switchboard's event of a job", from_event),
        ("a job's port being open on one proxy", from_first),
    ] {
        took.sort_unstable();
        let at = |share: f64| took[(share * f64::from(MORE - 1)) as usize];
        figure(
            &format!("from {what} to its being open on all three of the region"),
            format!("{:?} at half of the jobs, {:?} at 99 %", at(0.5), at(0.99)),
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn idle_proxies_that_share_ports_ask_little() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::alone();
    let stage = Stage::with(Switchboard::start(), 20);
    let members = ["us-1", "us-2", "us-3"];
    let members = members.map(|name| Member::start(&database, &stage, name, "us"));
    leader(&members);
    figure(
        "transactions a second of each of three idle proxies that share ports",
        asked_idle(&database),
    );
}
