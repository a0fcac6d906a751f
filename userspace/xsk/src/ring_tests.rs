//! The rings over ordinary memory, the kernel's side played by the tests.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const AT: XdpRingOffset = XdpRingOffset {
    producer: 0,
    consumer: 64,
    desc: 192,
    flags: Some(128),
};

fn ring<T: Entry>(size: u32, start: u32) -> Ring<T> {
    let len = AT.desc as usize + size as usize * size_of::<T>();
    let words = Box::leak(vec![0u64; len.div_ceil(8)].into_boxed_slice());
    let memory = Memory::Heap {
        base: NonNull::from(words).cast(),
        len,
    };
    let ring = Ring::new(memory, &AT, size).unwrap();
    ring.producer().store(start, Ordering::Relaxed);
    ring.consumer().store(start, Ordering::Relaxed);
    ring
}

/// What the kernel does with a ring that the program fills.
fn kernel_takes(producer: &Producer<u64>, max: u32) -> Vec<u64> {
    let ring = &producer.ring;
    let consumer = ring.consumer().load(Ordering::Relaxed);
    let ready = ring
        .producer()
        .load(Ordering::Acquire)
        .wrapping_sub(consumer);
    assert!(ready <= ring.size, "the ring was overrun");
    let take = ready.min(max);
    let read = |n: u32| {
        let at = ring.entry(consumer.wrapping_add(n));
        // SAFETY: an entry of the ring.
        unsafe { at.read() }
    };
    let taken = (0..take).map(read).collect();
    ring.consumer()
        .store(consumer.wrapping_add(take), Ordering::Release);
    taken
}

/// What the kernel does with a ring that the program empties; false: full.
fn kernel_puts(consumer: &Consumer<u64>, value: u64) -> bool {
    let ring = &consumer.ring;
    let producer = ring.producer().load(Ordering::Relaxed);
    let used = producer.wrapping_sub(ring.consumer().load(Ordering::Acquire));
    if used == ring.size {
        return false;
    }
    // SAFETY: an entry of the ring.
    unsafe { ring.entry(producer).write(value) };
    ring.producer()
        .store(producer.wrapping_add(1), Ordering::Release);
    true
}

/// Starting points around the ends of 32 bits.
fn starts() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(u32::MAX),
        (0..40u32).prop_map(|n| u32::MAX - n),
        any::<u32>()
    ]
}

proptest! {
    #[test]
    fn a_producer_is_a_queue_also_where_the_index_wraps(
        start in starts(),
        steps in prop::collection::vec((0..12u32, 0..12u32), 1..200),
    ) {
        let mut producer = Producer::over(ring::<u64>(8, start));
        let mut model = VecDeque::new();
        let (mut next, mut pushed) = (0u64, 0u32);
        for (push, take) in steps {
            for _ in 0..push {
                let room = model.len() + (pushed as usize) < 8;
                prop_assert_eq!(producer.push(next), room);
                if room {
                    pushed += 1;
                    next += 1;
                }
            }
            // Not visible before it is submitted.
            prop_assert_eq!(kernel_takes(&producer, 0).len(), 0);
            let visible = producer.ring.producer().load(Ordering::Relaxed)
                .wrapping_sub(producer.ring.consumer().load(Ordering::Relaxed));
            prop_assert_eq!(visible as usize, model.len());
            producer.submit();
            model.extend(next - u64::from(pushed)..next);
            pushed = 0;
            prop_assert_eq!(producer.pending() as usize, model.len());
            for got in kernel_takes(&producer, take) {
                prop_assert_eq!(Some(got), model.pop_front());
            }
        }
    }

    #[test]
    fn a_consumer_is_a_queue_also_where_the_index_wraps(
        start in starts(),
        steps in prop::collection::vec((0..12u32, 0..12usize), 1..200),
    ) {
        let mut consumer = Consumer::over(ring::<u64>(8, start));
        let mut model = VecDeque::new();
        let mut next = 0u64;
        for (put, take) in steps {
            for _ in 0..put {
                let room = model.len() < 8;
                prop_assert_eq!(kernel_puts(&consumer, next), room);
                if room {
                    model.push_back(next);
                    next += 1;
                }
            }
            let mut got = Vec::new();
            let n = consumer.drain(take, |value| got.push(value));
            prop_assert_eq!(n, take.min(model.len()));
            prop_assert_eq!(got, model.drain(..n).collect::<Vec<_>>());
        }
    }

    /// Whatever stands in the kernel's index, no more entries are believed
    /// than the ring holds.
    #[test]
    fn an_impossible_index_counts_as_nothing(start in starts(), lie in any::<u32>()) {
        let mut consumer = Consumer::over(ring::<u64>(8, start));
        consumer.ring.producer().store(lie, Ordering::Relaxed);
        let ready = lie.wrapping_sub(start);
        let expected = if ready <= 8 { ready as usize } else { 0 };
        prop_assert_eq!(consumer.drain(usize::MAX, |_| ()), expected);

        let mut producer = Producer::over(ring::<u64>(8, start));
        producer.ring.consumer().store(lie, Ordering::Relaxed);
        let pending = start.wrapping_sub(lie);
        let mut pushed = 0;
        while pushed < 20 && producer.push(0) {
            pushed += 1;
        }
        prop_assert_eq!(pushed, 8u32.saturating_sub(pending));
    }
}

#[test]
fn offsets_that_point_outside_are_refused() {
    let with = |at: XdpRingOffset, size: u32| {
        let words = Box::leak(vec![0u64; 64].into_boxed_slice());
        let memory = Memory::Heap {
            base: NonNull::from(words).cast(),
            len: 512,
        };
        Ring::<Desc>::new(memory, &at, size).is_ok()
    };
    assert!(with(AT, 16));
    assert!(!with(AT, 32), "entries past the end");
    assert!(!with(AT, 12), "no power of two");
    assert!(!with(AT, 0), "no entries");
    assert!(!with(
        XdpRingOffset {
            producer: 510,
            ..AT
        },
        16
    ));
    assert!(
        !with(XdpRingOffset { producer: 2, ..AT }, 16),
        "not aligned"
    );
    assert!(!with(
        XdpRingOffset {
            consumer: u64::MAX,
            ..AT
        },
        16
    ));
    assert!(!with(XdpRingOffset { desc: 196, ..AT }, 16), "not aligned");
    assert!(
        !with(XdpRingOffset { flags: None, ..AT }, 16),
        "a kernel before 5.4"
    );
}

#[test]
fn the_wakeup_flag_is_read_every_time() {
    let producer = Producer::over(ring::<u64>(8, 0));
    assert!(!producer.needs_wakeup());
    // SAFETY: within the ring's memory.
    unsafe { producer.ring.flags.as_ref() }.store(NEED_WAKEUP | 2, Ordering::Relaxed);
    assert!(producer.needs_wakeup());
}
