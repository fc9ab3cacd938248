//! Signed variable-length integers as records use them: zigzag, seven bits a byte, least first.
//!
//! Messages use unsigned ones, which are in `codec`.

use bytes::{BufMut, Bytes, BytesMut};

/// Reads a 64-bit integer at `at` and moves `at` behind it; None if it does not end or is too long.
pub fn read_i64(input: &Bytes, at: &mut usize) -> Option<i64> {
    let mut value = 0u64;
    for (index, byte) in input.get(*at..)?.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            *at += index + 1;
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Reads a 32-bit integer as `read_i64` does; None also if it does not fit.
pub fn read_i32(input: &Bytes, at: &mut usize) -> Option<i32> {
    i32::try_from(read_i64(input, at)?).ok()
}

/// Writes a 32- or 64-bit integer.
pub fn write(out: &mut BytesMut, value: i64) {
    let mut bits = zigzag(value);
    while bits >= 0x80 {
        out.put_u8(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.put_u8(bits as u8);
}

/// Bytes that `write` takes.
pub fn length(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
