//! Frames out of the bytes of a connection. Memory is asked for in steps, as bytes come, and nothing is read
//! while there is none. Frames that come together, up to 64 KiB of them, are read into one chunk: they are
//! slices of it and share its memory. A larger frame has memory of its own size. Pure. It must not know
//! sockets, what is in a frame, nor how memory is shared out.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use host::clock::Instant;

use super::pace::Pace;
use super::{Ask, Kind, Limits, Step};

/// What a connection may read without taking memory: enough for most requests without records, and at
/// `max.connections` of 10,000 no more than 40 MiB.
pub(super) const PREFIX_ROOM: usize = 4 << 10;
/// What a frame's memory begins with, and the largest chunk that frames share: a sixteenth of the batch that
/// clients send at most by default, so that to hold memory costs a client at least a sixteenth of it in bytes sent.
pub(crate) const BEGINNING_BYTES: usize = 64 << 10;
/// A frame's length.
const LENGTH_BYTES: usize = 4;
/// A frame's length, and the number of its API, which says of which kind it is.
const PREFIX_BYTES: usize = LENGTH_BYTES + 2;
/// A buffer of up to so many bytes takes no memory: the prefix of the next frame may come with the
/// rest of one that fills its room.
const FREE_BYTES: usize = PREFIX_ROOM + PREFIX_BYTES;

/// What the bytes that have come are good for.
pub(super) enum Next<M> {
    /// More bytes are needed, or memory that was asked for before.
    Nothing,
    Take(Ask),
    /// A frame without its length, and the memory it lies in.
    Frame(Bytes, Arc<M>),
    /// The client announced what it may not send.
    Refused(String),
}

/// What was read and not yet taken.
pub(super) struct Inbox<M> {
    limits: Limits,
    buffer: BytesMut,
    /// Bytes of memory that the buffer keeps alive; its capacity is less once frames were taken.
    allocated: usize,
    /// Memory to read into, kept from chunk to chunk: who has it need not wait for where to put the rest of a
    /// chunk.
    beginning: Option<M>,
    /// Memory for the buffer and the frames that were taken out of it, which are of one kind.
    whole: Option<(Kind, Arc<M>)>,
    /// Memory for the first frame alone, which is copied.
    copy: Option<M>,
    waiting: bool,
    /// Nothing more comes.
    ended: bool,
    /// Bytes that have come since there was nothing to read, and how many that were the last time: the
    /// next are likely to be as many.
    burst: usize,
    last_burst: usize,
    last: Option<Frame>,
    pace: Pace,
}

/// The frame at the start of the buffer.
#[derive(Clone, Copy)]
struct Frame {
    kind: Kind,
    /// With its length.
    bytes: usize,
}

impl<M> Inbox<M> {
    pub(super) fn new(now: Instant, limits: Limits) -> Self {
        Inbox {
            limits,
            buffer: BytesMut::new(),
            allocated: 0,
            beginning: None,
            whole: None,
            copy: None,
            waiting: false,
            ended: false,
            burst: 0,
            last_burst: 0,
            last: None,
            pace: Pace::begin(now, 0),
        }
    }

    /// Where bytes are to be read into; there is room for at least one. `beginning` takes memory for the beginning of
    /// a frame like the last one, if it is free.
    pub(super) fn room(
        &mut self,
        beginning: impl FnOnce(Kind, usize) -> Option<M>,
    ) -> &mut BytesMut {
        if self.buffer.capacity() > self.buffer.len() {
            return &mut self.buffer;
        }
        let chunk = self.expected_chunk();
        let is_chunk = chunk + PREFIX_BYTES > FREE_BYTES;
        if is_chunk
            && self.beginning.is_none()
            && let Some(last) = self.last
        {
            self.beginning = beginning(last.kind, last.bytes - LENGTH_BYTES);
        }
        if is_chunk && self.beginning.is_some() {
            self.replace(chunk + PREFIX_BYTES);
        } else {
            self.replace(FREE_BYTES);
        }
        &mut self.buffer
    }

    /// So many bytes were read.
    pub(super) fn received(&mut self, now: Instant, bytes: usize) {
        self.burst = self.burst.saturating_add(bytes);
        if bytes == self.buffer.len() {
            self.excuse_halt(now);
        } else {
            self.pace.advance(now);
        }
    }

