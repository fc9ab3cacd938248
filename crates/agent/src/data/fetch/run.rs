//! Performs the effects of a fetch: asks the control plane, waits for changes, reads parts of
//! files. [`super::poll`] decides; this file must not.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use host::backoff::Backoff;
use host::budget::Held;
use host::clock::Instant;
use host::rng::Rng;
use meta::ids::PartitionId;
use meta::places::Located;
use rpc::call::Locate;
use rpc::{Client, Position};

use super::ahead::Step;
use super::finder::Finder;
use super::hub::{Changes, Watch};
use super::item::Slot;
use super::items::Items;
use super::poll::{Effect, Event, Limits, Load, Poll, Wanted};
use super::read::Reader;
use super::records::{Chunks, Records, Room};
use crate::data::cache::{Loaded, Part};
use crate::metrics::Origin;

/// How often a long poll checks whether others wait for the memory that it holds.
const YIELD_POLL: Duration = Duration::from_secs(1);
/// Partitions worked on before other tasks get the thread.
pub const YIELD_AFTER: usize = 1_000;
/// The pauses before a load that failed is tried again.
const LOAD_AGAIN: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(400));

/// What a fetch needs to be performed.
pub struct Run<'a> {
    pub control: &'a Client,
    pub finder: Finder<'a>,
    pub reader: &'a Reader,
    /// The watch over the partitions; none if the answer does not wait.
    pub watch: Option<&'a Watch>,
    /// True if others wait for memory that the request holds.
    pub is_wanted: &'a (dyn Fn() -> bool + Sync),
    /// Waits for memory for an answer that mentions so many partitions, beside their records.
    /// Called before any records are held, since a request that holds records must not wait for
    /// answer memory.
    pub hold_answer: &'a (dyn Fn(usize) -> BoxFuture<'a, Held> + Sync),
}

pub struct Fetched {
    pub items: Items,
    pub records: Records,
    /// Memory for everything in the answer but its records.
    pub answer: Option<Held>,
    /// Whether parts had to be loaded.
    pub has_loaded: bool,
}

impl Fetched {
    /// Slots for which the answer has records or an error.
    pub fn served(&self) -> Vec<Slot> {
        self.records.of.keys().copied().collect()
    }

    /// What the answer brought of each partition that has records in it.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (PartitionId, Step)> {
        let next = self.records.next.iter();
        next.filter_map(|(slot, next)| {
            let item = self.items.item(*slot)?;
            let step = Step {
                asked: item.want.offset,
                next: *next,
                end: item.bounds()?.high_watermark,
                has_loaded: self.has_loaded,
            };
            Some((item.partition, step))
        })
    }
}

impl<'a> Run<'a> {
    /// Performs a fetch; takes no longer than its limits, plus the time that its loads are waited
    /// for.
    pub async fn fetch(&self, items: Items, limits: Limits, room: Room) -> Fetched {
        let mut poll = Poll::new(items, limits);
        let mut chunks = Chunks::new();
        let mut loads = FuturesUnordered::new();
        let mut load_until = limits.deadline;
        let mut has_waited = false;
        let mut has_loaded = false;
        let mut answer = None;
        // What was confirmed to be current, wherever it is looked for next.
        let mut current = Position::default();
        let now = host::clock::now();
        let before = match self.watch {
            None => Changes::default(),
            Some(watch) if now < limits.deadline => watch.take_rested(now),
            Some(watch) => watch.take(now),
        };
        let mut effects = poll.handle(now, Event::Begin(before));
        loop {
            let mut event = None;
            for effect in effects {
                match effect {
                    Effect::Locate(requests) => {
                        event = Some(Event::Located(self.locate(&requests, current).await));
                    }
                    Effect::Confirm => {
                        let confirmed = self.control.barrier().await;
                        event = Some(Event::Current(confirmed.map(|at| current = at)));
                    }
                    Effect::Wait(until) => {
                        if !std::mem::replace(&mut has_waited, true) {
                            self.reader.metrics().fetch_waits.increment();
                        }
                        event = Some(self.wait(until).await);
                    }
                    Effect::Find(wanted) => {
                        if answer.is_none() {
                            answer = Some((self.hold_answer)(poll.told_max()).await);
                        }
                        event = Some(self.find(&wanted, &mut chunks));
                    }
                    Effect::Load(load) => {
                        has_loaded = true;
                        loads.push(self.load(load));
                    }
                    Effect::LoadUntil(until) => load_until = until,
                    Effect::Answer => {
                        if answer.is_none() {
                            answer = Some((self.hold_answer)(poll.told_max()).await);
                        }
                        let (items, taken) = poll.take();
                        let records = Records::of(&taken, &chunks, room, self.reader);
                        return Fetched {
                            items,
                            records,
                            answer,
                            has_loaded,
                        };
                    }
                }
            }
            let event = match event {
                Some(event) => event,
                None => self.loaded(&mut loads, load_until, &mut chunks).await,
            };
            effects = poll.handle(host::clock::now(), event);
        }
    }

