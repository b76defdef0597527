//! Groups as they are handed over to the next image of the program. Sessions are counted again where
//! they are loaded.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use super::{
    CheckFailure, GroupSettings, Member, MemberState, Queue, Target, TargetGroup, TargetSettings,
    member::Known,
};
use crate::handover::{LoadError, is_default};

/// A [`Target`]: an address, or the number of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SavedTarget {
    Address(SocketAddr),
    Group(u32),
}

/// Groups, each once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedGroups {
    groups: Vec<SavedGroup>,
    /// By where they are in memory.
    #[serde(skip)]
    numbers: HashMap<usize, u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedGroup {
    settings: GroupSettings,
    #[serde(default, skip_serializing_if = "is_default")]
    members: Vec<SavedMember>,
    /// The addresses that names have.
    #[serde(default, skip_serializing_if = "is_default")]
    named: BTreeMap<String, Vec<IpAddr>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedMember {
    address: SocketAddr,
    target: usize,
    #[serde(default, skip_serializing_if = "is_default")]
    chosen: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    failures: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    failed: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    state: MemberState,
    /// Nanoseconds on the machine's monotonic clock, as `failed`.
    #[serde(default, skip_serializing_if = "is_default")]
    since: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    streak: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    check_failures: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    check_failure: Option<CheckFailure>,
}

impl SavedGroups {
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Takes a target.
    pub fn save(&mut self, target: &Target) -> SavedTarget {
        let group = match target {
            Target::Address(address) => return SavedTarget::Address(*address),
            Target::Group(group) => group,
        };
        let Self { groups, numbers } = self;
        let number = numbers.entry(Arc::as_ptr(group) as usize);
        SavedTarget::Group(*number.or_insert_with(|| {
            groups.push(SavedGroup::of(group));
            u32::try_from(groups.len() - 1).unwrap_or(u32::MAX)
        }))
    }

    pub fn load(self) -> LoadedGroups {
        let groups = self.groups.into_iter().map(SavedGroup::load);
        LoadedGroups(groups.collect())
    }
}

/// Groups that were handed over.
#[derive(Debug)]
pub struct LoadedGroups(Vec<Arc<TargetGroup>>);

impl LoadedGroups {
    /// The target that was saved.
    ///
    /// # Errors
    ///
    /// There is no such group.
    pub fn target(&self, saved: SavedTarget) -> Result<Target, LoadError> {
        let number = match saved {
            SavedTarget::Address(address) => return Ok(Target::Address(address)),
            SavedTarget::Group(number) => number,
        };
        let group = self.0.get(number as usize).cloned();
        group.map(Target::Group).ok_or_else(|| {
            LoadError::value("targets", format!("number {number} of {}", self.0.len()))
        })
    }
}

impl SavedGroup {
    fn of(group: &TargetGroup) -> Self {
        let members = group.members();
        Self {
            settings: GroupSettings::clone(group.settings()),
            members: members
                .iter()
                .map(|member| SavedMember::of(member))
                .collect(),
            named: group
                .named()
                .into_iter()
                .map(|(name, ips)| (name.to_string(), ips))
                .collect(),
        }
    }

    fn load(self) -> Arc<TargetGroup> {
        let Self {
            settings,
            members,
            named,
        } = self;
        let queue = Arc::default();
        let members = members.into_iter().map(|member| {
            let of = settings.targets.get(member.target);
            let settings = of.map_or(TargetSettings::of(()), |target| target.at(()));
            Arc::new(member.load(settings, Arc::clone(&queue)))
        });
        let members: Vec<_> = members.collect();
        let named = named.into_iter();
        let named = named.map(|(name, ips)| (name.into(), ips)).collect();
        Arc::new(TargetGroup::knowing(
            Arc::new(settings),
            &members,
            Vec::new(),
            named,
            queue,
        ))
    }
}

impl SavedMember {
    fn of(member: &Member) -> Self {
        let Known {
            sessions: _,
            chosen,
            failures,
            failed,
            state: _,
            since,
            streak,
            check_failures,
            check_failure,
        } = &*member.known;
        Self {
            address: member.address,
            target: member.target,
            chosen: chosen.load(Relaxed),
            failures: failures.load(Relaxed),
            failed: failed.load(Relaxed),
            state: member.state(),
            since: since.load(Relaxed),
            streak: streak.load(Relaxed),
            check_failures: check_failures.load(Relaxed),
            check_failure: check_failure.load().as_deref().cloned(),
        }
    }

    fn load(self, settings: TargetSettings<()>, queue: Arc<Queue>) -> Member {
        let Self {
            address,
            target,
            chosen,
            failures,
            failed,
            state,
            since,
            streak,
            check_failures,
            check_failure,
        } = self;
        let known = Known {
            sessions: 0.into(),
            chosen: chosen.into(),
            failures: failures.into(),
            failed: failed.into(),
            state: (state as u8).into(),
            since: since.into(),
            streak: streak.into(),
            check_failures: check_failures.into(),
            check_failure: ArcSwapOption::from_pointee(check_failure),
        };
        Member::new(address, target, settings, Arc::new(known), queue)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::TargetAddr, *};
    use crate::{limit::Tick, proxy_protocol::Version};

    #[test]
    fn everything_known_of_a_member_survives() {
        let targets = [1, 2].map(|number: u8| TargetSettings {
            address: TargetAddr::Address(([10, 0, 0, number], 22).into()),
            weight: 7,
            backup: number == 2,
            max_sessions: Some(3),
            send_proxy: (number == 1).then_some(Some(Version::V2)),
        });
        let mut targets = targets.to_vec();
        targets.push(TargetSettings::of(TargetAddr::Name("db.test".into(), 5432)));
        let settings = GroupSettings { targets };
        let group = Arc::new(TargetGroup::new(Arc::new(settings)));
        group.set_addresses("db.test", &[[10, 0, 0, 9].into()]);
        let now = Tick(9_000_000_000);
        let members = group.members();
        assert_eq!(
            members[0].report(Some("it is tired".to_owned()), (1, 1), now),
            Some(MemberState::Down)
        );
        members[1].failed(now);
        assert!(members[1].try_take());
        let mut saved = SavedGroups::default();
        let target = Target::Group(Arc::clone(&group));
        let numbers = [saved.save(&target), saved.save(&target)];
        assert_eq!(numbers, [SavedTarget::Group(0); 2]);
        let json = serde_json::to_string(&saved).expect("plain values");
        let loaded: SavedGroups = serde_json::from_str(&json).expect("as it was written");
        let loaded = loaded.load();
        let target = loaded.target(numbers[0]).expect("it was saved");
        let again = target.group().expect("a group");
        assert_eq!(again.settings(), group.settings());
        assert_eq!(again.addresses(), group.addresses());
        let member = again.members()[0].clone();
        let since = Some(now.instant());
        assert_eq!((member.state(), member.since()), (MemberState::Down, since));
        assert_eq!(member.check_failures(), 1);
        assert_eq!(member.check_failure(), members[0].check_failure());
        let member = again.members()[1].clone();
        assert_eq!((member.chosen(), member.sessions()), (1, 0));
        assert!(member.has_failed_lately(now));
        assert!(loaded.target(SavedTarget::Group(1)).is_err());
    }
}
