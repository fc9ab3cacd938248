//! Latencies: collected during a run, summed up at its end.

use std::time::Duration;

/// Latencies of one run.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        self.micros
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub fn merge(&mut self, other: Latencies) {
        self.micros.extend(other.micros);
    }

    pub fn count(&self) -> usize {
        self.micros.len()
    }

    /// The latency in milliseconds that the given share of all do not exceed; zero if there are
    /// none.
    pub fn quantile_millis(&mut self, share: f64) -> f64 {
        if self.micros.is_empty() {
            return 0.0;
        }
        self.micros.sort_unstable();
        let index = (share * (self.micros.len() - 1) as f64).round() as usize;
        f64::from(self.micros[index]) / 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile_millis(0.5), 0.0);
        for millis in [5, 1, 3, 2, 4] {
            latencies.add(Duration::from_millis(millis));
        }
        assert_eq!(latencies.quantile_millis(0.5), 3.0);
        assert_eq!(latencies.quantile_millis(1.0), 5.0);
    }
}
