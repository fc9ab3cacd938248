//! Reading what one of several buckets may hold damaged. It must not know what is read.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;

use super::{Buckets, Place, lock, nearest};
use crate::bucket::{Bucket, Error, IsWhole, Key, Op};

/// What the buckets have said that did not give the object as it was written.
#[derive(Default)]
struct Told {
    damaged: Option<Bytes>,
    /// One gave no answer: it may have the object as it was written.
    is_one_silent: bool,
}

/// The object from the nearest bucket that has it whole. It is taken for damaged only if no bucket is left that might have it.
pub(super) async fn get(
    buckets: &Buckets,
    key: &Key,
    is_whole: IsWhole,
) -> Result<Option<Bytes>, Error> {
    let told: Arc<Mutex<Told>> = Arc::default();
    let ask = |place: Arc<Place>, key: Key| {
        let (is_whole, told) = (IsWhole::clone(&is_whole), Arc::clone(&told));
        async move {
            let found = match place.get(&key).await {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(None),
                Err(error) => {
                    lock(&told).is_one_silent = true;
                    return Err(error);
                }
            };
            // Large objects take a while to be summed up.
            let looked_at = found.clone();
            if host::task::spawn_blocking(move || is_whole(&looked_at)).await {
                return Ok(Some(found));
            }
            let (number, name) = (place.number, &place.name);
            tracing::error!(bucket = number, name, %key, "an object is damaged in one bucket; another is asked");
            lock(&told).damaged = Some(found);
            let detail = format!("what bucket {number} ({name}) has is damaged");
            Err(Error::unknown(Op::Get, &key, detail))
        }
        .boxed()
    };
    let answer = nearest::first(buckets, Op::Get, key, ask).await;
    let mut told = lock(&told);
    match answer {
        Err(_) if !told.is_one_silent && told.damaged.is_some() => Ok(told.damaged.take()),
        answer => answer,
    }
}
