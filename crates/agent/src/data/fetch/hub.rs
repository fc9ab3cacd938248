//! Tells long polls which of their partitions have changed. What it tells are hints: each poll
//! decides what they are worth. It must not know more of what is waited for than partition numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meta::ids::PartitionId;
use rpc::notice::Notice;
use tokio::sync::Notify;

use super::item::{Change, Slot};

/// A single fetch of more partitions than this is not entered in the table by partition, from which
/// it would be removed again in a moment. Instead every notice is looked for in the fetch's own
/// sorted list.
const ENTERED_MAX: usize = 64;

/// All waiters.
#[derive(Debug, Default)]
pub struct Hub {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    entered: BTreeMap<PartitionId, Vec<(Arc<Waiter>, Slot)>>,
    listed: Vec<Listed>,
}

/// A waiter for many partitions, which it has in a sorted list of its own.
#[derive(Debug)]
struct Listed {
    waiter: Arc<Waiter>,
    partitions: Vec<(PartitionId, Slot)>,
}

/// The changes of the partitions that one waiter watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Notices were lost: every partition may have changed.
    pub all: bool,
    pub of: BTreeMap<Slot, (PartitionId, Change)>,
}

#[derive(Debug, Default)]
struct Waiter {
    woken: Notify,
    changes: Mutex<Changes>,
}

/// A waiter's registration in the hub, removed when dropped.
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    waiter: Arc<Waiter>,
    /// The partitions under which it is entered; none if it has a list of its own.
    entered: Vec<PartitionId>,
}

impl Hub {
    /// Watches partitions from now on. With `lasts` the watch is for more than one fetch.
    pub fn watch(self: &Arc<Self>, mut partitions: Vec<(PartitionId, Slot)>, lasts: bool) -> Watch {
        let waiter = Arc::new(Waiter::default());
        let mut waiting = self.waiting();
        let mut entered = Vec::new();
        if lasts || partitions.len() <= ENTERED_MAX {
            for (partition, slot) in partitions {
                let waiters = waiting.entered.entry(partition).or_default();
                waiters.push((Arc::clone(&waiter), slot));
                entered.push(partition);
            }
        } else {
            partitions.sort_unstable();
            let waiter = Arc::clone(&waiter);
            waiting.listed.push(Listed { waiter, partitions });
        }
        drop(waiting);
        Watch {
            hub: Arc::clone(self),
            waiter,
            entered,
        }
    }

    /// Tells the waiters whom the notices concern. Whoever is woken finds all that they tell, so that
    /// one commit of many partitions makes one answer.
    pub fn tell(&self, notices: &[Notice]) {
        let waiting = self.waiting();
        let mut woken = Vec::new();
        for notice in notices {
            match *notice {
                Notice::Advanced {
                    partition,
                    high_watermark,
                    place,
                } => {
                    let change = Change::Advanced {
                        high_watermark,
                        place,
                    };
                    waiting.tell(partition, change, &mut woken);
                }
                Notice::LogStart {
                    partition,
                    log_start,
                } => waiting.tell(partition, Change::LogStart(log_start), &mut woken),
                Notice::View { .. } | Notice::Anything => {}
            }
        }
        wake(woken);
    }

    /// Makes the waiters of these partitions look for themselves: the partitions may be gone.
    pub fn tell_to_look(&self, partitions: &[PartitionId]) {
        let waiting = self.waiting();
        let mut woken = Vec::new();
        for partition in partitions {
            let change = Change::Look { high_watermark: 0 };
            waiting.tell(*partition, change, &mut woken);
        }
        wake(woken);
    }

