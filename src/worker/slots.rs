//! Storage with keys that never reach a later occupant.
//!
//! Epoll may report a descriptor once more after its session has ended in the same batch; the
//! generation in the key tells such a report from one for the slot's next occupant.

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
    slots: Vec<Slot<T>>,
    vacant: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    occupant: Option<T>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, occupant: T) -> Key {
        match self.vacant.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                slot.occupant = Some(occupant);
                Key {
                    index,
                    generation: slot.generation,
                }
            }
            None => {
                let index = u32::try_from(self.slots.len()).expect("descriptors number fewer");
                self.slots.push(Slot {
                    generation: 0,
                    occupant: Some(occupant),
                });
                Key {
                    index,
                    generation: 0,
                }
            }
        }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index())?;
        match slot.generation == key.generation {
            true => slot.occupant.as_mut(),
            false => None,
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.generation != key.generation {
            return None;
        }
        let occupant = slot.occupant.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.vacant.push(key.index);
        Some(occupant)
    }

    /// The key of whoever is in a slot now.
    pub(super) fn occupant_of(&self, index: usize) -> Option<Key> {
        let slot = self.slots.get(index)?;
        slot.occupant.as_ref().map(|_| Key {
            index: index as u32,
            generation: slot.generation,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.keys_from(0, self.slots.len()).0
    }

    /// The keys in `count` slots from `from` on, and where to go on if there are more slots.
    pub(super) fn keys_from(&self, from: usize, count: usize) -> (Vec<Key>, Option<usize>) {
        let end = from.saturating_add(count).min(self.slots.len());
        let keys = (from..end).filter_map(|index| self.occupant_of(index));
        (keys.collect(), (end < self.slots.len()).then_some(end))
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
