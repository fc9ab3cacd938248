//! The engine over three buckets: the core under a thin shell that performs its requests, each in a task of its own. It must
//! not know what entries mean.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt};
use host::clock::{self, Instant};
use store::bucket::Bucket;
use tokio::sync::oneshot;

use super::BUCKETS;
use super::ballot::Ballot;
use super::call::{Ask, Request};
use super::configuration::Configuration;
use super::context::{Effect, Event, Outcome, Over, Settings, Wanted};
use super::core::Core;
use super::lane::{BucketHealth, Lane};
use super::name;
use crate::engine::WINDOW;
use crate::engine::{Append, End, Engine, Error, Limits, Scan, TakeError, Taken, Tenure};
use crate::object::floor;

mod courtesy;
mod mend;
mod reading;

use courtesy::Courtesy;

/// Buckets that can decide a slot.
const QUORUM: usize = 2;
/// The largest slot, as on one bucket.
const SLOT_BYTES_MAX: usize = 8 << 20;
/// Links of one chain that are read at the same time at most.
const LINKS_AT_ONCE: u32 = 16;
/// How long a look at the floor, a take, an append and a trim may take before they fail. Callers mostly wait less.
const FLOOR_FOR: Duration = Duration::from_secs(8);
const TAKE_FOR: Duration = Duration::from_secs(10);
const APPEND_FOR: Duration = Duration::from_secs(20);
const TRIM_FOR: Duration = Duration::from_secs(60);
/// A take or an append is late after the time of so many answers, between these bounds.
const LATE_ANSWERS: u32 = 6;
const LATE_MIN: Duration = Duration::from_millis(100);
const LATE_MAX: Duration = Duration::from_secs(1);
/// The form of a mark: its number, the configuration, and a ballot.
const MARK_FORMAT: u8 = 1;
const MARK_BYTES: usize = 1 + 4 + 8 + 16;

/// What is known of the three buckets.
pub type Health = [BucketHealth; BUCKETS];

/// Puts the first floor of a configuration into a bucket; with its marker it makes the bucket usable. Safe to repeat.
pub async fn prepare(bucket: &dyn Bucket, configuration: &Configuration) -> Result<(), Error> {
    let prefix = name::floors(configuration.shard, configuration.number);
    // A link that may be there already is as good.
    floor::create(bucket, &prefix, 1, 0).await.map(drop)
}

/// The engine of one node.
pub struct Three {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    configuration: Arc<Configuration>,
    core: Mutex<Core>,
    pub(super) lanes: [Arc<Lane>; BUCKETS],
    waiting: Mutex<BTreeMap<Ask, oneshot::Sender<Outcome>>>,
    asks: AtomicU64,
    /// Where the next scan probably begins, and how many slots it reads at once.
    stride: Mutex<(u64, u64)>,
    /// The slot at which scans ended undecided lately, and how many in a row.
    doubts: Mutex<(u64, u32)>,
    /// The slot at which a scan that two buckets had answered last ended, and when it began.
    ended: Mutex<Option<(u64, Instant)>>,
    courtesy: Mutex<Courtesy>,
    /// Why the engine is not used any more.
    alarm: Mutex<Option<String>>,
    /// Fills buckets while a tenure lasts.
    mending: Mutex<Option<host::task::Task<()>>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks, but for the core's assertions, which end the process.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Three {
    /// The journal of a configuration in its three buckets, which [`prepare`] has seen. Buckets should repeat requests that
    /// are late, as those do that `store::open` gives.
    pub fn new(buckets: [Arc<dyn Bucket>; BUCKETS], configuration: Configuration) -> Self {
        let configuration = Arc::new(configuration);
        let settings = Settings {
            window: WINDOW,
            seal_first: 2 * WINDOW,
            links_at_once: LINKS_AT_ONCE,
        };
        let mut numbers = 0..;
        let lanes = buckets.map(|bucket| {
            let number = numbers.next().unwrap_or_default();
            Arc::new(Lane::new(number, bucket, Arc::clone(&configuration)))
        });
        let shared = Shared {
            configuration,
            core: Mutex::new(Core::new(settings)),
            lanes,
            waiting: Mutex::default(),
            asks: AtomicU64::new(0),
            stride: Mutex::new((0, 1)),
            doubts: Mutex::default(),
            ended: Mutex::default(),
            courtesy: Mutex::default(),
            alarm: Mutex::default(),
            mending: Mutex::default(),
        };
        Three {
            shared: Arc::new(shared),
        }
    }

