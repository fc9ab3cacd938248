//! Cuts frames out of the bytes of a connection. Memory is asked for in steps, as bytes come, and
//! nothing is read while there is none. Small frames that come together, up to 64 KiB of them, are read
//! into one chunk: they are slices of it and share its memory. A larger frame has memory of its own
//! size. Pure. It must not know sockets, what is in a frame, nor how memory is shared out.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use host::clock::Instant;

use super::pace::Pace;
use super::{Ask, Kind, Limits, Step};

/// What a connection may read without taking memory: enough for most requests without records, and at
/// `max.connections` of 10,000 no more than 40 MiB.
pub(super) const PREFIX_ROOM: usize = 4 << 10;
/// Memory for a frame's beginning, and the largest chunk that frames share: a sixteenth of the
/// largest batch that clients send by default, so that holding memory costs a client at least a
/// sixteenth of it in bytes sent.
pub(crate) const BEGINNING_BYTES: usize = 64 << 10;
/// A frame larger than this has memory of its own size even if others come with it. Sharing a chunk
/// would save little, and buffers of one size take the place of one another: of many sizes, what
/// was freed fits badly, and the process keeps a quarter more memory than it uses.
const SHARED_BYTES_MAX: usize = 8 << 10;
/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 4;
/// Bytes of a frame's length and API number; the latter tells its kind.
const PREFIX_BYTES: usize = LENGTH_BYTES + 2;
/// A buffer up to this size takes no memory from the budgets: it also holds the start of the next
/// frame, which may come with the rest of one that fills its room.
const FREE_BYTES: usize = PREFIX_ROOM + PREFIX_BYTES;

/// What can be done with the bytes that have come.
pub(super) enum Next<M> {
    /// Nothing until more bytes come, or memory that was asked for.
    Nothing,
    Take(Ask),
    Frame(Bytes, Arc<M>),
    /// The client announced a frame that is not allowed; the text says why.
    Refused(String),
}

/// Bytes that were read and not yet handed out.
pub(super) struct Inbox<M> {
    limits: Limits,
    buffer: BytesMut,
    /// Bytes of memory that the buffer keeps alive; its capacity is less once frames were cut off.
    allocated: usize,
    /// Memory for chunks, kept from one to the next, so that the rest of a chunk never waits for
    /// memory to be moved to.
    beginning: Option<Beginning<M>>,
    /// Memory for the buffer and the frames that were cut out of it, all of one kind.
    whole: Option<(Kind, Arc<M>)>,
    /// Memory for a copy of the first frame.
    copy: Option<M>,
    waiting: bool,
    ended: bool,
    /// Bytes that have come since the socket last had nothing to read, and how many came the last
    /// time: the next burst is likely to be as large.
    burst: usize,
    last_burst: usize,
    last: Option<Frame>,
    pace: Pace,
}

/// Memory for a chunk, and the frame for which it was taken.
struct Beginning<M> {
    kind: Kind,
    length: usize,
    _memory: M,
}

#[derive(Clone, Copy)]
struct Frame {
    kind: Kind,
    /// Length of the frame, length field included.
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

