//! The start-up probe: whether a bucket keeps the promises on which safety rests, above all that
//! a create-if-absent never overwrites. Several products that speak S3 ignore the condition and
//! answer 200. It must not know what the bucket is for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use crate::bucket::{self, Bucket, Key, Payload, Put};
use crate::layout::{PROBE, known};

mod patient;

use patient::Patient;

/// How many creates of the same object run at once.
const RACERS: usize = 16;
/// The sizes of the long and the short upload that race; the short one starts while the long one is
/// on its way.
const LONG_BYTES: usize = 8 << 20;
const SHORT_BYTES: usize = 64;
/// The long upload repeats this piece, so that it takes no memory of its size.
static LONG_PIECE: [u8; 64 << 10] = [b'l'; 64 << 10];
const SHORT_AFTER: Duration = Duration::from_millis(5);
/// An object that can be read after its deletion is deleted again this often: a copy of its upload may have landed late and
/// have made it anew, each copy once.
const DELETIONS: usize = 8;
const DELETION_PAUSE: Duration = Duration::from_millis(50);
/// A race in which every create reported a conflict is run again this often at most.
const RACES: usize = 5;

/// Why a bucket is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store breaks a promise; data would be lost on it.
    #[error("the bucket cannot be used: {0}")]
    Unfit(&'static str),
    /// The directory gave no answer; the probe may be repeated.
    #[error(
        "the start-up probe of the bucket failed: {0}. Check that the directory is there and mounted, \
         that this user may write to it, and that its file system has room"
    )]
    Directory(bucket::Error),
    /// The store gave no answer; the probe may be repeated.
    #[error("the start-up probe of the bucket failed: {0}. {advice}", advice = advice(.0))]
    Bucket(#[from] bucket::Error),
}

/// What an operator can do about a request that failed several times.
fn advice(error: &bucket::Error) -> &'static str {
    match error {
        bucket::Error::Definite { .. } => {
            "Check that the bucket exists, that endpoint and region in its URL are right, and that \
             the credentials may read, create, delete and list there (s3:GetObject, s3:PutObject, \
             s3:DeleteObject, s3:ListBucket). If only uploads are refused, the store may not know \
             their checksum: try checksum=none in the URL"
        }
        bucket::Error::Unknown { .. } => {
            "Check that the endpoint in the bucket's URL is right, that the store is up, and that \
             it can be reached from here. If only large uploads fail, the way to the store may be \
             too slow for them: it has to take 4 Mbit/s"
        }
        bucket::Error::Throttled { .. } => {
            "The store asks for fewer requests: wait, or raise its limits for this bucket"
        }
    }
}

/// Tries the bucket below `probe/<nonce>/` and cleans up. Some 45 requests, each of which is repeated
/// if it fails.
pub async fn run(bucket: &Arc<dyn Bucket>) -> Result<(), Error> {
    let place = format!("{PROBE}{:032x}/", host::rng::nonce());
    let patient: Arc<dyn Bucket> = Arc::new(Patient::new(bucket));
    let result = check(&patient, &place).await;
    let cleaned = clean(&patient, &place).await;
    match result.and(cleaned.map_err(Error::from)) {
        Err(Error::Bucket(error)) if !bucket.is_remote() => Err(Error::Directory(error)),
        result => result,
    }
}

/// Deletes what a probe left, up to the first deletion that fails: the bucket is away then, and what
/// lies below `probe/` does no harm.
async fn clean(bucket: &Arc<dyn Bucket>, place: &str) -> Result<(), bucket::Error> {
    for name in names() {
        bucket.delete(&key(place, name)).await?;
    }
    Ok(())
}

const ONCE: &str = "once";
const RACE: [&str; RACES] = ["race-0", "race-1", "race-2", "race-3", "race-4"];
const SIZES: [&str; RACES] = ["sizes-0", "sizes-1", "sizes-2", "sizes-3", "sizes-4"];

fn names() -> impl Iterator<Item = &'static str> {
    [ONCE].into_iter().chain(RACE).chain(SIZES)
}

