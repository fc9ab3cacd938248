//! The addresses of names that are asked for many times a second: each name is looked up once in a few seconds, and nobody waits
//! for that. It must not know whose names they are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Instant;
use crate::{clock, net, task};

/// How long what was found, or that nothing was, is kept: what a name says may change.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// Names that are kept: more than a cluster has processes.
const NAMES_MAX: usize = 1_024;

/// Looks names up.
#[derive(Debug, Default)]
pub struct Resolver {
    kept: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Debug)]
struct Kept {
    asked_at: Instant,
    /// Empty until they are found.
    addresses: Vec<IpAddr>,
}

impl Resolver {
    /// The addresses of a host, with `port`; none if they are not known, or not yet.
    pub fn find(self: &Arc<Self>, host: &str, port: u16) -> Vec<SocketAddr> {
        if let Ok(address) = host.parse() {
            return vec![SocketAddr::new(address, port)];
        }
        let now = clock::now();
        if let Some(known) = self.known(host, now) {
            let with_port = |address| SocketAddr::new(address, port);
            return known.into_iter().map(with_port).collect();
        }
        if self.ask(host, now) {
            let (resolver, host) = (Arc::clone(self), host.to_owned());
            task::spawn_detached("resolver", async move {
                // A name without addresses is asked for again later.
                let found = net::resolve(&host, port).await.unwrap_or_default();
                if let Some(kept) = resolver.kept().get_mut(&host) {
                    kept.addresses = found.iter().map(SocketAddr::ip).collect();
                }
            });
        }
        Vec::new()
    }

    /// What is known of a name that was asked for lately.
    fn known(&self, host: &str, now: Instant) -> Option<Vec<IpAddr>> {
        let kept = self.kept();
        let kept = kept.get(host)?;
        (now.since(kept.asked_at) < KEPT_FOR).then(|| kept.addresses.clone())
    }

    /// Notes that a name is looked up now; false if there is no room for it.
    fn ask(&self, host: &str, now: Instant) -> bool {
        let mut kept = self.kept();
        if kept.len() >= NAMES_MAX {
            kept.retain(|_, kept| now.since(kept.asked_at) < KEPT_FOR);
        }
        if kept.len() >= NAMES_MAX {
            return false;
        }
        let asked = Kept {
            asked_at: now,
            addresses: Vec::new(),
        };
        kept.insert(host.to_owned(), asked);
        true
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_found_soon_and_an_address_at_once() {
        let resolver = Arc::new(Resolver::default());
        let given = resolver.find("10.0.0.1", 7);
        assert_eq!(given, [SocketAddr::from(([10, 0, 0, 1], 7))]);
        let found = loop {
            let found = resolver.find("localhost", 7);
            if !found.is_empty() {
                break found;
            }
            tokio::task::yield_now().await;
        };
        let is_local = |at: &SocketAddr| at.ip().is_loopback() && at.port() == 7;
        assert!(found.iter().all(is_local), "{found:?}");
    }

    #[test]
    fn a_name_is_looked_up_once_in_a_while_and_there_are_only_so_many() {
        let resolver = Resolver::default();
        let at = Instant::from_millis;
        assert_eq!(resolver.known("a", at(10_000)), None);
        assert!(resolver.ask("a", at(10_000)));
        assert_eq!(resolver.known("a", at(14_999)), Some(Vec::new()));
        assert_eq!(resolver.known("a", at(15_000)), None);
        let asked = (0..2 * NAMES_MAX).filter(|name| resolver.ask(&name.to_string(), at(14_000)));
        assert_eq!(asked.count(), NAMES_MAX - 1);
        assert!(resolver.ask("b", at(20_000)));
        assert_eq!(resolver.kept().len(), 1);
    }
}
