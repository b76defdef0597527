//! One proxy's part in a fleet: it registers, tells what can be reached through it, and reads what others
//! tell.
//!
//! Whatever the database does, nothing here can hold up anybody else: others hand over values and read
//! what is known.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::types::Type;

use super::{
    caller::{Caller, End, Values},
    database::{Database, DatabaseError},
    entry::{Entries, Stored, changes, take},
    instance,
    migrate::{Schema, SchemaError},
    region::{Link, Region},
    settings::{Fleet, FleetName},
    status::{Contact, FleetProxy, FleetRegion, FleetStatus, FleetView},
};
use crate::{provider::switchboard::region::RegionServer, units::jittered};

/// Between two heartbeats.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// Between two things told, or two readings that notices ask for.
const APART: Duration = Duration::from_millis(100);

/// The pause after a failure: the first, which doubles, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// The same where somebody has to do something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// After a connection of this length the pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// How long it may take to let go of the name.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// What this proxy tells of itself.
#[derive(Debug, Default)]
pub struct Own {
    /// What can be reached through it.
    pub entries: watch::Sender<Arc<Entries>>,
    /// Its sessions.
    pub sessions: AtomicU64,
    /// Whether it is to let go of its name and end.
    pub leaves: Notify,
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    is_behind: bool,
    #[serde(default)]
    is_whole: bool,
    #[serde(default)]
    proxies: Option<Vec<Told>>,
    #[serde(default)]
    regions: Vec<FleetRegion>,
    #[serde(default)]
    entries: Option<Stored>,
}

/// A proxy as the database tells of it.
#[derive(Debug, Deserialize)]
struct Told {
    name: FleetName,
    region: FleetName,
    version: String,
    silent_ms: u64,
    sessions: u64,
    generation: u64,
    applied: Option<u64>,
    has_left: bool,
    is_fenced: bool,
}

