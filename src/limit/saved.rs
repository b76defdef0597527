//! What is counted, as it is handed over to the next image of the program.
//!
//! Places of live sessions are not among it: whoever loads a session has it counted in again
//! ([`Gate::count_again`]), so that each is counted once.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::{
    Admission, Bucket, Dialling, Gate, Limits, MappingGate, Meter, SessionLimits, SourceNet, Tick,
    gate::next_scope,
    sources::{SavedSource, Scope, SourceKey},
};
use crate::handover::LoadError;

/// Limits of the process with what stands beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLimits {
    limits: Limits,
    #[serde(default)]
    sessions: SessionLimits,
}

impl From<&Limits> for SavedLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            sessions: limits.sessions.clone(),
        }
    }
}

impl From<SavedLimits> for Limits {
    fn from(SavedLimits { limits, sessions }: SavedLimits) -> Self {
        Self { sessions, ..limits }
    }
}

/// A bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBucket {
    #[serde(default)]
    full: Tick,
    #[serde(default)]
    allowance: u64,
}

/// What is counted for all who share the bandwidth of a mapping, or of a source in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMeter {
    #[serde(default)]
    up: SavedBucket,
    #[serde(default)]
    down: SavedBucket,
}

/// What is counted for a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMappingGate {
    /// By what sources in this mapping are known.
    scope: u32,
    #[serde(default)]
    begun: SavedBucket,
    #[serde(default)]
    bandwidth: SavedMeter,
}

/// What is counted for the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGate {
    limits: SavedLimits,
    max_sessions: u32,
    #[serde(default)]
    begun: SavedBucket,
    /// Those unused for longest first.
    #[serde(default)]
    sources: Vec<SavedSource>,
    /// Sources that were forgotten to make room, and that were banned, so far.
    #[serde(default)]
    evicted: u64,
    #[serde(default)]
    banned: u64,
}

/// A session's place among those that are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedAdmission {
    /// As what source, for the process and for the mapping it came to.
    #[serde(default, skip_serializing_if = "no_sources")]
    sources: [Option<(u32, SourceNet)>; 2],
    /// Whether the bandwidth of the source is limited.
    #[serde(default)]
    metered: bool,
    /// Whether it waits for its target, counted for the mapping and for the process.
    #[serde(default)]
    dialling: [bool; 2],
}

fn no_sources(sources: &[Option<(u32, SourceNet)>; 2]) -> bool {
    sources.iter().all(Option::is_none)
}

impl SavedAdmission {
    /// Of both places that a session holds.
    pub fn of(admission: &Admission, dialling: &Dialling) -> Self {
        let sources = admission.sources.as_ref().map(|(_, keys)| *keys);
        Self {
            sources: sources
                .unwrap_or_default()
                .map(|key| key.map(|key| (key.scope.0, key.net))),
            metered: admission.meter.is_some(),
            dialling: dialling.0.each_ref().map(Option::is_some),
        }
    }
}

impl Bucket {
    pub(super) fn save(&self) -> SavedBucket {
        SavedBucket {
            full: Tick(self.full.load(Relaxed)),
            allowance: self.allowance.load(Relaxed),
        }
    }

    pub(super) fn load(SavedBucket { full, allowance }: SavedBucket) -> Self {
        Self {
            full: full.0.into(),
            allowance: allowance.into(),
        }
    }
}

impl Meter {
    pub(super) fn save(&self) -> SavedMeter {
        let Self { up, down } = self;
        SavedMeter {
            up: up.save(),
            down: down.save(),
        }
    }

    pub(super) fn load(SavedMeter { up, down }: SavedMeter) -> Self {
        Self {
            up: Bucket::load(up),
            down: Bucket::load(down),
        }
    }
}

impl MappingGate {
    /// What is counted but the places of sessions.
    pub fn save(&self) -> SavedMappingGate {
        let Self {
            scope,
            begun,
            dialling: _,
            bandwidth,
        } = self;
        SavedMappingGate {
            scope: scope.0,
            begun: begun.save(),
            bandwidth: bandwidth.save(),
        }
    }

