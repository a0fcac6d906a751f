//! Asking for memory before it is needed.

/// Cache lines of one value at most: more is for whoever reads them in order.
const MOST: usize = 16;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks the processor to fetch a value's cache lines, the first 1024 bytes at
/// most. Changes nothing but the time that the next access takes; on
/// processors other than x86-64 not even that.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    let begin = std::ptr::from_ref(value).cast::<u8>();
    // A value may begin within a line: its last byte's line counts, too.
    let lines = (begin.addr() % LINE + size_of_val(value)).div_ceil(LINE);
    for line in 0..lines.min(MOST) {
        fetch(begin.wrapping_add(line * LINE));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; it reads nothing that the program could see, and an
    // address that is not mapped is no error.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn fetch(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_leaves_everything_as_it_is() {
        for len in [0, 1, 64, 65, 5000] {
            let bytes = vec![7u8; len];
            prefetch(bytes.as_slice());
            assert!(bytes.iter().all(|b| *b == 7));
        }
    }
}
