//! Who gets in: the limits of the process and of a mapping, applied to one arrival.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;

use super::{
    Bucket, Limits, Meter, Rate, SessionLimits, SourceNet, SourceTable, Tick,
    sources::{Scope, SourceKey},
};
use crate::end_reason::EndReason;

/// What is counted for the process.
#[derive(Debug, Default)]
pub struct Gate {
    pub(super) limits: ArcSwap<Limits>,
    pub(super) max_sessions: AtomicU32,
    pub(super) begun: Bucket,
    pub(super) dialling: Arc<AtomicU32>,
    pub(super) sources: Arc<SourceTable>,
}

/// What is counted for one mapping.
#[derive(Debug)]
pub struct MappingGate {
    pub(super) scope: Scope,
    pub(super) begun: Bucket,
    pub(super) dialling: Arc<AtomicU32>,
    /// Bytes of all its sessions.
    pub bandwidth: Meter,
}

/// A client that wants a session.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub client: SocketAddr,
    pub limits: &'a SessionLimits,
    /// What is counted for that mapping; none if it has no limits.
    pub gate: Option<&'a MappingGate>,
    /// Whether the mapping limits the bandwidth of sources.
    pub metered: bool,
    pub now: Tick,
}

/// A session's place among those that are counted; dropping it gives it back.
#[derive(Debug, Default)]
pub struct Admission {
    pub(super) sources: Option<(Arc<SourceTable>, [Option<SourceKey>; 2])>,
    pub(super) meter: Option<Arc<Meter>>,
}

impl Admission {
    /// The bytes of all sessions of the source in this mapping.
    pub fn meter(&self) -> Option<&Meter> {
        self.meter.as_deref()
    }
}

/// A session's place among those that wait for their target; dropping it gives it back.
#[derive(Debug, Default)]
pub struct Dialling(pub(super) [Option<Arc<AtomicU32>>; 2]);

impl Gate {
    /// A gate with limits, and room for so many sessions.
    pub fn new(limits: Limits, max_sessions: u32) -> Self {
        let gate = Self::default();
        gate.set(limits, max_sessions);
        gate
    }

    pub fn set(&self, limits: Limits, max_sessions: u32) {
        self.limits.store(Arc::new(limits));
        self.max_sessions.store(max_sessions, Relaxed);
    }

    pub fn set_max_sessions(&self, max_sessions: u32) {
        self.max_sessions.store(max_sessions, Relaxed);
    }

    pub fn max_sessions(&self) -> u32 {
        self.max_sessions.load(Relaxed)
    }

    pub fn sources(&self) -> &SourceTable {
        &self.sources
    }

    /// Counts a client in, unless a limit keeps it out. Nothing stays counted of one that is kept
    /// out but its attempt. The answer is nothing where nothing is counted.
    ///
    /// What is a source's own comes first, so that one that asks too much takes nothing from the
    /// rates that all share.
    pub fn admit(&self, arrival: &Arrival<'_>) -> Result<Option<(Admission, Dialling)>, EndReason> {
        let limits = self.limits.load();
        let counts = limits.ban.is_some() || limits.sessions != SessionLimits::default();
        if arrival.gate.is_none() && !counts {
            return Ok(None);
        }
        let admission = self.admission(arrival, &limits)?;
        let own = arrival.gate.map(|gate| (arrival.limits, gate));
        if let Some((limits, gate)) = own {
            take(
                limits.new_sessions,
                &gate.begun,
                arrival.now,
                EndReason::MappingRate,
            )?;
        }
        let rate = limits.sessions.new_sessions;
        take(rate, &self.begun, arrival.now, EndReason::ProcessRate)?;
        let of_mapping =
            own.and_then(|(limits, gate)| Some((limits.max_dialling?, &gate.dialling)));
        let of_process = limits
            .sessions
            .max_dialling
            .map(|max| (max, &self.dialling));
        let mut dialling = Dialling::default();
        for (place, counted) in dialling.0.iter_mut().zip([of_mapping, of_process]) {
            if let Some((max, counter)) = counted {
                *place = Some(count_in(counter, max).ok_or(EndReason::DiallingFull)?);
            }
        }
        let holds = admission.sources.is_some() || dialling.0.iter().any(Option::is_some);
        Ok(holds.then_some((admission, dialling)))
    }

