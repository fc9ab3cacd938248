//! Which buckets a process reaches: those whose requests of either kind have not all failed, or gone unanswered, for some seconds.
//! One in doubt is asked for something small, so that neither a large object that takes long, nor that nobody asks any more,
//! decides it. It must not know who wants to know.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use host::clock::Instant;

use super::{Buckets, Place};
use crate::bucket::{Key, Payload};
use crate::layout::{PROBE, known};
use crate::outage::Kind;

/// Without a success for so long, a bucket is not reached. Others wait for it meanwhile, so it is less than what people are told of.
const LASTING: Duration = Duration::from_secs(3);
/// A request that has no answer for so long makes a bucket doubtful: all that are small are answered sooner.
const DOUBTFUL_AFTER: Duration = Duration::from_secs(1);
/// How often it is looked whether a bucket is doubtful.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A bucket in doubt that has not answered for so long does not: more than a request must be under way for to count.
const TRY_FOR: Duration = Duration::from_millis(3_200);

impl Buckets {
    /// The buckets that this process reaches, bit b for the one of number b: those that are the cluster's and answer.
    pub fn reached(&self, now: Instant) -> u64 {
        let reached = self.places.iter().filter(|place| place.is_reached(now));
        reached.fold(0, |bits, place| bits | 1 << place.number)
    }

    /// Asks buckets that are in doubt whether they answer, for ever.
    pub async fn try_doubtful(&self) -> Infallible {
        let key = known(Key::new(format!(
            "{PROBE}reach-{:032x}",
            host::rng::nonce()
        )));
        loop {
            host::clock::sleep(LOOK_EVERY).await;
            let now = host::clock::now();
            let doubtful = self.places.iter().filter(|place| place.is_doubtful(now));
            let tries = doubtful.map(|place| host::clock::timeout(TRY_FOR, place.try_it(&key)));
            // What came of it is in the counters.
            drop(join_all(tries).await);
        }
    }
}

impl Place {
    fn is_reached(&self, now: Instant) -> bool {
        let is_out = |kind| self.counters.outage_of(now, kind, LASTING).is_some();
        self.refusal().is_none() && !Kind::ALL.into_iter().any(is_out)
    }

    fn is_doubtful(&self, now: Instant) -> bool {
        let mut kinds = Kind::ALL.into_iter();
        kinds.any(|kind| self.counters.is_doubtful(now, kind, DOUBTFUL_AFTER))
    }

    /// Writes a small object, reads it and deletes it. One that could not be deleted is met by the next try.
    async fn try_it(&self, key: &Key) {
        let body = Payload::from(Bytes::from_static(b"reach"));
        let (written, read) = futures::join!(self.bucket.put_new(key, body), self.bucket.get(key));
        if written.is_ok() && read.is_ok() {
            // It is a few bytes.
            drop(self.bucket.delete(key).await);
        }
    }
}
