//! Connections that are about to begin: their number is bounded, and no address takes so many that others must wait. It must not
//! know how one begins.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Beginnings {
    max: usize,
    begun: Mutex<Begun>,
}

#[derive(Debug, Default)]
struct Begun {
    all: usize,
    /// By the networks from which they come.
    from: BTreeMap<IpAddr, usize>,
}

/// One connection that is about to begin, until it is dropped.
#[derive(Debug)]
pub(crate) struct Beginning {
    beginnings: Arc<Beginnings>,
    network: IpAddr,
}

impl Beginnings {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Beginnings {
            max,
            begun: Mutex::default(),
        })
    }

    /// Admits one more; `None` if there are too many, or from its network as many already as are left for all others: one client
    /// alone has half of them.
    pub(crate) fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Beginning> {
        let network = network(from);
        let mut begun = self.begun();
        let its = begun.from.get(&network).copied().unwrap_or(0);
        let left = self.max.checked_sub(begun.all + 1)?;
        if its > 0 && its + 1 > left {
            return None;
        }
        begun.all += 1;
        begun.from.insert(network, its + 1);
        Some(Beginning {
            beginnings: Arc::clone(self),
            network,
        })
    }

    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one client has of addresses: of the sixth version, the 2^64 of its link.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let link = address.to_bits() >> 64 << 64;
            IpAddr::V6(link.into())
        }
        four => four,
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        let mut begun = self.beginnings.begun();
        begun.all = begun.all.saturating_sub(1);
        if let Some(its) = begun.from.get_mut(&self.network) {
            *its = its.saturating_sub(1);
            if *its == 0 {
                begun.from.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(beginnings: &Arc<Beginnings>, from: &str) -> Vec<Beginning> {
        let from: IpAddr = from.parse().expect("an address");
        std::iter::from_fn(|| beginnings.admit(from)).collect()
    }

    #[test]
    fn one_client_leaves_room_for_the_others_whatever_it_connects() {
        let beginnings = Beginnings::new(256);
        let one = all(&beginnings, "10.0.0.1");
        assert_eq!(one.len(), 128);
        let two = all(&beginnings, "10.0.0.2");
        assert_eq!(two.len(), 64);
        assert!(all(&beginnings, "10.0.0.1").is_empty());
        drop(one);
        assert_eq!(all(&beginnings, "10.0.0.3").len(), 96);
        drop(two);
        assert_eq!(beginnings.begun().all, 0);
        assert!(beginnings.begun().from.is_empty());
    }

    #[test]
    fn all_addresses_of_a_link_are_one_client() {
        let beginnings = Beginnings::new(256);
        let one = all(&beginnings, "2001:db8::1");
        assert!(beginnings.admit("2001:db8::2".parse().unwrap()).is_none());
        assert!(
            beginnings
                .admit("2001:db8:0:1::1".parse().unwrap())
                .is_some()
        );
        drop(one);
        let four = all(&beginnings, "10.0.0.1");
        assert!(
            beginnings
                .admit("::ffff:10.0.0.1".parse().unwrap())
                .is_none()
        );
        drop(four);
    }
}