    fn admission(&self, arrival: &Arrival<'_>, limits: &Limits) -> Result<Admission, EndReason> {
        let Some(net) = limits.source(arrival.client) else {
            return Ok(Admission::default());
        };
        if limits.ban.is_some() && self.sources.is_banned(net, arrival.now) {
            return Err(EndReason::Banned);
        }
        let of_process = Some((&limits.sessions, Scope::PROCESS, false));
        let of_mapping = arrival
            .gate
            .map(|gate| (arrival.limits, gate.scope, arrival.metered));
        let mut admission = Admission::default();
        for (place, counted) in [of_process, of_mapping].into_iter().enumerate() {
            let Some((own, scope, metered)) = counted else {
                continue;
            };
            if !own.counts_sources() && !metered {
                continue;
            }
            let key = SourceKey { scope, net };
            if let Err(reason) = self.sources.enter(key, own, arrival.now) {
                self.strike(net, limits, arrival.now);
                return Err(reason);
            }
            let (_, keys) = admission
                .sources
                .get_or_insert_with(|| (Arc::clone(&self.sources), [None; 2]));
            keys[place] = Some(key);
            if metered {
                admission.meter = Some(self.sources.meter(key));
            }
        }
        Ok(admission)
    }

    fn strike(&self, net: SourceNet, limits: &Limits, now: Tick) {
        if let Some(ban) = limits.ban
            && self.sources.strike(net, ban, now)
        {
            // At most once in the time a source is banned.
            tracing::info!(source = %net.in_log(), lasts = ?ban.lasts, "client banned");
        }
    }
}

/// What the next mapping is known as; at least `least`.
pub(super) fn next_scope(least: u32) -> &'static AtomicU32 {
    static NEXT: AtomicU32 = AtomicU32::new(Scope::PROCESS.0 + 1);
    NEXT.fetch_max(least, Relaxed);
    &NEXT
}

impl MappingGate {
    pub fn new() -> Self {
        Self {
            scope: Scope(next_scope(0).fetch_add(1, Relaxed)),
            begun: Bucket::default(),
            dialling: Arc::default(),
            bandwidth: Meter::default(),
        }
    }
}

impl Default for MappingGate {
    fn default() -> Self {
        Self::new()
    }
}

fn take(
    rate: Option<Rate>,
    bucket: &Bucket,
    now: Tick,
    reason: EndReason,
) -> Result<(), EndReason> {
    match rate {
        Some(rate) if !bucket.take(rate, now) => Err(reason),
        _ => Ok(()),
    }
}

