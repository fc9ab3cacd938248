//! Frames from a socket, each in memory of its own size, so that the batches in it are slices of it
//! and pin nothing else. Memory is taken from a budget before a frame is read: while there is none
//! the connection is not read. It must not know what is in a frame beyond the number of its API.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use host::budget::Held;
use host::clock::Instant;
use host::net::TcpStream;
use tokio::io::AsyncReadExt;
use wire::messages::ApiKey;

use crate::context::Context;

/// Room for a read when nothing is known of what comes.
const READ_BYTES: usize = 4 << 10;
/// Frames up to this size are expected to be followed by others of the same size, and are read
/// together with their length in one call. Of larger ones the length is read first, since what is
/// read with it must be moved.
const EXPECTED_BYTES_MAX: usize = 64 << 10;
/// A frame's length, and the number of its API, which says whose budget it is.
const PREFIX_BYTES: usize = 6;
/// The length alone.
const LENGTH_BYTES: usize = 4;

/// A frame without its length, and the memory it is given.
pub(super) struct Received {
    pub(super) frame: Bytes,
    pub(super) held: Held,
}

/// Why no more frames come.
pub(super) enum Error {
    /// The client closed the connection.
    Closed,
    /// The socket failed.
    Broken(io::Error),
    /// The client announced what it may not send.
    Refused(String),
}

/// What was read and not yet taken.
pub(super) struct Inbox {
    buffer: BytesMut,
    max_bytes: usize,
    /// The size of the last frame, with its length.
    last_bytes: usize,
    /// The memory for the frame that is being read.
    held: Option<Held>,
    /// When some of that frame came last.
    progress_at: Instant,
    waiting: Option<BoxFuture<'static, Held>>,
}

impl Inbox {
    pub(super) fn new(max_bytes: usize) -> Self {
        Inbox {
            buffer: BytesMut::new(),
            max_bytes,
            last_bytes: READ_BYTES,
            held: None,
            progress_at: host::clock::now(),
            waiting: None,
        }
    }

    /// Since when nothing more has come of a frame that was given memory; `None` if there is none.
    pub(super) fn halted_since(&self) -> Option<Instant> {
        self.held.as_ref().map(|_| self.progress_at)
    }

    /// Begins to count anew: it was not the client who made the frame halt.
    pub(super) fn excuse_halt(&mut self) {
        self.progress_at = host::clock::now();
    }

    /// The next frame.
    pub(super) fn poll(
        &mut self,
        cx: &mut TaskContext<'_>,
        stream: &mut TcpStream,
        context: &Context,
    ) -> Poll<Result<Received, Error>> {
        loop {
            let mut missing = match self.missing() {
                Ok(missing) => missing,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if let Some(length) = self.length() {
                if self.held.is_none() {
                    self.held = Some(ready!(self.hold(cx, length, context)));
                }
                missing = (LENGTH_BYTES + length).saturating_sub(self.buffer.len());
                if missing == 0 {
                    return Poll::Ready(Ok(self.take(length)));
                }
            }
            match self.read(cx, stream, missing) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Error::Closed)),
                Poll::Ready(Ok(_)) => self.progress_at = host::clock::now(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::Broken(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The length of the frame that begins in the buffer, once it can be budgeted for.
    fn length(&self) -> Option<usize> {
        let prefix = self.buffer.first_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(i32::from_be_bytes(*prefix)).ok()?;
        (self.buffer.len() >= PREFIX_BYTES.min(LENGTH_BYTES + length)).then_some(length)
    }

    /// Bytes to read until the frame's length and API are known.
    fn missing(&self) -> Result<usize, Error> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(PREFIX_BYTES - self.buffer.len());
        };
        let length = i32::from_be_bytes(*prefix);
        match usize::try_from(length) {
            Ok(length) if length <= self.max_bytes => {
                // Nothing is read beyond the prefix before there is memory for it.
                let prefix = PREFIX_BYTES.min(LENGTH_BYTES + length);
                Ok(prefix.saturating_sub(self.buffer.len()))
            }
            _ => Err(Error::Refused(format!(
                "a request of {length} bytes; between 0 and {} are allowed",
                self.max_bytes
            ))),
        }
    }

    fn hold(&mut self, cx: &mut TaskContext<'_>, length: usize, context: &Context) -> Poll<Held> {
        if let Some(waiting) = &mut self.waiting {
            let held = ready!(waiting.poll_unpin(cx));
            self.waiting = None;
            return Poll::Ready(held);
        }
        let key = self.buffer.get(LENGTH_BYTES..PREFIX_BYTES);
        let is_produce = key == Some(ApiKey::Produce.code().to_be_bytes().as_slice());
        let budget = if is_produce {
            &context.produce_budget
        } else {
            &context.request_budget
        };
        if let Some(held) = budget.try_hold(length as u64) {
            return Poll::Ready(held);
        }
        let budget = budget.clone();
        self.waiting = Some(async move { budget.hold(length as u64).await }.boxed());
        self.hold(cx, length, context)
    }

    /// Takes the whole frame at the start of the buffer.
    fn take(&mut self, length: usize) -> Received {
        let bytes = LENGTH_BYTES + length;
        self.last_bytes = bytes;
        let frame = if bytes < self.buffer.capacity() / 2 {
            // A slice of a buffer that is much larger than itself would pin all of it.
            let frame = Bytes::copy_from_slice(&self.buffer[LENGTH_BYTES..bytes]);
            self.buffer.advance(bytes);
            frame
        } else {
            let mut frame = self.buffer.split_to(bytes);
            // The little that came of the next frame must not pin this one.
            self.buffer = BytesMut::from(&self.buffer[..]);
            frame.split_off(LENGTH_BYTES).freeze()
        };
        match self.held.take() {
            Some(held) => Received { frame, held },
            None => unreachable!("memory is held before a frame is taken"),
        }
    }

    fn read(
        &mut self,
        cx: &mut TaskContext<'_>,
        stream: &mut TcpStream,
        missing: usize,
    ) -> Poll<io::Result<usize>> {
        self.make_room(missing);
        // Made anew for each poll: it loses nothing when it is dropped.
        let read = pin!(stream.read_buf(&mut self.buffer)).poll(cx);
        if read.is_pending() && self.buffer.is_empty() {
            // An idle connection keeps no buffer.
            self.buffer = BytesMut::new();
        }
        read
    }

    /// Room for the rest of a frame whose length is known, or for as much as is likely to come.
    fn make_room(&mut self, missing: usize) {
        let likely = if self.held.is_some() {
            // The length of the next frame may come with the rest of this one.
            missing + PREFIX_BYTES
        } else if self.last_bytes <= EXPECTED_BYTES_MAX {
            self.last_bytes.max(READ_BYTES) + PREFIX_BYTES
        } else {
            READ_BYTES
        };
        if self.buffer.capacity() - self.buffer.len() >= missing.max(1) {
            return;
        }
        let mut buffer = BytesMut::with_capacity(self.buffer.len() + likely.max(missing));
        buffer.put_slice(&self.buffer);
        self.buffer = buffer;
    }
}