fn key(place: &str, name: &str) -> Key {
    known(Key::new(format!("{place}{name}")))
}

async fn check(bucket: &Arc<dyn Bucket>, place: &str) -> Result<(), Error> {
    create_twice(bucket, place).await?;
    read_back(bucket, place).await?;
    race(bucket, place, RACE, many).await?;
    if bucket.is_remote() {
        race(bucket, place, SIZES, long_and_short).await?;
    }
    list(bucket, place).await?;
    delete(bucket, place).await
}

async fn create_twice(bucket: &Arc<dyn Bucket>, place: &str) -> Result<(), Error> {
    let key = key(place, ONCE);
    if bucket.get(&key).await?.is_some() {
        return Err(Error::Unfit("an object exists that nobody created"));
    }
    let first = bucket.put_new(&key, Bytes::from_static(b"0123456789").into());
    if first.await? == Put::Conflict && bucket.get(&key).await?.is_none() {
        let detail = "the store reported a conflict for a name that nobody else uses";
        return Err(bucket::Error::throttled(bucket::Op::PutNew, &key, detail).into());
    }
    let second = bucket.put_new(&key, Bytes::from_static(b"overwritten").into());
    let second = second.await?;
    match bucket.get(&key).await?.as_deref() {
        Some(b"0123456789") if second == Put::Conflict => Ok(()),
        Some(b"0123456789") => Err(Error::Unfit(
            "it reports that it created an object that existed already",
        )),
        Some(b"overwritten") => Err(Error::Unfit(
            "it overwrites existing objects: conditional PUT (If-None-Match: *) is ignored",
        )),
        Some(_) => Err(Error::Unfit("an object does not hold what was written")),
        None => Err(Error::Unfit(
            "an object that was just created cannot be read",
        )),
    }
}

async fn read_back(bucket: &Arc<dyn Bucket>, place: &str) -> Result<(), Error> {
    let key = key(place, ONCE);
    if bucket.head(&key).await? != Some(10) {
        return Err(Error::Unfit("it reports a wrong size for an object"));
    }
    for (range, expected) in [(0..1, "0"), (3..7, "3456"), (9..10, "9")] {
        if bucket.get_range(&key, range).await?.as_deref() != Some(expected.as_bytes()) {
            return Err(Error::Unfit("it does not return the range asked for"));
        }
    }
    Ok(())
}

/// One of several creates of the same object.
struct Racer {
    /// How long after the race's beginning this create starts.
    after: Duration,
    body: Payload,
}

fn many() -> Vec<Racer> {
    let racers = (0..RACERS).map(|racer| Racer {
        after: Duration::ZERO,
        body: Bytes::from(format!("racer {racer:02}")).into(),
    });
    racers.collect()
}

/// A slow upload and a fast one that is over before it: the store must decide which of them created
/// the object. Hedged creates rest on that, and so does taking a name from a writer that may still
/// be sending.
fn long_and_short() -> Vec<Racer> {
    let piece = Bytes::from_static(&LONG_PIECE);
    let long = Payload::new(vec![piece; LONG_BYTES / LONG_PIECE.len()]);
    let short = Payload::from(Bytes::from_static(&[b's'; SHORT_BYTES]));
    let racer = |after, body| Racer { after, body };
    vec![racer(Duration::ZERO, long), racer(SHORT_AFTER, short)]
}

