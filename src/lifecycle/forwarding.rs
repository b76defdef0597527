//! The mappings of the file and those of the switchboard in one table.
//!
//! Each half is replaced as a whole and leaves the other alone. The file's half comes all or nothing.
//! The switchboard's comes as far as it can: what contradicts the file, or cannot be opened, is left
//! out and said.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    checking::Down,
    control::Control,
    leading::{Judges, Moved, lead},
};
use crate::{
    config::{Config, reserved},
    end_reason::EndReason,
    listen::{ListenError, ListenStep},
    provider::{
        LocalAddresses,
        switchboard::{
            KnownJobs, Switchboard,
            exposer::{NotOpened, Outcome},
        },
    },
    resolve::Names,
    shared_map::SharedMap,
    table::{
        Conflict, Diff, ListenAddr, MappingName, MappingSpec, Origin, RemovalPolicy, Reserved,
        Summary, Surroundings, Table,
    },
    text::lines,
    worker::SessionChange,
};

/// Mappings of jobs by their names.
pub(super) type JobMappings = SharedMap<MappingName, MappingSpec>;

/// The table's two halves and what puts them into force.
#[derive(Debug)]
pub(super) struct Forwarding {
    pub control: Control,
    file: Vec<MappingSpec>,
    reserved: Vec<Reserved>,
    jobs: JobMappings,
    known_jobs: Arc<KnownJobs>,
    /// What names lead to.
    pub names: Arc<Names>,
    /// Where targets may be.
    allow: Vec<IpNet>,
}

/// A change that could not be made, because of no job.
#[derive(Debug)]
struct Failed {
    why: String,
    jobs: Vec<MappingSpec>,
    lost: Vec<NotOpened>,
}

impl Forwarding {
    /// Nothing forwarded yet.
    pub fn new(control: Control, names: Arc<Names>) -> Self {
        Self {
            control,
            file: Vec::new(),
            reserved: Vec::new(),
            jobs: JobMappings::default(),
            known_jobs: Arc::default(),
            names,
            allow: Vec::new(),
        }
    }

    /// What an earlier image of the program has forwarded; `jobs` are the mappings of the switchboard.
    pub fn adopt(
        control: Control,
        config: &Config,
        jobs: Vec<MappingSpec>,
        known_jobs: Arc<KnownJobs>,
        names: Arc<Names>,
    ) -> Self {
        Self {
            control,
            file: config.mappings.clone(),
            reserved: reserved(config),
            jobs: by_name(jobs),
            known_jobs,
            names,
            allow: config.targets.allow.clone(),
        }
    }

