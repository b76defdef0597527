//! The sessions of a worker: when it is whose turn, what they are told, and how they end.
//!
//! Sessions that could go on wait in a queue. The interactive worker takes one of them between two
//! looks at epoll, so that a keystroke waits for one turn at most; its partner takes all of them, so
//! that each look is worth more.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{
    Command, OrderNumber, PathSample, SessionOrder, SessionPage, WorkerContext, WorkerHandle,
    WorkerRole,
    orders::{Effect, OrderLog, Pacing, order_session},
    poller::{Poller, Token},
    reported::Clock,
    saved::{SavedEntry, SavedSlots, WrittenSessions},
    slots::{Key, Slots},
    timers::Timers,
};
use crate::{
    end_reason::EndReason,
    handover::{Records, Saver},
    os_error::in_words,
    relay::{PipePool, Side},
    session::{
        AckProbe, Choice, Connection, Extras, INTEREST, Pace, Session, SessionFilter, SessionLine,
        SessionRecord, SessionStep, Turn, admit,
    },
    socket,
    table::RouteSaver,
};

/// Bytes after which a direction's turn is over. A pipe is emptied all the same.
const TURN_BYTES: usize = 256 * 1024;

/// The buffer copied bytes pass through.
const SCRATCH_BYTES: usize = 64 * 1024;

/// At most one event in this time for sessions that this machine could open no connection for.
const UNDIALLED_EVERY: Duration = Duration::from_secs(5);

/// How long until epoll is asked once more to report on a session's sockets, which it has refused.
const WATCH_AGAIN: Duration = Duration::from_millis(50);

/// How long a session may be quiet while epoll refuses to report on it.
const WATCH_PATIENCE: Duration = Duration::from_secs(30);

/// Slots looked at for one piece of an answer about sessions, so that a worker with many of them
/// serves them between two pieces.
pub(super) const SLOTS: usize = 512;

/// Sessions whose way to the target is looked at in one sample.
const SAMPLES: usize = 32;

pub(super) struct SessionTable {
    context: Arc<WorkerContext>,
    poller: Poller,
    role: WorkerRole,
    /// The other worker of the pair, until sessions have to stay where they are.
    partner: Option<WorkerHandle>,
    entries: Slots<Entry>,
    /// The last order that all of them have had.
    carried_out: OrderNumber,
    deadlines: Timers,
    /// Sessions that wait for a limit of bandwidth. They come and go often, and would leave an entry
    /// among the deadlines each time.
    pauses: Timers,
    /// Sessions that have had their turn and can go on.
    ready: VecDeque<Key>,
    pipes: PipePool,
    acks: AckProbe,
    scratch: Box<[u8]>,
    undialled_said: Option<Instant>,
    /// The slot at which the next sample of the ways to the targets begins.
    sampled_up_to: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) session: Session,
    /// Whether it is in the queue of those that can go on.
    pub(super) queued: bool,
    /// Whether epoll reports on its sockets.
    pub(super) watched: bool,
    /// The last order it had had when it came.
    pub(super) seen: OrderNumber,
}

