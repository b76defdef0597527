//! The places of a listener: how many connections there may be at once, and which ends for a new one.
//!
//! To have come first gives no right to stay. When no place is left, or a source has all it may have,
//! the connection ends that has been idle for longest; where none is idle, the one whose client has
//! taken nothing of its answer for longest. So whoever asks at once is served, however many others keep
//! silent or do not read their answers.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

use super::lock;
use crate::limit::SourceNet;

/// For how long an answer may take before its place can go to another.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// For how long a client may take nothing of its answer before its place can go to another:
/// whoever reads takes something more often.
const MOVES_WITHIN: Duration = Duration::from_millis(20);

/// How often whoever waits for a place looks for one that stands still.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address.
pub(super) fn source(address: IpAddr) -> SourceNet {
    SourceNet::of(address, 32, 64)
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_per_source: usize,
    taken: Mutex<Vec<Arc<Place>>>,
    freed: Notify,
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    source: Option<SourceNet>,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Clone, Copy)]
struct State {
    stage: Stage,
    /// When the stage began, or the last bytes of an answer were taken.
    since: Instant,
    /// Whether the kernel may still have an answer to deliver.
    answered: bool,
    /// Whether it was ended for another.
    ended: bool,
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
    /// How long a place is safe in this stage.
    fn safe_for(self) -> Duration {
        match self {
            Self::Idle => Duration::ZERO,
            Self::Answer => ANSWERED_WITHIN,
            Self::Client => MOVES_WITHIN,
        }
    }
}

/// A place as long as it is held.
#[derive(Debug)]
pub(super) struct Held {
    places: Arc<Places>,
    place: Arc<Place>,
}

/// What came of trying to get a place.
enum Tried {
    Taken(Held),
    SourceFull,
    Full,
}

impl Places {
    /// So many places, of which a source may have so many.
    pub fn new(most: usize, most_per_source: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_source,
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Takes a place, and waits for one where all are in use. None if the source has all it may have
    /// and makes use of them.
    pub async fn take(self: &Arc<Self>, source: Option<SourceNet>) -> Option<Held> {
        loop {
            match self.try_take(source, Instant::now()) {
                Tried::Taken(held) => return Some(held),
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
        let same = |place: &&Arc<Place>| source.is_some() && place.source == source;
        if taken.iter().filter(same).count() >= self.most_per_source {
            match expendable(taken.iter().filter(same), now) {
                Some(place) => end(&mut taken, &place),
                None => return Tried::SourceFull,
            }
        }
        if taken.len() >= self.most {
            match expendable(taken.iter(), now) {
                Some(place) => end(&mut taken, &place),
                None => return Tried::Full,
            }
        }
        let place = Arc::new(Place {
            source,
            state: Mutex::new(State {
                stage: Stage::Idle,
                since: now,
                answered: false,
                ended: false,
            }),
            ended: Notify::new(),
        });
        taken.push(Arc::clone(&place));
        drop(taken);
        Tried::Taken(Held {
            places: Arc::clone(self),
            place,
        })
    }
}

/// The one whose place goes to another first, if any may.
fn expendable<'a>(
    places: impl Iterator<Item = &'a Arc<Place>>,
    now: Instant,
) -> Option<Arc<Place>> {
    let ranked = places.map(|place| {
        let State { stage, since, .. } = *lock(&place.state);
        (stage, since, place)
    });
    ranked
        .filter(|(stage, since, _)| now.duration_since(*since) >= stage.safe_for())
        .min_by_key(|(stage, since, _)| (*stage != Stage::Idle, *since))
        .map(|(.., place)| Arc::clone(place))
}

fn end(taken: &mut Vec<Arc<Place>>, place: &Arc<Place>) {
    taken.retain(|other| !Arc::ptr_eq(other, place));
    lock(&place.state).ended = true;
    place.ended.notify_one();
}

impl Place {
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
        state.stage == Stage::Client || (state.ended && !state.answered)
    }
}

impl Held {
    /// The place.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Waits until the place goes to another.
    pub async fn ended(&self) {
        self.place.ended.notified().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let place = &self.place;
        lock(&self.places.taken).retain(|other| !Arc::ptr_eq(other, place));
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(last: u8) -> Option<SourceNet> {
        Some(source(IpAddr::from([192, 0, 2, last])))
    }

    fn taken(tried: Tried) -> Held {
        match tried {
            Tried::Taken(held) => held,
            Tried::SourceFull => panic!("the source is full"),
            Tried::Full => panic!("all are in use"),
        }
    }

    fn was_ended(held: &Held) -> bool {
        lock(&held.place.state).ended
    }

    #[test]
    fn the_longest_silent_goes_for_whoever_comes() {
        let places = Places::new(3, 3);
        let now = Instant::now();
        let take = |last| taken(places.try_take(net(last), now));
        let [asked, silent, also_silent] = [take(1), take(2), take(3)];
        asked.place.waits_for(Stage::Answer);
        let _new = take(4);
        assert!(was_ended(&silent) && !was_ended(&asked) && !was_ended(&also_silent));
        assert_eq!(lock(&places.taken).len(), 3);
    }

    #[test]
    fn a_source_with_all_its_places_pays_for_its_own_newcomers() {
        let places = Places::new(8, 2);
        let now = Instant::now();
        let other = taken(places.try_take(net(1), now));
        let [first, second] = [0; 2].map(|_| taken(places.try_take(net(2), now)));
        let third = taken(places.try_take(net(2), now));
        assert!(was_ended(&first) && !was_ended(&second) && !was_ended(&other));
        second.place.waits_for(Stage::Answer);
        third.place.waits_for(Stage::Answer);
        assert!(matches!(places.try_take(net(2), now), Tried::SourceFull));
        drop(third);
        taken(places.try_take(net(2), now));
    }

    #[test]
    fn who_does_not_take_its_answer_goes_only_after_a_while() {
        let places = Places::new(2, 2);
        let now = Instant::now();
        let both = [1, 2].map(|last| taken(places.try_take(net(last), now)));
        for held in &both {
            held.place.waits_for(Stage::Client);
        }
        assert!(matches!(places.try_take(net(3), now), Tried::Full));
        let later = Instant::now() + MOVES_WITHIN;
        taken(places.try_take(net(3), later));
        assert!(was_ended(&both[0]) && !was_ended(&both[1]));
    }
}
