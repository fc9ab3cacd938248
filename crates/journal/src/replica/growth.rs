//! What this node appends, told to whoever follows: each follower has a queue of its own, and those that fall behind miss some.
//! It must not know who follows.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, poll_fn};

/// What waits for all followers together, at most. It is mostly one copy: entries are shared.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// An entry of this node that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    /// Its slot.
    pub index: u64,
    /// What the slot holds; `None` if its commands lie elsewhere, so that it has to be read.
    pub entry: Option<Bytes>,
}

#[derive(Default)]
pub(super) struct Growth {
    followers: Mutex<Vec<Weak<Mutex<Queue>>>>,
}

/// What one follower was not told yet.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Grown>,
    bytes: usize,
    waker: Option<Waker>,
}

impl Growth {
    /// What is told from now on.
    pub(super) fn follow(&self) -> BoxStream<'static, Grown> {
        let queue = Arc::new(Mutex::new(Queue::default()));
        lock(&self.followers).push(Arc::downgrade(&queue));
        poll_fn(move |context| {
            let mut queue = lock(&queue);
            match queue.waiting.pop_front() {
                Some(grown) => {
                    queue.bytes -= bytes(&grown);
                    Poll::Ready(Some(grown))
                }
                None => {
                    queue.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .boxed()
    }

    pub(super) fn tell(&self, grown: Grown) {
        let mut followers = lock(&self.followers);
        followers.retain(|queue| queue.strong_count() > 0);
        let bytes_max = WAITING_BYTES_MAX / followers.len().max(1);
        for queue in followers.iter().filter_map(Weak::upgrade) {
            lock(&queue).push(grown.clone(), bytes_max);
        }
    }
}

impl Queue {
    /// What does not fit replaces what waits: a follower that is so far behind reads the journal, and is told of its end.
    fn push(&mut self, grown: Grown, bytes_max: usize) {
        let length = bytes(&grown);
        if self.bytes + length > bytes_max {
            self.waiting.clear();
            self.bytes = 0;
        }
        if length <= bytes_max {
            self.bytes += length;
            self.waiting.push_back(grown);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn bytes(grown: &Grown) -> usize {
    size_of::<Grown>() + grown.entry.as_ref().map_or(0, Bytes::len)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn grown(index: u64, length: usize) -> Grown {
        Grown {
            index,
            entry: Some(Bytes::from(vec![7; length])),
        }
    }

    fn told(follower: &mut BoxStream<'static, Grown>) -> Vec<u64> {
        let next = || follower.next().now_or_never().flatten();
        std::iter::from_fn(next).map(|grown| grown.index).collect()
    }

    #[test]
    fn each_follower_is_told_what_came_after_it() {
        let growth = Growth::default();
        growth.tell(grown(1, 10));
        let mut first = growth.follow();
        growth.tell(grown(2, 10));
        let mut second = growth.follow();
        growth.tell(grown(3, 10));
        assert_eq!(told(&mut first), [2, 3]);
        assert_eq!(told(&mut second), [3]);
    }

    #[test]
    fn a_follower_that_falls_behind_is_told_of_the_end() {
        let growth = Growth::default();
        let (mut one, mut other) = (growth.follow(), growth.follow());
        for index in 1..=100 {
            growth.tell(grown(index, WAITING_BYTES_MAX / 8));
            assert_eq!(told(&mut one), [index]);
        }
        let last = told(&mut other);
        assert_eq!(last.last(), Some(&100));
        assert!(last.len() <= 4, "{last:?}");
    }
}
