//! The buckets of a cluster, used as one. An object counts as stored once so many of them hold it that it outlives the loss of
//! any that may be lost; it is read from the nearest one that has it. A bucket is used only while it is known to be the cluster's,
//! and one that is slow or away delays nothing that the others can do. It must not know what the objects mean, nor where a
//! bucket lies.

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use host::clock::Instant;

use self::missed::Missed;
use crate::bucket::{Bucket, Error, IsWhole, Key, ObjectMeta, Op, Payload, Put, Space};
use crate::hedge::pace::{Pace, Work};
use crate::meter::Counters;

pub mod copies;
pub mod filling;
mod missed;
mod nearest;
mod nearness;
mod reach;
#[cfg(test)]
mod tests;
mod whole;

/// So many requests in a row that failed, or were overtaken by another bucket, and a bucket is asked last.
const FAILURES_MAX: u32 = 5;
/// How often a bucket that is asked last is asked all the same, beside the one that is asked first.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// What a bucket says counts if a good look at whose it is began this long before, at most.
pub const LOOK_COUNTS_FOR: Duration = Duration::from_secs(5);
/// How long a listing waits for buckets beyond those that it needs.
const LIST_FOR: Duration = Duration::from_secs(2);

/// One of the buckets of a cluster.
pub struct Member {
    /// Its number in the placement of files.
    pub number: u32,
    /// What people call it.
    pub name: String,
    pub bucket: Arc<dyn Bucket>,
    /// Of what is asked of it: they tell whether it answers.
    pub counters: Arc<Counters>,
}

/// Why several buckets cannot be used as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("a cluster has 1 to 64 buckets, each with a number of its own")]
    Numbers,
    #[error("there are fewer buckets than the copies that an object must have")]
    Copies,
}

/// The buckets of a cluster.
pub struct Buckets {
    places: Vec<Arc<Place>>,
    copies: usize,
    /// What one of them had, and another that was asked before had not.
    missed: Arc<Missed>,
}

/// Whether a bucket may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not known just now that it is the cluster's.
    Unproven,
    /// It is the cluster's, as a look found that began not long ago.
    Proven,
    /// It is not what it was: it counts for nothing.
    Refused(String),
}

/// How a bucket is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub number: u32,
    pub name: String,
    pub standing: Standing,
    /// Whether it answered lately, and showed that it is the cluster's.
    pub answers: bool,
}

/// A bucket, and what is known of it.
struct Place {
    number: u32,
    name: String,
    bucket: Arc<dyn Bucket>,
    counters: Arc<Counters>,
    standing: Mutex<Standing>,
    /// When the last good look at it began; `None`: it needs none, since the cluster has no other.
    looked_at: Option<Mutex<Instant>>,
    looks: Mutex<nearness::Looks>,
    pace: Mutex<Pace>,
    failures: AtomicU32,
    probed_at: Mutex<Instant>,
    /// It may have lost what it held: no copy and no absence there counts for anything.
    is_suspect: AtomicBool,
}

impl Buckets {
    /// Buckets of which each may be lost alone, the nearest first, and in how many of them an object must be. None is used
    /// before [`Buckets::set_standing`] says that it is the cluster's.
    pub fn new(members: Vec<Member>, copies: usize) -> Result<Self, Unusable> {
        let numbers = members.iter().map(|member| member.number);
        let distinct: std::collections::BTreeSet<u32> = numbers.collect();
        if distinct.len() != members.len() || !(1..=64).contains(&members.len()) {
            return Err(Unusable::Numbers);
        }
        if copies == 0 || copies > members.len() {
            return Err(Unusable::Copies);
        }
        let place = |member: Member| {
            Arc::new(Place {
                number: member.number,
                name: member.name,
                bucket: member.bucket,
                counters: member.counters,
                standing: Mutex::new(Standing::Unproven),
                looked_at: Some(Mutex::default()),
                looks: Mutex::default(),
                pace: Mutex::default(),
                failures: AtomicU32::new(0),
                probed_at: Mutex::new(Instant::default()),
                is_suspect: AtomicBool::new(false),
            })
        };
        Ok(Buckets {
            places: members.into_iter().map(place).collect(),
            copies,
            missed: Arc::default(),
        })
    }

    /// A cluster's only bucket, with the counters of what is asked of it: they tell whether it answers.
    pub fn one(bucket: Arc<dyn Bucket>, counters: Arc<Counters>) -> Self {
        let place = Place {
            number: 0,
            name: "bucket".to_owned(),
            bucket,
            counters,
            standing: Mutex::new(Standing::Proven),
            looked_at: None,
            looks: Mutex::default(),
            pace: Mutex::default(),
            failures: AtomicU32::new(0),
            probed_at: Mutex::new(Instant::default()),
            is_suspect: AtomicBool::new(false),
        };
        Buckets {
            places: vec![Arc::new(place)],
            copies: 1,
            missed: Arc::default(),
        }
    }

