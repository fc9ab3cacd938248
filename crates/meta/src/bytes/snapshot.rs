//! Snapshots: the state as chunks of bytes, and back (docs/formats/snapshot.md). Capturing copies
//! pointers; encoding runs on the capture, wherever and whenever. It must not know where chunks
//! are stored.

mod read;
mod write;

use bytes::Bytes;

use crate::bytes::encoding::DecodeError;
use crate::invariants::Violation;
use crate::state::State;

/// The version of the chunks' layout.
const FORMAT: u32 = 1;

/// A state at one moment, to be encoded later.
#[derive(Clone, Debug)]
pub struct Capture {
    state: State,
}

impl State {
    /// Takes hold of the state as it is now, in far less time than reading it takes.
    pub fn capture(&self) -> Capture {
        Capture {
            state: self.clone(),
        }
    }
}

impl Capture {
    /// The digest of the state captured; see [`State::digest`].
    pub fn digest(&self) -> [u8; 32] {
        self.state.digest()
    }
}

/// A chunk of a captured state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its identity is known: it is what it was.
    Same(u128),
    /// Its identity, if it has one, which follows from its content; and its bytes.
    Encoded(Option<u128>, Bytes),
}

/// Why chunks are no snapshot of this build's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// A chunk cannot be read.
    #[error("chunk {chunk}: {reason}")]
    Decode {
        /// Which one, from 0.
        chunk: usize,
        reason: DecodeError,
    },
    /// A later version of the software wrote it.
    #[error("the snapshot has format {format} and feature level {level}: run a newer version")]
    Newer { format: u32, level: u32 },
    /// Chunks are missing, repeated or in another order.
    #[error("{what}: the snapshot names {expected}, its chunks hold {found}")]
    Incomplete {
        what: &'static str,
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The parts contradict one another.
    #[error("the snapshot contradicts itself: {0}")]
    Invalid(#[from] Violation),
}
