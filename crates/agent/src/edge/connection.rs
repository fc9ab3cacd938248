//! One connection as a pure machine: bytes, time, memory and answers go in, and out come frames to serve, bytes
//! to write, memory to take and the instant at which to look again. It keeps the order of answers: requests that may
//! run ahead begin as they are read, the others when those before them are answered, as in Kafka.
//! It must not know sockets, clocks, budgets, nor what requests mean: memory, requests under way and what an
//! answer keeps alive are opaque to it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use host::clock::Instant;
use wire::rope::Rope;

mod inbox;
mod outbox;
mod pace;

#[cfg(test)]
mod tests;

pub(crate) use inbox::BEGINNING_BYTES;

use inbox::{Inbox, Next};
use outbox::Outbox;
use pace::HALT_MAX;

/// Requests in flight on one connection; more are read when these are answered.
const REQUESTS_MAX: usize = 64;
/// Requests that wait for their turn, and are read before those before them are answered: none of them
/// begins before.
const IN_TURN_MAX: usize = 4;
/// Bytes of answers that wait to be sent before the next one is taken.
const OUTBOX_BYTES: usize = 64 << 10;

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest request of each kind, and what the requests in flight on one connection may have in all.
    pub bulk_bytes_max: usize,
    pub other_bytes_max: usize,
    /// How long it may be idle.
    pub idle_max: Duration,
    /// The kind of a frame that begins with these two bytes, or fewer if it has no more.
    pub kind_of: fn(&[u8]) -> Kind,
}

/// What frames are, as far as their memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They carry records.
    Bulk,
    Other,
}

/// How much of a frame has memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// What every connection has.
    Prefix,
    /// Room for a beginning.
    Beginning,
    /// Room for the whole frame.
    Whole,
}

/// Memory that a frame needs. It is given for this step, or for a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub kind: Kind,
    /// The frame's length.
    pub length: usize,
    pub step: Step,
    /// Bytes of memory that all of the frame will keep alive.
    pub cost: usize,
    /// It is for a copy of a frame that is there.
    pub copies: bool,
}

/// What a request comes to.
pub(crate) enum Reply<K> {
    Frame {
        frame: Rope,
        /// What it keeps alive.
        kept: K,
    },
    Silence,
    /// No answer, and the end of the connection; why, for the log.
    Close(String),
}

/// What became of a request.
pub(crate) enum Begun<J, K> {
    Done(Reply<K>),
    /// It is under way, and others may overtake it. From `overdue_at` on nobody waits for its outcome.
    Ahead {
        job: J,
        overdue_at: Instant,
    },
    /// It begins when those before it are answered.
    InTurn(J),
    /// Nothing is read until it has begun, so that nothing overtakes it.
    Entering(J),
}

/// What happened.
pub(crate) enum Event<M, J, K> {
    /// So many bytes were read into [`Connection::room`].
    Read(usize),
    /// There is nothing to read just now.
    Blocked,
    /// The client sends nothing more.
    Ended,
    /// Memory that was asked for.
    Granted(Ask, Step, M),
    /// What became of the frame that was handed out, or of the last request, which was entering.
    Last(Begun<J, K>),
    /// What became of the first request.
    First(Begun<J, K>),
    /// So many bytes of the answers were written.
    Written(usize),
    /// The agent stops: what is under way is answered, what has not begun is not.
    Stop,
}

/// What is to be done.
pub(crate) enum Effect<M> {
    Take(Ask),
    /// A request without its length, and the memory that it lies in.
    Serve(Bytes, Arc<M>),
    /// Nobody waits for the outcome of the first request any longer: it is to be answered.
    GiveUp,
    Close(End),
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// One side closed it, or the agent stops.
    Closed,
    /// The client sent what it may not send.
    Refused(String),
    /// The client sent a request, or read an answer, too slowly.
    Slow,
}

/// Whether others wait for memory that this connection holds, or did since an instant.
pub(crate) trait Others<K> {
    fn want_frame(&self, kind: Kind, length: usize, step: Step, since: Instant) -> bool;
    fn want_answer(&self, kept: &K, since: Instant) -> bool;
}

/// A request in the order of answers.
struct Queued<J, K> {
    pending: Begun<J, K>,
    /// The size of its frame.
    bytes: usize,
}

pub(crate) struct Connection<M, J, K> {
    limits: Limits,
    inbox: Inbox<M>,
    queue: VecDeque<Queued<J, K>>,
    /// Bytes of the requests in the queue, and of their answers.
    in_flight_bytes: usize,
    done_bytes: usize,
    in_turn: usize,
    /// The size of a frame that was handed out, until it is known what became of it.
    serving: Option<usize>,
    outbox: Outbox<K>,
    last_active: Instant,
    input_ended: bool,
    stopping: bool,
    /// At the last event we, not the client, had stopped reading.
    reading_paused: bool,
}

