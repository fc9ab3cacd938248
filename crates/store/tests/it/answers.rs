//! What each answer of a store on the network means: whether a request may have happened, and
//! that nothing but the store's own word is ever taken for absence.

use std::sync::Arc;
use std::time::Duration;

use bench::s3::{Config, Effect, Kind, Rule, Server};
use bytes::Bytes;
use host::backoff::Backoff;
use store::bucket::{Bucket, Error, Key, Op, Payload, Put};
use store::hedge::Hedged;
use store::meter::Meter;
use store::open::{Options, open};
use store::probe;
use store::retry::{Limits, Retry};
use store::sent::Sent;

use crate::s3::{bucket, server};

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn body() -> Payload {
    Bytes::from_static(b"0123456789").into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Definite,
    Unknown,
    Throttled,
}

fn meaning<T: std::fmt::Debug>(result: Result<T, Error>) -> Meaning {
    match result.expect_err("an injected fault is an error") {
        Error::Definite { .. } => Meaning::Definite,
        Error::Unknown { .. } => Meaning::Unknown,
        Error::Throttled { .. } => Meaning::Throttled,
    }
}

#[tokio::test]
async fn every_operation_tells_what_an_error_means() {
    use Meaning::{Definite, Throttled, Unknown};
    let server = server(Config::default()).await;
    let bucket = bucket(&server, "b").await;
    bucket.put_new(&key("there"), body()).await.expect("put");
    let cases = [
        (Effect::SlowDown, Throttled),
        (Effect::Fail { status: 429 }, Throttled),
        (Effect::Fail { status: 500 }, Unknown),
        (Effect::Fail { status: 502 }, Unknown),
        // A 503 that is no SlowDown may come from a proxy, after the store has acted.
        (Effect::Fail { status: 503 }, Unknown),
        (Effect::Fail { status: 408 }, Unknown),
        (Effect::Fail { status: 400 }, Definite),
        (Effect::Fail { status: 501 }, Definite),
        (Effect::Fail { status: 301 }, Definite),
        (Effect::Fail { status: 401 }, Definite),
        // A 404 without a code does not say what is missing, so it proves nothing about the object.
        (Effect::Fail { status: 404 }, Definite),
        (Effect::Forbidden, Definite),
        (Effect::Full, Definite),
        (Effect::Reset, Unknown),
        (Effect::LoseReply { status: None }, Unknown),
        (Effect::LoseReply { status: Some(500) }, Unknown),
    ];
    for (effect, expected) in cases {
        server.add(Rule::new(effect.clone()));
        let there = key("there");
        let seen = [
            meaning(bucket.put_new(&key("new"), body()).await),
            meaning(bucket.get(&there).await),
            meaning(bucket.get_range(&there, 2..4).await),
            meaning(bucket.head(&there).await),
            meaning(bucket.list("", None, 1).await),
            meaning(bucket.delete(&key("absent")).await),
        ];
        let mut all = [expected; 6];
        if effect == Effect::SlowDown {
            // An answer to HEAD has no body that could tell this 503 from others.
            all[3] = Unknown;
        }
        assert_eq!(seen, all, "{effect:?}");
        server.heal();
    }
    assert_eq!(
        bucket.get(&key("there")).await.expect("read"),
        Some(Bytes::from_static(b"0123456789"))
    );
}

#[tokio::test]
async fn an_errors_body_in_a_success_is_no_part_of_an_object_and_no_absence() {
    use Meaning::Unknown;
    let server = server(Config::default()).await;
    let bucket = bucket(&server, "b").await;
    bucket.put_new(&key("there"), body()).await.expect("put");
    server.add(Rule::new(Effect::ErrorBody));
    assert_eq!(meaning(bucket.list("", None, 1).await), Unknown);
    assert_eq!(meaning(bucket.put_new(&key("new"), body()).await), Unknown);
    assert_eq!(meaning(bucket.delete(&key("there")).await), Unknown);
    assert!(bucket.get_range(&key("there"), 2..4).await.is_err());
    // Of a whole object nothing but its content tells.
    let whole = bucket.get(&key("there")).await.expect("a success");
    assert_ne!(whole, Some(Bytes::from_static(b"0123456789")));
    assert!(whole.is_some());
}

