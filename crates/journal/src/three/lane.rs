//! One bucket of the three: performs what the core asks of it, and lets nothing count that it says unless its marker and the
//! newest claim were looked at within five seconds (A3). It must not know the other buckets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use host::clock::{self, Instant};
use store::bucket::{Bucket, Payload, Put};
use store::marker;

use super::call::{Call, Said};
use super::configuration::Configuration;
use super::name;
use super::pace::Pace;
use super::record::{Place, Record};
use crate::engine::{Error, WINDOW};
use crate::object::floor::{self, Link};
use crate::object::unavailable;

/// How long what a bucket says counts after a good look began.
const LOOK_COUNTS_FOR: Duration = Duration::from_secs(5);
/// A bucket in use is looked at anew after this long, so that hardly any answer has to wait for a look.
const LOOK_AFTER: Duration = Duration::from_secs(3);
/// How long one request may take before it counts as unanswered.
const REQUEST_FOR: Duration = Duration::from_secs(8);
/// How long a request waits for the breaker before it counts as unanswered.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The pause before a request is repeated; it doubles with the bucket's failures.
const PAUSE: Duration = Duration::from_millis(20);
/// A marker that looks wrong is read so often before that is believed: bytes may be altered on the way.
const LOOKS: u32 = 3;
/// Slots whose places are remembered, to find the newest claim among them.
const PLACES_MAX: usize = 1_024;
/// Names listed, and objects deleted, at the same time.
const LISTED: usize = 1_000;
const DELETES_AT_ONCE: usize = 16;
/// Records read at the same time: as many as a take promises in.
const READS_AT_ONCE: usize = 2 * WINDOW as usize;

pub(super) struct Lane {
    number: usize,
    bucket: Arc<dyn Bucket>,
    configuration: Arc<Configuration>,
    state: Mutex<State>,
    /// Held while the bucket is looked at, so that all who need a look share one.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    pace: Pace,
    /// When the last good look began.
    looked: Option<Instant>,
    /// Why the bucket is refused from now on.
    refused: Option<String>,
    floor: Link,
    /// Where this process has read or written values here, by slot.
    places: BTreeMap<u64, u32>,
    /// The slot of the newest claim that counts, by the caller's word.
    newest_claim: u64,
    /// The newest claim that this process has itself read or written here, and the link.
    claim: Option<(u64, u32)>,
}

impl State {
    /// Remembers where the newest claim is, if this process has met it here.
    fn hold_to_claim(&mut self) {
        let slot = self.newest_claim;
        if let Some(link) = self.places.get(&slot).copied()
            && self.claim.is_none_or(|(known, _)| known < slot)
        {
            self.claim = Some((slot, link));
        }
    }
}

/// What is known of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketHealth {
    /// Since when it has not answered.
    pub away_since: Option<Instant>,
    /// Why it is refused, if it is: it is not the bucket that it was.
    pub refused: Option<String>,
    /// The usual latency of its answers.
    pub median: Option<Duration>,
}

