//! When the listing is walked, and how far.
//!
//! It is walked to its end at the start and now and then, as a repair. In between, its top is looked at
//! for new jobs, sooner where a host hints at one. Of a long listing, most repairs end where nothing can
//! have changed that is not known.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::{
    FollowSettings,
    backoff::{Backoff, Schedule, jittered},
    job_table::Sequence,
    job_task::TRY_AGAIN,
    walk::{Extent, Walk},
};
use crate::provider::switchboard::{
    client::Failure,
    read::{Position, Rights},
};

/// Looks at the top are at least this far apart, however many hosts hint.
const LOOKS_APART: Duration = Duration::from_millis(100);

/// Of a listing of more rows only what is new is walked, most of the time.
const LONG_LISTING: usize = 1000;

/// Between two walks to the end of a long listing: with the right to all jobs, without, and if a job
/// may have gone from it.
const WHOLE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
const WHOLE_EVERY_IN_PART: Duration = Duration::from_secs(60 * 60);
const WHOLE_EVERY_IN_DOUBT: Duration = Duration::from_secs(60 * 60);

/// The longest wait between two tries of a walk to the end.
const TRY_WHOLE_AGAIN: Duration = Duration::from_secs(60);

/// Between two looks that go down to every job without a watch, for each page that takes.
const LOOK_DOWN_PER_PAGE: Duration = Duration::from_millis(250);

/// While the switchboard does not answer, it is asked this often whether it does again.
const KNOCK: Duration = Duration::from_secs(1);

/// A walk asked for out of turn waits for so many times what the last one took.
const WALKS_APART: u32 = 10;

#[derive(Debug)]
pub(super) struct WalkSchedule {
    settings: FollowSettings,
    /// Walks to the end of the listing.
    whole: Schedule,
    /// Looks at its top.
    top: Schedule,
    /// A page of a walk was had.
    listed: bool,
    /// How long the last walk took.
    took: Option<Duration>,
    /// What the account may read, as it was said last.
    rights: Option<Rights>,
    /// What the last complete walk has seen.
    covered: Option<Covered>,
    /// A walk that a page could not be had for.
    interrupted: Option<Walk>,
    /// A job may have gone from the listing.
    doubt: bool,
    /// When a look goes down to the jobs without a watch again.
    look_down: Instant,
    /// A host hinted while the top was being looked at.
    look_again: bool,
}

/// What need not be walked again: below a place, everything has ended or is followed by itself.
#[derive(Debug)]
struct Covered {
    below: Position,
    /// Rows that the last walk to the end met, and when that was.
    rows: usize,
    to_the_end: Instant,
}

impl WalkSchedule {
    pub(super) fn new(settings: FollowSettings, recoveries: &watch::Receiver<u64>) -> Self {
        let schedule = |limit| Schedule::new(Backoff::new(limit, recoveries.clone()));
        Self {
            settings,
            whole: schedule(settings.refresh.min(TRY_WHOLE_AGAIN)),
            top: schedule(TRY_AGAIN),
            listed: false,
            took: None,
            rights: None,
            covered: None,
            interrupted: None,
            doubt: false,
            look_down: Instant::now(),
            look_again: false,
        }
    }

    /// Whether to look at the top: before anything was listed, all of it is new.
    fn may_look(&self) -> bool {
        self.listed || self.whole.is_failing()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        let top = self.may_look().then(|| self.top.due()).flatten();
        top.into_iter().chain(self.whole.due()).min()
    }

    /// The walks that are to begin now. `unwatched` is the place of the lowest job without a watch.
    pub(super) fn begin_due(
        &mut self,
        began: Sequence,
        unwatched: impl FnOnce() -> Option<Position>,
    ) -> Vec<Walk> {
        let now = Instant::now();
        let mut walks = Vec::new();
        if self.whole.begin(now) {
            let walk = self.interrupted.take();
            let new = || Walk::new(Extent::Whole, began, self.known_below(now));
            walks.push(walk.unwrap_or_else(new));
        }
        if self.may_look() && self.top.begin(now) {
            let down_to = if now < self.look_down {
                None
            } else {
                unwatched()
            };
            walks.push(Walk::new(Extent::Top, began, down_to));
        }
        walks
    }