#[tokio::test]
async fn what_was_just_written_is_not_seen_by_a_stale_read() {
    let server = server(Config::default()).await;
    let bucket = bucket(&server, "b").await;
    bucket.put_new(&key("there"), body()).await.expect("put");
    let stale = |ms| server.add(Rule::new(Effect::Stale { ms }));
    stale(60_000);
    assert_eq!(bucket.get(&key("there")).await, Ok(None));
    assert_eq!(bucket.head(&key("there")).await, Ok(None));
    assert_eq!(bucket.list("", None, 1).await, Ok(Vec::new()));
    assert_eq!(
        bucket.put_new(&key("there"), body()).await,
        Ok(Put::Conflict)
    );
    server.heal();
    stale(0);
    assert!(
        bucket
            .get(&key("there"))
            .await
            .is_ok_and(|found| found.is_some())
    );
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_not_an_empty_one() {
    let config = Config {
        buckets: vec!["real".to_owned()],
        ..Config::default()
    };
    let server = server(config).await;
    let bucket = bucket(&server, "unreal").await;
    for meant in [
        meaning(bucket.put_new(&key("a"), body()).await),
        meaning(bucket.get(&key("a")).await),
        meaning(bucket.get_range(&key("a"), 0..1).await),
        meaning(bucket.head(&key("a")).await),
        meaning(bucket.list("", None, 1).await),
        meaning(bucket.delete(&key("a")).await),
    ] {
        assert_eq!(meant, Meaning::Definite);
    }
    let error = bucket.get(&key("a")).await.expect_err("no bucket");
    assert!(error.to_string().contains("NoSuchBucket"), "{error}");
}

#[tokio::test]
async fn a_store_that_does_not_know_the_checksum_of_uploads_is_told_how_to_be_used() {
    for status in [400, 501] {
        let server = server(Config::default()).await;
        let bucket = bucket(&server, "b").await;
        server.add(Rule::on(Kind::Put, Effect::Fail { status }));
        let refused = probe::run(&bucket).await.expect_err("it refuses uploads");
        let told = refused.to_string();
        assert!(told.contains("x-amz-checksum-crc32c"), "{told}");
        assert!(told.contains("say checksum=none"), "{told}");
    }
}

#[tokio::test]
async fn a_conflict_is_no_proof_and_a_lost_reply_is_recognised() {
    let server = server(Config::default()).await;
    let bucket = bucket(&server, "b").await;
    server.add(Rule::on(Kind::Put, Effect::Conflict).times(1));
    assert_eq!(bucket.put_new(&key("a"), body()).await, Ok(Put::Conflict));
    assert_eq!(
        bucket.get(&key("a")).await,
        Ok(None),
        "409 is not \"exists\""
    );

    let limits = Limits {
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(2)),
        ..Limits::FILES
    };
    let retry = Retry::new(limits);
    for effect in [
        Effect::Conflict,
        Effect::LoseReply { status: None },
        Effect::LoseReply { status: Some(503) },
        Effect::SlowDown,
        Effect::Reset,
    ] {
        server.add(Rule::on(Kind::Put, effect.clone()).times(1));
        let name = key(&format!("files/{}", server.stats().requests["put"]));
        let put = retry.put_immutable(bucket.as_ref(), &name, &body()).await;
        assert_eq!(put, Ok(()), "{effect:?}");
        assert_eq!(bucket.head(&name).await, Ok(Some(10)), "{effect:?}");
    }
}

#[tokio::test]
async fn what_is_never_answered_or_stops_halfway_is_asked_again_on_another_connection() {
    let server = server(Config::default()).await;
    let meter = Meter::new(bucket(&server, "b").await);
    let counters = Arc::clone(meter.counters());
    let steady = Hedged::new(Arc::new(meter), Arc::clone(&counters));
    let large = Bytes::from(vec![7; 1 << 20]);
    server.add(Rule::on(Kind::Put, Effect::Silence).times(1));
    let put = steady.put_new(&key("a"), large.clone().into()).await;
    assert_eq!(put, Ok(Put::Created));
    server.add(Rule::on(Kind::Get, Effect::Stall).times(1));
    let got = steady.get(&key("a")).await.expect("read").expect("there");
    assert!(got == large);
    // The upload is repeated, not hedged: none of its size has been answered yet.
    let extra = counters.extra();
    assert_eq!((extra.hedges, extra.repeats), (1, 1));
    let rest = counters.counts()[Op::GetRange as usize].bytes;
    assert!(
        (1..large.len() as u64).contains(&rest),
        "{rest} bytes were asked for again"
    );
}

