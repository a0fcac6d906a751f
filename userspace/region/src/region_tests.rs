//! A region is the same for whoever adopts it, or refused.

use std::sync::atomic::Ordering::Relaxed;

use gm_abi::verdict::Reason;
use proptest::prelude::*;
use rustix::io::dup;

use super::*;
use crate::hot::{DROP_REASONS, SlotState};
use crate::keys::KeyMaterial;
use crate::layout::COMMON_BYTES;

fn adopted(region: &Region) -> Region {
    Region::adopt(dup(region.fd()).unwrap()).unwrap()
}

fn key() -> KeyMaterial {
    KeyMaterial {
        integrity: [0x11; 20],
        encryption: [0x22; 24],
        salt: [0x33; 4],
    }
}

#[test]
fn a_new_region_is_empty() {
    let region = Region::create(64, 2).unwrap();
    assert_eq!((region.slots(), region.window_words()), (64, 2));
    for slot in 0..64 {
        let slot = region.slot(slot).unwrap();
        assert_eq!(slot.hot().state(), SlotState::Free);
        assert_eq!(slot.record(), [0; RECORD_BYTES]);
        let is_inbound = slot.index() < region.inbound();
        assert_eq!(slot.window_bits().len(), if is_inbound { 2 } else { 0 });
        let common = region.common(slot.index()).unwrap();
        assert_eq!(common.record(), [0; COMMON_BYTES]);
        assert_eq!(common.key_material().integrity, [0; 20]);
    }
    assert!(region.common(64).is_none());
    assert_eq!(region.commons(), 0);
    assert!(region.slot(64).is_none() && region.slot(u32::MAX).is_none());
    assert_eq!(region.traces().count(), 0);
}

#[test]
fn a_successor_sees_the_same_memory() {
    let old = Region::create(8, 3).unwrap();
    let slot = old.slot(2).unwrap();
    slot.set_record(&std::array::from_fn(|i| i as u8));
    let place = old.new_common().unwrap();
    let common = old.common(place).unwrap();
    common.set_record(&std::array::from_fn(|i| i as u8));
    common.set_key_material(&key());
    slot.hot().seq.store(77, Relaxed);
    slot.hot().set_state(SlotState::Live);
    slot.window_bits()[2].store(u64::MAX, Relaxed);
    old.leave_trace(Trace {
        fingerprint: u128::MAX - 1,
        spi: 300,
        last: 9,
    });

    let new = adopted(&old);
    let there = new.slot(2).unwrap();
    assert_eq!(there.record(), slot.record());
    assert_eq!(new.commons(), 1);
    let common = new.common(place).unwrap();
    assert_eq!(common.record(), std::array::from_fn(|i| i as u8));
    assert_eq!(
        common.word(10),
        u64::from_ne_bytes(std::array::from_fn(|i| 80 + i as u8))
    );
    assert_eq!(common.key_material().encryption, [0x22; 24]);
    assert_eq!(common.key_material().salt, [0x33; 4]);
    assert_eq!(there.hot().state(), SlotState::Live);
    assert_eq!(new.slot(1).unwrap().hot().state(), SlotState::Free);
    assert_eq!(new.slot(3).unwrap().window_bits()[0].load(Relaxed), 0);
    assert_eq!(
        new.traces().collect::<Vec<_>>(),
        old.traces().collect::<Vec<_>>()
    );
    // Not a copy: what one counts the other sees.
    there.hot().seq.store(78, Relaxed);
    assert_eq!(slot.hot().seq.load(Relaxed), 78);
    assert_eq!(new.next_stamp() + 1, old.next_stamp());
    // It outlives the one who made it.
    drop(old);
    assert_eq!(there.window_bits()[2].load(Relaxed), u64::MAX);
}