impl Lane {
    pub(super) fn new(
        number: usize,
        bucket: Arc<dyn Bucket>,
        configuration: Arc<Configuration>,
    ) -> Self {
        Lane {
            number,
            bucket,
            configuration,
            state: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, slot: u64) -> Place {
        Place {
            shard: self.configuration.shard,
            configuration: self.configuration.number,
            slot,
        }
    }

    pub(super) fn health(&self) -> BucketHealth {
        let state = self.state();
        BucketHealth {
            away_since: state.pace.failing_since(),
            refused: state.refused.clone(),
            median: state.pace.median(),
        }
    }

    /// How this bucket ranks among those to be asked first: lower is better.
    pub(super) fn rank(&self) -> (bool, bool, Duration) {
        let state = self.state();
        let median = state.pace.median().unwrap_or(REQUEST_FOR);
        (state.refused.is_some(), state.pace.is_failing(), median)
    }

    /// The usual latency of its answers.
    pub(super) fn usual(&self) -> Duration {
        self.state().pace.usual()
    }

    /// After how long another bucket is asked as well.
    pub(super) fn hurry(&self) -> Duration {
        self.state().pace.hurry()
    }

    /// The slot holds a claim that counts, so it is never deleted (R15): from now on it has to be there.
    pub(super) fn claimed(&self, slot: u64) {
        let mut state = self.state();
        state.newest_claim = slot.max(state.newest_claim);
        state.hold_to_claim();
    }

    /// Performs a call: answers in bounded time, and never with what does not count.
    pub(super) async fn perform(self: &Arc<Self>, call: &Call) -> Said {
        if is_repeated(call) {
            clock::sleep(self.pause()).await;
        }
        if !self.is_admitted().await {
            return Said::Unclear;
        }
        let began = clock::now();
        let answer = clock::timeout(REQUEST_FOR, self.ask(call)).await;
        let now = clock::now();
        let said = answer.unwrap_or(Said::Unclear);
        // A conflict is an answer, though it says nothing.
        if said == Said::Unclear && !matches!(call, Call::Put { .. }) {
            self.state().pace.failed(now);
            return said;
        }
        match said {
            Said::Unclear => said,
            said if matches!(call, Call::Look { .. }) => said,
            said => self.vouched(said, now.since(began)).await,
        }
    }

    fn pause(&self) -> Duration {
        let away = self.state().pace.is_away();
        let longest = if away { PAUSE * 16 } else { PAUSE };
        let micros = longest.as_micros() as u64;
        let drawn = host::rng::nonce() as u64 % (micros / 2 + 1);
        Duration::from_micros(micros - drawn)
    }

    /// Waits until the breaker lets a request through; false if that takes too long.
    async fn is_admitted(&self) -> bool {
        let until = clock::now() + WAIT_MAX;
        loop {
            let wait = {
                let mut state = self.state();
                if state.refused.is_some() {
                    return true;
                }
                state.pace.admit(clock::now())
            };
            if wait.is_zero() {
                return true;
            }
            if clock::now() + wait > until {
                clock::sleep_until(until).await;
                return false;
            }
            clock::sleep(wait).await;
        }
    }

    /// What the bucket said, if it counts.
    async fn vouched(self: &Arc<Self>, said: Said, took: Duration) -> Said {
        self.state().pace.answered(took);
        let looked = self.state().looked;
        let age = looked.map(|looked| clock::now().since(looked));
        if age.is_none_or(|age| age >= LOOK_COUNTS_FOR) {
            return match self.look(LOOK_COUNTS_FOR).await {
                Said::Done => said,
                other => other,
            };
        }
        if age.is_some_and(|age| age >= LOOK_AFTER) && self.looking.try_lock().is_ok() {
            let lane = Arc::clone(self);
            host::task::spawn_detached("journal bucket look", async move {
                drop(lane.look(LOOK_AFTER).await);
            });
        }
        match self.state().refused {
            Some(_) => Said::Wrong,
            None => said,
        }
    }

    async fn ask(self: &Arc<Self>, call: &Call) -> Said {
        if self.state().refused.is_some() {
            return Said::Wrong;
        }
        match call {
            Call::Put {
                slot, link, record, ..
            } => self.put(*slot, *link, record).await,
            Call::Get { slot, link, .. } => self.get(*slot, *link).await,
            Call::Floor { .. } => self.floor().await,
            Call::Look { .. } => self.look(Duration::ZERO).await,
            Call::Raise { floor, .. } => self.raise(*floor).await,
            Call::Sweep { slots, .. } => match self.sweep(slots).await {
                Ok(()) => Said::Done,
                Err(error) => self.unclear(&error),
            },
        }
    }

    fn unclear(&self, error: &Error) -> Said {
        let bucket = self.number;
        tracing::debug!(bucket, %error, "a bucket of the journal gave no clear answer");
        Said::Unclear
    }

    async fn put(&self, slot: u64, link: u32, record: &Record) -> Said {
        let place = self.place(slot);
        let body = Payload::new(record.encode(place));
        match self.bucket.put_new(&name::link(place, link), body).await {
            Ok(Put::Created) => {
                self.note_place(slot, link, record);
                Said::Done
            }
            Ok(Put::Conflict) => Said::Unclear,
            Err(error) => {
                self.state().pace.failed(clock::now());
                self.unclear(&unavailable(error))
            }
        }
    }

    async fn get(&self, slot: u64, link: u32) -> Said {
        let place = self.place(slot);
        let key = name::link(place, link);
        let bytes = match self.bucket.get(&key).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Said::Absent,
            Err(error) => return self.unclear(&unavailable(error)),
        };
        match Record::decode(place, &bytes) {
            Ok(record) => {
                self.note_place(slot, link, &record);
                Said::Found(Arc::new(record))
            }
            Err(why) => {
                let bucket = self.number;
                tracing::error!(bucket, %key, ?why, "a record of the journal cannot be used");
                Said::Unreadable(why)
            }
        }
    }

