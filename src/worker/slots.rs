//! A slab whose keys never reach a later occupant.
//!
//! Epoll may report a descriptor once more after its session has ended in the same batch; the
//! generation in the key tells such a report from one for the slot's next occupant.

use serde::{Deserialize, Serialize};
use slab::Slab;

/// Where something is stored: an index and the generation of its occupant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct Key {
    index: u32,
    generation: u32,
}

/// Generations are 29 bits wide, to fit a token.
const GENERATIONS: u32 = 1 << 29;

impl Key {
    pub(super) fn index(self) -> usize {
        self.index as usize
    }

    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

impl From<(u32, u32)> for Key {
    fn from((index, generation): (u32, u32)) -> Self {
        Self { index, generation }
    }
}

impl From<Key> for (u32, u32) {
    fn from(Key { index, generation }: Key) -> Self {
        (index, generation)
    }
}

/// Slots with occupants of type `T`.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slab: Slab<(u32, T)>,
    /// Counts up with each occupant of any slot.
    generation: u32,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
        }
    }

    /// Slots whose occupants keep their keys; keys yet to come are later than `generation`.
    pub(super) fn with_keys<E>(
        generation: u32,
        occupants: impl Iterator<Item = Result<(Key, T), E>>,
    ) -> Result<Self, E> {
        let mut failed = None;
        let occupants = occupants.map_while(|occupant| match occupant {
            Ok((key, occupant)) => Some((key.index(), (key.generation, occupant))),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let slab = occupants.collect();
        match failed {
            None => Ok(Self { slab, generation }),
            Some(error) => Err(error),
        }
    }

    /// The generation of the last occupant.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether most slots are empty, so that occupants had better come closer together.
    pub(super) fn is_sparse(&self) -> bool {
        let last = self.slab.iter().next_back();
        last.is_some_and(|(index, _)| index > densest(self.len()))
    }

    pub(super) fn insert(&mut self, occupant: T) -> Key {
        self.generation = (self.generation + 1) % GENERATIONS;
        let index = self.slab.insert((self.generation, occupant));
        Key {
            index: u32::try_from(index).expect("descriptors number fewer"),
            generation: self.generation,
        }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, occupant) = self.slab.get_mut(key.index())?;
        (*generation == key.generation).then_some(occupant)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        self.slab
            .try_remove(key.index())
            .map(|(_, occupant)| occupant)
    }

    /// The key of whoever is in a slot now.
    pub(super) fn occupant_of(&self, index: usize) -> Option<Key> {
        let (generation, _) = self.slab.get(index)?;
        Some(Key {
            index: index as u32,
            generation: *generation,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.keys_from(0, usize::MAX).0
    }

    /// All occupants and their keys, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slab.iter().map(|(index, (generation, occupant))| {
            let index = index as u32;
            let generation = *generation;
            (Key { index, generation }, occupant)
        })
    }

    /// Takes all of them out.
    pub(super) fn into_occupants(self) -> impl Iterator<Item = T> {
        self.slab.into_iter().map(|(_, (_, occupant))| occupant)
    }

    /// The keys in `count` slots from `from` on, and where to go on if there are more slots.
    pub(super) fn keys_from(&self, from: usize, count: usize) -> (Vec<Key>, Option<usize>) {
        let slots = self.slab.capacity();
        let end = from.saturating_add(count).min(slots);
        let keys = (from..end).filter_map(|index| self.occupant_of(index));
        (keys.collect(), (end < slots).then_some(end))
    }
}

/// The largest index with which so many slots are not sparse.
pub(super) fn densest(count: usize) -> usize {
    1024 + count.saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::{Key, Slots};

    #[test]
    fn occupants_keep_their_keys_and_later_ones_get_others() {
        let mut slots = Slots::new();
        let keys = ["a", "b", "c", "d"].map(|occupant| slots.insert(occupant));
        slots.remove(keys[1]);
        let saved: Vec<_> = slots
            .iter()
            .map(|(key, occupant)| Ok((key, *occupant)))
            .collect();
        let again = Slots::with_keys::<()>(slots.generation(), saved.into_iter());
        let mut again = again.expect("no error among them");
        assert_eq!(again.get_mut(keys[0]), Some(&mut "a"));
        assert_eq!(again.get_mut(keys[1]), None);
        let next = again.insert("e");
        assert_eq!((next.index(), again.len()), (1, 4));
        assert!(again.keys().contains(&keys[3]) && !keys.contains(&next));
        assert!(!again.is_sparse());
        let far = Ok::<_, ()>((Key::from((2000, 1)), "f"));
        let far = Slots::with_keys(1, [far].into_iter()).expect("no error");
        assert!(far.is_sparse());
        let failed = Slots::<u8>::with_keys(1, [Err("no")].into_iter());
        assert_eq!(failed.err(), Some("no"));
    }

    #[test]
    fn a_key_does_not_reach_the_next_occupant() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(first.index(), second.index());
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
        assert_eq!(slots.len(), 1);
    }
}
