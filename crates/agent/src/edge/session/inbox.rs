//! Frames from a socket, each in memory of its own size, so that the batches in it are slices of it
//! and pin nothing else. Memory is taken in steps, as bytes come: while there is none the connection
//! is not read. It must not know what is in a frame beyond the number of its API, nor how memory is
//! shared out: that is `memory`'s.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use host::budget::Held;
use host::clock::Instant;
use host::net::TcpStream;
use tokio::io::AsyncReadExt;

use crate::api;
use crate::context::Context;
use crate::edge::memory::{BEGINNING_BYTES, Gate, Grant, PREFIX_ROOM, Pace, Step, step_due};

/// A frame's length, and the number of its API, which says whose budget it is.
const PREFIX_BYTES: usize = 6;
const LENGTH_BYTES: usize = 4;
/// A buffer of up to so many bytes takes no memory: the prefix of the next frame may come with the
/// rest of one that fills its room.
const FREE_BYTES: usize = PREFIX_ROOM + PREFIX_BYTES;

/// A frame without its length, and the memory it is given.
pub(super) struct Received {
    pub(super) frame: Bytes,
    pub(super) held: Held,
}

/// Why no more frames come.
pub(super) enum Error {
    /// The client closed the connection.
    Closed,
    Broken(io::Error),
    /// The client announced what it may not send.
    Refused(String),
}

/// What was read and not yet taken.
pub(super) struct Inbox {
    buffer: BytesMut,
    /// Bytes of memory that the buffer keeps alive; its capacity is less once frames were taken.
    allocated: usize,
    max_bytes: usize,
    /// The size of the last frame, with its length: the next is likely to be of the same.
    last_bytes: usize,
    /// What memory was taken from last.
    gate: Option<Arc<Gate>>,
    /// Memory for a buffer that is larger than it may be without, and smaller than a beginning.
    beginning: Option<Grant>,
    /// Memory for the frame that begins in the buffer.
    whole: Option<Grant>,
    waiting: Option<BoxFuture<'static, Grant>>,
    pace: Pace,
}

impl Inbox {
    pub(super) fn new(max_bytes: usize) -> Self {
        Inbox {
            buffer: BytesMut::new(),
            allocated: 0,
            max_bytes,
            last_bytes: 0,
            gate: None,
            beginning: None,
            whole: None,
            waiting: None,
            pace: Pace::begin(host::clock::now(), 0),
        }
    }

    /// When to ask whether the frame that is coming comes too slowly; `None` if none is, or if it
    /// is memory that it waits for.
    pub(super) fn look_at(&self, halt_max: Duration) -> Option<Instant> {
        let comes = !self.buffer.is_empty() && self.waiting.is_none();
        comes.then(|| self.pace.look_at(halt_max))
    }

    /// Whether the frame comes too slowly.
    pub(super) fn is_too_slow(&mut self, now: Instant, halt_max: Duration) -> bool {
        let step = self.step();
        let gate = self.gate.as_ref();
        let is_wanted = gate.is_some_and(|gate| gate.is_wanted(step, self.pace.since()));
        let bytes = self
            .length()
            .map_or(PREFIX_BYTES, |length| LENGTH_BYTES + length);
        self.pace
            .is_too_slow(now, (self.buffer.len(), bytes), is_wanted, halt_max)
    }

    /// True if a frame has taken memory, or may be given some at any time.
    pub(super) fn holds_memory(&self) -> bool {
        self.step() > Step::Prefix || self.waiting.is_some()
    }

    /// Begins to count anew: it was not the client who made the frame halt.
    pub(super) fn excuse_halt(&mut self) {
        self.pace = Pace::begin(host::clock::now(), self.buffer.len());
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut TaskContext<'_>,
        stream: &mut TcpStream,
        context: &Context,
    ) -> Poll<Result<Received, Error>> {
        loop {
            self.check_length()?;
            let Some(length) = self.length() else {
                let room = self.likely_room();
                self.make_room(PREFIX_BYTES, room);
                ready!(self.read(cx, stream))?;
                continue;
            };
            let bytes = LENGTH_BYTES + length;
            ready!(self.poll_memory(cx, bytes, context))?;
            if self.buffer.len() >= bytes {
                return Poll::Ready(Ok(self.take(length)));
            }
            // The length of the next frame may come with the rest of this one.
            let room = match self.step() {
                Step::Prefix => FREE_BYTES,
                Step::Beginning => bytes.min(BEGINNING_BYTES) + PREFIX_BYTES,
                Step::Whole => bytes + PREFIX_BYTES,
            };
            self.make_room(bytes, room);
            ready!(self.read(cx, stream))?;
        }
    }

    /// The length of the frame that begins in the buffer, once its kind is known too.
    fn length(&self) -> Option<usize> {
        let prefix = self.buffer.first_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(i32::from_be_bytes(*prefix)).ok()?;
        (self.buffer.len() >= PREFIX_BYTES.min(LENGTH_BYTES + length)).then_some(length)
    }

