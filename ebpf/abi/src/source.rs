//! What is kept for each source of packets, and the place that it has in the
//! memory-mapped array maps.
//!
//! A source is one subscriber: an IPv4 address or an IPv6 /64, here a `u64`
//! ([`prefix_of`]). Every map has [`PREFIX_PLACES`] places, a source exactly
//! one of them ([`place_of`]), and sources may share one. [`Config::seed`]
//! keeps strangers from choosing whom they share it with.
//!
//! | map | value | says |
//! |---|---|---|
//! | `PREFIXES` | [`PrefixDrops`] | what was dropped for the source at the place |
//! | `SOURCE_LIMITS` | `u64` | the source whose ESP is tried only for SAs that it was the last verified source of, and for those of which nothing has verified and that are not limited; zero: none |
//! | `FRAGMENT_TOKENS` | `u64` | how many fragments may still come; word 0 in all, word 1 + place from a source; behind them [`ICMP_TOKENS`] |
//! | `SAMPLE_TOKENS` | `u64` | how many samples may still be made, by reason |
//!
//! Tokens are signed numbers in a `u64`: who finds more than zero takes one.
//! Several takers at once may go below zero. User space sets them anew every
//! 100 ms; nothing here reads a clock.
//!
//! [`Config::seed`]: crate::maps::Config::seed

use crate::maps::{Addr, AtomicU64};
use crate::verdict::DROP_COUNT;

#[cfg(not(target_arch = "bpf"))]
use {crate::verdict::Reason, core::sync::atomic::Ordering::Relaxed};

/// Places for sources in each map, a power of two.
pub const PREFIX_PLACES: u32 = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 14;

/// Number of words in `FRAGMENT_TOKENS`.
pub const FRAGMENT_WORDS: u32 = 2 + PREFIX_PLACES;

/// Word of `FRAGMENT_TOKENS`: how many ICMP errors about ESP may still come.
pub const ICMP_TOKENS: u32 = 1 + PREFIX_PLACES;

/// Counters of one source; more than there are reasons to drop.
pub const PREFIX_COUNTERS: usize = 30;
const _: () = assert!(DROP_COUNT <= PREFIX_COUNTERS);

/// The most credit that a place keeps.
pub const MOST_CREDIT: u64 = 1 << 16;

/// What was dropped for one source, by [`Reason::drop_index`]. What came in
/// counts for where it came from, what was to leave for where it was going:
/// the phone, either way.
///
/// Who counts a drop finds one of three things at the source's place:
///
/// 1. the source itself: its counter and its credit grow by one
///    ([`MOST_CREDIT`] at most);
/// 2. another one that has credit: that loses one, and the drop is counted for
///    no source (it is in `COUNTERS`);
/// 3. another one without credit, or nobody: the source takes the place. All
///    counters become zero, its own and its credit one.
///
/// So whose drops are many stays, and whose were many goes in the end. The
/// prefix is zeroed first and written last. Counters are exact as long as two
/// CPUs do not fight for a place at the same moment; then a count or two may be
/// lost, or stand under the other's name.
///
/// [`Reason::drop_index`]: crate::verdict::Reason::drop_index
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct PrefixDrops {
    /// The source ([`prefix_of`]); zero: nobody.
    pub prefix: AtomicU64,
    /// How many drops of others it outlasts; signed like tokens.
    pub credit: AtomicU64,
    /// Drops by reason.
    pub drops: [AtomicU64; PREFIX_COUNTERS],
}

const _: () = assert!(size_of::<PrefixDrops>() == 256);

/// The source that an address belongs to: `0x0000_ffff` and the four bytes of
/// an IPv4 address, or the first eight bytes of an IPv6 one. Addresses in
/// `::/16` that are not IPv4-mapped are nobody's and all the same source, 1.
/// Never zero.
#[inline(always)]
pub fn prefix_of(addr: &Addr) -> u64 {
    let (high, low) = halves(addr);
    if high == 0 && low >> 32 == 0xffff {
        low
    } else if high >> 48 == 0 {
        1
    } else {
        high
    }
}

/// The place of a source, below [`PREFIX_PLACES`].
#[inline(always)]
pub fn place_of(prefix: u64, seed: u32) -> u32 {
    (mix(mix(prefix ^ spread(seed))) >> (64 - PLACE_BITS)) as u32
}

/// Sixteen bits that stand for where ESP comes from: address, and for ESP in
/// UDP the port (host byte order; else zero). Never zero.
#[inline(always)]
pub fn tag_of(addr: &Addr, port: u16, seed: u32) -> u16 {
    let (high, low) = halves(addr);
    let all = mix(mix(mix(high ^ spread(seed)) ^ low) ^ port as u64);
    match (all >> 48) as u16 {
        0 => 1,
        tag => tag,
    }
}

#[inline(always)]
fn halves(addr: &Addr) -> (u64, u64) {
    let a = addr;
    (
        u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
        u64::from_be_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
    )
}

#[inline(always)]
const fn spread(seed: u32) -> u64 {
    (seed as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^ word >> 32
}

/// The address that a source's prefix stands for: an IPv4-mapped one, or an
/// IPv6 one of which the last eight bytes are zero.
#[cfg(not(target_arch = "bpf"))]
pub fn addr_of(prefix: u64) -> Addr {
    let mut addr = [0; 16];
    if prefix >> 32 == 0xffff {
        addr[8..].copy_from_slice(&prefix.to_be_bytes());
    } else if prefix != 1 {
        addr[..8].copy_from_slice(&prefix.to_be_bytes());
    }
    addr
}

#[cfg(not(target_arch = "bpf"))]
impl PrefixDrops {
    /// Counts a drop for a source at its place, by the rule above. What is no
    /// reason to drop is not counted.
    pub fn count(&self, prefix: u64, reason: Reason) {
        let Some(counter) = reason.drop_index().and_then(|at| self.drops.get(at)) else {
            return;
        };
        let credit = self.credit.load(Relaxed).cast_signed();
        if self.prefix.load(Relaxed) == prefix {
            counter.fetch_add(1, Relaxed);
            if credit < MOST_CREDIT.cast_signed() {
                self.credit.fetch_add(1, Relaxed);
            }
        } else if credit > 0 {
            self.credit.fetch_sub(1, Relaxed);
        } else {
            self.prefix.store(0, Relaxed);
            self.drops.iter().for_each(|c| c.store(0, Relaxed));
            counter.store(1, Relaxed);
            self.credit.store(1, Relaxed);
            self.prefix.store(prefix, Relaxed);
        }
    }

    /// The source at this place and what was dropped for it, by
    /// [`Reason::drop_index`]. `None`: nobody, or it changes just now.
    pub fn read(&self) -> Option<(u64, [u64; DROP_COUNT])> {
        let prefix = self.prefix.load(Relaxed);
        let mut drops = [0; DROP_COUNT];
        for (out, counter) in drops.iter_mut().zip(&self.drops) {
            *out = counter.load(Relaxed);
        }
        (prefix != 0 && self.prefix.load(Relaxed) == prefix).then_some((prefix, drops))
    }
}

#[cfg(test)]
mod tests;
