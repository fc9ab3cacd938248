//! What was applied, told to whoever follows: each follower has a queue of its own, bounded by
//! bytes. It must not know who follows.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use futures::StreamExt;
use rpc::notice::{Notice, Notices};

/// What one follower may be behind: some hundred thousand notices. What it misses beyond that it
/// looks for itself.
const BEHIND_BYTES_MAX: usize = 16 << 20;

/// All followers.
#[derive(Clone, Default)]
pub(crate) struct Followers {
    queues: Arc<Mutex<Vec<Weak<Mutex<Queue>>>>>,
}

/// What one follower was not told yet.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Vec<Notice>>,
    bytes: usize,
    waker: Option<Waker>,
}

impl Followers {
    /// What is told from now on.
    pub(crate) fn follow(&self) -> Notices {
        let queue = Arc::new(Mutex::new(Queue::default()));
        lock(&self.queues).push(Arc::downgrade(&queue));
        futures::stream::poll_fn(move |context| {
            let mut queue = lock(&queue);
            match queue.waiting.pop_front() {
                Some(notices) => {
                    queue.bytes -= bytes(&notices);
                    Poll::Ready(Some(notices))
                }
                None => {
                    queue.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .boxed()
    }

    /// Tells all of them what one command brought.
    pub(crate) fn tell(&self, notices: Vec<Notice>) {
        let mut queues = lock(&self.queues);
        queues.retain(|queue| queue.strong_count() > 0);
        let Some((last, others)) = queues.split_last() else {
            return;
        };
        for queue in others.iter().filter_map(Weak::upgrade) {
            lock(&queue).push(notices.clone());
        }
        if let Some(queue) = last.upgrade() {
            lock(&queue).push(notices);
        }
    }
}

impl Queue {
    fn push(&mut self, mut notices: Vec<Notice>) {
        if self.bytes + bytes(&notices) > BEHIND_BYTES_MAX {
            self.waiting.clear();
            self.bytes = 0;
            notices = vec![Notice::Anything];
        }
        self.bytes += bytes(&notices);
        self.waiting.push_back(notices);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What notices take while they wait.
fn bytes(notices: &[Notice]) -> usize {
    size_of::<Vec<Notice>>() + size_of_val(notices)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn view(version: u64) -> Notice {
        Notice::View { version }
    }

    #[test]
    fn each_follower_is_told_what_came_after_it() {
        let followers = Followers::default();
        followers.tell(vec![view(1)]);
        let mut first = followers.follow();
        followers.tell(vec![view(2)]);
        let mut second = followers.follow();
        followers.tell(vec![view(3), view(4)]);
        assert_eq!(first.next().now_or_never(), Some(Some(vec![view(2)])));
        for follower in [&mut first, &mut second] {
            let told = follower.next().now_or_never();
            assert_eq!(told, Some(Some(vec![view(3), view(4)])));
            assert_eq!(follower.next().now_or_never(), None);
        }
    }

    #[test]
    fn a_follower_that_is_far_behind_is_told_to_look_at_everything() {
        let followers = Followers::default();
        let mut slow = followers.follow();
        let large = BEHIND_BYTES_MAX / size_of::<Notice>() / 3;
        for _ in 0..10 {
            followers.tell(vec![view(1); large]);
        }
        let mut told = Vec::new();
        let mut held = 0;
        while let Some(Some(notices)) = slow.next().now_or_never() {
            held += bytes(&notices);
            told.extend(notices);
        }
        assert!(held <= BEHIND_BYTES_MAX, "{held} bytes were kept");
        assert_eq!(told.first(), Some(&Notice::Anything));
    }
}
