//! What live sessions do where the table changes.

use std::sync::Arc;

use crate::{
    end_reason::EndReason,
    table::{Diff, RouteChange},
    worker::{SessionChange, SessionChanges},
};

/// What becomes of the live sessions of every route that changed. A route nobody uses has its say,
/// too: a client may be on its way from the listener to its session.
pub(super) fn session_changes(diff: &Diff) -> SessionChanges {
    let removed = diff.removed.iter().filter_map(|route| {
        let change = SessionChange::by_policy(
            route.mapping.policy.on_remove,
            EndReason::MappingRemoved,
            None,
        )?;
        Some((route.listen, (route.mapping.name.clone(), change)))
    });
    let changed = diff.changed.iter().filter_map(|change| {
        let mapping = change.old.mapping.name.clone();
        Some((change.new.listen, (mapping, successor(change)?)))
    });
    removed.chain(changed).collect()
}

fn successor(change: &RouteChange) -> Option<SessionChange> {
    let new = &change.new;
    let other_job = change.renamed() && change.old.mapping.name.job().is_some();
    match (change.retargeted() || other_job, change.renamed()) {
        (false, _) => Some(SessionChange::Adopt(Arc::clone(new))),
        (true, false) => SessionChange::by_policy(
            new.mapping.policy.on_retarget,
            EndReason::MappingRetargeted,
            Some(Arc::clone(new)),
        )
        .or_else(|| Some(SessionChange::Adopt(Arc::clone(new)))),
        // The port went to another mapping: for these sessions theirs was removed. Of two jobs also where both
        // are at one address: they may be different users'.
        (true, true) => SessionChange::by_policy(
            change.old.mapping.policy.on_remove,
            EndReason::MappingRemoved,
            None,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, SocketAddr},
        time::Duration,
    };

    use super::*;
    use crate::table::{
        JobRule, ListenAddr, ListenHost, Mapping, MappingName, Policy, RemovalPolicy, Route,
    };

    #[test]
    fn a_removed_mapping_without_open_sessions_still_sets_its_queue_a_deadline() {
        let within = Duration::from_secs(30);
        let policy = Policy {
            on_remove: RemovalPolicy::Drain(within),
            ..Policy::default()
        };
        let name = MappingName::new("m");
        let route = Arc::new(Route {
            listen: ListenAddr::new(ListenHost::Any, 1000),
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, 22)).into(),
            mapping: Arc::new(Mapping::new(name.clone(), Arc::new(policy))),
        });
        let diff = Diff {
            removed: vec![Arc::clone(&route)],
            ..Diff::default()
        };
        let changes = session_changes(&diff);
        let (mapping, change) = &changes[&route.listen];
        assert_eq!(*mapping, name);
        assert!(matches!(change, SessionChange::Leave { within: w, .. } if *w == within));
    }

    #[test]
    fn no_session_of_a_job_lives_on_in_the_next_job_at_its_port_and_address() {
        let policy = Policy {
            on_remove: RemovalPolicy::Kill,
            ..Policy::default()
        };
        let policy = Arc::new(policy);
        let route = |name| {
            Arc::new(Route {
                listen: ListenAddr::new(ListenHost::Any, 1000),
                target: SocketAddr::from((Ipv4Addr::LOCALHOST, 22)).into(),
                mapping: Arc::new(Mapping::new(name, Arc::clone(&policy))),
            })
        };
        let of_job = |job: &str| {
            let (job, rule) = (job.into(), "ssh".into());
            route(MappingName::of_job(JobRule { job, rule }))
        };
        let change = |old, new| successor(&RouteChange { old, new }).expect("something changes");
        let ends = |change| match change {
            SessionChange::Leave { reason, .. } => Some(reason),
            _ => None,
        };
        let of_next = change(of_job("1"), of_job("2"));
        assert_eq!(ends(of_next), Some(EndReason::MappingRemoved));
        // One of a file that has another name only is what it was.
        let named = |name| route(MappingName::new(name));
        assert_eq!(ends(change(named("a"), named("b"))), None);
    }
}
