//! Compresses a batch anew, as a topic's `compression.type` has it. Its records go from one codec
//! into the other as they come: in memory are the codecs' windows, and what comes out in the end.

use std::io::{self, BufReader, Read, Write};
use std::ops::RangeInclusive;

use bytes::BytesMut;

use crate::batch::Batch;
use crate::compression::{Compression, Compressor, Decompressor, Limits, decompressor};
use crate::records::RecordError;
use crate::scan::Scan;

/// The batch with its records in another codec, and at most `limit_bytes` large. Its records must be
/// as [`check_records`](crate::scan::check_records) has them; its largest timestamp is theirs. What
/// comes out of their codec is taken off the limits.
pub fn recompress(
    batch: &Batch,
    wanted: Compression,
    times: &RangeInclusive<i64>,
    limits: &mut Limits,
    limit_bytes: usize,
) -> Result<Batch, RecordError> {
    let codec = batch.compression()?;
    let payload = batch.payload();
    let out = Bounded {
        bytes: batch.header().into(),
        limit_bytes,
    };
    let too_large = |_| RecordError::TooLarge { limit_bytes };
    let copied = Copied {
        input: decompressor(codec, &payload, *limits)?,
        output: Compressor::new(wanted, out).map_err(too_large)?,
        is_full: false,
    };
    let mut scan = Scan::new(batch, codec, BufReader::new(copied));
    let checked = scan.check(times);
    let max_timestamp_ms = scan.max_timestamp_ms();
    let copied = scan.into_input().into_inner();
    limits.out_bytes = copied.input.left_bytes();
    if copied.is_full {
        return Err(RecordError::TooLarge { limit_bytes });
    }
    checked?;
    let out = copied.output.finish().map_err(too_large)?;
    Ok(Batch::rewritten(out.bytes, wanted, max_timestamp_ms))
}

/// Copies into a codec what is read from another.
struct Copied<'a, W: Write> {
    input: Decompressor<'a>,
    output: Compressor<W>,
    /// The output is at its limit.
    is_full: bool,
}

impl<W: Write> Read for Copied<'_, W> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(out)?;
        let copied = self.output.write_all(&out[..read]);
        self.is_full = copied.is_err();
        copied.map(|()| read)
    }
}

/// Bytes up to a limit.
struct Bounded {
    bytes: BytesMut,
    limit_bytes: usize,
}

impl Write for Bounded {
    fn write(&mut self, input: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + input.len() > self.limit_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(input);
        Ok(input.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
