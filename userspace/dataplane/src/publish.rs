//! The inbound SAs as XDP sees them: the memory-mapped map `SLOTS`.
//!
//! The control side installs and withdraws a slot, the SA's worker moves its
//! window on; XDP only reads. What XDP reads may be old or half new and must
//! then let too much through, never too little (ARCHITECTURE, rule 1).

use std::sync::atomic::Ordering;

use gm_abi::maps::{Addr, MODE_TRANS, MODE_UDP_ENC_TUN, SaSlot, SlotDrops, WINDOW_CELLS};
use gm_esp::Mode;
use gm_region::Mapped;

/// Bits of numbers in a cell.
const CELL_BITS: u64 = 32;

/// The published slots, and what XDP shed for them.
pub(crate) enum Published {
    /// The BPF maps.
    Maps(Mapped<SaSlot>, Mapped<SlotDrops>),
    /// Memory of the process, for tests without BPF.
    #[cfg(test)]
    Memory(Vec<SaSlot>, Vec<SlotDrops>),
}

/// Drops of one SA that XDP did, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shed {
    pub replay: u64,
    pub stale: u64,
    pub mode_mismatch: u64,
}

impl Published {
    fn slots(&self) -> &[SaSlot] {
        match self {
            Published::Maps(slots, _) => slots,
            #[cfg(test)]
            Published::Memory(slots, _) => slots,
        }
    }

    fn drops(&self) -> &[SlotDrops] {
        match self {
            Published::Maps(_, drops) => drops,
            #[cfg(test)]
            Published::Memory(_, drops) => drops,
        }
    }