fn count_in(counter: &Arc<AtomicU32>, max: u32) -> Option<Arc<AtomicU32>> {
    let next = |count| (count < max).then_some(count + 1);
    let counted = counter.fetch_update(Relaxed, Relaxed, next);
    counted.ok().map(|_| Arc::clone(counter))
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some((sources, keys)) = &self.sources {
            keys.iter().flatten().for_each(|key| sources.leave(*key));
        }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        for counter in self.0.iter().flatten() {
            counter.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, time::Duration};

    use super::*;
    use crate::limit::Ban;

    const NOW: Tick = Tick(1_000_000_000_000);

    fn rate(per_second: u64) -> Option<Rate> {
        NonZeroU64::new(per_second).map(Rate::even)
    }

    fn process(sessions: SessionLimits) -> Gate {
        let limits = Limits {
            sessions,
            ..Limits::default()
        };
        Gate::new(limits, u32::MAX)
    }

    fn from(text: &str) -> Arrival<'static> {
        static NO_LIMITS: SessionLimits = SessionLimits {
            max_sessions_per_source: None,
            new_sessions: None,
            new_sessions_per_source: None,
            max_dialling: None,
        };
        Arrival {
            client: SocketAddr::new(text.parse().expect("an address"), 1),
            limits: &NO_LIMITS,
            gate: None,
            metered: false,
            now: NOW,
        }
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let gate = process(SessionLimits::default());
        assert!(gate.admit(&from("192.0.2.1")).expect("no limit").is_none());
        assert_eq!(gate.sources().tracked(), 0);
    }

    #[test]
    fn a_refused_client_leaves_nothing_behind() {
        let gate = process(SessionLimits {
            max_sessions_per_source: Some(9),
            max_dialling: Some(1),
            ..SessionLimits::default()
        });
        let first = gate.admit(&from("192.0.2.1")).expect("room for one");
        for _ in 0..100 {
            let refused = gate.admit(&from("192.0.2.1")).expect_err("one dials");
            assert_eq!(refused, EndReason::DiallingFull);
        }
        let (_seat, dialling) = first.expect("it is counted");
        drop(dialling);
        assert!(gate.admit(&from("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_greedy_source_takes_nothing_from_the_rate_of_all() {
        let gate = process(SessionLimits {
            new_sessions: rate(3),
            new_sessions_per_source: rate(1),
            ..SessionLimits::default()
        });
        let admit = |text| gate.admit(&from(text)).map(|_| ());
        assert_eq!(admit("192.0.2.1"), Ok(()));
        for _ in 0..100 {
            assert_eq!(admit("192.0.2.1"), Err(EndReason::SourceRate));
        }
        assert_eq!(admit("192.0.2.2"), Ok(()));
        assert_eq!(admit("192.0.2.3"), Ok(()));
        assert_eq!(admit("192.0.2.4"), Err(EndReason::ProcessRate));
    }

    #[test]
    fn a_mapping_counts_for_itself() {
        let gate = process(SessionLimits::default());
        let limits = SessionLimits {
            max_sessions_per_source: Some(1),
            new_sessions: rate(2),
            ..SessionLimits::default()
        };
        let mappings = [MappingGate::new(), MappingGate::new()];
        let arrive = |mapping: usize, text| Arrival {
            limits: &limits,
            gate: Some(&mappings[mapping]),
            ..from(text)
        };
        let _first = gate.admit(&arrive(0, "192.0.2.1")).expect("the first");
        let refused = gate.admit(&arrive(0, "192.0.2.1")).map(|_| ());
        assert_eq!(refused, Err(EndReason::SourceFull));
        let _other = gate.admit(&arrive(1, "192.0.2.1")).expect("elsewhere");
        let _second = gate.admit(&arrive(0, "192.0.2.2")).expect("the second");
        let refused = gate.admit(&arrive(0, "192.0.2.3")).map(|_| ());
        assert_eq!(refused, Err(EndReason::MappingRate));
    }

    #[test]
    fn a_source_that_keeps_asking_is_banned_unless_it_is_exempt() {
        let limits = |exempt: &[&str]| Limits {
            sessions: SessionLimits {
                new_sessions_per_source: rate(1),
                ..SessionLimits::default()
            },
            ban: Some(Ban {
                after: 2,
                within: Duration::from_secs(60),
                lasts: Duration::from_secs(60),
            }),
            exempt: exempt
                .iter()
                .map(|net| net.parse().expect("a prefix"))
                .collect(),
            ..Limits::default()
        };
        let gate = Gate::new(limits(&["198.51.100.0/24"]), u32::MAX);
        let admit = |text| gate.admit(&from(text)).map(|_| ());
        assert_eq!(admit("2001:db8::1"), Ok(()));
        assert_eq!(admit("2001:db8::2"), Err(EndReason::SourceRate));
        assert_eq!(admit("2001:db8::3"), Err(EndReason::SourceRate));
        assert_eq!(admit("2001:db8::4"), Err(EndReason::Banned));
        assert_eq!(admit("2001:db8:0:1::4"), Ok(()));
        for _ in 0..100 {
            assert_eq!(admit("198.51.100.1"), Ok(()));
        }
        gate.set(Limits::default(), u32::MAX);
        assert_eq!(admit("2001:db8::4"), Ok(()), "lifted by a reload");
    }
}
