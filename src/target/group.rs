//! Several addresses to choose from, and who is led to which.
//!
//! A member is *down* when a check says so: none begins there then. One that could not be connected to
//! a moment ago comes after all others. Backups are for when no other member is up and in order.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, Weak, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;

use super::{
    Balance, GroupSettings, Member, MemberState, Queue, TargetAddr, TargetSettings,
    balance::{Candidate, Turns, pick},
    member::Known,
};
use crate::{limit::Tick, mutex::lock};

type Members = Vec<Arc<Member>>;

/// The addresses that names have, as far as sessions may be led there.
pub(super) type Named = BTreeMap<Arc<str>, Vec<IpAddr>>;

/// Addresses that are none of the group's any more, with what is known of them as long as they have
/// sessions: those count again once the address is back, as one that a DNS server leaves out for a while.
type Left = Vec<(SocketAddr, Weak<Known>)>;

#[derive(Debug)]
pub struct TargetGroup {
    settings: Arc<GroupSettings>,
    members: ArcSwap<Members>,
    named: Mutex<Named>,
    left: Mutex<Left>,
    turns: Mutex<Turns>,
    queue: Arc<Queue>,
}

/// Why nobody is led anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMember {
    /// None is up, or no address is known.
    Down,
    /// All that could be chosen have as many sessions as they may.
    Full,
    /// All of them have been tried.
    Tried,
}

/// A session's place at a member; dropping it gives it back.
#[derive(Debug)]
pub struct Place(Arc<Member>);

impl Place {
    /// One more session at a member, however many it has.
    fn beyond(member: Arc<Member>) -> Self {
        member.known.sessions.fetch_add(1, Relaxed);
        Self(member)
    }

    pub fn member(&self) -> &Arc<Member> {
        &self.0
    }

    /// The member answered.
    pub fn succeeded(&self) {
        self.0.succeeded();
    }

    /// The member could not be connected to.
    pub fn failed(&self, now: Tick) {
        self.0.failed(now);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.known.sessions.fetch_sub(1, Relaxed);
        self.0.queue.wake_first();
    }
}

/// In which order members are used: the first kind of which there is one that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ready,
    /// No other is ready.
    ReadyBackup,
    FailedLately,
    FailedBackup,
}

impl TargetGroup {
    /// A group nobody has used yet.
    pub fn new(settings: Arc<GroupSettings>) -> Self {
        Self::knowing(settings, &[], Left::new(), Named::new(), Arc::default())
    }

    /// The same group under other settings: what is known of its addresses stays known.
    pub fn with_settings(&self, settings: Arc<GroupSettings>) -> Self {
        let queue = Arc::clone(&self.queue);
        let left = lock(&self.left).clone();
        Self::knowing(settings, &self.members.load(), left, self.named(), queue)
    }

    /// A group with what is known of its members, which have that queue.
    pub(super) fn knowing(
        settings: Arc<GroupSettings>,
        known: &[Arc<Member>],
        left: Left,
        mut named: Named,
        queue: Arc<Queue>,
    ) -> Self {
        named.retain(|name, _| settings.names().any(|own| own == name));
        let group = Self {
            settings,
            members: ArcSwap::default(),
            named: Mutex::default(),
            left: Mutex::new(left),
            turns: Mutex::default(),
            queue,
        };
        let members = group.made_of(group.all(&named).into_iter(), known);
        group.members.store(Arc::new(members));
        *lock(&group.named) = named;
        group
    }

    /// What is known of an address that is none of the group's any more and has sessions still.
    fn left(&self, address: SocketAddr) -> Option<Arc<Known>> {
        let left = lock(&self.left);
        let (_, known) = left.iter().find(|(left, _)| *left == address)?;
        known.upgrade()
    }

    /// The addresses that its names have.
    pub(super) fn named(&self) -> Named {
        lock(&self.named).clone()
    }

    /// Every address, each with the number of its target.
    fn all(&self, named: &Named) -> Vec<(usize, SocketAddr)> {
        let mut all = Vec::new();
        for (number, target) in self.settings.targets.iter().enumerate() {
            match &target.address {
                TargetAddr::Address(address) => all.push((number, *address)),
                TargetAddr::Name(name, port) => {
                    let ips = named.get(name).into_iter().flatten();
                    all.extend(ips.map(|ip| (number, SocketAddr::new(*ip, *port))));
                }
            }
        }
        all
    }

