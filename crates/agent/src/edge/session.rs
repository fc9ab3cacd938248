//! One connection: frames in, answers out, strictly in the order of the requests. One task does it
//! all. A produce request goes into the pipeline as soon as it is read, so that several are in
//! flight at one time; every other request begins when those before it are answered, as in Kafka.
//! It must not know what requests mean: `api` answers them.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use host::budget::Held;
use host::clock::Instant;
use host::net::TcpStream;

use crate::api::produce::{Pending, Submitted};
use crate::api::{self, Reply};
use crate::context::Context;
use crate::data::produce::Lane;
use crate::edge::memory::{HALT_MAX, Pace};

mod inbox;

use inbox::{Inbox, Received};

/// Requests in flight on one connection; more are read when these are answered.
const REQUESTS_MAX: usize = 64;
/// Requests other than Produce that are read before those before them are answered: none of them
/// begins before.
const OTHERS_MAX: usize = 4;
/// What is decoded from a produce request takes no more memory than its frame, since a batch is
/// longer than what is said of it; and this much on top, for those without batches.
const PRODUCE_DECODED_BYTES_FREE: usize = 4 << 10;
/// Pieces in one write: beyond this the kernel gains nothing.
const PIECES_MAX: usize = 64;
/// When nothing is due.
const FAR: Duration = Duration::from_secs(3_600);
/// Bytes that wait to be sent before the next answer is prepared.
const OUTBOX_BYTES: usize = 64 << 10;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    pub lane: Lane,
}