/// Creates one object several times at once; if all are refused, races again under another name.
async fn race(
    bucket: &Arc<dyn Bucket>,
    place: &str,
    names: [&str; RACES],
    racers: impl Fn() -> Vec<Racer>,
) -> Result<(), Error> {
    for name in names {
        let key = key(place, name);
        // Each racer is a task of its own, so that a bucket in this process is raced on all
        // threads.
        let racers = racers().into_iter().map(|Racer { after, body }| {
            let (bucket, key) = (Arc::clone(bucket), key.clone());
            host::task::spawn("bucket probe", async move {
                host::clock::sleep(after).await;
                let put = bucket.put_new(&key, body.clone()).await;
                put.map(|put| (put == Put::Created).then_some(body))
            })
            .join()
        });
        let mut winners = Vec::new();
        for ended in join_all(racers).await.into_iter().flatten() {
            winners.extend(ended?);
        }
        match winners.as_slice() {
            [winner] if is_stored(bucket, &key, winner).await? => return Ok(()),
            [_] => return Err(Error::Unfit("the winner of a race is not what was stored")),
            // Every create was refused, as S3's 409 allows: race again.
            [] => {}
            _ => {
                return Err(Error::Unfit(
                    "several creates of one object succeeded at once",
                ));
            }
        }
    }
    Err(Error::Unfit(
        "no create ever succeeds when several try at once",
    ))
}

/// True if an object has the size and the beginning of `body`; those of racers differ.
async fn is_stored(bucket: &Arc<dyn Bucket>, key: &Key, body: &Payload) -> Result<bool, Error> {
    if bucket.head(key).await? != Some(body.len()) {
        return Ok(false);
    }
    let beginning = body.pieces().iter().flatten().copied();
    let beginning: Vec<u8> = beginning.take(SHORT_BYTES).collect();
    let stored = bucket.get_range(key, 0..beginning.len() as u64).await?;
    Ok(stored.as_deref() == Some(beginning.as_slice()))
}

async fn list(bucket: &Arc<dyn Bucket>, place: &str) -> Result<(), Error> {
    let listed = bucket.list(place, None, 100).await?;
    let names: Vec<Key> = listed.into_iter().map(|meta| meta.key).collect();
    let (once, race) = (key(place, ONCE), key(place, RACE[0]));
    if !names.contains(&once) || !names.contains(&race) {
        return Err(Error::Unfit(
            "a listing lacks objects that were just created",
        ));
    }
    if !names.is_sorted() {
        return Err(Error::Unfit("listings are not ordered by key"));
    }
    let behind = bucket.list(place, Some(&once), 1).await?;
    if behind.first().map(|meta| &meta.key) != Some(&race) {
        return Err(Error::Unfit("listings cannot start after a key"));
    }
    Ok(())
}

