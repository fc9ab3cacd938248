//! What the requests to the bucket cost: how many there were lately of each kind, and dollars a
//! month at list prices (docs/economy.md). It must not know what requests are for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::clock::Instant;
use host::task::Task;
use store::bucket::Op;
use store::meter::Counters;

/// Requests are counted over the last minute.
const WINDOW: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The least time over which requests are counted, so that those of a start are no rate.
const LEAST: Duration = Duration::from_secs(1);
/// A twelfth of a year.
const MONTH_SECONDS: f64 = 365.0 / 12.0 * 86_400.0;

/// Requests by kind, in the order of [`Op::ALL`].
type Requests = [u64; Op::ALL.len()];

/// Dollars for a thousand requests of a kind: S3 Standard in US East (N. Virginia).
fn dollars_per_thousand(op: Op) -> f64 {
    match op {
        Op::PutNew | Op::List => 0.005,
        Op::Get | Op::GetRange | Op::Head => 0.000_4,
        Op::Delete => 0.0,
    }
}

/// Watches what is asked of a bucket.
pub struct Spending {
    counters: Arc<Counters>,
    is_billed: bool,
    past: Arc<Mutex<Past>>,
    _watch: Task<()>,
}

/// What was counted in the last minute, oldest first.
#[derive(Default)]
struct Past(VecDeque<(Instant, Requests)>);

impl Past {
    fn note(&mut self, now: Instant, requests: Requests) {
        // One is kept from before the window, so that the whole of it is covered.
        while self.0.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back((now, requests));
    }

    fn per_second(&self, now: Instant, requests: Requests) -> [f64; Op::ALL.len()] {
        let (at, before) = self.0.front().copied().unwrap_or((now, requests));
        let seconds = (now - at).max(LEAST).as_secs_f64();
        std::array::from_fn(|op| requests[op].saturating_sub(before[op]) as f64 / seconds)
    }
}

impl Spending {
    /// Counts from now on; a bucket that `is_billed` costs dollars.
    pub fn watch(counters: Arc<Counters>, is_billed: bool) -> Self {
        let past = Arc::new(Mutex::new(Past::default()));
        let watched = (Arc::clone(&counters), Arc::clone(&past));
        let watch = host::task::spawn("spending", async move {
            let (counters, past) = watched;
            loop {
                let requests = requests(&counters);
                lock(&past).note(host::clock::now(), requests);
                host::clock::sleep(LOOK_EVERY).await;
            }
        });
        Spending {
            counters,
            is_billed,
            past,
            _watch: watch,
        }
    }

    /// Requests a second, by kind.
    pub fn per_second(&self) -> Vec<(Op, f64)> {
        let rates = lock(&self.past).per_second(host::clock::now(), requests(&self.counters));
        Op::ALL.into_iter().zip(rates).collect()
    }

    /// Dollars a month if it goes on like this; `None` if the bucket is a directory, which costs
    /// nothing.
    pub fn dollars_per_month(&self) -> Option<f64> {
        let costs = |(op, rate)| rate * dollars_per_thousand(op) / 1_000.0;
        let per_second: f64 = self.per_second().into_iter().map(costs).sum();
        self.is_billed.then_some(per_second * MONTH_SECONDS)
    }
}

fn lock(past: &Mutex<Past>) -> std::sync::MutexGuard<'_, Past> {
    past.lock().unwrap_or_else(PoisonError::into_inner)
}

fn requests(counters: &Counters) -> Requests {
    counters.counts().map(|count| count.requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn puts(count: u64) -> Requests {
        let mut requests = Requests::default();
        requests[Op::PutNew as usize] = count;
        requests
    }

    fn rate(past: &Past, seconds: u64, count: u64) -> f64 {
        let now = Instant::from_millis(seconds * 1_000);
        past.per_second(now, puts(count))[Op::PutNew as usize]
    }

    #[test]
    fn requests_a_second_are_those_of_the_last_minute() {
        let mut past = Past::default();
        assert_eq!(rate(&past, 100, 7), 0.0);
        for second in (100..=300).step_by(5) {
            let count = if second < 200 { 0 } else { 10 * (second - 200) };
            past.note(Instant::from_millis(second * 1_000), puts(count));
        }
        assert_eq!(rate(&past, 300, 1_000), 10.0);
        assert_eq!(past.0.len(), 13);
    }

    #[test]
    fn what_a_start_asks_for_is_no_rate() {
        let mut past = Past::default();
        past.note(Instant::from_millis(1_000), puts(0));
        assert_eq!(rate(&past, 1, 3), 3.0);
    }

    #[tokio::test]
    async fn a_directory_costs_nothing() {
        let counters = Arc::new(Counters::default());
        let spending = |is_billed| Spending::watch(Arc::clone(&counters), is_billed);
        assert_eq!(spending(true).dollars_per_month(), Some(0.0));
        assert_eq!(spending(false).dollars_per_month(), None);
    }

    #[test]
    fn prices_are_those_of_the_documentation() {
        // docs/economy.md: 67 uploads a second.
        let month = 67.0 * dollars_per_thousand(Op::PutNew) / 1_000.0 * MONTH_SECONDS;
        assert_eq!(month.round(), 880.0);
    }
}