    fn note_place(&self, slot: u64, link: u32, record: &Record) {
        if record.content().is_none() {
            return;
        }
        let mut state = self.state();
        state.places.insert(slot, link);
        if state.places.len() > PLACES_MAX {
            state.places.pop_first();
        }
        state.hold_to_claim();
    }

    fn floors(&self) -> String {
        name::floors(self.configuration.shard, self.configuration.number)
    }

    async fn floor(&self) -> Said {
        let known = self.state().floor;
        match floor::last(self.bucket.as_ref(), &self.floors(), known).await {
            // The first floor was created with the marker.
            Ok(Link { number: 0, .. }) => self.wrong("it carries no floor".to_owned()),
            Ok(link) => {
                self.note_floor(link);
                Said::Floor(link.floor)
            }
            Err(Error::Corrupt(why)) => self.wrong(why),
            Err(error) => self.unclear(&error),
        }
    }

    async fn raise(&self, floor: u64) -> Said {
        let known = self.state().floor;
        match floor::raise(self.bucket.as_ref(), &self.floors(), known, floor).await {
            Ok(link) => {
                self.note_floor(link);
                Said::Done
            }
            Err(Error::Corrupt(why)) => self.wrong(why),
            Err(error) => self.unclear(&error),
        }
    }

    fn note_floor(&self, link: Link) {
        let known = &mut self.state().floor;
        if known.number < link.number {
            *known = link;
        }
    }

    /// Refuses the bucket from now on.
    pub(super) fn refuse(&self, why: String) {
        let mut state = self.state();
        if state.refused.is_none() {
            let bucket = self.number;
            tracing::error!(
                bucket,
                why,
                "a bucket of the journal is refused from now on"
            );
            state.refused = Some(why);
        }
    }

    fn wrong(&self, why: String) -> Said {
        self.refuse(why);
        Said::Wrong
    }

    /// Looks at the marker and the newest claim, unless a good look began within `fresh`.
    async fn look(&self, fresh: Duration) -> Said {
        let _one = self.looking.lock().await;
        let began = clock::now();
        let looked = self.state().looked;
        if looked.is_some_and(|looked| began.since(looked) < fresh) {
            return Said::Done;
        }
        let mut flaw = None;
        for _ in 0..LOOKS {
            flaw = match clock::timeout(REQUEST_FOR, self.flaw()).await {
                Ok(Ok(None)) => {
                    self.state().looked = Some(began);
                    return Said::Done;
                }
                Ok(Ok(Some(flaw))) => Some(flaw),
                Ok(Err(error)) => return self.unclear(&error),
                Err(_) => return Said::Unclear,
            };
        }
        self.wrong(flaw.unwrap_or_default())
    }

    /// What is wrong with the bucket. The marker and the claim are read at the same time: a taker waits for both.
    async fn flaw(&self) -> Result<Option<String>, Error> {
        let (marker, claim) = tokio::join!(self.flaw_of_marker(), self.flaw_of_claim());
        match marker? {
            Some(flaw) => Ok(Some(flaw)),
            None => claim,
        }
    }