    /// Where each mapping of the file was asked for. They are the first of the table, those of jobs the
    /// rest.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        let Self {
            control: _,
            file,
            reserved: _,
            jobs: _,
            known_jobs: _,
            names: _,
            allow: _,
        } = self;
        file.iter().map(|spec| &spec.origin)
    }

    /// Puts the mappings of a file into force beside those of jobs that are left.
    ///
    /// # Errors
    ///
    /// Every listener that could not be opened, in words. Nothing has changed then.
    pub async fn load(&mut self, config: &Config) -> Result<Summary, String> {
        let reserved = reserved(config);
        let mut jobs = Vec::new();
        let mut unwanted = Vec::new();
        for job in self.jobs.values() {
            match why_unwanted(job, config.switchboard.as_ref()) {
                None => jobs.push(job.clone()),
                Some(why) => unwanted.push((job.name.clone(), why)),
            }
        }
        let unwanted = self.with_sessions(unwanted);
        let judges = Judges {
            allow: &config.targets.allow,
            reserved: &reserved,
        };
        let before = self.control.table();
        let applied = self
            .try_apply(&config.mappings, jobs, judges, &HashSet::new())
            .await;
        let (diff, jobs, lost) = match applied {
            Ok(applied) => applied,
            Err(failed) => {
                // Groups that stay may have been led by what is not in force.
                self.lead();
                return Err(failed.why);
            }
        };
        for lost in lost {
            let (mapping, why) = (lost.mapping, lost.why);
            tracing::warn!(%mapping, why, "mapping of a job gave way");
        }
        tell_of_ends(unwanted);
        self.file.clone_from(&config.mappings);
        self.reserved = reserved;
        self.allow.clone_from(&config.targets.allow);
        self.jobs = by_name(jobs);
        if !self.control.looping().is_empty() {
            self.follow_addresses();
        }
        Ok(diff.summary(&before, &self.control.table()))
    }

    /// Those of the mappings whose sessions would not stay, with how many that are.
    fn with_sessions(&self, unwanted: Vec<(MappingName, &'static str)>) -> Vec<Ending> {
        let table = self.control.table();
        let mappings = table.mappings();
        let mut found: HashMap<_, _> = unwanted.into_iter().collect();
        let ending = mappings.filter_map(|mapping| {
            let why = found.remove(&mapping.name)?;
            let sessions = mapping.stats.open();
            let stay = mapping.policy.on_remove == RemovalPolicy::Keep;
            (sessions > 0 && !stay).then(|| Ending {
                mapping: mapping.name.clone(),
                sessions,
                why,
            })
        });
        ending.collect()
    }

    /// Puts the mappings of jobs into force, those of the file untouched, and says which of them
    /// could not be. There may be `most` of them: beyond, they would take the descriptors of
    /// sessions. Only what has changed is looked at, unless something is wrong with it.
    pub async fn expose(
        &mut self,
        jobs: JobMappings,
        known_jobs: Arc<KnownJobs>,
        most: usize,
    ) -> Outcome {
        self.known_jobs = known_jobs;
        if jobs.len() <= most && self.change_jobs(&jobs).await {
            self.jobs = jobs;
            return Outcome::default();
        }
        let (jobs, mut too_many) = at_most(most, jobs.values().cloned().collect(), &self.jobs);
        let (file, reserved, allow) = (
            std::mem::take(&mut self.file),
            std::mem::take(&mut self.reserved),
            std::mem::take(&mut self.allow),
        );
        let judges = Judges {
            allow: &allow,
            reserved: &reserved,
        };
        // What became of the file's mappings since they were accepted is no fault of a job.
        self.control.follow_addresses(&reserved);
        let looping = self.control.looping().clone();
        let applied = self.try_apply(&file, jobs, judges, &looping).await;
        (self.file, self.reserved, self.allow) = (file, reserved, allow);
        let (not_opened, leaves_open) = match applied {
            Ok((_, jobs, lost)) => {
                self.jobs = by_name(jobs);
                (lost, false)
            }
            // No listener of the file is opened here, so this is one of its mappings against
            // another, which no job can be blamed for.
            Err(Failed { why, jobs, lost }) => {
                let unopened = jobs.into_iter().filter_map(|spec| {
                    Some(NotOpened {
                        listen: spec.pairs.first()?.0,
                        mapping: spec.name,
                        blame_port: false,
                        why: why.clone(),
                    })
                });
                (lost.into_iter().chain(unopened).collect(), true)
            }
        };
        too_many.extend(not_opened);
        Outcome {
            not_opened: too_many,
            leaves_open,
        }
    }

    /// Puts mappings of jobs into force by what differs from those there are, if nothing stands in the way;
    /// whether it is done. Nothing has changed if it is not.
    async fn change_jobs(&mut self, jobs: &JobMappings) -> bool {
        // What leads back here is looked at as a whole.
        if !self.control.looping().is_empty() {
            return false;
        }
        let names = jobs.differences(&self.jobs, is_same);
        let changes: Vec<_> = names
            .into_iter()
            .map(|name| (name, jobs.get(name)))
            .collect();
        let own = LocalAddresses::default();
        let departed = self.control.departed();
        let around = Surroundings {
            reserved: &self.reserved,
            departed: &departed,
            is_local: &|ip| own.contains(ip),
            looping: self.control.looping(),
        };
        match self.control.table().with_jobs(&changes, &around) {
            Some(table) => self.apply(table).await.is_ok(),
            None => false,
        }
    }

    /// Closes the listeners of mappings that lead back here since the addresses of this machine have
    /// changed, and opens those again that no longer do.
    pub fn follow_addresses(&mut self) {
        self.lead();
        self.control.follow_addresses(&self.reserved);
    }

    /// Has mappings lead where their names lead now; sessions at addresses that are gone do what
    /// `on_retarget` says.
    pub fn lead(&mut self) {
        let judges = Judges {
            allow: &self.allow,
            reserved: &self.reserved,
        };
        let moved = lead(&self.control.table(), &self.names, judges);
        self.leave(moved);
    }

    fn leave(&self, moved: Vec<Moved>) {
        for Moved {
            mapping,
            group,
            gone,
        } in moved
        {
            let policy = mapping.policy.on_retarget;
            let change = SessionChange::by_policy_at(policy, EndReason::MappingRetargeted, gone);
            self.control.tell_sessions_of(&group, change);
        }
    }

    /// Ends the sessions of a target that was found down.
    pub fn leave_down(&self, down: Down) {
        let Down { group, target } = down;
        let targets = [target].into();
        let change =
            SessionChange::by_policy_at(RemovalPolicy::Kill, EndReason::TargetDown, targets);
        self.control.tell_sessions_of(&group, change);
    }

    /// Applies both halves, with as few mappings of jobs left out as it takes.
    async fn try_apply(
        &mut self,
        file: &[MappingSpec],
        mut jobs: Vec<MappingSpec>,
        judges: Judges<'_>,
        looping: &HashSet<ListenAddr>,
    ) -> Result<(Diff, Vec<MappingSpec>, Vec<NotOpened>), Failed> {
        let own = LocalAddresses::default();
        let mut lost = Vec::new();
        loop {
            let specs: Vec<_> = file.iter().chain(&jobs).cloned().collect();
            let departed = self.control.departed();
            let around = Surroundings {
                reserved: judges.reserved,
                departed: &departed,
                is_local: &|ip| own.contains(ip),
                looping,
            };
            let before = jobs.len();
            let why = match Table::build(&specs, &self.control.table(), &around) {
                Ok(table) => {
                    // Before anybody can come to what has no address yet.
                    let moved = lead(&table, &self.names, judges);
                    match self.apply(table).await {
                        Ok(diff) => {
                            self.leave(moved);
                            return Ok((diff, jobs, lost));
                        }
                        Err(errors) => {
                            leave_out(&mut jobs, &mut lost, |spec| unopened(spec, &errors));
                            list(&errors)
                        }
                    }
                }
                Err(conflicts) => {
                    leave_out(&mut jobs, &mut lost, |spec| contradicted(spec, &conflicts));
                    list(&conflicts)
                }
            };
            if jobs.len() == before {
                return Err(Failed { why, jobs, lost });
            }
        }
    }

    async fn apply(&mut self, table: Table) -> Result<Diff, Vec<ListenError>> {
        let known_jobs = Arc::clone(&self.known_jobs);
        // A job that comes and goes is the same job: what an operator did to its mapping stays.
        let returns = |name: &MappingName| {
            let job = name.job();
            job.is_some_and(|of| known_jobs.jobs.contains_key(&*of.job))
        };
        self.control.apply(table, &returns).await
    }
}

