//! The shell around `connection`: one task moves bytes between a socket and the connection, fetches
//! memory and answers for it, and wakes it in time. It must not decide anything.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use host::clock::Instant;
use host::log_limit::LogLimit;
use host::net::TcpStream;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::connection::{Ask, Connection, Effect, End, Event, Limits, Step};
use super::memory::{Grant, Kept, Lease, Memory};
use super::service::{Begun, Job, Peer, Service};
use crate::metrics::Metrics;

/// Slices in one write: more gain nothing in the kernel.
const PIECES_MAX: usize = 64;
/// Bytes that one connection moves before others get the thread: some hundred microseconds of work.
const TURN_BYTES: usize = 1 << 20;
/// Why a connection is closed in place of an answer to a request that is stale.
const STALE: &str = "this agent may have stood still since the request was sent: its client may have given up, and have asked another agent";

pub(crate) struct Edge<S> {
    pub service: Arc<S>,
    pub memory: Arc<Memory>,
    pub metrics: Arc<Metrics>,
    /// Bounds the log lines that clients can cause.
    pub log: LogLimit,
    pub limits: Limits,
    /// True once the agent stops.
    pub stopping: watch::Receiver<bool>,
}

struct Session<S> {
    edge: Arc<Edge<S>>,
    peer: Peer,
    stream: TcpStream,
    connection: Connection<Grant, Job, Kept>,
    memory: Option<BoxFuture<'static, (Ask, Step, Grant)>>,
    timer: BoxFuture<'static, ()>,
    timer_at: Instant,
    stopping: BoxFuture<'static, ()>,
    is_stopping: bool,
}

