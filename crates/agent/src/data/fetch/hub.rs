//! Wakes long polls: who waits for which partition. Hints only: whoever is woken looks again. It
//! must not know what is waited for beyond the partition's number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meta::ids::PartitionId;
use rpc::view::Notice;
use tokio::sync::Notify;

/// Who waits, by partition.
#[derive(Debug, Default)]
pub struct Hub {
    waiting: Mutex<HashMap<PartitionId, Vec<Arc<Waiter>>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    woken: Notify,
    changed: Mutex<Vec<PartitionId>>,
}

/// A long poll's place in the hub; given up when dropped.
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    waiter: Arc<Waiter>,
    partitions: Vec<PartitionId>,
}

impl Hub {
    /// Waits for changes of `partitions` from now on.
    pub fn watch(self: &Arc<Self>, mut partitions: Vec<PartitionId>) -> Watch {
        // A request may name a partition as often as it likes; to leave the hub costs a look at all
        // who wait, for each.
        partitions.sort_unstable();
        partitions.dedup();
        let waiter = Arc::new(Waiter::default());
        let mut waiting = self.waiting();
        for partition in &partitions {
            waiting
                .entry(*partition)
                .or_default()
                .push(Arc::clone(&waiter));
        }
        drop(waiting);
        Watch {
            hub: Arc::clone(self),
            waiter,
            partitions,
        }
    }

    /// Wakes those whom the notices concern, each once.
    pub fn tell(&self, notices: &[Notice]) {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return;
        }
        let mut woken: Vec<&Arc<Waiter>> = Vec::new();
        for notice in notices {
            let partition = match notice {
                Notice::Advanced { partition, .. } | Notice::LogStart { partition, .. } => {
                    partition
                }
                Notice::View { .. } => continue,
            };
            for waiter in waiting.get(partition).into_iter().flatten() {
                let mut changed = waiter.changed();
                if changed.is_empty() {
                    woken.push(waiter);
                }
                changed.push(*partition);
            }
        }
        woken
            .into_iter()
            .for_each(|waiter| waiter.woken.notify_one());
    }

    /// Wakes everyone, for everything: notices were lost.
    pub fn tell_all(&self) {
        let waiting = self.waiting();
        for (partition, waiters) in waiting.iter() {
            for waiter in waiters {
                waiter.changed().push(*partition);
                waiter.woken.notify_one();
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<PartitionId, Vec<Arc<Waiter>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    fn changed(&self) -> MutexGuard<'_, Vec<PartitionId>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Waits until something changed; yields what, perhaps with repetitions.
    pub async fn changed(&self) -> Vec<PartitionId> {
        loop {
            let changed = std::mem::take(&mut *self.waiter.changed());
            if !changed.is_empty() {
                return changed;
            }
            self.waiter.woken.notified().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self.hub.waiting();
        for partition in &self.partitions {
            let Some(waiters) = waiting.get_mut(partition) else {
                continue;
            };
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            if waiters.is_empty() {
                waiting.remove(partition);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use meta::ids::FileId;
    use rpc::view::Place;

    use super::*;

    fn advanced(partition: u64) -> Notice {
        let place = Place {
            file: FileId::default(),
            nonce: 0,
            file_length: 0,
            position: 0,
            length: 0,
            base_offset: 0,
            last_offset: 0,
            max_timestamp: 0,
        };
        Notice::Advanced {
            partition: PartitionId(partition),
            high_watermark: 1,
            place,
        }
    }

    #[tokio::test]
    async fn only_the_partitions_that_are_watched_wake() {
        let hub = Arc::new(Hub::default());
        let watch = hub.watch(vec![PartitionId(1), PartitionId(2)]);
        hub.tell(&[advanced(3)]);
        assert!(watch.changed().now_or_never().is_none());
        hub.tell(&[advanced(3), advanced(2)]);
        assert_eq!(watch.changed().await, [PartitionId(2)]);
        assert!(watch.changed().now_or_never().is_none());
        hub.tell_all();
        assert_eq!(watch.changed().await.len(), 2);
        drop(watch);
        assert!(hub.waiting().is_empty());
    }

    #[tokio::test]
    async fn a_partition_is_watched_once_however_often_it_is_named() {
        let hub = Arc::new(Hub::default());
        let watch = hub.watch(vec![PartitionId(1); 3]);
        assert_eq!(hub.waiting()[&PartitionId(1)].len(), 1);
        drop(watch);
        assert!(hub.waiting().is_empty());
    }

    #[tokio::test]
    async fn what_comes_before_the_wait_is_not_lost() {
        let hub = Arc::new(Hub::default());
        let watch = hub.watch(vec![PartitionId(1)]);
        hub.tell(&[advanced(1)]);
        assert_eq!(watch.changed().now_or_never(), Some(vec![PartitionId(1)]));
    }
}