    async fn flaw_of_marker(&self) -> Result<Option<String>, Error> {
        let found = match marker::read(self.bucket.as_ref()).await {
            Ok(found) => found,
            Err(marker::Error::Bucket(error)) => return Err(unavailable(error)),
            Err(flaw) => return Ok(Some(flaw.to_string())),
        };
        let Configuration {
            cluster,
            generations,
            ..
        } = self.configuration.as_ref();
        if found.cluster != *cluster {
            return Ok(Some(format!("it belongs to cluster {}", found.cluster)));
        }
        let expected = generations[self.number];
        if found.generation != expected {
            return Ok(Some(format!(
                "its generation is {:016x} and not {expected:016x}: it was emptied, or restored, and claimed again",
                found.generation
            )));
        }
        Ok(None)
    }

    async fn flaw_of_claim(&self) -> Result<Option<String>, Error> {
        let claim = self.state().claim;
        let Some((slot, link)) = claim else {
            return Ok(None);
        };
        let key = name::link(self.place(slot), link);
        let found = self.bucket.get(&key).await.map_err(unavailable)?;
        Ok(found.is_none().then(|| {
            format!("{key} is gone, which holds a claim: it was emptied, or is an older copy")
        }))
    }

    /// Deletes the chains of these slots, the last link of each first, so that what is left is still a chain. What a
    /// listing that lags does not show stays behind and counts for nothing.
    async fn sweep(&self, slots: &[u64]) -> Result<(), Error> {
        let (Some(first), Some(last)) = (slots.iter().min(), slots.iter().max()) else {
            return Ok(());
        };
        let shard = self.configuration.shard;
        let number = self.configuration.number;
        let mut after = name::link(self.place(first.saturating_sub(1)), u32::MAX);
        loop {
            let base = name::slots(shard, number);
            let listed = self.bucket.list(&base, Some(&after), LISTED).await;
            let listed = listed.map_err(unavailable)?;
            let is_last = listed.len() < LISTED;
            let mut found: Vec<(u64, u32)> = listed
                .iter()
                .filter_map(|object| name::parse(shard, number, &object.key))
                .filter(|(slot, _)| slot <= last)
                .collect();
            let is_past = found.len() < listed.len();
            if let Some(object) = listed.last() {
                after = object.key.clone();
            }
            found.retain(|(slot, _)| slots.contains(slot));
            found.reverse();
            stream::iter(found)
                .map(Ok)
                .try_for_each_concurrent(DELETES_AT_ONCE, |(slot, link)| async move {
                    let deleted = self
                        .bucket
                        .delete(&name::link(self.place(slot), link))
                        .await;
                    deleted.map_err(unavailable)
                })
                .await?;
            if is_last || is_past {
                return Ok(());
            }
        }
    }

    /// Some slot above this one that holds a value, as a listing has it; repeated until the bucket answers.
    pub(super) async fn above(&self, slot: u64) -> Option<u64> {
        loop {
            match self.first_above(slot).await {
                Ok(found) => return found,
                Err(error) => drop(self.unclear(&error)),
            }
            clock::sleep(self.pause()).await;
        }
    }

    async fn first_above(&self, slot: u64) -> Result<Option<u64>, Error> {
        let (shard, number) = (self.configuration.shard, self.configuration.number);
        let after = name::link(self.place(slot), u32::MAX);
        let base = name::slots(shard, number);
        let listed = self.bucket.list(&base, Some(&after), LISTED).await;
        let listed = listed.map_err(unavailable)?;
        let parsed: Vec<_> = listed
            .iter()
            .filter_map(|object| name::parse(shard, number, &object.key))
            .collect();
        // Promises lie beyond what is in use. Records are read together: a taker waits for this.
        let mut reads = stream::iter(parsed)
            .map(|(slot, link)| async move { (slot, self.get(slot, link).await) })
            .buffered(READS_AT_ONCE);
        while let Some((slot, said)) = reads.next().await {
            match said {
                Said::Found(record) if record.content().is_some() => return Ok(Some(slot)),
                Said::Unclear => return Err(Error::Unavailable(format!("slot {slot}"))),
                _ => {}
            }
        }
        Ok(None)
    }
}

fn is_repeated(call: &Call) -> bool {
    match call {
        Call::Put { again, .. }
        | Call::Get { again, .. }
        | Call::Floor { again }
        | Call::Look { again, .. }
        | Call::Raise { again, .. }
        | Call::Sweep { again, .. } => *again,
    }
}
