//! One proxy's part in a fleet: it registers, tells what can be reached through it, and reads what others
//! tell.
//!
//! Whatever the database does, nothing here can hold up anybody else: others hand over values and read
//! what is known.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::types::{ToSql, Type};

use super::{
    database::{Database, DatabaseError},
    entry::{Entries, Stored, changes, take},
    instance,
    migrate::{Schema, SchemaError},
    settings::{Fleet, FleetName},
    status::{Contact, FleetProxy, FleetStatus, FleetView},
};
use crate::units::{duration_ms, jittered};

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

/// Values of a query.
type Values<'a> = [(&'a (dyn ToSql + Sync), Type)];

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

/// How it stands with a proxy, as the database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    Member,
    Taken,
    Fenced,
    OfAnotherRole,
    Full,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Deserialize)]
struct Answer {
    standing: Standing,
    #[serde(default)]
    silent_ms: u64,
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    is_behind: bool,
    #[serde(default)]
    is_whole: bool,
    #[serde(default)]
    proxies: Option<Vec<Told>>,
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
    has_left: bool,
    is_fenced: bool,
}

/// Why it does not go on with a connection.
#[derive(Debug)]
enum End {
    /// The database is of no use.
    Failed(SchemaError),
    /// It will not have this proxy, which somebody has to do something about.
    Refused(String),
    /// It has forgotten this proxy.
    Forgotten,
    /// The proxy has let go of its name.
    Left,
}

impl From<DatabaseError> for End {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SchemaError> for End {
    fn from(error: SchemaError) -> Self {
        Self::Failed(error)
    }
}

/// Takes part until it is told to leave.
pub async fn run(settings: Arc<Fleet>, own: Arc<Own>, status: Arc<FleetStatus>) {
    status.begin(&settings);
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
        let end = member.take_part().await;
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
    async fn take_part(&mut self) -> End {
        let access = self.settings.access();
        let connecting = Database::connect(&access, self.settings.name.as_str());
        let leaves = Arc::clone(&self.own);
        let database = tokio::select! {
            connected = connecting => match connected {
                Ok(database) => database,
                Err(error) => return error.into(),
            },
            () = leaves.leaves.notified() => return End::Left,
        };
        let end = tokio::select! {
            Err(end) = self.serve(&database) => end,
            error = database.ended() => error.into(),
            () = leaves.leaves.notified() => End::Left,
        };
        if let End::Left = end {
            // What is not said is found out by itself.
            let _ = timeout(LEAVE_WITHIN, self.ask(&database, LEAVE, &[])).await;
        }
        end
    }

    async fn serve(&mut self, database: &Database) -> Result<std::convert::Infallible, End> {
        Schema::of(database).await?.check()?;
        let (region, version) = (self.settings.region.as_str(), env!("CARGO_PKG_VERSION"));
        let particulars: &Values<'_> = &[(&region, Type::TEXT), (&version, Type::TEXT)];
        let registered = self.ask(database, REGISTER, particulars).await?;
        self.generation = self.generation.max(registered.generation);
        database.listen().await?;
        let mut own = self.own.entries.subscribe();
        let entries = own.borrow_and_update().clone();
        self.publish(database, entries, true).await?;
        self.beat(database).await?;
        self.connected(database);
        let mut beats = interval(BEAT_EVERY);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.reset();
        loop {
            tokio::select! {
                _ = beats.tick() => self.beat(database).await?,
                () = database.changed.notified() => {
                    self.beat(database).await?;
                    beats.reset();
                    sleep(APART).await;
                }
                Ok(()) = own.changed() => {
                    let entries = own.borrow_and_update().clone();
                    self.publish(database, entries, false).await?;
                    sleep(APART).await;
                }
            }
        }
    }

    /// Tells what can be reached through this proxy: what has changed, or everything.
    async fn publish(
        &mut self,
        database: &Database,
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
            let answer = self.ask(database, PUBLISH, particulars).await?;
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
    async fn beat(&mut self, database: &Database) -> Result<(), End> {
        let asked = Instant::now();
        let sessions = i64::try_from(self.own.sessions.load(Relaxed)).unwrap_or(i64::MAX);
        let particulars: &Values<'_> = &[(&sessions, Type::INT8)];
        let answer = self.ask(database, HEARTBEAT, particulars).await?;
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
                self.read(database, &told.name, &mut published).await?;
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
                has_left: told.has_left,
                is_fenced: told.is_fenced,
                published,
            });
        }
        proxies.sort_by(|one, other| one.name.cmp(&other.name));
        self.status.change(|view| {
            view.heard = Some(asked.into_std());
            view.proxies = proxies;
        });
        if is_behind {
            tracing::warn!("the database has lost what this proxy told; it is told again");
            let entries = self.own.entries.borrow().clone();
            self.publish(database, entries, true).await?;
        }
        Ok(())
    }

    /// Reads what another proxy tells.
    async fn read(
        &self,
        database: &Database,
        of: &FleetName,
        published: &mut (u64, Arc<Entries>),
    ) -> Result<(), End> {
        let since = i64::try_from(published.0).unwrap_or(0);
        let name = of.as_str();
        let particulars: &Values<'_> = &[(&name, Type::TEXT), (&since, Type::INT8)];
        let answer = self.ask(database, PUBLISHED, particulars).await?;
        let (generation, entries) = published;
        if answer.is_whole {
            *entries = Arc::default();
        }
        take(Arc::make_mut(entries), &answer.entries.unwrap_or_default());
        *generation = answer.generation;
        Ok(())
    }

    /// Calls a function as this proxy; what comes of it if the database has it as a member.
    async fn ask(
        &self,
        database: &Database,
        function: &str,
        particulars: &Values<'_>,
    ) -> Result<Answer, End> {
        let (name, instance) = (self.settings.name.as_str(), self.instance.as_str());
        let mut values: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&name, Type::TEXT), (&instance, Type::TEXT)];
        values.extend_from_slice(particulars);
        let answer: Answer = database.ask(function, &values).await?;
        let silent = duration_ms(answer.silent_ms);
        Err(End::Refused(match answer.standing {
            Standing::Member => return Ok(answer),
            Standing::Unknown => return Err(End::Forgotten),
            Standing::Taken => format!(
                "another process has the name \"{name}\" in this fleet and was heard of {silent} ago; if that \
                 was this proxy before a restart, the name is free soon, otherwise give one of them \
                 another fleet.name"
            ),
            Standing::Fenced => format!(
                "the proxy \"{name}\" was removed from this fleet; `tml-proxy fleet restore {name}` \
                 takes that back"
            ),
            Standing::OfAnotherRole => format!(
                "the name \"{name}\" in this fleet belongs to another role of the database: take \
                 another fleet.name, or give this one free by `tml-proxy fleet remove {name}` and \
                 `restore {name}`"
            ),
            Standing::Full => "the fleet has 1000 proxies and takes no more".to_owned(),
        }))
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
