//! Compresses a batch anew, as a topic's `compression.type` has it. Its records go from one codec
//! into the other as they come: in memory are the codecs' windows, and what comes out in the end.

use std::io::{self, Read, Write};

use bytes::BytesMut;

use crate::batch::Batch;
use crate::compression::{Compression, Compressor, decompressor};
use crate::records::RecordError;
use crate::scan::Scan;

/// The batch with its records in another codec, and at most `limit_bytes` large. Its records must be
/// laid out as records are, and their number and offset deltas what the header says; its largest
/// timestamp is theirs. For `window_bytes` see [`decompressor`].
pub fn recompress(
    batch: &Batch,
    wanted: Compression,
    window_bytes: usize,
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
        input: decompressor(codec, &payload, window_bytes)?,
        output: Compressor::new(wanted, out).map_err(too_large)?,
        is_full: false,
    };
    let mut scan = Scan::new(batch, codec, copied);
    let checked = check(&mut scan);
    let copied = scan.into_inner();
    if copied.is_full {
        return Err(RecordError::TooLarge { limit_bytes });
    }
    let max_timestamp_ms = checked?;
    let out = copied.output.finish().map_err(too_large)?;
    Ok(Batch::rewritten(out.bytes, wanted, max_timestamp_ms))
}

/// The largest timestamp of records whose offset deltas count up from 0; there must be some.
fn check(scan: &mut Scan<impl Read>) -> Result<i64, RecordError> {
    let mut max_timestamp_ms = None;
    for (index, position) in (0..).zip(scan) {
        let position = position?;
        if position.offset_delta != index {
            return Err(RecordError::OffsetDelta {
                index,
                offset_delta: position.offset_delta,
            });
        }
        max_timestamp_ms = max_timestamp_ms.max(Some(position.timestamp_ms));
    }
    max_timestamp_ms.ok_or(RecordError::CountMismatch)
}

/// Copies into a codec what is read from another.
struct Copied<R, W: Write> {
    input: R,
    output: Compressor<W>,
    /// The output is at its limit.
    is_full: bool,
}

impl<R: Read, W: Write> Read for Copied<R, W> {
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
