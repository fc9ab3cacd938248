//! What readers rely on in the cache: bounds, order of eviction, one load for all.

use std::sync::atomic::{AtomicU32, Ordering};

use meta::ids::Incarnation;

use super::*;

fn cache(cache_bytes: u64, buffer_bytes: u64) -> Arc<Cache> {
    Arc::new(Cache::new(
        cache_bytes,
        Budget::of_bytes(cache_bytes + buffer_bytes),
        Arc::new(Metrics::zero()),
    ))
}

fn part(number: u64) -> Part {
    Part {
        file: FileId {
            incarnation: Incarnation(1),
            number,
        },
        nonce: 7,
        slice: None,
    }
}

const NEED: Need = Need {
    bytes: 100,
    may_wait: false,
    may_ask: false,
};

async fn loads(held: Held, _: Arc<Waits>) -> Brought {
    let chunk = Arc::new(Chunk::new(Vec::new(), 100, held));
    Ok((chunk, Segment::Hot))
}

fn chunk(cache: &Cache, bytes: u64) -> Option<Arc<Chunk>> {
    Some(Arc::new(Chunk::new(
        Vec::new(),
        bytes,
        cache.try_hold(bytes)?,
    )))
}

#[test]
fn the_least_recently_used_goes_first() {
    let cache = cache(30_000, 0);
    for number in 0..3 {
        let chunk = chunk(&cache, 9_000).expect("room");
        cache.keep(part(number), Segment::Hot, chunk);
    }
    assert!(cache.find(part(0)).is_some());
    let fresh = chunk(&cache, 9_000).expect("room");
    cache.keep(part(3), Segment::Hot, fresh);
    assert!(cache.find(part(1)).is_none());
    for number in [0, 2, 3] {
        assert!(cache.find(part(number)).is_some(), "{number}");
    }
}

#[test]
fn what_readers_hold_counts_until_they_let_go() {
    let cache = cache(10_240, 10_240);
    let held: Vec<_> = (0..2)
        .map(|_| chunk(&cache, 10_240).expect("room"))
        .collect();
    cache.keep(part(0), Segment::Hot, Arc::clone(&held[0]));
    assert!(chunk(&cache, 10_240).is_none());
    cache.forget(part(0));
    assert!(chunk(&cache, 10_240).is_none(), "readers still hold both");
    drop(held);
    assert!(chunk(&cache, 10_240).is_some());
}

#[test]
fn making_room_spares_what_readers_hold() {
    let cache = cache(30_000, 0);
    let mut held = Vec::new();
    for number in 0..3 {
        let chunk = chunk(&cache, 9_000).expect("room");
        cache.keep(part(number), Segment::Hot, Arc::clone(&chunk));
        held.push(chunk);
    }
    assert!(chunk(&cache, 9_000).is_none());
    let kept = (0..3).all(|number| cache.find(part(number)).is_some());
    assert!(kept, "to let go of it would have freed nothing");
    drop(held.pop());
    assert!(chunk(&cache, 9_000).is_some());
    assert!(cache.find(part(2)).is_none());
}

#[tokio::test]
async fn a_part_is_loaded_once_for_all() {
    let cache = cache(1 << 20, 0);
    let loads = Arc::new(AtomicU32::new(0));
    let (open, gate) = tokio::sync::watch::channel(false);
    let load = || {
        let (loads, mut gate) = (Arc::clone(&loads), gate.clone());
        move |held, _| async move {
            loads.fetch_add(1, Ordering::Relaxed);
            gate.wait_for(|open| *open).await.expect("opened");
            let chunk = Arc::new(Chunk::new(Vec::new(), 100, held));
            Ok((chunk, Segment::Cold))
        }
    };
    let readers = futures::future::join_all((0..5).map(|_| cache.load(part(0), NEED, load())));
    let (loaded, _) = futures::future::join(readers, async { open.send(true) }).await;
    assert!(loaded.iter().all(Result::is_ok));
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    assert!(cache.find(part(0)).is_some());
}

#[tokio::test]
async fn a_failed_load_is_tried_again() {
    let cache = cache(1 << 20, 0);
    let fails = |_, _| async { Err(LoadError::Missing) };
    let first = cache.load(part(0), NEED, fails).await;
    assert!(matches!(first, Err(LoadError::Missing)));
    assert!(cache.load(part(0), NEED, loads).await.is_ok());
}

