//! A sorted map whose clones share what they have in common.
//!
//! Whole sets are handed from one part of the program to the next, and most changes of a set are in a few
//! places. A clone of this map is a pointer, a change copies one block of entries and the list of the blocks,
//! and what differs between two clones is found without a look at the blocks that they share.

use std::{borrow::Borrow, cmp::Ordering, collections::BTreeMap, fmt, iter, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Entries of a block; one that gets more is divided. As many blocks as this are some thousand entries.
const MOST: usize = 64;

type Block<K, V> = Arc<Vec<(K, V)>>;

/// A sorted map that is cheap to clone and to compare.
pub struct SharedMap<K, V> {
    /// In order, none of them empty.
    blocks: Arc<Vec<Block<K, V>>>,
    len: usize,
}

impl<K, V> SharedMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every entry, in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter {
            at: Cursor::new(&self.blocks),
            left: self.len,
        }
    }

    /// Every key, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// Every value, in the order of the keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The block that has `key`, if any has.
    fn block<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let after = self
            .blocks
            .partition_point(|block| block[0].0.borrow() <= key);
        after.saturating_sub(1)
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let block = self.blocks.get(self.block(key))?;
        let place = block.binary_search_by(|(known, _)| known.borrow().cmp(key));
        Some(&block[place.ok()?].1)
    }

    /// Whether a key is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Every entry from `key` on, in order.
    pub fn range_from<'a, Q: Ord + ?Sized>(
        &'a self,
        key: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, Q, K, V>
    where
        K: Borrow<Q>,
    {
        let block = self.block(key);
        let first = self.blocks.get(block);
        let before = first.map_or(0, |block| {
            block.partition_point(|(known, _)| known.borrow() < key)
        });
        let mut at = Cursor {
            blocks: &self.blocks[block.min(self.blocks.len())..],
            entry: before,
        };
        at.leave_block();
        iter::from_fn(move || at.next())
    }

    /// The keys that are here and not in `other`, there and not here, or that have values in the two that
    /// are not the `same`.
    pub fn differences<'a>(&'a self, other: &'a Self, same: impl Fn(&V, &V) -> bool) -> Vec<&'a K> {
        let mut found = Vec::new();
        if Arc::ptr_eq(&self.blocks, &other.blocks) {
            return found;
        }
        let (mut here, mut there) = (Cursor::new(&self.blocks), Cursor::new(&other.blocks));
        loop {
            if here.skip_shared(&mut there) {
                continue;
            }
            let order = match (here.peek(), there.peek()) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((one, _)), Some((other, _))) => one.cmp(other),
            };
            let one = here.next_if(order.is_le());
            let another = there.next_if(order.is_ge());
            match (one, another) {
                (Some((_, value)), Some((_, other))) if same(value, other) => {}
                (one, another) => found.extend(one.or(another).map(|(key, _)| key)),
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Puts a value in the place of the one that the key has, if it has one, and returns that.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let block = self.block(&key);
        let blocks = Arc::make_mut(&mut self.blocks);
        let Some(entries) = blocks.get_mut(block).map(Arc::make_mut) else {
            blocks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        match entries.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(place) => return Some(std::mem::replace(&mut entries[place].1, value)),
            Err(place) => entries.insert(place, (key, value)),
        }
        self.len += 1;
        if entries.len() > MOST {
            // What comes in order leaves full blocks behind.
            let is_last = block + 1 == blocks.len();
            let entries = Arc::make_mut(&mut blocks[block]);
            let rest = entries.split_off(if is_last { MOST } else { MOST / 2 });
            blocks.insert(block + 1, Arc::new(rest));
        }
        None
    }

    /// Takes a key and its value out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let block = self.block(key);
        let entries = self.blocks.get(block)?;
        let place = entries.binary_search_by(|(known, _)| known.borrow().cmp(key));
        let place = place.ok()?;
        let blocks = Arc::make_mut(&mut self.blocks);
        let entries = Arc::make_mut(&mut blocks[block]);
        let (_, value) = entries.remove(place);
        self.len -= 1;
        let left = entries.len();
        let next = blocks.get(block + 1).map(|next| next.len());
        if left == 0 {
            blocks.remove(block);
        } else if next.is_some_and(|next| left + next <= MOST / 2) {
            let next = blocks.remove(block + 1);
            Arc::make_mut(&mut blocks[block]).extend_from_slice(&next);
        }
        Some(value)
    }
}

