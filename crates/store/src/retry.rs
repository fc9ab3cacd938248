//! Repeats operations that are safe to repeat: reads, deletions, and creating an object under a
//! unique name with the same bytes. Repetitions are paid from a budget, wait with jitter and end at
//! a deadline, so that a sick bucket is not made sicker. It must not know what the objects mean.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use host::allowance::Allowance;
use host::backoff::Backoff;
use host::rng::Rng;

use crate::bucket::{Bucket, Error, IsWhole, Key, Op, Payload, Put};
use crate::extra::REPEATS;

/// How often and how long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts in all, at least one.
    pub attempts: u32,
    pub backoff: Backoff,
    /// No attempt starts later than this after the first.
    pub deadline: Duration,
}

impl Limits {
    /// For files and other objects of some MiB.
    pub const FILES: Limits = Limits {
        attempts: 8,
        backoff: Backoff::new(Duration::from_millis(10), Duration::from_millis(500)),
        deadline: Duration::from_secs(30),
    };
}

/// How often what is damaged is read.
const DAMAGED_READS: u32 = 8;
/// The pauses between these reads, some 1.5 seconds together: what is wrong on the way may pass.
const DAMAGED_AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));

/// The parts of rule 27 of docs/safety.md, which keep repetitions from making a sick bucket sicker.
/// Tests remove one part at a time and show that its absence is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restraint {
    Budget,
    /// Waits are random, so that callers that failed together do not come again together.
    Jitter,
    Deadline,
}

/// Repeats operations on one bucket, within [`Limits`] and a budget that all its users share.
#[derive(Debug)]
pub struct Retry {
    limits: Limits,
    shared: Mutex<Shared>,
    #[cfg(test)]
    removed: Option<Restraint>,
}

#[derive(Debug)]
struct Shared {
    allowance: Allowance,
    rng: Rng,
}

impl Retry {
    pub fn new(limits: Limits) -> Self {
        Retry {
            limits,
            shared: Mutex::new(Shared {
                allowance: Allowance::new(REPEATS),
                rng: Rng::from_entropy(),
            }),
            #[cfg(test)]
            removed: None,
        }
    }

    #[cfg(test)]
    fn holds(&self, rule: Restraint) -> bool {
        self.removed != Some(rule)
    }

    #[cfg(not(test))]
    fn holds(&self, _: Restraint) -> bool {
        true
    }

    /// Runs `attempt` until it succeeds, fails for good, or the limits are reached. Only for what
    /// is safe to repeat. If any attempt may have happened, so may the whole, whatever the last
    /// one said.
    pub async fn run<T, F>(
        &self,
        op: Op,
        key: &Key,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let start = host::clock::now();
        let mut in_doubt = false;
        let mut made = 0;
        self.earn();
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            in_doubt |= error.may_have_happened();
            // An attempt that the budget does not pay for counts as one that failed.
            loop {
                made += 1;
                let wait = self.wait_after(made);
                let late = host::clock::now().since(start) + wait > self.limits.deadline
                    && self.holds(Restraint::Deadline);
                if !error.worth_repeating() || made >= self.limits.attempts || late {
                    return Err(settle(op, key, error, in_doubt));
                }
                host::clock::sleep(wait).await;
                if self.spend() {
                    break;
                }
            }
            tracing::debug!(%op, %key, %error, attempt = made, "a bucket operation is repeated");
        }
    }

    pub async fn get(&self, bucket: &dyn Bucket, key: &Key) -> Result<Option<bytes::Bytes>, Error> {
        self.run(Op::Get, key, || bucket.get(key)).await
    }

    /// The whole object; what is not whole is read again, since it may have been altered on the way, or be a gateway's word on an error.
    /// It is not whole only if it was not eight times in a row, within some 1.5 seconds.
    pub async fn get_whole(
        &self,
        bucket: &dyn Bucket,
        key: &Key,
        is_whole: &IsWhole,
    ) -> Result<Option<bytes::Bytes>, Error> {
        let read = || bucket.get_whole(key, IsWhole::clone(is_whole));
        let is_damaged = |found: &Option<_>| found.as_ref().is_some_and(|bytes| !is_whole(bytes));
        let mut found = self.run(Op::Get, key, read).await?;
        if is_damaged(&found) {
            let mut pauses = DAMAGED_AGAIN.start();
            for _ in 1..DAMAGED_READS {
                pauses.pause().await;
                found = self.run(Op::Get, key, read).await?;
                if !is_damaged(&found) {
                    break;
                }
            }
        }
        Ok(found)
    }

    pub async fn delete(&self, bucket: &dyn Bucket, key: &Key) -> Result<(), Error> {
        self.run(Op::Delete, key, || bucket.delete(key)).await
    }

    /// Creates an object whose key nobody else uses, repeating the same bytes. If the object holds
    /// our bytes it is success, whichever attempt put them there; other bytes are a
    /// [`Error::Definite`].
    pub async fn put_immutable(
        &self,
        bucket: &dyn Bucket,
        key: &Key,
        payload: &Payload,
    ) -> Result<(), Error> {
        self.run(Op::PutNew, key, || async {
            match bucket.put_new(key, payload.clone()).await? {
                Put::Created => Ok(()),
                Put::Conflict if is_ours(bucket, key, payload).await? => Ok(()),
                Put::Conflict => {
                    let detail =
                        "an object with other content has this name, which only we should use";
                    Err(Error::definite(Op::PutNew, key, detail))
                }
            }
        })
        .await
    }

    fn earn(&self) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.allowance.earn(1);
    }

    fn spend(&self) -> bool {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.allowance.spend(host::clock::now(), 1) || !self.holds(Restraint::Budget)
    }

    fn wait_after(&self, attempts: u32) -> Duration {
        if !self.holds(Restraint::Jitter) {
            return self.limits.backoff.bound(attempts);
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        self.limits.backoff.after(attempts, &mut shared.rng)
    }
}

