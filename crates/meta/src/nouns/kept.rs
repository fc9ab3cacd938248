//! What is remembered of an incarnation's last numbers, so that a repeated commit gets its first
//! outcome. It must not know how outcomes are decided.

use prost::encoding::{decode_varint, encode_varint};

use crate::terms::outcome::BatchOutcome;

/// The remembered decision about a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Skipped,
    Committed {
        nonce: u32,
        length: u64,
        checksum: u32,
        outcomes: Packed,
    },
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
