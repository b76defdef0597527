//! What following and exposing a thousand jobs costs. Ignored: they take a minute, and say something
//! only in an optimized build on a machine that does nothing else:
//! `cargo test --release --test exposing measure -- --ignored --nocapture --test-threads 1`.
//! Those that measure changes measure other builds beside one another, in turn: the programs in
//! `TML_PROXY_BUILDS`, separated by colons.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    board::{Kind, Switchboard},
    harness::{
        Proxy, Setup,
        process::{cpu_ticks, resident_kib},
        wait_until,
    },
    stage::{Stage, status},
};

const JOBS: u32 = 1000;

/// A host for each job that lives at a time, as in a testbed.
fn host(job: u32) -> u32 {
    job % JOBS
}

/// Ticks of the processor clock in a second.
const TICKS: f64 = 100.0;

fn staged(secure: bool, level: &str) -> (Stage, Proxy) {
    staged_with(JOBS, secure, level, &Setup::default())
}

/// The builds to measure: this one, or those in the environment.
fn builds() -> Vec<(String, Setup<'static>)> {
    let Ok(programs) = env::var("TML_PROXY_BUILDS") else {
        return vec![("this build".to_owned(), Setup::default())];
    };
    let instead = |program: &str| Setup {
        through: ["sh", "-c", "shift; exec \"$0\" \"$@\"", program]
            .map(str::to_owned)
            .to_vec(),
        ..Setup::default()
    };
    let programs = programs.split(':');
    programs
        .map(|program| (program.to_owned(), instead(program)))
        .collect()
}

fn staged_with(jobs: u32, secure: bool, level: &str, setup: &Setup<'_>) -> (Stage, Proxy) {
    let board = Switchboard::of(Kind {
        secure,
        ..Kind::default()
    });
    let stage = Stage::with(board, (jobs + jobs / 2).max(1000) as u16);
    for host in 0..jobs {
        stage.board.add_host(host);
    }
    for number in 0..jobs {
        stage.ready_on(number, number, &format!("fdb0:7e57::1:{number:x}"));
    }
    let started = Instant::now();
    // What production has: the harness's quick polls would be what is measured.
    // Of more jobs than usual, reading each once a minute would be what is measured.
    let refresh = if jobs > JOBS { "10m" } else { "60s" };
    let section = stage
        .section("cooldown = \"1s\"")
        .replace("poll = \"200ms\"", "poll = \"5s\"")
        .replace("refresh = \"1s\"", &format!("refresh = \"{refresh}\""));
    let config = super::harness::config([&format!("[log]\nlevel = \"{level}\"\n"), &section]);
    let proxy = Proxy::start_with(setup, &config);
    while status(&proxy)["endpoints"] != jobs {
        thread::sleep(Duration::from_millis(100));
    }
    println!("{jobs} jobs open {:?} after the start", started.elapsed());
    (stage, proxy)
}