    /// There is nothing to read just now: an idle connection keeps no buffer, and one of which little has come
    /// none that takes memory.
    pub(super) fn rest(&mut self) {
        if self.burst > 0 {
            self.last_burst = self.burst;
            self.burst = 0;
        }
        if self.waiting {
            return;
        }
        if self.buffer.is_empty() {
            self.let_go();
        } else if self.allocated > FREE_BYTES && self.buffer.len() < PREFIX_ROOM {
            self.replace(FREE_BYTES);
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// True if nothing is left of what came.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }

    /// True if bytes are to be read, rather than memory waited for.
    pub(super) fn wants_bytes(&self) -> bool {
        !self.waiting && !self.ended
    }

    /// Memory that was asked for.
    pub(super) fn granted(&mut self, now: Instant, ask: &Ask, step: Step, memory: M) {
        self.waiting = false;
        self.excuse_halt(now);
        let bytes = LENGTH_BYTES + ask.length;
        match step {
            Step::Prefix | Step::Beginning => {
                self.beginning = Some(memory);
                self.replace(self.beginning_room(bytes));
            }
            Step::Whole if ask.copies => self.copy = Some(memory),
            Step::Whole => {
                if self.buffer.len() < bytes {
                    self.replace(bytes + PREFIX_BYTES);
                    self.beginning = None;
                }
                self.whole = Some((ask.kind, Arc::new(memory)));
            }
        }
    }

    /// What is to be done next, given what has come.
    pub(super) fn next(&mut self, now: Instant) -> Next<M> {
        if self.waiting {
            return Next::Nothing;
        }
        let frame = match self.first() {
            Ok(frame) => frame,
            Err(why) => return Next::Refused(why),
        };
        match frame {
            Some(frame) if self.buffer.len() >= frame.bytes => self.next_whole(now, frame),
            _ if self.ended => {
                self.let_go();
                Next::Nothing
            }
            Some(frame) => self.next_part(frame),
            None => Next::Nothing,
        }
    }

    /// Sees to it that there is room for more of a frame, as far as it may have memory.
    fn next_part(&mut self, frame: Frame) -> Next<M> {
        match &self.whole {
            Some((kind, _)) if *kind == frame.kind && self.buffer.capacity() >= frame.bytes => {
                return Next::Nothing;
            }
            Some(_) => self.leave_chunk(frame),
            None => {}
        }
        let due = step_due(self.buffer.len(), frame.bytes);
        let has_room = self.buffer.capacity() > self.buffer.len();
        match due {
            Step::Prefix => Next::Nothing,
            Step::Beginning if self.beginning.is_some() => {
                if !has_room {
                    self.replace(self.beginning_room(frame.bytes));
                }
                Next::Nothing
            }
            _ => self.ask(frame, due, frame.bytes, false),
        }
    }

    /// Takes the frame at the start of the buffer, all of which is there.
    fn next_whole(&mut self, now: Instant, frame: Frame) -> Next<M> {
        if let Some(memory) = self.copy.take() {
            let bytes = Bytes::copy_from_slice(&self.buffer[LENGTH_BYTES..frame.bytes]);
            self.buffer.advance(frame.bytes);
            self.taken(now, frame);
            return Next::Frame(bytes, Arc::new(memory));
        }
        match &self.whole {
            Some((kind, memory)) if *kind == frame.kind => {
                let memory = Arc::clone(memory);
                let mut bytes = self.buffer.split_to(frame.bytes);
                bytes.advance(LENGTH_BYTES);
                if self.buffer.capacity() <= PREFIX_BYTES {
                    // The little that came of the next frame must not pin the chunk.
                    self.replace(self.buffer.len());
                }
                self.taken(now, frame);
                return Next::Frame(bytes.freeze(), memory);
            }
            // Who waits for memory holds none of the last step.
            Some(_) => self.leave_chunk(frame),
            None => {}
        }
        // Frames that are much smaller than the buffer would pin all of it as slices.
        let copies = self.whole_bytes(frame) < self.allocated / 2;
        let cost = if copies { frame.bytes } else { self.allocated };
        self.ask(frame, Step::Whole, cost, copies)
    }

    fn taken(&mut self, now: Instant, frame: Frame) {
        self.last = Some(frame);
        if !self.buffer.is_empty() {
            self.excuse_halt(now);
        }
    }

    /// Bytes of the frames of one kind that are there, whole, one after the other.
    fn whole_bytes(&self, first: Frame) -> usize {
        let mut bytes = first.bytes;
        while let Some(rest) = self.buffer.get(bytes..)
            && let Ok(Some(frame)) = self.limits.frame_at(rest)
            && frame.kind == first.kind
            && rest.len() >= frame.bytes
        {
            bytes += frame.bytes;
        }
        bytes
    }

    fn ask(&mut self, frame: Frame, step: Step, cost: usize, copies: bool) -> Next<M> {
        self.waiting = true;
        Next::Take(Ask {
            kind: frame.kind,
            length: frame.bytes - LENGTH_BYTES,
            step,
            cost,
            copies,
        })
    }

    /// Moves what is left of a chunk to memory of an earlier step. A chunk that was read without memory for a beginning
    /// is no larger than what needs none, or its frame left a few bytes of the next.
    fn leave_chunk(&mut self, frame: Frame) {
        if self.beginning.is_some() {
            self.replace(self.beginning_room(frame.bytes));
        } else {
            self.replace(FREE_BYTES);
        }
    }

    /// The room that memory for a beginning gives to a frame of so many bytes, and to those that may follow.
    fn beginning_room(&self, bytes: usize) -> usize {
        bytes.max(self.expected_chunk()).min(BEGINNING_BYTES) + PREFIX_BYTES
    }

    /// The frames that are likely to come together, of the size of the last one, so that none is cut by the
    /// end of the chunk. Of frames larger than a chunk the length is read first, since what is read with it
    /// must be moved.
    fn expected_chunk(&self) -> usize {
        let one = self.last.map_or(0, |last| last.bytes);
        if one == 0 || one > BEGINNING_BYTES {
            return 0;
        }
        let likely = self.last_burst.max(self.burst).min(BEGINNING_BYTES);
        (likely / one).max(1) * one
    }

    /// The kind and length of the frame that begins in the buffer, once both are known; why, if it is none.
    fn first(&self) -> Result<Option<Frame>, String> {
        self.limits.frame_at(&self.buffer)
    }

    fn step(&self) -> Step {
        if self.whole.is_some() {
            Step::Whole
        } else if self.beginning.is_some() {
            Step::Beginning
        } else {
            Step::Prefix
        }
    }

    /// True if a frame has taken memory, or may be given some at any time.
    pub(super) fn holds_memory(&self) -> bool {
        self.waiting || !self.buffer.is_empty() && self.step() > Step::Prefix
    }

    /// What memory the frame that comes has taken: its kind, its length, how far.
    pub(super) fn held(&self) -> Option<(Kind, usize, Step)> {
        let frame = self.first().ok().flatten().or(self.last)?;
        Some((frame.kind, frame.bytes - LENGTH_BYTES, self.step()))
    }

    /// When to ask whether the frame that is coming comes too slowly; `None` if none is, or if it
    /// is memory that it waits for.
    pub(super) fn look_at(&self, halt_max: Duration) -> Option<Instant> {
        let comes = !self.buffer.is_empty() && !self.waiting && !self.ended;
        comes.then(|| self.pace.look_at(halt_max))
    }

    /// Since when the bytes of the frame that comes are counted.
    pub(super) fn since(&self) -> Instant {
        self.pace.since()
    }

    /// Whether the frame comes too slowly.
    pub(super) fn is_too_slow(
        &mut self,
        now: Instant,
        is_wanted: bool,
        halt_max: Duration,
    ) -> bool {
        let frame = self.first().ok().flatten();
        let bytes = frame.map_or(PREFIX_BYTES, |frame| frame.bytes);
        self.pace
            .is_too_slow(now, (self.buffer.len(), bytes), is_wanted, halt_max)
    }

    /// Begins to count anew: it was not the client who made the frame halt.
    pub(super) fn excuse_halt(&mut self, now: Instant) {
        self.pace = Pace::begin(now, self.buffer.len());
    }

    /// Moves what the buffer holds to one of `bytes`, and gives back what it does not need then.
    fn replace(&mut self, bytes: usize) {
        let mut buffer = BytesMut::with_capacity(bytes);
        buffer.put_slice(&self.buffer);
        self.allocated = buffer.capacity();
        self.buffer = buffer;
        self.whole = None;
        if bytes == FREE_BYTES && self.allocated == FREE_BYTES {
            self.beginning = None;
        }
    }

    /// Drops what has come.
    fn let_go(&mut self) {
        self.buffer = BytesMut::new();
        self.allocated = 0;
        self.beginning = None;
        self.whole = None;
    }
}

impl Limits {
    /// The frame at the start of `bytes`, once its length and kind are known; why, if it is none.
    fn frame_at(&self, bytes: &[u8]) -> Result<Option<Frame>, String> {
        let Some(prefix) = bytes.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*prefix);
        let refused = |allowed: usize| {
            format!("a request of {length} bytes; of its kind 0 to {allowed} are allowed")
        };
        let largest = self.bulk_bytes_max.max(self.other_bytes_max);
        let bytes_of_frame = usize::try_from(length).map(|length| LENGTH_BYTES + length);
        let bytes_of_frame = match bytes_of_frame {
            Ok(bytes) if bytes - LENGTH_BYTES <= largest => bytes,
            _ => return Err(refused(largest)),
        };
        let prefix_bytes = PREFIX_BYTES.min(bytes_of_frame);
        let Some(key) = bytes.get(LENGTH_BYTES..prefix_bytes) else {
            return Ok(None);
        };
        let kind = (self.kind_of)(key);
        let allowed = match kind {
            Kind::Bulk => self.bulk_bytes_max,
            Kind::Other => self.other_bytes_max,
        };
        if bytes_of_frame - LENGTH_BYTES > allowed {
            return Err(refused(allowed));
        }
        Ok(Some(Frame {
            kind,
            bytes: bytes_of_frame,
        }))
    }
}

/// The step that a frame of `bytes` needs as soon as `come` of them have come.
fn step_due(come: usize, bytes: usize) -> Step {
    if come >= bytes || come >= BEGINNING_BYTES {
        Step::Whole
    } else if come >= PREFIX_ROOM {
        Step::Beginning
    } else {
        Step::Prefix
    }
}
