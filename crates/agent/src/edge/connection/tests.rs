//! Connections over a simulated machine: random schedules of bytes, memory, answers and time; then directed ones.

use std::cell::Cell;
use std::rc::Rc;

use host::rng::Rng;

use super::inbox::PREFIX_ROOM;
use super::*;

const KIB: usize = 1 << 10;
const LIMITS: Limits = Limits {
    bulk_bytes_max: 600 * KIB,
    other_bytes_max: 100 * KIB,
    idle_max: Duration::from_secs(600),
    kind_of,
};

/// The kind of a frame, as in Kafka: the API number of Produce is 0.
fn kind_of(prefix: &[u8]) -> Kind {
    if prefix == [0, 0] {
        Kind::Bulk
    } else {
        Kind::Other
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// The free memory of one kind and step.
struct Pool {
    free: Cell<usize>,
    total: usize,
}

impl Pool {
    fn of(total: usize) -> Rc<Self> {
        Rc::new(Pool {
            free: Cell::new(total),
            total,
        })
    }

    fn take(self: &Rc<Self>, bytes: usize) -> Option<Token> {
        let bytes = bytes.min(self.total);
        let free = self.free.get().checked_sub(bytes)?;
        self.free.set(free);
        Some(Token {
            pool: Rc::clone(self),
            bytes,
        })
    }
}

struct Token {
    pool: Rc<Pool>,
    bytes: usize,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.pool.free.set(self.pool.free.get() + self.bytes);
    }
}

struct Pools {
    beginnings: Rc<Pool>,
    whole: [Rc<Pool>; 2],
}

impl Pools {
    fn whole(&self, kind: Kind) -> &Rc<Pool> {
        &self.whole[usize::from(kind == Kind::Other)]
    }

    fn take(&self, ask: &Ask) -> Option<(Step, Token)> {
        Some(match ask.step {
            Step::Whole => (Step::Whole, self.whole(ask.kind).take(ask.cost)?),
            _ => (Step::Beginning, self.beginnings.take(BEGINNING_BYTES)?),
        })
    }
}

/// A request under way: its number in the order of its connection, and its memory.
struct Job {
    number: u32,
    _memory: Arc<Token>,
    /// Whether it waits for its turn once it has entered.
    then_in_turn: bool,
}

type Core = Connection<Token, Job, ()>;
type Done = Event<Token, Job, ()>;

fn frame(number: u32, kind: Kind, bytes: usize) -> Vec<u8> {
    let mut frame = Vec::from(u32::try_from(bytes).unwrap().to_be_bytes());
    frame.extend(if kind == Kind::Bulk { [0, 0] } else { [0, 9] });
    frame.extend(number.to_be_bytes());
    frame.resize(bytes + 4, number as u8);
    frame
}

fn reply(number: u32) -> Reply<()> {
    let mut frame = Rope::new();
    frame.push(Bytes::copy_from_slice(&number.to_be_bytes()));
    Reply::Frame { frame, kept: () }
}

/// A client, its connection, and the requests under way on it.
struct Client {
    core: Core,
    /// All that the client sends, and how much of it has come and was read.
    bytes: Vec<u8>,
    come: usize,
    read: usize,
    asked: Option<Ask>,
    served: u32,
    sent: u32,
    received: Vec<u8>,
    closed: Option<End>,
    ended: bool,
}

struct World {
    rng: Rng,
    now: Instant,
    pools: Pools,
    clients: Vec<Client>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let pools = Pools {
            beginnings: Pool::of((1 + rng.below(3) as usize) * BEGINNING_BYTES),
            whole: [Pool::of(700 * KIB), Pool::of(110 * KIB)],
        };
        let clients = (0..1 + rng.below(4))
            .map(|_| Client::new(&mut rng))
            .collect();
        World {
            rng,
            now: at(0),
            pools,
            clients,
        }
    }

    /// Feeds an event to a client's connection and performs the effects.
    fn feed(&mut self, which: usize, event: Done) {
        let client = &mut self.clients[which];
        let mut next = client.core.handle(self.now, event);
        while let Some(effect) = next.take() {
            match effect {
                Effect::Take(ask) => {
                    assert!(client.asked.is_none(), "one thing at a time is asked for");
                    client.asked = Some(ask);
                }
                Effect::Serve(bytes, memory) => {
                    let number = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
                    assert_eq!(number, client.served, "requests are read in order");
                    assert_eq!(bytes[6..], vec![number as u8; bytes.len() - 6]);
                    assert!(
                        memory.bytes >= bytes.len(),
                        "a frame lies in memory that was granted"
                    );
                    client.served += 1;
                    let begun = begin(&mut self.rng, &bytes, number, memory);
                    next = client.core.handle(self.now, Event::Last(begun));
                }
                Effect::GiveUp => unreachable!("nothing is overdue"),
                Effect::Close(end) => {
                    client.closed = Some(end);
                    client.core = Connection::new(self.now, LIMITS);
                }
            }
        }
    }

    fn step(&mut self, which: usize) {
        let client = &mut self.clients[which];
        if client.closed.is_some() {
            return;
        }
        match self.rng.below(6) {
            0 => {
                let some = self.rng.below(150_000) as usize;
                client.come = client.bytes.len().min(client.come + some);
            }
            1 => self.grant(which),
            2 => self.read(which),
            3 => self.write(which),
            4 => {
                if let Some(begun) = client
                    .core
                    .first()
                    .map(|job| Begun::Done(reply(job.number)))
                {
                    self.feed(which, Event::First(begun));
                }
            }
            _ => {
                let entered = client.core.entering().map(|job| job.number);
                if let Some(number) = entered {
                    let entering = client.core.entering().unwrap();
                    let job = Job {
                        number,
                        _memory: Arc::clone(&entering._memory),
                        then_in_turn: false,
                    };
                    let begun = if entering.then_in_turn {
                        Begun::InTurn(job)
                    } else {
                        let overdue_at = at(1 << 40);
                        Begun::Ahead { job, overdue_at }
                    };
                    self.feed(which, Event::Last(begun));
                }
            }
        }
    }

    /// Grants memory to any waiter that fits: the order of budgets must not matter.
    fn grant(&mut self, which: usize) {
        let client = &mut self.clients[which];
        let Some(ask) = client.asked else { return };
        if let Some((step, token)) = self.pools.take(&ask) {
            client.asked = None;
            self.feed(which, Event::Granted(ask, step, token));
        }
    }

    fn read(&mut self, which: usize) {
        let client = &mut self.clients[which];
        if client.asked.is_some() || !client.core.wants_bytes() {
            return;
        }
        if client.read == client.come {
            let is_end = client.come == client.bytes.len() && !client.ended;
            client.ended |= is_end;
            let event = if is_end { Event::Ended } else { Event::Blocked };
            return self.feed(which, event);
        }
        let beginnings = Rc::clone(&self.pools.beginnings);
        let room = client.core.room(|_, _| beginnings.take(BEGINNING_BYTES));
        let bytes = (room.capacity() - room.len()).min(client.come - client.read);
        assert!(bytes > 0, "there is room to read into");
        room.extend_from_slice(&client.bytes[client.read..][..bytes]);
        client.read += bytes;
        self.feed(which, Event::Read(bytes));
    }

    fn write(&mut self, which: usize) {
        let client = &mut self.clients[which];
        let mut slices = [IoSlice::new(&[]); 4];
        let count = client.core.pieces(&mut slices);
        let all: Vec<u8> = slices[..count]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        if !all.is_empty() {
            let some = 1 + self.rng.below(all.len() as u64) as usize;
            client.received.extend(&all[..some]);
            self.feed(which, Event::Written(some));
        }
    }
}