/// Has a job end and another begin, in turn, at a steady rate.
fn change_jobs(stage: &Stage, jobs: u32, changes: u32, apart: Duration) {
    let started = Instant::now();
    for change in 0..changes {
        let number = jobs + change / 2;
        match change % 2 {
            0 => stage.finalize(&super::board::job_id(number - jobs)),
            _ => {
                let address = format!("fdb0:7e57::1:{number:x}");
                stage.ready_on(number % jobs, number, &address);
            }
        }
        let due = started + apart * (change + 1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn cpu_over(proxy: &Proxy, what: &str, time: impl FnOnce()) {
    let (before, started) = (cpu_ticks(proxy.id()), Instant::now());
    time();
    let used = (cpu_ticks(proxy.id()) - before) as f64 / TICKS;
    let share = used / started.elapsed().as_secs_f64() * 100.0;
    let memory = resident_kib(proxy.id()) / 1024;
    println!("{what}: {share:.1} % of a processor, {memory} MiB");
}

/// Requests so far, by what was asked for.
fn requests(proxy: &Proxy) -> [(&'static str, u64); 4] {
    let metrics = proxy.metrics();
    ["jobs", "job", "hosts", "watch"].map(|request| {
        let labels = [("request", request)];
        (
            request,
            metrics.sum("tml_proxy_switchboard_requests_total", &labels),
        )
    })
}

fn tell_requests(before: [(&str, u64); 4], proxy: &Proxy) {
    for ((what, before), (_, after)) in before.into_iter().zip(requests(proxy)) {
        println!("requests meanwhile, {what}: {}", after - before);
    }
}

/// Whether a port is open, without making a session of the question.
fn is_open(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
#[ignore = "a measurement"]
fn a_thousand_jobs_idle_and_with_fifty_changes_a_second() {
    for secure in [false, true] {
        println!(
            "--- {}",
            if secure {
                "HTTP/2 over TLS"
            } else {
                "HTTP/1.1"
            }
        );
        let (stage, proxy) = staged(secure, "info");
        println!(
            "connections to the switchboard: {}",
            stage.board.connections()
        );
        thread::sleep(Duration::from_secs(5));
        cpu_over(&proxy, "idle", || thread::sleep(Duration::from_secs(20)));
        let asked = requests(&proxy);
        cpu_over(&proxy, "50 changes a second", || {
            change_jobs(&stage, JOBS, 1000, Duration::from_millis(20));
        });
        tell_requests(asked, &proxy);
        wait_until("all jobs to be open", || {
            status(&proxy)["endpoints"] == JOBS
        });
    }
}

#[test]
#[ignore = "a measurement"]
fn fifty_changes_a_second_beside_a_thousand_jobs() {
    let staged: Vec<_> = (builds().into_iter())
        .map(|(name, setup)| (name, staged_with(JOBS, true, "info", &setup)))
        .collect();
    thread::sleep(Duration::from_secs(3));
    for (name, (stage, proxy)) in &staged {
        let asked = requests(proxy);
        cpu_over(proxy, &format!("{name}: 50 changes a second"), || {
            change_jobs(stage, JOBS, 500, Duration::from_millis(20));
        });
        tell_requests(asked, proxy);
    }
}

#[test]
#[ignore = "a measurement"]
fn one_change_beside_few_and_many_jobs() {
    const CHANGES: u32 = 400;
    let jobs = env::var("TML_PROXY_JOBS").unwrap_or("50,500,2000".to_owned());
    for jobs in jobs.split(',').map(|jobs| jobs.parse().expect("a number")) {
        for (name, setup) in builds() {
            let (stage, proxy) = staged_with(jobs, true, "info", &setup);
            let used = |time: &dyn Fn()| {
                let before = cpu_ticks(proxy.id());
                time();
                (cpu_ticks(proxy.id()) - before) as f64 / TICKS
            };
            // Watches are opened one by one; what they do not tell yet costs nothing.
            while used(&|| thread::sleep(Duration::from_secs(2))) > 0.03 {}
            let apart = Duration::from_millis(25);
            let idle = used(&|| thread::sleep(apart * CHANGES));
            let busy = used(&|| change_jobs(&stage, jobs, CHANGES, apart));
            let each = (busy - idle) / f64::from(CHANGES) * 1e3;
            println!("{name}: {jobs} jobs, a change takes {each:.2} ms; idle {idle:.2} s");
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn from_a_change_to_an_open_port() {
    for secure in [false, true] {
        println!(
            "--- {}",
            if secure {
                "HTTP/2 over TLS"
            } else {
                "HTTP/1.1"
            }
        );
        let (stage, proxy) = staged(secure, "debug");
        let mut opened = Vec::new();
        let mut appeared = Vec::new();
        for number in JOBS..JOBS + 200 {
            // A job that is known and becomes ready; its port is the one its name leads to.
            let id = stage.board.add_job(number, host(number), "initializing");
            // Over HTTP/1.1 not every job has a watch, and those without one are asked about.
            if secure {
                wait_until("the job to be watched", || stage.board.watches(&id) > 0);
            }
            wait_until("the job to be known", || {
                !super::stage::endpoints(&proxy, &id).is_empty()
            });
            let at = Instant::now();
            stage.board.change(&id, |job| {
                job["state"] = json!("ready");
                job["job_ip_address"] = json!(format!("fdb0:7e57::1:{number:x}"));
            });
            opened.push(until_open(&proxy, &id, at));
            // A job that nobody has heard of.
            let at = Instant::now();
            let id = stage.ready_on(
                host(number),
                number + 5000,
                &format!("fdb0:7e57::2:{number:x}"),
            );
            appeared.push(until_open(&proxy, &id, at));
        }
        report("known job ready -> port open", opened);
        report("new job -> port open", appeared);
        let applied = proxy.said(|line| line.message() == "mappings of jobs applied");
        let took = applied.iter().skip(JOBS as usize / 10);
        let took = took.map(|line| Duration::from_micros(line.number("took_us")));
        report("a change applied beside 1000 mappings", took.collect());
        let metrics = proxy.metrics();
        let count = metrics.sum("tml_proxy_switchboard_reachable_seconds_count", &[]);
        println!("rounds that opened a port: {count}");
    }
}

#[test]
#[ignore = "a measurement"]
fn a_thousand_jobs_on_a_few_more_hosts_idle_over_http1() {
    let stage = Stage::with(Switchboard::start(), 4000);
    for host in 0..JOBS + 4 {
        stage.board.add_host(host);
    }
    for number in 0..JOBS {
        stage.ready_on(host(number), number, &format!("fdb0:7e57::1:{number:x}"));
    }
    let section = stage
        .section("")
        .replace("poll = \"200ms\"", "poll = \"5s\"")
        .replace("refresh = \"1s\"", "refresh = \"10m\"");
    let proxy = Proxy::start(&super::harness::config([section]));
    wait_until("all jobs to be open", || {
        status(&proxy)["endpoints"] == JOBS
    });
    // Jobs without a watch are read every one to two minutes.
    thread::sleep(Duration::from_secs(60));
    let asked = requests(&proxy);
    const IDLE: Duration = Duration::from_secs(60);
    // The switchboard runs in this process, and nothing else does meanwhile.
    let served = cpu_ticks(std::process::id());
    cpu_over(&proxy, "idle", || thread::sleep(IDLE));
    let served = (cpu_ticks(std::process::id()) - served) as f64 / TICKS;
    println!(
        "the switchboard: {:.2} % of a processor",
        served / IDLE.as_secs_f64() * 100.0
    );
    for ((what, before), (_, after)) in asked.into_iter().zip(requests(&proxy)) {
        let rate = (after - before) as f64 / IDLE.as_secs_f64();
        println!("requests, {what}: {rate:.2} a second");
    }
    let known = (0..20).map(|number| {
        let at = Instant::now();
        let id = stage.ready_on(
            JOBS + number % 4,
            JOBS + number,
            &format!("fdb0:7e57::2:{number:x}"),
        );
        let took = until_open(&proxy, &id, at);
        stage.finalize(&id);
        took
    });
    report("new job on a free host -> port open", known.collect());
    let known = (0..20).map(|number| {
        let old = super::board::job_id(number);
        let at = Instant::now();
        stage.finalize(&old);
        wait_until("its end", || {
            super::stage::endpoints(&proxy, &old).is_empty()
        });
        at.elapsed()
    });
    report("job that ended -> port closed", known.collect());
}

fn until_open(proxy: &Proxy, id: &str, since: Instant) -> Duration {
    loop {
        let found = super::stage::endpoints(proxy, id);
        if let Some(port) = found.iter().find_map(|one| one["port"].as_u64())
            && is_open(u16::try_from(port).expect("a port"))
        {
            return since.elapsed();
        }
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "{id} never opened"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: p50 {:?}, p99 {:?}, max {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
