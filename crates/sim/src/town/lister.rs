//! A client that only lists offsets, of partitions and of the group: what it is told must be current,
//! whoever answers. It must not know how servers work.

use std::sync::Arc;
use std::time::Duration;

use host::clock;
use host::seeded::{self, Place};

use super::client::Client;
use super::consumer::{EARLIEST, LATEST, list_recorded};
use super::{KEYS, Town, member};

/// Lists offsets of partitions and of the group now and then, for ever.
pub(super) async fn list_along(town: Arc<Town>, place: Place) {
    let process = format!("d{}", place.0);
    loop {
        let mut client = Client::new(town.servers.clone());
        let (what, pause_us) = seeded::draw(|rng| (rng.below(4), 50_000 + rng.below(300_000)));
        match what {
            0 => drop(list_recorded(&town, &mut client, &process, EARLIEST).await),
            1 => drop(list_recorded(&town, &mut client, &process, LATEST).await),
            _ => drop(member::committed(&town, &mut client, &process, &KEYS).await),
        }
        clock::sleep(Duration::from_micros(pause_us)).await;
    }
}
