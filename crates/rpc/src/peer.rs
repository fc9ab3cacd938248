//! What control nodes ask of each other, beside what agents ask. It must not know who leads.

/// A request to one control node, whichever it is, or to the one that leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRequest {
    /// Say by which name the node goes, and which run of it this is.
    Name,
    /// The run of a control node with this nonce is there and follows: for the leader, who forgets those that are gone.
    Follows { nonce: u128 },
    /// The process whose claim is in this slot has resigned: take the lead at once, unless somebody has. Leads were given up so often
    /// in a row because no agent reached them.
    Succeed { claim: u64, given_up: u32 },
    /// Say whether agents that do not reach the leader have lately asked this node for one.
    Asked,
    /// Say what the node's wall clock shows.
    WallClock,
}

/// A run of a control node, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    /// Of the run.
    pub nonce: u128,
    /// As far as the node has read the journal, this run is the one that has registered by the name.
    pub is_registered: bool,
}
