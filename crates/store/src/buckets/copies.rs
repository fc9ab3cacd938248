//! Writing to several buckets: to all at the same time. It is done once enough of them hold the object; the others go on by
//! themselves. It must not know what is written.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use super::{Buckets, Place};
use crate::bucket::{Bucket, Error, Key, Op, Payload, Put};
use crate::retry::{Limits, Retry, is_ours};

/// What is there under the name, where it is not what was to be written.
const OTHER_CONTENT: &str = "an object with other content has this name";

/// An object that enough buckets hold.
pub struct Copies {
    /// The numbers of the buckets that hold it, increasing.
    pub held: Vec<u32>,
    /// The writes that were not answered yet.
    pub late: Late,
}

/// Writes that go on while somebody waits for them. Dropping it ends them; what they have sent may arrive all the same.
#[derive(Default)]
pub struct Late {
    writes: FuturesUnordered<BoxFuture<'static, (u32, Result<(), Error>)>>,
}

impl Late {
    /// The number of the next bucket that holds the object, or why it does not; `None` once all have answered.
    pub async fn next(&mut self) -> Option<(u32, Result<(), Error>)> {
        self.writes.next().await
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// Writes objects under names that nobody else uses, and repeats what fails in each bucket by itself.
pub struct Copier {
    buckets: Arc<Buckets>,
    /// One for each bucket, so that one that fails does not use up what the others may repeat.
    retries: Vec<Arc<Retry>>,
}

impl Copier {
    pub fn new(buckets: Arc<Buckets>, limits: Limits) -> Self {
        let retries = buckets.places.iter().map(|_| Arc::new(Retry::new(limits)));
        Copier {
            retries: retries.collect(),
            buckets,
        }
    }

    /// Writes the object to all buckets until enough hold it that are not suspect, or so many have failed for good that this cannot be any more.
    pub async fn put(&self, key: &Key, payload: &Payload) -> Result<Copies, Error> {
        let late = Late::default();
        for (place, retry) in self.buckets.places.iter().zip(&self.retries) {
            let (place, retry) = (Arc::clone(place), Arc::clone(retry));
            let (key, payload) = (key.clone(), payload.clone());
            let write = async move {
                let written = retry.put_immutable(&*place, &key, &payload).await;
                (place.number, written)
            };
            late.writes.push(write.boxed());
        }
        enough(&self.buckets, key, late).await
    }
}

/// Writes the object once to each bucket, as [`Bucket::put_new`] has it.
pub(super) async fn put_once(
    buckets: &Buckets,
    key: &Key,
    payload: &Payload,
) -> Result<Put, Error> {
    let late = Late::default();
    for place in &buckets.places {
        let (place, key, payload) = (Arc::clone(place), key.clone(), payload.clone());
        let write = async move { (place.number, create(&place, &key, &payload).await) };
        late.writes.push(write.boxed());
    }
    match enough(buckets, key, late).await {
        Ok(mut copies) => {
            // The other copies are made by and by; whoever needs to know of them uses a `Copier`.
            if !copies.late.is_empty() {
                host::task::spawn_detached("copies", async move {
                    while copies.late.next().await.is_some() {}
                });
            }
            Ok(Put::Created)
        }
        Err(Error::Definite { detail, .. }) if detail == OTHER_CONTENT => Ok(Put::Conflict),
        Err(error) => Err(error),
    }
}

async fn create(place: &Place, key: &Key, payload: &Payload) -> Result<(), Error> {
    match place.put_new(key, payload.clone()).await? {
        Put::Created => Ok(()),
        Put::Conflict if is_ours(place, key, payload).await? => Ok(()),
        Put::Conflict => Err(Error::definite(Op::PutNew, key, OTHER_CONTENT)),
    }
}

/// Whether so many buckets say so that an object counts as stored.
pub(super) async fn enough_say_so(
    buckets: &Buckets,
    key: &Key,
    mut asked: FuturesUnordered<impl Future<Output = Result<bool, Error>>>,
) -> Result<bool, Error> {
    let (mut yes, mut no, mut failure) = (0, 0, None);
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(true) => yes += 1,
            Ok(false) => no += 1,
            Err(error) => failure = Some(error),
        }
        if yes >= buckets.copies {
            return Ok(true);
        }
        if no >= buckets.absent_needed() {
            return Ok(false);
        }
    }
    let few = || Error::unknown(Op::Get, key, "too few buckets answer");
    Err(failure.unwrap_or_else(few))
}

impl Buckets {
    /// How many of these buckets count: a suspect one does not.
    fn counted(&self, held: &[u32]) -> usize {
        let counts = |number: &&u32| {
            let place = self.place(**number);
            place.is_some_and(|place| !place.is_suspect())
        };
        held.iter().filter(counts).count()
    }
}

/// Waits until enough buckets hold the object, or all have answered.
async fn enough(buckets: &Buckets, key: &Key, mut late: Late) -> Result<Copies, Error> {
    let (mut held, mut failure): (Vec<u32>, Option<Error>) = (Vec::new(), None);
    while let Some((number, written)) = late.next().await {
        match written {
            Ok(()) => {
                held.push(number);
                if buckets.counted(&held) >= buckets.copies {
                    held.sort_unstable();
                    return Ok(Copies { held, late });
                }
            }
            // What may have happened somewhere is worse than what certainly did not.
            Err(error) if error.may_have_happened() => failure = Some(error),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    let (have, need) = (buckets.counted(&held), buckets.copies);
    match failure {
        // Nobody holds it, and all know why.
        Some(error @ (Error::Definite { .. } | Error::Throttled { .. })) if held.is_empty() => {
            Err(error)
        }
        failure => {
            let why = failure.map_or_else(String::new, |error| error.to_string());
            let detail = format!("{have} of the {need} copies that it needs were made: {why}");
            Err(Error::unknown(Op::PutNew, key, detail))
        }
    }
}
