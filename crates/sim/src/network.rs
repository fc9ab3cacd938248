//! The simulated network: when a message arrives, how often, or not at all.
//!
//! Must not know what messages say.

use std::collections::BTreeMap;

use host::rng::Rng;

use crate::faults::{Fault, Faults};

/// A place that sends and receives.
pub type Place = u32;

/// Delays are between these without faults.
const DELAY_US: (u64, u64) = (100, 2_000);
/// A delayed message takes up to so much longer.
const DELAY_EXTRA_US: u64 = 3_000_000;
/// A cut lasts up to so long.
const CUT_US: u64 = 4_000_000;

/// Who cannot reach whom until when.
#[derive(Debug, Default)]
pub struct Network {
    cut_until_us: BTreeMap<(Place, Place), u64>,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    to: Place,
    /// When its last message arrives; `None` once it is broken.
    last_us: Option<u64>,
}

impl Network {
    /// The delay after which a message arrives on a connection, which keeps order: never before one sent earlier, and
    /// not at all once one was lost.
    pub fn send_in_order(
        &mut self,
        now_us: u64,
        connection: u64,
        (from, to): (Place, Place),
        faults: &mut Faults,
        rng: &mut Rng,
    ) -> Option<u64> {
        let known = self.connections.entry(connection).or_insert(Connection {
            to,
            last_us: Some(0),
        });
        let before_us = known.last_us.take()?;
        if self.is_cut(now_us, from, to, faults) || faults.strike(Fault::Loss, rng) {
            return None;
        }
        let arrival_us = (now_us + delay_us(faults, rng)).max(before_us);
        self.connections.insert(
            connection,
            Connection {
                to,
                last_us: Some(arrival_us),
            },
        );
        Some(arrival_us - now_us)
    }

    /// Breaks every connection to a place whose process has died.
    pub fn reset(&mut self, place: Place) {
        for connection in self
            .connections
            .values_mut()
            .filter(|connection| connection.to == place)
        {
            connection.last_us = None;
        }
    }

    /// The delays after which copies of a message from `from` to `to` arrive; none if it is lost. Order is not kept.
    /// Twice arrives only what may be `repeated`.
    pub fn send(
        &mut self,
        now_us: u64,
        (from, to): (Place, Place),
        repeated: bool,
        faults: &mut Faults,
        rng: &mut Rng,
    ) -> Vec<u64> {
        if self.is_cut(now_us, from, to, faults) || faults.strike(Fault::Loss, rng) {
            return Vec::new();
        }
        let mut delays = vec![delay_us(faults, rng)];
        if repeated && faults.strike(Fault::Duplicate, rng) {
            delays.push(delay_us(faults, rng));
        }
        delays
    }

    /// Cuts one direction for a while.
    pub fn cut_one_way(&mut self, now_us: u64, from: Place, to: Place, rng: &mut Rng) {
        let until_us = now_us + rng.below(CUT_US);
        self.cut_until_us.insert((from, to), until_us);
    }

    /// Cuts a place off from all `others` for a while.
    pub fn isolate(
        &mut self,
        now_us: u64,
        place: Place,
        others: impl IntoIterator<Item = Place>,
        rng: &mut Rng,
    ) {
        let until_us = now_us + rng.below(CUT_US);
        for other in others.into_iter().filter(|&other| other != place) {
            self.cut_until_us.insert((place, other), until_us);
            self.cut_until_us.insert((other, place), until_us);
        }
    }

    fn is_cut(&self, now_us: u64, from: Place, to: Place, faults: &Faults) -> bool {
        let until_us = self.cut_until_us.get(&(from, to));
        !faults.healed() && until_us.is_some_and(|&until_us| now_us < until_us)
    }
}

fn delay_us(faults: &mut Faults, rng: &mut Rng) -> u64 {
    let (low_us, high_us) = DELAY_US;
    let usual_us = low_us + rng.below(high_us - low_us);
    if faults.strike(Fault::Delay, rng) {
        usual_us + rng.below(DELAY_EXTRA_US)
    } else {
        usual_us
    }
}

#[cfg(test)]
mod tests {
    use super::Network;
    use crate::faults::Faults;
    use host::rng::Rng;

    #[test]
    fn a_cut_has_one_direction_and_heals() {
        let (mut network, mut rng) = (Network::default(), Rng::seeded(3));
        let mut faults = Faults::none();
        network.cut_one_way(0, 1, 2, &mut rng);
        assert!(
            network
                .send(0, (1, 2), false, &mut faults, &mut rng)
                .is_empty()
        );
        assert_eq!(
            network.send(0, (2, 1), false, &mut faults, &mut rng).len(),
            1
        );
        network.isolate(0, 5, [1, 2, 5], &mut rng);
        assert!(
            network
                .send(0, (2, 5), false, &mut faults, &mut rng)
                .is_empty()
        );
        assert!(
            network
                .send(0, (5, 2), false, &mut faults, &mut rng)
                .is_empty()
        );
        faults.heal();
        assert_eq!(
            network.send(0, (1, 2), false, &mut faults, &mut rng).len(),
            1
        );
    }
}
