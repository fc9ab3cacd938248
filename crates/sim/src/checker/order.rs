//! The version order of every key: which offsets are known to hold which values, ranked without the gaps.
//!
//! An offset counts as holding a value if a poll returned it there, or if an acknowledgement put it there and no poll
//! found it elsewhere (else the acknowledgement is the suspect). Must not judge.

use super::tables::{KeyId, Tables, ValueId};

/// The known log of one key.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// (offset, value), sorted; several values at one offset are an anomaly.
    pub(super) entries: Vec<(u64, ValueId)>,
    /// Distinct offsets, sorted: the rank of an offset is its index here.
    pub(super) offsets: Vec<u64>,
    /// Ranks at which a value lies that must be there and that retention did not take, ascending.
    pub(super) required: Vec<usize>,
}

impl Order {
    /// The rank of a known offset; for others, of the next known one.
    pub(super) fn rank(&self, offset: u64) -> usize {
        self.offsets.partition_point(|&known| known < offset)
    }

    /// The first rank in `from..to` at which a value must be.
    pub(super) fn required_in(&self, from: usize, to: usize) -> Option<usize> {
        let at = self.required.partition_point(|&rank| rank < from);
        self.required.get(at).copied().filter(|&rank| rank < to)
    }

    /// Values known to lie at a rank.
    pub(super) fn values_at(&self, rank: usize) -> impl Iterator<Item = ValueId> + '_ {
        let offset = self.offsets[rank];
        let from = self.entries.partition_point(|&(known, _)| known < offset);
        self.entries[from..]
            .iter()
            .take_while(move |&&(known, _)| known == offset)
            .map(|&(_, value)| value)
    }
}

/// The version orders of all keys.
pub(super) struct Orders {
    by_key: Vec<Order>,
}

impl Orders {
    /// Builds them from closed tables.
    pub(super) fn build(tables: &Tables) -> Self {
        let mut by_key: Vec<Order> = tables.keys.iter().map(|_| Order::default()).collect();
        for (id, entry) in tables.values.iter().enumerate() {
            let id = id as ValueId;
            let order = &mut by_key[entry.key as usize];
            order
                .entries
                .extend(entry.places.iter().map(|&offset| (offset, id)));
            if entry.places.is_empty()
                && tables.must_commit(id)
                && let Some(offset) = entry.sent.as_ref().and_then(|sent| sent.ack)
            {
                order.entries.push((offset, id));
            }
        }
        for (key, order) in by_key.iter_mut().enumerate() {
            order.entries.sort_unstable();
            order.offsets = order.entries.iter().map(|&(offset, _)| offset).collect();
            order.offsets.dedup();
            let log_start = tables.log_start(key as KeyId);
            let mut required = Vec::new();
            for &(offset, value) in &order.entries {
                if offset >= log_start && tables.must_commit(value) {
                    required.push(order.rank(offset));
                }
            }
            required.dedup();
            order.required = required;
        }
        Orders { by_key }
    }

    /// The version order of a key.
    pub(super) fn of(&self, key: KeyId) -> &Order {
        &self.by_key[key as usize]
    }
}
