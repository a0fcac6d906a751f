//! Which slot is next, and which SPI it gets.

use std::collections::VecDeque;
use std::ops::Range;

use gm_abi::maps::SPI_BASE;
use gm_region::{Region, SlotState};

use crate::types::Dir;

/// Hands out slots in the order in which they became free: the lower half to
/// inbound SAs, the upper half to outbound ones, so that what only inbound SAs
/// need (windows, XDP's maps) is there for half of the slots.
pub(crate) struct Slots {
    free: [VecDeque<u32>; 2],
    slots: u32,
}

/// How many of the slots are for inbound SAs.
pub fn inbound(slots: u32) -> u32 {
    slots.div_ceil(2)
}

/// Which direction a slot is for.
pub(crate) fn dir_of(slots: u32, slot: u32) -> Dir {
    if slot < inbound(slots) {
        Dir::In
    } else {
        Dir::Out
    }
}

/// How many SPIs each of `slots` slots has, so that all stay below 2^32.
pub(crate) fn generations(slots: u32) -> u32 {
    let spis = (1u64 << 32) - u64::from(SPI_BASE);
    // At most 2^32 / 1; at least 6284 for 2^20 slots.
    (spis / u64::from(inbound(slots))) as u32
}

/// The SPI of an inbound slot in a generation below [`generations`]: ten digits.
pub(crate) fn spi(slots: u32, slot: u32, generation: u32) -> u32 {
    SPI_BASE + generation * inbound(slots) + slot
}

/// Whether the SPI finds this slot by arithmetic.
pub(crate) fn is_own(slots: u32, slot: u32, spi: u32) -> bool {
    spi.checked_sub(SPI_BASE)
        .is_some_and(|n| n % inbound(slots) == slot)
}

impl Slots {
    /// All slots of a new region, lowest first. They are not looked at.
    pub(crate) fn all(slots: u32) -> Slots {
        Slots::which(slots, |_| true)
    }

    /// The free slots of a region, lowest first.
    pub(crate) fn new(region: &Region) -> Slots {
        Slots::which(region.slots(), |slot| {
            let slot = region.slot(slot);
            slot.is_some_and(|s| s.hot().state() == SlotState::Free)
        })
    }

    fn which(slots: u32, is_free: impl Fn(u32) -> bool) -> Slots {
        let half = inbound(slots);
        let free = |range: Range<u32>| range.filter(|slot| is_free(*slot)).collect();
        Slots {
            free: [free(0..half), free(half..slots)],
            slots,
        }
    }

    /// Free slots, of both directions.
    pub(crate) fn len(&self) -> usize {
        self.free.iter().map(VecDeque::len).sum()
    }

    /// The slot for this direction that has been free for longest.
    pub(crate) fn take(&mut self, dir: Dir) -> Option<u32> {
        self.line(dir).pop_front()
    }

    /// Puts a slot back to the front of the line, as if not taken.
    pub(crate) fn put_back(&mut self, slot: u32) {
        self.line(dir_of(self.slots, slot)).push_front(slot);
    }

    /// Puts a slot at the end of the line.
    pub(crate) fn put(&mut self, slot: u32) {
        let is_small = self.slots <= 4096;
        let line = self.line(dir_of(self.slots, slot));
        debug_assert!(
            !is_small || !line.contains(&slot),
            "slot {slot} freed twice"
        );
        line.push_back(slot);
    }

    fn line(&mut self, dir: Dir) -> &mut VecDeque<u32> {
        let [inbound, outbound] = &mut self.free;
        match dir {
            Dir::In => inbound,
            Dir::Out => outbound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_region::place;

    #[test]
    fn spis_have_ten_digits_and_find_their_slot() {
        for slots in [1, 2, 1024, 1 << 20] {
            let generations = generations(slots);
            assert!(generations > 3000);
            for slot in [0, inbound(slots) / 2, inbound(slots) - 1] {
                for generation in [0, 1, generations - 1] {
                    let spi = spi(slots, slot, generation);
                    assert!(spi >= 1_000_000_000);
                    assert!(is_own(slots, slot, spi));
                    assert_eq!(spi.wrapping_sub(SPI_BASE) & (inbound(slots) - 1), slot);
                }
            }
        }
        assert!(!is_own(1024, 0, 256));
        assert!(!is_own(1024, 0, SPI_BASE + 1));
    }

    #[test]
    fn each_slot_has_a_place_and_a_direction() {
        for slots in [1, 2, 8, 64] {
            let mut places: Vec<usize> = (0..slots).map(|slot| place(slots, slot)).collect();
            places.sort_unstable();
            assert!(places.into_iter().eq(0..slots as usize));
            let mut all = Slots::all(slots);
            let half = inbound(slots) as usize;
            for (dir, many) in [(Dir::In, half), (Dir::Out, slots as usize - half)] {
                let of_it: Vec<u32> = std::iter::from_fn(|| all.take(dir)).collect();
                assert_eq!(of_it.len(), many);
                assert!(of_it.iter().all(|slot| dir_of(slots, *slot) == dir));
            }
            assert_eq!(all.len(), 0);
        }
    }
}