    fn check_length(&self) -> Result<(), Error> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(());
        };
        let length = i32::from_be_bytes(*prefix);
        match usize::try_from(length) {
            Ok(length) if length <= self.max_bytes => Ok(()),
            _ => Err(Error::Refused(format!(
                "a request of {length} bytes; between 0 and {} are allowed",
                self.max_bytes
            ))),
        }
    }

    /// The step for which there is memory.
    fn step(&self) -> Step {
        if self.whole.is_some() {
            Step::Whole
        } else if self.beginning.is_some() {
            Step::Beginning
        } else {
            Step::Prefix
        }
    }

    /// Takes the memory that the frame needs by now.
    fn poll_memory(
        &mut self,
        cx: &mut TaskContext<'_>,
        bytes: usize,
        context: &Context,
    ) -> Poll<Result<(), Error>> {
        let due = step_due(self.buffer.len(), bytes);
        if self.step() >= due {
            return Poll::Ready(Ok(()));
        }
        if self.waiting.is_none() {
            let gate = self.gate_of(bytes - LENGTH_BYTES, context)?;
            let cost = self.cost(bytes);
            let early = due == Step::Beginning && bytes > BEGINNING_BYTES && gate.is_ample(cost);
            let whole = early.then(|| gate.try_take(Step::Whole, cost)).flatten();
            if whole.is_some() {
                self.whole = whole;
                return Poll::Ready(Ok(()));
            }
            if let Some(grant) = gate.try_take(due, cost) {
                self.keep(due, grant);
                return Poll::Ready(Ok(()));
            }
            self.waiting = Some(Arc::clone(gate).take(due, cost).boxed());
        }
        if let Some(waiting) = &mut self.waiting {
            let grant = ready!(waiting.poll_unpin(cx));
            self.waiting = None;
            self.keep(due, grant);
            self.excuse_halt();
        }
        Poll::Ready(Ok(()))
    }

    fn keep(&mut self, step: Step, grant: Grant) {
        match step {
            Step::Whole => self.whole = Some(grant),
            Step::Prefix | Step::Beginning => self.beginning = Some(grant),
        }
    }

    /// What a frame of this length takes its memory from.
    fn gate_of<'a>(&mut self, length: usize, context: &'a Context) -> Result<&'a Arc<Gate>, Error> {
        let key = self.buffer.get(LENGTH_BYTES..PREFIX_BYTES);
        let is_produce = key.is_some_and(api::is_produce);
        let gate = context.memory.gate(is_produce, length).map_err(|allowed| {
            Error::Refused(format!(
                "a request of {length} bytes; of its kind {allowed} are allowed"
            ))
        })?;
        if !self
            .gate
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(last, gate))
        {
            self.gate = Some(Arc::clone(gate));
        }
        Ok(gate)
    }

    /// What the buffer may hold when nothing is known of what comes. Frames that are no larger than
    /// a beginning are expected to be followed by others of the same size, and are read together
    /// with their length in one call. Of larger ones the length is read first, since what is read
    /// with it must be moved.
    fn likely_room(&mut self) -> usize {
        let likely = self.last_bytes + PREFIX_BYTES;
        if likely <= FREE_BYTES || self.last_bytes > BEGINNING_BYTES {
            return FREE_BYTES;
        }
        if self.beginning.is_none() {
            let gate = self.gate.as_ref();
            self.beginning = gate.and_then(|gate| gate.try_take_beginning());
        }
        if self.beginning.is_some() {
            likely
        } else {
            FREE_BYTES
        }
    }

    /// A frame that is much smaller than the buffer would pin all of it as a slice.
    fn is_copied(&self, bytes: usize) -> bool {
        bytes < self.allocated / 2
    }

    /// Memory that a frame of so many bytes will keep alive.
    fn cost(&self, bytes: usize) -> usize {
        if self.buffer.len() < bytes || self.is_copied(bytes) {
            bytes
        } else {
            self.allocated
        }
    }

    /// Takes the whole frame at the start of the buffer.
    fn take(&mut self, length: usize) -> Received {
        let bytes = LENGTH_BYTES + length;
        self.last_bytes = bytes;
        let frame = if self.is_copied(bytes) {
            let frame = Bytes::copy_from_slice(&self.buffer[LENGTH_BYTES..bytes]);
            self.buffer.advance(bytes);
            frame
        } else {
            let mut frame = self.buffer.split_to(bytes);
            // The little that came of the next frame must not pin this one.
            self.replace(self.buffer.len());
            frame.split_off(LENGTH_BYTES).freeze()
        };
        if !self.buffer.is_empty() {
            self.excuse_halt();
        }
        match self.whole.take() {
            Some(Grant { held, .. }) => Received { frame, held },
            None => unreachable!("memory is held before a frame is taken"),
        }
    }

    fn read(
        &mut self,
        cx: &mut TaskContext<'_>,
        stream: &mut TcpStream,
    ) -> Poll<Result<(), Error>> {
        // Made anew for each poll: it loses nothing when it is dropped.
        let read = pin!(stream.read_buf(&mut self.buffer)).poll(cx);
        match read {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(Error::Closed)),
            Poll::Ready(Ok(bytes)) if bytes == self.buffer.len() => self.excuse_halt(),
            Poll::Ready(Ok(_)) => self.pace.advance(host::clock::now()),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::Broken(error))),
            Poll::Pending => {
                self.shrink();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// An idle connection keeps no buffer, one of which little has come none that takes memory.
    fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.replace(0);
        } else if self.whole.is_none()
            && self.allocated > FREE_BYTES
            && self.buffer.len() < PREFIX_ROOM
        {
            self.replace(FREE_BYTES);
        }
    }

    /// Room for `room` bytes in all, unless there is enough for the first `bytes`, or for some of
    /// them as far as there is memory.
    fn make_room(&mut self, bytes: usize, room: usize) {
        if self.buffer.capacity() < bytes.min(room).max(self.buffer.len() + 1) {
            self.replace(room);
        }
    }

    /// Moves what the buffer holds to one of `bytes`, and gives back what it does not need then.
    fn replace(&mut self, bytes: usize) {
        let mut buffer = BytesMut::with_capacity(bytes);
        buffer.put_slice(&self.buffer);
        self.buffer = buffer;
        self.allocated = bytes;
        if bytes <= FREE_BYTES || self.whole.is_some() && bytes > BEGINNING_BYTES + PREFIX_BYTES {
            self.beginning = None;
        }
    }
}
