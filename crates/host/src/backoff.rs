//! Pauses between the repetitions of a failed action: they double up to a bound, and each is
//! random, so that callers that failed together do not come again together. It must not know what
//! is repeated.

use std::time::Duration;

use crate::clock;
use crate::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses of `first` at most, then twice that, and so on up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest }
    }

    /// The longest pause after so many failures in a row, the first of which is 1.
    pub fn bound(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// A random pause after so many failures in a row, between half of [`Backoff::bound`] and all
    /// of it.
    pub fn after(self, failures: u32, rng: &mut Rng) -> Duration {
        let bound = self.bound(failures);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros - rng.below(micros / 2 + 1))
    }

    pub fn start(self) -> Pauses {
        Pauses {
            backoff: self,
            failures: 0,
            rng: Rng::from_entropy(),
        }
    }
}

/// The pauses of one loop that repeats something until it succeeds.
#[derive(Debug)]
pub struct Pauses {
    backoff: Backoff,
    failures: u32,
    rng: Rng,
}

impl Pauses {
    /// True before the first pause.
    pub fn is_first(&self) -> bool {
        self.failures == 0
    }

    /// Sleeps for the next pause, which is about twice as long as the one before.
    pub async fn pause(&mut self) {
        self.failures = self.failures.saturating_add(1);
        clock::sleep(self.backoff.after(self.failures, &mut self.rng)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(70));

    #[test]
    fn pauses_double_up_to_the_longest() {
        let millis = |failures| BACKOFF.bound(failures).as_millis();
        let bounds: Vec<u128> = [1, 2, 3, 4, 5, u32::MAX].map(millis).to_vec();
        assert_eq!(bounds, [10, 20, 40, 70, 70, 70]);
        assert_eq!(BACKOFF.bound(0), BACKOFF.bound(1));
    }

    #[test]
    fn each_pause_is_drawn_between_half_of_its_bound_and_all_of_it() {
        let mut rng = Rng::seeded(1);
        for failures in [1, 3, 9] {
            let bound = BACKOFF.bound(failures);
            let drawn: BTreeSet<Duration> = (0..1_000)
                .map(|_| BACKOFF.after(failures, &mut rng))
                .collect();
            assert!(
                drawn
                    .iter()
                    .all(|pause| (bound / 2..=bound).contains(pause))
            );
            assert!(drawn.len() > 500, "{}", drawn.len());
        }
    }
}
