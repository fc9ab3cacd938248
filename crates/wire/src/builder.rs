//! Builds record batches: for producers, tests and load generators.
//!
//! It has no clock: timestamps are the caller's.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{HEADER_BYTES, write_checksum};
use crate::compression::{Compression, compress};
use crate::varint;

/// Gathers records into one batch of format 2. Null is None; a header's value may be null too.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    compression: Compression,
    is_transactional: bool,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    count: i32,
    payload: BytesMut,
}

/// A header to be written: key and value.
pub type HeaderRef<'a> = (&'a str, Option<&'a [u8]>);

impl BatchBuilder {
    /// An empty batch of a producer without id.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            is_transactional: false,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            base_timestamp_ms: -1,
            max_timestamp_ms: -1,
            count: 0,
            payload: BytesMut::new(),
        }
    }

    /// Names the idempotent producer and the sequence number of the first record.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Makes the batch part of the producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.is_transactional = true;
        self
    }

    /// Appends a record; `timestamp_ms` in milliseconds since 1970.
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) {
        if self.count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        let timestamp_delta = self.timestamp_delta(timestamp_ms);
        let offset_delta = i64::from(self.count);
        let length = self.body_bytes(timestamp_delta, key, value, headers);
        let out = &mut self.payload;
        varint::write(out, length as i64);
        out.put_u8(0);
        varint::write(out, timestamp_delta);
        varint::write(out, offset_delta);
        write_bytes(out, key);
        write_bytes(out, value);
        varint::write(out, headers.len() as i64);
        for (key, value) in headers {
            write_bytes(out, Some(key.as_bytes()));
            write_bytes(out, *value);
        }
        self.count += 1;
    }

    /// Bytes that [`append`](Self::append) of this record would add now, before compression,
    /// overhead included.
    pub fn record_bytes(
        &self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) -> usize {
        let body = self.body_bytes(self.timestamp_delta(timestamp_ms), key, value, headers);
        varint::length(body as i64) + body
    }

    /// The record's timestamp relative to the batch's base, which the first record sets.
    fn timestamp_delta(&self, timestamp_ms: i64) -> i64 {
        match self.count {
            0 => 0,
            _ => timestamp_ms.wrapping_sub(self.base_timestamp_ms),
        }
    }

    /// Bytes of the next record after its own length.
    fn body_bytes(
        &self,
        timestamp_delta: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) -> usize {
        let headers_length: usize = headers
            .iter()
            .map(|(key, value)| bytes_length(Some(key.as_bytes())) + bytes_length(*value))
            .sum();
        1 + varint::length(timestamp_delta)
            + varint::length(i64::from(self.count))
            + bytes_length(key)
            + bytes_length(value)
            + varint::length(headers.len() as i64)
            + headers_length
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    /// Bytes of the batch so far, before compression.
    pub fn length_bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// The batch, at base offset 0.
    pub fn build(self) -> Bytes {
        let payload = match self.compression {
            Compression::None => self.payload.freeze(),
            codec => compress(codec, &self.payload),
        };
        let transactional = if self.is_transactional { 1 << 4 } else { 0 };
        let mut out = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        out.put_i64(0);
        out.put_i32((HEADER_BYTES - 12 + payload.len()) as i32);
        out.put_i32(-1);
        out.put_i8(2);
        out.put_u32(0);
        out.put_i16(self.compression as i16 | transactional);
        out.put_i32(self.count - 1);
        out.put_i64(self.base_timestamp_ms);
        out.put_i64(self.max_timestamp_ms);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.count);
        out.put_slice(&payload);
        write_checksum(&mut out);
        out.freeze()
    }
}

fn bytes_length(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| varint::length(value.len() as i64) + value.len())
}

fn write_bytes(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => varint::write(out, -1),
        Some(value) => {
            varint::write(out, value.len() as i64);
            out.put_slice(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_what_was_said_before() {
        let mut builder = BatchBuilder::new(Compression::None);
        let long = vec![b'x'; 100_000];
        let headers: [HeaderRef<'_>; 2] = [("h", None), ("i", Some(b"v"))];
        for number in 0..200_i64 {
            let timestamp_ms = 1_700_000_000_000 + number * number * 1_000;
            let key = (number % 2 == 0).then_some(b"key".as_slice());
            let value = if number % 50 == 0 {
                long.as_slice()
            } else {
                b""
            };
            let headers = if number % 3 == 0 { &headers[..] } else { &[] };
            let before = builder.length_bytes();
            let said = builder.record_bytes(timestamp_ms, key, Some(value), headers);
            builder.append(timestamp_ms, key, Some(value), headers);
            assert_eq!(builder.length_bytes(), before + said, "record {number}");
        }
        let bytes = builder.length_bytes();
        assert_eq!(builder.build().len(), bytes);
    }
}
