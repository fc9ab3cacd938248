//! The network of a simulated town: connections are two pipes of bytes with latency, in which messages
//! are held up, cut off or lost with the whole connection. Like TCP it keeps the order of what is sent,
//! and loses nothing but all. It must not know what is spoken.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};

use super::Place;
use super::executor::{Sleep, World, world};
use super::machine::Death;
use crate::rng::generator::Rng;

/// Bytes that a pipe holds before its writer waits.
const PIPE_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted; more are refused.
const BACKLOG: usize = 1024;
/// The ports of those who dial begin here.
const FIRST_PORT: u16 = 32_768;
const MILLION: u64 = 1_000_000;

/// How quick and how sound the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The least that a message takes, and how much more it may.
    pub latency_us: u64,
    pub jitter_us: u64,
    /// Of a million messages, how many are held up, and for how long at most.
    pub held_per_million: u64,
    pub held_us: u64,
    /// Of a million messages, how many break their connection instead.
    pub reset_per_million: u64,
}

impl Weather {
    /// A good network.
    pub const FAIR: Weather = Weather {
        latency_us: 150,
        jitter_us: 400,
        held_per_million: 0,
        held_us: 0,
        reset_per_million: 0,
    };
}

/// How a pipe ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// After everything sent before.
    Closed,
    /// At once; what was under way is lost.
    Reset,
}

/// One direction of a connection.
struct Pipe {
    from: Place,
    to: Place,
    /// What is under way or unread, with the time at which it arrives.
    queue: VecDeque<(u64, Vec<u8>)>,
    /// Of the first of them, what was read.
    read: usize,
    bytes: usize,
    last_us: u64,
    end: Option<(u64, End)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Nobody will read it.
    is_deaf: bool,
}

impl Pipe {
    fn new(from: Place, to: Place) -> Self {
        Pipe {
            from,
            to,
            queue: VecDeque::new(),
            read: 0,
            bytes: 0,
            last_us: 0,
            end: None,
            reader: None,
            writer: None,
            is_deaf: false,
        }
    }

    /// When something happens to its reader next.
    fn next_us(&self) -> Option<u64> {
        let end = self.end.map(|(at_us, _)| at_us);
        let data = self.queue.front().map(|(at_us, _)| *at_us);
        data.into_iter().chain(end).min()
    }

    fn has_ended(&self, now_us: u64) -> Option<End> {
        let ended = self.end.filter(|(at_us, _)| *at_us <= now_us);
        ended.map(|(_, end)| end)
    }
}

struct Listening {
    backlog: VecDeque<(u64, SocketAddr)>,
    accepting: Option<Waker>,
}

pub(super) struct Network {
    pub(super) weather: Weather,
    pub(super) disturbances: u64,
    rng: Rng,
    listening: BTreeMap<SocketAddr, Listening>,
    /// By connection and the side that writes: 0 dialled.
    pipes: BTreeMap<(u64, u8), Pipe>,
    cuts: BTreeMap<(Place, Place), u64>,
}

/// Whom to wake, and when.
pub(super) type Wakes = Vec<(u64, Waker)>;

impl Network {
    pub(super) fn new(rng: Rng) -> Self {
        Network {
            weather: Weather::FAIR,
            disturbances: 0,
            rng,
            listening: BTreeMap::new(),
            pipes: BTreeMap::new(),
            cuts: BTreeMap::new(),
        }
    }

    pub(super) fn cut(&mut self, from: Place, to: Place, until_us: u64) {
        let cut = self.cuts.entry((from, to)).or_default();
        *cut = until_us.max(*cut);
    }

    pub(super) fn cut_until(&self, from: Place, to: Place, now_us: u64) -> Option<u64> {
        let cut = self.cuts.get(&(from, to));
        cut.copied().filter(|until_us| *until_us > now_us)
    }

    /// Ends all cuts; what they held back arrives within moments.
    pub(super) fn heal(&mut self, now_us: u64) -> Wakes {
        self.cuts.clear();
        let mut wakes = Vec::new();
        for pipe in self.pipes.values_mut() {
            let soon_us = now_us + self.weather.latency_us;
            let held = pipe.queue.iter_mut().map(|(at_us, _)| at_us);
            let end = pipe.end.iter_mut().map(|(at_us, _)| at_us);
            held.chain(end)
                .for_each(|at_us| *at_us = soon_us.min(*at_us));
            pipe.last_us = pipe.last_us.min(soon_us);
            wakes.extend(pipe.reader.take().map(|reader| (soon_us, reader)));
        }
        wakes
    }

