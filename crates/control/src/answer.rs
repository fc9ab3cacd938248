//! How each call is answered: from what is applied, from what is current, by a command, or by the
//! coordinator of groups. Pure: the node's shell, the simulator and tests perform what it says. It
//! must not know how a command gets into the journal.

use host::trial::leaves_out;
use journal::node::{ProposeError, Refusal};
use meta::State;
use meta::command::Command;
use meta::ids::Incarnation;
use meta::places::{Fate, FileRef, Located};
use meta::reply::Reply;
use rpc::Position;
use rpc::call::{Call, Locate, Registered, Return};
use rpc::group::{GroupRequest, Heartbeat};
use rpc::peer::PeerRequest;
use rpc::{Error, Leader};

/// Most slices named in one answer about a partition.
const PLACES_MAX: usize = 1_024;
/// Most slices named in one answer, but for one of each partition: a MiB of them.
const PLACES_OF_ANSWER_MAX: usize = 16 * PLACES_MAX;
/// Most files named in one answer.
const FILES_MAX: u32 = 10_000;
/// Most files looked at for an answer that names those in a bucket: whoever compares a bucket tells how far it is after so many.
const LOOKED_AT_MAX: usize = 1_000;

/// The buckets that an agent reaches: bit b for the one of number b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached(pub u64);

/// What is to be done about a call.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Return this.
    Now(Return),
    /// Look again once this position is applied here.
    Reach(Position, Call),
    /// Look again, as current, once an entry is applied here that was appended after the call came.
    Current(Call),
    /// Propose this; what comes of it is told by [`conclude`].
    Propose(Box<Command>),
    /// Ask the coordinator of groups, which sees to it itself that its answers are current.
    Coordinate(GroupRequest),
    /// Tell the coordinator that these members are alive.
    Hear(Vec<Heartbeat>),
    /// Note that the agent is there, of a build of this version, for as long as it keeps the call open, and answer after a while.
    Attend(Incarnation, Reached, String),
    /// Do what another control node asks.
    Peer(PeerRequest),
    /// Say whether this node leads, and who else does.
    WhoLeads,
}

/// What `state` is to the call that is answered from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As the journal is applied here, up to this position at least.
    Applied(Position),
    /// The same, but for too long nothing has confirmed that this is all there is: what is not there may exist.
    Unconfirmed(Position),
    /// An entry that was appended after the call came is applied.
    Current,
}

/// What to do about a call. Asked again as [`Freshness::Current`], it asks for no more than that.
pub fn step(state: &State, call: Call, freshness: Freshness) -> Result<Step, Error> {
    if let Freshness::Applied(applied) | Freshness::Unconfirmed(applied) = freshness {
        let at = position(&call);
        if at > applied && !leaves_out("out-of-range-from-stale") {
            return Ok(Step::Reach(at, call));
        }
        if must_be_current(state, &call) {
            return Ok(Step::Current(call));
        }
    }
    let again = matches!(freshness, Freshness::Unconfirmed(_)).then(|| call.clone());
    let value = match call {
        Call::Propose(command) => return propose(command),
        Call::Group(request) => return Ok(Step::Coordinate(request)),
        Call::Heartbeats(members) => return Ok(Step::Hear(members)),
        Call::Present {
            incarnation,
            buckets,
            version,
        } => return Ok(Step::Attend(incarnation, Reached(buckets), version)),
        Call::Peer(request) => return Ok(Step::Peer(request)),
        Call::WhoLeads => return Ok(Step::WhoLeads),
        Call::Check(command) => check(state, &command)?,
        Call::Barrier => Return::Done,
        Call::View { known, .. } => Return::View(state.view_since(known).map(Box::new)),
        Call::Locate { wanted, .. } => {
            let places_max = (PLACES_OF_ANSWER_MAX / wanted.len().max(1)).clamp(1, PLACES_MAX);
            let locate = |wanted: &Locate| {
                state.locate(
                    wanted.partition,
                    wanted.offset,
                    wanted.max_bytes,
                    places_max,
                )
            };
            Return::Located(wanted.iter().map(locate).collect())
        }
        Call::Bounds(partitions) => {
            Return::Bounds(partitions.into_iter().map(|id| state.bounds(id)).collect())
        }
        Call::FindTime {
            partition, query, ..
        } => Return::Place(state.find_time(partition, query)),
        Call::Collectable { bucket, limit } => {
            let limit = usize::try_from(limit.min(FILES_MAX)).unwrap_or(0);
            Return::Collectable(state.collectable(bucket, limit))
        }
        Call::Short {
            bucket,
            after,
            limit,
        } => {
            let limit = usize::try_from(limit.min(FILES_MAX)).unwrap_or(0);
            Return::Short {
                wall_millis: state.stamp().wall_millis,
                files: state.short_of(bucket, after, limit),
            }
        }
        Call::Stored(wanted) => Return::Stored(state.stored(wanted, LOOKED_AT_MAX)),
        Call::Fates(files) => {
            Return::Fates(files.into_iter().map(|file| state.fate(file)).collect())
        }
    };
    Ok(match again {
        Some(call) if tells_absence(&value) => Step::Current(call),
        _ => Step::Now(value),
    })
}

