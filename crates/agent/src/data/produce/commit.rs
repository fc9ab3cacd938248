//! Builds the commit of a file: its slices, and the headers of the batches in them. Pure. It must
//! not know what becomes of the commit.

use meta::commit::{Batch, CommitFile};
use store::file::HEADER_BYTES;

use super::batch::{Cut, Stored};

/// Describes the included batches of a file; `None` if there are none. A batch that is left out
/// splits its slice in two.
pub(super) fn describe(
    cut: &Cut,
    stored: &Stored,
    included: impl Iterator<Item = bool>,
) -> Option<CommitFile> {
    let mut commit = CommitFile {
        file: cut.file,
        nonce: cut.nonce,
        length: stored.length,
        checksum: stored.checksum,
        placement: stored.placement.clone(),
        ..CommitFile::default()
    };
    let mut position = HEADER_BYTES;
    let mut open = None;
    for (batch, included) in cut.batches.iter().zip(included) {
        let bytes = u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX);
        if !included {
            open = None;
        } else {
            if open != Some(batch.partition) {
                commit.push_slice(batch.partition, position);
                open = Some(batch.partition);
            }
            commit.push_batch(Batch {
                records: batch.records,
                bytes,
                max_timestamp: batch.max_timestamp,
                producer_id: batch.producer_id,
                producer_epoch: batch.producer_epoch,
                base_sequence: batch.base_sequence,
                time_source: batch.time_source,
            });
        }
        position += u64::from(bytes);
    }
    (!commit.batches.records.is_empty()).then_some(commit)
}
