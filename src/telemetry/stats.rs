//! The counters of one mapping: plain atomics, written on the data path, read by a scrape.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::end_reason::EndReason;

use super::{
    Histogram, Lately, PathStats, PathSummary, Retired, SavedHistogram, SavedTally,
    lately::{Counted, Looks},
    metric::{CONNECT_BUCKETS, LENGTH_BUCKETS},
};

/// Why no connection to the target came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ConnectFailure {
    /// The target's host refused.
    Refused,
    /// No way to the host.
    Unreachable,
    /// No answer within `connect_timeout`.
    Timeout,
    /// This machine could not try (no port, no descriptor, source address missing).
    Local,
}

impl ConnectFailure {
    /// Every cause there is, in the order of their numbers.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The cause in one word.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// The counters of one mapping.
#[derive(Debug)]
pub struct MappingStats {
    open: AtomicU32,
    opened: AtomicU64,
    ended: [AtomicU64; EndReason::ALL.len()],
    connect_failures: [AtomicU64; ConnectFailure::ALL.len()],
    connect_error: ArcSwapOption<String>,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    undelivered_up: AtomicU64,
    undelivered_down: AtomicU64,
    pauses: AtomicU64,
    /// From accepting a client to its target's answer.
    pub connect_latency: Histogram,
    /// From accepting a client to the end of its session.
    pub session_length: Histogram,
    /// The network towards the target.
    pub path: PathStats,
    lately: Looks,
}

impl Default for MappingStats {
    fn default() -> Self {
        Self {
            open: AtomicU32::default(),
            opened: AtomicU64::default(),
            ended: EndReason::ALL.map(|_| AtomicU64::default()),
            connect_failures: Default::default(),
            connect_error: ArcSwapOption::default(),
            bytes_up: AtomicU64::default(),
            bytes_down: AtomicU64::default(),
            undelivered_up: AtomicU64::default(),
            undelivered_down: AtomicU64::default(),
            pauses: AtomicU64::default(),
            connect_latency: Histogram::new(&CONNECT_BUCKETS),
            session_length: Histogram::new(&LENGTH_BUCKETS),
            path: PathStats::default(),
            lately: Looks::default(),
        }
    }
}

impl MappingStats {
    /// Counts a new session in, unless `max` are open already.
    #[cfg(test)]
    pub fn try_open(&self, max: Option<u32>) -> bool {
        let admitted = self.try_reserve(max);
        if admitted {
            self.opened.fetch_add(1, Relaxed);
        }
        admitted
    }

    /// Takes the place of a session that may be opened later, unless `max` are open already.
    pub fn try_reserve(&self, max: Option<u32>) -> bool {
        self.open
            .fetch_update(Relaxed, Relaxed, |open| match max {
                Some(max) if open >= max => None,
                _ => open.checked_add(1),
            })
            .is_ok()
    }