fn begin(rng: &mut Rng, bytes: &Bytes, number: u32, memory: Arc<Token>) -> Begun<Job, ()> {
    let job = Job {
        number,
        _memory: memory,
        then_in_turn: rng.below(2) == 0,
    };
    let overdue_at = at(1 << 40);
    match (kind_of(&bytes[..2]), rng.below(4)) {
        (_, 0) => Begun::Done(reply(number)),
        (_, 1) => Begun::Entering(job),
        (Kind::Bulk, _) => Begun::Ahead { job, overdue_at },
        (Kind::Other, _) => Begun::InTurn(job),
    }
}

impl Client {
    fn new(rng: &mut Rng) -> Self {
        let mut bytes = Vec::new();
        let count = rng.below(16) as u32;
        let usual = 6 + rng.below(20_000) as usize;
        for number in 0..count {
            let kind = if rng.below(5) == 0 {
                Kind::Other
            } else {
                Kind::Bulk
            };
            let length = match (rng.below(12), kind) {
                (0, Kind::Bulk) => 6 + rng.below(600_000) as usize,
                (0, Kind::Other) => 6 + rng.below(100_000) as usize,
                (1, _) => 6 + rng.below(500) as usize,
                _ => usual,
            };
            bytes.extend(frame(number, kind, length));
        }
        Client {
            core: Connection::new(at(0), LIMITS),
            bytes,
            come: 0,
            read: 0,
            asked: None,
            served: 0,
            sent: count,
            received: Vec::new(),
            closed: None,
            ended: false,
        }
    }
}

