//! A session under limits of bandwidth: which apply, and what it may move at the moment.

use std::time::Instant;

use super::{Extras, Turn};
use crate::{
    limit::{Bucket, Lane, Meter, Seat, Tick, Toll},
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
        extras.up = Lane::with_granted(relay.in_flight_to(Side::Target));
        extras.down = Lane::with_granted(relay.in_flight_to(Side::Client));
        extras.wake = extras.wake.map(|_| Tick::default().instant());
    }
}

/// What the session may move in this turn.
pub(super) fn budget(extras: &Extras, mapping: &Mapping, turn: &Turn<'_>) -> Budget {
    let now = Tick::from(turn.now);
    let (up, down) = tolls(&extras.seat, mapping);
    Budget {
        turn: turn.budget,
        up: extras.up.allowance(&up, now),
        down: extras.down.allowance(&down, now),
    }
}

/// Counts what it has moved to the target and to the client.
pub(super) fn charge(extras: &mut Extras, mapping: &Mapping, moved: (u64, u64), now: Instant) {
    let now = Tick::from(now);
    let (up, down) = tolls(&extras.seat, mapping);
    extras.up.charge(&up, moved.0, now);
    extras.down.charge(&down, moved.1, now);
    extras.wake = None;
}

type Tolls<'a> = [Option<Toll<'a>>; 2];

/// What applies to each direction: the limit of the mapping, and that of the source in it.
fn tolls<'a>(seat: &'a Seat, mapping: &'a Mapping) -> (Tolls<'a>, Tolls<'a>) {
    let of_mapping = mapping.gate.as_deref().map(|gate| &gate.bandwidth);
    let shared = [
        mapping.policy.bandwidth.zip(of_mapping),
        mapping.policy.bandwidth_per_source.zip(seat.meter()),
    ];
    let toll = |bucket: fn(&Meter) -> &Bucket| {
        shared.map(|shared| {
            shared.map(|(rate, meter)| Toll {
                rate,
                bucket: bucket(meter),
            })
        })
    };
    (toll(|meter| &meter.up), toll(|meter| &meter.down))
}