fn by_name(jobs: Vec<MappingSpec>) -> JobMappings {
    jobs.into_iter()
        .map(|spec| (spec.name.clone(), spec))
        .collect()
}

/// Whether two mappings of one name are to be the same, wherever that was asked for.
fn is_same(one: &MappingSpec, other: &MappingSpec) -> bool {
    let same_pairs = Arc::ptr_eq(&one.pairs, &other.pairs) || one.pairs == other.pairs;
    same_pairs && one.policy == other.policy
}

/// A mapping of a job that a reload takes away together with its sessions.
#[derive(Debug)]
struct Ending {
    mapping: MappingName,
    sessions: u32,
    why: &'static str,
}

/// Why other settings move the mapping of a job, if they do. It comes back with the next decision, on
/// another port or for another target.
fn why_unwanted(spec: &MappingSpec, switchboard: Option<&Switchboard>) -> Option<&'static str> {
    let Some(switchboard) = switchboard else {
        return Some("there is no [switchboard] any more");
    };
    let name = spec.name.job().map(|of| &*of.rule);
    let mut rules = switchboard.expose.iter();
    let Some(rule) = rules.find(|rule| Some(rule.name.as_str()) == name) else {
        return Some("its rule is no longer in switchboard.expose");
    };
    spec.pairs.iter().find_map(|(listen, target)| {
        // Those of jobs are addresses.
        let target = target.address()?;
        let allowed = |net: &ipnet::IpNet| net.contains(&target.ip());
        match () {
            () if !switchboard.ports.contains(listen.port()) => {
                Some("its port is no longer in switchboard.ports")
            }
            () if rule.port != target.port() => Some("its rule leads to another port"),
            () if !switchboard.allow.iter().any(allowed) => {
                Some("its address is no longer in switchboard.targets")
            }
            () if !rule.is_for(target.ip()) => Some("its host is no longer one of its rule's"),
            () => None,
        }
    })
}

