//! Where records are, and what may become of the files that hold them. It must not know how that
//! is found out.

use super::ids::{FileId, PartitionId};

/// A slice, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlicePlace {
    pub file: FileId,
    /// The random part of the file's key.
    pub nonce: u32,
    /// Bytes of the whole file, so that a reader can take all of a small one at once.
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

/// What to read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locate {
    pub partition: PartitionId,
    /// The first offset wanted.
    pub offset: i64,
    /// Bytes after which no further slice is named; the first is always named.
    pub max_bytes: u64,
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
        /// In offset order; the first holds the offset asked for, or the next that exists. None
        /// at the end of the partition.
        places: Vec<SlicePlace>,
    },
    /// The offset lies outside the partition, as far as is known where it was asked.
    OutOfRange {
        /// The first offset that can be read.
        log_start: i64,
        /// The offset after the last record.
        high_watermark: i64,
    },
    /// There is no such partition, as far as is known where it was asked.
    UnknownPartition,
}

/// The offsets between which a partition can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read.
    pub log_start: i64,
    /// The offset after the last record.
    pub high_watermark: i64,
}

/// What a look-up by time is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeQuery {
    /// The first slice that may hold a record at or after this time (milliseconds since 1970).
    AtOrAfter(i64),
    /// The first slice that holds the largest timestamp.
    Largest,
}

/// A file as it lies in a bucket: its number, and the random part of its key. Two objects of one
/// number are two files, of which at most one is ever committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileRef {
    pub file: FileId,
    /// The random part of its key.
    pub nonce: u32,
}

/// A live file, and how a copy of it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Wall time of its commit.
    pub committed_wall_millis: u64,
    pub file: FileRef,
    /// Bytes of the whole file.
    pub length: u64,
    /// CRC-32C of the whole file.
    pub checksum: u32,
    /// Numbers of the buckets that hold it, increasing.
    pub held: Vec<u32>,
    /// Whether these are enough for a commit, so that what another bucket holds of it may be deleted.
    pub is_held_enough: bool,
}

/// Which files to name, and how copies of them are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedFiles {
    /// One file, if it is live.
    File(FileRef),
    /// Of the live files that a bucket is known to hold, one of the last that were committed.
    LastIn { bucket: u32 },
    /// Live files that a bucket is known to hold, after one, in the order of their ids.
    In { bucket: u32, after: Option<FileId> },
}

/// Files, and how copies of them are known.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredFiles {
    pub files: Vec<StoredFile>,
    /// There may be more after this one.
    pub more_after: Option<FileId>,
    /// Buckets that are suspect, each with the time, in ticks, since when it is: what they hold counts for no commit.
    pub suspects: Vec<(u32, u64)>,
}

/// What may become of a file found in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It holds records that can be read.
    Live,
    /// Nothing in it can be read, but a reader may still hold a plan that names it; once the grace
    /// is over it may be deleted, and reported so.
    Tombstoned,
    /// It may still be committed, or its upload may still be on its way.
    Undecided,
    /// It never will be committed, or is forgotten: whatever is found of it may be deleted.
    Dead,
}
