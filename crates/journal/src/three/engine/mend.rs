//! Brings back a bucket that was away: the leader writes what it missed as learned records, in order (R17). It must not know
//! how records are written.

use std::sync::{Arc, Weak};
use std::time::Duration;

use host::clock;
use host::task::Task;

use super::super::BUCKETS;
use super::super::context::Event;
use super::Shared;

/// How often the leader looks whether a bucket has to be brought back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Slots that are read and written at the same time.
const AT_ONCE: u64 = 64;
/// How long that many may take to be written before they are begun anew.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// Mends while the tenure lasts and the returned task is kept.
pub(super) fn start(shared: &Arc<Shared>, tenure: u64) -> Task<()> {
    let shared = Arc::downgrade(shared);
    host::task::spawn("journal mending", async move {
        while let Some(true) = look(&shared, tenure).await {
            clock::sleep(LOOK_EVERY).await;
        }
    })
}

/// One look at all buckets; false once the tenure is over.
async fn look(shared: &Weak<Shared>, tenure: u64) -> Option<bool> {
    let shared = shared.upgrade()?;
    if !shared.core().is_at_work(tenure) {
        return Some(false);
    }
    if !shared.core().leads(tenure) {
        return Some(true);
    }
    for bucket in 0..BUCKETS {
        let (refused, is_away, _) = shared.lanes[bucket].rank();
        if refused || is_away {
            continue;
        }
        let behind = shared.core().begin_mending(tenure, bucket);
        if let Some((first, end)) = behind
            && !fill(&shared, bucket, first, end).await
        {
            shared.core().mending_failed(tenure, bucket, first);
        }
    }
    Some(true)
}

/// Fills the slots from `first` to before `end`; false if something did not answer.
async fn fill(shared: &Arc<Shared>, bucket: usize, first: u64, end: u64) -> bool {
    tracing::info!(
        bucket,
        first,
        end,
        "a bucket of the journal is brought back"
    );
    let mut next = first;
    while next < end {
        // The bucket itself is asked last: it misses what is to be written.
        let mut order = shared.order();
        order.sort_by_key(|one| *one == bucket);
        let slots = AT_ONCE.min(end - next);
        let mut reading = shared.read(next, slots, order).await;
        if reading.slots.is_empty() {
            reading = shared.read(next, 1, order).await;
        }
        let Ok(floor) = shared.floor().await else {
            return false;
        };
        if reading.slots.is_empty() && floor <= next {
            return false;
        }
        let count = reading.slots.len() as u64;
        for proven in reading.slots {
            shared.feed(Event::Fill {
                bucket,
                proven,
                floor,
            });
        }
        let until = clock::now() + WRITTEN_WITHIN;
        while shared.core().is_filling(bucket) {
            if clock::now() > until {
                return false;
            }
            clock::sleep(PAUSE).await;
        }
        next = (next + count).max(floor);
    }
    true
}
