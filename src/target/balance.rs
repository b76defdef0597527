//! Which of several members gets the next session: arithmetic over what is known of them.

use std::net::IpAddr;

use crate::setting::Words;

/// How the members of a group share the sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// In turn, each as often as its weight says.
    #[default]
    RoundRobin,
    /// The one with the fewest sessions for its weight.
    LeastSessions,
    /// Always the same for the same client: when a member comes or goes, no more than its share of the
    /// clients get another.
    Source,
    /// The first in the order of the file that may have another session.
    First,
}

impl Words for Balance {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("round-robin", Self::RoundRobin),
        ("least-sessions", Self::LeastSessions),
        ("source", Self::Source),
        ("first", Self::First),
    ];
}

/// What counts of a member that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its place among all members.
    pub index: usize,
    pub weight: u32,
    pub sessions: u32,
    /// What tells it from others, the same in every process.
    pub key: u64,
}

/// How far the turns of a group have come.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// For each member, how much of a turn it has saved up.
    credit: Vec<i64>,
    /// The member at which the search among equals begins.
    next: usize,
}

/// The place of the member that `client` is led to; nothing without candidates.
pub(super) fn pick(
    balance: Balance,
    candidates: impl Iterator<Item = Candidate> + Clone,
    client: IpAddr,
    turns: &mut Turns,
) -> Option<usize> {
    match balance {
        Balance::RoundRobin => turns.in_turn(candidates),
        Balance::LeastSessions => turns.least(candidates),
        Balance::Source => of_source(candidates, client),
        Balance::First => candidates.map(|one| one.index).min(),
    }
}

impl Turns {
    /// Every candidate saves up its weight, and the one that has most pays for the turn: turns of one
    /// member are spread over those of the others.
    fn in_turn(&mut self, candidates: impl Iterator<Item = Candidate> + Clone) -> Option<usize> {
        let last = candidates.clone().map(|one| one.index).max()?;
        if self.credit.len() <= last {
            self.credit.resize(last + 1, 0);
        }
        let mut total = 0;
        let mut best: Option<usize> = None;
        for Candidate { index, weight, .. } in candidates {
            total += i64::from(weight);
            self.credit[index] += i64::from(weight);
            if best.is_none_or(|best| self.credit[best] < self.credit[index]) {
                best = Some(index);
            }
        }
        self.credit[best?] -= total;
        best
    }

    /// The one that has the fewest sessions for its weight if it gets this one as well; of equals, each
    /// in turn.
    fn least(&mut self, candidates: impl Iterator<Item = Candidate>) -> Option<usize> {
        let next = self.next;
        let load = |one: &Candidate, weight: u32| (u64::from(one.sessions) + 1) * u64::from(weight);
        let best = candidates.min_by(|one, other| {
            let order = load(one, other.weight).cmp(&load(other, one.weight));
            let distance = |one: &Candidate| (one.index < next, one.index);
            order.then_with(|| distance(one).cmp(&distance(other)))
        })?;
        self.next = best.index + 1;
        Some(best.index)
    }
}

