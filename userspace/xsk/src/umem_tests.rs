//! Every frame is in one place, whatever the kernel says.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[test]
fn frames_are_distinct_and_come_back() {
    let mut umem = Umem::new(8).unwrap();
    let frames: Vec<Frame> = std::iter::from_fn(|| umem.alloc()).collect();
    assert_eq!(
        (frames.len(), umem.free_count(), umem.outstanding()),
        (8, 0, 8)
    );
    let places: HashSet<_> = frames.iter().map(|f| f.chunk().as_ptr()).collect();
    assert_eq!(places.len(), 8);
    frames.into_iter().for_each(|f| umem.free(f));
    assert_eq!(
        (umem.free_count(), umem.outstanding(), umem.leaked()),
        (8, 0, 0)
    );
}

#[test]
fn many_frames_are_writable_at_once_and_keep_their_own() {
    let mut umem = Umem::new(4).unwrap();
    let mut frames: Vec<Frame> = std::iter::from_fn(|| umem.alloc()).collect();
    let mut open: Vec<&mut [u8]> = frames.iter_mut().map(|f| f.chunk_mut().0).collect();
    for (i, chunk) in open.iter_mut().enumerate() {
        chunk.fill(i as u8);
    }
    for (i, frame) in frames.iter().enumerate() {
        assert!(frame.chunk().iter().all(|b| *b == i as u8));
    }
    frames.into_iter().for_each(|f| umem.free(f));
}

#[test]
fn ranges_stay_within_the_frame() {
    let mut umem = Umem::new(1).unwrap();
    let mut frame = umem.alloc().unwrap();
    assert_eq!((frame.start(), frame.end()), (HEADROOM, HEADROOM));
    assert!(frame.is_empty());
    assert!(frame.set_range(0, FRAME_SIZE) && frame.len() == FRAME_SIZE);
    assert_eq!(frame.metadata(), None);
    for (start, end) in [
        (0, FRAME_SIZE + 1),
        (2, 1),
        (FRAME_SIZE + 1, FRAME_SIZE + 1),
        (0, 70_000),
    ] {
        assert!(!frame.set_range(start, end), "{start}..{end}");
        assert_eq!(frame.len(), FRAME_SIZE);
    }
    assert!(frame.write(b"packet") && frame.data() == b"packet");
    assert!(!frame.write(&[0; FRAME_SIZE - HEADROOM + 1]));
    assert_eq!(frame.data(), b"packet");
    umem.free(frame);
}

#[test]
fn a_dropped_frame_is_counted_and_its_memory_stays() {
    let mut umem = Umem::new(2).unwrap();
    drop(umem.alloc().unwrap());
    assert_eq!(
        (umem.leaked(), umem.outstanding(), umem.free_count()),
        (1, 1, 1)
    );
    let mut late = umem.alloc().unwrap();
    drop(umem);
    late.chunk_mut().0.fill(7);
    let thread = std::thread::spawn(move || late.chunk()[0]);
    assert_eq!(thread.join().unwrap(), 7);
}

#[test]
fn a_frame_of_another_umem_is_not_taken() {
    let (mut one, mut other) = (Umem::new(1).unwrap(), Umem::new(1).unwrap());
    let frame = one.alloc().unwrap();
    other.free(frame);
    assert_eq!((other.free_count(), other.leaked()), (1, 0));
    assert_eq!((one.free_count(), one.leaked()), (0, 1));
}

#[test]
fn sizes_are_bounded() {
    assert!(Umem::new(0).is_err());
    assert!(Umem::new((1 << 24) + 1).is_err());
}

#[test]
fn metadata_of_an_earlier_packet_is_gone() {
    let mut umem = Umem::new(1).unwrap();
    let mut frame = umem.alloc().unwrap();
    frame.chunk_mut().0.fill(0xaa);
    umem.free(frame);
    let addr = umem.lend_to_fill(0).unwrap();
    let frame = umem.take_received(0, addr + HEADROOM as u64, 60).unwrap();
    assert_eq!(frame.metadata(), Some([0; METADATA]));
    assert_eq!(frame.data(), [0xaa; 60]);
    umem.free(frame);
}