    /// Has a name of its targets lead to these addresses, and no others. What is known of those that
    /// stay stays known. Returns whether that is a change, and the addresses that are none of the group's
    /// any more.
    pub fn set_addresses(&self, name: &str, ips: &[IpAddr]) -> Option<Vec<SocketAddr>> {
        let mut named = lock(&self.named);
        let known = self.settings.names().find(|own| ***own == *name)?;
        let before = named.get(name).map(Vec::as_slice);
        if before.unwrap_or_default() == ips {
            return None;
        }
        named.insert(Arc::clone(known), ips.to_vec());
        let before = self.members.load_full();
        let members = self.made_of(self.all(&named).into_iter(), &before);
        let stays = |address: SocketAddr| members.iter().any(|member| member.address == address);
        let gone = before.iter().map(|member| member.address);
        let gone = gone.filter(|address| !stays(*address)).collect();
        self.members.store(Arc::new(members));
        Some(gone)
    }

    /// A member for each address, the first of those that occur twice; what is known of them is kept.
    fn made_of(
        &self,
        addresses: impl Iterator<Item = (usize, SocketAddr)>,
        before: &[Arc<Member>],
    ) -> Members {
        let mut members = Members::new();
        for (number, address) in addresses {
            let settings = self.settings.targets[number].at(());
            let same = |member: &&Arc<Member>| member.address == address;
            let member = match before.iter().find(same) {
                _ if members.iter().any(|member| member.address == address) => continue,
                Some(old) if old.target == number && old.settings == settings => Arc::clone(old),
                Some(old) => {
                    let known = Arc::clone(&old.known);
                    let queue = Arc::clone(&self.queue);
                    Arc::new(Member::new(address, number, settings, known, queue))
                }
                None => {
                    let known = self.left(address).unwrap_or_default();
                    // Nobody checked it meanwhile.
                    known.forget_state();
                    let queue = Arc::clone(&self.queue);
                    Arc::new(Member::new(address, number, settings, known, queue))
                }
            };
            members.push(member);
        }
        let stays = |address| members.iter().any(|member| member.address == address);
        let mut left = lock(&self.left);
        left.retain(|(address, known)| known.strong_count() > 0 && !stays(*address));
        for member in before.iter().filter(|member| !stays(member.address)) {
            left.push((member.address, Arc::downgrade(&member.known)));
        }
        drop(left);
        members
    }

    pub fn settings(&self) -> &Arc<GroupSettings> {
        &self.settings
    }

    /// Clients that wait until a member has room.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// The member of an address.
    pub fn member(&self, address: SocketAddr) -> Option<Arc<Member>> {
        let members = self.members.load();
        let mut members = members.iter();
        members.find(|member| member.address == address).cloned()
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        let members = self.members.load();
        members.iter().map(|member| member.address).collect()
    }

    /// A place for a session that is there already, whatever there is room for, at an address that is the
    /// group's or was.
    pub fn place_at(&self, address: SocketAddr) -> Option<Place> {
        let left = || Some(self.gone(address, self.left(address)?));
        self.member(address).or_else(left).map(Place::beyond)
    }

    /// The same for a session that was handed over, with which nothing is known yet of an address that is
    /// gone.
    pub fn place_kept(&self, address: SocketAddr) -> Place {
        // One thread takes up all sessions, so that nobody else notes the address meanwhile.
        self.place_at(address).unwrap_or_else(|| {
            let known = Arc::default();
            let mut left = lock(&self.left);
            left.retain(|(left, _)| *left != address);
            left.push((address, Arc::downgrade(&known)));
            drop(left);
            Place::beyond(self.gone(address, known))
        })
    }

    /// A member that nobody new is led to. It was an address of the name with its port.
    fn gone(&self, address: SocketAddr, known: Arc<Known>) -> Arc<Member> {
        let mut targets = self.settings.targets.iter().enumerate();
        let of_name = targets.find(|(_, target)| {
            matches!(&target.address, TargetAddr::Name(_, port) if *port == address.port())
        });
        let (number, settings) = of_name.map_or_else(
            || (usize::MAX, TargetSettings::of(())),
            |(number, target)| (number, target.at(())),
        );
        let queue = Arc::clone(&self.queue);
        Arc::new(Member::new(address, number, settings, known, queue))
    }

