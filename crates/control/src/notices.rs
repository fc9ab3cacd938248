//! What was applied, told to whoever follows: each follower has a queue of its own, bounded by
//! bytes. It must not know who follows.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use futures::StreamExt;
use rpc::Position;
use rpc::notice::{Notice, Notices, Told};

/// All followers.
#[derive(Clone)]
pub(crate) struct Followers {
    /// What all together may be behind; 16 MiB are some hundred thousand notices. What a follower misses beyond its part
    /// of that it looks for itself.
    behind_bytes_max: usize,
    queues: Arc<Mutex<Queues>>,
}

#[derive(Default)]
struct Queues {
    /// What was told last.
    to: Position,
    followers: Vec<Weak<Mutex<Queue>>>,
}

/// What one follower was not told yet.
struct Queue {
    waiting: VecDeque<Told>,
    bytes: usize,
    /// Up to where it was told, what waits included.
    to: Position,
    waker: Option<Waker>,
}

impl Followers {
    pub(crate) fn new(behind_bytes_max: usize) -> Self {
        Followers {
            behind_bytes_max,
            queues: Arc::default(),
        }
    }

    /// What is told from now on; first of all, from where on.
    pub(crate) fn follow(&self) -> Notices {
        let mut queues = lock(&self.queues);
        let queue = Arc::new(Mutex::new(Queue {
            waiting: VecDeque::new(),
            bytes: 0,
            to: queues.to,
            waker: None,
        }));
        queues.followers.push(Arc::downgrade(&queue));
        let begin = Told {
            from: queues.to,
            to: queues.to,
            age_millis: 0,
            notices: Vec::new(),
        };
        drop(queues);
        let told = futures::stream::poll_fn(move |context| {
            let mut queue = lock(&queue);
            match queue.waiting.pop_front() {
                Some(told) => {
                    queue.bytes -= bytes(&told.notices);
                    Poll::Ready(Some(told))
                }
                None => {
                    queue.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        futures::stream::iter([begin]).chain(told).boxed()
    }

    /// Tells all of them what the entry at `to` brought.
    pub(crate) fn tell(&self, to: Position, notices: Vec<Notice>) {
        let mut queues = lock(&self.queues);
        queues.to = to;
        queues.followers.retain(|queue| queue.strong_count() > 0);
        let bytes_max = self.behind_bytes_max / queues.followers.len().max(1);
        let Some((last, others)) = queues.followers.split_last() else {
            return;
        };
        for queue in others.iter().filter_map(Weak::upgrade) {
            lock(&queue).push(to, notices.clone(), bytes_max);
        }
        if let Some(queue) = last.upgrade() {
            lock(&queue).push(to, notices, bytes_max);
        }
    }
}

impl Queue {
    fn push(&mut self, to: Position, mut notices: Vec<Notice>, bytes_max: usize) {
        let mut from = std::mem::replace(&mut self.to, to);
        if self.bytes + bytes(&notices) > bytes_max {
            from = self.waiting.front().map_or(from, |first| first.from);
            self.waiting.clear();
            self.bytes = 0;
            notices = vec![Notice::Anything];
        }
        self.bytes += bytes(&notices);
        self.waiting.push_back(Told {
            from,
            to,
            age_millis: 0,
            notices,
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What notices take while they wait.
fn bytes(notices: &[Notice]) -> usize {
    size_of::<Told>() + size_of_val(notices)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const BEHIND_BYTES_MAX: usize = 1 << 20;

    fn view(version: u64) -> Notice {
        Notice::View { version }
    }

    #[test]
    fn each_follower_is_told_what_came_after_it() {
        let followers = Followers::new(BEHIND_BYTES_MAX);
        followers.tell(Position(5), vec![view(1)]);
        let mut first = followers.follow();
        followers.tell(Position(6), vec![view(2)]);
        let mut second = followers.follow();
        followers.tell(Position(9), vec![view(3), view(4)]);
        let told = |from, to, notices| {
            let (from, to) = (Position(from), Position(to));
            Some(Some(Told {
                from,
                to,
                age_millis: 0,
                notices,
            }))
        };
        assert_eq!(first.next().now_or_never(), told(5, 5, vec![]));
        assert_eq!(first.next().now_or_never(), told(5, 6, vec![view(2)]));
        assert_eq!(second.next().now_or_never(), told(6, 6, vec![]));
        for follower in [&mut first, &mut second] {
            let next = follower.next().now_or_never();
            assert_eq!(next, told(6, 9, vec![view(3), view(4)]));
            assert_eq!(follower.next().now_or_never(), None);
        }
    }

    #[test]
    fn a_follower_that_is_far_behind_is_told_to_look_at_everything() {
        let followers = Followers::new(BEHIND_BYTES_MAX);
        let mut slow = followers.follow();
        let large = BEHIND_BYTES_MAX / size_of::<Notice>() / 3;
        for entry in 1..=10 {
            followers.tell(Position(entry), vec![view(1); large]);
        }
        let mut told = Vec::new();
        let (mut held, mut at) = (0, Position(0));
        while let Some(Some(next)) = slow.next().now_or_never() {
            assert_eq!(next.from, at, "nothing is missed unseen");
            held += bytes(&next.notices);
            at = next.to;
            told.extend(next.notices);
        }
        assert_eq!(at, Position(10));
        assert!(held <= BEHIND_BYTES_MAX, "{held} bytes were kept");
        assert_eq!(told.first(), Some(&Notice::Anything));
    }

    #[test]
    fn what_all_followers_together_may_be_behind_is_bounded() {
        let followers = Followers::new(BEHIND_BYTES_MAX);
        let mut slow: Vec<Notices> = (0..8).map(|_| followers.follow()).collect();
        let large = BEHIND_BYTES_MAX / size_of::<Notice>() / 16;
        for entry in 1..=20 {
            followers.tell(Position(entry), vec![view(1); large]);
        }
        let mut held = 0;
        for notices in &mut slow {
            while let Some(Some(next)) = notices.next().now_or_never() {
                held += bytes(&next.notices);
            }
        }
        assert!(held <= BEHIND_BYTES_MAX, "{held} bytes were kept");
    }
}
