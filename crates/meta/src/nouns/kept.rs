//! What is remembered of an incarnation's last numbers, so that a repeated commit gets its first
//! outcome. It must not know how outcomes are decided.

use bytes::Bytes;

use super::varint;
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
    bytes: Bytes,
    len: usize,
}

impl Packed {
    pub(crate) fn new(outcomes: &[BatchOutcome]) -> Self {
        let mut bytes = Vec::with_capacity(outcomes.len().saturating_mul(6));
        for outcome in outcomes {
            varint::put(u64::from(outcome.code()), &mut bytes);
            if let Some((base_offset, log_start)) = outcome.offsets() {
                varint::put(base_offset.cast_unsigned(), &mut bytes);
                varint::put(log_start.cast_unsigned(), &mut bytes);
            }
        }
        Packed {
            bytes: bytes.into_boxed_slice().into(),
            len: outcomes.len(),
        }
    }

    /// Reads the bytes that [`Packed::bytes`] gives; `None` for any others.
    pub(crate) fn read(bytes: Bytes) -> Option<Self> {
        let (mut rest, mut len) = (&*bytes, 0);
        while !rest.is_empty() {
            take(&mut rest)?;
            len += 1;
        }
        Some(Packed { bytes, len })
    }

    /// The outcomes as bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = BatchOutcome> + '_ {
        let mut rest: &[u8] = &self.bytes;
        (0..self.len).map_while(move |_| take(&mut rest))
    }
}

/// Takes an outcome from the front.
fn take(rest: &mut &[u8]) -> Option<BatchOutcome> {
    let code = u32::try_from(varint::take(rest)?).ok()?;
    BatchOutcome::from_code(code, || {
        let mut offset = || i64::try_from(varint::take(rest)?).ok();
        Some((offset()?, offset()?))
    })
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
        assert_eq!(Packed::read(packed.bytes().clone()), Some(packed.clone()));
        let whole = packed.bytes();
        assert_eq!(
            Packed::read(whole.slice(..whole.len() - 2)).map(|p| p.len()),
            Some(7)
        );
        assert_eq!(Packed::read(whole.slice(..11)), None, "an offset is cut");
        assert_eq!(Packed::read(Bytes::from_static(&[8])), None);
        assert_eq!(Packed::new(&[]).iter().count(), 0);
    }
}