/// After a conflict: true if the object holds our bytes. Its size is asked first, since most
/// foreign objects differ in it.
pub(crate) async fn is_ours(
    bucket: &dyn Bucket,
    key: &Key,
    payload: &Payload,
) -> Result<bool, Error> {
    match bucket.head(key).await? {
        // The store reported a conflict but shows no object: the other create may still be under
        // way.
        None => {
            let detail = "the store reported a conflict, but there is no object";
            return Err(Error::unknown(Op::PutNew, key, detail));
        }
        Some(size) if size != payload.len() => return Ok(false),
        Some(_) => {}
    }
    match bucket.get(key).await? {
        Some(bytes) => Ok(payload.equals(&bytes)),
        None => Err(Error::unknown(Op::PutNew, key, "the object vanished")),
    }
}

/// The error of a write over all its attempts: if an earlier attempt may have happened, a definite
/// last error says nothing about the whole.
fn settle(op: Op, key: &Key, error: Error, in_doubt: bool) -> Error {
    let writes = matches!(op, Op::PutNew | Op::Delete);
    if writes && in_doubt && !error.may_have_happened() {
        let detail = format!("an earlier attempt is in doubt; the last one said: {error}");
        return Error::unknown(op, key, detail);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::{self, Fault, Faulty};
    use crate::memory::Memory;
    use bytes::Bytes;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    const QUICK: Limits = Limits {
        attempts: 4,
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(2)),
        deadline: Duration::from_secs(5),
    };

    fn sick() -> (Faulty, Key, Payload) {
        let bucket = Faulty::new(Arc::new(Memory::new()), 1);
        let key = Key::new("files/00/x").unwrap();
        (bucket, key, Bytes::from_static(b"ours").into())
    }

    #[tokio::test]
    async fn a_lost_reply_is_recognised_as_our_own_write() {
        let (bucket, key, payload) = sick();
        bucket
            .faults()
            .add(faulty::FaultRule::on(Op::PutNew, Fault::LoseReply).times(1));
        let retry = Retry::new(QUICK);
        assert_eq!(retry.put_immutable(&bucket, &key, &payload).await, Ok(()));
    }

    #[tokio::test]
    async fn a_conflict_without_an_object_is_tried_again() {
        let (bucket, key, payload) = sick();
        bucket
            .faults()
            .add(faulty::FaultRule::on(Op::PutNew, Fault::Conflict).times(2));
        let retry = Retry::new(QUICK);
        assert_eq!(retry.put_immutable(&bucket, &key, &payload).await, Ok(()));
        assert_eq!(bucket.head(&key).await, Ok(Some(4)));
    }

    #[tokio::test]
    async fn somebody_elses_bytes_under_our_name_are_an_error() {
        for stranger in ["stranger", "OURS"] {
            let (bucket, key, payload) = sick();
            let stranger = Payload::from(Bytes::from(stranger));
            bucket.put_new(&key, stranger).await.unwrap();
            let result = Retry::new(QUICK)
                .put_immutable(&bucket, &key, &payload)
                .await;
            assert!(matches!(result, Err(Error::Definite { .. })), "{result:?}");
        }
    }

    #[tokio::test]
    async fn what_is_damaged_on_the_way_is_read_again_and_what_stays_damaged_is_told() {
        let (bucket, key, payload) = sick();
        bucket.put_new(&key, payload).await.unwrap();
        let is_whole: IsWhole = Arc::new(|bytes| bytes.as_ref() == b"ours");
        let retry = Retry::new(QUICK);
        let damaged = |times| faulty::FaultRule::on(Op::Get, Fault::Corrupt).times(times);
        bucket.faults().add(damaged(5));
        let read = retry.get_whole(&bucket, &key, &is_whole).await.unwrap();
        assert!(is_whole(&read.unwrap()));
        bucket.faults().add(damaged(100));
        let before = bucket.faults().calls(Op::Get);
        let read = retry.get_whole(&bucket, &key, &is_whole).await.unwrap();
        assert!(!is_whole(&read.unwrap()));
        let reads = bucket.faults().calls(Op::Get) - before;
        assert_eq!(reads, u64::from(DAMAGED_READS));
        let absent = Key::new("files/00/absent").unwrap();
        assert_eq!(retry.get_whole(&bucket, &absent, &is_whole).await, Ok(None));
    }

    #[tokio::test]
    async fn doubt_about_one_attempt_is_doubt_about_the_whole() {
        let (bucket, key, payload) = sick();
        bucket
            .faults()
            .add(faulty::FaultRule::on(Op::PutNew, Fault::Unknown).times(1));
        bucket
            .faults()
            .add(faulty::FaultRule::on(Op::PutNew, Fault::Definite));
        let result = Retry::new(QUICK)
            .put_immutable(&bucket, &key, &payload)
            .await;
        assert!(matches!(result, Err(Error::Unknown { .. })), "{result:?}");
        bucket.faults().clear();
        bucket
            .faults()
            .add(faulty::FaultRule::on(Op::PutNew, Fault::Throttled));
        let result = Retry::new(QUICK)
            .put_immutable(&bucket, &key, &payload)
            .await;
        assert!(matches!(result, Err(Error::Throttled { .. })), "{result:?}");
    }

    /// The parts of the rule that are seen to be missing in how operations treat a bucket that is
    /// down.
    async fn missed(removed: Option<Restraint>) -> Vec<Restraint> {
        let retry = |limits| Retry {
            removed,
            ..Retry::new(limits)
        };
        let asked = async |retry: &Retry, operations: usize| {
            let (bucket, key, _) = sick();
            let rule = faulty::FaultRule::on(Op::Get, Fault::Throttled);
            bucket.faults().add(rule);
            for _ in 0..operations {
                assert!(retry.get(&bucket, &key).await.is_err());
            }
            bucket.faults().calls(Op::Get)
        };
        let mut missed = Vec::new();
        // 100 requests, 20 repetitions saved up, 30 earned by requests and a few by time. Without a
        // budget it would be four times as many.
        if asked(&retry(QUICK), 100).await > 200 {
            missed.push(Restraint::Budget);
        }
        let waiting = retry(Limits::FILES);
        let waits: BTreeSet<Duration> = (0..100).map(|_| waiting.wait_after(1)).collect();
        if waits.len() < 50 {
            missed.push(Restraint::Jitter);
        }
        let over = Limits {
            deadline: Duration::ZERO,
            ..QUICK
        };
        if asked(&retry(over), 1).await > 1 {
            missed.push(Restraint::Deadline);
        }
        missed
    }

    #[tokio::test]
    async fn a_sick_bucket_is_not_made_sicker_and_each_rule_is_missed() {
        assert_eq!(missed(None).await, []);
        for rule in [Restraint::Budget, Restraint::Jitter, Restraint::Deadline] {
            assert_eq!(missed(Some(rule)).await, [rule]);
        }
    }
}
