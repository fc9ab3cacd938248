//! One connection as a pure machine: bytes, time, memory and answers go in; out come frames to
//! serve, bytes to write, memory to take and the instant at which to look again. It keeps the order
//! of answers: requests that may run ahead begin as they are read, the others when those before
//! them are answered, as in Kafka. It must not know sockets, clocks, budgets, nor what requests
//! mean: memory, requests under way and whatever an answer keeps alive are opaque to it.

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

/// Requests in flight on one connection; no more are read until some of them are answered.
const REQUESTS_MAX: usize = 64;
/// Requests that are read while they wait for those before them to be answered.
const IN_TURN_MAX: usize = 4;
/// Once so many bytes of answers wait to be sent, no further answer is prepared.
const OUTBOX_BYTES: usize = 64 << 10;

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest request of each kind; also what the requests in flight on one connection may
    /// take together.
    pub bulk_bytes_max: usize,
    pub other_bytes_max: usize,
    /// How long it may be idle.
    pub idle_max: Duration,
    /// Tells a frame's kind by its first two bytes, or fewer if it has no more.
    pub kind_of: fn(&[u8]) -> Kind,
}

/// Kinds of frames, which take their memory from different budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Frames with records.
    Bulk,
    Other,
}

/// How much of a frame has memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The first bytes, for which every connection has memory of its own.
    Prefix,
    /// The first chunk of the frame.
    Beginning,
    Whole,
}

/// A request for memory that a frame needs: for the named step, or a later one at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub kind: Kind,
    pub length: usize,
    pub step: Step,
    /// Memory that the whole frame will keep alive.
    pub cost: usize,
    /// The memory is for a copy of a frame that has arrived.
    pub copies: bool,
}

/// The answer to a request.
pub(crate) enum Reply<K> {
    Frame {
        frame: Rope,
        /// Whatever the bytes keep alive until they are sent.
        kept: K,
    },
    Silence,
    /// No answer and the end of the connection; the text says why, for the log.
    Close(String),
    /// The same for a request that its client may not wait for any more.
    Stale,
}

/// How far a request got when it was handed out.
pub(crate) enum Begun<J, K> {
    Done(Reply<K>),
    /// It is under way, and later requests may overtake it. Its sender stops waiting at
    /// `overdue_at`.
    Ahead {
        job: J,
        overdue_at: Instant,
    },
    /// It begins when those before it are answered.
    InTurn(J),
    /// Nothing more is read until it has begun, so that nothing overtakes it.
    Entering(J),
}

/// What happened to the connection.
pub(crate) enum Event<M, J, K> {
    /// So many bytes were read into [`Connection::room`].
    Read(usize),
    /// The socket has nothing to read just now.
    Blocked,
    Ended,
    Granted(Ask, Step, M),
    /// The result for the frame that was handed out, or for the last request, which was entering.
    Last(Begun<J, K>),
    /// The result for the first request.
    First(Begun<J, K>),
    /// So many bytes of the answers were written.
    Written(usize),
    /// The agent stops: requests under way are answered, others are dropped.
    Stop,
}

/// What the shell has to do.
pub(crate) enum Effect<M> {
    Take(Ask),
    /// Serve a request, which comes without its length; it lies in the given memory.
    Serve(Bytes, Arc<M>),
    /// The first request is overdue: answer it with what is known.
    GiveUp,
    Close(End),
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// One side closed it, or the agent stops.
    Closed,
    /// The client sent a frame that is not allowed; the text says why.
    Refused(String),
    /// What the client asked for is not done, since it may not wait for it any more.
    Stale,
    /// The client sent a request, or read an answer, too slowly.
    Slow,
}

/// Tells whether other connections wait for memory that this one holds, or did since an instant.
pub(crate) trait Others<K> {
    fn want_frame(&self, kind: Kind, length: usize, step: Step, since: Instant) -> bool;
    fn want_answer(&self, kept: &K, since: Instant) -> bool;
}

struct Queued<J, K> {
    pending: Begun<J, K>,
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
    /// The size of the frame that was handed out, until its result is known.
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