/// A place in a list of blocks.
struct Cursor<'a, K, V> {
    /// The block it is in, and those behind.
    blocks: &'a [Block<K, V>],
    /// The entry in that block.
    entry: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(blocks: &'a [Block<K, V>]) -> Self {
        Self { blocks, entry: 0 }
    }

    fn peek(&self) -> Option<(&'a K, &'a V)> {
        let (key, value) = self.blocks.first()?.get(self.entry)?;
        Some((key, value))
    }

    fn next(&mut self) -> Option<(&'a K, &'a V)> {
        let next = self.peek()?;
        self.entry += 1;
        self.leave_block();
        Some(next)
    }

    fn next_if(&mut self, wanted: bool) -> Option<(&'a K, &'a V)> {
        if wanted { self.next() } else { None }
    }

    /// Goes on to the next block at the end of one.
    fn leave_block(&mut self) {
        if let [block, rest @ ..] = self.blocks
            && self.entry == block.len()
        {
            (self.blocks, self.entry) = (rest, 0);
        }
    }

    /// Goes past the blocks that both have from here on; whether there was any.
    fn skip_shared(&mut self, other: &mut Self) -> bool {
        if self.entry != 0 || other.entry != 0 {
            return false;
        }
        let pairs = iter::zip(self.blocks, other.blocks);
        let shared = pairs.take_while(|(one, other)| Arc::ptr_eq(one, other));
        let shared = shared.count();
        (self.blocks, other.blocks) = (&self.blocks[shared..], &other.blocks[shared..]);
        shared > 0
    }
}

/// The entries of a [`SharedMap`].
pub struct Iter<'a, K, V> {
    at: Cursor<'a, K, V>,
    left: usize,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.at.next()?;
        self.left -= 1;
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

// Not derived: neither keys nor values have to be anything for it.
impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        let Cursor { blocks, entry } = self.at;
        Self {
            at: Cursor { blocks, entry },
            left: self.left,
        }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            blocks: Arc::clone(&self.blocks),
            len: self.len,
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self {
            blocks: Arc::default(),
            len: 0,
        }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.differences(other, V::eq).is_empty()
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, K, V> Deserialize<'de> for SharedMap<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = BTreeMap::<K, V>::deserialize(deserializer)?;
        Ok(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn is_well_formed(map: &SharedMap<u16, u8>) -> bool {
        let blocks = map.blocks.iter();
        blocks
            .clone()
            .all(|block| (1..=MOST).contains(&block.len()))
            && blocks.map(|block| block.len()).sum::<usize>() == map.len()
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map_and_its_clones_stay_as_they_were(
            first in vec((0..600_u16, any::<u8>()), 0..800),
            steps in vec((0..600_u16, any::<Option<u8>>()), 0..400),
            from in 0..600_u16,
        ) {
            let mut model: BTreeMap<u16, u8> = first.iter().copied().collect();
            let mut map: SharedMap<u16, u8> = first.into_iter().collect();
            let (model_before, before) = (model.clone(), map.clone());
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
            prop_assert!(is_well_formed(&map) && is_well_formed(&before));
            prop_assert!(map.iter().eq(model.iter()) && before.iter().eq(model_before.iter()));
            prop_assert!(map.range_from(&from).eq(model.range(from..)));
            let keys = model.keys().chain(model_before.keys());
            let mut differ: Vec<_> = keys
                .filter(|key| model.get(key) != model_before.get(key))
                .collect();
            differ.sort_unstable();
            differ.dedup();
            prop_assert_eq!(map.differences(&before, u8::eq), differ);
        }
    }

    #[test]
    fn a_change_copies_one_block() {
        let before: SharedMap<u32, u32> = (0..5000).map(|number| (number, 0)).collect();
        let mut after = before.clone();
        after.insert(2500, 1);
        let shared = after.blocks.iter().filter(|block| {
            let mut others = before.blocks.iter();
            others.any(|other| Arc::ptr_eq(block, other))
        });
        assert_eq!(shared.count(), after.blocks.len() - 1);
        assert_eq!(after.differences(&before, u32::eq), [&2500]);
    }
}
