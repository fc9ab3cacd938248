//! Places in the journal. It must not know what lies there.

/// A place in the journal: the number of the last entry that an answer rests on, or that must be
/// applied before a call is answered. Zero asks for whatever is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);
