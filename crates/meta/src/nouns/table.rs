//! A table from dense numbers to values that can be cloned for the price of a few pointers:
//! shared blocks, copied when written to. It must not know what it holds.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries per block. A clone of the table copies one pointer per block; the first write to a
/// block after that copies this many.
const BLOCK: u64 = 64;

type Block<T> = Vec<Option<Arc<T>>>;

#[derive(Debug)]
pub(crate) struct Table<T> {
    /// By number divided by [`BLOCK`]; none is empty.
    blocks: BTreeMap<u64, Arc<Block<T>>>,
    len: usize,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Table {
            blocks: self.blocks.clone(),
            len: self.len,
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table {
            blocks: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<T: Clone> Table<T> {
    /// How many numbers have a value.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        self.blocks
            .get(&(number / BLOCK))?
            .get(slot(number))?
            .as_deref()
    }

    /// The value, to be changed; copies what a clone of the table still shares.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let block = self.blocks.get_mut(&(number / BLOCK))?;
        block.get(slot(number))?.as_ref()?;
        Arc::make_mut(block)
            .get_mut(slot(number))?
            .as_mut()
            .map(Arc::make_mut)
    }

    /// Sets the value of a number.
    pub(crate) fn insert(&mut self, number: u64, value: T) {
        let block = Arc::make_mut(self.blocks.entry(number / BLOCK).or_default());
        let slot = slot(number);
        if block.len() <= slot {
            block.resize_with(slot + 1, || None);
        }
        if let Some(slot) = block.get_mut(slot)
            && slot.replace(Arc::new(value)).is_none()
        {
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Arc<T>> {
        let block = self.blocks.get_mut(&(number / BLOCK))?;
        block.get(slot(number))?.as_ref()?;
        let block = Arc::make_mut(block);
        let value = block.get_mut(slot(number))?.take();
        if block.iter().all(Option::is_none) {
            self.blocks.remove(&(number / BLOCK));
        }
        self.len -= usize::from(value.is_some());
        value
    }

    /// All values with their numbers, from a number onward, in order.
    pub(crate) fn iter_from(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        self.blocks
            .range(number / BLOCK..)
            .flat_map(move |(at, block)| {
                let first = at * BLOCK;
                let numbered = (first..).zip(block.iter());
                numbered
                    .filter(move |(at, _)| *at >= number)
                    .filter_map(|(number, value)| value.as_deref().map(|value| (number, value)))
            })
    }

    /// All values with their numbers, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.iter_from(0)
    }
}

fn slot(number: u64) -> usize {
    // Less than 64.
    usize::try_from(number % BLOCK).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_had_while_the_table_changes() {
        let mut table = Table::default();
        for number in 0..200 {
            table.insert(number, number * 10);
        }
        let before = table.clone();
        *table.get_mut(70).expect("it was inserted") = 1;
        table.remove(71);
        table.insert(500, 5);
        assert_eq!(before.get(70), Some(&700));
        assert_eq!(before.get(71), Some(&710));
        assert_eq!(before.get(500), None);
        assert_eq!(before.len(), 200);
        assert_eq!(table.get(70), Some(&1));
        assert_eq!(table.get(71), None);
        assert_eq!(table.len(), 200);
    }

    #[test]
    fn iterates_in_order_from_anywhere_over_gaps() {
        let mut table = Table::default();
        for number in [3, 64, 65, 130, 1000] {
            table.insert(number, ());
        }
        table.remove(64);
        let from = |number| {
            table
                .iter_from(number)
                .map(|(at, ())| at)
                .collect::<Vec<_>>()
        };
        assert_eq!(from(0), [3, 65, 130, 1000]);
        assert_eq!(from(65), [65, 130, 1000]);
        assert_eq!(from(131), [1000]);
        assert_eq!(from(2000), [0; 0]);
    }

    #[test]
    fn absent_numbers_are_absent_however_large() {
        let mut table: Table<u8> = Table::default();
        assert_eq!(table.get(u64::MAX), None);
        assert_eq!(table.get_mut(u64::MAX), None);
        assert!(table.remove(7).is_none());
    }
}
