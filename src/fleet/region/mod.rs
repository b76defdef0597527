//! This proxy's part in its region, where proxies share the ports of jobs: it reads whose they are, and while it
//! leads, writes what was decided here.
//!
//! Nothing is decided here. Everything that could give a port to two is refused by the functions of the
//! database; the map that is handed on is what they have answered, and the role is what this proxy may do
//! by the time of the last answer.

mod part;
mod rows;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_postgres::types::Type;

pub use rows::reread_ports;

use self::{
    part::Part,
    rows::{Change, Refusal, Row, asserted, asserted_reserve, take, used},
};
use super::{
    caller::{Caller, End, Values},
    settings::Fleet,
};
use crate::{
    provider::switchboard::{
        BootInstant, PortRanges,
        ports::PortCounts,
        region::{PortMap, PortRefused, RegionPorts, RegionRequest, RegionServer, Role},
    },
    units::{jittered, millis},
};

/// Between two beats: a third of how long a lease to lead lasts.
const BEAT_EVERY: Duration = Duration::from_secs(2);

/// How soon it is told what was put into force: not each change of many.
const APPLIED_WITHIN: Duration = Duration::from_millis(250);

/// Between two readings that notices ask for.
const APART: Duration = Duration::from_millis(10);

/// Between two readings of everything, whatever was told of changes.
const WHOLE_EVERY: Duration = Duration::from_secs(300);

/// Between two requests for more ports than it has beforehand: the region may have no more to spare.
const RESERVE_EVERY: Duration = Duration::from_secs(10);

/// Between two looks how long ago the last answer was.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How it stands with the connection.
#[derive(Clone, Default)]
pub(super) enum Link {
    /// There is none.
    #[default]
    Down,
    /// The database will not have this proxy.
    Refused,
    /// It is a member, and this is how to ask.
    Up(Arc<Caller>),
}

/// The part, and what is known of the region.
pub(super) struct Region {
    settings: Arc<Fleet>,
    server: RegionServer,
    part: Part,
    /// What is another one after the database has lost commits.
    epoch: Option<String>,
    /// The first generation that was read of that epoch; 0 until then.
    began: u64,
    /// What has to be in force before clients that wait are accepted, after everything was closed.
    awaited: Option<u64>,
    leader: Option<String>,
    /// When it asks for more ports beforehand at the earliest.
    reserve_again: Instant,
}

#[derive(Deserialize)]
struct Beat {
    epoch: String,
    generation: u64,
    is_asserted: bool,
    term: Option<u64>,
    leader: Option<String>,
    /// Whether jobs find no port.
    #[serde(default)]
    is_short: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    epoch: Option<String>,
    generation: u64,
    rows: Vec<Row>,
    refused: Vec<Refusal>,
    is_deposed: bool,
    is_behind: bool,
}

impl Region {
    pub fn new(settings: Arc<Fleet>, server: RegionServer) -> Self {
        Self {
            part: Part::new(server.heard.may_be_told(settings.lease), settings.follow),
            epoch: server.heard.map().map(|known| known.epoch),
            settings,
            server,
            began: 0,
            awaited: None,
            leader: None,
            reserve_again: Instant::now(),
        }
    }

    /// Takes part whenever there is a connection, and says what this proxy is at any time.
    pub async fn run(mut self, mut links: watch::Receiver<Link>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut link = links.borrow_and_update().clone();
        loop {
            if let Link::Up(caller) = link {
                let changed = tokio::select! {
                    Err(end) = self.take_part(&caller) => {
                        caller.give_up(end);
                        false
                    }
                    changed = links.changed() => match changed {
                        Ok(()) => true,
                        Err(_) => return,
                    },
                };
                link = match changed {
                    true => links.borrow_and_update().clone(),
                    false => Link::Down,
                };
                continue;
            }
            // A name that another process has was never this one's, unless it has taken part.
            if matches!(link, Link::Refused) && self.server.heard.last().is_some() {
                self.part.removed();
                self.server.heard.forget();
                self.server.lease.ends_at(Some(Duration::ZERO));
            }
            let is_alone = matches!(self.role(), Role::Alone { .. });
            if is_alone {
                // There may be too many since a reload.
                self.server.reserve.shrink(self.most_reserved().into());
            }
            if self.server.reserve.open(is_alone) && is_alone {
                // Somebody may wait for one.
                self.server.ports.send_modify(|_| {});
            }
            self.look();
            tokio::select! {
                changed = links.changed() => match changed {
                    Ok(()) => link = links.borrow_and_update().clone(),
                    Err(_) => return,
                },
                Some(request) = self.server.requests.recv() => refuse(request, "the database cannot be asked"),
                _ = looks.tick() => {}
            }
        }
    }

