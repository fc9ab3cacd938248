//! Checksums over whole batches, computed from the checksums that batches carry, so that no record
//! is read twice. It must not know where batches lie.

use store::checksum::{append, combine, crc32c};
use wire::batch::Batch;

/// The checksum of a batch of this size or more is computed from that of its records; summing a
/// shorter one again takes less time.
const COMBINED_BYTES: usize = 8 << 10;
/// The bytes of a batch before those that its own checksum covers.
const UNCOVERED_BYTES: usize = 21;

/// The checksum of a whole batch, computed from the one that it carries, which was verified; `None`
/// if summing its bytes costs less.
pub(crate) fn known(batch: &Batch) -> Option<u32> {
    let bytes = batch.bytes();
    let uncovered = bytes.get(..UNCOVERED_BYTES)?;
    (bytes.len() >= COMBINED_BYTES).then(|| {
        let covered = (bytes.len() - UNCOVERED_BYTES) as u64;
        combine(crc32c(uncovered), batch.crc(), covered)
    })
}

/// The checksum of what `sum` covers followed by a batch, whose own checksum was verified.
pub(crate) fn append_batch(sum: u32, batch: &Batch) -> u32 {
    match known(batch) {
        Some(whole) => combine(sum, whole, batch.length_bytes() as u64),
        None => append(sum, batch.bytes()),
    }
}

#[cfg(test)]
mod tests {
    use wire::builder::BatchBuilder;
    use wire::compression::Compression;

    use super::*;

    #[test]
    fn it_is_the_checksum_of_the_bytes() {
        for bytes in [1, 5_000, 20_000] {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.append(1, None, Some(&vec![7; bytes]), &[]);
            let mut built = builder.build();
            let batch = Batch::take(&mut built).unwrap().unwrap();
            let expected = crc32c(&[b"before", &batch.bytes()[..]].concat());
            assert_eq!(append_batch(crc32c(b"before"), &batch), expected);
        }
    }
}