    /// When a message that is sent now arrives.
    fn arrival_us(&mut self, from: Place, to: Place, now_us: u64) -> u64 {
        let Weather {
            latency_us,
            jitter_us,
            held_per_million,
            held_us,
            ..
        } = self.weather;
        let start_us = self.cut_until(from, to, now_us).unwrap_or(now_us);
        let mut after_us = latency_us + self.rng.below(jitter_us + 1);
        if self.strikes(held_per_million) {
            after_us += self.rng.below(held_us + 1);
        }
        start_us.saturating_add(after_us)
    }

    fn strikes(&mut self, per_million: u64) -> bool {
        let strikes = per_million > 0 && self.rng.below(MILLION) < per_million;
        self.disturbances += u64::from(strikes);
        strikes
    }

    /// Ends what `side` writes, and takes note that it reads no more.
    fn leave(&mut self, connection: u64, side: u8, end: End, now_us: u64) -> Wakes {
        let mut wakes = Wakes::new();
        let mut unread = false;
        if let Some(pipe) = self.pipes.get_mut(&(connection, 1 - side)) {
            pipe.is_deaf = true;
            unread = !pipe.queue.is_empty();
            wakes.extend(pipe.writer.take().map(|writer| (now_us, writer)));
        }
        let end = if unread { End::Reset } else { end };
        if let Some(pipe) = self.pipes.get(&(connection, side)) {
            let (from, to, last_us) = (pipe.from, pipe.to, pipe.last_us);
            let at_us = self.arrival_us(from, to, now_us).max(last_us);
            wakes.extend(self.end_pipe(connection, side, end, at_us));
        }
        let is_over = |side| {
            self.pipes
                .get(&(connection, side))
                .is_none_or(|p| p.is_deaf)
        };
        if is_over(0) && is_over(1) {
            self.pipes.remove(&(connection, 0));
            self.pipes.remove(&(connection, 1));
        }
        wakes
    }

    fn end_pipe(&mut self, connection: u64, side: u8, end: End, at_us: u64) -> Wakes {
        let mut wakes = Wakes::new();
        if let Some(pipe) = self.pipes.get_mut(&(connection, side))
            && pipe.end.is_none()
        {
            pipe.end = Some((at_us, end));
            wakes.extend(pipe.reader.clone().map(|reader| (at_us, reader)));
        }
        // The reader of an ended pipe may wait to write, and shall hear of it.
        if let Some(other) = self.pipes.get_mut(&(connection, 1 - side)) {
            wakes.extend(other.writer.take().map(|writer| (at_us, writer)));
        }
        wakes
    }
}

impl World {
    pub(super) fn wake_all(&self, wakes: Wakes) {
        for (at_us, waker) in wakes {
            self.wake_at(at_us, waker);
        }
    }

    fn leave(&self, connection: u64, side: u8) {
        let end = match self.death() {
            // Its peer waits for what never comes.
            Some(Death::Silent) => return self.go_silent(connection, side),
            Some(Death::Killed) => End::Reset,
            None => End::Closed,
        };
        let now_us = self.now_us();
        let wakes = self.network(|network| network.leave(connection, side, end, now_us));
        self.wake_all(wakes);
    }

    fn go_silent(&self, connection: u64, side: u8) {
        self.network(|network| {
            if let Some(pipe) = network.pipes.get_mut(&(connection, 1 - side)) {
                pipe.is_deaf = true;
                pipe.queue.clear();
                pipe.bytes = 0;
            }
        });
    }
}

/// Waits for connections to one address.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
}

/// Listens on an address of this machine; port 0 is some free one.
pub(crate) fn listen(address: SocketAddr) -> io::Result<Listener> {
    let world = super::here();
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(world.place().ip()),
        ip => ip,
    };
    world.network(|network| {
        let mut port = address.port().max(1);
        while address.port() == 0 && network.listening.contains_key(&SocketAddr::new(ip, port)) {
            port += 1;
        }
        let address = SocketAddr::new(ip, port);
        let listening = Listening {
            backlog: VecDeque::new(),
            accepting: None,
        };
        if network.listening.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        network.listening.insert(address, listening);
        Ok(Listener { address })
    })
}

