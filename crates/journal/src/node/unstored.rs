//! Whether a leader stores the snapshots that are due: one that does not lets the journal grow without end, though it appends (three
//! regions, rule L2). It must not know what is done about it.

use std::time::Duration;

use host::clock::Instant;

/// How often in a row a snapshot was not stored, though the journal was appended to meanwhile, before its leader is said to store none:
/// a bucket that was away as a whole is no reason.
const ATTEMPTS: u32 = 2;

/// What makes a snapshot due, whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) after: Duration,
}

/// What was appended since the last snapshot that was stored, or since this node leads.
#[derive(Debug, Default)]
pub(super) struct Unstored {
    entries: u64,
    bytes: u64,
    since: Instant,
    attempts: u32,
}

impl Unstored {
    /// Nothing is missing as of this time.
    pub(super) fn since(since: Instant) -> Self {
        Unstored {
            since,
            ..Unstored::default()
        }
    }

    pub(super) fn appended(&mut self, bytes: u64) {
        self.entries += 1;
        self.bytes += bytes;
    }

    /// The journal was appended to since a snapshot was cut that could not be stored.
    pub(super) fn missed(&mut self) {
        self.attempts += 1;
    }

    /// A snapshot that was cut at this time is stored; so much was appended since.
    pub(super) fn stored(&mut self, cut_at: Instant, entries: u64, bytes: u64) {
        *self = Unstored {
            entries,
            bytes,
            since: cut_at,
            attempts: 0,
        };
    }

    /// Whether none is stored though one was due twice.
    pub(super) fn is_overdue(&self, now: Instant, due: Due) -> bool {
        let has_grown = self.entries >= due.entries.saturating_mul(2)
            || self.bytes >= due.bytes.saturating_mul(2)
            || (self.entries > 0 && now.since(self.since) >= due.after * 2);
        self.attempts >= ATTEMPTS && has_grown
    }
}