    /// What is known of the buckets now.
    pub fn health(&self) -> Health {
        std::array::from_fn(|bucket| self.shared.lanes[bucket].health())
    }
}

/// Tells the core, when dropped, that nobody waits any more.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    ask: Ask,
    answer: oneshot::Receiver<Outcome>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if lock(&self.shared.waiting).remove(&self.ask).is_some() {
            self.shared.feed(Event::Dropped(self.ask));
        }
    }
}

impl Waiting<'_> {
    /// The answer, if it comes in time.
    async fn within(&mut self, limit: Duration) -> Option<Outcome> {
        let answer = clock::timeout(limit, &mut self.answer).await;
        answer.ok().and_then(Result::ok)
    }
}

impl Shared {
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Gives the core an event and starts what it wants done.
    pub(super) fn feed(self: &Arc<Self>, event: Event) {
        let mut effects = Vec::new();
        let highest = {
            let mut core = self.core();
            core.handle(event, &mut effects);
            core.highest()
        };
        lock(&self.courtesy).met(highest, clock::now());
        for effect in effects {
            match effect {
                Effect::Send(request) => self.start(request),
                Effect::Done(ask, outcome) => {
                    let waits = lock(&self.waiting).remove(&ask);
                    if let Some(waits) = waits {
                        // A caller that has gone needs no answer.
                        drop(waits.send(outcome));
                    }
                }
                Effect::Refuse(bucket, why) => self.lanes[bucket].refuse(why),
                Effect::Alarm(what) => {
                    tracing::error!(what, "the journal over three buckets is damaged");
                    lock(&self.alarm).get_or_insert(what);
                }
            }
        }
    }

    /// Performs a request in the background: nobody waits for the slowest bucket.
    fn start(self: &Arc<Self>, request: Request) {
        let lane = Arc::clone(&self.lanes[request.bucket]);
        let shared = Arc::downgrade(self);
        host::task::spawn_detached("journal bucket", async move {
            let said = lane.perform(&request.call).await;
            if let Some(shared) = shared.upgrade() {
                shared.feed(Event::Answered(request, said));
            }
        });
    }

    fn wait(self: &Arc<Self>, event: impl FnOnce(Ask) -> Event) -> Waiting<'_> {
        let ask = self.asks.fetch_add(1, Ordering::Relaxed);
        let (answers, answer) = oneshot::channel();
        lock(&self.waiting).insert(ask, answers);
        let waiting = Waiting {
            shared: self,
            ask,
            answer,
        };
        self.feed(event(ask));
        waiting
    }

    /// The answer to a take or an append, if it comes in time; the core is told where it is late.
    async fn outcome(
        self: &Arc<Self>,
        mut waiting: Waiting<'_>,
        limit: Duration,
    ) -> Option<Outcome> {
        let until = clock::now() + limit;
        loop {
            let left = until.since(clock::now());
            if left.is_zero() {
                return None;
            }
            // A bucket that does not answer at all is not waited for.
            let answering = self.lanes.iter().filter(|lane| !lane.rank().1);
            let usual = answering.map(|lane| lane.usual()).max();
            let late = (usual.unwrap_or(LATE_MAX) * LATE_ANSWERS).clamp(LATE_MIN, LATE_MAX);
            if let Some(outcome) = waiting.within(late.min(left)).await {
                return Some(outcome);
            }
            self.feed(Event::Late(waiting.ask));
        }
    }

    fn damage(&self) -> Result<(), Error> {
        match lock(&self.alarm).clone() {
            Some(why) => Err(Error::Corrupt(why)),
            None => Ok(()),
        }
    }

    /// Buckets from the best one on.
    pub(super) fn order(&self) -> [usize; BUCKETS] {
        let mut order = std::array::from_fn(|bucket| bucket);
        order.sort_by_key(|bucket| self.lanes[*bucket].rank());
        order
    }

    /// Who does not answer, for people.
    fn silent(&self) -> String {
        let numbered = self.lanes.iter().enumerate();
        let told = numbered.map(|(bucket, lane)| match lane.health() {
            BucketHealth {
                refused: Some(why), ..
            } => format!("bucket {bucket} is refused: {why}"),
            BucketHealth {
                away_since: Some(_),
                ..
            } => format!("bucket {bucket} does not answer"),
            _ => format!("bucket {bucket} answers"),
        });
        told.collect::<Vec<_>>().join("; ")
    }

    pub(super) async fn floor(self: &Arc<Self>) -> Result<u64, Error> {
        self.damage()?;
        match self.wait(Event::Floor).within(FLOOR_FOR).await {
            Some(Outcome::Floor(floor)) => Ok(floor),
            _ => Err(Error::Unavailable(self.silent())),
        }
    }

    fn lost(&self) {
        lock(&self.courtesy).lost();
    }
}