/// Whether an answer says that something does not exist. A view is none: who misses something in it asks for a current one.
fn tells_absence(value: &Return) -> bool {
    match value {
        Return::Located(located) => {
            let is_found = |located: &Located| matches!(located, Located::Found { .. });
            !located.iter().all(is_found)
        }
        Return::Place(place) => place.is_none(),
        _ => false,
    }
}

/// Whether only the leader answers a call, as long as there is one.
pub fn needs_leader(call: &Call) -> bool {
    !matches!(
        call,
        Call::View { .. }
            | Call::Locate { .. }
            | Call::FindTime { .. }
            | Call::Peer(
                PeerRequest::Name
                    | PeerRequest::Succeed { .. }
                    | PeerRequest::Asked
                    | PeerRequest::CanStore
                    | PeerRequest::Progress { .. }
                    | PeerRequest::Condition
            )
            | Call::Short { .. }
            | Call::Stored(_)
    )
}

/// Whether a call shows that an agent wants the leader. Those of control nodes do not.
pub(crate) fn is_of_agent(call: &Call) -> bool {
    match call {
        Call::Peer(_) => false,
        Call::Propose(command) => !matches!(**command, Command::RegisterControlNode(_)),
        other => needs_leader(other),
    }
}

/// Whether a call is answered only from what is current (safety.md, rule 21).
fn must_be_current(state: &State, call: &Call) -> bool {
    match call {
        Call::Check(_) | Call::Fates(_) => true,
        Call::Barrier => !leaves_out("out-of-range-from-stale"),
        Call::Bounds(_) => !leaves_out("bounds-from-stale"),
        // A barrier is an entry of the journal, and keeps the leader's heartbeats going for a
        // while: an idle cluster has none. What is not applied here yet is found by the next look.
        Call::Collectable { bucket, .. } => !state.collectable(*bucket, 1).is_empty(),
        Call::View { .. } | Call::Locate { .. } | Call::FindTime { .. } => false,
        // A file that is not short any more is copied in vain, and one that is will be named later.
        Call::Short { .. } => false,
        // What is said of copies after it is judged when it is applied.
        Call::Stored(_) => false,
        // What a command meets is decided when it is applied.
        Call::Propose(_)
        | Call::Group(_)
        | Call::Heartbeats(_)
        | Call::Present { .. }
        | Call::Peer(_)
        | Call::WhoLeads => false,
    }
}

/// What must be applied before a call is answered.
fn position(call: &Call) -> Position {
    match call {
        Call::View { at, .. } | Call::Locate { at, .. } | Call::FindTime { at, .. } => *at,
        Call::Propose(_)
        | Call::Check(_)
        | Call::Barrier
        | Call::Bounds(_)
        | Call::Collectable { .. }
        | Call::Short { .. }
        | Call::Stored(_)
        | Call::Fates(_)
        | Call::Group(_)
        | Call::Heartbeats(_)
        | Call::Present { .. }
        | Call::Peer(_)
        | Call::WhoLeads => Position::default(),
    }
}