enum Stop {
    Ended(End),
    Broken(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Broken(error)
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve<S: Service>(edge: Arc<Edge<S>>, stream: TcpStream, peer: Peer) {
    let mut session = Session::new(Arc::clone(&edge), stream, peer.clone());
    let metrics = &edge.metrics;
    match poll_fn(|cx| session.poll(cx)).await {
        Stop::Ended(End::Closed) => {}
        Stop::Broken(error) => tracing::debug!(peer = %peer.address, %error, "a connection broke"),
        Stop::Ended(End::Refused(why)) => {
            metrics.requests_malformed.increment();
            edge.warn(&peer, &why);
        }
        Stop::Ended(End::Stale) => {
            metrics.requests_stale.increment();
            edge.warn(&peer, STALE);
        }
        Stop::Ended(End::Slow) => {
            metrics.requests_slow.increment();
            edge.warn(&peer, "it sends a request, or reads an answer, too slowly");
        }
    }
}

impl<S> Edge<S> {
    fn warn(&self, peer: &Peer, why: &str) {
        if let Some(left_out) = self.log.pass(host::clock::now()) {
            tracing::warn!(peer = %peer.address, why, left_out, "a connection is closed");
        }
    }
}

impl<S: Service> Session<S> {
    fn new(edge: Arc<Edge<S>>, stream: TcpStream, peer: Peer) -> Self {
        let now = host::clock::now();
        let idle = edge.limits.idle_max;
        let mut stopping = edge.stopping.clone();
        Session {
            peer,
            stream,
            connection: Connection::new(now, edge.limits),
            memory: None,
            timer: host::clock::sleep(idle).boxed(),
            timer_at: now + idle,
            // An error says that the agent is gone, which also means stop.
            stopping: async move { drop(stopping.wait_for(|stop| *stop).await) }.boxed(),
            is_stopping: false,
            edge,
        }
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Stop> {
        match self.turn(cx) {
            Ok(()) => Poll::Pending,
            Err(stop) => Poll::Ready(stop),
        }
    }

    /// Does what can be done now, up to one turn's worth of bytes.
    fn turn(&mut self, cx: &mut TaskContext<'_>) -> Result<(), Stop> {
        if !self.is_stopping && self.stopping.poll_unpin(cx).is_ready() {
            self.is_stopping = true;
            self.handle(Event::Stop)?;
        }
        let mut bytes = 0;
        loop {
            let mut moved = self.poll_jobs(cx)?;
            moved |= self.poll_memory(cx)?;
            let written = self.write(cx)?;
            let read = self.read(cx)?;
            bytes += written + read;
            if bytes >= TURN_BYTES {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            if !moved && written + read == 0 && self.poll_timer(cx)?.is_pending() {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, event: Event<Grant, Job, Kept>) -> Result<(), Stop> {
        let now = host::clock::now();
        let effect = self.connection.handle(now, event);
        self.perform(effect, now)
    }

    /// Performs an effect, and the effects that follow from it.
    fn perform(&mut self, mut next: Option<Effect<Grant>>, now: Instant) -> Result<(), Stop> {
        while let Some(effect) = next {
            let event = match effect {
                Effect::Take(ask) => {
                    let gate = self.edge.memory.gate(ask.kind, ask.length);
                    match gate.try_take(&ask) {
                        Some((step, grant)) => Event::Granted(ask, step, grant),
                        None => {
                            let take = Arc::clone(gate).take(ask);
                            self.memory =
                                Some(take.map(move |(step, grant)| (ask, step, grant)).boxed());
                            return Ok(());
                        }
                    }
                }
                Effect::Serve(frame, grant) => {
                    self.edge.metrics.requests.increment();
                    let lease = Lease::of_frame(grant);
                    let service = &self.edge.service;
                    Event::Last(service.begin(&self.peer, frame, lease, now))
                }
                Effect::GiveUp => {
                    if let Some(Job::Outcome(outcome)) = self.connection.first() {
                        outcome.give_up();
                    }
                    return Ok(());
                }
                Effect::Close(end) => return Err(Stop::Ended(end)),
            };
            next = self.connection.handle(now, event);
        }
        Ok(())
    }

    /// Polls the requests whose results count now: the first in the order, and one that is
    /// entering.
    fn poll_jobs(&mut self, cx: &mut TaskContext<'_>) -> Result<bool, Stop> {
        let mut moved = false;
        while let Some(Poll::Ready(begun)) = self.connection.entering().map(|job| job.poll(cx)) {
            moved = true;
            self.handle(Event::Last(begun))?;
        }
        while let Some(Poll::Ready(begun)) = self.connection.first().map(|job| job.poll(cx)) {
            moved = true;
            self.handle(Event::First(begun))?;
        }
        Ok(moved)
    }

    fn poll_memory(&mut self, cx: &mut TaskContext<'_>) -> Result<bool, Stop> {
        let Some(memory) = &mut self.memory else {
            return Ok(false);
        };
        let Poll::Ready((ask, step, grant)) = memory.poll_unpin(cx) else {
            return Ok(false);
        };
        self.memory = None;
        self.handle(Event::Granted(ask, step, grant))?;
        Ok(true)
    }

    fn write(&mut self, cx: &mut TaskContext<'_>) -> Result<usize, Stop> {
        let mut total = 0;
        while total < TURN_BYTES {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.connection.pieces(&mut slices);
            if count == 0 {
                break;
            }
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => {
                    total += written;
                    self.handle(Event::Written(written))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stream.poll_write_ready(cx)?.is_pending() {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(total)
    }

    fn read(&mut self, cx: &mut TaskContext<'_>) -> Result<usize, Stop> {
        let mut total = 0;
        while total < TURN_BYTES && self.connection.wants_bytes() {
            if self.stream.poll_read_ready(cx)?.is_pending() {
                self.handle(Event::Blocked)?;
                break;
            }
            let memory = &self.edge.memory;
            let room = self
                .connection
                .room(|kind, length| memory.gate(kind, length).try_take_beginning());
            // The future is made anew for each poll: dropping it loses nothing.
            let read = pin!(self.stream.read_buf(room)).poll(cx);
            match read {
                Poll::Ready(Ok(0)) => {
                    self.handle(Event::Ended)?;
                    total += 1;
                }
                Poll::Ready(Ok(bytes)) => {
                    total += bytes;
                    self.handle(Event::Read(bytes))?;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => {
                    self.handle(Event::Blocked)?;
                    break;
                }
            }
        }
        Ok(total)
    }

    /// Wakes the connection in time. Ready if the connection did something.
    fn poll_timer(&mut self, cx: &mut TaskContext<'_>) -> Result<Poll<()>, Stop> {
        let Some(deadline) = self.connection.deadline() else {
            return Ok(Poll::Pending);
        };
        // A timer that fires early is armed again: most deadlines move on before they come.
        if deadline < self.timer_at {
            self.arm(deadline);
        }
        while self.timer.poll_unpin(cx).is_ready() {
            let now = host::clock::now();
            if now >= deadline {
                let memory = Arc::clone(&self.edge.memory);
                let effect = self.connection.time(now, &*memory);
                // The next look sets the timer again.
                self.timer = std::future::pending().boxed();
                self.timer_at = Instant::from_micros(u64::MAX);
                self.perform(effect, now)?;
                return Ok(Poll::Ready(()));
            }
            self.arm(deadline);
        }
        Ok(Poll::Pending)
    }

    fn arm(&mut self, at: Instant) {
        let wait = at.since(host::clock::now()).max(Duration::from_millis(1));
        self.timer = host::clock::sleep(wait).boxed();
        self.timer_at = at;
    }
}

impl Job {
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Begun> {
        match self {
            Job::Outcome(outcome) => outcome.poll_unpin(cx).map(Begun::Done),
            Job::Future(future) => future.poll_unpin(cx),
        }
    }
}
