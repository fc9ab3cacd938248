//! Where files must be before they may be committed. It must not know files or buckets, only
//! their numbers and failure domains.

use std::collections::{BTreeMap, BTreeSet};

use crate::terms::command::Placement;
use crate::terms::reply::{Refusal, Reply};

/// Bucket numbers are below this, so that a set of them is one integer.
pub(crate) const BUCKETS_MAX: u32 = u64::BITS;

/// How many failure domains must hold a file, and which bucket lies in which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) copies: u32,
    pub(crate) buckets: BTreeMap<u32, u32>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            copies: 1,
            buckets: BTreeMap::new(),
        }
    }
}

impl Policy {
    pub(crate) fn replace(&mut self, placement: &Placement) -> Reply {
        let domains: BTreeSet<&u32> = placement.buckets.values().collect();
        let invalid = |what| Reply::Refused(Refusal::Invalid { what });
        if placement.copies == 0 || placement.copies > BUCKETS_MAX {
            return invalid("the number of copies must be between 1 and 64");
        }
        if placement
            .buckets
            .keys()
            .any(|bucket| *bucket >= BUCKETS_MAX)
        {
            return invalid("bucket numbers must be below 64");
        }
        let copies = usize::try_from(placement.copies).unwrap_or(usize::MAX);
        if !placement.buckets.is_empty() && domains.len() < copies {
            return invalid("there are fewer failure domains than copies");
        }
        *self = Policy {
            copies: placement.copies,
            buckets: placement.buckets.clone(),
        };
        Reply::Done
    }

    /// The buckets as a set of bits, if they are known, increasing, and cover enough domains.
    pub(crate) fn covered(&self, placement: &[u32]) -> Option<u64> {
        let increasing = placement.is_sorted_by(|a, b| a < b);
        let mut domains = BTreeSet::new();
        let mut bits = 0_u64;
        for bucket in placement {
            if *bucket >= BUCKETS_MAX {
                return None;
            }
            bits |= 1 << bucket;
            domains.insert(match self.buckets.is_empty() {
                true => bucket,
                false => self.buckets.get(bucket)?,
            });
        }
        let enough = u32::try_from(domains.len()).is_ok_and(|domains| domains >= self.copies);
        (increasing && enough).then_some(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(copies: u32, buckets: &[(u32, u32)]) -> Placement {
        Placement {
            copies,
            buckets: buckets.iter().copied().collect(),
        }
    }

    #[test]
    fn copies_count_only_in_distinct_failure_domains() {
        let mut policy = Policy::default();
        let reply = policy.replace(&placement(2, &[(0, 7), (1, 7), (2, 8)]));
        assert_eq!(reply, Reply::Done);
        assert_eq!(policy.covered(&[0, 2]), Some(0b101));
        assert_eq!(policy.covered(&[0, 1, 2]), Some(0b111));
        for refused in [
            &[0, 1][..],
            &[2],
            &[],
            &[2, 0],
            &[0, 0, 2],
            &[0, 2, 3],
            &[0, 64],
        ] {
            assert_eq!(policy.covered(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn without_buckets_one_copy_anywhere_is_enough() {
        let policy = Policy::default();
        assert_eq!(policy.covered(&[63]), Some(1 << 63));
        assert_eq!(policy.covered(&[]), None);
    }

    #[test]
    fn a_policy_that_no_file_could_meet_is_refused() {
        let mut policy = Policy::default();
        for (copies, buckets) in [(0, &[(0, 0)][..]), (2, &[(0, 0), (1, 0)]), (1, &[(64, 0)])] {
            let reply = policy.replace(&placement(copies, buckets));
            assert!(matches!(reply, Reply::Refused(Refusal::Invalid { .. })));
            assert_eq!(policy, Policy::default());
        }
    }
}
