//! The suite that every bucket passes, public so that other crates and other people's buckets can
//! run it. Each check uses keys of its own below a fresh prefix and panics with what was broken.
//! It must not know which bucket it tests.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use crate::bucket::{Bucket, Error, Key, Payload, Put};

/// The size of the large object.
const LARGE_BYTES: usize = 32 << 20;
/// How often the store's answer to a refused create may get lost before the suite fails.
const REFUSALS_LOST_MAX: u32 = 100;

/// Runs every check.
///
/// # Panics
/// If the bucket breaks a promise of [`Bucket`].
pub async fn run(bucket: Arc<dyn Bucket>) {
    let suite = Suite {
        bucket,
        place: format!("probe/conformance-{:032x}", host::rng::nonce()),
    };
    suite.creates_once().await;
    suite.races_have_one_winner().await;
    suite.absence_is_an_answer().await;
    suite.pieces_of_every_number().await;
    suite.ranges().await;
    suite.deletes_twice().await;
    suite.lists().await;
    suite.large_objects().await;
    suite.odd_keys().await;
    suite.clean_up().await;
}

struct Suite {
    bucket: Arc<dyn Bucket>,
    place: String,
}

impl Suite {
    fn key(&self, name: &str) -> Key {
        Key::new(format!("{}/{name}", self.place)).expect("the suite's keys are keys")
    }

    async fn put(&self, name: &str, body: impl Into<Payload>) -> Put {
        let put = self.bucket.put_new(&self.key(name), body.into()).await;
        put.unwrap_or_else(|error| panic!("cannot create {name}: {error}"))
    }

    async fn get(&self, name: &str) -> Option<Bytes> {
        let got = self.bucket.get(&self.key(name)).await;
        got.unwrap_or_else(|error| panic!("cannot read {name}: {error}"))
    }

    async fn creates_once(&self) {
        assert_eq!(self.put("once", text("first")).await, Put::Created);
        for body in ["second", "first"] {
            let again = self.put("once", text(body)).await;
            assert_eq!(again, Put::Conflict, "an object was created twice");
        }
        let kept = self.get("once").await;
        assert_eq!(kept, Some(text("first")), "an object was overwritten");
    }

    async fn races_have_one_winner(&self) {
        for round in 0..8 {
            let key = self.key(&format!("race-{round}"));
            let racers = (0..16).map(|racer| {
                let (bucket, key) = (Arc::clone(&self.bucket), key.clone());
                // Some bodies are large enough to arrive in several reads.
                let body = Bytes::from(vec![racer; 1 + usize::from(racer % 4) * 100_000]);
                host::task::spawn("conformance race", async move {
                    let put = bucket.put_new(&key, body.clone().into()).await;
                    (put, body)
                })
                .join()
            });
            let ended: Vec<_> = join_all(racers).await.into_iter().flatten().collect();
            let failed = ended.iter().find(|(put, _)| put.is_err());
            assert_eq!(failed, None, "a create in a race got no answer");
            let mut winners = ended.iter().filter(|(put, _)| *put == Ok(Put::Created));
            let stored = self.bucket.get(&key).await.expect("readable after a race");
            match (winners.next(), winners.next()) {
                (Some((_, body)), None) => {
                    assert_eq!(stored.as_ref(), Some(body), "the winner's bytes are stored");
                }
                (Some(_), Some(_)) => panic!("two creates of one object succeeded"),
                // Allowed: every racer may see a conflict without any having created the object.
                (None, _) => {}
            }
        }
    }

    async fn absence_is_an_answer(&self) {
        let key = self.key("absent");
        assert_eq!(self.bucket.get(&key).await, Ok(None));
        assert_eq!(self.bucket.get_range(&key, 0..1).await, Ok(None));
        assert_eq!(self.bucket.head(&key).await, Ok(None));
    }