    /// How many members may be chosen besides that of `address` and those `tried`.
    pub fn others(&self, address: SocketAddr, tried: &[SocketAddr]) -> u32 {
        let members = self.members.load();
        let others = members.iter().filter(|member| {
            let known = member.address == address || tried.contains(&member.address);
            !known && member.state() != MemberState::Down
        });
        u32::try_from(others.count()).unwrap_or(u32::MAX)
    }

    /// Leads a client to a member that is none of those `tried`.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn choose(
        &self,
        balance: Balance,
        client: IpAddr,
        tried: &[SocketAddr],
        now: Tick,
    ) -> Result<Place, NoMember> {
        let members = self.members.load();
        let is_up = |member: &Member| member.state() != MemberState::Down;
        let mut up = members.iter().filter(|member| is_up(member)).peekable();
        if up.peek().is_none() {
            return Err(NoMember::Down);
        }
        let is_ready =
            |member: &&Arc<Member>| !member.settings.backup && !member.has_failed_lately(now);
        let one_is_ready = up.any(|member| is_ready(&member));
        let rank = |member: &Member| match (member.settings.backup, member.has_failed_lately(now)) {
            (false, false) => Some(Rank::Ready),
            (false, true) => Some(Rank::FailedLately),
            (true, _) if one_is_ready => None,
            (true, false) => Some(Rank::ReadyBackup),
            (true, true) => Some(Rank::FailedBackup),
        };
        let ranked = members.iter().enumerate().filter_map(|(index, member)| {
            let may = is_up(member) && !tried.contains(&member.address);
            let rank = rank(member).filter(|_| may)?;
            Some((index, member, rank))
        });
        if ranked.clone().next().is_none() {
            return Err(NoMember::Tried);
        }
        // Another worker may take a place in between, but not all of them each time.
        for _ in 0..=members.len() {
            let roomy = ranked.clone().filter(|(_, member, _)| member.has_room());
            let Some(best) = roomy.clone().map(|(.., rank)| rank).min() else {
                break;
            };
            let candidates = roomy.filter(|(.., rank)| *rank == best);
            let candidates = candidates.map(|(index, member, _)| Candidate {
                index,
                weight: member.settings.weight,
                sessions: member.sessions(),
                key: member.key,
            });
            let mut turns = lock(&self.turns);
            let chosen = pick(balance, candidates, client, &mut turns);
            drop(turns);
            if let Some(chosen) = chosen
                && members[chosen].try_take()
            {
                return Ok(Place(Arc::clone(&members[chosen])));
            }
        }
        Err(NoMember::Full)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: Tick = Tick(1_000_000_000);
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn address(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 22).into()
    }

    fn settings(targets: &[TargetSettings<u8>]) -> Arc<GroupSettings> {
        let targets = targets.iter();
        let targets = targets.map(|one| one.at(TargetAddr::Address(address(one.address))));
        Arc::new(GroupSettings {
            targets: targets.collect(),
        })
    }

    fn plain(number: u8) -> TargetSettings<u8> {
        TargetSettings::of(number)
    }

    fn backup(number: u8) -> TargetSettings<u8> {
        TargetSettings {
            backup: true,
            ..plain(number)
        }
    }

    fn holding(number: u8, max_sessions: u32) -> TargetSettings<u8> {
        TargetSettings {
            max_sessions: Some(max_sessions),
            ..plain(number)
        }
    }

    fn choose(group: &TargetGroup, tried: &[u8]) -> Result<Place, NoMember> {
        let tried: Vec<_> = tried.iter().copied().map(address).collect();
        group.choose(Balance::First, CLIENT, &tried, NOW)
    }

    fn chosen(group: &TargetGroup, tried: &[u8]) -> Result<SocketAddr, NoMember> {
        choose(group, tried).map(|place| place.member().address)
    }

    #[test]
    fn a_place_is_given_back() {
        let group = TargetGroup::new(settings(&[holding(1, 1)]));
        let place = choose(&group, &[]).expect("there is room");
        assert_eq!(chosen(&group, &[]), Err(NoMember::Full));
        drop(place);
        assert_eq!(chosen(&group, &[]), Ok(address(1)));
        assert_eq!(group.members()[0].sessions(), 0);
        assert_eq!(group.members()[0].chosen(), 2);
    }

    #[test]
    fn backups_are_for_when_no_other_is_in_order() {
        let group = TargetGroup::new(settings(&[backup(1), holding(2, 1), plain(3)]));
        let down = |number: usize| {
            group.members()[number].report(Some("no".to_owned()), (1, 1), NOW);
        };
        let place = choose(&group, &[]).expect("there is room");
        assert_eq!(place.member().address, address(2));
        assert_eq!(chosen(&group, &[]), Ok(address(3)));
        down(2);
        assert_eq!(
            chosen(&group, &[]),
            Err(NoMember::Full),
            "it is full, not down"
        );
        down(1);
        assert_eq!(chosen(&group, &[]), Ok(address(1)));
        down(0);
        assert_eq!(chosen(&group, &[]), Err(NoMember::Down));
    }

    #[test]
    fn who_failed_comes_last_and_is_tried_all_the_same() {
        let group = TargetGroup::new(settings(&[plain(1), plain(2), backup(3)]));
        choose(&group, &[]).expect("there is room").failed(NOW);
        assert_eq!(chosen(&group, &[]), Ok(address(2)));
        choose(&group, &[1]).expect("there is room").failed(NOW);
        let order = [&[][..], &[3], &[3, 1]].map(|tried| chosen(&group, tried));
        assert_eq!(order, [Ok(address(3)), Ok(address(1)), Ok(address(2))]);
        assert_eq!(chosen(&group, &[1, 2, 3]), Err(NoMember::Tried));
        choose(&group, &[3, 1]).expect("there is room").succeeded();
        assert_eq!(chosen(&group, &[]), Ok(address(2)));
    }

    #[test]
    fn other_settings_leave_what_is_known() {
        let group = TargetGroup::new(settings(&[plain(1), plain(2)]));
        let place = choose(&group, &[]).expect("there is room");
        group.members()[1].report(Some("no".to_owned()), (1, 1), NOW);
        let heavier = TargetSettings {
            weight: 9,
            ..plain(1)
        };
        let after = group.with_settings(settings(&[plain(3), plain(2), heavier]));
        let members = after.members();
        let known = |number: usize| {
            let member = &members[number];
            (member.address, member.sessions(), member.state())
        };
        assert_eq!(known(0), (address(3), 0, MemberState::Unknown));
        assert_eq!(known(1), (address(2), 0, MemberState::Down));
        assert_eq!(known(2), (address(1), 1, MemberState::Unknown));
        drop(place);
        assert_eq!(members[2].sessions(), 0);
    }

    #[test]
    fn a_name_leads_to_the_addresses_it_has_now() {
        let name: Arc<str> = "db.test".into();
        let named = TargetSettings {
            max_sessions: Some(1),
            ..TargetSettings::of(TargetAddr::Name(Arc::clone(&name), 22))
        };
        let plain = TargetSettings::of(TargetAddr::Address(address(2)));
        let targets = vec![named.clone(), plain];
        let group = TargetGroup::new(Arc::new(GroupSettings { targets }));
        let ip = |number: u8| address(number).ip();
        assert_eq!(group.addresses(), [address(2)]);
        let gone = group.set_addresses(&name, &[ip(1), ip(2), ip(3)]);
        assert_eq!(gone, Some(vec![]));
        assert_eq!(group.addresses(), [1, 2, 3].map(address));
        let place = choose(&group, &[]).expect("there is room");
        assert_eq!(place.member().address, address(1));
        assert_eq!(group.set_addresses(&name, &[ip(1), ip(2), ip(3)]), None);
        assert_eq!(group.set_addresses("other.test", &[ip(9)]), None);
        // Which of them is gone, and what is known of the others.
        assert_eq!(group.set_addresses(&name, &[ip(1)]), Some(vec![address(3)]));
        assert_eq!(group.addresses(), [1, 2].map(address));
        assert_eq!(group.members()[0].sessions(), 1);
        // Other settings leave what the name has.
        let after = group.with_settings(Arc::new(GroupSettings {
            targets: vec![named],
        }));
        assert_eq!(after.addresses(), [address(1)]);
        assert_eq!(after.set_addresses(&name, &[]), Some(vec![address(1)]));
        assert_eq!(chosen(&after, &[]), Err(NoMember::Down));
        drop(place);
    }

    #[test]
    fn there_may_be_no_address_at_all() {
        let group = TargetGroup::new(settings(&[]));
        assert_eq!(chosen(&group, &[]), Err(NoMember::Down));
    }
}
