//! What other agents of the zone have on their way to them, each counted apart: one that asks for much, or reads slowly what it is
//! given, leaves enough for the others. It must not know what is given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many bytes and requests, shared by all who ask.
#[derive(Debug)]
pub(super) struct Shares {
    bytes_max: u64,
    requests_max: u64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Taken {
    all: Amount,
    /// Those with requests under way.
    callers: BTreeMap<String, Amount>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    bytes: u64,
    requests: u64,
}

/// What one request takes, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    caller: String,
    bytes: u64,
}

impl Shares {
    pub(super) fn new(bytes_max: u64, requests_max: u64) -> Arc<Self> {
        Arc::new(Shares {
            bytes_max,
            requests_max,
            taken: Mutex::default(),
        })
    }

    /// Takes a share for a request of so many bytes; `None` if there is too little left, or the caller has as much already as is
    /// left for all others. So one alone has half of everything, two have a third each, and there is always something left. A part that is larger than
    /// everything takes everything.
    pub(super) fn take(self: &Arc<Self>, caller: &str, bytes: u64) -> Option<Share> {
        let bytes = bytes.min(self.bytes_max);
        let mut taken = self.taken();
        let its = taken.callers.get(caller).copied().unwrap_or_default();
        let left = Amount {
            bytes: self.bytes_max.checked_sub(taken.all.bytes + bytes)?,
            requests: self.requests_max.checked_sub(taken.all.requests + 1)?,
        };
        if its.requests > 0 && (its.bytes + bytes > left.bytes || its.requests + 1 > left.requests)
        {
            return None;
        }
        taken.all = taken.all.more(bytes);
        taken.callers.insert(caller.to_owned(), its.more(bytes));
        Some(Share {
            shares: Arc::clone(self),
            caller: caller.to_owned(),
            bytes,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Amount {
    fn more(self, bytes: u64) -> Self {
        Amount {
            bytes: self.bytes + bytes,
            requests: self.requests + 1,
        }
    }

    fn less(self, bytes: u64) -> Self {
        Amount {
            bytes: self.bytes.saturating_sub(bytes),
            requests: self.requests.saturating_sub(1),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        taken.all = taken.all.less(self.bytes);
        if let Some(its) = taken.callers.get_mut(&self.caller) {
            *its = its.less(self.bytes);
            if its.requests == 0 {
                taken.callers.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a caller gets who asks for as many shares of so many bytes as there are.
    fn all(shares: &Arc<Shares>, caller: &str, bytes: u64) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(caller, bytes)).collect()
    }

    #[test]
    fn one_that_asks_for_everything_leaves_enough_for_the_others() {
        let shares = Shares::new(100, 1_000);
        let first = all(&shares, "a", 1);
        assert_eq!(first.len(), 50);
        assert_eq!(all(&shares, "b", 1).len(), 25);
        assert!(shares.take("a", 1).is_none());
        drop(first);
        assert_eq!(all(&shares, "b", 1).len(), 50);
        assert_eq!(*shares.taken(), Taken::default(), "all is given back");
    }

    #[test]
    fn requests_are_shared_like_bytes() {
        let shares = Shares::new(1_000, 256);
        let many = all(&shares, "a", 1);
        assert_eq!(many.len(), 128);
        assert!(shares.take("b", 1).is_some());
    }

    #[test]
    fn a_first_part_may_take_all_that_is_left_and_a_huge_one_everything() {
        let shares = Shares::new(100, 10);
        let first = shares.take("a", 70).expect("it is free");
        assert!(shares.take("b", 40).is_none());
        assert!(shares.take("b", 30).is_some());
        drop(first);
        assert!(shares.take("a", 1_000).is_some());
    }
}