/// Tells which sessions a reload ends.
fn tell_of_ends(endings: Vec<Ending>) {
    /// Mappings with a line of their own.
    const LINES: usize = 20;
    for ending in endings.iter().take(LINES) {
        let Ending {
            mapping,
            sessions,
            why,
        } = ending;
        tracing::warn!(%mapping, sessions, why, "the reload ends sessions of a job");
    }
    let rest = endings.iter().skip(LINES);
    let sessions: u32 = rest.clone().map(|ending| ending.sessions).sum();
    if sessions > 0 {
        let mappings = rest.count();
        tracing::warn!(mappings, sessions, "the reload ends sessions of more jobs");
    }
}

/// As many mappings of jobs as there may be, those that are there already first, and what there is to
/// say of the others.
fn at_most(
    most: usize,
    mut jobs: Vec<MappingSpec>,
    there: &JobMappings,
) -> (Vec<MappingSpec>, Vec<NotOpened>) {
    if jobs.len() <= most {
        return (jobs, Vec::new());
    }
    jobs.sort_by_key(|spec| !there.contains_key(&spec.name));
    let beyond = jobs.split_off(most).into_iter().filter_map(|spec| {
        Some(NotOpened {
            listen: spec.pairs.first()?.0,
            mapping: spec.name,
            blame_port: false,
            why: format!(
                "the limit on open files leaves room for {most} ports of jobs: raise LimitNOFILE= in \
                 the unit (ulimit -n)"
            ),
        })
    });
    let beyond = beyond.collect();
    (jobs, beyond)
}

fn leave_out(
    jobs: &mut Vec<MappingSpec>,
    lost: &mut Vec<NotOpened>,
    fault: impl Fn(&MappingSpec) -> Option<NotOpened>,
) {
    jobs.retain(|spec| match fault(spec) {
        None => true,
        Some(fault) => {
            lost.push(fault);
            false
        }
    });
}

fn unopened(spec: &MappingSpec, errors: &[ListenError]) -> Option<NotOpened> {
    let error = errors
        .iter()
        .find(|error| error.mapping == spec.name.as_str())?;
    Some(NotOpened {
        mapping: spec.name.clone(),
        listen: error.listen,
        blame_port: error.step != ListenStep::Open,
        why: error.to_string(),
    })
}

fn contradicted(spec: &MappingSpec, conflicts: &[Conflict]) -> Option<NotOpened> {
    let listen = spec.pairs.first()?.0;
    let fault = |conflict: &Conflict| match conflict {
        Conflict::Name { name, .. } => (*name == spec.name).then_some(false),
        Conflict::Listen { taken, wanted, .. } => {
            (listen == *taken || listen == *wanted).then_some(true)
        }
        Conflict::Loop { name, listener, .. } => match *name == spec.name {
            true => Some(false),
            false => (listen == *listener).then_some(true),
        },
    };
    let (blame_port, conflict) = conflicts
        .iter()
        .find_map(|conflict| Some((fault(conflict)?, conflict)))?;
    Some(NotOpened {
        mapping: spec.name.clone(),
        listen,
        blame_port,
        why: conflict.to_string(),
    })
}

/// Errors, a line each, as many as anybody wants to read.
pub(super) fn list(errors: &[impl std::fmt::Display]) -> String {
    lines(errors.iter())
}
