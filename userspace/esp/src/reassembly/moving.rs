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
