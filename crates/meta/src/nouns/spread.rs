//! In which partitions a file has slices, so that it is known what a copy that is not there takes away without a walk over
//! partitions. It must not know where copies are.

use std::sync::Arc;

use super::varint;
use crate::terms::ids::PartitionId;

/// The partitions of a file, each with the offset at which its first slice in the file begins. A clone shares the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    /// Two varints a row: how far the partition's number is from that of the row before, and the offset.
    packed: Arc<[u8]>,
}

/// Rows that are put together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    packed: Vec<u8>,
    last: Option<PartitionId>,
}

impl Rows {
    /// Adds a slice of the file; of slices of one partition that come one after another only the first counts.
    pub(crate) fn add(&mut self, partition: PartitionId, base_offset: i64) {
        if self.last == Some(partition) {
            return;
        }
        let before = self.last.unwrap_or_default();
        varint::put(partition.0.wrapping_sub(before.0), &mut self.packed);
        varint::put(base_offset.cast_unsigned(), &mut self.packed);
        self.last = Some(partition);
    }

    pub(crate) fn pack(self) -> Spread {
        Spread {
            packed: self.packed.into(),
        }
    }
}

impl Spread {
    /// The partitions, in the order in which they were added, and where the first slice of each begins.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (PartitionId, i64)> {
        let mut rest = &self.packed[..];
        let mut before = PartitionId::default();
        std::iter::from_fn(move || {
            let step = varint::take(&mut rest)?;
            let base_offset = varint::take(&mut rest)?.cast_signed();
            before = PartitionId(before.0.wrapping_add(step));
            Some((before, base_offset))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_any_order_and_one_partition_counts_once() {
        let mut rows = Rows::default();
        let added = [(7, 0), (7, 5), (9, i64::MAX), (2, 300), (u64::MAX, 1)];
        for (partition, base_offset) in added {
            rows.add(PartitionId(partition), base_offset);
        }
        let spread = rows.pack();
        let kept: Vec<(u64, i64)> = spread.rows().map(|(id, base)| (id.0, base)).collect();
        assert_eq!(kept, [(7, 0), (9, i64::MAX), (2, 300), (u64::MAX, 1)]);
        assert_eq!(Rows::default().pack().rows().count(), 0);
    }
}