/// The commands that others may have proposed; the rest are the leader's own.
fn propose(command: Box<Command>) -> Result<Step, Error> {
    match *command {
        Command::RegisterAgent(_)
        | Command::DrainAgent { .. }
        // Of an agent that ends; the leader's own if it is gone.
        | Command::FenceAgent { .. }
        | Command::CommitFile(_)
        | Command::SkipFile { .. }
        | Command::CreateTopic(_)
        | Command::DeleteTopic { .. }
        | Command::CreatePartitions { .. }
        | Command::SetTopicConfigs { .. }
        | Command::SetClusterConfigs { .. }
        | Command::AllocateProducer { .. }
        | Command::FilesDeleted { .. }
        | Command::AddCopies { .. }
        | Command::DropCopies(_)
        | Command::BucketCompared(_)
        // Of control nodes that follow.
        | Command::RegisterControlNode(_) => Ok(Step::Propose(command)),
        Command::Housekeep
        | Command::SetAgentCutOff { .. }
        | Command::RemoveControlNode { .. }
        | Command::SetFeatureLevel { .. }
        | Command::SetPlacement(_)
        | Command::SetTime { .. }
        | Command::MarkBucket { .. }
        | Command::Group(_) => Err(Error::Refused {
            reason: "an agent does not propose such a command".to_owned(),
        }),
    }
}

/// What the proposer of a command is told once it is applied.
pub fn conclude(state: &State, reply: Reply) -> Result<Return, Error> {
    match reply {
        Reply::Done | Reply::Topic { .. } => Ok(Return::Done),
        Reply::TopicRefused(refusal) => Err(Error::Topic(refusal)),
        Reply::Registered { agent, incarnation } => {
            let cluster_id = state.cluster_id().to_owned();
            Ok(Return::Registered(Registered {
                agent,
                incarnation,
                cluster_id,
            }))
        }
        Reply::File(reply) => Ok(Return::File(reply)),
        Reply::Producer { id, epoch } => Ok(Return::Producer { id, epoch }),
        Reply::Forgotten { refused } => forgotten(&refused),
        Reply::Refused(refusal) => Err(Error::Refused {
            reason: refusal.to_string(),
        }),
        other @ (Reply::Housekept { .. } | Reply::Group(_)) => Err(Error::Unknown {
            reason: format!("a reply to another command: {other:?}"),
        }),
    }
}

/// What the proposer of `FilesDeleted` is told. A file that an earlier command has forgotten is
/// dead: a report that is repeated because its answer was lost succeeds.
fn forgotten(refused: &[(FileRef, Fate)]) -> Result<Return, Error> {
    let kept = refused
        .iter()
        .filter(|(_, fate)| *fate != Fate::Dead)
        .count();
    if kept == 0 {
        return Ok(Return::Done);
    }
    Err(Error::Refused {
        reason: format!("{kept} files are not ready to be forgotten"),
    })
}

/// What the proposer of a command is told, or whoever waits for a barrier, if it is not appended; `claim` is the slot of the last
/// claim that is known.
pub fn failed(state: &State, claim: u64, error: ProposeError) -> Error {
    match error {
        ProposeError::Unknown(reason) => Error::Unknown { reason },
        ProposeError::Definite(Refusal::Busy) => Error::Busy,
        ProposeError::Definite(Refusal::NotLeader { leader }) => Error::NotLeader {
            leader: leader.map(|name| {
                let mut nodes = state.control_nodes();
                let found = nodes.find(|node| node.claims_as == name);
                Leader {
                    address: found.map(|node| node.address.clone()),
                    name,
                    claim,
                }
            }),
        },
        ProposeError::Definite(refusal @ Refusal::TooLarge { .. }) => Error::Refused {
            reason: refusal.to_string(),
        },
        ProposeError::Definite(refusal @ (Refusal::Expired | Refusal::Halted(_))) => {
            Error::Unavailable {
                reason: refusal.to_string(),
            }
        }
    }
}

fn check(state: &State, command: &Command) -> Result<Return, Error> {
    let checked = match command {
        Command::CreateTopic(request) => state.check_create_topic(request),
        Command::CreatePartitions { id, total } => state.check_create_partitions(*id, *total),
        _ => {
            return Err(Error::Refused {
                reason: "only new topics and partitions are checked beforehand".to_owned(),
            });
        }
    };
    checked.map(|()| Return::Done).map_err(Error::Topic)
}

#[cfg(test)]
mod tests;
