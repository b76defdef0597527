//! The slots of a listener: how many connections there may be at once, and which is evicted for a new
//! one.
//!
//! To have come first gives no right to stay. When no slot is left, or a source has all it may have,
//! the connection ends that has been idle for longest; where none is idle, the one whose client has
//! taken nothing of its answer for longest. So whoever asks at once is served, however many others keep
//! silent or do not read their answers.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{limit::SourceNet, mutex::lock};

/// For how long an answer may take before its slot can go to another.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// For how long a client may take nothing of its answer before its slot can go to another:
/// whoever reads takes something more often.
const MOVES_WITHIN: Duration = Duration::from_millis(20);

/// How often whoever waits for a slot looks for one that stands still.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address.
pub(super) fn source(address: IpAddr) -> SourceNet {
    SourceNet::of(address, 32, 64)
}

#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    most_per_source: usize,
    taken: Mutex<Vec<Arc<Slot>>>,
    freed: Notify,
}

#[derive(Debug)]
pub(super) struct Slot {
    source: Option<SourceNet>,
    state: Mutex<State>,
    evicted: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
struct State {
    stage: Stage,
    /// When the stage began, or the last bytes of an answer were taken.
    since: Instant,
    /// Whether the kernel may still have an answer to deliver.
    answered: bool,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The head of a request, or something to tell of.
    Idle,
    /// The answer to a request.
    Answer,
    /// That the client takes it.
    Client,
}

impl Stage {
    /// How long a slot is safe in this stage.
    fn safe_for(self) -> Duration {
        match self {
            Self::Idle => Duration::ZERO,
            Self::Answer => ANSWERED_WITHIN,
            Self::Client => MOVES_WITHIN,
        }
    }
}

/// A slot as long as it is held.
#[derive(Debug)]
pub(super) struct SlotGuard {
    slots: Arc<Slots>,
    slot: Arc<Slot>,
}

enum Tried {
    Taken(SlotGuard),
    SourceFull,
    Full,
}

impl Slots {
    pub fn new(most: usize, most_per_source: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_source,
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Takes a slot, and waits for one where all are in use. None if the source has all it may have
    /// and makes use of them.
    pub async fn take(self: &Arc<Self>, source: Option<SourceNet>) -> Option<SlotGuard> {
        loop {
            match self.try_take(source, Instant::now()) {
                Tried::Taken(guard) => return Some(guard),
                Tried::SourceFull => return None,
                Tried::Full => {
                    // Either way it is looked again.
                    let _ = timeout(LOOK_EVERY, self.freed.notified()).await;
                }
            }
        }
    }

    fn try_take(self: &Arc<Self>, source: Option<SourceNet>, now: Instant) -> Tried {
        let mut taken = lock(&self.taken);
        let same = |slot: &&Arc<Slot>| source.is_some() && slot.source == source;
        if taken.iter().filter(same).count() >= self.most_per_source {
            match evictable(taken.iter().filter(same), now) {
                Some(slot) => evict(&mut taken, &slot),
                None => return Tried::SourceFull,
            }
        }
        if taken.len() >= self.most {
            match evictable(taken.iter(), now) {
                Some(slot) => evict(&mut taken, &slot),
                None => return Tried::Full,
            }
        }
        let slot = Arc::new(Slot {
            source,
            state: Mutex::new(State {
                stage: Stage::Idle,
                since: now,
                answered: false,
            }),
            evicted: CancellationToken::new(),
        });
        taken.push(Arc::clone(&slot));
        drop(taken);
        Tried::Taken(SlotGuard {
            slots: Arc::clone(self),
            slot,
        })
    }
}

/// The one whose slot goes to another first, if any may.
fn evictable<'a>(slots: impl Iterator<Item = &'a Arc<Slot>>, now: Instant) -> Option<Arc<Slot>> {
    let ranked = slots.map(|slot| {
        let State { stage, since, .. } = *lock(&slot.state);
        (stage, since, slot)
    });
    ranked
        .filter(|(stage, since, _)| now.duration_since(*since) >= stage.safe_for())
        .min_by_key(|(stage, since, _)| (*stage != Stage::Idle, *since))
        .map(|(.., slot)| Arc::clone(slot))
}

fn evict(taken: &mut Vec<Arc<Slot>>, slot: &Arc<Slot>) {
    taken.retain(|other| !Arc::ptr_eq(other, slot));
    slot.evicted.cancel();
}

impl Slot {
    /// Says what the connection waits for from now on.
    pub fn waits_for(&self, stage: Stage) {
        let mut state = lock(&self.state);
        state.answered |= state.stage == Stage::Client && stage == Stage::Idle;
        (state.stage, state.since) = (stage, Instant::now());
    }

