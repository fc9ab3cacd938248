//! The right to write under a number: one for each attempt to lead, never used twice. It must not know what is written.

/// A ballot: ordered by its number, then by its nonce. The default one stands before all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ballot {
    pub(crate) number: u64,
    /// From the operating system's entropy at each attempt, never from a generator in memory, which a cloned machine
    /// would repeat (A4).
    pub(crate) nonce: u128,
}

impl Ballot {
    /// The lowest ballot of this nonce above `self`.
    pub(crate) fn above(self, nonce: u128) -> Ballot {
        Ballot {
            number: self.number + 1,
            nonce,
        }
    }
}