    /// Counts a session that takes its place.
    pub fn open_reserved(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// Gives a place back in which no session was opened.
    pub fn give_back(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// Counts an open session out.
    pub fn close(&self, reason: EndReason) {
        self.open.fetch_sub(1, Relaxed);
        self.count_end(reason);
    }

    /// Counts a client that got no session. One that was kept out by no rule or limit, but ended
    /// before its session could begin, counts as a session that did.
    pub fn refuse(&self, reason: EndReason) {
        if !reason.is_refusal() {
            self.opened.fetch_add(1, Relaxed);
        }
        self.count_end(reason);
    }

    /// Moves an open session from these counters to another mapping's. It ends here and is opened
    /// there, so that for each what was opened and has not ended is what is open.
    pub fn hand_over(&self, heir: &Self) {
        heir.opened.fetch_add(1, Relaxed);
        heir.open.fetch_add(1, Relaxed);
        self.close(EndReason::Renamed);
    }

    fn count_end(&self, reason: EndReason) {
        self.ended[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts a failed connection to the target, with the error if there was one.
    pub fn count_connect_failure(&self, cause: ConnectFailure, error: Option<String>) {
        self.connect_failures[cause as usize].fetch_add(1, Relaxed);
        if let Some(error) = error {
            self.connect_error.store(Some(Arc::new(error)));
        }
    }

    /// What the kernel last said when a connection to the target failed.
    pub fn connect_error(&self) -> Option<String> {
        let error = self.connect_error.load();
        error.as_ref().map(|error| error.to_string())
    }

    /// Counts bytes passed on to the target.
    pub fn add_up(&self, bytes: u64) {
        self.bytes_up.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes passed on to the client.
    pub fn add_down(&self, bytes: u64) {
        self.bytes_down.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes that were passed on, to the target and to the client, and did not arrive.
    pub fn count_undelivered(&self, (up, down): (u64, u64)) {
        if (up, down) != (0, 0) {
            self.undelivered_up.fetch_add(up, Relaxed);
            self.undelivered_down.fetch_add(down, Relaxed);
        }
    }

    /// Bytes passed on to the target and to the client that did not arrive.
    pub fn undelivered(&self) -> (u64, u64) {
        let bytes = [&self.undelivered_up, &self.undelivered_down];
        bytes.map(|bytes| bytes.load(Relaxed)).into()
    }

    /// Bytes passed on to the target and to the client, whether they arrived or not.
    pub fn passed_on(&self) -> (u64, u64) {
        let bytes = [&self.bytes_up, &self.bytes_down];
        bytes.map(|bytes| bytes.load(Relaxed)).into()
    }

    /// Counts a wait of a session for its limit of bandwidth.
    pub fn count_pause(&self) {
        self.pauses.fetch_add(1, Relaxed);
    }

    /// Times a session waited for its limit of bandwidth.
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Relaxed)
    }

    /// Sessions open now.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Sessions opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Sessions that ended, or were refused, for `reason`.
    pub fn ended(&self, reason: EndReason) -> u64 {
        self.ended[reason as usize].load(Relaxed)
    }

    /// Failed connections to the target.
    pub fn connect_failures(&self, cause: ConnectFailure) -> u64 {
        self.connect_failures[cause as usize].load(Relaxed)
    }

    /// Failed connections to the target, whatever the cause.
    pub fn connect_failures_in_all(&self) -> u64 {
        let failures = self.connect_failures.iter();
        failures.map(|failures| failures.load(Relaxed)).sum()
    }

    /// Looks at the counters, for what they say of late. To be done from time to time.
    pub fn look(&self, now: Instant) {
        self.lately.look(now, self.counted());
    }

    /// What the last look found.
    pub fn lately(&self) -> Lately {
        self.lately.read()
    }

    fn counted(&self) -> Counted {
        Counted {
            opened: self.opened(),
            bytes_up: self.bytes_up(),
            bytes_down: self.bytes_down(),
            answered: self.connect_latency.sum_micros(),
            failed: self.connect_failures_in_all(),
        }
    }

    /// Bytes delivered to the target.
    pub fn bytes_up(&self) -> u64 {
        self.passed_on().0.saturating_sub(self.undelivered().0)
    }

    /// Bytes delivered to the client.
    pub fn bytes_down(&self) -> u64 {
        self.passed_on().1.saturating_sub(self.undelivered().1)
    }
}

/// What was counted for words, those left out for which nothing was. A word that the next image does
/// not know is forgotten there.
pub(super) type Words = Vec<(String, u64)>;

pub(super) fn by_word(counts: impl Iterator<Item = (&'static str, u64)>) -> Words {
    let counts = counts.filter(|(_, count)| *count > 0);
    counts
        .map(|(word, count)| (word.to_owned(), count))
        .collect()
}

pub(super) fn of_word(counts: &Words, word: &str) -> u64 {
    let known = counts.iter().filter(|(known, _)| known == word);
    known.map(|(_, count)| *count).sum()
}

/// The counters of a mapping as they are handed over. Whoever loads a session has it counted among the
/// open ones again ([`MappingStats::try_reserve`]).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedStats {
    opened: u64,
    ended: Words,
    connect_failures: Words,
    connect_error: Option<String>,
    /// Up and down.
    bytes: (u64, u64),
    undelivered: (u64, u64),
    pauses: u64,
    #[serde(skip_serializing_if = "SavedHistogram::is_empty")]
    connect_latency: SavedHistogram,
    #[serde(skip_serializing_if = "SavedHistogram::is_empty")]
    session_length: SavedHistogram,
    path: Option<PathSummary>,
}

impl SavedStats {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl MappingStats {
    /// What was counted but the sessions open now.
    pub fn save(&self) -> SavedStats {
        let Self {
            open: _,
            opened,
            ended,
            connect_failures,
            connect_error,
            bytes_up,
            bytes_down,
            undelivered_up,
            undelivered_down,
            pauses,
            connect_latency,
            session_length,
            path,
            lately: _,
        } = self;
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let ended = EndReason::ALL.iter().zip(ended);
        let failures = ConnectFailure::ALL.iter().zip(connect_failures);
        SavedStats {
            opened: read(opened),
            ended: by_word(ended.map(|(reason, count)| (reason.word(), read(count)))),
            connect_failures: by_word(failures.map(|(cause, count)| (cause.word(), read(count)))),
            connect_error: connect_error.load().as_ref().map(|error| error.to_string()),
            bytes: (read(bytes_up), read(bytes_down)),
            undelivered: (read(undelivered_up), read(undelivered_down)),
            pauses: read(pauses),
            connect_latency: connect_latency.save(),
            session_length: session_length.save(),
            path: path.load(),
        }
    }

    /// Goes on counting, without a session open.
    pub fn load(saved: SavedStats) -> Self {
        let SavedStats {
            opened,
            ended,
            connect_failures,
            connect_error,
            bytes,
            undelivered,
            pauses,
            connect_latency,
            session_length,
            path,
        } = saved;
        let paths = PathStats::default();
        paths.store(path);
        let mut stats = Self {
            open: AtomicU32::default(),
            opened: opened.into(),
            ended: EndReason::ALL.map(|reason| of_word(&ended, reason.word()).into()),
            connect_failures: array::from_fn(|number| {
                of_word(&connect_failures, ConnectFailure::ALL[number].word()).into()
            }),
            connect_error: ArcSwapOption::from_pointee(connect_error),
            bytes_up: bytes.0.into(),
            bytes_down: bytes.1.into(),
            undelivered_up: undelivered.0.into(),
            undelivered_down: undelivered.1.into(),
            pauses: pauses.into(),
            connect_latency: Histogram::load(&CONNECT_BUCKETS, &connect_latency),
            session_length: Histogram::load(&LENGTH_BUCKETS, &session_length),
            path: paths,
            lately: Looks::default(),
        };
        stats.lately = Looks::after(stats.counted());
        stats
    }
}

/// The counters of the whole process as they are handed over. Whoever loads a session has it counted
/// among the open ones again ([`ProcessStats::session_opened`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedProcessStats {
    retired: SavedTally,
    spliced_bytes: u64,
    copied_bytes: u64,
    accept_retries: u64,
    accept_pauses: u64,
    accept_failures: u64,
}

impl ProcessStats {
    /// What was counted but the sessions open now. The counters of mappings that have left the table
    /// are in it unless they are among `departed`, which are handed over by themselves.
    pub fn save<'a>(
        &self,
        departed: impl Iterator<Item = &'a Arc<MappingStats>>,
    ) -> SavedProcessStats {
        let Self {
            sessions_open: _,
            retired,
            spliced_bytes,
            copied_bytes,
            accept_retries,
            accept_pauses,
            accept_failures,
        } = self;
        SavedProcessStats {
            retired: retired.save(departed),
            spliced_bytes: spliced_bytes.load(Relaxed),
            copied_bytes: copied_bytes.load(Relaxed),
            accept_retries: accept_retries.load(Relaxed),
            accept_pauses: accept_pauses.load(Relaxed),
            accept_failures: accept_failures.load(Relaxed),
        }
    }

    /// Goes on counting, without a session open. `departed` are the counters of mappings that have left
    /// the table.
    pub fn load<'a>(
        saved: &SavedProcessStats,
        departed: impl Iterator<Item = &'a Arc<MappingStats>>,
    ) -> Self {
        let SavedProcessStats {
            retired,
            spliced_bytes,
            copied_bytes,
            accept_retries,
            accept_pauses,
            accept_failures,
        } = saved;
        Self {
            sessions_open: AtomicU32::default(),
            retired: Retired::load(retired, departed),
            spliced_bytes: (*spliced_bytes).into(),
            copied_bytes: (*copied_bytes).into(),
            accept_retries: (*accept_retries).into(),
            accept_pauses: (*accept_pauses).into(),
            accept_failures: (*accept_failures).into(),
        }
    }
}

/// The counters of the whole process.
#[derive(Debug, Default)]
pub struct ProcessStats {
    sessions_open: AtomicU32,
    /// What mappings counted that are gone.
    pub retired: Retired,
    /// Bytes delivered through a pipe, counted when a session ends.
    pub spliced_bytes: AtomicU64,
    /// Bytes delivered by copying, counted when a session ends.
    pub copied_bytes: AtomicU64,
    /// Connections lost between the handshake and accept(2).
    pub accept_retries: AtomicU64,
    /// Times a listener paused because something had run out.
    pub accept_pauses: AtomicU64,
    /// Listeners lost to an error.
    pub accept_failures: AtomicU64,
}

impl ProcessStats {
    /// Counts a session in.
    pub fn session_opened(&self) {
        self.sessions_open.fetch_add(1, Relaxed);
    }

    /// Counts a session out.
    pub fn session_ended(&self) {
        self.sessions_open.fetch_sub(1, Relaxed);
    }

    /// Sessions open now.
    pub fn sessions_open(&self) -> u32 {
        self.sessions_open.load(Relaxed)
    }
}
