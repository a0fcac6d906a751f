//! Which worker a packet belongs to.
//!
//! ```text
//! peer's address --hash--> bucket (256) --Routes--> worker
//! slot of an SA  --Routes--> bucket ------^
//! a tunnel's address and SPI --Routes--^
//! ```
//!
//! All SAs of a phone are in one bucket, and so in the hands of one worker;
//! fragments have no SA yet, but they have the address. The control side
//! writes, workers read: a route is two loads.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use gm_abi::maps::Addr;
use gm_esp::Sa;
use gm_sadb::Dir;

use crate::config::map_addr;

/// Buckets.
pub(crate) const BUCKETS: usize = 256;

/// Workers, and lanes, at most.
pub(crate) const MAX_WORKERS: usize = 32;

/// No bucket: the slot holds no SA.
const NONE: u16 = u16::MAX;

/// The bucket of a peer's address, IPv4 as IPv4-mapped.
pub(crate) fn bucket(peer: &Addr) -> u8 {
    let (high, low) = halves(peer);
    (mix(high ^ low.rotate_left(32)) >> 56) as u8
}

fn halves(addr: &Addr) -> (u64, u64) {
    let (high, low) = addr.split_at(8);
    let word = |half: &[u8]| half.iter().fold(0u64, |w, b| w << 8 | u64::from(*b));
    (word(high), word(low))
}

/// Multiplicative hashing: neighbours fall apart, the top bits are best.
fn mix(word: u64) -> u64 {
    let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// The bucket of an SA: that of the address at its other end.
pub(crate) fn bucket_of(sa: &Sa, dir: Dir) -> u8 {
    let peer: IpAddr = match dir {
        Dir::In => sa.selector().src,
        Dir::Out => sa.selector().dst,
    };
    bucket(&map_addr(peer))
}

/// A set of buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buckets([u64; BUCKETS / 64]);

impl Buckets {
    /// Adds one.
    pub(crate) fn insert(&mut self, bucket: u8) {
        self.0[usize::from(bucket) / 64] |= 1 << (bucket % 64);
    }

    /// Whether it is in.
    pub(crate) fn has(&self, bucket: u8) -> bool {
        self.0[usize::from(bucket) / 64] >> (bucket % 64) & 1 == 1
    }

    /// Adds all of `other`.
    pub(crate) fn add(&mut self, other: &Buckets) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
    }

    /// Takes all of `other` out.
    pub(crate) fn remove(&mut self, other: &Buckets) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= !b);
    }
}

impl FromIterator<u8> for Buckets {
    fn from_iter<T: IntoIterator<Item = u8>>(iter: T) -> Buckets {
        let mut set = Buckets::default();
        iter.into_iter().for_each(|b| set.insert(b));
        set
    }
}

/// The routes of one data plane, shared by its workers.
pub(crate) struct Routes {
    /// There is more than one worker; without, nobody looks at the rest.
    shared: AtomicBool,
    owners: [AtomicU8; BUCKETS],
    slots: Box<[AtomicU16]>,
    /// Buckets of outbound tunnels, by a hash of where they lead and their SPI:
    /// a NAT there has another address than the phone. Of two at one place the
    /// later one stands there.
    tunnels: Box<[AtomicU16]>,
}

impl Routes {
    /// Everything is worker 0's; room for `slots` SAs.
    pub(crate) fn new(slots: u32) -> Routes {
        Routes {
            shared: AtomicBool::new(false),
            owners: std::array::from_fn(|_| AtomicU8::new(0)),
            slots: (0..slots).map(|_| AtomicU16::new(NONE)).collect(),
            // Half of the SAs are outbound, and each has two places.
            tunnels: (0..slots.max(1)).map(|_| AtomicU16::new(NONE)).collect(),
        }
    }

    /// Whether batches have to be divided.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Says whether there is more than one worker.
    pub(crate) fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::Release);
    }

    /// The worker of a bucket.
    pub(crate) fn owner(&self, bucket: u8) -> u8 {
        self.owners[usize::from(bucket)].load(Ordering::Acquire)
    }

    /// Gives a bucket to a worker.
    pub(crate) fn give(&self, bucket: u8, worker: u8) {
        self.owners[usize::from(bucket)].store(worker, Ordering::Release);
    }

    /// The bucket of the SA in a slot; `None`: there is none.
    pub(crate) fn bucket_of_slot(&self, slot: u32) -> Option<u8> {
        let word = self.slots.get(slot as usize)?.load(Ordering::Acquire);
        u8::try_from(word).ok()
    }

    /// Says which bucket the SA in a slot has, or that it is gone.
    pub(crate) fn set_slot(&self, slot: u32, bucket: Option<u8>) {
        if let Some(word) = self.slots.get(slot as usize) {
            word.store(bucket.map_or(NONE, u16::from), Ordering::Release);
        }
    }

    fn tunnel(&self, to: &Addr, spi: u32) -> Option<&AtomicU16> {
        let (high, low) = halves(to);
        let hash = mix(mix(high ^ low.rotate_left(32)) ^ u64::from(spi)) >> 32;
        let places = self.tunnels.len() as u64;
        self.tunnels.get(hash.checked_rem(places)? as usize)
    }

    /// Notes the bucket of an outbound tunnel that leads to `to`. It stays when
    /// the SA goes: at worst an ICMP error about it goes to the wrong worker.
    pub(crate) fn set_tunnel(&self, to: &Addr, spi: u32, bucket: u8) {
        if let Some(word) = self.tunnel(to, spi) {
            word.store(bucket.into(), Ordering::Release);
        }
    }

    /// The bucket of the tunnel that leads to `to`.
    pub(crate) fn bucket_of_tunnel(&self, to: &Addr, spi: u32) -> Option<u8> {
        u8::try_from(self.tunnel(to, spi)?.load(Ordering::Acquire)).ok()
    }

    /// Number of slots.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The owners of all buckets.
    pub(crate) fn owners(&self) -> [u8; BUCKETS] {
        std::array::from_fn(|b| self.owners[b].load(Ordering::Acquire))
    }
}