impl<M, J, K> Connection<M, J, K> {
    pub(crate) fn new(now: Instant, limits: Limits) -> Self {
        Connection {
            limits,
            inbox: Inbox::new(now, limits),
            queue: VecDeque::new(),
            in_flight_bytes: 0,
            done_bytes: 0,
            in_turn: 0,
            serving: None,
            outbox: Outbox::new(now),
            last_active: now,
            input_ended: false,
            stopping: false,
            reading_paused: false,
        }
    }

    /// Takes note of what happened; what is to be done about it, if anything, before the next event.
    pub(crate) fn handle(&mut self, now: Instant, event: Event<M, J, K>) -> Option<Effect<M>> {
        match event {
            Event::Read(bytes) => self.inbox.received(now, bytes),
            Event::Blocked => self.inbox.rest(),
            Event::Ended => {
                self.input_ended = true;
                self.inbox.end();
            }
            Event::Granted(ask, step, memory) => self.inbox.granted(now, &ask, step, memory),
            Event::Last(begun) => self.put_last(begun),
            Event::First(begun) => {
                if let Some(first) = self.queue.pop_front() {
                    self.uncount(&first);
                    let bytes = first.bytes;
                    self.count(&begun, bytes);
                    self.queue.push_front(Queued {
                        pending: begun,
                        bytes,
                    });
                }
            }
            Event::Written(bytes) => {
                self.outbox.written(bytes);
                self.last_active = now;
            }
            Event::Stop => self.stopping = true,
        }
        if let Some(why) = self.answer(now) {
            return Some(Effect::Close(End::Refused(why)));
        }
        if self.is_over() {
            return Some(Effect::Close(End::Closed));
        }
        self.read_on(now)
    }

    /// Puts the request that was handed out last into the order, or says what became of it.
    fn put_last(&mut self, begun: Begun<J, K>) {
        let bytes = match self.serving.take() {
            Some(bytes) => bytes,
            None => match self.queue.pop_back() {
                Some(last) => {
                    self.uncount(&last);
                    last.bytes
                }
                None => return,
            },
        };
        self.count(&begun, bytes);
        self.queue.push_back(Queued {
            pending: begun,
            bytes,
        });
    }

    fn count(&mut self, begun: &Begun<J, K>, bytes: usize) {
        self.in_flight_bytes += bytes;
        match begun {
            Begun::Done(reply) => self.done_bytes += reply.bytes(),
            Begun::InTurn(_) => self.in_turn += 1,
            Begun::Ahead { .. } | Begun::Entering(_) => {}
        }
    }

    fn uncount(&mut self, queued: &Queued<J, K>) {
        self.in_flight_bytes -= queued.bytes;
        match &queued.pending {
            Begun::Done(reply) => self.done_bytes -= reply.bytes(),
            Begun::InTurn(_) => self.in_turn -= 1,
            Begun::Ahead { .. } | Begun::Entering(_) => {}
        }
    }

    /// Moves answers, first come first, to the outbox, as far as there is room; why the connection is to be
    /// closed, if an answer says so.
    fn answer(&mut self, now: Instant) -> Option<String> {
        while !self.is_outbox_full() {
            let is_done = |queued: &mut Queued<J, K>| matches!(queued.pending, Begun::Done(_));
            let Some(queued) = self.queue.pop_front_if(is_done) else {
                break;
            };
            self.uncount(&queued);
            self.last_active = now;
            match queued.pending {
                Begun::Done(Reply::Frame { frame, kept }) => self.outbox.push(now, frame, kept),
                Begun::Done(Reply::Close(why)) => return Some(why),
                _ => {}
            }
        }
        None
    }

    /// True if no answer is prepared until some of those before it was sent.
    fn is_outbox_full(&self) -> bool {
        self.outbox.bytes() >= OUTBOX_BYTES
    }

    /// When the client sends nothing more, what came whole is still answered. When the agent stops, what is under way is,
    /// and what has not begun, or waits for others, is not.
    fn is_over(&self) -> bool {
        if !self.outbox.is_empty() {
            return false;
        }
        let first = self.queue.front().map(|queued| &queued.pending);
        if self.stopping {
            return matches!(first, None | Some(Begun::InTurn(_))) && self.serving.is_none();
        }
        self.inbox.is_done() && first.is_none() && self.serving.is_none()
    }

    fn read_on(&mut self, now: Instant) -> Option<Effect<M>> {
        let is_paused = !self.is_reading();
        match (self.reading_paused, is_paused) {
            (true, false) => self.inbox.excuse_halt(now),
            // What is left of a chunk would be kept from others for nothing.
            (false, true) => self.inbox.rest(),
            _ => {}
        }
        self.reading_paused = is_paused;
        if is_paused {
            return None;
        }
        match self.inbox.next(now) {
            Next::Nothing => self.is_over().then_some(Effect::Close(End::Closed)),
            Next::Take(ask) => Some(Effect::Take(ask)),
            Next::Refused(why) => Some(Effect::Close(End::Refused(why))),
            Next::Frame(frame, memory) => {
                self.last_active = now;
                self.serving = Some(frame.len());
                Some(Effect::Serve(frame, memory))
            }
        }
    }

