//! In how many failure domains files must be before they may be committed. It must not know files
//! or buckets, only their numbers and failure domains.

use std::collections::{BTreeMap, BTreeSet};

use crate::terms::command::Placement;
use crate::terms::reply::{Refusal, Reply};

/// Bucket numbers are below this, so that a set of them is one integer.
pub(crate) const BUCKETS_MAX: u32 = u64::BITS;

/// How many failure domains must hold a file, and which bucket lies in which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) placement: Placement,
    /// Bit b: a bucket has, or once had, number b.
    pub(crate) used: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            placement: Placement {
                number: 0,
                copies: 1,
                buckets: BTreeMap::new(),
            },
            used: 0,
        }
    }
}

impl Policy {
    /// Puts a placement in the place of the one in force; `holds_files` tells whether any file names
    /// a bucket.
    pub(crate) fn replace(
        &mut self,
        placement: &Placement,
        holds_files: impl Fn(u32) -> bool,
    ) -> Reply {
        if *placement == self.placement {
            return Reply::Done;
        }
        if placement.number != self.placement.number.saturating_add(1) {
            let (what, version) = ("the buckets", self.placement.number);
            return Reply::Refused(Refusal::Outdated { what, version });
        }
        if let Err(what) = self.check(placement, holds_files) {
            return Reply::Refused(Refusal::Invalid { what });
        }
        let numbers = placement.buckets.keys();
        *self = Policy {
            placement: placement.clone(),
            used: numbers.fold(self.used, |used, number| used | 1 << number),
        };
        Reply::Done
    }

