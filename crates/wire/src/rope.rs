//! Bytes in several pieces, for vectored writes: frames to send, and the records of a Fetch.
//!
//! It must not know what the bytes mean, and copies nothing unless asked to.

use bytes::{Bytes, BytesMut};

/// A byte string in pieces. Two ropes are equal if their bytes are, however they are cut.
#[derive(Debug, Clone, Default)]
pub struct Rope {
    pieces: Vec<Bytes>,
    length: usize,
}

impl Rope {
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty rope with room for so many pieces.
    pub fn with_capacity(pieces: usize) -> Self {
        Self {
            pieces: Vec::with_capacity(pieces),
            length: 0,
        }
    }

    /// Appends a piece; an empty one is dropped.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push(piece);
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The pieces in order; none is empty.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The pieces in order; none is empty.
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// All bytes in one piece: copied, unless there is only one.
    pub fn to_bytes(&self) -> Bytes {
        if let [piece] = self.pieces.as_slice() {
            return piece.clone();
        }
        let mut out = BytesMut::with_capacity(self.length);
        for piece in &self.pieces {
            out.extend_from_slice(piece);
        }
        out.freeze()
    }
}

impl From<Bytes> for Rope {
    fn from(piece: Bytes) -> Self {
        let mut rope = Self::new();
        rope.push(piece);
        rope
    }
}

impl FromIterator<Bytes> for Rope {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut rope = Self::new();
        pieces.into_iter().for_each(|piece| rope.push(piece));
        rope
    }
}

impl Extend<Bytes> for Rope {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, pieces: I) {
        pieces.into_iter().for_each(|piece| self.push(piece));
    }
}

impl PartialEq for Rope {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length
            && self
                .pieces
                .iter()
                .flatten()
                .eq(other.pieces.iter().flatten())
    }
}

impl Eq for Rope {}
