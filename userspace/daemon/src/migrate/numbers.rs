//! One side's sequence numbers and window in the other's terms. Both count a
//! window's bits from its top down.

use gm_api::sad::Dir;
use gm_dataplane::Numbers;
use gm_xfrm::kernel;

/// What our data plane goes on with. Numbers that the kernel's window does not
/// tell of count as accepted; a kernel that keeps no window knows of none.
pub fn from_kernel(dir: Dir, kernel: &kernel::Numbers) -> Numbers {
    if dir == Dir::Out {
        return Numbers {
            last: kernel.seq,
            seen: Vec::new(),
        };
    }
    let mut seen = kernel.seen.clone();
    let known = kernel.window as usize;
    seen.truncate(known.div_ceil(64));
    // Bits of the last word that are outside the window say nothing.
    if let Some(word) = seen
        .get_mut(known / 64)
        .filter(|_| !known.is_multiple_of(64))
    {
        *word |= !0 << (known % 64);
    }
    Numbers {
        last: kernel.top,
        seen,
    }
}

/// What the kernel goes on with; outbound `ahead` numbers further. `None`: there
/// are not that many numbers left.
pub fn to_kernel(
    dir: Dir,
    was: &kernel::Numbers,
    ours: &Numbers,
    ahead: u64,
) -> Option<kernel::Numbers> {
    match dir {
        Dir::Out => {
            let mut numbers = was.clone();
            numbers.seq = ours.last.checked_add(ahead)?;
            let limit = if was.esn { u64::MAX } else { u32::MAX.into() };
            (numbers.seq < limit).then_some(numbers)
        }
        // At the switch what has gone by way of a worker is overtaken by what has
        // not: the kernel gets the largest window, whatever it had.
        Dir::In => Some(kernel::Numbers::with_window(
            0,
            ours.last,
            kernel::MAX_WINDOW,
            was.esn,
            |back| ours.has_seen(back.into()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel_window(window: u32, top: u64, seen: impl Fn(u32) -> bool) -> kernel::Numbers {
        let mut numbers = kernel::Numbers {
            top,
            window,
            seen: vec![0; window.div_ceil(64) as usize],
            ..kernel::Numbers::default()
        };
        for back in (0..window).filter(|b| u64::from(*b) < top && (*b == 0 || seen(*b))) {
            numbers.seen[(back / 64) as usize] |= 1 << (back % 64);
        }
        numbers
    }

    #[test]
    fn outbound_goes_on_behind_the_last_number_and_back_with_room_in_between() {
        let was = kernel::Numbers::fresh(32, false).after(4711);
        let ours = from_kernel(Dir::Out, &was);
        assert_eq!((ours.last, ours.seen.len()), (4711, 0));
        let back = to_kernel(Dir::Out, &was, &ours, 1024).unwrap();
        assert_eq!(back.seq, 4711 + 1024);
        // Not past the end.
        let used = Numbers {
            last: u64::from(u32::MAX) - 1024,
            seen: Vec::new(),
        };
        assert_eq!(to_kernel(Dir::Out, &was, &used, 1024), None);
        let esn = kernel::Numbers::fresh(32, true);
        assert!(to_kernel(Dir::Out, &esn, &used, 1024).is_some());
    }

    #[test]
    fn windows_of_any_size_come_and_go_to_the_bit() {
        for window in [0, 32, 64, 100, 128, 4096] {
            for top in [0, 1, 31, 40, 5000] {
                let was = kernel_window(window, top, |back| back % 3 != 1);
                let ours = from_kernel(Dir::In, &was);
                assert_eq!(ours.last, top);
                let back = to_kernel(Dir::In, &was, &ours, 1024).unwrap();
                assert_eq!((back.top, back.window), (top, kernel::MAX_WINDOW));
                for k in 0..top.min(kernel::MAX_WINDOW.into()) {
                    // What the kernel did not know of is not let in again.
                    let want = k >= window.into() || k % 3 != 1;
                    assert_eq!(ours.has_seen(k), want, "{window} {top} {k}");
                    assert_eq!(back.is_seen(top - k), want, "{window} {top} {k}, back");
                }
                assert!(!back.is_seen(top + 1));
            }
        }
    }
}
