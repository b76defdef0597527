//! What being watched costs with 10 000 mappings: how long a scrape takes, and whether those who type
//! meanwhile notice.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::setpriority_process;

use crate::{
    Bench,
    backend::{SERVICES, Service},
    load::exchange::{self, Until},
    measure, net,
    peers::{Job, Overrides, Peer, Running},
    report::{Results, progress},
    sample::{Metric, Sample},
    workloads::{AT_ONCE, Windows, Workload},
};

const MAPPINGS: usize = 10_000;

/// Sixty times as often as Prometheus does by default.
const EVERY: Duration = Duration::from_millis(250);

/// How a page ends.
const END: &[u8] = b"# EOF\n";

/// A proxy with many mappings, and where it is scraped.
struct Watched {
    running: Running,
    admin: SocketAddr,
}

impl Watched {
    fn start(bench: &Bench) -> Result<Self> {
        let admin = net::free_address();
        let peer = Peer::own_with(
            "tml-proxy",
            Overrides::one("admin.listen", &admin.to_string()),
        );
        let job = Job::new(bench.backend.services(), MAPPINGS - SERVICES);
        let running = bench.start_checked(&peer, job)?;
        // Every mapping has had a session, so that it has all its series.
        let ways = running.ways_to(Service::Exchange);
        let sessions = Until::Sessions(2 * ways.len() as u64);
        exchange::run(&bench.backend, &ways, AT_ONCE, sessions)?;
        Ok(Self { running, admin })
    }
}

/// Measures and prints.
pub fn run(bench: &mut Bench) -> Result<()> {
    let watched = Watched::start(bench)?;
    let mut scrapes = Results::of("tml-proxy");
    for round in 0..=bench.args.rounds() {
        let sample = scrape(watched.admin)?;
        // The first has yet to page in the code.
        if round > 0 {
            bench.report.sample("scrape", "tml-proxy", round, &sample)?;
            scrapes.rounds.push(sample);
        }
    }
    let title = format!("Scrape with {MAPPINGS} mappings");
    bench.report.workload("scrape", &title, &[scrapes])?;
    beside_keystrokes(bench, &watched)
}

/// Scrapes take processor time from whatever else the machine runs, its keystrokes' client and target
/// among it. What they do to the proxy beyond that shows beside a second proxy which is scraped
/// instead.
fn beside_keystrokes(bench: &mut Bench, watched: &Watched) -> Result<()> {
    const NAME: &str = "keystrokes beside scrapes";
    let windows = bench.args.windows();
    let other = Watched::start(bench)?;
    let often = format!("a scrape every {} ms", EVERY.as_millis());
    let conditions = [None, Some(other.admin), Some(watched.admin)];
    let mut results = [
        Results::of("no scrapes"),
        Results::of(&format!("{often}, of another")),
        Results::of(&often),
    ];
    for round in 0..=bench.args.rounds() {
        for (result, scraped) in results.iter_mut().zip(conditions) {
            progress(&format!("{NAME}, round {round}"));
            let windows = if round == 0 {
                &Windows::WARM_UP
            } else {
                &windows
            };
            let sample = keystrokes(bench, &watched.running, windows, scraped)?;
            if round > 0 {
                bench.report.sample(NAME, &result.peer, round, &sample)?;
                result.rounds.push(sample);
            }
        }
    }
    progress("");
    let title = format!("{}, {MAPPINGS} mappings", Workload::Keystrokes.title());
    bench.report.workload(NAME, &title, &results)
}

fn keystrokes(
    bench: &Bench,
    running: &Running,
    windows: &Windows,
    scraped: Option<SocketAddr>,
) -> Result<Sample> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let scraping = scope.spawn(|| -> Result<()> {
            // Whoever scrapes has a processor of its own, elsewhere; here it takes what is left over.
            setpriority_process(None, 19)?;
            while let Some(admin) = scraped.filter(|_| !done.load(Relaxed)) {
                scrape(admin)?;
                thread::sleep(EVERY);
            }
            Ok(())
        });
        let sample = measure::measure(Workload::Keystrokes, &bench.backend, running, windows);
        done.store(true, Relaxed);
        scraping.join().expect("scraping does not panic")?;
        sample
    })
}

/// Reads the metrics once.
fn scrape(admin: SocketAddr) -> Result<Sample> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(admin).context("the admin address")?;
    // What Prometheus asks for.
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                   Accept: application/openmetrics-text; version=1.0.0\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let (mut piece, mut end, mut size) = (vec![0; 64 * 1024], Vec::new(), 0);
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            break;
        }
        size += count;
        end.extend_from_slice(&piece[..count]);
        end.drain(..end.len().saturating_sub(END.len()));
    }
    let took = started.elapsed();
    ensure!(end == END, "a page cut off");
    #[expect(
        clippy::cast_precision_loss,
        reason = "pages stay far below 2^52 bytes"
    )]
    let megabytes = size as f64 / 1e6;
    Ok(vec![
        (Metric::Scrape, took.as_secs_f64() * 1e3),
        (Metric::ScrapeSize, megabytes),
    ])
}