/// The one whose lot for this client is the best (rendezvous hashing): a lot depends on nobody else.
fn of_source(candidates: impl Iterator<Item = Candidate>, client: IpAddr) -> Option<usize> {
    let client = match client.to_canonical() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            mixed(bits as u64).wrapping_add((bits >> 64) as u64)
        }
    };
    let client = mixed(client);
    // The chance to have the best of such lots is in proportion to the weight.
    let lot = |one: &Candidate| {
        let uniform = ((mixed(client ^ one.key) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(one.weight) / uniform.ln()
    };
    let best = candidates.max_by(|one, other| lot(one).total_cmp(&lot(other)));
    best.map(|one| one.index)
}

/// A number that looks as if it had nothing to do with `bits` (the end of splitmix64).
pub(super) const fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let each = weights.iter().enumerate();
        each.map(|(index, weight)| Candidate {
            index,
            weight: *weight,
            sessions: 0,
            key: mixed(index as u64 + 1000),
        })
        .collect()
    }

    fn client(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    const ANYBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        let all = candidates(&[3, 1, 2]);
        let mut turns = Turns::default();
        let mut order = || {
            pick(
                Balance::RoundRobin,
                all.iter().copied(),
                ANYBODY,
                &mut turns,
            )
        };
        let order: Vec<_> = (0..12).filter_map(|_| order()).collect();
        assert_eq!(order, [0, 2, 0, 1, 2, 0, 0, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn the_first_is_the_first_of_those_there_are() {
        let all = candidates(&[1, 9, 1]);
        let mut turns = Turns::default();
        let mut first = |from: usize| {
            let some = all[from..].iter().rev().copied();
            pick(Balance::First, some, ANYBODY, &mut turns)
        };
        assert_eq!((first(0), first(1), first(3)), (Some(0), Some(1), None));
    }

    #[test]
    fn a_client_is_led_to_the_same_member_whatever_the_order() {
        let all = candidates(&[1, 1, 1, 1]);
        let mut turns = Turns::default();
        for number in 0..1000 {
            let mut lead = |some: &mut dyn Iterator<Item = &Candidate>| {
                let some: Vec<_> = some.copied().collect();
                pick(
                    Balance::Source,
                    some.into_iter(),
                    client(number),
                    &mut turns,
                )
            };
            assert_eq!(lead(&mut all.iter()), lead(&mut all.iter().rev()));
        }
    }

    proptest! {
        #[test]
        fn each_has_its_share_of_the_turns(
            weights in prop::collection::vec(1..=256u32, 1..20),
        ) {
            let all = candidates(&weights);
            let mut turns = Turns::default();
            let total: u32 = weights.iter().sum();
            let mut had = vec![0; weights.len()];
            for _ in 0..total {
                let next = pick(Balance::RoundRobin, all.iter().copied(), ANYBODY, &mut turns);
                had[next.expect("there is one")] += 1;
            }
            prop_assert_eq!(had, weights);
        }

        /// Sessions that stay: nobody has one that another would have had for less.
        #[test]
        fn the_least_loaded_keeps_the_load_in_proportion(
            weights in prop::collection::vec(1..=16u32, 1..10),
            sessions in 0..400u32,
        ) {
            let mut all = candidates(&weights);
            let mut turns = Turns::default();
            for _ in 0..sessions {
                let next = pick(Balance::LeastSessions, all.iter().copied(), ANYBODY, &mut turns);
                all[next.expect("there is one")].sessions += 1;
            }
            for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
                let fair = one.sessions * other.weight <= (other.sessions + 1) * one.weight;
                prop_assert!(fair, "{one:?} {other:?}");
            }
        }

        /// Those whose member stays keep it when another goes, and its clients are its share.
        #[test]
        fn no_client_of_another_member_moves_when_one_goes(
            weights in prop::collection::vec(1..=8u32, 2..10),
            gone in any::<prop::sample::Index>(),
        ) {
            const CLIENTS: u32 = 4000;
            let all = candidates(&weights);
            let gone = gone.index(weights.len());
            let mut turns = Turns::default();
            let mut moved = 0;
            for number in 0..CLIENTS {
                let mut lead = |without: Option<usize>| {
                    let some = all.iter().copied().filter(|one| Some(one.index) != without);
                    pick(Balance::Source, some.collect::<Vec<_>>().into_iter(), client(number), &mut turns)
                };
                let (before, after) = (lead(None), lead(Some(gone)));
                match before == Some(gone) {
                    true => moved += 1,
                    false => prop_assert_eq!(before, after),
                }
            }
            let total: u32 = weights.iter().sum();
            let share = f64::from(weights[gone]) / f64::from(total);
            let found = f64::from(moved) / f64::from(CLIENTS);
            prop_assert!((found - share).abs() < 0.04, "{found} of {share}");
        }
    }
}
