//! Tells the operator, once, of a process that is alone in its zone while another zone has several processes: its zone may be a typing error.
//! It must not know how the others are found.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::settings::{REGION, Settings, ZONE, ZONE_DEFAULT};

/// How long after its own start a process looks where the others are: those that start with it are registered by then.
const LOOKED_AFTER: Duration = Duration::from_secs(15);

/// Where a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub region: String,
    /// Empty if it is in none.
    pub zone: String,
}

impl Place {
    /// Where the process with these settings is.
    pub(super) fn of(settings: &Settings) -> Self {
        Place {
            region: settings.text(REGION).to_owned(),
            zone: settings.text(ZONE).to_owned(),
        }
    }
}

/// Looks once, some time after the start, where the other processes are; `means` says what it means for this one to be alone in its zone.
/// If it is not known where they are, nothing is said.
pub(super) async fn tell_if_alone(
    own: Place,
    means: &'static str,
    others: impl AsyncFnOnce() -> Option<Vec<Place>>,
) {
    host::clock::sleep(LOOKED_AFTER).await;
    let Some(others) = others().await else {
        return;
    };
    if let Some(zones) = zones_of_others(&own, &others) {
        tracing::info!(
            zone = own.zone,
            others = zones.join(", "),
            "no other process of this region is in the zone of this one, and other zones have several: {means}. If the zone is a typing error, \
             start this process with another --zone (broker.rack)"
        );
    }
}

/// The zones of the other processes of the region if this one is alone in its own and another has several; `None` if nothing looks
/// like an error: a cluster with one process in each zone is as good as any. Processes that were given no zone are all in one that nobody has chosen.
fn zones_of_others<'a>(own: &Place, others: &'a [Place]) -> Option<Vec<&'a str>> {
    let mut processes = BTreeMap::new();
    for other in others.iter().filter(|other| other.region == own.region) {
        *processes.entry(other.zone.as_str()).or_insert(0) += 1;
    }
    let is_chosen = |zone: &str| !zone.is_empty() && zone != ZONE_DEFAULT;
    let mut chosen = processes.iter().filter(|(zone, _)| is_chosen(zone));
    let has_several = chosen.any(|(_, count)| *count > 1);
    let is_alone = !own.zone.is_empty() && !processes.contains_key(own.zone.as_str());
    (is_alone && has_several).then(|| {
        let zones = processes.into_keys();
        zones.filter(|zone| !zone.is_empty()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str, zone: &str) -> Place {
        Place {
            region: region.to_owned(),
            zone: zone.to_owned(),
        }
    }

    #[test]
    fn who_is_alone_in_a_zone_is_told_only_where_another_has_several() {
        for (own, others, told) in [
            ("x", &["a", "a", "b"][..], Some(&["a", "b"][..])),
            // The one that was forgotten as others were given zones.
            (ZONE_DEFAULT, &["a", "a", "b", "b"], Some(&["a", "b"])),
            ("a", &["a", "b", "b"], None),
            ("a", &["b", "c"], None),
            ("a", &[], None),
            ("", &["b", "b"], None),
            // Others were given no zone: it is no wonder that there are several.
            ("a", &[ZONE_DEFAULT, ZONE_DEFAULT, "b"], None),
            ("a", &["", ""], None),
        ] {
            let others: Vec<Place> = others.iter().map(|zone| place("r", zone)).collect();
            let found = zones_of_others(&place("r", own), &others);
            assert_eq!(found.as_deref(), told, "{own} beside {others:?}");
        }
    }

    #[test]
    fn zones_of_other_regions_are_others() {
        let others = [place("s", "a"), place("s", "b"), place("s", "b")];
        assert_eq!(zones_of_others(&place("r", "x"), &others), None);
        let others = [place("s", "x"), place("r", "b"), place("r", "b")];
        assert_eq!(zones_of_others(&place("r", "x"), &others), Some(vec!["b"]));
    }
}
