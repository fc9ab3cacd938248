//! What has come of an object so far: it stays when the request that brought it is given up. It must
//! not know why somebody reads.

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
    /// The answer has begun: so many bytes will come.
    pub fn expect(&self, length: u64) {
        let mut state = self.state();
        let now = host::clock::now();
        state.expected = Some(length);
        state.began_at = Some(now);
        state.moved_at = Some(now);
    }

    /// Some of them have come.
    pub fn push(&self, piece: Bytes) {
        let mut state = self.state();
        state.moved_at = Some(host::clock::now());
        state.length += piece.len() as u64;
        state.pieces.push(piece);
    }

    /// How many have come.
    pub fn length(&self) -> u64 {
        self.state().length
    }

    /// How many will have come in the end; `None` until the answer begins.
    pub fn expected(&self) -> Option<u64> {
        self.state().expected
    }

    /// When the answer began.
    pub fn began_at(&self) -> Option<Instant> {
        self.state().began_at
    }

    /// When something came last.
    pub fn moved_at(&self) -> Option<Instant> {
        self.state().moved_at
    }

    /// What has come.
    pub fn pieces(&self) -> Vec<Bytes> {
        self.state().pieces.clone()
    }

    /// What has come, in one piece.
    pub fn whole(&self) -> Bytes {
        join(self.pieces())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole at any time.
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
