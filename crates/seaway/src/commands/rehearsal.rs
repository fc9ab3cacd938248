//! How one process of a cluster on one machine finds the others as if they were in several regions. `seaway dev --regions` says
//! it to the processes that it starts; it is for nobody else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::places::{Places, Rehearsal};

#[derive(clap::Args)]
pub struct Arguments {
    /// Directory whose files switch off the buckets of the regions that they are named like; one with `.slow` after that says how many
    /// times as far from others the region is.
    #[arg(long, hide = true)]
    switches: Option<PathBuf>,
    /// Round trips to the control nodes of other regions.
    #[arg(long, hide = true, value_delimiter = ',')]
    far_nodes: Vec<Away>,
    /// Round trips to the buckets of other regions.
    #[arg(long, hide = true, value_delimiter = ',')]
    far_regions: Vec<Away>,
    /// How much longer buckets take to make an object.
    #[arg(long, hide = true, default_value_t = 0)]
    put_ms: u64,
}

/// Something that looks far away, and the round trip to it: NAME=MILLISECONDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    name: String,
    round_trip: Duration,
}

impl FromStr for Away {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.rsplit_once('=');
        let (name, millis) = split.ok_or("it is NAME=MILLISECONDS")?;
        let millis = millis.parse().map_err(|_| "it is NAME=MILLISECONDS")?;
        Ok(Away {
            name: name.to_owned(),
            round_trip: Duration::from_millis(millis),
        })
    }
}

impl Arguments {
    /// Makes the nodes of other regions look far away.
    pub fn begin(&self) {
        if self.far_nodes.is_empty() {
            return;
        }
        let far = self.far_nodes.iter().cloned();
        let far: BTreeMap<_, _> = far.map(|away| (away.name, away.round_trip)).collect();
        host::far::set(far);
    }

    /// The same buckets, as they are to look.
    pub fn of_buckets(&self, places: Places, own_region: &str) -> Places {
        places.rehearsed(|region| {
            let switches = self.switches.iter();
            let slow = switches.flat_map(|switches| {
                let file = |region: &str| switches.join(format!("{region}.slow"));
                [file(own_region), file(region)]
            });
            let far = self.far_regions.iter().find(|away| away.name == region);
            Rehearsal {
                switch: self.switches.as_ref().map(|switches| switches.join(region)),
                round_trip: far.map_or(Duration::ZERO, |away| away.round_trip),
                put: Duration::from_millis(self.put_ms),
                slow: slow.collect(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_away_is_named_with_its_round_trip() {
        let away: Away = "127.0.0.1:9=65".parse().expect("a name and a time");
        assert_eq!(away.name, "127.0.0.1:9");
        assert_eq!(away.round_trip, Duration::from_millis(65));
        assert!("a".parse::<Away>().is_err() && "a=b".parse::<Away>().is_err());
    }
}
