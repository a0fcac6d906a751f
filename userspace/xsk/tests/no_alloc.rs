//! A worker touches no heap between the frame that came in and the frame that
//! is to leave, whatever the batch.
//!
//! The counting allocator needs unsafe, so the test lives behind this crate's
//! fence though it drives gm-dataplane.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gm_dataplane::line::Line;
use gm_engines::best;
use gm_esp::Suite;

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Gone while the thread ends; nobody counts then.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call goes to the system's allocator with its arguments; the
// count beside it is a thread-local without destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise, handed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, handed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator while `work` runs, in this thread.
fn calls(work: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    work();
    CALLS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(calls(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

const PHONES: u32 = 100;

#[test]
fn a_batch_of_any_size_allocates_nothing_on_its_way_through_a_worker() {
    for suite in Suite::ALL {
        let mut line = Line::new(PHONES, suite, best());
        let mut good = 0;
        // The first turn makes the room that the others have.
        for (turn, batch) in [64, 1, 2, 8, 9, 63, 64].into_iter().enumerate() {
            let phones = (0..batch).map(|i| (i * 37 + turn as u32) % PHONES);
            line.arrive(phones.clone(), 356);
            let opening = calls(|| line.inbound());
            assert_eq!(line.take(), batch as usize);
            line.leave(phones, 356);
            let sealing = calls(|| line.outbound());
            assert_eq!(line.take(), batch as usize);
            good += 2 * u64::from(batch);
            assert_eq!(line.counts(), (good, 0));
            if turn > 0 {
                assert_eq!((opening, sealing), (0, 0), "{suite} {batch}");
            }
        }
    }
}

#[test]
fn nor_does_a_batch_of_what_is_dropped() {
    let mut line = Line::new(PHONES, Suite::NullAesGcm, best());
    for turn in 0..3 {
        line.arrive(0..64, 356);
        line.forge();
        let opening = calls(|| line.inbound());
        assert_eq!((line.take(), line.counts()), (0, (0, 64 * (turn + 1))));
        if turn > 0 {
            assert_eq!(opening, 0);
        }
    }
}
