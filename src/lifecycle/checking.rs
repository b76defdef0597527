//! Checking targets while the proxy runs, and telling what was found.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use tokio::sync::{mpsc, watch};

use super::{
    limits,
    on_demand::{Demand, OnDemand},
    running::until,
    tasks::{Ended, Tasks},
};
use crate::{
    config::Config,
    health::{Failure, OnDown, Outcome, Probe, Prober},
    limit::Tick,
    table::{Mapping, Table},
    target::{Member, MemberState, TargetGroup},
    telemetry::Task,
};

/// A target that was found down and whose sessions are to end.
#[derive(Debug)]
pub(super) struct Down {
    pub group: Arc<TargetGroup>,
    pub target: SocketAddr,
}

/// Who is told what comes of a try.
#[derive(Debug, Clone)]
struct Told {
    mapping: Arc<Mapping>,
    group: Arc<TargetGroup>,
    member: Arc<Member>,
}

/// What is checked.
#[derive(Debug, Default)]
struct Wanted {
    /// One that is the same for several groups is tried once for all of them.
    probes: HashMap<Arc<Probe>, Vec<Told>>,
    /// Tries at a time.
    at_once: usize,
}

impl Demand for Wanted {
    fn is_empty(&self) -> bool {
        self.probes.is_empty()
    }
}

/// Whoever checks targets.
#[derive(Debug)]
pub(super) struct Checks {
    task: OnDemand<Wanted>,
    down: mpsc::UnboundedSender<Down>,
}

impl Checks {
    /// Nothing is checked yet; the other end hears which targets are down whose sessions are to end.
    pub fn new(tasks: Tasks) -> (Self, mpsc::UnboundedReceiver<Down>) {
        let (down, heard) = mpsc::unbounded_channel();
        let checks = Self {
            task: OnDemand::new(tasks),
            down,
        };
        (checks, heard)
    }

    /// Checks the targets of a table as its policies say, and no others. Those that are checked as before
    /// are not disturbed.
    pub async fn set(&mut self, table: &Table, config: &Config) {
        let now = Tick::from(Instant::now());
        let mut probes = HashMap::<Arc<Probe>, Vec<Told>>::new();
        for (mapping, group) in table.groups() {
            for member in &*group.members() {
                let policy = &mapping.policy;
                let Some(check) = &policy.check else {
                    member.forget_state(now);
                    continue;
                };
                let of_sessions = member.settings.send_proxy.unwrap_or(policy.send_proxy);
                let probe = Arc::new(Probe {
                    target: member.address,
                    from: policy.bind,
                    freebind: policy.freebind,
                    header: check.header(of_sessions),
                    check: check.clone(),
                });
                probes.entry(probe).or_default().push(Told {
                    mapping: Arc::clone(mapping),
                    group: Arc::clone(group),
                    member: Arc::clone(member),
                });
            }
        }
        let at_once = limits::checks(config, limits::descriptor_limit());
        let wanted = Wanted { probes, at_once };
        let work = |wanted| check(wanted, self.down.clone());
        self.task.set(wanted, work).await;
    }

    /// Starts, if there is anything to check and nobody does.
    pub fn start(&mut self) {
        self.task.start(|wanted| check(wanted, self.down.clone()));
    }

    /// What has ended by itself.
    pub async fn take_ended(&mut self) -> Option<Ended> {
        self.task
            .take_ended(Task::Checking, "checking targets")
            .await
    }
}

/// Tries what is wanted, for ever.
async fn check(
    mut wanted: watch::Receiver<Arc<Wanted>>,
    down: mpsc::UnboundedSender<Down>,
) -> String {
    let mut prober = Prober::new(Instant::now());
    let mut now_wanted = Arc::default();
    let mut could_try = true;
    wanted.mark_changed();
    loop {
        if wanted.has_changed().unwrap_or(false) {
            now_wanted = Arc::clone(&wanted.borrow_and_update());
            let probes = now_wanted.probes.keys().cloned();
            prober.set(probes, now_wanted.at_once, Instant::now());
        }
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => wanted.mark_changed(),
                Err(_) => return "nobody wants targets checked any more".to_owned(),
            },
            () = until(prober.next().map(tokio::time::Instant::from_std)) => {
                let outcomes = prober.turn(Instant::now());
                if outcomes.is_empty() {
                    continue;
                }
                for (probe, outcome) in outcomes {
                    if let Err(failure @ Failure::NotTried(_)) = &outcome {
                        // It says nothing of the target, and the next line would say the same.
                        if could_try {
                            let target = probe.target;
                            tracing::error!(%target, error = %failure, "targets cannot be checked");
                        }
                        could_try = false;
                        continue;
                    }
                    could_try = true;
                    let all = now_wanted.probes.get(&probe).into_iter().flatten();
                    for told in all {
                        told.hear(&probe, &outcome, &down);
                    }
                }
            }
        }
    }
}

impl Told {
    /// Takes note of what came of a try, and says so if its target has another state now.
    fn hear(&self, probe: &Probe, outcome: &Outcome, down: &mpsc::UnboundedSender<Down>) {
        let Self {
            mapping,
            group,
            member,
        } = self;
        let check = &probe.check;
        let now = Instant::now().into();
        let failure = outcome.as_ref().err().map(ToString::to_string);
        let state = member.report(failure, (check.rise, check.fall), now);
        let (name, target) = (&mapping.name, probe.target);
        match (state, outcome) {
            (Some(MemberState::Down), Err(error)) => {
                tracing::warn!(mapping = %name, %target, %error, "target is down");
                if mapping.policy.on_down == OnDown::Kill {
                    // Nobody listens any more when the process ends.
                    let _ = down.send(Down {
                        group: Arc::clone(group),
                        target,
                    });
                }
            }
            (Some(MemberState::Up), _) => {
                tracing::info!(mapping = %name, %target, "target is up");
            }
            _ => {}
        }
    }
}