    async fn locate(&self, requests: &[Locate], at: Position) -> Result<Vec<Located>, rpc::Error> {
        let mut located = Vec::with_capacity(requests.len());
        for requests in requests.chunks(YIELD_AFTER) {
            if !located.is_empty() {
                tokio::task::yield_now().await;
            }
            located.extend(self.finder.locate(requests, at).await?);
        }
        Ok(located)
    }

    async fn wait(&self, until: Instant) -> Event {
        let turn = until.since(host::clock::now()).min(YIELD_POLL);
        let changed = async {
            match self.watch {
                Some(watch) => watch.changed(host::clock::now).await,
                None => std::future::pending::<Changes>().await,
            }
        };
        match host::clock::timeout(turn, changed).await {
            Ok(changes) => Event::Changed(changes),
            // Others need its memory and there is nothing more to read yet: the client asks again.
            Err(_) if (self.is_wanted)() => Event::Hurry,
            Err(_) => {
                // What the reader was not woken for yet belongs into an answer that is due.
                let changes = self.watch.map(|watch| watch.take(host::clock::now()));
                match changes.filter(|changes| !changes.is_empty()) {
                    Some(changes) => Event::Changed(changes),
                    None => Event::Time,
                }
            }
        }
    }

    fn find(&self, wanted: &[Wanted], chunks: &mut Chunks) -> Event {
        for Wanted { part, places } in wanted {
            if let Some(chunk) = self.reader.find(places) {
                chunks.insert(*part, (chunk, Origin::Memory));
            }
        }
        let wanted = wanted.iter().map(|wanted| wanted.part);
        Event::Found(wanted.filter(|part| chunks.contains_key(part)).collect())
    }

    fn load(&self, load: Load) -> BoxFuture<'a, (Part, Loaded)> {
        let reader = self.reader;
        async move {
            if load.failures > 0 {
                let pause = LOAD_AGAIN.after(load.failures, &mut Rng::from_entropy());
                host::clock::sleep(pause).await;
            }
            let loaded = reader.load(load.partition, &load.place, load.may_wait);
            (load.part, loaded.await)
        }
        .boxed()
    }

    /// Waits for one of the loads. Loads that come too late end by themselves and serve the next
    /// fetch.
    async fn loaded(
        &self,
        loads: &mut FuturesUnordered<BoxFuture<'a, (Part, Loaded)>>,
        until: Instant,
        chunks: &mut Chunks,
    ) -> Event {
        let left = until.since(host::clock::now());
        match host::clock::timeout(left, loads.next()).await {
            Ok(Some((part, Ok(chunk)))) => {
                let origin = chunk.origin();
                chunks.insert(part, (chunk, origin));
                Event::Loaded(part, Ok(()))
            }
            Ok(Some((part, Err(error)))) => Event::Loaded(part, Err(error)),
            Ok(None) | Err(_) => Event::Time,
        }
    }
}