impl Listener {
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<(Stream, SocketAddr)> {
        super::here().network(|network| {
            let Some(listening) = network.listening.get_mut(&self.address) else {
                return Poll::Pending;
            };
            let Some((connection, peer)) = listening.backlog.pop_front() else {
                listening.accepting = Some(cx.waker().clone());
                return Poll::Pending;
            };
            Poll::Ready((
                Stream {
                    connection,
                    side: 1,
                },
                peer,
            ))
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(world) = world() else { return };
        let listening = world.network(|network| network.listening.remove(&self.address));
        for (connection, _) in listening.into_iter().flat_map(|gone| gone.backlog) {
            world.leave(connection, 1);
        }
    }
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    connection: u64,
    side: u8,
}

/// Connects to an address; refused after a round trip if nobody listens there.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<Stream> {
    let (from, connection) = {
        let world = super::here();
        (world.place(), world.next_id())
    };
    let to = Place::of(address).ok_or(io::ErrorKind::HostUnreachable)?;
    let peer_port = FIRST_PORT + (connection % u64::from(u16::MAX - FIRST_PORT)) as u16;
    let peer = SocketAddr::new(IpAddr::V4(from.ip()), peer_port);
    travel(from, to).await;
    let is_taken = super::here().network(|network| {
        let listening = network.listening.get_mut(&address);
        let Some(listening) = listening.filter(|one| one.backlog.len() < BACKLOG) else {
            return false;
        };
        listening.backlog.push_back((connection, peer));
        if let Some(accepting) = listening.accepting.take() {
            accepting.wake();
        }
        for (side, pair) in [(0, (from, to)), (1, (to, from))] {
            network
                .pipes
                .insert((connection, side), Pipe::new(pair.0, pair.1));
        }
        true
    });
    let stream = is_taken.then_some(Stream {
        connection,
        side: 0,
    });
    travel(to, from).await;
    stream.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
}

/// Sleeps for as long as a message takes.
fn travel(from: Place, to: Place) -> Sleep {
    let world = super::here();
    let now_us = world.now_us();
    let at_us = world.network(|network| network.arrival_us(from, to, now_us));
    world.sleep_us(at_us.saturating_sub(now_us))
}

impl Stream {
    /// Takes what there is room for; `WouldBlock` if there is none.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let world = super::here();
        let now_us = world.now_us();
        let (written, wakes) = world.network(|network| self.write(network, slices, now_us))?;
        world.wake_all(wakes);
        Ok(written)
    }

