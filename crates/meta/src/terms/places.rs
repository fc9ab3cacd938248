//! Where records are, and what may become of the files that hold them. It must not know how that
//! is found out.

use super::ids::FileId;

/// A slice, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlicePlace {
    pub file: FileId,
    /// The random part of the file's key.
    pub nonce: u32,
    /// Bytes of the whole file.
    pub file_length: u64,
    /// First byte of the slice in the file.
    pub position: u64,
    /// Bytes of the slice.
    pub length: u32,
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Largest timestamp of its records, in milliseconds since 1970; negative if they have none.
    pub max_timestamp: i64,
}

/// Where the records from an offset on are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// The partition's bounds and slices.
    Found {
        /// The first offset that can be read.
        log_start: i64,
        /// The offset after the last record.
        high_watermark: i64,
        /// Slices from the one that holds the offset, or the next that exists; none at the end.
        places: Vec<SlicePlace>,
    },
    /// The offset lies outside the partition.
    OutOfRange {
        /// The first offset that can be read.
        log_start: i64,
        /// The offset after the last record.
        high_watermark: i64,
    },
    /// There is no such partition.
    UnknownPartition,
}

/// What may become of a file found in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It holds records that can be read.
    Live,
    /// Nothing in it can be read; once the grace is over it may be deleted, and reported so.
    Tombstoned,
    /// It may still be committed, or its upload may still be on its way.
    Undecided,
    /// It never will be committed, or is forgotten: whatever is found of it may be deleted.
    Dead,
}

/// A file that may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRef {
    pub file: FileId,
    /// The random part of its key.
    pub nonce: u32,
}