impl Client {
    fn state(&self) -> String {
        format!(
            "{:?}, sent {}, served {}, answered {}, to come {} + {}, asks {:?}, reads {}, in flight {}",
            self.closed,
            self.sent,
            self.served,
            self.received.len() / 4,
            self.bytes.len() - self.come,
            self.come - self.read,
            self.asked,
            self.core.wants_bytes(),
            self.core.queue.len(),
        )
    }
}

#[test]
fn whoever_closes_the_sending_side_gets_every_answer_in_order_and_all_memory_comes_back() {
    for seed in 0..1_000 {
        let mut world = World::new(seed);
        let mut steps = 0;
        while world.clients.iter().any(|client| client.closed.is_none()) {
            let which = world.rng.below(world.clients.len() as u64) as usize;
            world.step(which);
            steps += 1;
            let why = || world.clients.iter().map(Client::state).collect::<Vec<_>>();
            assert!(
                steps < 100_000,
                "seed {seed}: they wait in a circle: {:#?}",
                why()
            );
        }
        for client in &world.clients {
            assert_eq!(client.closed, Some(End::Closed), "seed {seed}");
            let answers: Vec<u8> = (0..client.sent).flat_map(u32::to_be_bytes).collect();
            assert_eq!(client.received, answers, "seed {seed}");
        }
        let Pools { beginnings, whole } = &world.pools;
        for pool in whole.iter().chain([beginnings]) {
            assert_eq!(pool.free.get(), pool.total, "seed {seed}: memory is lost");
        }
    }
}

/// One connection with unlimited memory, of which every grant is recorded.
struct Alone {
    core: Core,
    pool: Rc<Pool>,
    served: Vec<(usize, Arc<Token>)>,
    takes: usize,
    reads: usize,
    closed: Option<End>,
}

impl Alone {
    fn new() -> Self {
        Alone {
            core: Connection::new(at(0), LIMITS),
            pool: Pool::of(1 << 30),
            served: Vec::new(),
            takes: 0,
            reads: 0,
            closed: None,
        }
    }

    fn feed(&mut self, now: Instant, event: Done) {
        let effect = self.core.handle(now, event);
        self.perform(now, effect);
    }

    /// Serves requests: those with records run ahead, others wait for their turn; none is answered.
    fn perform(&mut self, now: Instant, mut next: Option<Effect<Token>>) {
        while let Some(effect) = next.take() {
            let event = match effect {
                Effect::Take(ask) => {
                    self.takes += 1;
                    Event::Granted(ask, ask.step, self.pool.take(ask.cost).unwrap())
                }
                Effect::Serve(bytes, memory) => {
                    self.served.push((bytes.len(), Arc::clone(&memory)));
                    let job = Job {
                        number: self.served.len() as u32 - 1,
                        _memory: memory,
                        then_in_turn: false,
                    };
                    Event::Last(match kind_of(&bytes[..2]) {
                        Kind::Bulk => Begun::Ahead {
                            job,
                            overdue_at: at(30_000),
                        },
                        Kind::Other => Begun::InTurn(job),
                    })
                }
                Effect::GiveUp => {
                    let number = self.core.first().unwrap().number;
                    Event::First(Begun::Done(reply(number)))
                }
                Effect::Close(end) => {
                    self.closed = Some(end);
                    return;
                }
            };
            next = self.core.handle(now, event);
        }
    }

    fn send(&mut self, now: Instant, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.core.wants_bytes() {
            let pool = Rc::clone(&self.pool);
            let room = self.core.room(|_, _| pool.take(BEGINNING_BYTES));
            let some = (room.capacity() - room.len()).min(bytes.len());
            room.extend_from_slice(&bytes[..some]);
            bytes = &bytes[some..];
            self.reads += 1;
            self.feed(now, Event::Read(some));
        }
        self.feed(now, Event::Blocked);
    }