    fn write(
        &self,
        network: &mut Network,
        slices: &[IoSlice<'_>],
        now_us: u64,
    ) -> io::Result<(usize, Wakes)> {
        if let Some(end) = network.ended(self.connection, 1 - self.side, now_us) {
            return Err(match end {
                End::Reset => io::ErrorKind::ConnectionReset.into(),
                End::Closed => io::ErrorKind::BrokenPipe.into(),
            });
        }
        let own = (self.connection, self.side);
        let Some(pipe) = network.pipes.get(&own) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if pipe.is_deaf {
            // It will hear of that; what it sends until then is lost.
            return Ok((wanted, Wakes::new()));
        }
        let room = PIPE_BYTES.saturating_sub(pipe.bytes).min(wanted);
        if room == 0 && wanted > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (from, to, last_us) = (pipe.from, pipe.to, pipe.last_us);
        let at_us = network.arrival_us(from, to, now_us).max(last_us);
        if network.strikes(network.weather.reset_per_million) {
            let mut wakes = network.end_pipe(self.connection, 0, End::Reset, at_us);
            wakes.extend(network.end_pipe(self.connection, 1, End::Reset, at_us));
            return Ok((room, wakes));
        }
        let mut bytes = Vec::with_capacity(room);
        for slice in slices {
            let taken = slice.len().min(room - bytes.len());
            bytes.extend_from_slice(&slice[..taken]);
        }
        let mut wakes = Wakes::new();
        if let Some(pipe) = network.pipes.get_mut(&own) {
            pipe.queue.push_back((at_us, bytes));
            pipe.bytes += room;
            pipe.last_us = at_us;
            // It stays noted: what a cut holds back for long may come at once when that heals.
            wakes.extend(pipe.reader.clone().map(|reader| (at_us, reader)));
        }
        Ok((room, wakes))
    }

    /// Ready once there is room, or writing fails.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let world = super::here();
        let now_us = world.now_us();
        world.network(|network| {
            let has_ended = network
                .ended(self.connection, 1 - self.side, now_us)
                .is_some();
            match network.pipes.get_mut(&(self.connection, self.side)) {
                Some(pipe) if !has_ended && !pipe.is_deaf && pipe.bytes >= PIPE_BYTES => {
                    pipe.writer = Some(cx.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
    }

    /// Ready once reading would give something.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let world = super::here();
        let now_us = world.now_us();
        let (polled, wakes) = world.network(|network| {
            match network.pipes.get_mut(&(self.connection, 1 - self.side)) {
                Some(pipe) => pipe.poll_readable(cx, now_us),
                None => (Poll::Ready(()), Wakes::new()),
            }
        });
        world.wake_all(wakes);
        polled
    }

    /// Reads into `buffer`; zero at the end of what comes.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let world = super::here();
        let now_us = world.now_us();
        let (polled, wakes) = world.network(|network| {
            let Some(pipe) = network.pipes.get_mut(&(self.connection, 1 - self.side)) else {
                return (Poll::Ready(Ok(0)), Wakes::new());
            };
            pipe.poll_read(cx, buffer, now_us)
        });
        world.wake_all(wakes);
        polled
    }

    /// Says that nothing more will be written.
    pub(crate) fn shut_down(&self) {
        let world = super::here();
        let now_us = world.now_us();
        let wakes = world.network(|network| {
            let own = (self.connection, self.side);
            let Some(pipe) = network.pipes.get(&own) else {
                return Wakes::new();
            };
            let (from, to, last_us) = (pipe.from, pipe.to, pipe.last_us);
            let at_us = network.arrival_us(from, to, now_us).max(last_us);
            network.end_pipe(self.connection, self.side, End::Closed, at_us)
        });
        world.wake_all(wakes);
    }
}

impl Network {
    /// How the pipe that this side writes has ended, for who reads it.
    fn ended(&self, connection: u64, side: u8, now_us: u64) -> Option<End> {
        match self.pipes.get(&(connection, side)) {
            // Half of a connection may be closed alone: then the other is still heard.
            Some(pipe) => pipe
                .has_ended(now_us)
                .filter(|end| *end == End::Reset || self.is_left(connection, side)),
            None => Some(End::Closed),
        }
    }

    /// Whether this side reads no more either.
    fn is_left(&self, connection: u64, side: u8) -> bool {
        let other = self.pipes.get(&(connection, 1 - side));
        other.is_none_or(|pipe| pipe.is_deaf)
    }
}

impl Pipe {
    /// Ready once there is something to read, or nothing will come any more.
    fn poll_readable(&mut self, cx: &mut Context<'_>, now_us: u64) -> (Poll<()>, Wakes) {
        let is_readable = match self.queue.front() {
            Some((at_us, _)) if *at_us <= now_us => true,
            Some(_) => self.has_ended(now_us) == Some(End::Reset),
            None => self.has_ended(now_us).is_some(),
        };
        if is_readable {
            return (Poll::Ready(()), Wakes::new());
        }
        self.reader = Some(cx.waker().clone());
        let wake = self.next_us().map(|at_us| (at_us, cx.waker().clone()));
        (Poll::Pending, wake.into_iter().collect())
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        now_us: u64,
    ) -> (Poll<io::Result<usize>>, Wakes) {
        if let (Poll::Pending, wakes) = self.poll_readable(cx, now_us) {
            return (Poll::Pending, wakes);
        }
        if self.has_ended(now_us) == Some(End::Reset) {
            let error = io::ErrorKind::ConnectionReset.into();
            return (Poll::Ready(Err(error)), Wakes::new());
        }
        let mut count = 0;
        while let Some((at_us, bytes)) = self.queue.front()
            && *at_us <= now_us
            && count < buffer.len()
        {
            let rest = &bytes[self.read..];
            let taken = rest.len().min(buffer.len() - count);
            buffer[count..count + taken].copy_from_slice(&rest[..taken]);
            count += taken;
            self.read += taken;
            if self.read == bytes.len() {
                self.queue.pop_front();
                self.read = 0;
            }
        }
        self.bytes -= count;
        let writer = self.writer.take_if(|_| count > 0);
        let wake = writer.map(|writer| (now_us, writer));
        (Poll::Ready(Ok(count)), wake.into_iter().collect())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(world) = world() {
            world.leave(self.connection, self.side);
        }
    }
}