#[async_trait]
impl Engine for Three {
    async fn scan(&self, from: u64, limit: usize) -> Scan {
        let shared = &self.shared;
        if let Err(error) = shared.damage() {
            let end = End::Undecided(error.to_string());
            return Scan {
                slots: Vec::new(),
                end,
            };
        }
        let began = clock::now();
        let limit = limit.max(1) as u64;
        let asked = shared.stride(from).min(limit);
        let mut reading = shared.read_for_scan(from, asked, limit).await;
        if reading.slots.is_empty() && asked > 1 && !reading.is_free {
            reading = shared.read(from, 1, shared.order()).await;
        }
        shared.note_stride(from, asked, &reading);
        let has_ended = reading.slots.is_empty() && reading.answered >= QUORUM;
        *lock(&shared.ended) = has_ended.then_some((from, began));
        if let Some(newest) = reading.slots.iter().map(|one| one.ballot).max() {
            lock(&shared.courtesy).tell(newest);
        }
        let end = match (reading.slots.is_empty(), reading.is_free) {
            (false, _) => End::More,
            (true, true) => End::Free,
            (true, false) if reading.answered >= QUORUM => End::Unsettled,
            (true, false) => End::Undecided(shared.silent()),
        };
        let slots = reading.slots.into_iter();
        Scan {
            slots: slots.map(|one| (one.slot, one.content)).collect(),
            end,
        }
    }

    async fn above(&self, index: u64) -> Result<Option<u64>, Error> {
        let known_to = self.shared.core().sealed_to();
        let index = index.max(known_to.saturating_sub(1));
        let lanes = self.shared.lanes.iter();
        let mut looks: FuturesUnordered<_> = lanes.map(|lane| lane.above(index)).collect();
        // What two buckets do not show is not there, as far as listings tell.
        let two = async {
            let (one, other) = (looks.next().await?, looks.next().await?);
            Some(one.into_iter().chain(other).min())
        };
        match clock::timeout(FLOOR_FOR, two).await {
            Ok(Some(found)) => Ok(found),
            _ => Err(Error::Unavailable(self.shared.silent())),
        }
    }

    async fn floor(&self) -> Result<u64, Error> {
        self.shared.floor().await
    }

