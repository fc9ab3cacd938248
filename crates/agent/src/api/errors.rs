//! Everything that can go wrong, as Kafka's error codes. The only place where codes are chosen:
//! what is definite may be final, what is not known is always something a client repeats. It must
//! not know single messages.

use meta::commit::BatchOutcome;
use meta::group::Refusal;
use meta::terms::refusal::TopicRefusal;
use rpc::group::GroupError;
use wire::batch::BatchError;
use wire::errors::ErrorCode;

use crate::data::cache::LoadError;
use crate::data::produce::Failure;

/// A call about topics, offsets or producers that failed. NOT_CONTROLLER makes admin clients ask
/// again; REQUEST_TIMED_OUT says that nobody knows.
pub(crate) fn of_call(error: &rpc::Error) -> ErrorCode {
    match error {
        rpc::Error::NotLeader { .. } | rpc::Error::Busy | rpc::Error::Unavailable { .. } => {
            ErrorCode::NotController
        }
        rpc::Error::Unknown { .. } => ErrorCode::RequestTimedOut,
        rpc::Error::Topic(refusal) => of_topic(refusal),
        rpc::Error::Refused { .. } => ErrorCode::InvalidRequest,
    }
}

/// A read that could not be answered from something current: consumers ask again, and look for
/// another leader first.
pub(crate) fn of_read(error: &rpc::Error) -> ErrorCode {
    match error {
        rpc::Error::Refused { .. } => ErrorCode::UnknownServerError,
        _ => ErrorCode::NotLeaderOrFollower,
    }
}

/// A request to a coordinator that got no answer.
pub(crate) fn of_coordinator(error: &rpc::Error) -> ErrorCode {
    match error {
        rpc::Error::NotLeader { .. } => ErrorCode::NotCoordinator,
        rpc::Error::Busy | rpc::Error::Unavailable { .. } | rpc::Error::Unknown { .. } => {
            ErrorCode::CoordinatorNotAvailable
        }
        rpc::Error::Topic(_) | rpc::Error::Refused { .. } => ErrorCode::InvalidRequest,
    }
}

/// InitProducerId that failed: producers repeat it on these codes only.
pub(crate) fn of_init_producer(error: &rpc::Error) -> ErrorCode {
    match error {
        rpc::Error::Refused { .. } => ErrorCode::InvalidProducerEpoch,
        _ => ErrorCode::CoordinatorNotAvailable,
    }
}

/// What came of a batch in a file that is committed: its offset and the partition's first one, or
/// why it has none. A retry gets the offset of the original (Kafka's ProducerStateEntry.findDuplicateBatch).
pub(crate) fn of_outcome(outcome: &BatchOutcome) -> Result<(i64, i64), ErrorCode> {
    match outcome {
        BatchOutcome::Accepted {
            base_offset,
            log_start,
        }
        | BatchOutcome::Duplicate {
            base_offset,
            log_start,
        } => Ok((*base_offset, *log_start)),
        BatchOutcome::DuplicateSequence => Err(ErrorCode::DuplicateSequenceNumber),
        BatchOutcome::OutOfOrder => Err(ErrorCode::OutOfOrderSequenceNumber),
        BatchOutcome::InvalidProducerEpoch => Err(ErrorCode::InvalidProducerEpoch),
        BatchOutcome::UnknownPartition => Err(ErrorCode::UnknownTopicOrPartition),
        BatchOutcome::OffsetsExhausted => Err(ErrorCode::InvalidRecord),
        // As what was certainly not written: see `of_failure`.
        BatchOutcome::TooManyProducers => Err(ErrorCode::NotLeaderOrFollower),
    }
}

/// A produce request without an outcome. NOT_LEADER_OR_FOLLOWER for what was certainly not
/// written: of the retriable codes it is the one that every client repeats (sarama does not repeat
/// KAFKA_STORAGE_ERROR) and that librdkafka takes as "not persisted". REQUEST_TIMED_OUT for what
/// may have been written: clients repeat it and count it as possibly persisted.
pub(crate) fn of_failure(failure: Failure) -> ErrorCode {
    if failure.is_definite() {
        ErrorCode::NotLeaderOrFollower
    } else {
        ErrorCode::RequestTimedOut
    }
}

/// A batch that a client may not write.
pub(crate) fn of_batch(error: BatchError) -> ErrorCode {
    error.code()
}

/// Records that cannot be read.
pub(crate) fn of_load(error: &LoadError) -> ErrorCode {
    match error {
        LoadError::Corrupt(_) => ErrorCode::CorruptMessage,
        LoadError::Missing | LoadError::Unavailable(_) | LoadError::NoRoom => {
            ErrorCode::KafkaStorageError
        }
    }
}

/// A change of topics that was refused.
fn of_topic(refusal: &TopicRefusal) -> ErrorCode {
    match refusal {
        TopicRefusal::Exists { .. } => ErrorCode::TopicAlreadyExists,
        TopicRefusal::Unknown => ErrorCode::UnknownTopicOrPartition,
        TopicRefusal::InvalidName { .. } => ErrorCode::InvalidTopicException,
        TopicRefusal::InvalidPartitions { .. } => ErrorCode::InvalidPartitions,
        TopicRefusal::InvalidConfig { .. } => ErrorCode::InvalidConfig,
        TopicRefusal::Policy { .. } => ErrorCode::PolicyViolation,
    }
}

/// What the coordinator of a group says.
pub(crate) fn of_group(error: GroupError) -> ErrorCode {
    match error {
        GroupError::Refused(refusal) => of_group_refusal(refusal),
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::NoRoom => ErrorCode::InvalidCommitOffsetSize,
        GroupError::TooLarge => ErrorCode::UnknownServerError,
        GroupError::AnswerFull => ErrorCode::CoordinatorLoadInProgress,
        GroupError::UnknownTopicId => ErrorCode::UnknownTopicId,
    }
}

fn of_group_refusal(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::UnknownMemberId => ErrorCode::UnknownMemberId,
        Refusal::IllegalGeneration => ErrorCode::IllegalGeneration,
        Refusal::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        Refusal::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        Refusal::FencedInstanceId => ErrorCode::FencedInstanceId,
        Refusal::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        Refusal::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        Refusal::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        Refusal::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        Refusal::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
    }
}

/// Whether the epoch that a client takes for the leader's is the one that every partition has;
/// -1 asks for no check.
pub(crate) fn of_leader_epoch(current_leader_epoch: i32) -> ErrorCode {
    match current_leader_epoch {
        -1 | meta::LEADER_EPOCH => ErrorCode::None,
        older if older < meta::LEADER_EPOCH => ErrorCode::FencedLeaderEpoch,
        _ => ErrorCode::UnknownLeaderEpoch,
    }
}
