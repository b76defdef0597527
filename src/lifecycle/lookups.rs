//! Looking names up: at the start and at a reload, and while the proxy runs for those that are followed.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    leading::Followed,
    on_demand::{Demand, OnDemand},
    running::until,
    tasks::{Ended, Tasks},
};
use crate::{
    config::Config,
    resolve::{Asking, Found, LookupError, Name, Names, News, Resolver, Schedule},
    telemetry::Task,
};

/// Lookups at a time; each has two descriptors.
pub(super) const AT_ONCE: usize = 16;

/// Lookups that wait for control.
const WAITING: usize = 64;

/// Addresses of a name that the log shows.
const SHOWN: usize = 8;

/// What came of looking a name up.
pub(crate) type LookedUp = (Name, Result<Found, LookupError>);

/// What is looked up, and how.
#[derive(Debug, Clone, Default, PartialEq)]
struct Wanted {
    names: Vec<Followed>,
    asking: Asking,
}

impl Demand for Wanted {
    fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Whoever looks names up.
#[derive(Debug)]
pub(super) struct Lookups {
    task: OnDemand<Wanted>,
    names: Arc<Names>,
    found: mpsc::Sender<LookedUp>,
}

/// Looks up what a configuration leads to, as far as that has to be known before it comes into force: a
/// few at a time, and no longer than a lookup may take.
pub(super) async fn before(config: &Config, names: &Names) -> Vec<LookedUp> {
    let all = super::leading::names(config).into_iter();
    // Those that are followed are as they are now.
    let wanted =
        all.filter(|one| one.refresh.is_none() || names.of(&one.name).addresses.is_empty());
    let mut wanted = wanted.map(|one| one.name).peekable();
    if wanted.peek().is_none() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let within = config.resolver.within;
    // What is not known by then is looked up while the others serve.
    let _ = timeout(within, all_of(&config.resolver, wanted, &mut found)).await;
    found
}

/// Takes note of what was found and says what is new; whether anything is.
pub(super) fn note(names: &Names, found: impl IntoIterator<Item = LookedUp>) -> bool {
    let mut is_new = false;
    for (name, found) in found {
        let news = names.note(&name, &found);
        is_new |= news.is_some();
        let known = names.of(&name);
        let (name, addresses) = (&name.name, known.addresses.len());
        match news {
            Some(News::Fails(error)) => tracing::warn!(
                %name,
                error,
                addresses,
                "a name cannot be looked up; what is known of it stays"
            ),
            Some(News::Works | News::Moved) => {
                let shown = known.addresses.iter().take(SHOWN).map(ToString::to_string);
                let shown = shown.collect::<Vec<_>>().join(" ");
                let beyond = known.beyond;
                tracing::info!(%name, addresses, beyond, first = shown, "a name leads to other addresses");
            }
            None => {}
        }
    }
    is_new
}

/// Looks names up, a few at a time.
pub(crate) async fn all_of(
    asking: &Asking,
    mut wanted: impl Iterator<Item = Name>,
    found: &mut Vec<LookedUp>,
) {
    let resolver = Arc::new(Resolver::new(asking.clone()));
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(name) = wanted.next()
        {
            look_up(&mut running, &resolver, name);
        }
        match running.join_next().await {
            Some(Ok(one)) => found.push(one),
            // One that panicked is looked up again.
            Some(Err(_)) => {}
            None => return,
        }
    }
}

fn look_up(running: &mut JoinSet<LookedUp>, resolver: &Arc<Resolver>, name: Name) {
    let resolver = Arc::clone(resolver);
    running.spawn(async move {
        let found = resolver.lookup(&name.name, name.family).await;
        (name, found)
    });
}

impl Lookups {
    /// Nobody is asked yet; the other end takes what is found.
    pub fn new(tasks: Tasks, names: Arc<Names>) -> (Self, mpsc::Receiver<LookedUp>) {
        let (found, heard) = mpsc::channel(WAITING);
        let lookups = Self {
            task: OnDemand::new(tasks),
            names,
            found,
        };
        (lookups, heard)
    }

    /// Follows what a configuration leads to, and nothing else.
    pub async fn set(&mut self, config: &Config) {
        let wanted = Wanted {
            names: super::leading::names(config),
            asking: config.resolver.clone(),
        };
        let names = &wanted.names;
        self.names
            .keep(|known| names.iter().any(|one| one.name == *known));
        let work = |wanted| follow(wanted, Arc::clone(&self.names), self.found.clone());
        // What has failed is looked up again, also if nothing else has changed.
        self.task.set(wanted, work).await;
    }

    /// Starts, if there is anything to look up and nobody does.
    pub fn start(&mut self) {
        let work = |wanted| follow(wanted, Arc::clone(&self.names), self.found.clone());
        self.task.start(work);
    }

    /// What has ended by itself.
    pub async fn take_ended(&mut self) -> Option<Ended> {
        self.task
            .take_ended(Task::Resolving, "looking names up")
            .await
    }
}

/// Looks names up whenever they are due.
async fn follow(
    mut wanted: watch::Receiver<Arc<Wanted>>,
    names: Arc<Names>,
    found: mpsc::Sender<LookedUp>,
) -> String {
    let mut schedules = HashMap::<Followed, Schedule>::new();
    let mut running = JoinSet::new();
    let mut asking = None;
    let mut resolver = Arc::new(Resolver::new(Asking::default()));
    wanted.mark_changed();
    loop {
        let now = Instant::now();
        if wanted.has_changed().unwrap_or(false) {
            let wanted = Arc::clone(&wanted.borrow_and_update());
            if asking.as_ref() != Some(&wanted.asking) {
                resolver = Arc::new(Resolver::new(wanted.asking.clone()));
                asking = Some(wanted.asking.clone());
            }
            schedules = again(schedules, &wanted.names, &names, now);
        }
        for (followed, schedule) in &mut schedules {
            if running.len() < AT_ONCE && schedule.begin(now) {
                look_up(&mut running, &resolver, followed.name.clone());
            }
        }
        let next = schedules.values().filter_map(Schedule::due).min();
        let next = next.filter(|_| running.len() < AT_ONCE);
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => wanted.mark_changed(),
                Err(_) => return "nobody wants names any more".to_owned(),
            },
            () = until(next.map(tokio::time::Instant::from_std)) => {}
            Some(done) = running.join_next() => {
                let (name, outcome) = match done {
                    Ok(done) => done,
                    Err(error) => return format!("a lookup failed: {error}"),
                };
                let now = Instant::now();
                let own = schedules.iter_mut().filter(|(followed, _)| followed.name == name);
                for (_, schedule) in own {
                    match &outcome {
                        Ok(found) => schedule.answered(found, now),
                        Err(_) => schedule.failed(now),
                    }
                }
                if found.send((name, outcome)).await.is_err() {
                    return "nobody takes what is found any more".to_owned();
                }
            }
        }
    }
}

/// The schedules of what is wanted now. What is followed as before goes on as before.
fn again(
    mut before: HashMap<Followed, Schedule>,
    wanted: &[Followed],
    names: &Names,
    now: Instant,
) -> HashMap<Followed, Schedule> {
    let mut schedules = HashMap::with_capacity(wanted.len());
    for followed in wanted {
        let known = names.of(&followed.name);
        let is_well = !known.addresses.is_empty() && known.error.is_none();
        let schedule = before
            .remove(followed)
            .unwrap_or_else(|| Schedule::new(followed.refresh, is_well, now));
        schedules.insert(followed.clone(), schedule);
    }
    schedules
}
