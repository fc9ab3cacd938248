//! Calls, answers and notices as bytes (docs/formats/rpc.md): their fields, in which order, and the
//! numbers of their kinds. A number that was used once is never used for anything else. It must not
//! know what they mean.

use bytes::Bytes;
use meta::Command;
use meta::commit::{BatchOutcome, FileReply};
use meta::endpoint::Endpoint;
use meta::group::{Join, Joined, JoinedMember, Leaving, Protocol, Refusal, Sync, Synced};
use meta::ids::{AgentId, FileId, Incarnation, PartitionId, ProducerId, TopicId};
use meta::level::{Level, TooNew};
use meta::places::{Bounds, TimeQuery};
use meta::places::{Fate, FileRef, Located, SlicePlace, StoredFile, StoredFiles, WantedFiles};
use meta::refusal::TopicRefusal;
use meta::view::{Agent, Topic, ViewChange};

use crate::call::{Answer, Call, Locate, Registered, Return};
use crate::error::{Error, Leader};
use crate::group::{
    CommitOffsets, CommitPartition, DescribedGroup, DescribedMember, FetchGroup, FetchedGroup,
    FetchedPartition, FetchedTopic, GroupError, GroupReply, GroupRequest, Heartbeat, JoinGroup,
    JoinRefusal, JoinedGroup, ListedGroup, TopicName,
};
use crate::growth::{Growth, JournalEntry};
use crate::notice::{Notice, Told};
use crate::part::Wanted;
use crate::peer::{
    Condition, Follower, HeardAgent, HeardFollower, Named, PeerRequest, Progress, Reason, Roster,
};
use crate::position::Position;

use value::{Reader, Value, Writer, fields, numbered, variants};

pub use value::Malformed;

#[cfg(test)]
mod tests;
mod value;

pub fn encode_call(level: &'static Level, call: &Call) -> Result<Vec<u8>, TooNew> {
    encode(level, call)
}

pub fn decode_call(message: Bytes) -> Result<Call, Malformed> {
    decode(message)
}

pub fn encode_answer(
    level: &'static Level,
    answer: &Result<Answer, Error>,
) -> Result<Vec<u8>, TooNew> {
    encode(level, answer)
}

pub fn decode_answer(message: Bytes) -> Result<Result<Answer, Error>, Malformed> {
    decode(message)
}

pub fn encode_told(level: &'static Level, told: &Told) -> Result<Vec<u8>, TooNew> {
    encode(level, told)
}

pub fn decode_told(message: Bytes) -> Result<Told, Malformed> {
    decode(message)
}

pub fn encode_growth(level: &'static Level, growth: &Growth) -> Result<Vec<u8>, TooNew> {
    encode(level, growth)
}

pub fn decode_growth(message: Bytes) -> Result<Growth, Malformed> {
    decode(message)
}

pub fn encode_wanted(level: &'static Level, wanted: &Wanted) -> Result<Vec<u8>, TooNew> {
    encode(level, wanted)
}

pub fn decode_wanted(message: Bytes) -> Result<Wanted, Malformed> {
    decode(message)
}

/// What `level` does not have cannot be sent: whoever reads it may not know it yet.
fn encode(level: &'static Level, value: &impl Value) -> Result<Vec<u8>, TooNew> {
    let mut message = Writer::new(level);
    value.put(&mut message);
    message.end()
}