impl SessionTable {
    pub(super) fn new(
        context: Arc<WorkerContext>,
        poller: Poller,
        role: WorkerRole,
        partner: WorkerHandle,
    ) -> Self {
        Self {
            pipes: PipePool::new(Arc::clone(&context.pipes)),
            context,
            poller,
            role,
            partner: Some(partner),
            entries: Slots::new(),
            carried_out: OrderNumber::default(),
            deadlines: Timers::default(),
            pauses: Timers::default(),
            ready: VecDeque::new(),
            acks: AckProbe::default(),
            scratch: vec![0; SCRATCH_BYTES].into(),
            undialled_said: None,
            sampled_up_to: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn carried_out(&self) -> OrderNumber {
        self.carried_out
    }

    pub(super) fn can_go_on(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let times = [self.deadlines.next(), self.pauses.next()];
        times.into_iter().flatten().min()
    }

    /// Has sessions stay on this worker from now on.
    pub(super) fn keep_here(&mut self) {
        self.partner = None;
    }

    /// Gives a client its session, unless something keeps it out. It has had order `seen` and those
    /// before. One for whom no target has room is given back with what is counted of it.
    pub(super) fn begin(
        &mut self,
        connection: Connection,
        seen: OrderNumber,
        orders: &OrderLog,
        now: Instant,
    ) -> Option<(Connection, Option<Box<Extras>>)> {
        let context = Arc::clone(&self.context);
        let client = connection.accepted.client;
        let counted = match admit(
            client,
            &connection.route,
            &context.gate,
            &context.stats,
            now,
        ) {
            Ok(counted) => counted,
            Err(reason) => {
                context.refuse(&connection, reason, now);
                return None;
            }
        };
        let extras = counted.map(|(admission, dialling)| Extras::counted(admission, dialling));
        match Choice::make(&connection.route, client.ip(), now) {
            Ok(choice) => self.dial((connection, extras), choice, (now, now), seen, orders),
            Err(EndReason::TargetFull) => return Some((connection, extras)),
            Err(reason) => {
                let stats = &connection.route.mapping.stats;
                stats.give_back();
                stats.refuse(reason);
                context.refuse(&connection, reason, now);
            }
        }
        None
    }

    /// Begins the session of a client that has been let in, and waited for its turn since a time.
    pub(super) fn dial(
        &mut self,
        (connection, extras): (Connection, Option<Box<Extras>>),
        choice: Option<Choice>,
        (since, now): (Instant, Instant),
        seen: OrderNumber,
        orders: &OrderLog,
    ) {
        let context = Arc::clone(&self.context);
        connection.route.mapping.stats.open_reserved();
        match Session::dial(
            connection,
            now,
            context.splice.load(Relaxed),
            choice,
            extras,
        ) {
            Ok(mut session) => {
                session.waited_since(since);
                context.stats.session_opened();
                self.insert(session, seen, orders, now);
            }
            Err((error, connection)) => {
                socket::reset_on_close(&connection.accepted.socket);
                let record = SessionRecord::undialled(&connection, error);
                self.report_undialled(&record, now);
                context.record_end(record);
            }
        }
    }

    /// Looks after a session from now on, which has had order `seen` and those before. Epoll reports
    /// at once what its sockets are ready for.
    pub(super) fn insert(
        &mut self,
        session: Session,
        seen: OrderNumber,
        orders: &OrderLog,
        now: Instant,
    ) {
        let key = self.entries.insert(Entry {
            session,
            queued: false,
            watched: false,
            seen,
        });
        if self.watch(key, now) {
            self.arm(key);
        }
        for order in orders.after(seen) {
            self.order(key, order, now);
        }
    }

    /// Lends a session what it needs, and does what it then says.
    pub(super) fn run(
        &mut self,
        key: Key,
        clock: Clock,
        act: impl FnOnce(&mut Session, &mut Turn<'_>) -> SessionStep,
    ) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let mut turn = Turn {
            now: clock.now,
            reported: clock.reported,
            pipes: &mut self.pipes,
            scratch: &mut self.scratch,
            budget: TURN_BYTES,
            acks: &mut self.acks,
        };
        let was_connected = entry.session.is_connected();
        let step = act(&mut entry.session, &mut turn);
        if !was_connected && entry.session.is_connected() && self.context.log_openings.load(Relaxed)
        {
            let view = entry.session.view(clock.now);
            self.context.record(SessionLine::Opened(view));
        }
        match step {
            SessionStep::End(reason) => return self.end(key, reason, clock.now),
            SessionStep::Again if !entry.queued => {
                entry.queued = true;
                self.ready.push_back(key);
            }
            SessionStep::Again | SessionStep::Wait => {}
            SessionStep::Watch => {
                if self.watch(key, clock.now) {
                    self.arm(key);
                }
                return;
            }
        }
        let pace = entry.session.pace();
        match self.belongs_to_partner(pace) {
            true => self.hand_over(key),
            false => self.arm(key),
        }
    }

    /// Gives those of the sessions that can go on another turn that should have one now.
    pub(super) fn run_ready(&mut self, clock: Clock) {
        let turns = match self.role {
            WorkerRole::Interactive => 1,
            WorkerRole::Bulk => self.ready.len(),
        };
        for _ in 0..turns {
            let Some(key) = self.ready.pop_front() else {
                return;
            };
            if let Some(entry) = self.entries.get_mut(key) {
                entry.queued = false;
                self.run(key, clock, Session::resume);
            }
        }
    }

    pub(super) fn fire_timers(&mut self, clock: Clock) {
        while let Some(slot) = self.deadlines.pop_due(clock.reported) {
            if let Some(key) = self.entries.occupant_of(slot) {
                self.run(key, clock, Session::on_deadline);
            }
        }
        while let Some(slot) = self.pauses.pop_due(clock.now) {
            if let Some(key) = self.entries.occupant_of(slot) {
                self.end_pause(key, clock);
            }
        }
    }

    /// Lets a session go on that has waited for its limit of bandwidth.
    fn end_pause(&mut self, key: Key, clock: Clock) {
        let is_watched = |entry: &mut Entry| entry.watched;
        if !self.entries.get_mut(key).is_some_and(is_watched) && !self.watch(key, clock.now) {
            return;
        }
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        match entry.session.paused_until() {
            None => {}
            Some(at) if at > clock.now => self.pauses.arm(key.index(), at),
            Some(_) => self.run(key, clock, Session::resume),
        }
    }

    /// Sees to it that a session is called when it wants to be.
    fn arm(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if let Some(at) = entry.session.deadline() {
            self.deadlines.arm(key.index(), at);
        }
        if let Some(at) = entry.session.paused_until() {
            self.pauses.arm(key.index(), at);
        }
    }

    pub(super) fn end(&mut self, key: Key, reason: EndReason, now: Instant) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        let session = entry.session;
        let record = session.end(reason, &mut self.pipes, &mut self.acks, now);
        self.report_undialled(&record, now);
        let stats = &self.context.stats;
        // What was spliced may not have arrived.
        let copied = (record.bytes_up + record.bytes_down).saturating_sub(record.bytes_spliced);
        stats.spliced_bytes.fetch_add(record.bytes_spliced, Relaxed);
        stats.copied_bytes.fetch_add(copied, Relaxed);
        stats.session_ended();
        self.context.record_end(record);
    }

    /// Makes an event of it if this machine could not open a connection.
    fn report_undialled(&mut self, record: &SessionRecord, now: Instant) {
        let lately = |last: Instant| now.duration_since(last) < UNDIALLED_EVERY;
        if record.reason != EndReason::ConnectFailed || self.undialled_said.is_some_and(lately) {
            return;
        }
        self.undialled_said = Some(now);
        tracing::warn!(
            mapping = %record.route.mapping.name,
            target = record.target.map(tracing::field::display),
            error = record.error.map(tracing::field::display),
            "this machine could not open a connection to a target"
        );
    }

    /// Has epoll report on both sockets, now or later; whether there still is a session.
    fn watch(&mut self, key: Key, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let Some(errno) = register(&self.poller, key, entry).err() else {
            return true;
        };
        // Who came a moment ago may come again; what others began is not given up for a shortage.
        let reason = match entry.session.is_connected() {
            false => EndReason::NoResources,
            true if entry.session.quiet(now) >= WATCH_PATIENCE => EndReason::SystemError,
            true => {
                self.pauses.arm(key.index(), now + WATCH_AGAIN);
                return true;
            }
        };
        tracing::error!(
            errno = in_words(&errno.into()),
            "cannot watch a session's sockets"
        );
        self.end(key, reason, now);
        false
    }

    /// Whether a session at this pace is for the other worker of the pair to serve.
    fn belongs_to_partner(&self, pace: Pace) -> bool {
        let wrong = match self.role {
            WorkerRole::Interactive => Pace::Bulk,
            WorkerRole::Bulk => Pace::Interactive,
        };
        pace == wrong && self.partner.is_some()
    }

    /// Gives a session to the other worker of the pair.
    pub(super) fn hand_over(&mut self, key: Key) {
        if let Some(partner) = &self.partner
            && let Some(entry) = self.entries.remove(key)
        {
            for side in [Side::Client, Side::Target] {
                self.poller.forget(entry.session.socket(side));
            }
            let seen = entry.seen.max(self.carried_out);
            partner.send(Command::Take(Box::new(entry.session), seen));
        }
    }

    /// Carries out an order on every session that has not had it.
    pub(super) fn carry_out(
        &mut self,
        number: OrderNumber,
        order: &SessionOrder,
        pacing: &mut Pacing,
    ) {
        self.carried_out = number;
        for key in self.entries.keys() {
            let lacks_it = |entry: &mut Entry| entry.seen < number;
            if self.entries.get_mut(key).is_some_and(lacks_it) {
                pacing.note(self.order(key, order, pacing.next));
            }
        }
    }

    fn order(&mut self, key: Key, order: &SessionOrder, at: Instant) -> Effect {
        let Some(entry) = self.entries.get_mut(key) else {
            return Effect::None;
        };
        let effect = order_session(&mut entry.session, order, &self.context.table.load(), at);
        if effect != Effect::None {
            self.arm(key);
        }
        effect
    }

    /// Tells of those in the next few slots.
    pub(super) fn list(
        &mut self,
        from: usize,
        filter: &SessionFilter,
        now: Instant,
    ) -> SessionPage {
        let (keys, next) = self.entries.keys_from(from, SLOTS);
        let sessions = keys.into_iter().filter_map(|key| {
            let session = &self.entries.get_mut(key)?.session;
            let meant = filter.means(session.id(), session.route(), session.client());
            meant.then(|| session.view(now))
        });
        SessionPage {
            sessions: sessions.collect(),
            next,
        }
    }

    /// Looks after what another image of the program has handed over; `poller` reports on it already.
    pub(super) fn take_up(&mut self, poller: Option<&Poller>, entries: Slots<Entry>, now: Instant) {
        if let Some(poller) = poller {
            self.poller = poller.clone();
        }
        self.entries = entries;
        for key in self.entries.keys() {
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            entry.watched &= poller.is_some();
            if entry.queued {
                self.ready.push_back(key);
            }
            if entry.watched || self.watch(key, now) {
                self.arm(key);
            }
        }
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.entries.is_sparse()
    }

    /// Saves all of them, a record each.
    pub(super) fn save<'a>(
        &'a self,
        records: &mut Records,
        written: &mut WrittenSessions,
        saver: &mut Saver<'a>,
        routes: &mut RouteSaver<'_>,
    ) -> Result<SavedSlots, String> {
        for (place, (key, entry)) in self.entries.iter().enumerate() {
            let saved = SavedEntry {
                key,
                queued: entry.queued,
                watched: entry.watched,
                is: entry.session.save(saver, routes),
            };
            written.write(place, saved, records)?;
        }
        Ok(SavedSlots::of(&self.entries))
    }