    /// The buffer to read into, with room for at least one byte. `beginning` takes memory for the
    /// beginning of a frame like the last one, if some is free.
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
            let (kind, length) = (last.kind, last.bytes - LENGTH_BYTES);
            let memory = beginning(kind, length);
            self.beginning = memory.map(|memory| Beginning::of(kind, length, memory));
        }
        if is_chunk && self.beginning.is_some() {
            self.replace(chunk + PREFIX_BYTES);
        } else {
            self.replace(FREE_BYTES);
        }
        &mut self.buffer
    }

    /// Notes that so many bytes were read.
    pub(super) fn received(&mut self, now: Instant, bytes: usize) {
        self.burst = self.burst.saturating_add(bytes);
        if bytes == self.buffer.len() {
            self.excuse_halt(now);
        } else {
            self.pace.advance(now);
        }
    }

    /// Notes that there is nothing to read: an idle connection keeps no buffer, and one with few
    /// bytes keeps none that takes memory.
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

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// True if no byte is left.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }

    /// True if it waits for bytes rather than for memory.
    pub(super) fn wants_bytes(&self) -> bool {
        !self.waiting && !self.ended
    }

    pub(super) fn granted(&mut self, now: Instant, ask: &Ask, step: Step, memory: M) {
        self.waiting = false;
        self.excuse_halt(now);
        let bytes = LENGTH_BYTES + ask.length;
        match step {
            Step::Prefix | Step::Beginning => {
                self.beginning = Some(Beginning::of(ask.kind, ask.length, memory));
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

    /// Decides what to do with the bytes that have come.
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

    /// Makes room for more of an incomplete frame, as far as there is memory.
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

    /// Hands out the complete frame at the start of the buffer.
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
                    // Otherwise the few bytes of the next frame would keep the chunk alive.
                    self.replace(self.buffer.len());
                }
                self.taken(now, frame);
                return Next::Frame(bytes.freeze(), memory);
            }
            // A connection that waits for memory keeps none from the step before.
            Some(_) => self.leave_chunk(frame),
            None => {}
        }
        // As slices, frames much smaller than the buffer would keep all of it alive.
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

    /// Bytes of the complete frames of one kind at the start of the buffer.
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

    /// Moves the rest of a chunk to memory of an earlier step. A chunk that was read without memory
    /// for a beginning is small enough to need none, or its frame left a few bytes of the next.
    fn leave_chunk(&mut self, frame: Frame) {
        if self.beginning.is_some() {
            self.replace(self.beginning_room(frame.bytes));
        } else {
            self.replace(FREE_BYTES);
        }
    }

    /// How large a chunk the memory for a beginning makes for a frame of this size and those after
    /// it.
    fn beginning_room(&self, bytes: usize) -> usize {
        bytes.max(self.expected_chunk()).min(BEGINNING_BYTES) + PREFIX_BYTES
    }

    /// The size of a chunk that fits the frames likely to come together, each as long as the last
    /// one, so that the chunk's end cuts none. A burst is likely to be as large as the last one, and
    /// one that becomes larger to double: room that stays empty would be kept with the frames. Of
    /// frames larger than a chunk only the length is read first, since further bytes would have to be
    /// moved.
    fn expected_chunk(&self) -> usize {
        let one = self.last.map_or(0, |last| last.bytes);
        if one == 0 || one > BEGINNING_BYTES {
            return 0;
        }
        let likely = match self.last_burst.saturating_sub(self.burst) {
            0 => self.burst,
            rest => rest,
        };
        if one > SHARED_BYTES_MAX {
            return one;
        }
        (likely.min(BEGINNING_BYTES) / one).max(1) * one
    }

    /// The kind and length of the frame at the start of the buffer, once both are known; the text
    /// says why it is not allowed.
    fn first(&self) -> Result<Option<Frame>, String> {
        self.limits.frame_at(&self.buffer)
    }

    /// True if a frame holds memory of the budgets, or may be given some at any time.
    pub(super) fn holds_memory(&self) -> bool {
        self.waiting
            || !self.buffer.is_empty() && (self.beginning.is_some() || self.whole.is_some())
    }

    /// The memory that the incoming frame holds: of which kind of frame, of which length, for which
    /// step. A chunk that holds whole frames and the beginning of another has both kinds.
    pub(super) fn held(&self) -> impl Iterator<Item = (Kind, usize, Step)> {
        let beginning = self.beginning.iter();
        let beginning = beginning.map(|held| (held.kind, held.length, Step::Beginning));
        let frame = self.first().ok().flatten().or(self.last);
        let frame = frame.filter(|_| self.whole.is_some());
        let whole = frame.map(|frame| (frame.kind, frame.bytes - LENGTH_BYTES, Step::Whole));
        beginning.chain(whole)
    }

    /// When to check whether the incoming frame is too slow; `None` if there is none, or it waits
    /// for memory itself.
    pub(super) fn look_at(&self, halt_max: Duration) -> Option<Instant> {
        let comes = !self.buffer.is_empty() && !self.waiting && !self.ended;
        comes.then(|| self.pace.look_at(halt_max))
    }

    /// Since when the bytes of the incoming frame are counted.
    pub(super) fn since(&self) -> Instant {
        self.pace.since()
    }

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

    /// Starts to count anew, since the frame halted for a reason that was not the client's.
    pub(super) fn excuse_halt(&mut self, now: Instant) {
        self.pace = Pace::begin(now, self.buffer.len());
    }

    /// Moves the buffer's bytes to a new buffer of `bytes` and returns memory that is no longer
    /// needed.
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

    fn let_go(&mut self) {
        self.buffer = BytesMut::new();
        self.allocated = 0;
        self.beginning = None;
        self.whole = None;
    }
}

impl<M> Beginning<M> {
    fn of(kind: Kind, length: usize, memory: M) -> Self {
        Beginning {
            kind,
            length,
            _memory: memory,
        }
    }
}

impl Limits {
    /// The frame at the start of `bytes`, once its length and kind are known; the text says why it
    /// is not allowed.
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

/// The step that a frame of `bytes` needs once `come` of them have come.
fn step_due(come: usize, bytes: usize) -> Step {
    if come >= bytes || come >= BEGINNING_BYTES {
        Step::Whole
    } else if come >= PREFIX_ROOM {
        Step::Beginning
    } else {
        Step::Prefix
    }
}
