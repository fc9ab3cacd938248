//! How many connections may be open, in all and from one address. It must not know sockets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct Admission {
    max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    connections: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// Counts one open connection until dropped.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    pub(crate) fn new(max: usize, per_address_max: usize) -> Self {
        Admission {
            max,
            per_address_max,
            open: Mutex::default(),
        }
    }

    /// Counts a connection from `address`; the error is the setting that forbids one more.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, &'static str> {
        // The same client may come as an IPv4 or as a mapped IPv6 address.
        let address = address.to_canonical();
        let mut open = self.open();
        if open.connections >= self.max {
            return Err("max.connections");
        }
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        if of_address >= self.per_address_max {
            return Err("max.connections.per.ip");
        }
        open.connections += 1;
        open.by_address.insert(address, of_address + 1);
        Ok(Admitted {
            admission: Arc::clone(self),
            address,
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.admission.open();
        open.connections -= 1;
        if let Some(of_address) = open.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_in_all_and_by_address_until_they_end() {
        let admission = Arc::new(Admission::new(3, 2));
        let admit = |address: &str| admission.admit(address.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("::ffff:10.0.0.1").unwrap();
        assert_eq!(admit("10.0.0.1").err(), Some("max.connections.per.ip"));
        let _other = admit("10.0.0.2").unwrap();
        assert_eq!(admit("10.0.0.3").err(), Some("max.connections"));
        drop(first);
        let _again = admit("10.0.0.1").unwrap();
        assert_eq!(admission.open().by_address.len(), 2);
    }
}