    /// Looks at the way to the target of the next few sessions after those of the last sample.
    pub(super) fn sample_paths(&mut self) -> Vec<PathSample> {
        let (keys, next) = self.entries.keys_from(self.sampled_up_to, SLOTS);
        self.sampled_up_to = next.unwrap_or(0);
        let mut samples = Vec::new();
        for key in keys {
            let Some(Entry { session, .. }) = self.entries.get_mut(key) else {
                continue;
            };
            if !session.is_connected() {
                continue;
            }
            if samples.len() == SAMPLES {
                self.sampled_up_to = key.index();
                break;
            }
            let path = self.acks.path(session.socket(Side::Target));
            samples.extend(path.map(|path| PathSample {
                mapping: Arc::clone(&session.route().mapping),
                path,
            }));
        }
        samples
    }

    #[cfg(test)]
    pub(super) fn only(&mut self) -> (Key, &Session) {
        let key = self.entries.keys()[0];
        let entry = self.entries.get_mut(key).expect("it is there");
        (key, &entry.session)
    }
}

/// Registers both sockets of a session. Closing them undoes it.
fn register(poller: &Poller, key: Key, entry: &mut Entry) -> Result<(), Errno> {
    for side in [Side::Client, Side::Target] {
        match poller.add(
            entry.session.socket(side),
            Token::Session(key, side),
            INTEREST,
        ) {
            // The last attempt got as far as that.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    entry.watched = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Entry;

    /// What an idle session costs beside its sockets: more would be felt by whoever has many.
    #[test]
    fn an_idle_session_is_not_larger_than_it_was() {
        let size = size_of::<(u32, Entry)>();
        assert!(size <= 384, "{size} bytes");
    }
}
