//! A session under limits of bandwidth: which apply, and what it may move at the moment.

use std::time::Instant;

use super::{Extras, Turn};
use crate::{
    limit::{Admission, Bucket, Meter, Quota, Throttle, Tick},
    relay::{Budget, Level, Relay, Side},
    table::Mapping,
};

/// Has a session take on the limits of its mapping, which may be new to it. What it had to wait for
/// under others is forgotten, and what it has read under them is not charged.
pub(super) fn take_on(
    extras: &mut Option<Box<Extras>>,
    mapping: &Mapping,
    relay: &Relay<impl Level>,
) {
    if mapping.policy.bandwidth.is_some() {
        extras.get_or_insert_default();
    }
    if let Some(extras) = extras {
        extras.up = Throttle::with_granted(relay.in_flight_to(Side::Target));
        extras.down = Throttle::with_granted(relay.in_flight_to(Side::Client));
        extras.wake = extras.wake.map(|_| Tick::default().instant());
    }
}

/// What the session may move in this turn.
pub(super) fn budget(extras: &Extras, mapping: &Mapping, turn: &Turn<'_>) -> Budget {
    let now = Tick::from(turn.now);
    let (up, down) = quotas(&extras.admission, mapping);
    Budget {
        turn: turn.budget,
        up: extras.up.allowance(&up, now),
        down: extras.down.allowance(&down, now),
    }
}

/// Counts what it has moved to the target and to the client.
pub(super) fn charge(extras: &mut Extras, mapping: &Mapping, moved: (u64, u64), now: Instant) {
    let now = Tick::from(now);
    let (up, down) = quotas(&extras.admission, mapping);
    extras.up.charge(&up, moved.0, now);
    extras.down.charge(&down, moved.1, now);
    extras.wake = None;
}

type Quotas<'a> = [Option<Quota<'a>>; 2];

/// What applies to each direction: the limit of the mapping, and that of the source in it.
fn quotas<'a>(admission: &'a Admission, mapping: &'a Mapping) -> (Quotas<'a>, Quotas<'a>) {
    let of_mapping = mapping.gate.as_deref().map(|gate| &gate.bandwidth);
    let shared = [
        mapping.policy.bandwidth.zip(of_mapping),
        mapping.policy.bandwidth_per_source.zip(admission.meter()),
    ];
    let quota = |bucket: fn(&Meter) -> &Bucket| {
        shared.map(|shared| {
            shared.map(|(rate, meter)| Quota {
                rate,
                bucket: bucket(meter),
            })
        })
    };
    (quota(|meter| &meter.up), quota(|meter| &meter.down))
}