    fn check(
        &self,
        placement: &Placement,
        holds_files: impl Fn(u32) -> bool,
    ) -> Result<(), &'static str> {
        let buckets = &placement.buckets;
        if placement.copies == 0 || placement.copies > BUCKETS_MAX {
            return Err("the number of copies must be between 1 and 64");
        }
        if buckets.keys().any(|bucket| *bucket >= BUCKETS_MAX) {
            return Err("bucket numbers must be below 64");
        }
        let domains: BTreeSet<u32> = buckets.values().map(|bucket| bucket.domain).collect();
        let copies = usize::try_from(placement.copies).unwrap_or(usize::MAX);
        if !buckets.is_empty() && domains.len() < copies {
            return Err("there are fewer failure domains than copies");
        }
        let is_needed = |bucket: &u32| !buckets.contains_key(bucket) && holds_files(*bucket);
        if !buckets.is_empty() && (0..BUCKETS_MAX).any(|bucket| is_needed(&bucket)) {
            return Err("a bucket that is left out still holds files");
        }
        for (number, bucket) in buckets {
            match self.placement.buckets.get(number) {
                Some(now) if now.domain != bucket.domain => {
                    return Err("a bucket's failure domain never changes");
                }
                Some(now) if now.generation > bucket.generation => {
                    return Err("a bucket's generation never falls");
                }
                None if self.used & (1 << number) != 0 => {
                    return Err("a bucket's number is never used again");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The buckets that there are, as a set of bits.
    pub(crate) fn bits(&self) -> u64 {
        let numbers = self.placement.buckets.keys();
        numbers.fold(0, |bits, number| {
            bits | 1_u64.checked_shl(*number).unwrap_or(0)
        })
    }

    /// Those of the buckets that are not among a second set, as a set of bits, if all are known, increasing, and these cover enough domains.
    pub(crate) fn covered(&self, placement: &[u32], but: u64) -> Option<u64> {
        let increasing = placement.is_sorted_by(|a, b| a < b);
        let mut domains = BTreeSet::new();
        let mut bits = 0_u64;
        for bucket in placement {
            if *bucket >= BUCKETS_MAX {
                return None;
            }
            let domain = match self.placement.buckets.is_empty() {
                true => bucket,
                false => &self.placement.buckets.get(bucket)?.domain,
            };
            if but & (1 << bucket) == 0 {
                bits |= 1 << bucket;
                domains.insert(domain);
            }
        }
        let enough =
            u32::try_from(domains.len()).is_ok_and(|domains| domains >= self.placement.copies);
        (increasing && enough).then_some(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::command::Bucket;

    fn placement(number: u64, copies: u32, buckets: &[(u32, u32)]) -> Placement {
        let bucket = |&(number, domain): &(u32, u32)| {
            let generation = 5;
            (number, Bucket { domain, generation })
        };
        Placement {
            number,
            copies,
            buckets: buckets.iter().map(bucket).collect(),
        }
    }

    fn replaced(policy: &mut Policy, by: &Placement) -> bool {
        match policy.replace(by, |_| false) {
            Reply::Done => true,
            Reply::Refused(_) => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn copies_count_only_in_distinct_failure_domains() {
        let mut policy = Policy::default();
        let by = placement(1, 2, &[(0, 7), (1, 7), (2, 8)]);
        assert!(replaced(&mut policy, &by));
        assert_eq!(policy.covered(&[0, 2], 0), Some(0b101));
        assert_eq!(policy.covered(&[0, 1, 2], 0), Some(0b111));
        assert_eq!(policy.covered(&[0, 1, 2], 0b10), Some(0b101));
        assert_eq!(policy.covered(&[0, 2], 0b100), None, "one does not count");
        for refused in [
            &[0, 1][..],
            &[2],
            &[],
            &[2, 0],
            &[0, 0, 2],
            &[0, 2, 3],
            &[0, 64],
        ] {
            assert_eq!(policy.covered(refused, 0), None, "{refused:?}");
        }
    }

    #[test]
    fn without_buckets_one_copy_anywhere_is_enough() {
        let policy = Policy::default();
        assert_eq!(policy.covered(&[63], 0), Some(1 << 63));
        assert_eq!(policy.covered(&[], 0), None);
    }

    #[test]
    fn a_policy_that_no_file_could_meet_is_refused() {
        let mut policy = Policy::default();
        for (copies, buckets) in [(0, &[(0, 0)][..]), (2, &[(0, 0), (1, 0)]), (1, &[(64, 0)])] {
            assert!(!replaced(&mut policy, &placement(1, copies, buckets)));
            assert_eq!(policy, Policy::default());
        }
    }

    #[test]
    fn a_placement_follows_the_one_it_was_made_from_and_a_repeat_is_harmless() {
        let mut policy = Policy::default();
        let first = placement(1, 1, &[(0, 0)]);
        assert!(!replaced(&mut policy, &placement(2, 1, &[(0, 0)])));
        assert!(replaced(&mut policy, &first));
        assert!(replaced(&mut policy, &first));
        assert!(!replaced(&mut policy, &placement(1, 1, &[(1, 0)])));
        assert_eq!(policy.placement.number, 1);
    }

    #[test]
    fn a_buckets_number_means_one_bucket_for_ever() {
        let mut policy = Policy::default();
        assert!(replaced(&mut policy, &placement(1, 1, &[(0, 0), (1, 1)])));
        assert!(!replaced(&mut policy, &placement(2, 1, &[(0, 0), (1, 2)])));
        let mut wiped = placement(2, 1, &[(0, 0), (1, 1)]);
        wiped.buckets.insert(
            1,
            Bucket {
                domain: 1,
                generation: 4,
            },
        );
        assert!(!replaced(&mut policy, &wiped), "generations do not fall");
        let without = placement(2, 1, &[(0, 0)]);
        let held = policy.replace(&without, |bucket| bucket == 1);
        assert!(matches!(held, Reply::Refused(Refusal::Invalid { .. })));
        assert!(replaced(&mut policy, &without));
        assert!(!replaced(&mut policy, &placement(3, 1, &[(0, 0), (1, 1)])));
        assert!(replaced(&mut policy, &placement(3, 1, &[(0, 0), (2, 1)])));
    }
}
