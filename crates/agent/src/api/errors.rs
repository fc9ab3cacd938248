//! Turns what other parts report into Kafka's error codes. A definite failure may be final; a failure
//! whose outcome is unknown always gets a code that clients retry. It must not know single messages:
//! what is wrong with a request itself gets its code where that is noticed, and so does a failure that
//! one kind of request tells in a way of its own.

use meta::commit::BatchOutcome;
use meta::group::Refusal;
use meta::refusal::TopicRefusal;
use rpc::group::GroupError;
use wire::batch::BatchError;
use wire::errors::ErrorCode;

use crate::data::cache::LoadError;
use crate::data::produce::Failure;

/// The code for a failed call about topics, offsets or producers. NOT_CONTROLLER makes admin
/// clients ask again; REQUEST_TIMED_OUT says that the outcome is not known.
pub(crate) fn of_call(error: &rpc::Error) -> ErrorCode {
    match error {
        rpc::Error::NotLeader { .. } | rpc::Error::Busy | rpc::Error::Unavailable { .. } => {
            ErrorCode::NotController
        }
        rpc::Error::Unknown { .. } => unknown_outcome(),
        rpc::Error::Topic(refusal) => of_topic(refusal),
        rpc::Error::Refused { .. } => ErrorCode::InvalidRequest,
    }
}

/// The code for a read that no current state could answer: consumers ask again, and look for
/// another leader first.
pub(crate) fn of_read(error: &rpc::Error) -> ErrorCode {
    match error {
        rpc::Error::Refused { .. } => ErrorCode::UnknownServerError,
        _ => ErrorCode::NotLeaderOrFollower,
    }
}

/// The code for a request to a group's coordinator that got no answer.
pub(crate) fn of_coordinator(error: &rpc::Error) -> ErrorCode {
    match error {
        rpc::Error::NotLeader { .. } => ErrorCode::NotCoordinator,
        rpc::Error::Busy | rpc::Error::Unavailable { .. } | rpc::Error::Unknown { .. } => {
            ErrorCode::CoordinatorNotAvailable
        }
        rpc::Error::Topic(_) | rpc::Error::Refused { .. } => ErrorCode::InvalidRequest,
    }
}

/// The code for a failed InitProducerId: producers repeat it on these codes only.
pub(crate) fn of_init_producer(error: &rpc::Error) -> ErrorCode {
    match error {
        rpc::Error::Refused { .. } => ErrorCode::InvalidProducerEpoch,
        _ => ErrorCode::CoordinatorNotAvailable,
    }
}

/// The outcome of one batch in a committed file: its offset and the partition's log start, or the
/// code that says why it has none. A retry gets the offset of the original (Kafka's
/// ProducerStateEntry.findDuplicateBatch).
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
        // Nothing was written, so the same code as in `of_failure`.
        BatchOutcome::TooManyProducers => Err(ErrorCode::NotLeaderOrFollower),
    }
}

/// The code for a produce request without an outcome. NOT_LEADER_OR_FOLLOWER if certainly nothing
/// was written: of the retriable codes it is the one that every client repeats (sarama does not
/// repeat KAFKA_STORAGE_ERROR) and that librdkafka takes as "not persisted". REQUEST_TIMED_OUT if
/// it may have been written: clients repeat it and count it as possibly persisted.
pub(crate) fn of_failure(failure: Failure) -> ErrorCode {
    if failure.is_definite() {
        ErrorCode::NotLeaderOrFollower
    } else {
        unknown_outcome()
    }
}

/// The code for what may have been done and may not.
pub(crate) fn unknown_outcome() -> ErrorCode {
    if host::trial::leaves_out("unknown-is-definite") {
        return ErrorCode::NotLeaderOrFollower;
    }
    ErrorCode::RequestTimedOut
}

/// The code for a batch whose checks failed.
pub(crate) fn of_batch(error: BatchError) -> ErrorCode {
    error.code()
}

/// The code for records that could not be loaded.
pub(crate) fn of_load(error: &LoadError) -> ErrorCode {
    match error {
        LoadError::Corrupt(_) => ErrorCode::CorruptMessage,
        LoadError::Missing | LoadError::Unavailable(_) | LoadError::NoRoom | LoadError::Asked => {
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

/// The code for an error of a group's coordinator.
pub(crate) fn of_group(error: GroupError) -> ErrorCode {
    match error {
        GroupError::Refused(refusal) => of_group_refusal(refusal),
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::TooLarge => ErrorCode::UnknownServerError,
        GroupError::NoRoom | GroupError::AnswerFull => ErrorCode::CoordinatorLoadInProgress,
        GroupError::UnknownTopicId => ErrorCode::UnknownTopicId,
    }
}

/// The code for committed offsets that could not be read just now. On NOT_COORDINATOR librdkafka looks the coordinator up,
/// finds this agent again, and never asks for the offsets again, so that the member reads nothing; Java takes
/// COORDINATOR_NOT_AVAILABLE for final here (OffsetFetchResponseHandler). All ask again after COORDINATOR_LOAD_IN_PROGRESS.
pub(crate) fn of_offset_fetch(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
            ErrorCode::CoordinatorLoadInProgress
        }
        code => code,
    }
}

fn of_group_refusal(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::UnknownMemberId => ErrorCode::UnknownMemberId,
        Refusal::IllegalGeneration => ErrorCode::IllegalGeneration,
        Refusal::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        Refusal::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        Refusal::FencedInstanceId => ErrorCode::FencedInstanceId,
        // The client looks the coordinator up again, and finds another agent, or this one in its next run.
        Refusal::AgentFenced => ErrorCode::NotCoordinator,
        Refusal::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        Refusal::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        Refusal::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        Refusal::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        Refusal::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
    }
}

/// Checks the leader epoch that a client sends: every partition has the same one. -1 asks for no
/// check.
pub(crate) fn of_leader_epoch(current_leader_epoch: i32) -> ErrorCode {
    match current_leader_epoch {
        -1 | meta::LEADER_EPOCH => ErrorCode::None,
        older if older < meta::LEADER_EPOCH => ErrorCode::FencedLeaderEpoch,
        _ => ErrorCode::UnknownLeaderEpoch,
    }
}
