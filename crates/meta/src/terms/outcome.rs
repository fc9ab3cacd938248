//! What became of batches. It must not know how it was decided.

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    Accepted {
        /// The offset of its first record.
        base_offset: i64,
        /// The partition's first offset then.
        log_start: i64,
    },
    /// The same batch had been appended before.
    Duplicate {
        /// The offset of its first record there.
        base_offset: i64,
        /// The partition's first offset then.
        log_start: i64,
    },
    /// All its records had been appended before, longer ago than their offset is remembered:
    /// Kafka's DUPLICATE_SEQUENCE_NUMBER.
    DuplicateSequence,
    /// Sequences before it are missing: OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrder,
    /// The producer has a newer epoch: INVALID_PRODUCER_EPOCH.
    InvalidProducerEpoch,
    /// There is no such partition, or no more.
    UnknownPartition,
    /// The partition has no offsets left for it.
    OffsetsExhausted,
    /// Nothing is remembered of its producer, and as many as may be are (`producer.ids.max`):
    /// certainly not appended.
    TooManyProducers,
}

impl BatchOutcome {
    /// Its number in snapshots and digests.
    pub(crate) fn code(&self) -> u32 {
        match self {
            BatchOutcome::Accepted { .. } => 0,
            BatchOutcome::Duplicate { .. } => 1,
            BatchOutcome::DuplicateSequence => 2,
            BatchOutcome::OutOfOrder => 3,
            BatchOutcome::InvalidProducerEpoch => 4,
            BatchOutcome::UnknownPartition => 5,
            BatchOutcome::OffsetsExhausted => 6,
            BatchOutcome::TooManyProducers => 7,
        }
    }

    /// Base offset and log start of those outcomes that have them.
    pub(crate) fn offsets(&self) -> Option<(i64, i64)> {
        match *self {
            BatchOutcome::Accepted {
                base_offset,
                log_start,
            }
            | BatchOutcome::Duplicate {
                base_offset,
                log_start,
            } => Some((base_offset, log_start)),
            _ => None,
        }
    }

    /// The outcome of a number; `offsets` gives base offset and log start to those that have them.
    pub(crate) fn from_code(
        code: u32,
        offsets: impl FnOnce() -> Option<(i64, i64)>,
    ) -> Option<Self> {
        Some(match code {
            0 => {
                let (base_offset, log_start) = offsets()?;
                BatchOutcome::Accepted {
                    base_offset,
                    log_start,
                }
            }
            1 => {
                let (base_offset, log_start) = offsets()?;
                BatchOutcome::Duplicate {
                    base_offset,
                    log_start,
                }
            }
            2 => BatchOutcome::DuplicateSequence,
            3 => BatchOutcome::OutOfOrder,
            4 => BatchOutcome::InvalidProducerEpoch,
            5 => BatchOutcome::UnknownPartition,
            6 => BatchOutcome::OffsetsExhausted,
            7 => BatchOutcome::TooManyProducers,
            _ => return None,
        })
    }
}