    /// The same buckets, and what is known of them, in the order from the farthest to the nearest.
    #[must_use]
    pub fn farthest_first(&self) -> Self {
        Buckets {
            places: self.places.iter().rev().cloned().collect(),
            copies: self.copies,
            missed: Arc::clone(&self.missed),
        }
    }

    /// The numbers of all buckets, the nearest first.
    pub fn numbers(&self) -> Vec<u32> {
        self.places.iter().map(|place| place.number).collect()
    }

    /// Says what a look at the bucket of this number has found that began at this time. One that was refused stays so.
    pub fn looked(&self, number: u32, began: Instant, found: Standing) {
        let Some(place) = self.place(number) else {
            return;
        };
        let mut standing = lock(&place.standing);
        if matches!(*standing, Standing::Refused(_)) {
            return;
        }
        if let (Standing::Proven, Some(looked_at)) = (&found, &place.looked_at) {
            *lock(looked_at) = began;
        }
        *standing = found;
    }

    /// Says which buckets are suspect from now on, bit b for the one of number b: what they hold, and what they do not have, counts for nothing.
    pub fn suspect(&self, suspects: u64) {
        for place in &self.places {
            let bit = 1_u64.checked_shl(place.number).unwrap_or(0);
            let is_suspect = suspects & bit != 0;
            place.is_suspect.store(is_suspect, Ordering::Relaxed);
        }
    }

    /// The buckets in the order of their numbers, each by itself: what they say counts as it does here.
    pub fn by_number(&self) -> Vec<Arc<dyn Bucket>> {
        let mut places = self.places.clone();
        places.sort_by_key(|place| place.number);
        places
            .into_iter()
            .map(|place| place as Arc<dyn Bucket>)
            .collect()
    }

    /// How each bucket is, the nearest first.
    pub fn states(&self) -> Vec<State> {
        let states = self.places.iter().map(|place| State {
            number: place.number,
            name: place.name.clone(),
            standing: lock(&place.standing).clone(),
            answers: !place.is_failing() && !place.is_proof_old(),
        });
        states.collect()
    }

    /// The only bucket of a cluster that has one.
    fn only(&self) -> Option<&dyn Bucket> {
        match self.places.as_slice() {
            [only] if only.looked_at.is_none() => Some(&*only.bucket),
            _ => None,
        }
    }

    /// So many buckets without an object prove that it is not stored.
    fn absent_needed(&self) -> usize {
        self.places.len() - self.copies + 1
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// Whether the last good look at it began too long ago to count.
    fn is_proof_old(&self) -> bool {
        let age = |looked_at| host::clock::now().since(*lock(looked_at));
        let age = self.looked_at.as_ref().map(age);
        age.is_some_and(|age| age >= LOOK_COUNTS_FOR)
    }

    /// Why what the bucket says does not count, if so.
    fn refusal(&self) -> Option<String> {
        let unknown = "has not shown of late that it is the cluster's";
        match &*lock(&self.standing) {
            Standing::Proven => self.is_proof_old().then(|| unknown.to_owned()),
            Standing::Unproven => Some(unknown.to_owned()),
            Standing::Refused(why) => Some(format!("is not used: {why}")),
        }
    }

    /// An error if what the bucket says does not count.
    fn check(&self, op: Op, key: impl AsRef<str>) -> Result<(), Error> {
        match self.refusal() {
            None => Ok(()),
            Some(why) => {
                let detail = format!("bucket {} ({}) {why}", self.number, self.name);
                Err(Error::unknown(op, key, detail))
            }
        }
    }

    /// Makes a request if the bucket may be used, and notes how it went.
    async fn ask<T>(
        &self,
        op: Op,
        key: impl AsRef<str>,
        work: Work,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.check(op, &key)?;
        let overtaken = Overtaken(self);
        let begun = host::clock::now();
        let answer = request.await;
        std::mem::forget(overtaken);
        match &answer {
            Ok(_) => {
                let now = host::clock::now();
                self.failures.store(0, Ordering::Relaxed);
                lock(&self.pace).answered(now, work, now.since(begun));
            }
            Err(error) if error.worth_repeating() => self.failed(),
            Err(_) => {}
        }
        // It may have been looked at meanwhile, or not for too long.
        self.check(op, &key)?;
        answer
    }

    fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_MAX
    }

    fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    fn is_proven(&self) -> bool {
        *lock(&self.standing) == Standing::Proven
    }

