//! Recompresses a batch into the codec that a topic's `compression.type` demands. Records stream
//! from one codec into the other: only the codecs' windows and the result are in memory.

use std::io::{self, BufReader, Read, Write};
use std::ops::RangeInclusive;

use bytes::BytesMut;

use crate::batch::Batch;
use crate::compression::{Compression, Compressor, Decompressor, Limits, decompressor};
use crate::records::RecordError;
use crate::scan::Scan;

/// The batch with its records in another codec, at most `limit_bytes` large. Its records must pass
/// [`check_records`](crate::scan::check_records), and its largest timestamp be theirs. Decompressed
/// bytes are subtracted from the limits.
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

/// A reader that copies what it reads into another codec.
struct Copied<'a, W: Write> {
    input: Decompressor<'a>,
    output: Compressor<W>,
    /// True once the output has reached its limit.
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

/// A buffer with a largest size.
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
