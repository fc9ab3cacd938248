//! Which buckets a journal lies in. It must not know how they are used.

use super::BUCKETS;

/// Which three buckets a journal lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The cluster's id, as the buckets' markers have it.
    pub cluster: String,
    pub shard: u16,
    /// The configuration's number: names of objects contain it.
    pub number: u32,
    /// What the marker of each bucket says, so that a bucket that was emptied and claimed again is refused.
    pub generations: [u64; BUCKETS],
}
