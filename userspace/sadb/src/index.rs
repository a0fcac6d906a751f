//! What must be unique, and what has which selectors.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use gm_esp::{Sa, Selector};

use crate::error::SadbError;
use crate::sadb::Entry;
use crate::types::Dir;

/// How a receiver finds the SA: destination, and the port behind a NAT where
/// one phone among several is told by it, and SPI.
type Address = (Dir, IpAddr, Option<u16>, u32);
/// What must not use a number twice: fingerprint and SPI.
type Numbers = (u128, u32);

/// The identities of the SAs that exist.
#[derive(Default)]
pub(crate) struct Index {
    addresses: HashSet<Address>,
    numbers: HashSet<Numbers>,
    /// SPIs in use in any direction, with how often.
    spis: HashMap<u32, u32>,
    /// Outbound selectors and the SA that has them.
    pub(crate) selected: HashMap<Selector, Entry>,
}

impl Index {
    /// Enters an SA.
    ///
    /// # Errors
    ///
    /// It would be confused with another one; nothing has changed.
    pub(crate) fn enter(&mut self, sa: &Sa, dir: Dir, fingerprint: u128) -> Result<(), SadbError> {
        let spi = sa.spec.spi;
        let address = address(sa, dir);
        if address.is_some_and(|a| self.addresses.contains(&a)) {
            return Err(SadbError::Duplicate {
                spi,
                dst: sa.destination(),
            });
        }
        if !self.numbers.insert((fingerprint, spi)) {
            return Err(SadbError::KeyInUse {
                spi,
                suite: sa.spec.suite,
            });
        }
        self.addresses.extend(address);
        *self.spis.entry(spi).or_insert(0) += 1;
        Ok(())
    }

    /// Takes out what was entered.
    pub(crate) fn leave(&mut self, sa: &Sa, dir: Dir, fingerprint: u128) {
        if let Some(address) = address(sa, dir) {
            self.addresses.remove(&address);
        }
        self.numbers.remove(&(fingerprint, sa.spec.spi));
        if let Some(n) = self.spis.get_mut(&sa.spec.spi) {
            *n -= 1;
            if *n == 0 {
                self.spis.remove(&sa.spec.spi);
            }
        }
    }

    /// Whether any SA has this SPI.
    pub(crate) fn has_spi(&self, spi: u32) -> bool {
        self.spis.contains_key(&spi)
    }
}

/// Two phones behind one NAT may choose one SPI: their ports tell them apart,
/// and while one is not known there is nothing to compare.
fn address(sa: &Sa, dir: Dir) -> Option<Address> {
    let port = match (dir, &sa.spec.outer) {
        (Dir::Out, Some(outer)) => Some(outer.dport?),
        _ => None,
    };
    Some((dir, sa.destination(), port, sa.spec.spi))
}
