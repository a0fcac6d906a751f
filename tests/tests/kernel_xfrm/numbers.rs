//! Numbers and windows go into the kernel and come back to the bit.

use gm_esp::Suite;
use gm_tests::netns::NetNs;
use gm_xfrm::kernel::Numbers;
use gm_xfrm::kernel::plan::Dir;

use crate::ground::{Way, plan_of, tables};

#[test]
#[ignore = "needs a kernel with ESP"]
fn numbers_and_windows_are_set_and_read_to_the_bit() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let mut spi = 0x1000;
        for esn in [false, true] {
            for window in [32, 64, 100, 128, 1024, 4096] {
                let tops: &[u64] = match esn {
                    false => &[0, 1, 5, 31, 32, 33, 4095, 4096, 70_000, 0xffff_ffff],
                    true => &[
                        0,
                        1,
                        33,
                        0xffff_ffff,
                        0x1_0000_0000,
                        0x1_0000_0005,
                        0x7_ffff_fff0,
                    ],
                };
                spi += 1;
                let mut plan = plan_of(spi, Suite::HmacSha1Null, Way::Trans4, Dir::In);
                let id = plan.state.id;
                for (n, top) in tops.iter().rev().enumerate() {
                    let numbers =
                        Numbers::with_window(top / 2 + 3, *top, window, esn, |k| k % 3 == 1);
                    let case = format!("window {window} top {top} ESN {esn}");
                    if n == 0 {
                        plan.state.numbers = numbers.clone();
                        let made = xfrm.add_state(&plan.state);
                        made.unwrap_or_else(|e| panic!("{case}: {e}"));
                    }
                    let set = xfrm.set_numbers(id, &numbers);
                    set.unwrap_or_else(|e| panic!("{case}: {e}"));
                    assert_eq!(xfrm.state(id).expect("a state").numbers, numbers, "{case}");
                    assert_eq!(xfrm.numbers(id).expect("numbers"), numbers, "{case}");
                    let wrong = Numbers::fresh(if window == 64 { 128 } else { 64 }, esn);
                    xfrm.set_numbers(id, &wrong).expect_err("another size");
                    let wrong = Numbers::fresh(window, !esn);
                    xfrm.set_numbers(id, &wrong).expect_err("another form");
                }
            }
        }
    });
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn the_old_form_of_the_window_is_set_and_read() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let mut plan = plan_of(0x1000, Suite::HmacSha1Null, Way::Trans4, Dir::In);
        let mut numbers = Numbers::with_window(17, 40, 32, false, |k| k % 5 == 0);
        numbers.legacy = true;
        plan.state.numbers = numbers.clone();
        xfrm.add_state(&plan.state).expect("a state");
        assert_eq!(xfrm.numbers(plan.state.id).expect("numbers"), numbers);
        let new = Numbers::fresh(32, false);
        xfrm.set_numbers(plan.state.id, &new)
            .expect_err("the new form");
        (numbers.seq, numbers.top) = (18, 41);
        xfrm.set_numbers(plan.state.id, &numbers)
            .expect("the old form");
        assert_eq!(xfrm.state(plan.state.id).expect("a state").numbers, numbers);
    });
}
