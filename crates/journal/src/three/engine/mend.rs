//! Brings back a bucket that was away: the leader writes what it missed as learned records, in order (R17). It must not know
//! how records are written.

use std::sync::{Arc, Weak};
use std::time::Duration;

use host::clock;
use host::task::Task;

use super::super::BUCKETS;
use super::super::context::{Event, Outcome};
use super::Shared;
use crate::engine::WINDOW;

/// How often the leader looks whether a bucket has to be brought back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Slots that are read and written at the same time.
const AT_ONCE: u64 = 64;
/// How long that many may take to be written before they are begun anew.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// How long reading that many slots of one bucket may take.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// How far a bucket's slots from before the tenure were looked over: the next one; none before the first look.
type Audited = [Option<u64>; BUCKETS];

/// Mends while the tenure lasts and the returned task is kept.
pub(super) fn start(shared: &Arc<Shared>, tenure: u64) -> Task<()> {
    let shared = Arc::downgrade(shared);
    host::task::spawn("journal mending", async move {
        let mut audited = Audited::default();
        while let Some(true) = look(&shared, tenure, &mut audited).await {
            clock::sleep(LOOK_EVERY).await;
        }
    })
}

/// One look at all buckets; false once the tenure is over.
async fn look(shared: &Weak<Shared>, tenure: u64, audited: &mut Audited) -> Option<bool> {
    let shared = shared.upgrade()?;
    if !shared.core().is_at_work(tenure) {
        return Some(false);
    }
    let leads = shared.core().leads(tenure);
    let Some(claim) = leads else {
        return Some(true);
    };
    for (bucket, audited) in audited.iter_mut().enumerate() {
        if !answers(&shared, bucket) {
            continue;
        }
        let behind = shared.core().begin_mending(tenure, bucket);
        if let Some((first, end)) = behind
            && !fill(&shared, bucket, first, end).await
        {
            shared.core().mending_failed(tenure, bucket, first);
        }
        while audited.is_none_or(|next| next < claim)
            && answers(&shared, bucket)
            && shared.core().is_at_work(tenure)
        {
            match audit(&shared, bucket, *audited, claim).await {
                Some(next) => *audited = Some(next),
                None => break,
            }
        }
    }
    Some(true)
}

fn answers(shared: &Shared, bucket: usize) -> bool {
    let (is_refused, is_failing, _) = shared.lanes[bucket].rank();
    !is_refused && !is_failing
}

/// Fills what the bucket misses of the next slots below `end`: under earlier leaders, this one does not know of it. The slot to
/// go on from, if everything answered.
async fn audit(shared: &Arc<Shared>, bucket: usize, audited: Option<u64>, end: u64) -> Option<u64> {
    let floor = shared.floor().await.ok()?;
    let from = audited.unwrap_or(0).max(floor).max(1);
    if from >= end {
        return Some(end);
    }
    let slots = AT_ONCE.min(end - from);
    let mut waiting = shared.wait(|ask| Event::Audit {
        ask,
        bucket,
        slots: from..from + slots,
    });
    let Some(Outcome::Misses(misses)) = waiting.within(READ_WITHIN).await else {
        return None;
    };
    // What proves the last slots of a run lies beyond it, in as many slots as may be in flight.
    let is_last = from + slots == end;
    let next = if is_last { end } else { from + slots - WINDOW };
    for (first, end) in runs(misses.into_iter().filter(|slot| *slot < next)) {
        if !fill(shared, bucket, first, end).await {
            return None;
        }
    }
    Some(next)
}

/// The slots as runs without a gap: the first of each, and the one after its last.
fn runs(slots: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for slot in slots {
        match runs.last_mut() {
            Some((_, end)) if *end == slot => *end += 1,
            _ => runs.push((slot, slot + 1)),
        }
    }
    runs
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

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn slots_are_filled_by_runs() {
        assert_eq!(runs([].into_iter()), []);
        let found = runs([3, 4, 5, 7, 9, 10].into_iter());
        assert_eq!(found, [(3, 6), (7, 8), (9, 11)]);
    }
}