    /// Lets XDP see an inbound SA. `top` is the highest number accepted so
    /// far; with extended numbers the window stays unpublished. Everything is
    /// in place before the SPI says that the slot is taken.
    pub(crate) fn install(
        &self,
        slot: u32,
        spi: u32,
        dst: &Addr,
        mode: Mode,
        window: Option<(u32, u64)>,
    ) {
        let (Some(s), Some(d)) = (
            self.slots().get(slot as usize),
            self.drops().get(slot as usize),
        ) else {
            return;
        };
        self.withdraw(slot);
        for counter in [&d.replay, &d.stale, &d.mode_mismatch] {
            counter.store(0, Ordering::Relaxed);
        }
        let mode = match mode {
            Mode::Trans => MODE_TRANS,
            Mode::UdpEncTun => MODE_UDP_ENC_TUN,
        };
        let flags = u32::from(mode) | u32::from(window.is_some()) << 8;
        for (word, bytes) in s.dst.iter().zip(dst.as_chunks::<4>().0) {
            word.store(u32::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        let (size, top) = window.unwrap_or((0, 0));
        s.window.store(size, Ordering::Relaxed);
        s.top.store(low(top), Ordering::Relaxed);
        // From here on the worker marks numbers, in cells that are empty.
        s.flags.store(flags, Ordering::Release);
        s.spi
            .store(u32::from_ne_bytes(spi.to_be_bytes()), Ordering::Release);
    }

    /// Takes an inbound SA from XDP's sight, and its window with it: the next
    /// SA of the slot must not be judged by the numbers of this one, whichever
    /// order another CPU sees the words in.
    pub(crate) fn withdraw(&self, slot: u32) {
        if let Some(s) = self.slots().get(slot as usize) {
            s.spi.store(0, Ordering::Release);
            // Release: not before the SPI is gone.
            s.flags.store(0, Ordering::Release);
            s.top.store(0, Ordering::Release);
            for cell in &s.cells {
                cell.store(0, Ordering::Release);
            }
        }
    }

    /// Marks a number that the worker has accepted. `top` is the window's.
    /// Called by the SA's worker only, so plain loads and stores do.
    pub(crate) fn accepted(&self, slot: u32, seq: u64, top: u64) {
        let Some(s) = self.slots().get(slot as usize) else {
            return;
        };
        if s.flags.load(Ordering::Acquire) >> 8 & 1 == 0 {
            return;
        }
        let (block, bit) = (seq / CELL_BITS, 1 << (seq % CELL_BITS));
        let cell = &s.cells[block as usize % WINDOW_CELLS];
        let old = cell.load(Ordering::Relaxed);
        // A cell of a newer block stays: the old number is the worker's to judge.
        match (old >> 32).cmp(&block) {
            std::cmp::Ordering::Equal => cell.store(old | bit, Ordering::Relaxed),
            std::cmp::Ordering::Less => cell.store(block << 32 | bit, Ordering::Relaxed),
            std::cmp::Ordering::Greater => {}
        }
        // A top only grows; one that is old lets through what is stale.
        s.top.fetch_max(low(top), Ordering::Release);
    }

    /// What XDP shed for an SA.
    pub(crate) fn shed(&self, slot: u32) -> Shed {
        let Some(d) = self.drops().get(slot as usize) else {
            return Shed::default();
        };
        let read = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
        Shed {
            replay: read(&d.replay),
            stale: read(&d.stale),
            mode_mismatch: read(&d.mode_mismatch),
        }
    }
}

/// A number without extension as 32 bits.
fn low(seq: u64) -> u32 {
    u32::try_from(seq).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_abi::maps::mapped;

    fn one() -> Published {
        Published::Memory(vec![SaSlot::default()], vec![SlotDrops::default()])
    }

    /// What XDP says to a number: false when it surely drops.
    fn passes(p: &Published, seq: u64) -> bool {
        let s = &p.slots()[0];
        let top = u64::from(s.top.load(Ordering::Relaxed));
        let window = u64::from(s.window.load(Ordering::Relaxed));
        let cell = s.cells[(seq / 32) as usize % WINDOW_CELLS].load(Ordering::Relaxed);
        let stale = seq + window <= top;
        let seen = cell >> 32 == seq / 32 && cell >> (seq % 32) & 1 == 1;
        !stale && !seen
    }

    #[test]
    fn a_slot_comes_and_goes() {
        let p = one();
        p.install(
            0,
            1_000_000_000,
            &mapped([10, 0, 0, 1]),
            Mode::Trans,
            Some((64, 0)),
        );
        let s = &p.slots()[0];
        assert_eq!(
            s.spi.load(Ordering::Relaxed).to_ne_bytes(),
            1_000_000_000u32.to_be_bytes()
        );
        assert_eq!(s.flags.load(Ordering::Relaxed), 0x101);
        assert_eq!(
            s.dst[3].load(Ordering::Relaxed).to_ne_bytes(),
            [10, 0, 0, 1]
        );
        p.accepted(0, 70, 70);
        p.withdraw(0);
        assert_eq!(s.spi.load(Ordering::Relaxed), 0);
        // Nothing of its window is left for the slot's next SA, and a worker
        // that has that one already (a datagram in fragments needs no XDP)
        // leaves nothing there before it is published.
        p.accepted(0, 3, 3);
        assert_eq!(s.top.load(Ordering::Relaxed), 0);
        assert!(s.cells.iter().all(|c| c.load(Ordering::Relaxed) == 0));
        // Beyond the map: nothing happens.
        p.install(5, 1, &mapped([0; 4]), Mode::Trans, None);
        p.accepted(5, 1, 1);
        p.withdraw(5);
    }

    proptest::proptest! {
        /// XDP never drops a number that the window would take.
        #[test]
        fn never_drops_what_is_new(seqs in proptest::collection::vec(1u64..600, 1..400)) {
            let p = one();
            p.install(0, 1_000_000_000, &mapped([10, 0, 0, 1]), Mode::Trans, Some((64, 0)));
            let mut seen = std::collections::HashSet::new();
            let mut top = 0u64;
            for seq in seqs {
                let fresh = seq + 64 > top && !seen.contains(&seq);
                if fresh {
                    proptest::prop_assert!(passes(&p, seq), "{seq} is new, top {top}");
                    top = top.max(seq);
                    seen.insert(seq);
                    p.accepted(0, seq, top);
                    proptest::prop_assert!(!passes(&p, seq), "{seq} was just accepted");
                }
            }
        }
    }
}