#[tokio::test]
async fn only_who_may_wait_joins_a_load_that_waits_for_memory() {
    let cache = cache(0, 1 << 20);
    let held = chunk(&cache, 1 << 20).expect("room");
    let waits = Need {
        may_wait: true,
        ..NEED
    };
    assert!(matches!(
        cache.load(part(0), NEED, loads).await,
        Err(LoadError::NoRoom)
    ));
    let mut waiting = cache.load(part(0), waits, loads).boxed();
    assert!((&mut waiting).now_or_never().is_none());
    let other = cache.load(part(0), NEED, loads);
    assert!(matches!(other.await, Err(LoadError::NoRoom)));
    drop(held);
    assert!(waiting.await.is_ok());
}

#[tokio::test]
async fn who_wants_a_part_for_another_agent_does_not_wait_for_another_agent() {
    let cache = cache(1 << 20, 1 << 20);
    let (asks, asked) = tokio::sync::oneshot::channel();
    let (answers, answered) = tokio::sync::oneshot::channel();
    let (turns, turned) = tokio::sync::oneshot::channel();
    let load = |held, waits: Arc<Waits>| async move {
        asks.send(()).expect("waited for");
        answered.await.expect("answered");
        waits.for_bucket();
        turns.send(()).expect("waited for");
        tokio::task::yield_now().await;
        loads(held, waits).await
    };
    let own = Need {
        may_ask: true,
        ..NEED
    };
    let loading = Arc::clone(&cache);
    let own = host::task::spawn("own", async move { loading.load(part(0), own, load).await });
    asked.await.expect("asked");
    let of_another = cache.load(part(0), NEED, loads).await;
    assert!(matches!(of_another, Err(LoadError::Asked)));
    answers.send(()).expect("waited for");
    turned.await.expect("the bucket is asked");
    assert!(cache.load(part(0), NEED, loads).await.is_ok());
    assert!(own.join().await.expect("it ended").is_ok());
}

/// Reads `number` as a reader would who is at the tail, or lags behind.
fn read(cache: &Cache, number: u64, segment: Segment) -> bool {
    if cache.find(part(number)).is_some() {
        return true;
    }
    if let Some(chunk) = chunk(cache, 9_000) {
        cache.keep(part(number), segment, chunk);
    }
    false
}

#[test]
fn readers_who_lag_behind_leave_the_tail_in_memory_and_the_tail_leaves_them_their_share() {
    let cache = cache(40 * 10_000, 0);
    let hot = 1_000_000..1_000_025;
    for number in hot.clone() {
        read(&cache, number, Segment::Hot);
    }
    // Far more than the memory is read from behind, and as much is copied, while the tail is read only seldom.
    for number in 0..5_000 {
        read(&cache, number, Segment::Cold);
        read(&cache, 10_000 + number, Segment::Copied);
        if number % 1_000 == 999 {
            for number in hot.clone() {
                assert!(read(&cache, number, Segment::Hot), "{number} was evicted");
            }
        }
    }
    // The tail moves on.
    for number in hot.end..hot.end + 1_000 {
        read(&cache, number, Segment::Hot);
    }
    let kept = |last: u64| (last - 40..last).filter(|number| cache.find(part(*number)).is_some());
    assert!(kept(5_000).count() >= 9, "a quarter is theirs");
    assert!(kept(15_000).count() >= 4, "an eighth is for copies");
}

#[test]
fn a_segment_takes_what_the_others_leave() {
    let cache = cache(40 * 10_000, 0);
    for segment in [Segment::Copied, Segment::Cold, Segment::Hot] {
        let first = 1_000 * segment as u64;
        for number in first..first + 100 {
            read(&cache, number, segment);
        }
        let kept = (first..first + 100).filter(|number| cache.find(part(*number)).is_some());
        let least = match segment {
            Segment::Copied => 40,
            Segment::Cold => 34,
            Segment::Hot => 25,
        };
        assert!(kept.count() >= least, "{segment:?}");
    }
}

#[test]
fn memory_that_is_wanted_for_other_things_comes_from_whoever_has_more_than_its_share() {
    let cache = cache(40 * 10_000, 0);
    for number in 0..25 {
        read(&cache, number, Segment::Hot);
    }
    for number in 100..115 {
        read(&cache, number, Segment::Cold);
    }
    let taken: Vec<_> = (0..8).map(|_| cache.try_hold(9_000)).collect();
    assert!(taken.iter().all(Option::is_some));
    assert!((0..25).all(|number| cache.find(part(number)).is_some()));
}

#[test]
fn a_file_of_another_name_is_another_file() {
    let cache = cache(1 << 20, 0);
    let chunk = chunk(&cache, 9_000).expect("room");
    cache.keep(part(0), Segment::Hot, chunk);
    let other = Part {
        nonce: 8,
        ..part(0)
    };
    assert!(cache.find(other).is_none());
    cache.forget_file(part(0).file);
    assert!(cache.find(part(0)).is_none());
}
