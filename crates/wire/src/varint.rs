//! Signed variable-length integers as records use them: zigzag, seven bits a byte, least first.
//!
//! Messages use unsigned ones, which are in `codec`.

use bytes::{BufMut, Bytes, BytesMut};

/// The most bytes that a 64-bit integer takes, and a 32-bit one.
const LONG_BYTES_MAX: usize = 10;
const INT_BYTES_MAX: usize = 5;

/// Reads a 64-bit integer at `at` and moves `at` after it; None if it does not end or is too long.
pub(crate) fn read_i64(input: &Bytes, at: &mut usize) -> Option<i64> {
    read_i64_by(|| take(input, at)).ok()?
}

/// Reads a 32-bit integer as `read_i64` does.
pub(crate) fn read_i32(input: &Bytes, at: &mut usize) -> Option<i32> {
    read_i32_by(|| take(input, at)).ok()?
}

fn take(input: &Bytes, at: &mut usize) -> Result<u8, ()> {
    let byte = input.get(*at).copied().ok_or(());
    *at += 1;
    byte
}

/// Reads a 64-bit integer byte by byte; None if it is too long, an error if the source has one.
pub(crate) fn read_i64_by<E>(next: impl FnMut() -> Result<u8, E>) -> Result<Option<i64>, E> {
    read(LONG_BYTES_MAX, next)
}

/// Reads a 32-bit integer as `read_i64_by` does.
pub(crate) fn read_i32_by<E>(next: impl FnMut() -> Result<u8, E>) -> Result<Option<i32>, E> {
    let value = read(INT_BYTES_MAX, next)?;
    Ok(value.and_then(|value| i32::try_from(value).ok()))
}

fn read<E>(bytes_max: usize, mut next: impl FnMut() -> Result<u8, E>) -> Result<Option<i64>, E> {
    let mut value = 0u64;
    for index in 0..bytes_max {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if index == LONG_BYTES_MAX - 1 && bits > 1 {
            return Ok(None);
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value >> 1) as i64 ^ -((value & 1) as i64)));
        }
    }
    Ok(None)
}

/// The number at the start of `input` and how many bytes it takes, if these are at most two.
#[inline]
pub(crate) fn short(input: &[u8]) -> Option<(i16, usize)> {
    let (bits, bytes) = match *input {
        [only, ..] if only < 0x80 => (u16::from(only), 1),
        [low, high, ..] if high < 0x80 => (u16::from(low & 0x7f) | u16::from(high) << 7, 2),
        _ => return None,
    };
    Some(((bits >> 1) as i16 ^ -((bits & 1) as i16), bytes))
}

pub(crate) fn write(out: &mut BytesMut, value: i64) {
    let mut bits = zigzag(value);
    while bits >= 0x80 {
        out.put_u8(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.put_u8(bits as u8);
}

/// How many bytes `write` writes.
pub(crate) fn length(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_every_length_are_read_back() {
        let powers = (0..64).flat_map(|shift| {
            let power = 1_i64 << shift;
            [power, power.wrapping_sub(1), power.wrapping_neg()]
        });
        for value in powers {
            let mut out = BytesMut::new();
            write(&mut out, value);
            assert_eq!(out.len(), length(value), "{value}");
            let input = out.freeze();
            let mut at = 0;
            assert_eq!(read_i64(&input, &mut at), Some(value));
            assert_eq!(at, input.len());
            let short = short(&input).map(|(short, bytes)| (i64::from(short), bytes));
            assert_eq!(short, (at <= 2).then_some((value, at)));
            for end in 0..input.len() {
                assert_eq!(read_i64(&input.slice(..end), &mut 0), None);
            }
            assert_eq!(read_i32(&input, &mut 0), i32::try_from(value).ok());
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        let beyond = [[0xff; 9].as_slice(), &[0x02]].concat();
        assert_eq!(read_i64(&Bytes::from(beyond), &mut 0), None);
        assert_eq!(read_i64(&Bytes::from_static(&[0xff; 20]), &mut 0), None);
        // Zero, encoded in six bytes.
        let long = Bytes::from_static(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]);
        assert_eq!(read_i64(&long, &mut 0), Some(0));
        assert_eq!(read_i32(&long, &mut 0), None);
    }
}