    async fn pieces_of_every_number(&self) {
        let piece = |byte: u8, len: usize| Bytes::from(vec![byte; len]);
        let cases = [
            Vec::new(),
            vec![Bytes::new()],
            vec![Bytes::new(), piece(1, 3), Bytes::new()],
            vec![piece(2, 100_000), piece(3, 1), piece(4, 70_000)],
            (0..=255).map(|byte| piece(byte, 100)).collect(),
            (0..2_000).map(|n| piece((n % 251) as u8, 17)).collect(),
        ];
        for (case, pieces) in cases.into_iter().enumerate() {
            let name = format!("pieces-{case}");
            let payload = Payload::new(pieces);
            assert_eq!(self.put(&name, payload.clone()).await, Put::Created);
            let size = self.bucket.head(&self.key(&name)).await;
            assert_eq!(size, Ok(Some(payload.len())), "the size of {name}");
            let read = self.get(&name).await.expect("the object exists");
            assert!(payload.equals(&read), "{name} reads back differently");
        }
    }

    async fn ranges(&self) {
        let body: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        self.put("ranges", Bytes::from(body.clone())).await;
        let key = self.key("ranges");
        let len = body.len() as u64;
        for range in [0..1, 0..len, len - 1..len, 50_000..50_007, 7..7, len..len] {
            let read = self.bucket.get_range(&key, range.clone()).await;
            let read = read.unwrap_or_else(|error| panic!("range {range:?}: {error}"));
            let expected = &body[range.start as usize..range.end as usize];
            assert_eq!(read.as_deref(), Some(expected), "range {range:?}");
        }
        #[expect(clippy::reversed_empty_ranges, reason = "it must be refused")]
        let wrong = [
            0..len + 1,
            len - 1..len + 1,
            len..len + 1,
            len + 5..len + 9,
            5..4,
        ];
        for range in wrong {
            let read = self.bucket.get_range(&key, range.clone()).await;
            let refused = matches!(read, Err(Error::Definite { .. }));
            assert!(refused, "range {range:?} of {len} bytes gave {read:?}");
        }
    }

    async fn deletes_twice(&self) {
        self.put("doomed", text("x")).await;
        for _ in 0..2 {
            assert_eq!(self.bucket.delete(&self.key("doomed")).await, Ok(()));
            assert_eq!(self.get("doomed").await, None);
        }
        let again = self.put("doomed", text("y")).await;
        assert_eq!(again, Put::Created, "a deleted name is free again");
        assert_eq!(self.get("doomed").await, Some(text("y")));
    }

    async fn lists(&self) {
        // Ordered as bytes: '-' < '.' < '/' < digits < letters.
        let names = [
            "list/a-b",
            "list/a.b",
            "list/a/b",
            "list/a/c/d",
            "list/a0",
            "list/ab",
            "list/b",
            "list/b-/x",
            "list/b0/x",
            "lisu",
        ];
        for (size, name) in names.iter().enumerate() {
            self.put(name, Bytes::from(vec![0; size])).await;
        }
        let names = names.map(|name| self.key(name));
        let below = &names[..names.len() - 1];
        assert_eq!(self.listed("list/", None, 100).await, below);
        assert_eq!(self.listed("list/", None, below.len()).await, below);
        assert_eq!(self.listed("list/", None, 0).await, []);
        assert_eq!(self.listed("lis", None, 100).await, names, "within a part");
        assert_eq!(self.listed("list/a", None, 100).await, names[..6]);
        assert_eq!(self.listed("list/a/", None, 100).await, names[2..4]);
        assert_eq!(self.listed("list/none/", None, 100).await, []);
        // Every way to cut the listing into pages gives the same keys.
        for page in 1..=4 {
            let mut all: Vec<Key> = Vec::new();
            loop {
                let more = self.listed("list/", all.last(), page).await;
                all.extend(more.iter().cloned());
                if more.len() < page {
                    break;
                }
            }
            assert_eq!(all, below, "in pages of {page}");
        }
        let between = self.key("list/a/bb");
        assert_eq!(self.listed("list/", Some(&between), 1).await, names[3..4]);
        let before = Key::new("0").expect("a key");
        assert_eq!(self.listed("list/", Some(&before), 1).await, names[..1]);
        let prefix = format!("{}/list/", self.place);
        let listed = self.bucket.list(&prefix, None, 100);
        for (size, meta) in listed.await.expect("listed").iter().enumerate() {
            assert_eq!(meta.size, size as u64, "the size of {}", meta.key);
        }
        let refused = self.bucket.list("No Such/", None, 1).await;
        assert!(
            matches!(refused, Err(Error::Definite { .. })),
            "{refused:?}"
        );
    }

