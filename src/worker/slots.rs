//! A slab whose keys never reach a later occupant.
//!
//! Epoll may report a descriptor once more after its session has ended in the same batch; the
//! generation in the key tells such a report from one for the slot's next occupant.

use slab::Slab;

/// Where something is stored: an index and the generation of its occupant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Key {
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

    /// All occupants.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slab.iter().map(|(_, (_, occupant))| occupant)
    }

    /// The keys in `count` slots from `from` on, and where to go on if there are more slots.
    pub(super) fn keys_from(&self, from: usize, count: usize) -> (Vec<Key>, Option<usize>) {
        let slots = self.slab.capacity();
        let end = from.saturating_add(count).min(slots);
        let keys = (from..end).filter_map(|index| self.occupant_of(index));
        (keys.collect(), (end < slots).then_some(end))
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

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
