//! The bytes of an object received so far: they stay when the request that brought them is dropped.
//! It must not know why somebody reads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use host::clock::Instant;

/// Bytes in the order in which they come, filled by one request.
#[derive(Debug, Default)]
pub struct Received {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: Vec<Bytes>,
    length: u64,
    expected: Option<u64>,
    began_at: Option<Instant>,
    moved_at: Option<Instant>,
}

impl Received {
    /// Notes that the answer has begun, and how many bytes it has.
    pub fn expect(&self, length: u64) {
        let mut state = self.state();
        let now = host::clock::now();
        state.expected = Some(length);
        state.began_at = Some(now);
        state.moved_at = Some(now);
    }

    /// Adds a piece of the answer.
    pub fn push(&self, piece: Bytes) {
        let mut state = self.state();
        state.moved_at = Some(host::clock::now());
        state.length += piece.len() as u64;
        state.pieces.push(piece);
    }

    /// Bytes received so far.
    pub fn length(&self) -> u64 {
        self.state().length
    }

    /// Bytes that the whole answer has; `None` until it begins.
    pub fn expected(&self) -> Option<u64> {
        self.state().expected
    }

    pub fn began_at(&self) -> Option<Instant> {
        self.state().began_at
    }

    /// When the last bytes came.
    pub fn moved_at(&self) -> Option<Instant> {
        self.state().moved_at
    }

    pub fn pieces(&self) -> Vec<Bytes> {
        self.state().pieces.clone()
    }

    /// The bytes received so far, in one piece.
    pub fn whole(&self) -> Bytes {
        join(self.pieces())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pieces in one: free for a single piece, a copy for more.
pub fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let length = pieces.iter().map(Bytes::len).sum();
    let mut whole = BytesMut::with_capacity(length);
    pieces
        .iter()
        .for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}