    /// Says that the client has taken some of its answer.
    pub fn moved(&self) {
        let mut state = lock(&self.state);
        if state.stage == Stage::Client {
            state.since = Instant::now();
        }
    }

    /// Whether the connection is to end in a reset: its client takes nothing of its answer, or it ended
    /// for another before it had an answer.
    pub fn is_cut(&self) -> bool {
        let state = lock(&self.state);
        state.stage == Stage::Client || (self.evicted.is_cancelled() && !state.answered)
    }
}

impl SlotGuard {
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Waits until the slot goes to another.
    pub async fn evicted(&self) {
        self.slot.evicted.cancelled().await;
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let slot = &self.slot;
        lock(&self.slots.taken).retain(|other| !Arc::ptr_eq(other, slot));
        self.slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(last: u8) -> Option<SourceNet> {
        Some(source(IpAddr::from([192, 0, 2, last])))
    }

    fn taken(tried: Tried) -> SlotGuard {
        match tried {
            Tried::Taken(guard) => guard,
            Tried::SourceFull => panic!("the source is full"),
            Tried::Full => panic!("all are in use"),
        }
    }

    fn was_evicted(guard: &SlotGuard) -> bool {
        guard.slot.evicted.is_cancelled()
    }

    #[test]
    fn the_longest_silent_goes_for_whoever_comes() {
        let slots = Slots::new(3, 3);
        let now = Instant::now();
        let take = |last| taken(slots.try_take(net(last), now));
        let [asked, silent, also_silent] = [take(1), take(2), take(3)];
        asked.slot.waits_for(Stage::Answer);
        let _new = take(4);
        assert!(was_evicted(&silent) && !was_evicted(&asked) && !was_evicted(&also_silent));
        assert_eq!(lock(&slots.taken).len(), 3);
    }

    #[test]
    fn a_source_with_all_its_places_pays_for_its_own_newcomers() {
        let slots = Slots::new(8, 2);
        let now = Instant::now();
        let other = taken(slots.try_take(net(1), now));
        let [first, second] = [0; 2].map(|_| taken(slots.try_take(net(2), now)));
        let third = taken(slots.try_take(net(2), now));
        assert!(was_evicted(&first) && !was_evicted(&second) && !was_evicted(&other));
        second.slot.waits_for(Stage::Answer);
        third.slot.waits_for(Stage::Answer);
        assert!(matches!(slots.try_take(net(2), now), Tried::SourceFull));
        drop(third);
        taken(slots.try_take(net(2), now));
    }

    #[test]
    fn who_does_not_take_its_answer_goes_only_after_a_while() {
        let slots = Slots::new(2, 2);
        let now = Instant::now();
        let both = [1, 2].map(|last| taken(slots.try_take(net(last), now)));
        for guard in &both {
            guard.slot.waits_for(Stage::Client);
        }
        assert!(matches!(slots.try_take(net(3), now), Tried::Full));
        let later = Instant::now() + MOVES_WITHIN;
        taken(slots.try_take(net(3), later));
        assert!(was_evicted(&both[0]) && !was_evicted(&both[1]));
    }
}