    /// True if the next request may be read now.
    fn is_reading(&self) -> bool {
        !self.stopping && self.serving.is_none() && !self.is_entering() && !self.is_full()
    }

    fn is_entering(&self) -> bool {
        let last = self.queue.back().map(|queued| &queued.pending);
        matches!(last, Some(Begun::Entering(_)))
    }

    /// True if the connection has as much in flight as one may have.
    fn is_full(&self) -> bool {
        self.queue.len() >= REQUESTS_MAX
            || self.in_turn >= IN_TURN_MAX
            // Unless that would keep memory from others.
            || self.outbox.bytes() + self.done_bytes >= OUTBOX_BYTES && !self.inbox.holds_memory()
            || self.in_flight_bytes >= self.limits.bulk_bytes_max
    }

    /// True if bytes are to be read.
    pub(crate) fn wants_bytes(&self) -> bool {
        self.is_reading() && self.inbox.wants_bytes()
    }

    /// Where to read them to. `beginning` takes memory for the beginning of a frame like the last one, if it is free.
    pub(crate) fn room(
        &mut self,
        beginning: impl FnOnce(Kind, usize) -> Option<M>,
    ) -> &mut BytesMut {
        self.inbox.room(beginning)
    }

    /// The first request, if it is under way and its answer would find room.
    pub(crate) fn first(&mut self) -> Option<&mut J> {
        if self.is_outbox_full() {
            return None;
        }
        match &mut self.queue.front_mut()?.pending {
            Begun::Ahead { job, .. } | Begun::InTurn(job) => Some(job),
            Begun::Done(_) | Begun::Entering(_) => None,
        }
    }

    /// The last request, if it has not begun and must be the next that does.
    pub(crate) fn entering(&mut self) -> Option<&mut J> {
        match &mut self.queue.back_mut()?.pending {
            Begun::Entering(job) => Some(job),
            _ => None,
        }
    }

    /// Fills `slices` with what is to be written next; how many have something.
    pub(crate) fn pieces<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.outbox.pieces(slices)
    }

    /// When to call [`Connection::time`], if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [
            self.overdue_at(),
            self.reading_look_at(),
            self.outbox.look_at(),
            self.idle_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Lets time pass: a connection that is idle, or stops in a request, or reads too slowly for too long ends, and a
    /// request whose sender has given up is answered.
    pub(crate) fn time(&mut self, now: Instant, others: &impl Others<K>) -> Option<Effect<M>> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if is_due(self.reading_look_at()) {
            let since = self.inbox.since();
            let is_wanted = self
                .inbox
                .held()
                .is_some_and(|(kind, length, step)| others.want_frame(kind, length, step, since));
            if self.inbox.is_too_slow(now, is_wanted, self.halt_max()) {
                return Some(Effect::Close(End::Slow));
            }
        }
        if is_due(self.outbox.look_at()) && self.outbox.is_read_too_slowly(now, others) {
            return Some(Effect::Close(End::Slow));
        }
        if is_due(self.overdue_at()) {
            if let Some(Begun::Ahead { overdue_at, .. }) =
                self.queue.front_mut().map(|queued| &mut queued.pending)
            {
                // Once is enough.
                *overdue_at = Instant::from_micros(u64::MAX);
            }
            return Some(Effect::GiveUp);
        }
        is_due(self.idle_at()).then_some(Effect::Close(End::Closed))
    }

    /// When the sender of the first request stops waiting for its outcome. That is of no interest while
    /// its answer would find no room.
    fn overdue_at(&self) -> Option<Instant> {
        match &self.queue.front()?.pending {
            Begun::Ahead { overdue_at, .. } if !self.is_outbox_full() => Some(*overdue_at),
            _ => None,
        }
    }

    fn reading_look_at(&self) -> Option<Instant> {
        let looks = !self.reading_paused && !self.input_ended;
        let look_at = self.inbox.look_at(self.halt_max());
        look_at.filter(|_| looks)
    }

    fn halt_max(&self) -> Duration {
        HALT_MAX.min(self.limits.idle_max)
    }

    /// When the connection has been idle for too long. Whatever is in flight has limits of its own, but for one whose client
    /// may be gone.
    fn idle_at(&self) -> Option<Instant> {
        let is_idle = self.queue.is_empty() || !self.outbox.is_empty() || self.input_ended;
        is_idle.then(|| self.last_active + self.limits.idle_max)
    }
}

impl<K> Reply<K> {
    /// The size of its frame.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Reply::Frame { frame, .. } => frame.len(),
            Reply::Silence | Reply::Close(_) => 0,
        }
    }
}