/// Which buckets change hands so that each of `workers` has its share: as few
/// as can be. Without workers none does.
pub(crate) fn rebalance(owners: &[u8; BUCKETS], workers: &[u8]) -> Vec<(u8, u8)> {
    let Some(share) = BUCKETS.checked_div(workers.len()) else {
        return Vec::new();
    };
    let more = BUCKETS % workers.len();
    let has = |w: u8| owners.iter().filter(|o| **o == w).count();
    // Who has most keeps most: the odd ones stay where they are.
    let mut order: Vec<u8> = workers.to_vec();
    order.sort_by_key(|w| (std::cmp::Reverse(has(*w)), *w));
    let mut room: Vec<(u8, usize)> = (0usize..)
        .zip(order)
        .map(|(i, w)| (w, share + usize::from(i < more)))
        .collect();
    let mut homeless = Vec::new();
    for (bucket, owner) in (0u8..=255).zip(owners) {
        match room.iter_mut().find(|(w, left)| w == owner && *left > 0) {
            Some((_, left)) => *left -= 1,
            None => homeless.push(bucket),
        }
    }
    let places = room
        .into_iter()
        .flat_map(|(worker, left)| std::iter::repeat_n(worker, left));
    homeless.into_iter().zip(places).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn phones_of_one_network_fall_into_all_buckets() {
        let mut seen = [0u32; BUCKETS];
        for i in 0..65_536u32 {
            let [_, _, c, d] = i.to_be_bytes();
            let v4 = map_addr(IpAddr::from([10, 0, c, d]));
            seen[usize::from(bucket(&v4))] += 1;
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(*least > 128 && *most < 512, "{least} to {most}, want 256");
        // One phone a /64, as mobile networks give them out.
        let mut seen = [0u32; BUCKETS];
        for i in 0..65_536u32 {
            let v6 = [0x2001, 0xdb8, 0, i as u16, 0, 0, 0, 1];
            seen[usize::from(bucket(&map_addr(IpAddr::from(v6))))] += 1;
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(*least > 128 && *most < 512, "{least} to {most}, want 256");
    }

    #[test]
    fn a_slot_has_a_bucket_while_it_holds_an_sa() {
        let routes = Routes::new(4);
        assert_eq!(routes.bucket_of_slot(3), None);
        routes.set_slot(3, Some(255));
        assert_eq!(routes.bucket_of_slot(3), Some(255));
        routes.set_slot(3, None);
        assert_eq!(routes.bucket_of_slot(3), None);
        // Beyond: nothing happens.
        routes.set_slot(4, Some(1));
        assert_eq!(routes.bucket_of_slot(4), None);
    }

    #[test]
    fn a_tunnel_is_found_by_where_it_leads_and_its_spi() {
        let routes = Routes::new(4096);
        let nat = map_addr(IpAddr::from([192, 0, 2, 1]));
        // A thousand phones behind one NAT.
        for spi in 0..1000 {
            routes.set_tunnel(&nat, 70_000 + spi * 7, spi as u8);
        }
        let found = (0..1000u32)
            .filter(|spi| routes.bucket_of_tunnel(&nat, 70_000 + spi * 7) == Some(*spi as u8));
        assert!(found.count() > 800, "a few share their places");
        let empty = Routes::new(0);
        empty.set_tunnel(&nat, 1, 1);
        assert_eq!(Routes::new(8).bucket_of_tunnel(&nat, 1), None);
    }

    proptest! {
        /// Everybody gets a share, nothing moves that need not.
        #[test]
        fn shares_are_even_and_moves_are_few(
            owners in prop::collection::vec(0u8..6, BUCKETS),
            workers in prop::sample::subsequence((0u8..6).collect::<Vec<_>>(), 1..=6),
        ) {
            let before: [u8; BUCKETS] = owners.clone().try_into().unwrap();
            let mut after = before;
            let moves = rebalance(&before, &workers);
            for (bucket, to) in &moves {
                prop_assert_ne!(after[usize::from(*bucket)], *to);
                after[usize::from(*bucket)] = *to;
            }
            let count = |all: &[u8], w: u8| all.iter().filter(|o| **o == w).count();
            let share = BUCKETS / workers.len();
            for w in &workers {
                prop_assert!((share..=share + 1).contains(&count(&after, *w)));
            }
            let kept: usize = workers.iter().map(|w| count(&before, *w).min(share + 1)).sum();
            prop_assert!(moves.len() <= BUCKETS - kept + workers.len());
            prop_assert!(rebalance(&after, &workers).is_empty());
        }

        #[test]
        fn buckets_are_a_set(a in prop::collection::vec(any::<u8>(), 0..50), b in prop::collection::vec(any::<u8>(), 0..50)) {
            let (x, y): (Buckets, Buckets) = (a.iter().copied().collect(), b.iter().copied().collect());
            let (mut sum, mut rest) = (x, x);
            sum.add(&y);
            rest.remove(&y);
            for n in 0..=255u8 {
                prop_assert_eq!(sum.has(n), a.contains(&n) || b.contains(&n));
                prop_assert_eq!(rest.has(n), a.contains(&n) && !b.contains(&n));
            }
        }
    }
}
