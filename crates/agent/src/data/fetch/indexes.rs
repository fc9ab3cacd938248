//! Indexes of large files, of which single slices are read: each index is read once and kept for a
//! while, so that a slice can be compared with what its own file says. It must not know clients.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meta::ids::FileId;
use store::file::FileIndex;
use tokio::sync::OnceCell;

/// Slices in all kept indexes together: 3 MiB at 48 bytes each.
const SLICES_MAX: usize = 1 << 16;
/// Files whose indexes are kept or being read.
const FILES_MAX: usize = 256;

/// The whole name of a file.
type Name = (FileId, u32);

/// Filled by the first reader that asks; the others wait.
type Cell = Arc<OnceCell<Arc<FileIndex>>>;

#[derive(Debug, Default)]
pub(super) struct Indexes {
    kept: Mutex<VecDeque<(Name, Cell)>>,
}

impl Indexes {
    /// The index of a file, which `read` reads unless it is kept; one read serves all who ask.
    pub(super) async fn get<E>(
        &self,
        name: Name,
        read: impl Future<Output = Result<FileIndex, E>>,
    ) -> Result<Arc<FileIndex>, E> {
        let cell = self.cell(name);
        let read = async { read.await.map(Arc::new) };
        let index = Arc::clone(cell.get_or_try_init(|| read).await?);
        self.trim();
        Ok(index)
    }

    fn cell(&self, name: Name) -> Cell {
        let mut kept = self.kept();
        if let Some((_, cell)) = kept.iter().find(|(known, _)| *known == name) {
            return Arc::clone(cell);
        }
        if kept.len() >= FILES_MAX {
            kept.pop_front();
        }
        let cell = Cell::default();
        kept.push_back((name, Arc::clone(&cell)));
        cell
    }

    /// Drops the oldest indexes until the rest is within bounds.
    fn trim(&self) {
        let mut kept = self.kept();
        let slices = |cell: &Cell| cell.get().map_or(0, |index| index.slices.len());
        let mut total: usize = kept.iter().map(|(_, cell)| slices(cell)).sum();
        while total > SLICES_MAX
            && let Some((_, cell)) = kept.pop_front()
        {
            total -= slices(&cell);
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Name, Cell)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use meta::ids::Incarnation;
    use store::file::Slice;

    use super::*;

    fn name(number: u64) -> Name {
        let incarnation = Incarnation(1);
        let file = FileId {
            incarnation,
            number,
        };
        (file, 7)
    }

    fn index(slices: usize) -> FileIndex {
        let slice = Slice {
            partition: 1,
            position: 16,
            length: 1,
            checksum: 0,
            batches: 1,
            records: 1,
            max_timestamp_ms: 0,
        };
        FileIndex {
            id: crate::data::cache::stored_id(name(0).0),
            slices: vec![slice; slices],
        }
    }

    #[tokio::test]
    async fn an_index_is_read_once_and_a_failure_not_kept() {
        let (indexes, reads) = (Indexes::default(), AtomicUsize::new(0));
        let read = async |outcome: Result<FileIndex, ()>| {
            let counted = async {
                reads.fetch_add(1, Ordering::Relaxed);
                outcome
            };
            indexes.get(name(1), counted).await
        };
        assert_eq!(read(Err(())).await, Err(()));
        assert!(read(Ok(index(1))).await.is_ok());
        assert!(read(Err(())).await.is_ok());
        assert_eq!(reads.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let indexes = Indexes::default();
        for number in 0..10 {
            let read = async { Ok::<_, ()>(index(SLICES_MAX / 4)) };
            indexes.get(name(number), read).await.unwrap();
            assert!(indexes.kept().len() <= 4);
        }
        let large = async { Ok::<_, ()>(index(SLICES_MAX + 1)) };
        indexes.get(name(10), large).await.unwrap();
        assert_eq!(indexes.kept().len(), 0);
        for number in 0..2 * FILES_MAX as u64 {
            let read = async { Ok::<_, ()>(index(1)) };
            indexes.get(name(number), read).await.unwrap();
        }
        assert_eq!(indexes.kept().len(), FILES_MAX);
    }
}