    /// Takes an event; yields the effect to perform before the next event, if there is one.
    pub(crate) fn handle(&mut self, now: Instant, event: Event<M, J, K>) -> Option<Effect<M>> {
        match event {
            Event::Read(bytes) => {
                self.inbox.received(now, bytes);
                // A frame that takes long to come is no idleness; its pace has limits of its own.
                self.last_active = now;
            }
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
        if let Some(end) = self.answer(now) {
            return Some(Effect::Close(end));
        }
        if self.is_over() {
            return Some(Effect::Close(End::Closed));
        }
        self.read_on(now)
    }

    /// Queues the request that was handed out last, or its answer.
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

    /// Moves answers from the front of the queue to the outbox while there is room; yields how the
    /// connection is to end, if an answer wants that.
    fn answer(&mut self, now: Instant) -> Option<End> {
        while !self.is_outbox_full() {
            let is_done = |queued: &mut Queued<J, K>| matches!(queued.pending, Begun::Done(_));
            let Some(queued) = self.queue.pop_front_if(is_done) else {
                break;
            };
            self.uncount(&queued);
            self.last_active = now;
            match queued.pending {
                Begun::Done(Reply::Frame { frame, kept }) => self.outbox.push(now, frame, kept),
                Begun::Done(Reply::Close(why)) => return Some(End::Refused(why)),
                Begun::Done(Reply::Stale) => return Some(End::Stale),
                _ => {}
            }
        }
        None
    }

    /// True if no answer may be prepared until some of those before it were sent.
    fn is_outbox_full(&self) -> bool {
        self.outbox.bytes() >= OUTBOX_BYTES
    }

    /// True if nothing is left to do: after the client's end all whole requests are answered first;
    /// after the agent's stop only those that are under way and wait for nobody.
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
            // Otherwise the rest of a chunk would take memory from others for nothing.
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

    fn is_reading(&self) -> bool {
        !self.stopping && self.serving.is_none() && !self.is_entering() && !self.is_full()
    }

    fn is_entering(&self) -> bool {
        let last = self.queue.back().map(|queued| &queued.pending);
        matches!(last, Some(Begun::Entering(_)))
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= REQUESTS_MAX
            || self.in_turn >= IN_TURN_MAX
            // More is read all the same if the inbox holds memory, which others may wait for.
            || self.outbox.bytes() + self.done_bytes >= OUTBOX_BYTES && !self.inbox.holds_memory()
            || self.in_flight_bytes >= self.limits.bulk_bytes_max
    }

    pub(crate) fn wants_bytes(&self) -> bool {
        self.is_reading() && self.inbox.wants_bytes()
    }

    /// The buffer to read into. `beginning` takes memory for the beginning of a frame like the last
    /// one, if some is free.
    pub(crate) fn room(
        &mut self,
        beginning: impl FnOnce(Kind, usize) -> Option<M>,
    ) -> &mut BytesMut {
        self.inbox.room(beginning)
    }

    /// The first request, if it is under way and there is room for its answer.
    pub(crate) fn first(&mut self) -> Option<&mut J> {
        if self.is_outbox_full() {
            return None;
        }
        match &mut self.queue.front_mut()?.pending {
            Begun::Ahead { job, .. } | Begun::InTurn(job) => Some(job),
            Begun::Done(_) | Begun::Entering(_) => None,
        }
    }

    /// The last request, if it is entering: it has to begin before anything else does.
    pub(crate) fn entering(&mut self) -> Option<&mut J> {
        match &mut self.queue.back_mut()?.pending {
            Begun::Entering(job) => Some(job),
            _ => None,
        }
    }

    /// Fills `slices` with the next bytes to write; yields how many slices it filled.
    pub(crate) fn pieces<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.outbox.pieces(slices)
    }

    /// When to call [`Connection::time`], unless an event comes first.
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

    /// Lets time pass: closes a connection that is idle, stops within a request or reads too
    /// slowly, and answers the first request if it is overdue.
    pub(crate) fn time(&mut self, now: Instant, others: &impl Others<K>) -> Option<Effect<M>> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if is_due(self.reading_look_at()) {
            let since = self.inbox.since();
            let mut held = self.inbox.held();
            let is_wanted =
                held.any(|(kind, length, step)| others.want_frame(kind, length, step, since));
            drop(held);
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
                // The request is given up only once.
                *overdue_at = Instant::from_micros(u64::MAX);
            }
            return Some(Effect::GiveUp);
        }
        is_due(self.idle_at()).then_some(Effect::Close(End::Closed))
    }

    /// When the first request is overdue; `None` while there is no room for its answer.
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

    /// When the connection has been idle for too long. Requests in flight have limits of their own,
    /// except one that waits without limit for a client that may be gone.
    fn idle_at(&self) -> Option<Instant> {
        let is_idle = self.queue.is_empty() || !self.outbox.is_empty() || self.input_ended;
        is_idle.then(|| self.last_active + self.limits.idle_max)
    }
}

impl<K> Reply<K> {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Reply::Frame { frame, .. } => frame.len(),
            Reply::Silence | Reply::Close(_) | Reply::Stale => 0,
        }
    }
}
