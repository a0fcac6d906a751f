//! Which slot is next, and which SPI it gets.

use std::collections::VecDeque;

use gm_abi::maps::SPI_BASE;
use gm_region::{Region, SlotState};

/// Hands out slots in the order in which they became free.
pub(crate) struct Slots {
    free: VecDeque<u32>,
    slots: u32,
}

/// How many SPIs each of `slots` slots has, so that all stay below 2^32.
pub(crate) fn generations(slots: u32) -> u32 {
    let spis = (1u64 << 32) - u64::from(SPI_BASE);
    // At most 2^32 / 1; at least 3142 for 2^20 slots.
    (spis / u64::from(slots)) as u32
}

/// The SPI of a slot in a generation below [`generations`]: ten digits.
pub(crate) fn spi(slots: u32, slot: u32, generation: u32) -> u32 {
    SPI_BASE + generation * slots + slot
}

/// Whether the SPI finds this slot by arithmetic.
pub(crate) fn is_own(slots: u32, slot: u32, spi: u32) -> bool {
    spi.checked_sub(SPI_BASE).is_some_and(|n| n % slots == slot)
}

impl Slots {
    /// All slots of a new region, lowest first. They are not looked at.
    pub(crate) fn all(slots: u32) -> Slots {
        Slots {
            free: (0..slots).collect(),
            slots,
        }
    }

    /// The free slots of a region, lowest first.
    pub(crate) fn new(region: &Region) -> Slots {
        let is_free = |slot: &u32| {
            region
                .slot(*slot)
                .is_some_and(|s| s.hot().state() == SlotState::Free)
        };
        Slots {
            free: (0..region.slots()).filter(is_free).collect(),
            slots: region.slots(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.free.len()
    }

    /// The slot that has been free for longest.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop_front()
    }

    /// Puts a slot back to the front of the line, as if not taken.
    pub(crate) fn put_back(&mut self, slot: u32) {
        self.free.push_front(slot);
    }

    /// Puts a slot at the end of the line.
    pub(crate) fn put(&mut self, slot: u32) {
        debug_assert!(
            slot < self.slots && (self.slots > 4096 || !self.free.contains(&slot)),
            "slot {slot} freed twice"
        );
        self.free.push_back(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spis_have_ten_digits_and_find_their_slot() {
        for slots in [1, 2, 1024, 1 << 20] {
            let generations = generations(slots);
            assert!(generations > 3000);
            for slot in [0, slots / 2, slots - 1] {
                for generation in [0, 1, generations - 1] {
                    let spi = spi(slots, slot, generation);
                    assert!(spi >= 1_000_000_000);
                    assert!(is_own(slots, slot, spi));
                    assert_eq!(spi.wrapping_sub(SPI_BASE) & (slots - 1), slot);
                }
            }
        }
        assert!(!is_own(1024, 0, 256));
        assert!(!is_own(1024, 0, SPI_BASE + 1));
    }
}
