//! The inbound SAs as XDP sees them: the memory-mapped map `SLOTS`.
//!
//! The control side installs and withdraws a slot, the SA's worker moves its
//! window on; XDP only reads. What XDP reads may be old or half new and must
//! then let too much through, never too little (ARCHITECTURE, rule 1).

use std::ops::Deref;
use std::sync::atomic::Ordering;

use gm_abi::maps::{
    Addr, MODE_TRANS, MODE_UDP_ENC_TUN, SLOT_LIMITED, SLOT_PUBLISHED, SLOT_TAG_SHIFT, SaSlot,
    SlotDrops, WINDOW_CELLS,
};
use gm_esp::Mode;
use gm_region::{MapValue, Mapped, prefetch};

use crate::tables::Tables;

/// Bits of numbers in a cell.
const CELL_BITS: u64 = 32;

/// The values of a memory-mapped array map.
pub(crate) enum Values<T> {
    /// Of the BPF map.
    Map(Mapped<T>),
    /// Of the process alone, for tests without BPF.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "bench")),
        expect(dead_code, reason = "for tests")
    )]
    Memory(Vec<T>),
}

impl<T: MapValue> Deref for Values<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Values::Map(values) => values,
            Values::Memory(values) => values,
        }
    }
}

/// What XDP is shown, and what it has counted: the memory-mapped maps.
pub(crate) struct Published {
    /// The inbound SAs.
    pub slots: Values<SaSlot>,
    /// What XDP shed for them.
    pub drops: Values<SlotDrops>,
    /// What there is by source and by reason.
    pub tables: Tables,
}

/// Drops of one SA that XDP did, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shed {
    pub replay: u64,
    pub stale: u64,
    pub mode_mismatch: u64,
    pub icv_limited: u64,
}

impl Published {
    /// Without BPF, for tests.
    #[cfg(any(test, fuzzing, feature = "bench"))]
    pub(crate) fn in_memory(slots: u32) -> Published {
        let values = |_| SaSlot::default();
        Published {
            slots: Values::Memory((0..slots).map(values).collect()),
            drops: Values::Memory((0..slots).map(|_| SlotDrops::default()).collect()),
            tables: Tables::in_memory(),
        }
    }