#[derive(Clone, Debug)]
enum Step {
    Alloc,
    Free,
    Fill(u16),
    Received(u16, u64, u32),
    Send(u16),
    Sent(u16, u64),
    Close(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let socket = 0..2u16;
    // Addresses in and around a umem of 6 frames, and anything at all.
    let addr = || prop_oneof![4 => 0..7 * FRAME_SIZE as u64, 1 => any::<u64>()];
    let len = prop_oneof![4 => 0..FRAME_SIZE as u32, 1 => any::<u32>()];
    prop::collection::vec(
        prop_oneof![
            Just(Step::Alloc),
            Just(Step::Free),
            socket.clone().prop_map(Step::Fill),
            (socket.clone(), addr(), len).prop_map(|(s, a, l)| Step::Received(s, a, l)),
            socket.clone().prop_map(Step::Send),
            (socket.clone(), addr()).prop_map(|(s, a)| Step::Sent(s, a)),
            socket.prop_map(Step::Close),
        ],
        0..300,
    )
}

#[test]
fn dropped_frames_are_taken_back_once_no_other_is_out() {
    let mut umem = Umem::new(4).unwrap();
    let kept = umem.alloc().unwrap();
    drop(umem.alloc());
    drop(umem.alloc());
    assert_eq!((umem.leaked(), umem.free_count()), (2, 1));
    // Which of three it were nobody knows while one is alive.
    assert!(!umem.take_dropped());
    assert_eq!((umem.leaked(), umem.free_count()), (2, 1));
    umem.free(kept);
    assert!(umem.take_dropped());
    assert_eq!((umem.leaked(), umem.outstanding()), (0, 0));
    let all: Vec<Frame> = std::iter::from_fn(|| umem.alloc()).collect();
    assert_eq!(all.len(), 4);
    all.into_iter().for_each(|f| umem.free(f));
    // With the kernel's frames it has nothing to do.
    let _lent = umem.lend_to_fill(0).unwrap();
    assert!(umem.take_dropped());
    assert_eq!((umem.in_kernel(), umem.free_count()), (1, 3));
}

proptest! {
    /// Any program with any kernel: what the kernel returns is believed only
    /// for frames that this socket has lent it for this purpose.
    #[test]
    fn no_frame_is_lost_or_owned_twice(steps in steps()) {
        const N: usize = 6;
        let mut umem = Umem::new(N).unwrap();
        let mut mine: Vec<Frame> = Vec::new();
        let (mut fill, mut tx) = (HashSet::new(), HashSet::new());
        for step in steps {
            match step {
                Step::Alloc => mine.extend(umem.alloc()),
                Step::Free => if let Some(f) = mine.pop() { umem.free(f) },
                Step::Fill(s) => if let Some(a) = umem.lend_to_fill(s) {
                    prop_assert!(fill.insert((s, a / FRAME_SIZE as u64)));
                },
                Step::Received(s, a, l) => {
                    let known = fill.contains(&(s, a / FRAME_SIZE as u64));
                    let fits = a % FRAME_SIZE as u64 + u64::from(l) <= FRAME_SIZE as u64;
                    let frame = umem.take_received(s, a, l);
                    prop_assert_eq!(frame.is_some(), known && fits);
                    if let Some(f) = frame {
                        fill.remove(&(s, a / FRAME_SIZE as u64));
                        prop_assert_eq!(f.len(), l as usize);
                        mine.push(f);
                    }
                }
                Step::Send(s) => if let Some(f) = mine.pop() {
                    let (a, _) = umem.lend_to_tx(s, f);
                    prop_assert!(tx.insert((s, a / FRAME_SIZE as u64)));
                },
                Step::Sent(s, a) => {
                    let known = tx.remove(&(s, a / FRAME_SIZE as u64));
                    prop_assert_eq!(umem.take_sent(s, a), known);
                }
                Step::Close(s) => {
                    umem.reclaim(s);
                    fill.retain(|(of, _)| *of != s);
                    tx.retain(|(of, _)| *of != s);
                }
            }
            prop_assert_eq!(umem.outstanding(), mine.len());
            prop_assert_eq!(umem.in_kernel(), fill.len() + tx.len());
            prop_assert_eq!(umem.free_count() + mine.len() + fill.len() + tx.len(), N);
            let places: HashSet<_> = mine.iter().map(|f| f.chunk().as_ptr()).collect();
            prop_assert_eq!(places.len(), mine.len());
        }
        mine.into_iter().for_each(|f| umem.free(f));
        prop_assert_eq!(umem.leaked(), 0);
    }
}
