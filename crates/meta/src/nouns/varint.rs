//! Numbers in as few bytes as they need, as protobuf's varints. It must not know what they count.

pub(crate) fn put(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Takes a number from the front; `None`, and nothing is taken, unless it is there and written as
/// [`put`] writes it.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (first, mut rest) = bytes.split_first()?;
    let (mut value, mut last, mut shift) = (u64::from(first & 0x7f), *first, 7);
    while last >= 0x80 {
        let (next, more) = rest.split_first()?;
        // A last byte of 0 could be left out; ten bytes have six bits more than a number.
        if *next == 0 || shift == 63 && *next > 1 {
            return None;
        }
        value |= u64::from(next & 0x7f) << shift;
        (last, rest, shift) = (*next, more, shift + 7);
    }
    *bytes = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_and_has_one_form() {
        for bits in 0..64 {
            for value in [1_u64 << bits, (1_u64 << bits) - 1, u64::MAX >> bits] {
                let (mut bytes, mut known) = (Vec::new(), Vec::new());
                put(value, &mut bytes);
                prost::encoding::encode_varint(value, &mut known);
                assert_eq!(bytes, known);
                let mut rest = bytes.as_slice();
                assert_eq!((take(&mut rest), rest), (Some(value), &[][..]));
                let cut = &bytes[..bytes.len() - 1];
                let mut rest = cut;
                assert_eq!((take(&mut rest), rest), (None, cut));
            }
        }
        let too_much = [&[0xff; 9][..], &[2]].concat();
        let too_long = [&[0xff; 10][..], &[1]].concat();
        for refused in [&[0x80, 0][..], &[0xff, 0x80, 0], &too_much, &too_long] {
            assert_eq!(take(&mut &*refused), None, "{refused:?}");
        }
    }
}
