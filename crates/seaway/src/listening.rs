//! The listeners of this process's agent: sockets for what an operator planned, and what clients are told of them. It must not
//! know what is said on a connection.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use agent::settings::Listener;
use anyhow::{Context, Result};
use host::net::TcpListener;

use crate::address::Address;
use crate::listeners::{ADVERTISED_HOST, ADVERTISED_LISTENERS, LISTENERS, Planned};
use crate::running::listen;

/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long clients wait for a start to end before their connections are closed: most starts are
/// quicker, and a client whose connection is closed comes again.
const CLIENTS_WAIT: Duration = Duration::from_secs(1);

/// What a listener at every address advertises if nobody says more, as for clients.
const LOOPBACK: &str = "127.0.0.1";

/// Listeners of an agent, each with its socket.
pub type Sockets = Vec<(Listener, TcpListener)>;

/// Where clients of a listener are told to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub listener: String,
    pub address: Address,
}

/// Where the other agents of the zone ask this one for parts of files.
pub struct Street {
    pub socket: TcpListener,
    /// Where they are told to connect.
    pub address: Address,
}

impl Street {
    /// Listens at `bind`, or else at a free port of the host of the first of the listeners for clients, and advertises what is
    /// given, or else what that listener advertises.
    pub async fn listen(
        bind: Option<Address>,
        advertise: Option<Address>,
        clients: &[Planned],
    ) -> Result<Self> {
        let first = clients.first().context("there is no listener")?;
        let beside = Address {
            host: first.bind.host.clone(),
            port: 0,
        };
        let bind = bind.unwrap_or(beside);
        let socket = listen(&bind, "--listen").await?;
        let port = socket.local_addr()?.port();
        let is_everywhere = bind.ip().is_some_and(|ip| ip.is_unspecified());
        let host = match &first.listener.advertised_host {
            Some(host) if is_everywhere => host.clone(),
            None if is_everywhere => LOOPBACK.to_owned(),
            _ => bind.host,
        };
        let address = advertise.unwrap_or(Address { host, port });
        Ok(Street { socket, address })
    }
}

/// Listens at all places that are planned, and warns of those to which clients will not find.
pub async fn listen_all(planned: Vec<Planned>) -> Result<Sockets> {
    let is_alone = planned.len() == 1;
    let (flag, remedy) = match is_alone {
        true => ("--kafka", ADVERTISED_HOST),
        false => (LISTENERS, ADVERTISED_LISTENERS),
    };
    let mut sockets = Sockets::new();
    for one in planned {
        let is_guess = one.advertises_guess();
        let socket = listen(&one.bind, flag).await?;
        if is_guess {
            tracing::warn!(
                listener = one.listener.name,
                "clients of this listener are told to connect to a loopback address, which only this machine can: for others, \
                 say with --set {remedy}=... how they reach it"
            );
        }
        sockets.push((one.listener, socket));
    }
    Ok(sockets)
}

/// Closes clients' connections while nobody can serve them, for ever: a client without any answer
/// waits for its own timeout, but one whose connection is closed tries again.
pub async fn send_away(sockets: &[(Listener, TcpListener)]) -> Infallible {
    host::clock::sleep(CLIENTS_WAIT).await;
    let all = sockets.iter().map(|(_, socket)| close_all(socket));
    let mut all: Vec<_> = all.map(Box::pin).collect();
    poll_fn(move |cx| {
        for one in &mut all {
            match one.as_mut().poll(cx) {
                Poll::Ready(never) => match never {},
                Poll::Pending => {}
            }
        }
        Poll::Pending
    })
    .await
}

/// Closes the connections that come, for ever.
async fn close_all(socket: &TcpListener) -> Infallible {
    loop {
        if host::net::accept(socket).await.is_err() {
            host::clock::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// What an agent tells its clients, listener by listener.
pub fn told_by(agent: &agent::Agent) -> Vec<Told> {
    let told = agent.advertised().map(|(listener, endpoint)| Told {
        listener: listener.name.clone(),
        address: Address {
            host: endpoint.host.clone(),
            port: endpoint.port,
        },
    });
    told.collect()
}

/// The same for people: the addresses, with the names of their listeners if there are several.
pub fn shown(told: &[Told]) -> Vec<String> {
    let line = |one: &Told| match told.len() {
        1 => one.address.to_string(),
        _ => format!("{} ({})", one.address, one.listener),
    };
    told.iter().map(line).collect()
}

/// The first of the addresses, by which client verbs go.
pub fn first(told: &[Told]) -> String {
    let first = told.first().map(|told| told.address.to_string());
    first.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_named_to_people_if_there_are_several() {
        let told = |listener: &str, port| Told {
            listener: listener.to_owned(),
            address: Address {
                host: "a".to_owned(),
                port,
            },
        };
        let two = [told("INTERNAL", 1), told("EXTERNAL", 2)];
        assert_eq!(shown(&two), ["a:1 (INTERNAL)", "a:2 (EXTERNAL)"]);
        assert_eq!(shown(&two[..1]), ["a:1"]);
        assert_eq!(first(&two), "a:1");
    }
}
