//! An ordered map that can be cloned for the price of a pointer per block: blocks are shared, and
//! one that is written to is copied. It must not know what it holds.

use std::borrow::Borrow;
use std::sync::Arc;

/// Most entries of a block. A clone copies a pointer for each block; the first write to a block
/// after that copies this many entries.
const BLOCK: usize = 128;

type Block<K, V> = Vec<(K, V)>;

#[derive(Clone, Debug)]
pub(crate) struct Ordered<K, V> {
    /// None is empty. Each has a key before it that is not above its own, except that the first
    /// block has all that comes before the second.
    blocks: Vec<(K, Arc<Block<K, V>>)>,
    len: usize,
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Ordered {
            blocks: Vec::new(),
            len: 0,
        }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> PartialEq for Ordered<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone, V: Eq + Clone> Eq for Ordered<K, V> {}

impl<K: Ord + Clone, V: Clone> Ordered<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (_, block) = self.blocks.get(self.block(key))?;
        let (_, value) = block.get(find(block, key).ok()?)?;
        Some(value)
    }

    /// The value, to be changed; copies the block if a clone still shares it.
    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.block(key);
        let (_, block) = self.blocks.get_mut(at)?;
        let found = find(block, key).ok()?;
        let (_, value) = Arc::make_mut(block).get_mut(found)?;
        Some(value)
    }

    /// Sets the value of a key; what it was before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.block(&key);
        let Some((_, shared)) = self.blocks.get_mut(at) else {
            self.blocks
                .push((key.clone(), Arc::new(vec![(key, value)])));
            self.len = 1;
            return None;
        };
        let block = Arc::make_mut(shared);
        let gap = match find(block, &key) {
            Ok(found) => {
                let (_, known) = block.get_mut(found)?;
                return Some(std::mem::replace(known, value));
            }
            Err(gap) => gap,
        };
        self.len += 1;
        if block.len() < BLOCK {
            block.insert(gap, (key, value));
            return None;
        }
        // What comes in order fills its blocks.
        let mut second = block.split_off(if gap == BLOCK { BLOCK } else { BLOCK / 2 });
        match gap.checked_sub(block.len()) {
            Some(gap) => second.insert(gap, (key, value)),
            None => block.insert(gap, (key, value)),
        }
        if let Some((first, _)) = second.first() {
            let first = first.clone();
            self.blocks.insert(at + 1, (first, Arc::new(second)));
        }
        None
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.block(key);
        let (_, shared) = self.blocks.get_mut(at)?;
        let found = find(shared, key).ok()?;
        let block = Arc::make_mut(shared);
        let (_, value) = block.remove(found);
        if block.is_empty() {
            self.blocks.remove(at);
        }
        self.len -= 1;
        Some(value)
    }

    /// All entries from a key onward, in order.
    pub(crate) fn iter_from<'a, Q: Ord + ?Sized>(
        &'a self,
        key: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let rest = self.blocks.get(self.block(key)..).unwrap_or_default();
        let before = rest
            .first()
            .map_or(0, |(_, block)| find(block, key).unwrap_or_else(|gap| gap));
        let entries = rest.iter().flat_map(|(_, block)| block.iter());
        entries.skip(before).map(|(key, value)| (key, value))
    }

    /// All entries, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let entries = self.blocks.iter().flat_map(|(_, block)| block.iter());
        entries.map(|(key, value)| (key, value))
    }

    /// The block that has a key, or is to have it.
    fn block<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let starts = |(first, _): &(K, _)| first.borrow() <= key;
        self.blocks.partition_point(starts).saturating_sub(1)
    }
}

fn find<Q: Ord + ?Sized, K: Borrow<Q>, V>(block: &[(K, V)], key: &Q) -> Result<usize, usize> {
    block.binary_search_by(|(known, _)| known.borrow().cmp(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Blocks that two maps do not share.
    fn unshared(one: &Ordered<u64, u64>, other: &Ordered<u64, u64>) -> usize {
        let is_in = |block: &Arc<_>| other.blocks.iter().any(|(_, own)| Arc::ptr_eq(block, own));
        one.blocks.iter().filter(|(_, block)| !is_in(block)).count()
    }

    #[test]
    fn it_holds_what_a_btree_holds_and_a_clone_keeps_what_it_had() {
        let (mut map, mut expected) = (Ordered::default(), BTreeMap::new());
        let mut draw = 7_u64;
        for round in 0..3_000_u64 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (draw >> 33) % 1_000;
            let (before, known) = (map.clone(), expected.get(&key).copied());
            match draw >> 62 {
                0 => assert_eq!(map.remove(&key), expected.remove(&key)),
                1 => {
                    let (value, other) = (map.get_mut(&key), expected.get_mut(&key));
                    assert_eq!(value, other);
                    if let (Some(value), Some(other)) = (value, other) {
                        (*value, *other) = (round, round);
                    }
                }
                _ => assert_eq!(map.insert(key, round), expected.insert(key, round)),
            }
            assert_eq!(map.len(), expected.len());
            assert_eq!(map.get(&key), expected.get(&key));
            assert_eq!(before.get(&key), known.as_ref());
            if round % 100 == 0 {
                assert!(map.iter().eq(&expected));
                assert!(map.iter_from(&key).eq(expected.range(key..)));
            }
            assert!(unshared(&map, &before) <= 2);
        }
        let full = |(_, block): &(u64, Arc<Block<u64, u64>>)| (1..=BLOCK).contains(&block.len());
        assert!(map.blocks.iter().all(full));
    }

    #[test]
    fn what_comes_in_order_fills_its_blocks() {
        let mut map = Ordered::default();
        for number in 0..1_000_u64 {
            map.insert(number, ());
        }
        assert_eq!(map.blocks.len(), 1_000_usize.div_ceil(BLOCK));
        for number in 0..1_000 {
            assert_eq!(map.remove(&number), Some(()));
        }
        assert_eq!((map.len(), map.blocks.len()), (0, 0));
    }

    #[test]
    fn maps_are_equal_however_their_blocks_are_cut() {
        let (mut rising, mut falling) = (Ordered::default(), Ordered::default());
        for number in 0..300_u64 {
            rising.insert(number, number);
            falling.insert(299 - number, 299 - number);
        }
        assert_eq!(rising, falling);
        falling.insert(7, 8);
        assert_ne!(rising, falling);
    }
}