    /// Makes every waiter look at all its partitions: notices were lost.
    pub fn tell_all(&self) {
        let waiting = self.waiting();
        let entered = waiting.entered.values().flatten().map(|(waiter, _)| waiter);
        let listed = waiting.listed.iter().map(|listed| &listed.waiter);
        for waiter in entered.chain(listed) {
            waiter.changes().all = true;
            waiter.woken.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Tells the waiters of a partition; those to be woken are added to `woken`.
    fn tell(&self, partition: PartitionId, change: Change, woken: &mut Vec<Arc<Waiter>>) {
        let mut tell = |waiter: &Arc<Waiter>, slot| {
            if waiter.tell(slot, partition, change) {
                woken.push(Arc::clone(waiter));
            }
        };
        for (waiter, slot) in self.entered.get(&partition).into_iter().flatten() {
            tell(waiter, *slot);
        }
        for Listed { waiter, partitions } in &self.listed {
            let first = partitions.partition_point(|(other, _)| *other < partition);
            let its = partitions[first..].iter();
            for (_, slot) in its.take_while(|(other, _)| *other == partition) {
                tell(waiter, *slot);
            }
        }
    }
}

fn wake(waiters: Vec<Arc<Waiter>>) {
    for waiter in waiters {
        waiter.woken.notify_one();
    }
}

impl Waiter {
    /// Notes a change; true if it is the first that the waiter is told of since it last looked.
    fn tell(&self, slot: Slot, partition: PartitionId, change: Change) -> bool {
        let mut changes = self.changes();
        let was_empty = changes.is_empty();
        changes
            .of
            .entry(slot)
            .and_modify(|(_, before)| *before = before.and(change))
            .or_insert((partition, change));
        was_empty
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        !self.all && self.of.is_empty()
    }
}

impl Watch {
    /// What changed since the last call.
    pub fn take(&self) -> Changes {
        std::mem::take(&mut *self.waiter.changes())
    }

    /// Waits until something changed.
    pub async fn changed(&self) -> Changes {
        loop {
            let changes = self.take();
            if !changes.is_empty() {
                return changes;
            }
            self.waiter.woken.notified().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self.hub.waiting();
        for partition in &self.entered {
            let Some(waiters) = waiting.entered.get_mut(partition) else {
                continue;
            };
            waiters.retain(|(waiter, _)| !Arc::ptr_eq(waiter, &self.waiter));
            if waiters.is_empty() {
                waiting.entered.remove(partition);
            }
        }
        if self.entered.is_empty() {
            waiting
                .listed
                .retain(|listed| !Arc::ptr_eq(&listed.waiter, &self.waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Wake, Waker};

    use futures::FutureExt;
    use meta::ids::FileId;
    use meta::places::SlicePlace;

    use super::*;

    fn advanced(partition: u64, last_offset: i64) -> Notice {
        let place = SlicePlace {
            file: FileId::default(),
            nonce: 0,
            file_length: 0,
            position: 0,
            length: 0,
            base_offset: last_offset,
            last_offset,
            max_timestamp: 0,
        };
        Notice::Advanced {
            partition: PartitionId(partition),
            high_watermark: last_offset + 1,
            place,
        }
    }

    /// A waiter for `partitions` partitions, of which the one in slot n has the number n + 1.
    fn watch(hub: &Arc<Hub>, partitions: u32, lasts: bool) -> Watch {
        let slots = (0..partitions).rev();
        let partitions = slots.map(|slot| (PartitionId(u64::from(slot) + 1), slot));
        hub.watch(partitions.collect(), lasts)
    }

    #[tokio::test]
    async fn who_waits_is_told_of_his_partitions_alone() {
        for (partitions, lasts) in [(2, false), (2, true), (1_000, false), (1_000, true)] {
            let hub = Arc::new(Hub::default());
            let watch = watch(&hub, partitions, lasts);
            hub.tell(&[advanced(5_000, 0)]);
            assert!(watch.changed().now_or_never().is_none());
            hub.tell(&[advanced(5_000, 0), advanced(2, 0)]);
            let changes = watch.changed().await;
            assert_eq!(changes.of.keys().copied().collect::<Vec<_>>(), [1]);
            assert!(matches!(
                changes.of[&1],
                (PartitionId(2), Change::Advanced { .. })
            ));
            assert!(watch.changed().now_or_never().is_none());
            hub.tell_all();
            assert!(watch.changed().await.all);
            drop(watch);
            assert!(hub.waiting().entered.is_empty() && hub.waiting().listed.is_empty());
        }
    }

    /// A task that looks as soon as it is woken, while others are still being told.
    struct Eager {
        watch: Arc<Watch>,
        seen: Mutex<Vec<usize>>,
    }

    impl Wake for Eager {
        fn wake(self: Arc<Self>) {
            let changed = self.watch.take().of.len();
            self.seen.lock().unwrap().push(changed);
        }
    }

    #[test]
    fn who_is_woken_by_a_commit_finds_all_its_partitions() {
        let hub = Arc::new(Hub::default());
        let watch = Arc::new(watch(&hub, 3, true));
        let eager = Arc::new(Eager {
            watch: Arc::clone(&watch),
            seen: Mutex::default(),
        });
        let waker = Waker::from(Arc::clone(&eager));
        let mut changed = Box::pin(watch.changed());
        let polled = changed.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        hub.tell(&[advanced(1, 0), advanced(2, 0), advanced(3, 0)]);
        assert_eq!(*eager.seen.lock().unwrap(), [3]);
    }

    #[tokio::test]
    async fn what_comes_before_the_wait_is_not_lost_nor_kept_twice() {
        let hub = Arc::new(Hub::default());
        let watch = watch(&hub, 2, true);
        for offset in 0..1_000 {
            hub.tell(&[advanced(1, offset)]);
        }
        hub.tell_to_look(&[PartitionId(2)]);
        let changes = watch.changed().now_or_never().unwrap();
        let told: Vec<_> = changes.of.into_iter().collect();
        let look = |high_watermark| Change::Look { high_watermark };
        let expected = [
            (0, (PartitionId(1), look(1_000))),
            (1, (PartitionId(2), look(0))),
        ];
        assert_eq!(told, expected);
    }
}