    async fn listed(&self, prefix: &str, start_after: Option<&Key>, limit: usize) -> Vec<Key> {
        let prefix = format!("{}/{prefix}", self.place);
        let listed = self.bucket.list(&prefix, start_after, limit).await;
        let listed = listed.unwrap_or_else(|error| panic!("cannot list {prefix}: {error}"));
        listed.into_iter().map(|meta| meta.key).collect()
    }

    async fn large_objects(&self) {
        let half: Vec<u8> = (0..LARGE_BYTES / 2).map(|n| (n % 253) as u8).collect();
        let half = Bytes::from(half);
        let payload = Payload::new(vec![half.clone(), half.clone()]);
        assert_eq!(self.put("large", payload.clone()).await, Put::Created);
        let read = self.get("large").await.expect("the object exists");
        assert!(
            payload.equals(&read),
            "a large object reads back differently"
        );
        let middle = LARGE_BYTES as u64 / 2;
        let range = middle - 1_000..middle + 1_000;
        let read = self.bucket.get_range(&self.key("large"), range).await;
        let read = read.expect("readable").expect("the object exists");
        let across = Payload::new(vec![half.slice(half.len() - 1_000..), half.slice(..1_000)]);
        assert!(across.equals(&read), "a range across pieces differs");
        self.is_refused("large", &payload).await;
        let kept = self.get("large").await.expect("the object exists");
        assert!(payload.equals(&kept), "a large object was overwritten");
    }

    /// Creating what is there is a conflict. A store may refuse a large object before it has read
    /// it and close the connection, so that the refusal gets lost on the way; asked again, it has
    /// to say it sooner or later.
    async fn is_refused(&self, name: &str, body: &Payload) {
        for _ in 0..REFUSALS_LOST_MAX {
            match self.bucket.put_new(&self.key(name), body.clone()).await {
                Ok(put) => return assert_eq!(put, Put::Conflict, "{name} was created twice"),
                Err(Error::Unknown { .. }) => {}
                Err(error) => panic!("creating {name} again is not a conflict: {error}"),
            }
        }
        panic!("creating {name} again never got an answer");
    }

    async fn odd_keys(&self) {
        let long = "x".repeat(crate::bucket::MAX_SEGMENT_BYTES);
        let deep = "d/".repeat(60) + "end";
        for name in [
            "a..b",
            "...",
            "-",
            "_",
            "0",
            "a.",
            "-.-",
            long.as_str(),
            deep.as_str(),
        ] {
            let name = format!("odd/{name}");
            assert_eq!(self.put(&name, text(&name)).await, Put::Created);
            assert_eq!(self.get(&name).await, Some(text(&name)), "{name}");
        }
        assert_eq!(self.listed("odd/", None, 100).await.len(), 9);
    }

    async fn clean_up(&self) {
        let prefix = format!("{}/", self.place);
        loop {
            let listed = self.bucket.list(&prefix, None, 1_000).await;
            let listed = listed.expect("the suite's objects can be listed");
            if listed.is_empty() {
                return;
            }
            for meta in listed {
                let deleted = self.bucket.delete(&meta.key).await;
                deleted.expect("the suite's objects can be deleted");
            }
        }
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
