//! Where a client is, as far as it says: by the listener that it came by, in its client id, or in a fetch. Pure. It must
//! not know which agents there are, but through `route`.

use meta::ids::AgentId;

use crate::route::{Place, Routes, Zone};
use crate::settings::Listener;
use crate::view::{Topic, View};

/// The names under which a client id may tell its client's zone: ours first, then those that clients of other systems have
/// in their configuration already.
const KEYS: [&str; 5] = ["zone", "warpstream_az", "ws_az", "diskless_az", "automq_az"];
/// The name under which it may tell its region.
const REGION: &str = "region";

/// What ends a pair in a client id.
const SEPARATORS: [char; 4] = [',', ';', ' ', '&'];

/// Where a request comes from.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The number of its connection.
    pub connection: u64,
    pub listener: &'a Listener,
    pub client_id: Option<&'a str>,
}

impl Origin<'_> {
    /// The client's zone, if it names one that an agent is in: one in its client id counts before that of its listener.
    pub(crate) fn zone(&self, routes: &Routes) -> Option<Zone> {
        let said = named_zones(self.client_id.unwrap_or_default());
        let mut zones = said.chain(self.listener.zone.as_deref());
        let region = self.region(routes);
        zones.find_map(|name| routes.zone(&self.listener.name, region, name))
    }

    /// Where the client is, as far as agents are there: in its zone, or else in the region that it names.
    pub(crate) fn place(&self, routes: &Routes) -> Option<Place> {
        let zone = self.zone(routes).map(Place::from);
        let region = || routes.region(&self.listener.name, self.region(routes)?);
        zone.or_else(region)
    }

    /// The first region that its client id names and that an agent is in.
    fn region(&self, routes: &Routes) -> Option<&str> {
        let mut named = named(self.client_id.unwrap_or_default(), &[REGION]);
        named.find(|name| routes.region(&self.listener.name, name).is_some())
    }
}

/// The zones that a client id names.
fn named_zones(client_id: &str) -> impl Iterator<Item = &str> {
    named(client_id, &KEYS)
}

/// What a client id says under one of the keys.
fn named<'a>(client_id: &'a str, keys: &'static [&str]) -> impl Iterator<Item = &'a str> {
    let pairs = client_id.split(SEPARATORS);
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    let said = pairs.filter(|(key, _)| keys.contains(key));
    said.map(|(_, said)| said)
}

/// Sends fetches to the agents of their clients' zones (KIP-392).
#[derive(Clone, Copy)]
pub(crate) struct Guide<'a> {
    origin: Origin<'a>,
    rack: &'a str,
    here: AgentId,
}

impl<'a> Guide<'a> {
    /// For a fetch that names a rack, at the agent `here`.
    pub(crate) fn new(origin: Origin<'a>, rack: &'a str, here: AgentId) -> Self {
        Guide { origin, rack, here }
    }

    /// The zone of the rack. A client whose zone is known otherwise was sent to the agents of that by Metadata.
    pub(crate) fn zone(&self, routes: &Routes) -> Option<Zone> {
        let listener = &self.origin.listener.name;
        let zone = routes.zone(listener, self.origin.region(routes), self.rack)?;
        self.origin.zone(routes).is_none().then_some(zone)
    }

    /// The number of the connection by which the fetch came.
    pub(crate) fn connection(&self) -> u64 {
        self.origin.connection
    }

    /// Whether the client says that it is in other zones than `zone`, where the agent is: nothing is known of a client
    /// or an agent that names none.
    pub(crate) fn is_in_other_zone_than(&self, zone: &str) -> bool {
        let origin = &self.origin;
        let said = named_zones(origin.client_id.unwrap_or_default());
        let said = said
            .chain(origin.listener.zone.as_deref())
            .chain([self.rack]);
        let mut said = said.filter(|named| !named.is_empty()).peekable();
        !zone.is_empty() && said.peek().is_some() && !said.any(|named| named == zone)
    }

    /// The agent to which a reader in the zone is sent for a partition, unless it is this one. Clients go only to one that
    /// Metadata names as a replica.
    pub(crate) fn elsewhere(
        &self,
        view: &View,
        topic: &Topic,
        index: i32,
        zone: Zone,
    ) -> Option<AgentId> {
        let (index, listener) = (usize::try_from(index).ok()?, &self.origin.listener.name);
        let agent = view.places(topic).agent_in(index, listener, zone);
        agent.filter(|agent| *agent != self.here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_names_a_zone_and_not_the_agents_is_in_another() {
        let listener = |zone: Option<&str>| Listener {
            name: "A".to_owned(),
            zone: zone.map(str::to_owned),
            advertised_host: None,
            advertised_port: None,
        };
        for (client_id, of_listener, rack, own, is_in_other) in [
            ("zone=b", None, "", "a", true),
            ("", Some("b"), "", "a", true),
            ("", None, "b", "a", true),
            ("zone=a", None, "b", "a", false),
            ("zone=b", None, "a", "a", false),
            ("", None, "", "a", false),
            ("zone=b", None, "", "", false),
        ] {
            let listener = listener(of_listener);
            let origin = Origin {
                connection: 1,
                listener: &listener,
                client_id: Some(client_id),
            };
            let guide = Guide::new(origin, rack, AgentId(1));
            let found = guide.is_in_other_zone_than(own);
            assert_eq!(found, is_in_other, "{client_id:?} {of_listener:?} {rack:?}");
        }
    }

    #[test]
    fn a_client_id_names_a_zone_anywhere_as_clients_of_other_systems_write_it() {
        for (client_id, zones) in [
            ("zone=a", &["a"][..]),
            ("warpstream_az=us-east-1a", &["us-east-1a"]),
            ("my-app,ws_az=us-east-1a,ws_si=true", &["us-east-1a"]),
            ("app diskless_az=b", &["b"]),
            (
                "automq_type=consumer&automq_role=client&automq_az=c",
                &["c"],
            ),
            ("a;zone=b;c", &["b"]),
            ("zone=a,zone=b", &["a", "b"]),
            ("zone=", &[""]),
            ("zone=a=b", &["a=b"]),
            ("timezone=a", &[]),
            ("zone", &[]),
            ("zone =a", &[]),
            ("Zone=a", &[]),
            ("", &[]),
        ] {
            let named: Vec<&str> = named_zones(client_id).collect();
            assert_eq!(named, zones, "{client_id:?}");
        }
    }
}