async fn delete(bucket: &Arc<dyn Bucket>, place: &str) -> Result<(), Error> {
    let key = key(place, ONCE);
    for _ in 0..DELETIONS {
        bucket.delete(&key).await?;
        bucket.delete(&key).await?;
        if bucket.get(&key).await?.is_none() {
            return Ok(());
        }
        host::clock::sleep(DELETION_PAUSE).await;
    }
    Err(Error::Unfit("an object that was deleted can still be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{Error as BucketError, ObjectMeta, Op};
    use crate::faulty::{Fault, FaultRule, Faulty};
    use crate::memory::Memory;
    use async_trait::async_trait;
    use std::ops::Range;

    /// A store that ignores the condition, as several products do.
    struct Overwriting(Memory);

    #[async_trait]
    impl Bucket for Overwriting {
        async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, BucketError> {
            self.0.delete(key).await?;
            self.0.put_new(key, body).await
        }
        async fn get(&self, key: &Key) -> Result<Option<Bytes>, BucketError> {
            self.0.get(key).await
        }
        async fn get_range(
            &self,
            key: &Key,
            range: Range<u64>,
        ) -> Result<Option<Bytes>, BucketError> {
            self.0.get_range(key, range).await
        }
        async fn head(&self, key: &Key) -> Result<Option<u64>, BucketError> {
            self.0.head(key).await
        }
        async fn list(
            &self,
            prefix: &str,
            start_after: Option<&Key>,
            limit: usize,
        ) -> Result<Vec<ObjectMeta>, BucketError> {
            self.0.list(prefix, start_after, limit).await
        }
        async fn delete(&self, key: &Key) -> Result<(), BucketError> {
            self.0.delete(key).await
        }
    }

    #[test]
    fn the_long_upload_takes_no_memory_of_its_size() {
        let body = &long_and_short()[0].body;
        assert_eq!(body.len(), LONG_BYTES as u64);
        let mut places = body.pieces().iter().map(|piece| piece.as_ptr());
        assert!(places.all(|place| place == LONG_PIECE.as_ptr()));
    }

    #[tokio::test]
    async fn an_honest_bucket_passes_and_is_left_clean() {
        let bucket: Arc<dyn Bucket> = Arc::new(Memory::new());
        assert_eq!(run(&bucket).await, Ok(()));
        assert_eq!(bucket.list("", None, 10).await, Ok(Vec::new()));
    }

    /// A store in which copies of uploads land after the object was deleted, so many times.
    struct LandsLate {
        inner: Memory,
        late: std::sync::atomic::AtomicUsize,
    }

    #[async_trait]
    impl Bucket for LandsLate {
        async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, BucketError> {
            self.inner.put_new(key, body).await
        }
        async fn get(&self, key: &Key) -> Result<Option<Bytes>, BucketError> {
            self.inner.get(key).await
        }
        async fn get_range(
            &self,
            key: &Key,
            range: Range<u64>,
        ) -> Result<Option<Bytes>, BucketError> {
            self.inner.get_range(key, range).await
        }
        async fn head(&self, key: &Key) -> Result<Option<u64>, BucketError> {
            self.inner.head(key).await
        }
        async fn list(
            &self,
            prefix: &str,
            start_after: Option<&Key>,
            limit: usize,
        ) -> Result<Vec<ObjectMeta>, BucketError> {
            self.inner.list(prefix, start_after, limit).await
        }
        async fn delete(&self, key: &Key) -> Result<(), BucketError> {
            use std::sync::atomic::Ordering::Relaxed;
            let existed = self.inner.get(key).await?;
            self.inner.delete(key).await?;
            let count = |late: usize| late.checked_sub(1);
            if let Some(body) = existed.filter(|_| key.as_str().ends_with(ONCE))
                && self.late.fetch_update(Relaxed, Relaxed, count).is_ok()
            {
                self.inner.put_new(key, body.into()).await?;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_upload_that_lands_late_is_no_deletion_that_does_nothing() {
        for (late, is_fit) in [(2, true), (5, true), (1_000, false)] {
            let bucket: Arc<dyn Bucket> = Arc::new(LandsLate {
                inner: Memory::new(),
                late: late.into(),
            });
            let outcome = run(&bucket).await;
            assert_eq!(outcome.is_ok(), is_fit, "{late} late: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_bucket_that_overwrites_is_refused() {
        let bucket: Arc<dyn Bucket> = Arc::new(Overwriting(Memory::new()));
        let refused = run(&bucket).await.expect_err("it overwrites");
        assert!(refused.to_string().contains("If-None-Match"), "{refused}");
        assert_eq!(bucket.list("", None, 10).await, Ok(Vec::new()));
    }

    /// A store that checks whether the object exists only when an upload begins: a short upload
    /// that comes meanwhile is overwritten, and both are told that they created the object.
    struct LooksEarly(Memory);

    #[async_trait]
    impl Bucket for LooksEarly {
        async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, BucketError> {
            if body.len() < 1 << 20 || self.0.head(key).await?.is_some() {
                return self.0.put_new(key, body).await;
            }
            while self.0.head(key).await?.is_none() {
                host::clock::sleep(Duration::from_millis(1)).await;
            }
            self.0.delete(key).await?;
            self.0.put_new(key, body).await
        }
        async fn get(&self, key: &Key) -> Result<Option<Bytes>, BucketError> {
            self.0.get(key).await
        }
        async fn get_range(
            &self,
            key: &Key,
            range: Range<u64>,
        ) -> Result<Option<Bytes>, BucketError> {
            self.0.get_range(key, range).await
        }
        async fn head(&self, key: &Key) -> Result<Option<u64>, BucketError> {
            self.0.head(key).await
        }
        async fn list(
            &self,
            prefix: &str,
            start_after: Option<&Key>,
            limit: usize,
        ) -> Result<Vec<ObjectMeta>, BucketError> {
            self.0.list(prefix, start_after, limit).await
        }
        async fn delete(&self, key: &Key) -> Result<(), BucketError> {
            self.0.delete(key).await
        }
    }

    #[tokio::test]
    async fn a_bucket_that_decides_at_the_start_of_an_upload_is_refused() {
        let bucket: Arc<dyn Bucket> = Arc::new(LooksEarly(Memory::new()));
        let refused = run(&bucket).await.expect_err("both created it");
        let expected = Error::Unfit("several creates of one object succeeded at once");
        assert_eq!(refused, expected);
        assert_eq!(bucket.list("", None, 10).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn every_kind_of_lie_is_found() {
        for rule in [
            FaultRule::on(Op::PutNew, Fault::Pretend),
            FaultRule::on(Op::PutNew, Fault::Pretend)
                .after(2)
                .below("probe/"),
            FaultRule::on(Op::Get, Fault::Corrupt),
            FaultRule::on(Op::GetRange, Fault::Truncate),
            FaultRule::on(Op::GetRange, Fault::Corrupt),
            FaultRule::on(Op::Head, Fault::Missing),
            FaultRule::on(Op::List, Fault::Missing),
            FaultRule::on(Op::Delete, Fault::Pretend),
        ] {
            let faulty = Faulty::new(Arc::new(Memory::new()), 0);
            faulty.faults().add(rule.clone());
            let bucket: Arc<dyn Bucket> = Arc::new(faulty);
            let refused = run(&bucket).await;
            assert!(
                matches!(refused, Err(Error::Unfit(_))),
                "{rule:?}: {refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_bucket_that_is_away_is_not_called_unfit() {
        let faulty = Faulty::new(Arc::new(Memory::new()), 0);
        faulty.faults().add(FaultRule::always(Fault::Unknown));
        let bucket: Arc<dyn Bucket> = Arc::new(faulty);
        let failed = run(&bucket).await.expect_err("it is away");
        assert!(matches!(failed, Error::Bucket(_)));
        for word in ["Check that", "too slow"] {
            assert!(failed.to_string().contains(word), "{failed}");
        }
        assert!(!failed.to_string().contains("checksum"), "{failed}");
    }

    #[tokio::test]
    async fn one_request_that_fails_does_not_end_the_probe() {
        for op in Op::ALL {
            for fault in [Fault::Unknown, Fault::LoseReply, Fault::Throttled] {
                for skip in 0..3 {
                    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), 0));
                    let rule = FaultRule::on(op, fault).after(skip).times(1);
                    faulty.faults().add(rule.clone());
                    let bucket: Arc<dyn Bucket> = Arc::<Faulty>::clone(&faulty);
                    assert_eq!(run(&bucket).await, Ok(()), "{rule:?}");
                    faulty.faults().clear();
                    assert_eq!(bucket.list("", None, 10).await, Ok(Vec::new()));
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_forbidden_is_told_with_what_to_do() {
        let faulty = Faulty::new(Arc::new(Memory::new()), 0);
        faulty
            .faults()
            .add(FaultRule::on(Op::PutNew, Fault::Definite));
        let bucket: Arc<dyn Bucket> = Arc::new(faulty);
        let failed = run(&bucket).await.expect_err("it may not create");
        for word in ["s3:PutObject", "endpoint", "checksum=none"] {
            assert!(failed.to_string().contains(word), "{failed}");
        }
    }

    #[tokio::test]
    async fn a_directory_is_not_told_about_clouds() {
        let place = tempfile::tempdir().unwrap();
        let bucket = crate::directory::Directory::open(place.path().join("bucket")).unwrap();
        std::fs::remove_dir_all(place.path().join("bucket")).unwrap();
        let failed = run(&(Arc::new(bucket) as Arc<dyn Bucket>)).await;
        let told = failed.expect_err("it is gone").to_string();
        assert!(told.contains("its file system has room"), "{told}");
        assert!(!told.contains("s3:"), "{told}");
    }
}