    fn answer_all(&mut self, now: Instant) {
        while let Some(number) = self.core.first().map(|job| job.number) {
            self.feed(now, Event::First(Begun::Done(reply(number))));
        }
        while let Some(bytes) = self.to_write() {
            self.feed(now, Event::Written(bytes));
        }
    }

    fn to_write(&self) -> Option<usize> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = self.core.pieces(&mut slices);
        let bytes = slices[..count].iter().map(|slice| slice.len()).sum();
        (bytes > 0).then_some(bytes)
    }
}

/// Other connections that wait for all memory, or for none.
struct Wanting(bool);

/// Other connections that wait for memory of beginnings.
struct WantingBeginnings;

impl Others<()> for WantingBeginnings {
    fn want_frame(&self, _: Kind, _: usize, step: Step, _: Instant) -> bool {
        step == Step::Beginning
    }

    fn want_answer(&self, (): &(), _: Instant) -> bool {
        false
    }
}

impl Others<()> for Wanting {
    fn want_frame(&self, _: Kind, _: usize, step: Step, _: Instant) -> bool {
        self.0 && step > Step::Prefix
    }

    fn want_answer(&self, (): &(), _: Instant) -> bool {
        self.0
    }
}

#[test]
fn pipelined_frames_share_chunks_and_are_charged_once_for_each() {
    let mut alone = Alone::new();
    let frames = |count: usize| -> Vec<u8> {
        (0..count)
            .flat_map(|_| frame(0, Kind::Bulk, 7 * KIB))
            .collect()
    };
    // The first burst tells the size of the next.
    alone.send(at(0), &frames(18));
    alone.answer_all(at(0));
    alone.served.clear();
    (alone.takes, alone.reads) = (0, 0);
    alone.send(at(1), &frames(45));
    assert_eq!(alone.served.len(), 45);
    assert!(alone.takes <= 6, "{} takes", alone.takes);
    assert!(alone.reads <= 6, "{} reads", alone.reads);
    alone.answer_all(at(1));
    let held: usize = alone.pool.total - alone.pool.free.get();
    assert!(held <= 6 * BEGINNING_BYTES, "{held}");
    alone.served.clear();
    assert_eq!(alone.pool.free.get(), alone.pool.total);
}

#[test]
fn a_burst_like_the_last_one_keeps_no_empty_room_alive() {
    let mut alone = Alone::new();
    let frames: Vec<u8> = (0..14)
        .flat_map(|number| frame(number, Kind::Bulk, 7 * KIB))
        .collect();
    for millis in 0..3 {
        alone.served.clear();
        alone.send(at(millis), &frames);
        alone.answer_all(at(millis));
    }
    assert_eq!(alone.served.len(), 14);
    let held = alone.pool.total - alone.pool.free.get();
    assert!(held <= frames.len() + 100, "{held} for {}", frames.len());
}

#[test]
fn a_lone_frame_is_read_in_one_call_into_memory_of_its_own_size() {
    let mut alone = Alone::new();
    for second in 0..3 {
        alone.reads = 0;
        alone.send(at(second * 1_000), &frame(0, Kind::Bulk, 16 * KIB));
        alone.answer_all(at(second * 1_000));
    }
    assert_eq!(alone.reads, 1);
    let (bytes, memory) = alone.served.pop().unwrap();
    assert!(memory.bytes <= bytes + KIB, "{}", memory.bytes);
}

#[test]
fn frames_that_are_not_small_have_memory_of_their_own_size_even_in_a_burst() {
    let mut alone = Alone::new();
    let frames: Vec<u8> = (0..6)
        .flat_map(|number| frame(number, Kind::Bulk, 16 * KIB))
        .collect();
    for millis in 0..2 {
        alone.served.clear();
        alone.send(at(millis), &frames);
        alone.answer_all(at(millis));
    }
    let sizes: Vec<usize> = alone.served.iter().map(|(_, held)| held.bytes).collect();
    assert_eq!(sizes, [sizes[0]; 6]);
    assert!(sizes[0] <= 16 * KIB + 100, "{sizes:?}");
}