    /// Where a walk may end, unless it is time for one to the end.
    fn known_below(&self, now: Instant) -> Option<Position> {
        let covered = self.covered.as_ref()?;
        let every = match self.rights {
            _ if self.doubt => WHOLE_EVERY_IN_DOUBT,
            Some(Rights::All) => WHOLE_EVERY,
            _ => WHOLE_EVERY_IN_PART,
        };
        let again = now.duration_since(covered.to_the_end) >= every;
        (covered.rows > LONG_LISTING && !again).then(|| covered.below.clone())
    }

    /// Notes what the account may read, and says whether that is news.
    pub(super) fn set_rights(&mut self, rights: Rights) -> bool {
        let before = self.rights.replace(rights);
        if rights == Rights::All && before.is_some_and(|before| before != rights) {
            // There may be jobs where there were none to be seen.
            self.covered = None;
            self.whole.hasten(self.settings.poll);
        }
        before != self.rights
    }

    pub(super) fn page_was_had(&mut self) {
        self.listed = true;
    }

    /// A walk has come to its end.
    pub(super) fn walked(&mut self, walk: &Walk) {
        if walk.extent == Extent::Top {
            self.top.worked(jittered(self.settings.poll));
            if walk.looked_down().is_some() {
                let pages = u32::try_from(walk.pages()).unwrap_or(u32::MAX);
                self.look_down = Instant::now() + LOOK_DOWN_PER_PAGE.saturating_mul(pages);
            }
            if std::mem::take(&mut self.look_again) {
                self.top.hasten(LOOKS_APART);
            }
            return;
        }
        self.took = Some(walk.started.elapsed());
        match walk.lost() {
            0 => self.whole.worked(jittered(self.settings.refresh)),
            _ => self.whole.failed(),
        }
        if walk.complete().is_none() {
            return;
        }
        match (walk.first_page().cloned(), &mut self.covered) {
            (None, covered) => *covered = None,
            (Some(below), Some(covered)) if walk.down_to().is_some() => covered.below = below,
            (Some(below), covered) => {
                self.doubt = false;
                *covered = Some(Covered {
                    below,
                    rows: walk.rows(),
                    to_the_end: Instant::now(),
                });
            }
        }
    }

    /// A page could not be had, so that `walk` ends, to go on where it was if that makes sense.
    pub(super) fn interrupted(&mut self, walk: Walk, failure: &Failure) {
        // What was read need not be read again, unless the place itself is refused.
        let place_is_good = *failure != Failure::Status { status: 400 };
        if walk.extent == Extent::Whole && walk.pages() > 0 && place_is_good {
            self.interrupted = Some(walk);
        }
    }

    /// A walk has failed.
    pub(super) fn failed(&mut self, extent: Extent, in_outage: bool) {
        match extent {
            Extent::Whole => self.whole.failed(),
            Extent::Top => {
                self.top.failed();
                if in_outage {
                    self.top.within(jittered(KNOCK));
                }
            }
        }
    }

    /// A host hints at a new job.
    pub(super) fn host_hinted(&mut self) {
        match self.top.is_running() {
            true => self.look_again = true,
            false => self.top.hasten(LOOKS_APART),
        }
    }

    /// A job may have gone from the listing.
    pub(super) fn job_may_be_gone(&mut self) {
        self.doubt = true;
        // Of a long listing, only a walk to the end would tell.
        if self.known_below(Instant::now()).is_none() {
            let apart = self.took.unwrap_or_default() * WALKS_APART;
            self.whole.hasten(apart.max(self.settings.poll));
        }
    }

    /// An outage has ended.
    pub(super) fn recover(&mut self) {
        self.whole.recover();
        self.top.recover();
    }
}
