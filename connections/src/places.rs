//! Connection slots, in total and per address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many connections there may be at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// In total.
    pub connections: usize,
    /// From one address (one /64 network for IPv6).
    pub per_address: usize,
    /// The same for an address of this machine, where a proxy may run.
    pub per_own_address: usize,
}

/// The current counts. Clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Never zero: an address without connections is not in here.
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's slot, freed when dropped.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Places {
    /// All free.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { shared: Arc::new(Shared { bounds, taken: Mutex::default() }) }
    }

    /// A slot for a connection from `peer`; none if all, or all for its address, are taken.
    #[must_use]
    pub fn take(&self, peer: IpAddr) -> Option<Place> {
        let address = network_of(peer);
        let Bounds { connections, per_address, per_own_address } = self.shared.bounds;
        let most = if address.is_loopback() { per_own_address } else { per_address };
        let mut taken = self.shared.taken();
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= connections || of_address >= most {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, of_address + 1);
        Some(Place { shared: self.shared.clone(), address })
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn places() -> Places {
        Places::new(Bounds { connections: 4, per_address: 2, per_own_address: 3 })
    }

    fn take(places: &Places, address: &str) -> Option<Place> {
        places.take(address.parse().unwrap())
    }

    #[test]
    fn an_address_has_some_places_and_all_have_so_many_and_a_dropped_one_is_free() {
        let places = places();
        let first = take(&places, "192.0.2.1").unwrap();
        let _second = take(&places, "::ffff:192.0.2.1").unwrap();
        assert!(take(&places, "192.0.2.1").is_none());
        let _other = (take(&places, "192.0.2.2").unwrap(), take(&places, "192.0.2.3").unwrap());
        assert!(take(&places, "192.0.2.4").is_none(), "four in all");
        drop(first);
        assert!(take(&places, "192.0.2.4").is_some());
        assert!(take(&places, "192.0.2.1").is_some());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_this_machine_has_more_places() {
        let places = places();
        let _held = (take(&places, "2001:db8::1").unwrap(), take(&places, "2001:db8::ffff:1").unwrap());
        assert!(take(&places, "2001:db8::2").is_none());
        assert!(take(&places, "2001:db8:0:1::1").is_some());
        let other = self::places();
        let _held: Vec<Place> = (0..3).map(|_| take(&other, "127.0.0.1").unwrap()).collect();
        assert!(take(&other, "127.0.0.1").is_none());
    }
}