#[test]
fn small_frames_do_not_pin_large_chunks() {
    let mut alone = Alone::new();
    alone.send(at(0), &frame(0, Kind::Bulk, 30 * KIB));
    alone.send(at(1), &frame(1, Kind::Bulk, 300));
    let (_, memory) = alone.served.pop().unwrap();
    assert!(memory.bytes < KIB, "{}", memory.bytes);
}

#[test]
fn what_is_announced_takes_memory_only_as_it_comes() {
    let mut alone = Alone::new();
    let all = frame(0, Kind::Bulk, 500 * KIB);
    alone.send(at(0), &all[..PREFIX_ROOM - 1]);
    assert_eq!((alone.takes, alone.pool.free.get()), (0, alone.pool.total));
    alone.send(at(0), &all[PREFIX_ROOM - 1..BEGINNING_BYTES - 1]);
    assert_eq!(alone.takes, 1);
    alone.send(at(0), &all[BEGINNING_BYTES - 1..]);
    assert_eq!((alone.takes, alone.served.len()), (2, 1));
}

#[test]
fn a_frame_too_large_for_its_kind_is_refused_as_soon_as_it_is_announced() {
    let refuses = |bytes: &[u8]| {
        let mut alone = Alone::new();
        alone.send(at(0), bytes);
        matches!(alone.closed, Some(End::Refused(_)))
    };
    assert!(refuses(b"\xff\xff\xff\xff"));
    assert!(refuses(b"\x7f\xff\xff\xff"));
    assert!(refuses(&frame(0, Kind::Other, 100 * KIB + 1)[..6]));
    assert!(!refuses(&frame(0, Kind::Bulk, 100 * KIB + 1)[..6]));
}

#[test]
fn a_request_that_is_stale_ends_the_connection_without_its_client_being_blamed() {
    let mut alone = Alone::new();
    for number in 0..2 {
        alone.send(at(0), &frame(number, Kind::Other, 100));
    }
    alone.feed(at(0), Event::First(Begun::Done(reply(0))));
    assert_eq!(alone.closed, None);
    alone.feed(at(0), Event::First(Begun::Done(Reply::Stale)));
    assert_eq!(alone.closed, Some(End::Stale));
}

#[test]
fn answers_wait_for_those_before_them_and_turns_for_the_first_place() {
    let mut alone = Alone::new();
    for (number, kind) in [Kind::Bulk, Kind::Other, Kind::Bulk]
        .into_iter()
        .enumerate()
    {
        alone.send(at(0), &frame(number as u32, kind, 100));
    }
    assert_eq!(alone.served.len(), 3);
    for expected in 0..3 {
        assert_eq!(alone.core.first().unwrap().number, expected);
        alone.feed(at(0), Event::First(Begun::Done(reply(expected))));
    }
    assert_eq!(alone.to_write(), Some(12));
}

#[test]
fn who_waits_for_his_turn_keeps_a_few_others_from_being_read_and_none_from_running_ahead() {
    let mut alone = Alone::new();
    for number in 0..10 {
        alone.send(at(0), &frame(number, Kind::Other, 100));
    }
    assert_eq!(alone.served.len(), IN_TURN_MAX);
    assert!(!alone.core.wants_bytes());
}

#[test]
fn an_overdue_request_is_given_up_once_and_only_if_its_answer_finds_room() {
    let mut alone = Alone::new();
    alone.send(at(0), &frame(0, Kind::Bulk, 100));
    assert_eq!(alone.core.deadline(), Some(at(30_000)));
    let effect = alone.core.time(at(30_000), &Wanting(false));
    assert!(matches!(effect, Some(Effect::GiveUp)));
    assert!(alone.core.time(at(30_000), &Wanting(false)).is_none());
    alone.perform(at(30_000), effect);
    assert_eq!(alone.to_write(), Some(4));
}

#[test]
fn when_the_agent_stops_what_runs_is_answered_and_what_waits_for_its_turn_is_not() {
    let mut alone = Alone::new();
    alone.send(at(0), &frame(0, Kind::Bulk, 100));
    alone.send(at(0), &frame(1, Kind::Other, 100));
    alone.feed(at(0), Event::Stop);
    assert_eq!(alone.closed, None);
    alone.answer_all(at(0));
    assert_eq!(alone.closed, Some(End::Closed));
}

