//! One slice of a file, as the state keeps it. It must not know how slices are kept together.

use crate::terms::commit::TimeSource;
use crate::terms::ids::{FileId, Incarnation};
use crate::terms::places::SlicePlace;

/// The contiguous batches of one partition inside one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) file: FileId,
    /// First byte in the file.
    pub(crate) position: u64,
    pub(crate) base_offset: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) time_source: TimeSource,
    /// Bytes.
    pub(crate) length: u32,
    /// Offsets covered: at least 1.
    pub(crate) span: u32,
}

impl Slice {
    /// What the first slice of a block is told as a difference to.
    pub(crate) const ORIGIN: Slice = Slice {
        file: FileId {
            incarnation: Incarnation(0),
            number: 0,
        },
        position: 0,
        base_offset: 0,
        max_timestamp: 0,
        time_source: TimeSource::Records,
        length: 0,
        span: 0,
    };

    /// The offset after the slice.
    pub(crate) fn end(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.span))
    }

    /// Where it lies, with what its file says of itself.
    pub(crate) fn place(&self, nonce: u32, file_length: u64) -> SlicePlace {
        SlicePlace {
            file: self.file,
            nonce,
            file_length,
            position: self.position,
            length: self.length,
            base_offset: self.base_offset,
            last_offset: self.end().saturating_sub(1),
            max_timestamp: self.max_timestamp,
        }
    }
}
