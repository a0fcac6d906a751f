//! The window against a model that remembers everything.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What RFC 4303 3.4.3 says, with a set instead of bits.
struct Model {
    size: u64,
    top: u64,
    seen: BTreeSet<u64>,
}

impl Model {
    fn judge(&self, seq: u64) -> Result<(), Reason> {
        if seq == 0 {
            Err(Reason::Replay)
        } else if self.top >= self.size && seq <= self.top - self.size {
            Err(Reason::Stale)
        } else if self.seen.contains(&seq) {
            Err(Reason::Replay)
        } else {
            Ok(())
        }
    }

    fn take(&mut self, seq: u64) -> Result<(), Reason> {
        self.judge(seq)?;
        self.seen.insert(seq);
        self.top = self.top.max(seq);
        Ok(())
    }
}

/// Where the next number is, seen from the top.
#[derive(Clone, Debug)]
enum Step {
    Back(u64),
    Forward(u64),
    To(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..100_u64).prop_map(Step::Back),
        4 => (0..5000_u64).prop_map(Step::Back),
        4 => (1..4_u64).prop_map(Step::Forward),
        2 => (1..300_u64).prop_map(Step::Forward),
        1 => (1..10_000_u64).prop_map(Step::Forward),
        1 => (0..200_u64).prop_map(Step::To),
        1 => any::<u32>().prop_map(|seq| Step::To(seq.into())),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #[test]
    fn agrees_with_a_set(size in 32..=4096_u32, start in prop_oneof![Just(0), 0..1_u64 << 33], steps in steps()) {
        let owned = OwnedWindow::new(size).unwrap();
        let window = owned.window();
        let mut model = Model { size: size.into(), top: 0, seen: BTreeSet::new() };
        if start > 0 {
            prop_assert_eq!(window.commit(start), Ok(()));
            prop_assert_eq!(model.take(start), Ok(()));
        }
        for step in steps {
            let seq = match step {
                Step::Back(by) => model.top.saturating_sub(by),
                Step::Forward(by) => model.top.saturating_add(by),
                Step::To(seq) => seq,
            };
            prop_assert_eq!(window.check(seq), model.judge(seq), "check {}", seq);
            prop_assert_eq!(window.commit(seq), model.take(seq), "commit {}", seq);
            prop_assert_eq!(window.top(), model.top);
        }
        // Not only what was asked for: the window as a whole.
        for seq in model.top.saturating_sub(u64::from(size) + 130)..=model.top.saturating_add(3) {
            prop_assert_eq!(window.check(seq), model.judge(seq), "in the end {}", seq);
        }
        // XDP's hint says of its numbers what the model says.
        for cell in window.newest::<4>().into_iter().filter(|cell| *cell != 0) {
            for bit in 0..32 {
                let seq = (cell >> 32) * 32 + bit;
                if seq <= model.top && seq + u64::from(size) > model.top {
                    prop_assert_eq!(cell >> bit & 1 == 1, model.seen.contains(&seq), "cell {}", seq);
                }
            }
        }
    }

    #[test]
    fn an_esn_is_the_number_within_reach(
        size in 32..=4096_u32,
        top in prop_oneof![1..1_u64 << 34, (1..3_u64, -5000..5000_i64).prop_map(|(high, low)| (high << 32).wrapping_add_signed(low))],
        ahead in prop_oneof![-4096..4096_i64, -4096..(1_i64 << 32) - 4096],
    ) {
        let size64 = i64::from(size);
        let ahead = ahead.clamp(1 - size64, (1 << 32) - size64);
        let seq = top.saturating_add_signed(ahead);
        prop_assume!(seq > 0);
        let owned = OwnedWindow::new(size).unwrap();
        owned.window().commit(top).unwrap();
        prop_assert_eq!(owned.window().full_seq(seq as u32), seq);
    }
}

#[test]
fn is_exactly_as_wide_as_it_says() {
    for size in [32, 33, 63, 64, 65, 96, 127, 128, 1000, 4095, 4096] {
        for top in [u64::from(size), 10_000, 10_047, 1 << 32, u64::MAX] {
            let owned = OwnedWindow::new(size).unwrap();
            let window = owned.window();
            window.commit(top).unwrap();
            let left = top - u64::from(size);
            let edge = if left == 0 {
                Reason::Replay
            } else {
                Reason::Stale
            };
            assert_eq!(window.check(left), Err(edge), "{size} {top}");
            assert_eq!(window.commit(left + 1), Ok(()), "{size} {top}");
            assert_eq!(window.commit(left + 1), Err(Reason::Replay));
            assert_eq!(window.top(), top);
        }
    }
}

#[test]
fn the_first_number_of_esn_is_low() {
    let owned = OwnedWindow::new(64).unwrap();
    assert_eq!(owned.window().full_seq(1), 1);
    // Nothing lies before the first subspace.
    assert_eq!(owned.window().full_seq(u32::MAX), u64::from(u32::MAX));
    owned.window().commit(u64::from(u32::MAX)).unwrap();
    assert_eq!(owned.window().full_seq(3), (1 << 32) + 3);
}

#[test]
fn a_death_between_top_and_bits_takes_nothing_twice() {
    let owned = OwnedWindow::new(64).unwrap();
    for seq in 1..=100 {
        owned.window().commit(seq).unwrap();
    }
    // As if the process had died after the first write of a commit.
    owned.top.store(300, Ordering::Relaxed);
    let window = owned.window();
    for seq in 0..=300 {
        let fresh = window.check(seq).is_ok();
        assert!(
            !fresh || seq > 236,
            "{seq} was accepted before, or is stale"
        );
    }
    assert_eq!(window.commit(301), Ok(()));
    assert_eq!(window.commit(301), Err(Reason::Replay));
}

#[test]
fn memory_and_size_must_fit() {
    let top = AtomicU64::new(0);
    let bits: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
    assert!(Window::new(&top, &bits, 128).is_ok());
    assert!(Window::new(&top, &bits, 64).is_ok());
    assert_eq!(
        Window::new(&top, &bits, 129).unwrap_err(),
        WindowError::Words { needs: 4, has: 3 }
    );
    for size in [0, 31, 4097] {
        let error = Window::new(&top, &bits, size).unwrap_err();
        assert_eq!(error, WindowError::Size(size));
        assert_eq!(OwnedWindow::new(size).unwrap_err(), WindowError::Size(size));
    }
}

#[test]
fn a_window_goes_on_over_the_same_memory() {
    let top = AtomicU64::new(0);
    let bits: Vec<AtomicU64> = (0..70).map(|_| AtomicU64::new(0)).collect();
    Window::new(&top, &bits, 64).unwrap().commit(5).unwrap();
    let window = Window::new(&top, &bits, 64).unwrap();
    assert_eq!(window.check(5), Err(Reason::Replay));
    assert_eq!(window.check(4), Ok(()));
}