    /// Goes on counting.
    ///
    /// # Errors
    ///
    /// It is known as the process is.
    pub fn load(saved: SavedMappingGate) -> Result<Self, LoadError> {
        let SavedMappingGate {
            scope,
            begun,
            bandwidth,
        } = saved;
        if scope == Scope::PROCESS.0 || scope == u32::MAX {
            let why = format!("{scope} stands for no mapping");
            return Err(LoadError::value("scope of a mapping", why));
        }
        // One that is made later is another.
        next_scope(scope + 1);
        Ok(Self {
            scope: Scope(scope),
            begun: Bucket::load(begun),
            dialling: Arc::default(),
            bandwidth: Meter::load(bandwidth),
        })
    }
}

impl Gate {
    /// What is counted but the places of sessions.
    pub fn save(&self) -> SavedGate {
        let Self {
            limits,
            max_sessions,
            begun,
            dialling: _,
            sources,
        } = self;
        SavedGate {
            limits: SavedLimits::from(&**limits.load()),
            max_sessions: max_sessions.load(Relaxed),
            begun: begun.save(),
            sources: sources.save(),
            evicted: sources.evicted(),
            banned: sources.banned(),
        }
    }

    /// Goes on counting.
    pub fn load(saved: SavedGate) -> Self {
        let SavedGate {
            limits,
            max_sessions,
            begun,
            sources,
            evicted,
            banned,
        } = saved;
        let gate = Self {
            begun: Bucket::load(begun),
            ..Self::new(limits.into(), max_sessions)
        };
        gate.sources.load(sources, evicted, banned);
        gate
    }

    /// Counts a session in that was counted in before it was handed over, whatever the limits are
    /// now. `gate` is that of its mapping.
    pub fn count_again(
        &self,
        saved: &SavedAdmission,
        gate: Option<&MappingGate>,
    ) -> (Admission, Dialling) {
        let SavedAdmission {
            sources,
            metered,
            dialling,
        } = saved;
        let key = |(scope, net)| SourceKey {
            scope: Scope(scope),
            net,
        };
        let keys = sources.map(|source| source.map(key));
        keys.iter()
            .flatten()
            .for_each(|key| self.sources.enter_again(*key));
        let meter = keys[1].filter(|_| *metered);
        let admission = Admission {
            meter: meter.map(|key| self.sources.meter(key)),
            sources: (keys != [None; 2]).then(|| (Arc::clone(&self.sources), keys)),
        };
        let counters = [gate.map(|gate| &gate.dialling), Some(&self.dialling)];
        let mut places = Dialling::default();
        for ((place, counter), waits) in places.0.iter_mut().zip(counters).zip(dialling) {
            *place = counter.filter(|_| *waits).map(Arc::clone);
            if let Some(counter) = place {
                counter.fetch_add(1, Relaxed);
            }
        }
        (admission, places)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        num::NonZeroU64,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        end_reason::EndReason,
        limit::{Arrival, Ban, Rate, Throttle},
        setting::AutoOr,
    };

    fn through_json<T: Serialize + for<'de> Deserialize<'de>>(value: &T) -> T {
        let text = serde_json::to_vec(value).expect("plain values");
        serde_json::from_slice(&text).expect("as it was written")
    }

    fn limits() -> Limits {
        let one = NonZeroU64::new(1).map(Rate::even);
        Limits {
            max_sessions: AutoOr::Value(7.try_into().expect("not 0")),
            sessions: SessionLimits {
                max_sessions_per_source: Some(2),
                new_sessions: NonZeroU64::new(1000).map(Rate::even),
                new_sessions_per_source: one,
                max_dialling: Some(3),
            },
            source_prefix_v4: 24,
            source_prefix_v6: 48,
            ban: Some(Ban {
                after: 1,
                within: Duration::from_secs(60),
                lasts: Duration::from_secs(600),
            }),
            exempt: vec!["198.51.100.0/24".parse().expect("a prefix")],
        }
    }

