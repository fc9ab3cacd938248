//! Member ids that were given out and are awaited to join (KIP-394), of all groups. Clients come
//! back with theirs at once or never, so when ids take too much memory the oldest are given up:
//! nobody can keep others from getting one. Must not know why an id is awaited no longer.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long an id is awaited at most. A client that comes later is told UNKNOWN_MEMBER_ID and
/// asks for another.
pub(super) const AWAITED_TIME_MAX: Duration = Duration::from_secs(60);

/// What an id takes beside its length, and its group's: most of it is the memory of a group that
/// nobody has joined yet.
const AWAITED_BYTES: u64 = 1_024;

/// When an id was given out, as their number until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Serial(u64);

#[derive(Debug)]
pub(super) struct Awaited {
    /// What all of them may take.
    bytes_max: u64,
    by_age: BTreeMap<Serial, Given>,
    given: u64,
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct Given {
    pub(super) group: String,
    pub(super) member: String,
}

impl Awaited {
    pub(super) fn new(bytes_max: u64) -> Self {
        Awaited {
            bytes_max,
            by_age: BTreeMap::new(),
            given: 0,
            bytes: 0,
        }
    }

    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// An id is given out.
    pub(super) fn give(&mut self, group: &str, member: &str) -> Serial {
        self.given += 1;
        let serial = Serial(self.given);
        let given = Given {
            group: group.to_owned(),
            member: member.to_owned(),
        };
        self.bytes += given.bytes();
        self.by_age.insert(serial, given);
        serial
    }

    /// An id is awaited no longer.
    pub(super) fn release(&mut self, serial: Serial) {
        if let Some(given) = self.by_age.remove(&serial) {
            self.bytes -= given.bytes();
        }
    }

    /// The oldest, if they take more than they may.
    pub(super) fn superfluous(&self) -> Option<&Given> {
        let is_full = self.bytes > self.bytes_max;
        self.by_age.values().next().filter(|_| is_full)
    }
}

impl Given {
    fn bytes(&self) -> u64 {
        AWAITED_BYTES + 3 * (self.group.len() + self.member.len()) as u64
    }
}