/// Takes part until it is told to leave; shares the ports of its region if there is whom to tell of them.
pub async fn run(
    settings: Arc<Fleet>,
    own: Arc<Own>,
    status: Arc<FleetStatus>,
    region: Option<RegionServer>,
) {
    status.begin(&settings);
    let (link, links) = watch::channel(Link::default());
    let region = region.map(|server| Region::new(Arc::clone(&settings), server));
    let shares = async {
        match region {
            Some(region) => region.run(links).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = take_part(settings, own, status, &link) => {}
        () = shares => {}
    }
}

async fn take_part(
    settings: Arc<Fleet>,
    own: Arc<Own>,
    status: Arc<FleetStatus>,
    link: &watch::Sender<Link>,
) {
    let mut member = Member {
        instance: instance::own(),
        told: Arc::default(),
        generation: 0,
        settings,
        own,
        status,
    };
    let mut pause = PAUSE.0;
    loop {
        let began = Instant::now();
        let end = member.take_part(link).await;
        link.send_replace(match end {
            End::Refused(_) => Link::Refused,
            _ => Link::Down,
        });
        if began.elapsed() >= WELL_AFTER {
            pause = PAUSE.0;
        }
        let wait = match end {
            End::Left => return,
            End::Forgotten => APART,
            End::Failed(error) => {
                let lasting = matches!(
                    error,
                    SchemaError::Older { .. }
                        | SchemaError::Newer { .. }
                        | SchemaError::Database(
                            DatabaseError::NoSchema
                                | DatabaseError::Rights(_)
                                | DatabaseError::Password { .. }
                        )
                );
                let why = error.to_string();
                member.failed(match lasting {
                    true => Contact::Refused(why),
                    false => Contact::Away(why),
                });
                let wait = pause;
                pause = (pause * 2).min(PAUSE.1);
                if lasting { REFUSED_PAUSE } else { wait }
            }
            End::Refused(why) => {
                member.failed(Contact::Refused(why));
                REFUSED_PAUSE
            }
        };
        tokio::select! {
            () = sleep(jittered(wait)) => {}
            // It has no name to let go of.
            () = member.own.leaves.notified() => return,
        }
    }
}

struct Member {
    settings: Arc<Fleet>,
    own: Arc<Own>,
    status: Arc<FleetStatus>,
    instance: String,
    /// What the database was last told.
    told: Arc<Entries>,
    /// The generation of that.
    generation: u64,
}

impl Member {
    /// Connects, and takes part for as long as the connection lasts.
    async fn take_part(&mut self, link: &watch::Sender<Link>) -> End {
        let access = self.settings.access();
        let connecting = Database::connect(&access, Some(&self.settings));
        let leaves = Arc::clone(&self.own);
        let database = tokio::select! {
            connected = connecting => match connected {
                Ok(database) => database,
                Err(error) => return error.into(),
            },
            () = leaves.leaves.notified() => return End::Left,
        };
        let name = self.settings.name.clone();
        let (caller, mut given_up) = Caller::new(database, name, self.instance.clone());
        let caller = Arc::new(caller);
        let end = tokio::select! {
            Err(end) = self.serve(&caller, link) => end,
            error = caller.database.ended() => error.into(),
            Some(end) = given_up.recv() => end,
            () = leaves.leaves.notified() => End::Left,
        };
        if let End::Left = end {
            // What is not said is found out by itself.
            let _ = timeout(LEAVE_WITHIN, caller.ask::<Answer>(LEAVE, &[])).await;
        }
        end
    }

    async fn serve(
        &mut self,
        caller: &Arc<Caller>,
        link: &watch::Sender<Link>,
    ) -> Result<std::convert::Infallible, End> {
        let database = &caller.database;
        Schema::of(database).await?.check()?;
        let (region, version) = (self.settings.region.as_str(), env!("CARGO_PKG_VERSION"));
        let particulars: &Values<'_> = &[(&region, Type::TEXT), (&version, Type::TEXT)];
        let registered: Answer = caller.ask(REGISTER, particulars).await?;
        self.generation = self.generation.max(registered.generation);
        database.listen().await?;
        link.send_replace(Link::Up(Arc::clone(caller)));
        let mut own = self.own.entries.subscribe();
        let entries = own.borrow_and_update().clone();
        self.publish(caller, entries, true).await?;
        self.beat(caller).await?;
        self.connected(database);
        let mut beats = interval(BEAT_EVERY);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.reset();
        loop {
            tokio::select! {
                _ = beats.tick() => self.beat(caller).await?,
                () = database.changed.notified() => {
                    self.beat(caller).await?;
                    beats.reset();
                    sleep(APART).await;
                }
                Ok(()) = own.changed() => {
                    let entries = own.borrow_and_update().clone();
                    self.publish(caller, entries, false).await?;
                    sleep(APART).await;
                }
            }
        }
    }

    /// Tells what can be reached through this proxy: what has changed, or everything.
    async fn publish(
        &mut self,
        caller: &Caller,
        entries: Arc<Entries>,
        is_whole: bool,
    ) -> Result<(), End> {
        let mut is_whole = is_whole;
        loop {
            let nothing = Entries::new();
            let before = if is_whole { &nothing } else { &self.told };
            let changes = changes(before, &entries);
            if changes.is_empty() && !is_whole {
                return Ok(());
            }
            let changes = serde_json::to_string(&changes);
            let changes = changes.expect("texts and numbers are always JSON");
            let since = i64::try_from(self.generation).unwrap_or(0);
            let particulars: &Values<'_> = &[
                (&since, Type::INT8),
                (&is_whole, Type::BOOL),
                (&changes, Type::TEXT),
            ];
            let answer: Answer = caller.ask(PUBLISH, particulars).await?;
            if !answer.is_behind || is_whole {
                self.generation = answer.generation;
                self.told = entries;
                return Ok(());
            }
            // The database is not where it was: commits were lost.
            is_whole = true;
        }
    }

    /// Tells that this proxy is there, and reads what has changed of others.
    async fn beat(&mut self, caller: &Caller) -> Result<(), End> {
        let asked = Instant::now();
        let sessions = i64::try_from(self.own.sessions.load(Relaxed)).unwrap_or(i64::MAX);
        let particulars: &Values<'_> = &[(&sessions, Type::INT8)];
        let answer: Answer = caller.ask(HEARTBEAT, particulars).await?;
        let known: BTreeMap<_, _> = (self.status.read().iter())
            .flat_map(|view| &view.proxies)
            .map(|proxy| (proxy.name.clone(), proxy.published.clone()))
            .collect();
        let mut proxies = Vec::new();
        let mut is_behind = false;
        for told in answer.proxies.unwrap_or_default() {
            let mut published = known.get(&told.name).cloned().unwrap_or_default();
            let is_own = told.name == self.settings.name;
            is_behind |= is_own && told.generation != self.generation;
            if is_own {
                published = (self.generation, Arc::clone(&self.told));
            } else if told.generation != published.0 {
                self.read(caller, &told.name, &mut published).await?;
            }
            let silent = Duration::from_millis(told.silent_ms);
            proxies.push(FleetProxy {
                name: told.name,
                region: told.region,
                version: told
                    .version
                    .chars()
                    .filter(char::is_ascii_graphic)
                    .collect(),
                seen: asked
                    .into_std()
                    .checked_sub(silent)
                    .unwrap_or(asked.into_std()),
                sessions: told.sessions,
                generation: told.generation,
                applied: told.applied,
                has_left: told.has_left,
                is_fenced: told.is_fenced,
                published,
            });
        }
        let mut regions = answer.regions;
        regions.sort_by(|one, other| one.name.cmp(&other.name));
        proxies.sort_by(|one, other| one.name.cmp(&other.name));
        self.status.change(|view| {
            view.heard = Some(asked.into_std());
            view.proxies = proxies;
            view.regions = regions;
        });
        if is_behind {
            tracing::warn!("the database has lost what this proxy told; it is told again");
            let entries = self.own.entries.borrow().clone();
            self.publish(caller, entries, true).await?;
        }
        Ok(())
    }

    /// Reads what another proxy tells.
    async fn read(
        &self,
        caller: &Caller,
        of: &FleetName,
        published: &mut (u64, Arc<Entries>),
    ) -> Result<(), End> {
        let since = i64::try_from(published.0).unwrap_or(0);
        let name = of.as_str();
        let particulars: &Values<'_> = &[(&name, Type::TEXT), (&since, Type::INT8)];
        let answer: Answer = caller.ask(PUBLISHED, particulars).await?;
        let (generation, entries) = published;
        if answer.is_whole {
            *entries = Arc::default();
        }
        take(Arc::make_mut(entries), &answer.entries.unwrap_or_default());
        *generation = answer.generation;
        Ok(())
    }

    fn connected(&self, database: &Database) {
        let server = &database.server;
        tracing::info!(
            server,
            name = %self.settings.name,
            region = %self.settings.region,
            generation = self.generation,
            "member of the fleet"
        );
        self.status.change(|view| {
            view.contact = Contact::Connected;
            view.server = Some(server.clone());
        });
    }

    /// Notes that the database is of no use, and says so if that is news.
    fn failed(&self, contact: Contact) {
        self.status.failed();
        let is_news = |view: &FleetView| view.contact != contact;
        if self.status.read().is_some_and(|view| is_news(&view)) {
            let why = contact.error().unwrap_or_default();
            match contact {
                Contact::Refused(_) => tracing::error!(why, "no part in the fleet"),
                _ => tracing::warn!(
                    why,
                    "the fleet's database cannot be asked; what is known stays"
                ),
            }
        }
        self.status.change(|view| view.contact = contact);
    }
}

const REGISTER: &str = "select tml_proxy.register($1, $3, $4, $2)::text";
const HEARTBEAT: &str = "select tml_proxy.heartbeat($1, $2, $3)::text";
const PUBLISH: &str = "select tml_proxy.publish($1, $2, $3, $4, $5::text::jsonb)::text";
const PUBLISHED: &str = "select tml_proxy.published($1, $2, $3, $4)::text";
const LEAVE: &str = "select tml_proxy.leave($1, $2)::text";
