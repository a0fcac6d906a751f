//! Datagrams that are not whole yet go from one [`Reassembler`] to another,
//! where packets of their ends are put together from now on.

use gm_abi::maps::Addr;

use super::piece::Name;
use super::{Partial, Reassembler};

impl Reassembler {
    /// Takes out the datagrams whose source and destination are `wanted`.
    pub fn split_off(&mut self, wanted: impl Fn(&Addr, &Addr) -> bool) -> Reassembler {
        let names: Vec<_> = self
            .partials
            .keys()
            .filter(|name| wanted(&name.source.0, &name.dst))
            .copied()
            .collect();
        let mut other = Reassembler::new(self.limits);
        for name in names {
            if let Some(partial) = self.remove(&name) {
                other.enter(name, partial);
            }
        }
        other
    }

    /// Takes all datagrams of `other` in. Those that have begun here as well
    /// stay as they are here; what the bounds have no room for goes, the oldest
    /// first, and is counted by [`Reassembler::take_evicted`].
    pub fn absorb(&mut self, mut other: Reassembler) {
        let mut all: Vec<_> = std::mem::take(&mut self.partials)
            .into_iter()
            .map(|(name, partial)| (name, partial, true))
            .collect();
        let others = std::mem::take(&mut other.partials);
        all.extend(others.into_iter().map(|(name, p)| (name, p, false)));
        all.sort_by_key(|(_, partial, here)| (partial.born, !here));
        (self.by_age, self.per_source) = Default::default();
        self.charged = 0;
        for (name, partial, here) in all {
            if !here && self.partials.contains_key(&name) {
                self.evicted += 1;
                continue;
            }
            if here && let Some(_older) = self.remove(&name) {
                self.evicted += 1;
            }
            self.enter(name, partial);
        }
        let over =
            |r: &Reassembler| r.charged > r.limits.bytes || r.len() > r.limits.datagrams.max(1);
        while over(self) && self.evict(None).is_ok() {}
    }

    /// Enters a datagram that is charged already as the youngest.
    fn enter(&mut self, name: Name, mut partial: Partial) {
        self.serial += 1;
        partial.serial = self.serial;
        self.by_age.insert(self.serial, name);
        self.charged += partial.charged;
        *self.per_source.entry(name.source).or_default() += partial.charged;
        self.partials.insert(name, partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reassembly::{Limits, Pushed};

    /// A fragment of UDP over IPv4 from 192.0.2.`host`, 24 bytes in all.
    fn piece(host: u8, id: u8, first: bool) -> Vec<u8> {
        let place = if first { [0x20, 0] } else { [0, 3] };
        let mut ip = vec![0x45, 0, 0, 44, 0, id, place[0], place[1], 64, 17, 0, 0];
        ip.extend([192, 0, 2, host, 198, 51, 100, 2]);
        ip.extend([host; 24]);
        ip
    }

    fn is_whole(r: &mut Reassembler, packet: &[u8], now: u64) -> bool {
        matches!(r.push(packet, now), Ok(Pushed::Whole(_)))
    }

    #[test]
    fn a_half_datagram_becomes_whole_where_it_has_gone() {
        let mut from = Reassembler::new(Limits::default());
        let mut to = Reassembler::new(Limits::default());
        for host in 1..=4 {
            assert!(!is_whole(&mut from, &piece(host, 1, true), host.into()));
        }
        assert!(!is_whole(&mut to, &piece(9, 1, true), 2));
        let moved = from.split_off(|src, _| src[15] % 2 == 0);
        assert_eq!((from.len(), moved.len()), (2, 2));
        to.absorb(moved);
        assert_eq!(to.len(), 3);
        for host in [2, 4, 9] {
            assert!(is_whole(&mut to, &piece(host, 1, false), 5), "{host}");
        }
        for host in [1, 3] {
            assert!(is_whole(&mut from, &piece(host, 1, false), 5));
        }
        // All that was charged is free again.
        assert_eq!((to.bytes(), from.bytes()), (0, 0));
        assert!(to.per_source.is_empty() && from.per_source.is_empty());
    }

    #[test]
    fn old_ones_expire_in_time_and_bounds_hold() {
        let limits = Limits {
            datagrams: 4,
            timeout_ms: 100,
            ..Limits::default()
        };
        let (mut a, mut b) = (Reassembler::new(limits), Reassembler::new(limits));
        for host in 1..=3 {
            assert!(!is_whole(&mut a, &piece(host, 1, true), 50));
            assert!(!is_whole(&mut b, &piece(host + 10, 1, true), 10));
        }
        // One that has begun in both places.
        assert!(!is_whole(&mut b, &piece(3, 1, true), 60));
        a.absorb(b);
        assert_eq!(a.len(), 4);
        assert_eq!(a.take_evicted(), 3);
        // Of what came from there the oldest went first, and is over first.
        assert_eq!(a.expire(110), 1);
        assert_eq!(a.expire(150), 3);
        assert_eq!(a.bytes(), 0);
    }
}