#[test]
fn a_client_that_is_gone_with_a_request_under_way_is_not_waited_for_for_ever() {
    let mut alone = Alone::new();
    alone.send(at(0), &frame(0, Kind::Other, 100));
    alone.feed(at(0), Event::Ended);
    assert_eq!(alone.closed, None);
    let end = alone.core.time(at(600_000), &Wanting(false));
    assert!(matches!(end, Some(Effect::Close(End::Closed))));
}

#[test]
fn a_halted_frame_loses_its_connection_at_once_only_if_others_want_its_memory() {
    let closed_at = |wanting: bool| {
        let mut alone = Alone::new();
        let all = frame(0, Kind::Bulk, 500 * KIB);
        alone.send(at(0), &all[..100 * KIB]);
        for second in 1..100 {
            let effect = alone.core.time(at(second * 1_000), &Wanting(wanting));
            if matches!(effect, Some(Effect::Close(End::Slow))) {
                return second;
            }
        }
        unreachable!("it is closed at last")
    };
    assert_eq!((closed_at(true), closed_at(false)), (2, 30));
}

#[test]
fn a_frame_that_halts_in_a_chunk_with_whole_ones_keeps_no_beginning_from_others() {
    let mut alone = Alone::new();
    let frames: Vec<u8> = (0..9)
        .flat_map(|number| frame(number, Kind::Bulk, 7 * KIB))
        .collect();
    // The first burst tells the size of the chunk for the next.
    alone.send(at(0), &frames);
    alone.answer_all(at(0));
    alone.served.clear();
    alone.send(at(1), &frames[..frames.len() - 2 * KIB]);
    assert_eq!(alone.served.len(), 8);
    alone.served.clear();
    let effect = alone.core.time(at(2_000), &WantingBeginnings);
    assert!(matches!(effect, Some(Effect::Close(End::Slow))));
}

#[test]
fn a_frame_that_takes_longer_to_come_than_a_connection_may_be_idle_is_served() {
    let mut alone = Alone::new();
    let all = frame(0, Kind::Bulk, 500 * KIB);
    let mut millis = 0;
    for part in all.chunks(10 * KIB) {
        assert!(alone.core.time(at(millis), &Wanting(false)).is_none());
        alone.send(at(millis), part);
        millis += 20_000;
    }
    assert!(Duration::from_millis(millis) > LIMITS.idle_max);
    assert_eq!(alone.served.len(), 1);
}

#[test]
fn a_pause_of_ours_does_not_count_as_a_halt_of_the_client() {
    let mut alone = Alone::new();
    let mut bytes: Vec<u8> = Vec::new();
    for number in 0..IN_TURN_MAX as u32 {
        bytes.extend(frame(number, Kind::Other, 100));
    }
    // The beginning of the next frame is read with the last one.
    bytes.extend(&frame(9, Kind::Other, 100)[..50]);
    alone.send(at(0), &bytes);
    assert!(!alone.core.wants_bytes());
    assert!(alone.core.time(at(40_000), &Wanting(true)).is_none());
    alone.answer_all(at(40_000));
    assert!(alone.core.wants_bytes());
    assert!(alone.core.time(at(60_000), &Wanting(false)).is_none());
    let end = alone.core.time(at(70_000), &Wanting(false));
    assert!(matches!(end, Some(Effect::Close(End::Slow))));
}

#[test]
fn who_reads_no_answers_is_closed_while_others_want_their_memory() {
    let mut alone = Alone::new();
    alone.send(at(0), &frame(0, Kind::Bulk, 100));
    alone.feed(at(0), Event::First(Begun::Done(reply(0))));
    assert!(alone.core.time(at(1_000), &Wanting(false)).is_none());
    let end = alone.core.time(at(2_000), &Wanting(true));
    assert!(matches!(end, Some(Effect::Close(End::Slow))));
}

#[test]
fn answers_that_are_not_read_keep_the_next_ones_from_being_made() {
    let mut alone = Alone::new();
    for number in 0..3 {
        alone.send(at(0), &frame(number, Kind::Bulk, 100));
    }
    let mut large = Rope::new();
    large.push(Bytes::from(vec![0; OUTBOX_BYTES]));
    let reply = Reply::Frame {
        frame: large,
        kept: (),
    };
    alone.feed(at(0), Event::First(Begun::Done(reply)));
    assert!(alone.core.first().is_none());
    assert!(!alone.core.wants_bytes());
    alone.feed(at(0), Event::Written(1));
    assert_eq!(alone.core.first().unwrap().number, 1);
}