fn decode<T: Value>(message: Bytes) -> Result<T, Malformed> {
    let mut reader = Reader::new(message);
    let value = T::take(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// A command has the form that it has in the journal (docs/formats/commands.md).
impl Value for Command {
    fn put(&self, to: &mut Writer) {
        match self.encode(to.level) {
            Ok(bytes) => Bytes::from(bytes).put(to),
            Err(too_new) => to.refuse(too_new),
        }
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        Command::decode(&Bytes::take(from)?).map_err(|_| Malformed::Command)
    }
}

numbered!(
    AgentId,
    Incarnation,
    PartitionId,
    Position,
    ProducerId,
    TopicId
);

variants! {
    Call {
        1 = Propose(command),
        2 = Check(command),
        3 = Barrier,
        4 = View { known, at },
        5 = Locate { wanted, at },
        6 = Bounds(partitions),
        7 = FindTime { partition, query, at },
        8 = Collectable { bucket, limit },
        9 = Fates(files),
        10 = Group(request),
        11 = Present { incarnation, buckets, version },
        12 = Heartbeats(members),
        13 = Peer(request),
        14 = WhoLeads,
        15 = Short { bucket, after, limit },
        16 = Stored(wanted),
    }
    PeerRequest {
        1 = Name,
        2 = Follows(follower),
        3 = Succeed { claim, reason, given_up },
        4 = Asked,
        5 = Condition,
        6 = CanStore,
        7 = Progress { slot },
    }
    Reason {
        1 = Ended,
        2 = ClockWrong,
        3 = Unreached,
        4 = Preferred,
        5 = Faster,
        6 = StoresNothing,
    }
    Return {
        1 = Done,
        2 = Registered(registered),
        3 = File(reply),
        4 = Producer { id, epoch },
        5 = View(view),
        6 = Located(located),
        7 = Bounds(bounds),
        8 = Place(place),
        9 = Collectable(files),
        10 = Fates(fates),
        11 = Group(reply),
        12 = Heartbeats(results),
        13 = Named(named),
        14 = Asked(is_asked),
        15 = Condition(condition),
        16 = OneIsLost,
        17 = Short { wall_millis, files },
        18 = Roster(roster),
        19 = CanStore(is_able),
        20 = Progress(progress),
        21 = Stored(files),
    }
    Error {
        1 = NotLeader { leader },
        2 = Busy,
        3 = Unavailable { reason },
        4 = Unknown { reason },
        5 = Topic(refusal),
        6 = Refused { reason },
    }
    Notice {
        1 = Advanced { partition, high_watermark, place },
        2 = LogStart { partition, log_start },
        3 = View { version },
        4 = Anything,
    }
    TopicRefusal {
        1 = Exists { name },
        2 = Unknown,
        3 = InvalidName { reason },
        4 = InvalidPartitions { reason },
        5 = InvalidConfig { reason },
        6 = Policy { reason },
    }
    WantedFiles { 1 = File(file), 2 = LastIn { bucket }, 3 = In { bucket, after } }
    TimeQuery { 1 = AtOrAfter(time), 2 = Largest }
    Located {
        1 = Found { log_start, high_watermark, places },
        2 = OutOfRange { log_start, high_watermark },
        3 = UnknownPartition,
    }
    Fate { 1 = Live, 2 = Tombstoned, 3 = Undecided, 4 = Dead }
    FileReply {
        1 = Committed { outcomes },
        2 = Skipped,
        3 = Decided,
        4 = Gap { expected },
        5 = Fenced,
        6 = UnknownIncarnation,
        7 = PlacementRefused,
        8 = Malformed,
    }
    BatchOutcome {
        1 = Accepted { base_offset, log_start },
        2 = Duplicate { base_offset, log_start },
        3 = DuplicateSequence,
        4 = OutOfOrder,
        5 = InvalidProducerEpoch,
        6 = UnknownPartition,
        7 = OffsetsExhausted,
        8 = TooManyProducers,
    }
    GroupRequest {
        1 = Join(join),
        2 = Sync { group, sync },
        3 = Heartbeat(heartbeat),
        4 = Leave { group, members },
        5 = Commit(commit),
        6 = Fetch(groups),
        7 = Describe(groups),
        8 = List(states),
    }
    GroupReply {
        1 = Join(result),
        2 = Sync(result),
        3 = Heartbeat(result),
        4 = Leave(result),
        5 = Commit(results),
        6 = Fetch(groups),
        7 = Describe(result),
        8 = List(result),
    }
    GroupError {
        1 = Refused(refusal),
        2 = NotCoordinator,
        3 = CoordinatorNotAvailable,
        4 = InvalidGroupId,
        5 = InvalidSessionTimeout,
        6 = MemberIdRequired,
        7 = NoRoom,
        8 = TooLarge,
        9 = AnswerFull,
        10 = UnknownTopicId,
    }
    Refusal {
        1 = UnknownMemberId,
        2 = IllegalGeneration,
        3 = InconsistentGroupProtocol,
        4 = RebalanceInProgress,
        5 = FencedInstanceId,
        6 = GroupMaxSizeReached,
        7 = GroupIdNotFound,
        8 = NonEmptyGroup,
        9 = OffsetMetadataTooLarge,
        10 = UnknownTopicOrPartition,
        11 = AgentFenced,
    }
    TopicName { 1 = Name(name), 2 = Id(id) }
}

fields! {
    Answer { at, value }
    Named { name, nonce, is_registered }
    Progress { name, version, applied }
    Follower { nonce, version, applied, current_millis_ago }
    Roster { leader, version, listens_millis, agents, followers }
    HeardAgent { incarnation, version, silent_millis }
    HeardFollower { said, silent_millis, entries_behind }
    Condition { wall_millis, is_clock_wrong, commit_micros }
    Told { from, to, age_millis, notices }
    Growth { to, entries }
    JournalEntry { at, bytes }
    Leader { name, address, claim }
    Wanted { partition, place }
    Locate { partition, offset, max_bytes }
    Bounds { log_start, high_watermark }
    Registered { agent, incarnation, cluster_id }
    ViewChange { version, level, whole, topics, deleted, agents, cluster_configs }
    Agent { id, name, listeners, region, zone, neighbour_address, level, incarnation, drains, cut_off }
    Endpoint { host, port }
    Topic { id, name, partitions, configs, replication_factor, version }
    FileId { incarnation, number }
    FileRef { file, nonce }
    StoredFile { committed_wall_millis, file, length, checksum, held, is_held_enough }
    StoredFiles { files, more_after, suspects }
    SlicePlace {
        file, nonce, file_length, position, length, base_offset, last_offset, max_timestamp
    }
    JoinGroup { group, join, fresh_member, id_required }
    Join {
        member, admitted, instance, client_id, client_host, session_timeout_millis,
        rebalance_timeout_millis, protocol_type, protocols, can_skip_assignment, members_max
    }
    Protocol { name, metadata }
    JoinedGroup { member, joined }
    Joined { generation, protocol_type, protocol, leader, skip_assignment, members }
    JoinedMember { member, instance, metadata }
    JoinRefusal { error, member }
    Sync { member, instance, generation, protocol_type, protocol, assignments }
    Synced { protocol_type, protocol, assignment }
    Heartbeat { group, member, instance, generation }
    Leaving { member, instance }
    CommitOffsets { group, by, member, instance, generation, topics }
    CommitPartition { partition, offset, leader_epoch, metadata }
    FetchGroup { group, topics }
    FetchedGroup { group, topics }
    FetchedTopic { topic, id, partitions }
    FetchedPartition { partition, offset, leader_epoch, metadata, error }
    DescribedGroup { group, error, exists, state, protocol_type, protocol, members }
    DescribedMember { member, instance, client_id, client_host, metadata, assignment }
    ListedGroup { group, protocol_type, state }
}