    fn arrival<'a>(
        client: &str,
        limits: &'a SessionLimits,
        gate: &'a MappingGate,
        now: Tick,
    ) -> Arrival<'a> {
        Arrival {
            client: client.parse().expect("an address"),
            limits,
            gate: Some(gate),
            metered: true,
            now,
        }
    }

    #[test]
    fn bans_rates_and_places_go_on() {
        let gate = Gate::new(limits(), 70);
        let of_mapping = SessionLimits {
            max_sessions_per_source: Some(1),
            max_dialling: Some(1),
            ..SessionLimits::default()
        };
        let mapping = MappingGate::new();
        let now = Tick::from(Instant::now()).after(Duration::from_secs(1));
        let admit = |gate: &Gate, mapping: &MappingGate, client: &str, now| {
            let admitted = gate.admit(&arrival(client, &of_mapping, mapping, now));
            admitted.map(Option::unwrap_or_default)
        };
        let (admission, dialling) =
            admit(&gate, &mapping, "192.0.2.1:1", now).expect("it is the first");
        let refused = admit(&gate, &mapping, "192.0.2.2:1", now).expect_err("too soon");
        assert_eq!(refused, EndReason::SourceRate);
        let meter = admission.meter().expect("it is metered");
        let rate = Rate::of(1000, 1000);
        meter.up.charge(rate, 5000, now);
        mapping.bandwidth.down.charge(rate, 6000, now);
        let (up, down) = (meter.save().up, mapping.bandwidth.save().down);

        let again = Gate::load(through_json(&gate.save()));
        // Sources are in no order.
        let in_order = |gate: &Gate| {
            let mut saved = gate.save();
            saved.sources.sort_by_key(|source| format!("{source:?}"));
            saved
        };
        assert_eq!(in_order(&again), in_order(&gate));
        assert_eq!((again.max_sessions(), again.sources().banned()), (70, 1));
        let saved = through_json(&SavedAdmission::of(&admission, &dialling));
        let mapping_again = MappingGate::load(through_json(&mapping.save())).expect("a mapping");
        assert_eq!(mapping_again.bandwidth.save().down, down);
        let refused = admit(&again, &mapping_again, "192.0.2.3:1", now);
        assert_eq!(refused.map(|_| ()), Err(EndReason::Banned));
        let later = now.after(Duration::from_secs(601));
        let (admission, dialling) = again.count_again(&saved, Some(&mapping_again));
        assert_eq!(
            admission.meter().map(Meter::save).map(|meter| meter.up),
            Some(up)
        );
        let refused = admit(&again, &mapping_again, "192.0.2.4:1", later);
        assert_eq!(refused.map(|_| ()), Err(EndReason::SourceFull));
        let refused = admit(&again, &mapping_again, "203.0.113.1:1", later);
        assert_eq!(refused.map(|_| ()), Err(EndReason::DiallingFull));
        drop((admission, dialling));
        let much_later = later.after(Duration::from_secs(601));
        assert!(admit(&again, &mapping_again, "192.0.2.4:1", much_later).is_ok());
        assert_ne!(MappingGate::new().save().scope, mapping_again.save().scope);
    }

    #[test]
    fn a_session_without_limits_holds_no_place() {
        let gate = Gate::default();
        let saved = SavedAdmission::of(&Admission::default(), &Dialling::default());
        assert_eq!(serde_json::to_string(&saved).expect("values").len(), 42);
        let (admission, dialling) = gate.count_again(&saved, None);
        assert_eq!(SavedAdmission::of(&admission, &dialling), saved);
        assert_eq!(gate.sources().tracked(), 0);
    }

    #[test]
    fn a_throttle_waits_as_long_as_it_had_to() {
        let mut throttle = Throttle::with_granted(5);
        let bucket = Bucket::default();
        let quota = [Some(super::super::Quota {
            rate: Rate::of(1000, 1000),
            bucket: &bucket,
        })];
        let now = Tick::from(Instant::now());
        throttle.charge(&quota, 4005, now);
        let again = through_json(&throttle);
        assert_eq!(again, throttle);
        assert!(again.ready() > now);
    }

    #[test]
    fn what_cannot_be_is_no_panic() {
        for text in [r#"{"scope":0}"#, r#"{"scope":4294967295}"#] {
            let saved: SavedMappingGate = serde_json::from_str(text).expect("values");
            assert!(MappingGate::load(saved).is_err());
        }
        for nanos in [i64::MIN, -1, 0, i64::MAX] {
            let tick: Tick = serde_json::from_str(&nanos.to_string()).expect("a number");
            through_json(&tick.after(Duration::from_secs(1)));
        }
        let far = through_json(&Tick(u64::MAX));
        assert!(far > Tick::from(Instant::now()).after(Duration::from_secs(1 << 32)));
    }
}