#[tokio::test]
async fn an_upload_shows_how_its_body_goes() {
    let server = server(Config::default()).await;
    let bucket = bucket(&server, "b").await;
    let sent = Arc::<Sent>::default();
    let body = Payload::from(vec![7; 1 << 20]).with_sent(Arc::clone(&sent));
    assert_eq!(bucket.put_new(&key("a"), body).await, Ok(Put::Created));
    assert_eq!(sent.last().map(|(bytes, _)| bytes), Some(1 << 20));
}

#[tokio::test]
async fn what_a_store_returns_broken_is_an_error_or_visible() {
    let server = server(Config::default()).await;
    let bucket = bucket(&server, "b").await;
    bucket.put_new(&key("a"), body()).await.expect("put");
    server.add(Rule::on(Kind::Get, Effect::Truncate).times(2));
    assert_eq!(meaning(bucket.get(&key("a")).await), Meaning::Unknown);
    let part = bucket.get_range(&key("a"), 1..9).await;
    assert_eq!(meaning(part), Meaning::Unknown);
    server.add(Rule::on(Kind::Get, Effect::Corrupt).times(1));
    let flipped = bucket.get(&key("a")).await.expect("read").expect("there");
    assert_ne!(flipped, "0123456789", "only a checksum finds this");
    server.add(Rule::on(Kind::Get, Effect::Missing).times(1));
    assert_eq!(bucket.get(&key("a")).await, Ok(None));
}

async fn impatient(server: &Server) -> Arc<dyn Bucket> {
    let options = Options {
        request_timeout: Duration::from_millis(150),
        connect_timeout: Duration::from_millis(150),
        environment: Vec::new(),
    };
    let url = server.bucket_url("b");
    open(&url, &options).await.expect("a bucket")
}

#[tokio::test]
async fn a_put_that_timed_out_may_be_applied_later() {
    let server = server(Config::default()).await;
    let bucket = impatient(&server).await;
    server.add(Rule::on(Kind::Put, Effect::Hold { ms: 400 }).times(1));
    let put = bucket.put_new(&key("late"), body()).await;
    assert_eq!(meaning(put), Meaning::Unknown);
    assert_eq!(
        bucket.get(&key("late")).await,
        Ok(None),
        "a 404 was not final"
    );
    while bucket.head(&key("late")).await == Ok(None) {
        host::clock::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bucket.head(&key("late")).await, Ok(Some(10)));
}

#[tokio::test]
async fn a_server_that_is_away_is_unknown_and_comes_back() {
    let running = server(Config::default()).await;
    let address = running.address();
    let bucket = impatient(&running).await;
    bucket.put_new(&key("a"), body()).await.expect("put");
    drop(running);
    for meant in [
        meaning(bucket.put_new(&key("b"), body()).await),
        meaning(bucket.get(&key("a")).await),
        meaning(bucket.list("", None, 1).await),
    ] {
        assert_eq!(meant, Meaning::Unknown);
    }
    let _again = Server::start(address, Config::default())
        .await
        .expect("restarted");
    assert_eq!(bucket.put_new(&key("b"), body()).await, Ok(Put::Created));
}

#[tokio::test]
async fn a_full_store_says_so_and_takes_more_after_a_deletion() {
    let config = Config {
        max_bytes: Some(25),
        ..Config::default()
    };
    let server = server(config).await;
    let bucket = bucket(&server, "b").await;
    for name in ["a", "b"] {
        assert_eq!(bucket.put_new(&key(name), body()).await, Ok(Put::Created));
    }
    let refused = bucket.put_new(&key("c"), body()).await;
    assert_eq!(meaning(refused), Meaning::Definite);
    bucket.delete(&key("a")).await.expect("deleted");
    assert_eq!(bucket.put_new(&key("c"), body()).await, Ok(Put::Created));
}