    /// Lets XDP see an inbound SA. `top` is the highest number accepted so
    /// far; with extended numbers the window stays unpublished. `from` is where
    /// raw ESP for it can only come from. Everything is in place before the SPI
    /// says that the slot is taken.
    pub(crate) fn install(
        &self,
        slot: u32,
        spi: u32,
        dst: &Addr,
        mode: Mode,
        window: Option<(u32, u64)>,
        from: Option<&Addr>,
    ) {
        let at = slot as usize;
        let (Some(s), Some(d)) = (self.slots.get(at), self.drops.get(at)) else {
            return;
        };
        self.withdraw(slot);
        for counter in [&d.replay, &d.stale, &d.mode_mismatch, &d.icv_limited] {
            counter.store(0, Ordering::Relaxed);
        }
        let mode = match mode {
            Mode::Trans => MODE_TRANS,
            Mode::UdpEncTun => MODE_UDP_ENC_TUN,
        };
        let tag = from.map_or(0, |from| self.tables.tag(from, 0));
        let mut flags = u32::from(mode) | u32::from(tag) << SLOT_TAG_SHIFT;
        if window.is_some() {
            flags |= SLOT_PUBLISHED;
        }
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

    /// Publishes the window of an SA that was installed without one, and whose
    /// worker has not accepted anything yet. It stays in XDP's sight meanwhile.
    pub(crate) fn begin_window(&self, slot: u32, size: u32, top: u64) {
        let Some(s) = self.slots.get(slot as usize) else {
            return;
        };
        s.window.store(size, Ordering::Relaxed);
        s.top.store(low(top), Ordering::Release);
        self.change_flags(slot, |flags| flags | SLOT_PUBLISHED);
    }

    /// Takes an inbound SA from XDP's sight, and its window with it: the next
    /// SA of the slot must not be judged by the numbers of this one, whichever
    /// order another CPU sees the words in.
    pub(crate) fn withdraw(&self, slot: u32) {
        if let Some(s) = self.slots.get(slot as usize) {
            s.spi.store(0, Ordering::Release);
            // Release: not before the SPI is gone.
            s.flags.store(0, Ordering::Release);
            s.top.store(0, Ordering::Release);
            for cell in &s.cells {
                cell.store(0, Ordering::Release);
            }
        }
    }

    /// Asks for a slot's line before it is written.
    pub(crate) fn fetch(&self, slot: u32) {
        if let Some(s) = self.slots.get(slot as usize) {
            prefetch(s);
        }
    }

    /// Marks a number that the worker has accepted. `top` is the window's.
    /// Called by the SA's worker only, so plain loads and stores do.
    pub(crate) fn accepted(&self, slot: u32, seq: u64, top: u64) {
        let Some(s) = self.slots.get(slot as usize) else {
            return;
        };
        if s.flags.load(Ordering::Acquire) & SLOT_PUBLISHED == 0 {
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
        if low(top) > s.top.load(Ordering::Relaxed) {
            s.top.store(low(top), Ordering::Release);
        }
    }

    /// What XDP shed for an SA.
    pub(crate) fn shed(&self, slot: u32) -> Shed {
        let Some(d) = self.drops.get(slot as usize) else {
            return Shed::default();
        };
        let read = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
        Shed {
            replay: read(&d.replay),
            stale: read(&d.stale),
            mode_mismatch: read(&d.mode_mismatch),
            icv_limited: read(&d.icv_limited),
        }
    }

    /// Begins or ends the limit on an SA of which ICVs keep failing
    /// ([`gm_abi::maps::SLOT_LIMITED`]). Not for a slot that is free; a new SA
    /// begins without.
    pub(crate) fn set_limited(&self, slot: u32, limited: bool) {
        self.change_flags(slot, |flags| {
            if limited {
                flags | SLOT_LIMITED
            } else {
                flags & !SLOT_LIMITED
            }
        });
    }

    /// Whether the SA is limited.
    #[cfg(test)]
    pub(crate) fn is_limited(&self, slot: u32) -> bool {
        self.slots
            .get(slot as usize)
            .is_some_and(|s| s.flags.load(Ordering::Relaxed) & SLOT_LIMITED != 0)
    }

    /// Notes where the newest verified packet of an SA has come from: `port` is
    /// the UDP port of ESP in UDP, else zero. Writes only what changes.
    pub(crate) fn verified(&self, slot: u32, source: &Addr, port: u16) {
        let tag = u32::from(self.tables.tag(source, port));
        let others = (1 << SLOT_TAG_SHIFT) - 1;
        self.change_flags(slot, |flags| flags & others | tag << SLOT_TAG_SHIFT);
    }

    /// Whether a packet comes from where the newest verified one has come from;
    /// `None` while there was none.
    #[cfg(test)]
    pub(crate) fn is_verified_source(&self, slot: u32, source: &Addr, port: u16) -> Option<bool> {
        let s = self.slots.get(slot as usize)?;
        let known = s.flags.load(Ordering::Relaxed) >> SLOT_TAG_SHIFT;
        (known != 0).then(|| known == u32::from(self.tables.tag(source, port)))
    }

    fn change_flags(&self, slot: u32, change: impl Fn(u32) -> u32) {
        let Some(s) = self.slots.get(slot as usize) else {
            return;
        };
        // Without a mode the slot is free: nothing must be left in it.
        let _ = s
            .flags
            .fetch_update(Ordering::Release, Ordering::Relaxed, |flags| {
                let new = change(flags);
                (flags as u8 != 0 && new != flags).then_some(new)
            });
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
        Published::in_memory(1)
    }

    /// What XDP says to a number: false when it surely drops.
    fn passes(p: &Published, seq: u64) -> bool {
        let s = &p.slots[0];
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
            None,
        );
        let s = &p.slots[0];
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
        p.install(5, 1, &mapped([0; 4]), Mode::Trans, None, None);
        p.accepted(5, 1, 1);
        p.withdraw(5);
    }

    #[test]
    fn a_limit_and_a_verified_source_come_and_go_with_the_slot() {
        let p = one();
        let (here, there) = (mapped([198, 51, 100, 1]), mapped([198, 51, 100, 2]));
        let flags = |p: &Published| p.slots[0].flags.load(Ordering::Relaxed);
        // A free slot takes neither.
        p.set_limited(0, true);
        p.verified(0, &here, 4500);
        assert_eq!((flags(&p), p.is_limited(0)), (0, false));

        p.install(0, 1, &mapped([10, 0, 0, 1]), Mode::UdpEncTun, None, None);
        assert_eq!(p.is_verified_source(0, &here, 4500), None);
        p.verified(0, &here, 4500);
        p.set_limited(0, true);
        assert!(p.is_limited(0));
        assert_eq!(p.is_verified_source(0, &here, 4500), Some(true));
        assert_eq!(p.is_verified_source(0, &here, 4501), Some(false));
        assert_eq!(p.is_verified_source(0, &there, 4500), Some(false));
        assert_eq!(flags(&p) as u8, MODE_UDP_ENC_TUN);
        p.set_limited(0, false);
        p.verified(0, &there, 1);
        assert_eq!((flags(&p) & 0xffff, p.is_limited(0)), (2, false));
        assert_eq!(p.is_verified_source(0, &there, 1), Some(true));

        // Raw ESP comes from one address only. The next SA begins anew.
        p.set_limited(0, true);
        p.withdraw(0);
        assert_eq!(flags(&p), 0);
        let dst = mapped([10, 0, 0, 1]);
        p.install(0, 2, &dst, Mode::Trans, Some((64, 0)), Some(&here));
        assert!(!p.is_limited(0));
        assert_eq!(p.is_verified_source(0, &here, 0), Some(true));
        assert_eq!(p.is_verified_source(0, &there, 0), Some(false));
        // Beyond the map: nothing happens.
        p.set_limited(9, true);
        p.verified(9, &here, 0);
        assert_eq!(p.is_verified_source(9, &here, 0), None);
    }

    proptest::proptest! {
        /// XDP never drops a number that the window would take.
        #[test]
        fn never_drops_what_is_new(seqs in proptest::collection::vec(1u64..600, 1..400)) {
            let p = one();
            p.install(0, 1_000_000_000, &mapped([10, 0, 0, 1]), Mode::Trans, Some((64, 0)), None);
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
