//! What became of batches, and how that is kept for repeats. It must not know how it was decided.

use prost::encoding::{decode_varint, encode_varint};

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

/// Outcomes, packed: they are kept for every file that an agent committed lately, and seldom
/// read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Per outcome its code, and if it has them base offset and log start, as varints.
    bytes: Box<[u8]>,
    len: usize,
}

impl Packed {
    pub(crate) fn new(outcomes: &[BatchOutcome]) -> Self {
        let mut bytes = Vec::with_capacity(outcomes.len().saturating_mul(6));
        for outcome in outcomes {
            encode_varint(u64::from(outcome.code()), &mut bytes);
            if let Some((base_offset, log_start)) = outcome.offsets() {
                encode_varint(base_offset.cast_unsigned(), &mut bytes);
                encode_varint(log_start.cast_unsigned(), &mut bytes);
            }
        }
        Packed {
            bytes: bytes.into(),
            len: outcomes.len(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = BatchOutcome> + '_ {
        let mut rest: &[u8] = &self.bytes;
        (0..self.len).map_while(move |_| {
            let code = u32::try_from(decode_varint(&mut rest).ok()?).ok()?;
            BatchOutcome::from_code(code, || {
                let base_offset = decode_varint(&mut rest).ok()?.cast_signed();
                let log_start = decode_varint(&mut rest).ok()?.cast_signed();
                Some((base_offset, log_start))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        let outcomes = [
            BatchOutcome::Accepted {
                base_offset: 0,
                log_start: 0,
            },
            BatchOutcome::Accepted {
                base_offset: i64::MAX - 1,
                log_start: 300,
            },
            BatchOutcome::Duplicate {
                base_offset: 128,
                log_start: 127,
            },
            BatchOutcome::DuplicateSequence,
            BatchOutcome::OutOfOrder,
            BatchOutcome::InvalidProducerEpoch,
            BatchOutcome::UnknownPartition,
            BatchOutcome::OffsetsExhausted,
            BatchOutcome::TooManyProducers,
        ];
        let packed = Packed::new(&outcomes);
        assert_eq!(packed.len(), outcomes.len());
        assert!(packed.iter().eq(outcomes));
        assert_eq!(Packed::new(&[]).iter().count(), 0);
    }
}
