//! What control nodes ask of each other, beside what agents ask. It must not know who leads.

use meta::ids::Incarnation;

use crate::position::Position;

/// A request to one control node, whichever it is, or to the one that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerRequest {
    /// Say by which name the node goes, and which run of it this is.
    Name,
    /// A control node is there and follows: for the leader, who forgets those that are gone, and answers with its [`Roster`].
    Follows(Follower),
    /// The process whose claim is in this slot has resigned, for this reason: take the lead at once, unless somebody has. Leads were
    /// given up so often in a row because no agent reached them.
    Succeed {
        claim: u64,
        reason: Reason,
        given_up: u32,
    },
    /// Say whether agents that do not reach the leader have lately asked this node for one.
    Asked,
    /// Say what the node's wall clock shows, and how long a commit would take if it led.
    Condition,
    /// Say whether the node takes itself for able to store snapshots of the journal: not if it has led and stored none of late.
    CanStore,
    /// Say how far the node has applied the journal, once it has come to this slot, or after a moment: a node that cannot apply the entry
    /// there wants to leave it out. One that is stuck itself answers as well.
    Progress { slot: u64 },
}

/// Why a control node has resigned the lead in favour of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It was told to end.
    Ended,
    /// Its wall clock is wrong.
    ClockWrong,
    /// No agent reached it.
    Unreached,
    /// The other is in the region that an operator prefers.
    Preferred,
    /// Commits take less time in the other's region.
    Faster,
    /// It stored no snapshots, and the other can.
    StoresNothing,
}

/// How a control node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What its wall clock shows, in milliseconds since 1970.
    pub wall_millis: u64,
    /// It takes its clock for wrong itself.
    pub is_clock_wrong: bool,
    /// How long a commit would take if it led, in microseconds; `None` if it reaches too few buckets; 0 if the cluster has only one.
    pub commit_micros: Option<u64>,
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

/// How far a control node has come, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub name: String,
    /// The version of its build, as `seaway --version` says it.
    pub version: String,
    /// Everything in the journal up to there is applied to its state, and nothing beyond.
    pub applied: Position,
}

/// What a run of a control node that follows says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Of the run.
    pub nonce: u128,
    /// The version of its build, as `seaway --version` says it.
    pub version: String,
    /// The last entry of the journal that it has applied.
    pub applied: Position,
    /// How long ago everything that had been appended was applied there, as far as it can tell; `None` if it never was.
    pub current_millis_ago: Option<u64>,
}

/// What the leader has heard of the others, which it keeps in memory alone: each leader hears it anew. Whoever is registered and not in it has
/// not been heard since that node leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// As what the leader stands in its claims.
    pub leader: String,
    /// The version of the leader's build.
    pub version: String,
    /// For how long it has listened to the others.
    pub listens_millis: u64,
    pub agents: Vec<HeardAgent>,
    pub followers: Vec<HeardFollower>,
}

/// A run of an agent, as the leader has heard it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardAgent {
    pub incarnation: Incarnation,
    pub version: String,
    /// How long ago it called last.
    pub silent_millis: u64,
}

/// A control node that follows, as the leader has heard it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardFollower {
    pub said: Follower,
    /// How long ago it said that.
    pub silent_millis: u64,
    /// How many entries the leader was ahead of it then.
    pub entries_behind: u64,
}