#[test]
fn wiping_leaves_nothing_but_state_and_generation() {
    let region = Region::create(8, 2).unwrap();
    let before = region.slot(1).unwrap();
    let slot = region.slot(2).unwrap();
    for slot in [before, slot] {
        slot.set_record(&[9; RECORD_BYTES]);
        let common = region.common(slot.index()).unwrap();
        common.set_record(&[9; COMMON_BYTES]);
        common.set_key_material(&key());
        slot.window_bits()[1].store(5, Relaxed);
        let hot = slot.hot();
        DROP_REASONS.iter().for_each(|r| slot.count_drop(*r));
        for word in [
            &hot.seq,
            &hot.top,
            &hot.packets,
            &hot.bytes,
            &hot.last_used,
            &hot.activated,
        ] {
            word.store(1, Relaxed);
        }
        hot.encap_port.store(1, Relaxed);
        hot.generation.store(3, Relaxed);
        hot.set_state(SlotState::Removing);
    }
    slot.wipe();
    let fresh = Hot::default();
    fresh.generation.store(3, Relaxed);
    fresh.set_state(SlotState::Removing);
    assert_eq!(format!("{:?}", slot.hot()), format!("{fresh:?}"));
    assert_eq!(slot.record(), [0; RECORD_BYTES]);
    // What it has in common with others is not its own to wipe.
    let common = region.common(2).unwrap();
    assert_eq!(common.key_material().salt, [0x33; 4]);
    common.wipe();
    assert_eq!(common.record(), [0; COMMON_BYTES]);
    assert_eq!(
        common.key_material().to_words(),
        KeyMaterial::default().to_words()
    );
    assert!(slot.window_bits().iter().all(|w| w.load(Relaxed) == 0));
    assert!(slot.drop_words().iter().all(|w| w.load(Relaxed) == 0));
    assert_eq!(before.drops(), [1; DROP_REASONS.len()]);
    // The neighbour keeps its own.
    assert_eq!(before.record(), [9; RECORD_BYTES]);
    let common = region.common(1).unwrap();
    assert_eq!(common.record(), [9; COMMON_BYTES]);
    assert_eq!(common.key_material().salt, [0x33; 4]);
}

#[test]
fn each_place_for_a_common_is_new_once() {
    let region = Region::create(4, 1).unwrap();
    for place in 0..4 {
        assert_eq!(region.new_common(), Some(place));
        assert_eq!(adopted(&region).commons(), place + 1);
    }
    assert_eq!(region.new_common(), None);
    assert_eq!(region.commons(), 4);
}

#[test]
fn drops_are_counted_by_reason_and_stop_at_the_end() {
    let region = Region::create(2, 1).unwrap();
    let slot = region.slot(1).unwrap();
    assert_eq!(slot.drops(), [0; 8]);
    slot.count_drop(Reason::BadIcv);
    slot.count_drop(Reason::BadIcv);
    slot.count_drop(Reason::Dummy);
    slot.count_drop(Reason::NoFrame);
    assert_eq!(slot.drops(), [0, 0, 2, 0, 0, 1, 0, 0]);
    slot.drop_words()[2].store(u32::MAX, Relaxed);
    slot.count_drop(Reason::BadIcv);
    assert_eq!(slot.drops()[2], u32::MAX.into());
    assert_eq!(region.slot(0).unwrap().drops(), [0; 8]);
}

#[test]
fn the_oldest_trace_makes_room() {
    let region = Region::create(4, 1).unwrap();
    for n in 1..=6u32 {
        region.leave_trace(Trace {
            fingerprint: u128::from(n) << 80 | 1,
            spi: 1000 + n,
            last: n.into(),
        });
    }
    let mut left: Vec<_> = region
        .traces()
        .map(|(_, t)| (t.fingerprint >> 80, t.spi, t.last))
        .collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [(3, 1003, 3), (4, 1004, 4), (5, 1005, 5), (6, 1006, 6)]
    );
    assert_eq!(region.next_trace(), 2);
    assert_eq!(region.trace(2).map(|t| t.spi), Some(1003));
    assert_eq!(region.trace(4), None);
}