    async fn take_part(&mut self, caller: &Caller) -> Result<std::convert::Infallible, End> {
        let mut told = caller.database.region.clone();
        self.beat(caller).await?;
        let mut beat = Instant::now() + BEAT_EVERY;
        let mut whole = Instant::now() + jittered(WHOLE_EVERY);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_current = tokio::select! {
                Some(request) = self.server.requests.recv() => self.carry_out(caller, request).await?,
                Ok(()) = told.changed() => {
                    let generation = *told.borrow_and_update();
                    let is_news = generation > self.known();
                    let is_current = !is_news || self.read(caller, self.known()).await?;
                    sleep(APART).await;
                    is_current
                }
                Ok(()) = self.server.applied.changed() => {
                    beat = beat.min(Instant::now() + APPLIED_WITHIN);
                    self.extend();
                    true
                }
                () = sleep_until(beat) => {
                    beat = Instant::now() + BEAT_EVERY;
                    self.beat(caller).await?;
                    true
                }
                () = sleep_until(whole) => {
                    whole = Instant::now() + jittered(WHOLE_EVERY);
                    self.read(caller, 0).await?
                }
                _ = looks.tick() => {
                    self.look();
                    true
                }
            };
            if !is_current {
                beat = Instant::now();
            }
        }
    }

    /// The generation that is known.
    fn known(&self) -> u64 {
        let ports = self.server.ports.borrow();
        ports.map.as_ref().map_or(0, |map| map.generation)
    }

    /// Tells that this proxy is there and what is in force here; learns who leads, and reads what has changed.
    async fn beat(&mut self, caller: &Caller) -> Result<(), End> {
        let asked = BootInstant::now();
        let lease = number(millis(self.settings.lease));
        let known = number(self.known());
        let applied = *self.server.applied.borrow();
        // That of an epoch before says nothing of this one.
        let applied = number(if applied >= self.began { applied } else { 0 });
        let leads = matches!(self.role(), Role::Leading { .. });
        // What has rested is free without a change that is written.
        let counts = self.server.counts.borrow().filter(|_| leads).map(json);
        let particulars: &Values<'_> = &[
            (&lease, Type::INT8),
            (&self.epoch, Type::TEXT),
            (&known, Type::INT8),
            (&applied, Type::INT8),
            (&self.settings.follow, Type::BOOL),
            (&counts, Type::TEXT),
        ];
        let answer: Beat = caller.ask(BEAT, particulars).await?;
        // Whether everything was closed before it came.
        self.look();
        self.server.reserve.open(false);
        // What was read before this began says what was lost, and not what has changed since.
        let is_new = self.began == 0 || self.epoch.as_ref() != Some(&answer.epoch);
        if !answer.is_asserted {
            if !self.assert(caller, answer.epoch).await? {
                return Ok(());
            }
        } else if is_new {
            self.epoch = Some(answer.epoch);
            self.began = 0;
        }
        // It is what it was until what it gave to jobs meanwhile is known.
        let Some(used) = self.reserve(caller, answer.is_short).await? else {
            return Ok(());
        };
        let is_new = is_new || !answer.is_asserted;
        let since = if is_new { 0 } else { self.known() };
        // Nor before the map is read that has it: by the one before, those ports are nobody's and to be closed.
        let map = match used.is_empty() {
            true => None,
            false => Some(self.ask_map(caller, since).await?),
        };
        if map.as_ref().is_some_and(|map| map.epoch != self.epoch) {
            return Ok(());
        }
        self.server.heard.note(asked, self.settings.lease);
        self.part.granted(self.settings.lease);
        self.part.told(answer.term, asked);
        self.leader = answer.leader;
        let is_known = !is_new && answer.generation == since;
        match map {
            Some(map) => {
                self.take_map(map, since);
                self.server.reserve.told(used.into_iter());
            }
            None if is_known && !self.part.is_out() => {}
            None => _ = self.read(caller, since).await?,
        }
        self.look();
        Ok(())
    }

    /// How many ports this proxy is to have beforehand: none if it may not follow, as it never gives one away.
    fn most_reserved(&self) -> u16 {
        match self.settings.follow {
            true => self.settings.reserve,
            false => 0,
        }
    }

    /// Tells what has become of ports that this proxy had beforehand, and asks for more if it has too few. Of
    /// which ports it was told; none if that is of another epoch by now.
    async fn reserve(&mut self, caller: &Caller, is_short: bool) -> Result<Option<Vec<u16>>, End> {
        let reserve = Arc::clone(&self.server.reserve);
        let most = self.most_reserved();
        let left = reserve.left();
        reserve.shrink(match is_short {
            true => (left / 2).min(most.into()),
            false => most.into(),
        });
        let told = reserve.used();
        let lacks = left < usize::from(most) && !is_short && self.reserve_again <= Instant::now();
        let ranges = reserve.ranges().filter(|_| lacks);
        if told.is_empty() && ranges.is_none() {
            return Ok(Some(Vec::new()));
        }
        let most = i32::from(if ranges.is_some() { most } else { 0 });
        let ranges = ranges.iter().flat_map(PortRanges::ranges);
        let ranges: Vec<_> = ranges.map(|range| [*range.start(), *range.end()]).collect();
        let (used, ranges) = (json(used(&told)), json(ranges));
        let particulars: &Values<'_> = &[
            (&self.epoch, Type::TEXT),
            (&used, Type::TEXT),
            (&ranges, Type::TEXT),
            (&most, Type::INT4),
        ];
        let answer: Answer = caller.ask(RESERVE, particulars).await?;
        if answer.is_behind {
            return Ok(None);
        }
        if most > 0 {
            self.reserve_again = Instant::now() + RESERVE_EVERY;
        }
        for refused in answer.refused {
            let (port, owner, port_now) = (refused.port, refused.owner, refused.has);
            tracing::warn!(
                port,
                owner,
                port_now,
                "a job loses the reserved port that it had here: another proxy was first to give it one"
            );
        }
        Ok(Some(told.into_iter().map(|(port, _)| port).collect()))
    }

    /// Has workers accept for as long as the last answer allows, unless what was read since everything was closed
    /// is not in force yet.
    fn extend(&mut self) {
        let applied = *self.server.applied.borrow();
        self.awaited = self.awaited.filter(|awaited| applied < *awaited);
        if let (None, Some(heard)) = (self.awaited, self.server.heard.last())
            && !self.part.is_out()
        {
            let ends = self.part.ends(heard).as_millis();
            self.server.lease.ends_at(Some(Duration::from_millis(ends)));
        }
    }

    /// Tells what is served here, as the database has lost commits; whether it was of the right epoch.
    async fn assert(&mut self, caller: &Caller, epoch: String) -> Result<bool, End> {
        let map = self.server.ports.borrow().map.clone();
        let ports = map.filter(|_| !self.part.is_out());
        let mut ports = ports.map_or_else(Vec::new, |map| asserted(&map.ports));
        if !self.part.is_out() {
            ports.extend(asserted_reserve(&self.server.reserve.ports()));
        }
        let (known, count) = (number(self.known()), ports.len());
        let ports = json(ports);
        let particulars: &Values<'_> = &[
            (&epoch, Type::TEXT),
            (&known, Type::INT8),
            (&ports, Type::TEXT),
        ];
        let answer: Answer = caller.ask(ASSERT, particulars).await?;
        if answer.is_behind {
            // The next beat says of which epoch it is by now.
            return Ok(false);
        }
        let lost = answer.refused.len();
        match self.epoch.as_ref() == Some(&epoch) {
            // It had forgotten this process, because it was removed or silent for long.
            true if count == 0 => {}
            true => tracing::info!(ports = count, lost, "told the database what is served here"),
            false => tracing::warn!(
                ports = count,
                lost,
                "the database has lost changes of the region's ports: told it what is served here"
            ),
        }
        for lost in answer.refused {
            let (port, owner, of) = (lost.port, lost.owner, lost.by);
            let elsewhere = lost.has;
            // One that it had beforehand is nobody's loss.
            if owner.is_none() {
                continue;
            }
            tracing::error!(
                port,
                owner,
                of,
                elsewhere,
                "a port goes from its owner: the database had something newer"
            );
        }
        self.epoch = Some(epoch);
        self.began = 0;
        Ok(true)
    }

    /// Reads what has changed since a generation, or everything; whether it was of the epoch that is known.
    async fn read(&mut self, caller: &Caller, since: u64) -> Result<bool, End> {
        let answer = self.ask_map(caller, since).await?;
        let is_current = answer.epoch == self.epoch;
        if is_current {
            self.take_map(answer, since);
        }
        Ok(is_current)
    }

    async fn ask_map(&self, caller: &Caller, since: u64) -> Result<Answer, End> {
        caller.ask(MAP, &[(&number(since), Type::INT8)]).await
    }

    /// Takes in what has changed since a generation, or everything, of the epoch that is known.
    fn take_map(&mut self, answer: Answer, since: u64) {
        let known = self.server.ports.borrow().map.clone();
        let mut map = known.clone().filter(|_| since > 0).unwrap_or_default();
        self.take(&mut map, &answer.rows, since == 0);
        map.generation = answer.generation;
        if self.began == 0 {
            // What was in force before is of a lower one.
            self.began = answer.generation.max(1);
        } else if since == 0
            && let Some(known) = known
            && known.generation == map.generation
            && known.ports != map.ports
        {
            tracing::error!("what was known of the region's ports was wrong; it was read anew");
        }
        if self.part.is_out() {
            self.awaited = Some(map.generation);
        }
        self.part.informed();
        self.tell(Some(map));
    }

    /// Carries out a request; whether what is known is of the right epoch yet.
    async fn carry_out(&mut self, caller: &Caller, request: RegionRequest) -> Result<bool, End> {
        match request {
            RegionRequest::Write {
                term,
                changes,
                cooldown,
                counts,
                reply,
            } => {
                let changes = changes.iter().map(Change::from).collect();
                let done = match self.role() {
                    Role::Leading { term: own } if own == term => {
                        self.write(caller, term, changes, cooldown, counts).await
                    }
                    _ => Ok(Err("another proxy leads".to_owned())),
                };
                let (told, end) = match done {
                    Ok(told) => (told, None),
                    Err(end) => (Err(end.why()), Some(end)),
                };
                let is_deposed = told.is_err();
                // Whoever has asked may have ended.
                let _ = reply.send(told);
                end.map_or(Ok(!is_deposed), Err)
            }
            RegionRequest::Block { port, generation } => {
                let (port, generation) = (i32::from(port), number(generation));
                let particulars: &Values<'_> = &[
                    (&self.epoch, Type::TEXT),
                    (&port, Type::INT4),
                    (&generation, Type::INT8),
                ];
                caller.ask::<Answer>(BLOCK, particulars).await?;
                Ok(true)
            }
        }
    }

    async fn write(
        &mut self,
        caller: &Caller,
        term: u64,
        changes: Vec<Change>,
        cooldown: Duration,
        counts: PortCounts,
    ) -> Result<Result<Vec<PortRefused>, String>, End> {
        let (since, term, cooldown) = (self.known(), number(term), number(millis(cooldown)));
        let (known, counts, changes) = (number(since), json(counts), json(changes));
        let particulars: &Values<'_> = &[
            (&self.epoch, Type::TEXT),
            (&known, Type::INT8),
            (&term, Type::INT8),
            (&cooldown, Type::INT8),
            (&counts, Type::TEXT),
            (&changes, Type::TEXT),
        ];
        let answer: Answer = caller.ask(WRITE, particulars).await?;
        if answer.is_deposed || answer.epoch != self.epoch {
            self.part.deposed();
            self.tell(None);
            return Ok(Err("another proxy leads by now".to_owned()));
        }
        let mut map = self.server.ports.borrow().map.clone().unwrap_or_default();
        self.take(&mut map, &answer.rows, false);
        map.generation = answer.generation;
        self.tell(Some(map));
        Ok(Ok(answer
            .refused
            .iter()
            .filter_map(Refusal::told)
            .collect()))
    }

    /// Takes in what is said of ports; `is_whole` if that is all there is.
    fn take(&self, map: &mut PortMap, rows: &[Row], is_whole: bool) {
        take(&mut map.ports, rows);
        let rows = rows.iter().map(Row::reserved);
        self.server.reserve.read(is_whole, rows);
    }

    /// What this proxy is now.
    fn role(&mut self) -> Role {
        self.part.role(self.server.heard.last(), BootInstant::now())
    }

    /// Says so if it has become something else, and lets those who wait in.
    fn look(&mut self) {
        self.tell(None);
        self.extend();
    }

    /// Hands on what is known, if anything is another.
    fn tell(&mut self, map: Option<PortMap>) {
        let role = self.role();
        let before = Arc::clone(&self.server.ports.borrow());
        if role == Role::Expired {
            self.server.reserve.leave_all();
        }
        if role != before.role {
            let (word, leader) = (role.word(), self.leader.as_deref());
            let region = self.settings.region.as_str();
            match role {
                Role::Expired => tracing::error!(
                    region,
                    "ports of jobs are closed: others may have them, as the database was not heard of for too \
                     long or has removed this proxy"
                ),
                Role::Alone { .. } => match self.server.reserve.left() {
                    0 => tracing::warn!(
                        region,
                        "the database is not heard of: no job gets a port until it is"
                    ),
                    reserved => tracing::warn!(
                        region,
                        reserved,
                        "the database is not heard of: jobs get reserved ports until it is"
                    ),
                },
                Role::Leading { term } => tracing::info!(region, term, "leads the region"),
                Role::Unknown | Role::Serving => {
                    tracing::info!(region, role = word, leader, "part in the region");
                }
            }
        }
        if let (Some(epoch), Some(map)) = (&self.epoch, &map) {
            self.server.heard.note_map(epoch, map);
        }
        if map.is_some() || role != before.role || self.leader != before.leader {
            self.server.ports.send_replace(Arc::new(RegionPorts {
                map: map.or_else(|| before.map.clone()),
                role,
                leader: self.leader.clone(),
            }));
        }
    }
}

/// Has whoever asked know that nothing comes of it.
fn refuse(request: RegionRequest, why: &str) {
    if let RegionRequest::Write { reply, .. } = request {
        // Whoever has asked may have ended.
        let _ = reply.send(Err(why.to_owned()));
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn json(value: impl serde::Serialize) -> String {
    serde_json::to_string(&value).expect("texts and numbers are always JSON")
}

const BEAT: &str =
    "select tml_proxy.region_beat($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb)::text";
const MAP: &str = "select tml_proxy.region_map($1, $2, $3)::text";
const WRITE: &str =
    "select tml_proxy.region_write($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8::text::jsonb)::text";
const BLOCK: &str = "select tml_proxy.region_block($1, $2, $3, $4, $5)::text";
const RESERVE: &str =
    "select tml_proxy.region_reserve($1, $2, $3, $4::text::jsonb, $5::text::jsonb, $6)::text";
const ASSERT: &str = "select tml_proxy.region_assert($1, $2, $3, $4, $5::text::jsonb)::text";
