//! Whether anybody is left at the addresses that an agent has registered. That all of them refuse connections is taken for the end
//! of its process, if that by which other agents reach it is among them. Those for clients may be of a load balancer, or of a service whose process is
//! not ready, which refuses while the process lives; and what is at a loopback address of another machine is at this one somebody
//! else, or nobody. It must not know what is done about it.

use std::io::ErrorKind;
use std::sync::Arc;

use host::resolver::Resolver;
use meta::view::Agent;

/// A host and a port.
pub(crate) type Place = (String, u16);

/// Where an agent is found, first where the other agents of its zone reach itself, then where clients connect to it; none if it
/// names no address of the first kind.
pub(crate) fn places_of(agent: &Agent) -> Vec<Place> {
    let of_clients = agent.listeners.values();
    let of_clients = of_clients.map(|at| (at.host.clone(), at.port));
    let of_agents = place(&agent.neighbour_address);
    let all = of_agents.map(|itself| [itself].into_iter().chain(of_clients).collect());
    all.unwrap_or_default()
}

/// The place that HOST:PORT names.
fn place(address: &str) -> Option<Place> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), port.parse().ok()?))
}

/// Whether connections are refused at all of the places that say anything to a control node at `own`, the first among them.
pub(crate) async fn all_refuse(places: &[Place], own: &str, resolver: &Arc<Resolver>) -> bool {
    // Who reaches a control node at a loopback address is on its machine.
    let (host, port) = place(own).unwrap_or_default();
    let is_local = is_loopback(&resolver.find(&host, port));
    let mut tells = Vec::new();
    for (at, (host, port)) in places.iter().enumerate() {
        let addresses = resolver.find(host, *port);
        let says_nothing = !is_local && is_loopback(&addresses);
        if addresses.is_empty() || (says_nothing && at == 0) {
            return false;
        }
        if !says_nothing {
            tells.extend(addresses);
        }
    }
    let tried = tells.iter().map(|at| async move {
        let dialled = host::net::dial(&at.to_string()).await;
        dialled.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    let refuse = futures::future::join_all(tried).await;
    !refuse.is_empty() && refuse.into_iter().all(|refuses| refuses)
}

/// Whether some of these addresses are of this machine alone.
fn is_loopback(addresses: &[std::net::SocketAddr]) -> bool {
    addresses.iter().any(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody listens at the first of the ports, and somebody at the second.
    async fn ports() -> (u16, u16, host::net::TcpListener) {
        let any = ([127, 0, 0, 1], 0).into();
        let (closed, open) = (host::net::listen(any).await, host::net::listen(any).await);
        let open = open.expect("a port");
        let port = |socket: &host::net::TcpListener| socket.local_addr().expect("its port").port();
        (port(&closed.expect("a port")), port(&open), open)
    }

    #[tokio::test]
    async fn an_agent_is_gone_only_if_all_its_addresses_refuse_that_say_anything() {
        let (closed, open, _listens) = ports().await;
        let resolver = Arc::default();
        let at = |port| ("127.0.0.1".to_owned(), port);
        let here = "127.0.0.1:7071";
        let gone = all_refuse(&[at(closed), at(closed)], here, &resolver).await;
        assert!(gone);
        let lives = all_refuse(&[at(closed), at(open)], here, &resolver).await;
        assert!(!lives, "one address is that of something in between");
        // Another machine's loopback address says nothing here.
        let there = "10.0.0.1:7071";
        assert!(!all_refuse(&[at(closed)], there, &resolver).await);
        assert!(!all_refuse(&[], here, &resolver).await);
        let nowhere = ("no.such.host.invalid".to_owned(), 1);
        assert!(!all_refuse(&[nowhere, at(closed)], here, &resolver).await);
    }

    #[test]
    fn an_agent_is_found_where_clients_and_other_agents_find_it() {
        let mut agent = Agent {
            id: meta::ids::AgentId(1),
            name: "a".to_owned(),
            listeners: meta::endpoint::Endpoint::alone("h", 1),
            region: "r".to_owned(),
            zone: String::new(),
            neighbour_address: "[::1]:2".to_owned(),
            level: 1,
            incarnation: meta::ids::Incarnation(1),
            drains: false,
            cut_off: false,
        };
        let clients = ("h".to_owned(), 1);
        assert_eq!(places_of(&agent), [("::1".to_owned(), 2), clients]);
        agent.neighbour_address.clear();
        assert_eq!(places_of(&agent), [], "clients may come by a service");
    }
}