#[test]
fn no_debug_output_shows_a_key() {
    let region = Region::create(1, 1).unwrap();
    let slot = region.slot(0).unwrap();
    let common = region.common(0).unwrap();
    common.set_key_material(&key());
    let shown = format!("{region:?} {slot:?} {common:?} {:?}", common.key_material());
    // 0x11 and 0x22 in decimal and hex, as Debug would print them.
    for secret in ["17, 17", "34, 34", "1111", "2222", "51, 51", "3333"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn sizes_are_bounded() {
    for (slots, words) in [
        (0, 2),
        (3, 2),
        (1 << 21, 2),
        (8, 0),
        (8, 129),
        (u32::MAX, u32::MAX),
    ] {
        assert!(
            matches!(Region::create(slots, words), Err(RegionError::Sizes { .. })),
            "{slots} {words}"
        );
    }
    let largest_window = Region::create(1, 128).unwrap();
    assert_eq!(largest_window.slot(0).unwrap().window_bits().len(), 128);
}

#[test]
fn what_is_no_region_is_refused() {
    let memfd = |sealed: bool, len: u64| {
        let fd = fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        fs::ftruncate(&fd, len).unwrap();
        if sealed {
            fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        }
        fd
    };
    assert!(matches!(
        Region::adopt(memfd(false, 1 << 16)),
        Err(RegionError::NotSealed)
    ));
    assert!(matches!(
        Region::adopt(memfd(true, 0)),
        Err(RegionError::Magic)
    ));
    assert!(matches!(
        Region::adopt(memfd(true, 1 << 16)),
        Err(RegionError::Magic)
    ));
    let (reader, _writer) = std::io::pipe().unwrap();
    assert!(matches!(
        Region::adopt(reader.into()),
        Err(RegionError::NotSealed)
    ));
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(matches!(
        Region::adopt(file.into()),
        Err(RegionError::NotSealed)
    ));
}

#[test]
fn another_layout_is_named() {
    let region = Region::create(4, 2).unwrap();
    for other in [3, 5] {
        region.mapping.slice::<AtomicU64>(8, 1)[0].store(other | 4 << 32, Relaxed);
        let error = Region::adopt(dup(region.fd()).unwrap()).unwrap_err();
        assert!(
            matches!(error, RegionError::Version { found, known: 4 } if u64::from(found) == other),
            "{error}"
        );
    }
}

#[test]
fn its_size_cannot_change() {
    let region = Region::create(4, 2).unwrap();
    assert!(fs::ftruncate(region.fd(), 0).is_err());
    assert!(fs::ftruncate(region.fd(), 1 << 30).is_err());
}

proptest! {
    /// Whatever is written over the header's fixed words: refused, or a region
    /// whose every part is within its memory.
    #[test]
    fn a_damaged_header_is_refused(damage in prop::collection::vec((0..12usize, any::<u64>()), 1..4)) {
        let region = Region::create(8, 2).unwrap();
        let words = region.mapping.slice::<AtomicU64>(0, 12);
        let before: Vec<u64> = words.iter().map(|w| w.load(Relaxed)).collect();
        for (at, value) in damage {
            words[at].store(value, Relaxed);
        }
        let same = words.iter().zip(before).all(|(w, b)| w.load(Relaxed) == b);
        prop_assert_eq!(Region::adopt(dup(region.fd()).unwrap()).is_ok(), same);
    }

    /// Small changes, which are likelier to look right.
    #[test]
    fn a_header_with_one_flipped_bit_is_refused(at in 0..12usize, bit in 0..64u32) {
        let region = Region::create(8, 2).unwrap();
        let word = &region.mapping.slice::<AtomicU64>(0, 12)[at];
        word.fetch_xor(1 << bit, Relaxed);
        prop_assert!(Region::adopt(dup(region.fd()).unwrap()).is_err());
    }

    /// Whatever stands in the slots, reading them ends.
    #[test]
    fn slots_of_any_content_can_be_read(seed in any::<u64>()) {
        let region = Region::create(4, 2).unwrap();
        let all = region.len() / 8;
        let words = region.mapping.slice::<AtomicU64>(0, all);
        let mut x = seed | 1;
        for word in &words[512..] {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            word.store(x, Relaxed);
        }
        let region = adopted(&region);
        for slot in 0..4 {
            let slot = region.slot(slot).unwrap();
            let common = region.common(slot.index()).unwrap();
            let _ = (slot.hot().state(), slot.record(), common.record(), format!("{slot:?}"));
            common.wipe();
            prop_assert_eq!(common.key_material().to_words(), KeyMaterial::default().to_words());
        }
        prop_assert!(region.traces().count() <= 4);
    }
}

#[test]
fn threads_share_it() {
    let region = Region::create(2, 1).unwrap();
    std::thread::scope(|scope| {
        for slot in 0..2 {
            let hot = region.slot(slot).unwrap().hot();
            scope.spawn(move || (0..1000).for_each(|_| Hot::count(&hot.packets, 1)));
        }
    });
    for slot in 0..2 {
        assert_eq!(region.slot(slot).unwrap().hot().packets.load(Relaxed), 1000);
    }
}

#[test]
fn a_mapped_array_is_checked_for_size() {
    use crate::Mapped;
    use gm_abi::maps::SaSlot;
    let fd = fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    fs::ftruncate(&fd, 8192).unwrap();
    let one = Mapped::<SaSlot>::new(fd.as_fd(), 100).unwrap();
    let other = Mapped::<SaSlot>::new(fd.as_fd(), 100).unwrap();
    assert_eq!(one.len(), 100);
    one[99].spi.store(42, Relaxed);
    assert_eq!(other[99].spi.load(Relaxed), 42);
    assert_eq!(other[98].spi.load(Relaxed), 0);
    assert!(Mapped::<SaSlot>::new(fd.as_fd(), 0).is_err());
    assert!(Mapped::<SaSlot>::new(fd.as_fd(), usize::MAX).is_err());
}
