//! What must be unique, and what has which selectors.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use gm_esp::{Sa, Selector};
use gm_region::{Region, place};

use crate::commons::Shared;
use crate::error::SadbError;
use crate::finder::Finder;
use crate::record;
use crate::sadb::Entry;
use crate::slots;
use crate::traces::directed;
use crate::types::Dir;

/// How a receiver finds the SA: destination, and the port behind a NAT where
/// one phone among several is told by it, and SPI.
type Address = (Dir, IpAddr, Option<u16>, u32);

/// The SAs that exist, by slot and by what they are. Keys are not kept twice:
/// the tables know slots, and the slots their SAs.
pub(crate) struct Index {
    region: Arc<Region>,
    /// The SA in each slot, by [`place`], up to the last that ever had one.
    entries: Vec<Option<Entry>>,
    addresses: Finder,
    /// What must not use a number twice: by fingerprint and SPI.
    numbers: Finder,
    /// SPIs in the range of our own that are not their slot's, with how often:
    /// in the main those that phones have chosen.
    spis: HashMap<u32, u32>,
    /// The outbound SA that has the selectors.
    selected: Finder,
}

impl Index {
    /// For the slots of a region, where the fingerprints stand.
    pub(crate) fn new(region: Arc<Region>) -> Index {
        let slots = region.slots();
        Index {
            region,
            // Memory is taken as it is written to.
            entries: Vec::with_capacity(slots as usize),
            addresses: Finder::new(slots),
            numbers: Finder::new(slots),
            spis: HashMap::new(),
            selected: Finder::new(slots / 2),
        }
    }

