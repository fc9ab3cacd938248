//! How much of an upload's body its connection has taken so far: the only sign of life of an upload
//! before its answer. It must not know where the bytes go.

use std::sync::{Mutex, PoisonError};

use host::clock::Instant;

/// Bytes of a body that one request has sent.
#[derive(Debug, Default)]
pub struct Sent {
    last: Mutex<Option<(u64, Instant)>>,
}

impl Sent {
    /// Notes that so many bytes of the body are taken by now.
    pub fn note(&self, bytes: u64) {
        let last = Some((bytes, host::clock::now()));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// How many bytes were taken, and when the last of them were.
    pub fn last(&self) -> Option<(u64, Instant)> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
