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