    async fn take(&self, from: u64, through: u64) -> Result<Taken, TakeError> {
        let shared = &self.shared;
        if let Err(error) = shared.damage() {
            return Err(TakeError::Unavailable(error.to_string()));
        }
        let (mut settled, next) = shared.read_to_take(from).await?;
        let wanted = Wanted {
            first: from,
            from: next,
            through,
        };
        let nonce = host::rng::nonce();
        let waiting = shared.wait(|ask| Event::Take { ask, wanted, nonce });
        match shared.outcome(waiting, TAKE_FOR).await {
            Some(Outcome::Taken {
                tenure,
                settled: run,
            }) => {
                settled.extend(run);
                let shared = Arc::clone(shared);
                let tenure = Arc::new(Held {
                    shared,
                    number: tenure,
                });
                Ok(Taken { tenure, settled })
            }
            Some(Outcome::NotTaken(Over::Trimmed(floor))) => Err(TakeError::Trimmed(floor)),
            Some(Outcome::NotTaken(Over::Superseded)) => {
                shared.lost();
                Err(TakeError::Superseded)
            }
            _ => Err(TakeError::Unavailable(shared.silent())),
        }
    }

    fn claimed(&self, index: u64) {
        for lane in &self.shared.lanes {
            lane.claimed(index);
        }
    }

    /// The configuration, and a ballot at least as high as every one under which a slot was learned (R16).
    fn mark(&self, _: u64) -> Bytes {
        let Ballot { number, nonce } = self.shared.core().mark();
        let mut out = BytesMut::with_capacity(MARK_BYTES);
        out.put_u8(MARK_FORMAT);
        out.put_u32_le(self.shared.configuration.number);
        out.put_u64_le(number);
        out.put_u128_le(nonce);
        out.freeze()
    }

    fn adopt(&self, mark: &[u8]) -> Result<(), Error> {
        if mark.len() != MARK_BYTES || mark[0] != MARK_FORMAT {
            let why = "the snapshot carries the mark of another engine, or of a newer version";
            return Err(Error::Corrupt(why.to_owned()));
        }
        let mut fields = &mark[1..];
        let configuration = fields.get_u32_le();
        if configuration != self.shared.configuration.number {
            return Err(Error::Corrupt(format!(
                "the snapshot was cut under configuration {configuration} of the journal's buckets"
            )));
        }
        let ballot = Ballot {
            number: fields.get_u64_le(),
            nonce: fields.get_u128_le(),
        };
        self.shared.feed(Event::Learned { slot: 0, ballot });
        lock(&self.shared.courtesy).is_past(ballot);
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits {
            slot_bytes_max: SLOT_BYTES_MAX,
            takes_give_way: true,
            takes_seal: true,
        }
    }
}

/// A tenure over three buckets.
struct Held {
    shared: Arc<Shared>,
    number: u64,
}

#[async_trait]
impl Tenure for Held {
    async fn append(&self, index: u64, _nonce: u128, bytes: Bytes) -> Append {
        let tenure = self.number;
        let waiting = self.shared.wait(|ask| Event::Append {
            ask,
            tenure,
            index,
            bytes,
        });
        let outcome = match self.shared.outcome(waiting, APPEND_FOR).await {
            Some(Outcome::Append(outcome)) => outcome,
            _ => return Append::Unknown(self.shared.silent()),
        };
        // A tenure that appends has won; one that another ballot ends has lost, whether or not its take succeeded.
        match outcome {
            Append::Superseded => self.shared.lost(),
            _ => lock(&self.shared.courtesy).won(),
        }
        outcome
    }

    fn confirmed(&self) {
        self.shared.feed(Event::Confirmed(self.number));
        let mending = mend::start(&self.shared, self.number);
        *lock(&self.shared.mending) = Some(mending);
    }

    async fn trim(&self, floor: u64, indices: &[u64]) -> Result<(), Error> {
        assert!(
            indices.iter().all(|index| *index < floor),
            "only slots below the floor are trimmed"
        );
        let (tenure, slots) = (self.number, indices.into());
        let mut waiting = self.shared.wait(|ask| Event::Trim {
            ask,
            tenure,
            floor,
            slots,
        });
        match waiting.within(TRIM_FOR).await {
            Some(Outcome::Trimmed) => Ok(()),
            Some(Outcome::NotTrimmed) => Err(Error::Unavailable("the tenure is over".to_owned())),
            _ => Err(Error::Unavailable(self.shared.silent())),
        }
    }
}
