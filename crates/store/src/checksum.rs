//! CRC-32C (Castagnoli): of bytes, and of a whole from the checksums of its parts without reading
//! them again. It must not know what the bytes are.

use crc_fast::CrcAlgorithm::Crc32Iscsi;

/// The generator polynomial, without its highest term and with the coefficient of x^31 in the
/// lowest bit, as RFC 3720 writes checksums down.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `SQUARES[k]` is x^(2^k) modulo the polynomial; byte counts up to 2^64 need 67 of them.
const SQUARES: [u32; 67] = squares();

/// The CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The CRC-32C of what `checksum` covers followed by `bytes`.
pub fn append(checksum: u32, bytes: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new_with_init_state(Crc32Iscsi, u64::from(!checksum));
    digest.update(bytes);
    // A 32-bit algorithm leaves the upper half empty.
    digest.finalize() as u32
}

/// The CRC-32C of two parts one after the other, from the CRC-32C of each and the length of the
/// second in bytes. Appending n bytes multiplies the first remainder by x^(8n); the product is
/// taken bit by bit here, some hundreds of nanoseconds, where the general routine of the CRC
/// library squares matrices and costs as much as reading a MiB.
pub fn combine(first: u32, second: u32, second_len: u64) -> u32 {
    let mut shifted = first;
    let mut bytes = second_len;
    let mut power = 3; // 8 bits a byte
    while bytes != 0 {
        if bytes & 1 == 1 {
            shifted = multiply(SQUARES[power], shifted);
        }
        bytes >>= 1;
        power += 1;
    }
    shifted ^ second
}

/// The product of two polynomials modulo the generator, both in reflected form.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 {
            (b >> 1) ^ POLYNOMIAL
        } else {
            b >> 1
        };
        bit >>= 1;
    }
    product
}

const fn squares() -> [u32; 67] {
    let mut table = [0; 67];
    table[0] = 1 << 30; // x
    let mut k = 1;
    while k < table.len() {
        table[k] = multiply(table[k - 1], table[k - 1]);
        k += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_standard() {
        // RFC 3720, appendix B.4, and the usual check string.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn parts_combine_to_the_whole() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i * 7) as u8).collect();
        for cut in [0, 1, 21, 4_096, 9_999, 10_000] {
            let (a, b) = bytes.split_at(cut);
            let combined = combine(crc32c(a), crc32c(b), b.len() as u64);
            assert_eq!(combined, crc32c(&bytes), "cut at {cut}");
            assert_eq!(append(crc32c(a), b), crc32c(&bytes), "cut at {cut}");
        }
    }

    #[test]
    fn lengths_beyond_memory_combine() {
        // Appending 2^62 and 2^63 bytes one after the other is the same as both at once.
        let (a, b, c) = (0x1234_5678, 0x9abc_def0, 0x0f1e_2d3c);
        let stepwise = combine(combine(a, b, 1 << 62), c, 1 << 63);
        let grouped = combine(a, combine(b, c, 1 << 63), (1 << 62) + (1 << 63));
        assert_eq!(stepwise, grouped);
    }
}
