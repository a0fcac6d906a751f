use std::collections::BTreeSet;

use gm_esp::OwnedWindow;
use proptest::prelude::*;

use super::*;

/// The kernel's ring as it comes about packet by packet: each number has the
/// bit of (number - 1) modulo the window, and going on clears what lies
/// between. Numbers are taken in this order.
fn ring(window: u32, numbers: &[u64]) -> (u64, Vec<bool>) {
    let mut bits = vec![false; window as usize];
    let place = |n: u64| ((n as u32).wrapping_sub(1) % window) as usize;
    let mut top = 0;
    for n in numbers {
        if *n > top {
            for between in (top + 1..*n).rev().take(window as usize) {
                bits[place(between)] = false;
            }
            top = *n;
        } else if top - n >= u64::from(window) {
            continue;
        }
        bits[place(*n)] = true;
    }
    (top, bits)
}

fn bits_of(value: &[u8], window: u32) -> Vec<bool> {
    (0..window)
        .map(|place| {
            let word = u32_at(value, HEAD + 4 * (place / 32) as usize).expect("a word");
            word >> (place % 32) & 1 == 1
        })
        .collect()
}

fn windows() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![32u32, 64, 128, 256, 1024, 4096])
}

/// Numbers near each other, from somewhere on.
fn arrivals() -> impl Strategy<Value = Vec<u64>> {
    let begin = prop_oneof![
        Just(1u64),
        1..100_000u64,
        Just(0xffff_ff00u64),
        Just(1 << 40)
    ];
    let steps = prop::collection::vec(0u64..200, 1..300);
    (begin, steps).prop_map(|(begin, steps)| {
        let mut at = begin;
        let number = |step: u64| {
            at = (at + step).saturating_sub(60).max(begin);
            at
        };
        steps.into_iter().map(number).collect()
    })
}

proptest! {
    /// What came into gm-esp's window is what the kernel's ring would say.
    #[test]
    fn the_ring_is_the_kernels(window in windows(), arrivals in arrivals(), seq in any::<u64>()) {
        let ours = OwnedWindow::new(window).expect("a window");
        let mut accepted = BTreeSet::new();
        for n in &arrivals {
            if ours.window().commit(*n).is_ok() {
                accepted.insert(*n);
            }
        }
        let top = ours.window().top();
        let numbers = Numbers::with_window(seq, top, window, true, |back| {
            ours.window().check(top - u64::from(back)).is_err()
        });
        let value = esn_out(&numbers);
        let (kernel_top, bits) = ring(window, &arrivals);
        prop_assert_eq!(top, kernel_top);
        prop_assert_eq!(bits_of(&value, window), bits);

        let back = esn_in(&value, true).expect("what was written");
        prop_assert_eq!(&back, &numbers);
        for n in top.saturating_sub(u64::from(window) + 3)..top + 3 {
            let seen = ours.window().check(n).is_err();
            prop_assert_eq!(back.is_seen(n), seen, "{}", n);
        }
    }

    /// Any bytes give numbers within bounds, or an error.
    #[test]
    fn damage_is_an_error_or_within_bounds(value in prop::collection::vec(any::<u8>(), 0..600), window in any::<u8>()) {
        if let Ok(numbers) = esn_in(&value, true) {
            prop_assert!(numbers.window <= MAX_WINDOW);
        }
        if let Ok(numbers) = legacy_in(&value, window) {
            prop_assert!(numbers.window <= 32);
            prop_assert_eq!(&legacy_out(&numbers)[..8], &value[..8]);
        }
    }
}

#[test]
fn without_esn_the_high_halves_are_nothing() {
    let mut numbers = Numbers::fresh(32, false).after(7 << 32 | 5);
    numbers.top = 9 << 32 | 8;
    let value = esn_out(&numbers);
    let back = esn_in(&value, false).expect("numbers");
    assert_eq!((back.seq, back.top, back.esn), (5, 8, false));
    // Nor when the kernel has something there.
    let mut value = value;
    value[12..20].fill(0xff);
    let back = esn_in(&value, false).expect("numbers");
    assert_eq!((back.seq, back.top), (5, 8));
}

#[test]
fn the_old_form_has_the_newest_in_its_lowest_bit() {
    let mut numbers = Numbers::with_window(3, 40, 32, false, |back| back == 2 || back == 31);
    numbers.legacy = true;
    let value = legacy_out(&numbers);
    assert_eq!(u32_at(&value, 8), Some(1 | 1 << 2 | 1 << 31));
    assert_eq!(legacy_in(&value, 32).expect("numbers"), numbers);
    // A window that is said to be larger is not.
    assert_eq!(legacy_in(&value, 200).expect("numbers").window, 32);
}

#[test]
fn each_bound_is_one() {
    let value = esn_out(&Numbers::fresh(4096, true));
    assert_eq!(value.len(), 24 + 512);
    assert!(esn_in(&value, true).is_ok());
    assert!(esn_in(&value[..24 + 511], true).is_err());
    assert!(esn_in(&value[..23], true).is_err());
    // One more number than bits, and than the kernel has.
    let mut more = value.clone();
    more[20..24].copy_from_slice(&4097u32.to_ne_bytes());
    assert!(esn_in(&more, true).is_err());
    let mut small = esn_out(&Numbers::fresh(32, true));
    small[20..24].copy_from_slice(&33u32.to_ne_bytes());
    assert!(esn_in(&small, true).is_err());
    // No window at all is one of 0.
    let none = [0; 24];
    assert_eq!(esn_in(&none, true).expect("numbers").window, 0);
    assert!(legacy_in(&[0; 11], 32).is_err());
}