    /// The SA in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(self.place(slot))?.as_ref()
    }

    fn place(&self, slot: u32) -> usize {
        place(self.region.slots(), slot)
    }

    /// The SAs in slots, of which all hold one.
    pub(crate) fn all<'a>(&'a self, slots: &'a [u32]) -> impl Iterator<Item = &'a Entry> {
        slots.iter().filter_map(|slot| self.get(*slot))
    }

    /// Whether an SA would be confused with one that is there.
    ///
    /// # Errors
    ///
    /// With which.
    fn check(&self, entry: &Entry) -> Result<(), SadbError> {
        let (sa, spi) = (&entry.sa, entry.sa.spi());
        if let Some(wanted) = entry.address() {
            let is = |slot| self.get(slot).is_some_and(|e| e.address() == Some(wanted));
            if self.addresses.find(&Some(wanted), is).is_some() {
                return Err(SadbError::Duplicate {
                    spi,
                    dst: sa.destination(),
                });
            }
        }
        let own = numbers(&self.region, entry);
        let is = |slot| {
            let other = self.get(slot);
            other.is_some_and(|e| e.sa.spi() == spi && numbers(&self.region, e) == own)
        };
        if self.numbers.find(&Some(own), is).is_some() {
            let suite = sa.suite();
            return Err(SadbError::KeyInUse { spi, suite });
        }
        Ok(())
    }

    /// Enters an SA into its slot, where its record stands already.
    ///
    /// # Errors
    ///
    /// It would be confused with another one; nothing has changed.
    pub(crate) fn enter(&mut self, entry: Entry) -> Result<(), SadbError> {
        self.check(&entry)?;
        let slot = entry.slot;
        if let Some(address) = entry.address() {
            self.addresses.insert(&Some(address), slot);
        }
        self.numbers
            .insert(&Some(numbers(&self.region, &entry)), slot);
        if let Some(spi) = self.watched(&entry) {
            *self.spis.entry(spi).or_insert(0) += 1;
        }
        let place = self.place(slot);
        while self.entries.len() <= place {
            self.entries.push(None);
        }
        self.entries[place] = Some(entry);
        Ok(())
    }

    /// Takes out what was entered; before its record is wiped.
    pub(crate) fn leave(&mut self, slot: u32) -> Option<Entry> {
        self.deselect(slot);
        let Index {
            region,
            entries,
            addresses,
            numbers: by_numbers,
            ..
        } = self;
        let at = place(region.slots(), slot);
        let entry = entries.get(at)?.as_ref()?;
        let of = |slot: u32| {
            let entry = entries.get(place(region.slots(), slot));
            entry.and_then(Option::as_ref)
        };
        if let Some(address) = entry.address() {
            addresses.remove(&Some(address), slot, |s| of(s).and_then(Entry::address));
        }
        let own = Some(numbers(region, entry));
        by_numbers.remove(&own, slot, |s| Some(numbers(region, of(s)?)));
        if let Some(spi) = self.watched(self.get(slot)?)
            && let Some(n) = self.spis.get_mut(&spi)
        {
            *n -= 1;
            if *n == 0 {
                self.spis.remove(&spi);
            }
        }
        self.entries.get_mut(at)?.take()
    }

    /// An SPI that could be chosen for another slot.
    fn watched(&self, entry: &Entry) -> Option<u32> {
        let spi = entry.sa.spi();
        let is_ours = entry.dir == Dir::In && slots::is_own(self.region.slots(), entry.slot, spi);
        (!is_ours && spi >= gm_abi::maps::SPI_BASE).then_some(spi)
    }

    /// The fingerprint of an SA, for its direction.
    pub(crate) fn fingerprint(&self, entry: &Entry) -> [u64; 2] {
        fingerprint(&self.region, entry)
    }

    /// Whether any SA has this SPI, which is a free slot's.
    pub(crate) fn has_spi(&self, spi: u32) -> bool {
        self.spis.contains_key(&spi)
    }

    /// The slot of the outbound SA that has these selectors.
    pub(crate) fn selected(&self, selector: &Selector) -> Option<u32> {
        let is = |slot| self.get(slot).is_some_and(|e| e.sa.selector() == *selector);
        self.selected.find(&Some(*selector), is)
    }

    /// Gives an outbound SA its selectors; who had them.
    pub(crate) fn select(&mut self, slot: u32) -> Option<u32> {
        let selector = self.get(slot)?.sa.selector();
        let before = self.selected(&selector);
        if before == Some(slot) {
            return None;
        }
        if let Some(before) = before {
            self.deselect(before);
        }
        self.selected.insert(&Some(selector), slot);
        before
    }

    /// Takes the selectors away from an SA, if it has them.
    pub(crate) fn deselect(&mut self, slot: u32) {
        let Index {
            region,
            entries,
            selected,
            ..
        } = self;
        let selector = |slot: u32| {
            let place = place(region.slots(), slot);
            let entry = entries.get(place).and_then(Option::as_ref);
            entry.map(|e| e.sa.selector())
        };
        if let Some(own) = selector(slot) {
            selected.remove(&Some(own), slot, selector);
        }
    }

    /// The slots of all that have their selectors.
    pub(crate) fn all_selected(&self) -> impl Iterator<Item = &Entry> {
        let has = |e: &&Entry| self.selected(&e.sa.selector()) == Some(e.slot);
        let out = self.entries.iter().flatten();
        out.filter(|e| e.dir == Dir::Out).filter(has)
    }
}

impl Entry {
    fn address(&self) -> Option<Address> {
        address(&self.sa, self.dir)
    }
}

/// What an SA must not have together with another one.
fn numbers(region: &Region, entry: &Entry) -> ([u64; 2], u32) {
    (fingerprint(region, entry), entry.sa.spi())
}

/// From the region: it is not kept twice.
fn fingerprint(region: &Region, entry: &Entry) -> [u64; 2] {
    let slot = region.slot(entry.slot);
    let common = slot.and_then(|slot| region.common(record::common_of(slot)));
    let fingerprint = common.map_or([0; 2], Shared::fingerprint);
    directed(fingerprint, entry.sa.suite(), entry.dir)
}

/// Two phones behind one NAT may choose one SPI: their ports tell them apart,
/// and while one is not known there is nothing to compare.
fn address(sa: &Sa, dir: Dir) -> Option<Address> {
    let port = match (dir, &sa.outer()) {
        (Dir::Out, Some(outer)) => Some(outer.dport?),
        _ => None,
    };
    Some((dir, sa.destination(), port, sa.spi()))
}