    /// True once in a while: a bucket that fails is asked again.
    fn is_probe_due(&self, now: Instant) -> bool {
        let mut probed_at = lock(&self.probed_at);
        let is_due = now.since(*probed_at) >= PROBE_EVERY;
        if is_due {
            *probed_at = now;
        }
        is_due
    }
}

/// A request that is dropped before its answer, because another bucket has given it, counts as failed.
struct Overtaken<'a>(&'a Place);

impl Drop for Overtaken<'_> {
    fn drop(&mut self) {
        self.0.failed();
    }
}

#[async_trait]
impl Bucket for Buckets {
    /// [`Put::Created`] means that as many buckets as needed hold these bytes. After any other outcome the same call may be made
    /// again.
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        match self.only() {
            Some(only) => only.put_new(key, body).await,
            None => copies::put_once(self, key, &body).await,
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        match self.only() {
            Some(only) => only.get(key).await,
            None => {
                let ask =
                    |place: Arc<Place>, key: Key| async move { place.get(&key).await }.boxed();
                nearest::first(self, Op::Get, key, ask).await
            }
        }
    }

    async fn get_whole(&self, key: &Key, is_whole: IsWhole) -> Result<Option<Bytes>, Error> {
        match self.only() {
            Some(only) => only.get_whole(key, is_whole).await,
            None => whole::get(self, key, is_whole).await,
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        match self.only() {
            Some(only) => only.get_range(key, range).await,
            None => {
                let ask = move |place: Arc<Place>, key: Key| {
                    let range = range.clone();
                    async move { place.get_range(&key, range).await }.boxed()
                };
                nearest::first(self, Op::GetRange, key, ask).await
            }
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        match self.only() {
            Some(only) => only.head(key).await,
            None => {
                let ask =
                    |place: Arc<Place>, key: Key| async move { place.head(&key).await }.boxed();
                nearest::first(self, Op::Head, key, ask).await
            }
        }
    }

    /// What is in any of the buckets that answer; enough of them must that no stored object is left out.
    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        match self.only() {
            Some(only) => only.list(prefix, start_after, limit).await,
            None => nearest::list(self, prefix, start_after, limit).await,
        }
    }

    /// Deletes the object in all buckets that can be used, enough of which must be there that it is stored no more. One of them that
    /// fails makes it fail, and it is to be done again; one that is away keeps what it has, until somebody finds it there by a listing.
    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let usable = || self.places.iter().filter(|place| place.refusal().is_none());
        if usable().count() < self.absent_needed() {
            let detail = "too few buckets can be used";
            return Err(Error::unknown(Op::Delete, key, detail));
        }
        let deletions = usable().map(|place| place.delete(key));
        join_all(deletions).await.into_iter().collect()
    }

    async fn holds(&self, key: &Key, payload: &Payload) -> Result<bool, Error> {
        let asked = self.places.iter().map(|place| place.holds(key, payload));
        copies::enough_say_so(self, key, asked.collect()).await
    }

    async fn holds_bytes(&self, key: &Key, length: u64) -> Result<bool, Error> {
        let asked = self
            .places
            .iter()
            .map(|place| place.holds_bytes(key, length));
        copies::enough_say_so(self, key, asked.collect()).await
    }

    async fn space(&self) -> std::io::Result<Option<Space>> {
        let mut least: Option<Space> = None;
        for place in self.places.iter().filter(|place| place.is_proven()) {
            let space = place.bucket.space().await?;
            least = [least, space]
                .into_iter()
                .flatten()
                .min_by_key(|space| space.free);
        }
        Ok(least)
    }

    fn is_remote(&self) -> bool {
        self.places.iter().any(|place| place.bucket.is_remote())
    }
}

#[async_trait]
impl Bucket for Place {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let work = Work::put(body.len());
        let request = self.bucket.put_new(key, body);
        self.ask(Op::PutNew, key, work, request).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let request = self.bucket.get(key);
        self.ask(Op::Get, key, Work::read(Op::Get), request).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let request = self.bucket.get_range(key, range);
        self.ask(Op::GetRange, key, Work::read(Op::GetRange), request)
            .await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        let request = self.bucket.head(key);
        self.ask(Op::Head, key, Work::read(Op::Head), request).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        let request = self.bucket.list(prefix, start_after, limit);
        self.ask(Op::List, prefix, Work::read(Op::List), request)
            .await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let request = self.bucket.delete(key);
        self.ask(Op::Delete, key, Work::read(Op::Delete), request)
            .await
    }

    async fn space(&self) -> std::io::Result<Option<Space>> {
        self.bucket.space().await
    }

    fn is_remote(&self) -> bool {
        self.bucket.is_remote()
    }
}
