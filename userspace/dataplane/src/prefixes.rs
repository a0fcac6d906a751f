//! Drops by source prefix, as BPF and the workers count them in the map
//! `PREFIXES`: an IPv4 address or an IPv6 /64 is one phone.

use std::net::IpAddr;

use gm_abi::source;
use gm_abi::verdict::Reason;

use crate::config::map_addr;
use crate::drops::from_map;
use crate::tables::{Drops, Tables};
use crate::{DataPlane, Error};

/// What was dropped for one phone since it has had its place in the map. Whose
/// drops are many keep theirs; of others there may have been more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixCounts {
    /// An IPv4 address, or the first address of an IPv6 /64.
    pub prefix: IpAddr,
    /// By reason; reasons with none are left out.
    pub drops: Vec<(Reason, u64)>,
}

impl PrefixCounts {
    /// All its drops.
    pub fn total(&self) -> u64 {
        self.drops.iter().map(|(_, n)| n).sum()
    }
}

/// A source's counters; `None` when there are none but zeros.
fn counts(prefix: IpAddr, drops: &Drops) -> Option<PrefixCounts> {
    let by_reason = Reason::ALL.iter().filter_map(|reason| {
        let n = *drops.get(reason.drop_index()?)?;
        (n > 0).then_some((*reason, n))
    });
    let drops: Vec<(Reason, u64)> = by_reason.collect();
    (!drops.is_empty()).then_some(PrefixCounts { prefix, drops })
}

/// The sources with the most drops, the worst first; of equals the smaller
/// address.
fn worst(tables: &Tables, limit: usize) -> Vec<PrefixCounts> {
    let all = tables.all_drops();
    let mut rows: Vec<PrefixCounts> = all
        .filter_map(|(prefix, drops)| counts(from_map(source::addr_of(prefix)), &drops))
        .collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.total()), row.prefix));
    rows.truncate(limit);
    rows
}

/// Those of the source of one address.
fn of(tables: &Tables, address: IpAddr) -> Option<PrefixCounts> {
    let addr = map_addr(address);
    let prefix = from_map(source::addr_of(source::prefix_of(&addr)));
    counts(prefix, &tables.drops_of(&addr)?)
}

impl DataPlane {
    /// The phones with the most drops, at most `limit`, the worst first.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub fn prefix_drops(&self, limit: usize) -> Result<Vec<PrefixCounts>, Error> {
        self.with(|c| Ok(worst(&c.published.tables, limit)))
    }

    /// The drops of the phone with this address; `None`: nothing was dropped
    /// for it, or others' drops are more.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub fn prefix_drops_of(&self, address: IpAddr) -> Result<Option<PrefixCounts>, Error> {
        self.with(|c| Ok(of(&c.published.tables, address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(tables: &Tables, address: &str, reason: Reason, n: u64) {
        for _ in 0..n {
            tables.count(&map_addr(address.parse().unwrap()), reason);
        }
    }

    #[test]
    fn the_worst_phones_come_first_and_a_v6_phone_is_its_64() {
        let tables = Tables::in_memory();
        count(&tables, "192.0.2.7", Reason::BadIcv, 3);
        count(&tables, "192.0.2.7", Reason::IcvLimited, 1);
        count(&tables, "192.0.2.8", Reason::Replay, 9);
        count(&tables, "2001:db8:1:2::7", Reason::UnknownSpi, 4);
        count(&tables, "2001:db8:1:2:ffff::8", Reason::UnknownSpi, 2);
        count(&tables, "192.0.2.9", Reason::Ok, 50);
        let rows = worst(&tables, 10);
        let rows: Vec<_> = rows
            .iter()
            .map(|r| (r.prefix.to_string(), r.total()))
            .collect();
        let want = [("192.0.2.8", 9), ("2001:db8:1:2::", 6), ("192.0.2.7", 4)];
        assert_eq!(rows, want.map(|(prefix, n)| (prefix.to_owned(), n)));
        assert_eq!(worst(&tables, 1).len(), 1);
        let one = of(&tables, "192.0.2.7".parse().unwrap()).unwrap();
        assert_eq!(one.drops, [(Reason::BadIcv, 3), (Reason::IcvLimited, 1)]);
        assert_eq!(of(&tables, "192.0.2.9".parse().unwrap()), None);
    }

    #[test]
    fn a_flood_of_sources_takes_no_more_places_and_the_heavy_one_stays() {
        let tables = Tables::in_memory();
        count(&tables, "192.0.2.7", Reason::BadIcv, 1000);
        for n in 0..100_000u32 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
            count(&tables, &address, Reason::UnknownSpi, 1);
        }
        let rows = worst(&tables, usize::MAX);
        assert!(rows.len() <= source::PREFIX_PLACES as usize);
        assert_eq!(rows[0].prefix, "192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(rows[0].total(), 1000);
    }
}
