//! Reading from several buckets: from the nearest one first, and from the next as soon as that has failed, does not have the
//! object, or is late. It must not know what is read.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::{FuturesUnordered, StreamExt};

use super::{Buckets, LIST_FOR, Place, lock};
use crate::bucket::{Bucket, Error, Key, ObjectMeta, Op};
use crate::hedge::pace::Work;

/// The first bucket's answer that has the object; `None` once so many say that they do not have it that it is not stored.
pub(super) async fn first<T>(
    buckets: &Buckets,
    op: Op,
    key: &Key,
    ask: impl Fn(Arc<Place>, Key) -> BoxFuture<'static, Result<Option<T>, Error>>,
) -> Result<Option<T>, Error> {
    let work = Work::read(op);
    let mut waiting = in_order(buckets).into_iter();
    let mut asked = FuturesUnordered::new();
    let (mut absent, mut missed, mut failure) = (0, Vec::new(), None);
    loop {
        let next = waiting.next();
        // A bucket that failed lately is asked beside the one after it, so that nobody waits for it.
        let patience = next.as_ref().map(|place| {
            let patience = lock(&place.pace).hedge_after(work).unwrap_or(LIST_FOR);
            if place.is_failing() {
                Duration::ZERO
            } else {
                patience
            }
        });
        let is_last = waiting.len() == 0;
        if let Some(place) = next {
            let (number, is_suspect) = (place.number, place.is_suspect());
            let asking = ask(place, key.clone());
            asked.push(asking.map(move |answer| (number, is_suspect, answer)));
        }
        // Waits for answers until it is time for the next bucket.
        let mut late = pin!(async {
            match patience {
                Some(patience) if !is_last => host::clock::sleep(patience).await,
                _ => std::future::pending().await,
            }
        });
        match select(asked.next(), late.as_mut()).await {
            Either::Left((Some((_, _, Ok(Some(found)))), _)) => {
                let missed = missed.into_iter();
                missed.for_each(|number| buckets.missed.note(key, number));
                return Ok(Some(found));
            }
            Either::Left((Some((number, is_suspect, Ok(None))), _)) => {
                missed.push(number);
                absent += usize::from(!is_suspect);
                if absent >= buckets.absent_needed() {
                    return Ok(None);
                }
            }
            Either::Left((Some((_, _, Err(error))), _)) => failure = Some(error),
            Either::Left((None, _)) => {
                let few = || Error::unknown(op, key, "too few buckets answer");
                return Err(failure.unwrap_or_else(few));
            }
            Either::Right(_) => {}
        }
    }
}

/// The buckets in the order in which they are asked: those that answer first, the nearest before the others. Once in a while one
/// that fails comes first, which costs nobody time.
fn in_order(buckets: &Buckets) -> Vec<Arc<Place>> {
    let now = host::clock::now();
    let (failing, mut order): (Vec<_>, Vec<_>) = buckets
        .places
        .iter()
        .cloned()
        .partition(|place| place.is_failing());
    for place in failing {
        match place.is_probe_due(now) {
            true => order.insert(0, place),
            false => order.push(place),
        }
    }
    order
}

/// The objects that any bucket lists, once so many have answered that no stored one is left out; those that answer soon after
/// are waited for, since what is not stored anywhere else is of interest, too.
pub(super) async fn list(
    buckets: &Buckets,
    prefix: &str,
    start_after: Option<&Key>,
    limit: usize,
) -> Result<Vec<ObjectMeta>, Error> {
    let one = |place: &Arc<Place>| {
        let place = Arc::clone(place);
        async move { place.list(prefix, start_after, limit).await }
    };
    let mut asked: FuturesUnordered<_> = buckets.places.iter().map(one).collect();
    let (mut listed, mut answers, mut failure) = (Vec::new(), 0, None);
    let begun = host::clock::now();
    loop {
        let answer = match answers >= buckets.absent_needed() {
            false => asked.next().await,
            true => {
                let left = LIST_FOR.saturating_sub(host::clock::now().since(begun));
                let more = host::clock::timeout(left, asked.next()).await;
                more.ok().flatten()
            }
        };
        match answer {
            Some(Ok(objects)) => {
                answers += 1;
                listed.extend(objects);
            }
            Some(Err(error)) => failure = Some(error),
            None => break,
        }
    }
    if answers < buckets.absent_needed() {
        let few = || Error::unknown(Op::List, prefix, "too few buckets answer");
        return Err(failure.unwrap_or_else(few));
    }
    // Each list is whole up to its own last key, so the first `limit` of all are whole.
    listed
        .sort_by(|one: &ObjectMeta, other| one.key.cmp(&other.key).then(other.size.cmp(&one.size)));
    listed.dedup_by(|later, first| later.key == first.key);
    listed.truncate(limit);
    Ok(listed)
}
