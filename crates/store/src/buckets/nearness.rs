//! How far away the buckets of a cluster are: what the looks at them took that are made anyway, and from that what it would take
//! until enough of them hold something. It must not know who wants to know.

use std::time::Duration;

use super::{Buckets, Place, lock};

/// What the last two looks at a bucket took, the newest first; `None`: it gave no answer.
pub(super) type Looks = [Option<Duration>; 2];

impl Buckets {
    /// Says how long a look at the bucket of this number took; `None` if there was no answer.
    pub fn timed(&self, number: u32, took: Option<Duration>) {
        if let Some(place) = self.place(number) {
            let mut looks = lock(&place.looks);
            *looks = [took, looks[0]];
        }
    }

    /// How long it takes to reach as many buckets as have to hold an object; `None` if so many did not answer lately. Nothing is
    /// measured of a cluster's only bucket, which counts as near.
    pub fn commit_latency(&self) -> Option<Duration> {
        if self.only().is_some() {
            return Some(Duration::ZERO);
        }
        let round_trips = self.places.iter().map(|place| place.round_trip());
        reaching(round_trips.collect(), self.copies)
    }
}

impl Place {
    /// What the quicker of the last two looks took: a single one may have waited for something else.
    fn round_trip(&self) -> Option<Duration> {
        if self.refusal().is_some() {
            return None;
        }
        lock(&self.looks).iter().flatten().min().copied()
    }
}

/// How long it takes until so many have answered that are asked at one time.
fn reaching(mut round_trips: Vec<Option<Duration>>, copies: usize) -> Option<Duration> {
    round_trips.retain(Option::is_some);
    round_trips.sort_unstable();
    *round_trips.get(copies.checked_sub(1)?)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_takes_as_long_as_the_farthest_bucket_that_it_has_to_reach() {
        let millis = |millis: &[u64]| -> Vec<Option<Duration>> {
            let took = |millis: &u64| Some(Duration::from_millis(*millis));
            millis.iter().map(took).collect()
        };
        let second = |millis| Some(Duration::from_millis(millis));
        assert_eq!(reaching(millis(&[70, 1, 12]), 2), second(12));
        assert_eq!(reaching(vec![None, second(1), second(70)], 2), second(70));
        assert_eq!(reaching(vec![None, second(1), None], 2), None);
        assert_eq!(reaching(millis(&[5]), 1), second(5));
        assert_eq!(reaching(Vec::new(), 0), None);
    }
}