/// A request in its place in the order of answers.
enum Slot {
    Produce(Box<Pending>),
    /// Looks for its topics; `Session::submitting` has it.
    Submitting,
    /// Begins when it is first in the order.
    Other(BoxFuture<'static, Reply>),
    Done(Reply),
}

/// A slot, and the size of its request.
struct Place {
    slot: Slot,
    bytes: u64,
}

struct Session {
    context: Arc<Context>,
    peer: Peer,
    stream: TcpStream,
    inbox: Inbox,
    places: VecDeque<Place>,
    in_flight_bytes: u64,
    /// Requests other than Produce among the places.
    others: usize,
    /// Bytes of the answers among the places.
    done_bytes: usize,
    /// A produce request that has to look for its topics first; nothing is read meanwhile, so that
    /// nothing overtakes it.
    submitting: Option<BoxFuture<'static, Submitted>>,
    outbox: VecDeque<Bytes>,
    outbox_bytes: usize,
    /// Answers in the outbox: their bytes left, and what these keep alive.
    sending: VecDeque<(usize, api::Keep)>,
    /// Bytes sent since the outbox was empty, and how quickly.
    sent_bytes: usize,
    sending_pace: Pace,
    last_active: Instant,
    timer: BoxFuture<'static, ()>,
    timer_at: Instant,
    stopping: BoxFuture<'static, ()>,
    /// No more requests are read.
    closing: bool,
    /// When last looked at, it was this side that did not read.
    paused: bool,
}

/// How a connection ended.
enum End {
    /// One side closed it, or the agent stops.
    Closed,
    Broken(io::Error),
    /// The client sent what it may not send.
    Refused(String),
    /// The client sent a request, or read an answer, too slowly.
    Slow,
}

/// Serves one connection until it ends.
pub(crate) async fn serve(context: Arc<Context>, stream: TcpStream, peer: Peer) {
    let mut session = Session::new(Arc::clone(&context), stream, peer.clone());
    match poll_fn(|cx| session.poll(cx)).await {
        End::Closed => {}
        End::Broken(error) => tracing::debug!(peer = %peer.address, %error, "a connection broke"),
        End::Refused(why) => {
            context.metrics.requests_malformed.increment();
            warn(&context, &peer, &why);
        }
        End::Slow => {
            context.metrics.requests_slow.increment();
            warn(
                &context,
                &peer,
                "it sends a request, or reads an answer, too slowly",
            );
        }
    }
}

fn warn(context: &Context, peer: &Peer, why: &str) {
    if let Some(left_out) = context.log.pass(host::clock::now()) {
        tracing::warn!(peer = %peer.address, why, left_out, "a connection is closed");
    }
}

impl Session {
    fn new(context: Arc<Context>, stream: TcpStream, peer: Peer) -> Self {
        let now = host::clock::now();
        let idle = context.settings.connections_max_idle;
        let mut stopping = context.stopping.clone();
        Session {
            inbox: Inbox::new(context.settings.socket_request_max_bytes as usize),
            peer,
            stream,
            places: VecDeque::new(),
            in_flight_bytes: 0,
            others: 0,
            done_bytes: 0,
            submitting: None,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            sending: VecDeque::new(),
            sent_bytes: 0,
            sending_pace: Pace::begin(now, 0),
            last_active: now,
            timer: host::clock::sleep(idle).boxed(),
            timer_at: now + idle,
            // An error says that the agent is gone, which is as good.
            stopping: async move { drop(stopping.wait_for(|stop| *stop).await) }.boxed(),
            closing: false,
            paused: false,
            context,
        }
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<End> {
        if !self.closing && self.stopping.as_mut().poll(cx).is_ready() {
            self.closing = true;
        }
        loop {
            let mut moved = match self.answer(cx) {
                Ok(moved) => moved,
                Err(end) => return Poll::Ready(end),
            };
            match self.send(cx) {
                Ok(sent) => moved |= sent,
                Err(error) => return Poll::Ready(End::Broken(error)),
            }
            match self.receive(cx) {
                Ok(received) => moved |= received,
                Err(end) => return Poll::Ready(end),
            }
            if self.is_over() {
                return Poll::Ready(End::Closed);
            }
            if !moved {
                return self.poll_timer(cx);
            }
        }
    }

    /// When the agent stops, what is in the pipeline is still answered; what has not begun, or waits
    /// for others, is not.
    fn is_over(&self) -> bool {
        let begun = self
            .places
            .front()
            .is_some_and(|place| !matches!(place.slot, Slot::Other(_)));
        self.closing && self.outbox.is_empty() && !begun
    }

    /// Moves answers, first come first, to the outbox.
    fn answer(&mut self, cx: &mut TaskContext<'_>) -> Result<bool, End> {
        let mut moved = self.poll_submitting(cx);
        while !self.is_outbox_full() {
            let Some(place) = self.places.front_mut() else {
                break;
            };
            let reply = match &mut place.slot {
                Slot::Produce(pending) => match pending.poll(cx) {
                    Poll::Ready(reply) => reply,
                    Poll::Pending => break,
                },
                Slot::Other(future) => match future.poll_unpin(cx) {
                    Poll::Ready(reply) => reply,
                    Poll::Pending => break,
                },
                Slot::Submitting => break,
                Slot::Done(reply) => {
                    self.done_bytes -= reply.bytes();
                    std::mem::take(reply)
                }
            };
            moved = true;
            if let Some(place) = self.places.pop_front() {
                self.in_flight_bytes -= place.bytes;
                self.others -= usize::from(matches!(place.slot, Slot::Other(_)));
            }
            self.last_active = host::clock::now();
            match reply {
                Reply::Frame { frame, keep } => {
                    if self.outbox.is_empty() {
                        self.sent_bytes = 0;
                        self.sending_pace = Pace::begin(self.last_active, 0);
                    }
                    self.outbox_bytes += frame.len();
                    self.sending.push_back((frame.len(), keep));
                    self.outbox.extend(frame.into_pieces());
                }
                Reply::Silence => {}
                Reply::Close(why) => return Err(End::Refused(why)),
            }
        }
        Ok(moved)
    }

    /// True if no answer is prepared until some of those before it was sent.
    fn is_outbox_full(&self) -> bool {
        self.outbox_bytes >= OUTBOX_BYTES
    }

    fn poll_submitting(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let Some(submitting) = &mut self.submitting else {
            return false;
        };
        let Poll::Ready(submitted) = submitting.poll_unpin(cx) else {
            return false;
        };
        self.submitting = None;
        if let Some(place) = self.places.back_mut() {
            place.slot = submitted.into();
            self.done_bytes += place.slot.done_bytes();
        }
        true
    }

    fn send(&mut self, cx: &mut TaskContext<'_>) -> io::Result<bool> {
        let mut moved = false;
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            for (slice, piece) in slices.iter_mut().zip(&self.outbox) {
                *slice = IoSlice::new(piece);
            }
            let count = self.outbox.len().min(PIECES_MAX);
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.sent(written);
                    moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stream.poll_write_ready(cx)?.is_pending() {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    fn sent(&mut self, mut bytes: usize) {
        self.outbox_bytes -= bytes;
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        self.last_active = host::clock::now();
        let mut left = bytes;
        while let Some((answer, _)) = self.sending.front_mut() {
            if left < *answer {
                *answer -= left;
                break;
            }
            left -= *answer;
            self.sending.pop_front();
        }
        while let Some(piece) = self.outbox.front_mut() {
            if bytes < piece.len() {
                piece.advance(bytes);
                return;
            }
            bytes -= piece.len();
            self.outbox.pop_front();
        }
    }

    /// True if the connection has as much in flight as one may have.
    fn is_full(&self) -> bool {
        self.places.len() >= REQUESTS_MAX
            || self.others >= OTHERS_MAX
            // Unless that would keep memory from others.
            || self.outbox_bytes + self.done_bytes >= OUTBOX_BYTES && !self.inbox.holds_memory()
            || self.in_flight_bytes >= u64::from(self.context.settings.socket_request_max_bytes)
    }

    fn receive(&mut self, cx: &mut TaskContext<'_>) -> Result<bool, End> {
        let mut moved = false;
        if self.paused && self.is_reading() {
            self.inbox.excuse_halt();
        }
        while self.is_reading() {
            match self.inbox.poll(cx, &mut self.stream, &self.context) {
                Poll::Pending => break,
                Poll::Ready(Ok(Received { frame, held })) => {
                    moved = true;
                    self.last_active = host::clock::now();
                    self.take(frame, held)?;
                }
                Poll::Ready(Err(inbox::Error::Closed)) => return Err(End::Closed),
                Poll::Ready(Err(inbox::Error::Broken(error))) => return Err(End::Broken(error)),
                Poll::Ready(Err(inbox::Error::Refused(why))) => return Err(End::Refused(why)),
            }
        }
        self.paused = !self.is_reading();
        Ok(moved)
    }

    /// True if the next request may be read now.
    fn is_reading(&self) -> bool {
        !self.closing && self.submitting.is_none() && !self.is_full()
    }

    /// Puts a request in its place.
    fn take(&mut self, frame: Bytes, held: Held) -> Result<(), End> {
        let now = self.last_active;
        let bytes = frame.len() as u64;
        self.context.metrics.requests.increment();
        let slot = if !api::is_produce(&frame) {
            let (context, peer) = (Arc::clone(&self.context), self.peer.clone());
            Slot::Other(api::serve(context, peer, frame, held).boxed())
        } else {
            let bytes_max = frame.len() + PRODUCE_DECODED_BYTES_FREE;
            match wire::frame::decode_request_within(&frame, bytes_max) {
                Ok((header, wire::messages::Request::Produce(request), _)) => {
                    let request =
                        api::produce::Incoming::new((header, request), (held, bytes), now);
                    match api::produce::submit(&self.context, &self.peer, request) {
                        Ok(submitted) => submitted.into(),
                        Err(submitting) => {
                            self.submitting = Some(submitting);
                            Slot::Submitting
                        }
                    }
                }
                Ok(_) => return Err(End::Refused("a request out of its way".to_owned())),
                Err(error) => return Err(End::Refused(error.to_string())),
            }
        };
        self.in_flight_bytes += bytes;
        self.others += usize::from(matches!(slot, Slot::Other(_)));
        self.done_bytes += slot.done_bytes();
        self.places.push_back(Place { slot, bytes });
        Ok(())
    }

    /// When the sender of the first request stops waiting for its outcome. That is of no interest while
    /// its answer would find no room.
    fn gives_up_at(&self) -> Option<Instant> {
        let first = self.places.front().map(|place| &place.slot);
        match first {
            Some(Slot::Produce(pending)) if !self.is_outbox_full() => Some(pending.deadline()),
            _ => None,
        }
    }

    /// Lets time pass: a connection that is idle or stops in a request for too long ends, and a
    /// produce request whose sender has given up is answered.
    fn poll_timer(&mut self, cx: &mut TaskContext<'_>) -> Poll<End> {
        let idle_at = self.last_active + self.context.settings.connections_max_idle;
        let gives_up_at = self.gives_up_at();
        let next = match gives_up_at {
            Some(at) => at,
            // Whatever else is in flight has limits of its own.
            None if !self.places.is_empty() && self.outbox.is_empty() => host::clock::now() + FAR,
            None => idle_at,
        };
        let halt_max = HALT_MAX.min(self.context.settings.connections_max_idle);
        let reading_at = self.inbox.look_at(halt_max).filter(|_| !self.paused);
        let sending = !self.outbox.is_empty();
        let sending_at = sending.then(|| self.sending_pace.look_at(Duration::MAX));
        let look_at = reading_at.into_iter().chain(sending_at).min();
        let next = look_at.map_or(next, |at| next.min(at));
        if next < self.timer_at {
            self.arm(next);
        }
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            let now = host::clock::now();
            if look_at.is_some_and(|at| now >= at) {
                if reading_at.is_some_and(|at| now >= at) && self.inbox.is_too_slow(now, halt_max) {
                    return Poll::Ready(End::Slow);
                }
                if sending && self.reads_too_slowly(now) {
                    return Poll::Ready(End::Slow);
                }
                // What is due next is known by the next look.
                self.arm(now + FAR);
                return self.poll_timer(cx);
            }
            if now >= next {
                let first = self.places.front_mut().map(|place| &mut place.slot);
                let (Some(_), Some(Slot::Produce(pending))) = (gives_up_at, first) else {
                    return Poll::Ready(End::Closed);
                };
                pending.give_up();
                cx.waker().wake_by_ref();
                self.arm(now + Duration::from_secs(1));
                continue;
            }
            self.arm(next);
        }
        Poll::Pending
    }

    /// Whether the client reads its answers too slowly, while others wait for their memory.
    fn reads_too_slowly(&mut self, now: Instant) -> bool {
        let (context, since) = (&self.context, self.sending_pace.since());
        let holds_produce = || {
            let mut sending = self.sending.iter();
            sending.any(|(_, keep)| keep.of_produce.is_some())
        };
        let is_wanted = context.answers.is_wanted(since)
            || context.cache.is_wanted(since)
            || holds_produce() && context.memory.produce_answers().is_wanted_since(since);
        let bytes = self.sent_bytes.saturating_add(self.outbox_bytes);
        let never = Duration::MAX;
        self.sending_pace
            .is_too_slow(now, (self.sent_bytes, bytes), is_wanted, never)
    }

    fn arm(&mut self, at: Instant) {
        let wait = at.since(host::clock::now()).max(Duration::from_millis(1));
        self.timer = host::clock::sleep(wait).boxed();
        self.timer_at = at;
    }
}

impl Slot {
    /// The size of its answer, if it has one.
    fn done_bytes(&self) -> usize {
        match self {
            Slot::Done(reply) => reply.bytes(),
            _ => 0,
        }
    }
}

impl From<Submitted> for Slot {
    fn from(submitted: Submitted) -> Self {
        match submitted {
            Submitted::Waiting(pending) => Slot::Produce(pending),
            Submitted::Answered(reply) => Slot::Done(reply),
        }
    }
}
