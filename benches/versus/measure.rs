//! Measuring: one sample of one workload through one peer.
//!
//! A load is measured from before its first connection until its last session has ended at the
//! target, so that nothing of it is left out and no processor clock is read while the proxy runs.

use std::{thread, time::Duration};

use anyhow::{Context, Result};

use crate::{
    backend::{Backend, Service},
    load::{
        Latency,
        bulk::{self, Direction},
        exchange::{self, Until},
        idle::Idle,
        keystrokes, ping_pong,
    },
    memory,
    meter::Cost,
    peers::Running,
    sample::{Metric, Sample, Unit},
    workloads::{AT_ONCE, BESIDE, PACE, TYPISTS, Windows, Workload},
};

/// One sample of a workload through a peer. The main figure comes first.
pub fn measure(
    workload: Workload,
    backend: &Backend,
    peer: &Running,
    windows: &Windows,
) -> Result<Sample> {
    match workload {
        Workload::Bulk(direction, connections) => {
            let to = peer.service(Service::Bulk);
            let ((outcome, memory), cost) = metered(peer, || {
                memory::during(|| {
                    bulk::for_a_while(backend, to, connections, direction, windows.load)
                })
            })?;
            // What is in flight costs the ends, not the proxy: the machine's time says what it takes.
            let mut sample = costs(peer, Unit::Gigabyte, &cost, outcome.bytes);
            sample.reverse();
            sample.insert(1, rate(Unit::Gigabyte, outcome.bytes, outcome.elapsed));
            sample.push((Metric::InFlight, memory.median));
            sample.push((Metric::InFlightMax, memory.most));
            Ok(sample)
        }
        Workload::Connections => {
            let to = peer.ways_to(Service::Exchange);
            let (outcome, cost) = metered(peer, || {
                exchange::run(backend, &to, AT_ONCE, Until::Elapsed(windows.load))
            })?;
            let count = outcome.latency.count();
            let mut sample = costs(peer, Unit::Connection, &cost, count);
            sample.push(rate(Unit::Connection, count, outcome.elapsed));
            sample.extend(latencies(&outcome.latency));
            Ok(sample)
        }
        Workload::PingPong(connections) => {
            let to = peer.service(Service::Echo);
            let (outcome, cost) = metered(peer, || {
                ping_pong::run(backend, to, connections, Until::Elapsed(windows.load))
            })?;
            let count = outcome.latency.count();
            let mut sample = costs(peer, Unit::RoundTrip, &cost, count);
            sample.push(rate(Unit::RoundTrip, count, outcome.elapsed));
            sample.extend(latencies(&outcome.latency));
            Ok(sample)
        }
        Workload::Keystrokes => typing(backend, peer, Service::Echo, windows),
        Workload::DistantKeystrokes => typing(backend, peer, Service::Distant, windows),
        Workload::KeystrokesBesideBulk => keystrokes_beside_bulk(backend, peer, windows),
        Workload::Idle(sessions) => idle(backend, peer, sessions, windows),
    }
}

/// Runs a load and says what it cost.
pub fn metered<T>(peer: &Running, load: impl FnOnce() -> Result<T>) -> Result<(T, Cost)> {
    let before = peer.meter().read()?;
    let outcome = load()?;
    Ok((outcome, peer.meter().since(&before)?))
}

/// The cost of `count` units of work; without a proxy only the machine's.
pub fn costs(peer: &Running, unit: Unit, cost: &Cost, count: u64) -> Sample {
    let mut sample = Sample::new();
    if peer.process().is_some() {
        sample.push((Metric::ProxyCpu(unit), unit.cost(cost.proxy, count)));
    }
    sample.push((Metric::MachineCpu(unit), unit.cost(cost.machine, count)));
    sample
}

fn rate(unit: Unit, count: u64, elapsed: Duration) -> (Metric, f64) {
    (Metric::Rate(unit), unit.rate(count, elapsed))
}

fn latencies(latency: &Latency) -> [(Metric, f64); 3] {
    [
        (Metric::P50, latency.quantile_us(0.5)),
        (Metric::P99, latency.quantile_us(0.99)),
        (Metric::Worst, latency.quantile_us(1.0)),
    ]
}

fn typing(
    backend: &Backend,
    peer: &Running,
    service: Service,
    windows: &Windows,
) -> Result<Sample> {
    let to = peer.service(service);
    let (outcome, cost) = metered(peer, || {
        keystrokes::run(backend, to, TYPISTS, PACE, windows.paced)
    })?;
    let mut sample = costs(peer, Unit::RoundTrip, &cost, outcome.latency.count());
    sample.extend(latencies(&outcome.latency));
    Ok(sample)
}

fn keystrokes_beside_bulk(backend: &Backend, peer: &Running, windows: &Windows) -> Result<Sample> {
    let [echo, bulk] = [Service::Echo, Service::Bulk].map(|service| peer.service(service));
    // Bulk is under way before the first keystroke and after the last.
    let head_start = windows.paced / 10;
    let ((keystrokes, bulk), cost) = metered(peer, || {
        thread::scope(|scope| {
            let bulk = scope.spawn(|| {
                let window = windows.paced + 2 * head_start;
                bulk::for_a_while(backend, bulk, BESIDE, Direction::Down, window)
            });
            thread::sleep(head_start);
            let keystrokes = keystrokes::run(backend, echo, TYPISTS, PACE, windows.paced);
            let bulk = bulk.join().expect("the bulk thread does not panic");
            Ok((keystrokes.context("keystrokes")?, bulk.context("bulk")?))
        })
    })?;
    let mut sample = Sample::from([
        (Metric::P99, keystrokes.latency.quantile_us(0.99)),
        (Metric::P50, keystrokes.latency.quantile_us(0.5)),
        (Metric::Worst, keystrokes.latency.quantile_us(1.0)),
    ]);
    sample.push(rate(Unit::Gigabyte, bulk.bytes, bulk.elapsed));
    sample.extend(costs(peer, Unit::Gigabyte, &cost, bulk.bytes));
    Ok(sample)
}

/// What a proxy does once for a session that turns out to last is not part of idling.
const SETTLE: Duration = Duration::from_millis(1500);

#[expect(
    clippy::cast_precision_loss,
    reason = "memory sizes are exact in a double"
)]
fn idle(backend: &Backend, peer: &Running, sessions: usize, windows: &Windows) -> Result<Sample> {
    // The code of a first session is paged in before the baseline is taken.
    Idle::open(backend, peer.service(Service::Echo), 16)?.close()?;
    let before = peer.meter().holdings()?;
    let idle = Idle::open(backend, peer.service(Service::Echo), sessions)?;
    thread::sleep(SETTLE);
    let with = peer.meter().holdings()?;
    thread::sleep(windows.idle);
    let after = peer.meter().holdings()?;
    idle.close()?;
    let per_session = |with: u64, without: u64| (with as f64 - without as f64) / sessions as f64;
    Ok(vec![
        (Metric::Memory, per_session(with.memory, before.memory)),
        (
            Metric::Descriptors,
            per_session(with.descriptors, before.descriptors),
        ),
        (
            Metric::WakeUps,
            after.sleeps.saturating_sub(with.sleeps) as f64 / windows.idle.as_secs_f64(),
        ),
    ])
}
