//! Opening and sealing touch no heap, from the IP packet to the IP packet.
//!
//! The counting allocator needs unsafe, so the test lives behind this crate's
//! fence though it drives gm-esp, too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::AtomicU64;

use gm_engines::best;
use gm_esp::{
    BATCH, BufferedIv, Ck, Counter, EncapPort, EncapPorts, EspKeys, Ik, MAX_BACK, MAX_FRONT, Mode,
    Outer, OwnedWindow, PacketBuf, Received, Sa, SaSpec, SelProto, Selected, Selector, Suite,
    inbound, outbound,
};

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

fn sa(suite: Suite, mode: Mode, esn: bool) -> Sa {
    let keys = EspKeys::expand(suite, &Ik::from_bytes([1; 16]), &Ck::from_bytes([2; 16]));
    let (src, dst) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let spec = SaSpec {
        spi: 1_000_000_000,
        mode,
        selector: Selector {
            src,
            dst,
            src_port: Some(9),
            dst_port: Some(9),
            proto: SelProto::UdpTcp,
        },
        suite,
        outer: (mode == Mode::UdpEncTun).then_some(Outer {
            src,
            dst,
            sport: None,
            dport: Some(4500),
        }),
        esn,
        replay_window: 4096,
    };
    Sa::new(spec, &keys).unwrap()
}

fn plain(payload: usize) -> Vec<u8> {
    let (total, udp) = (28 + payload as u16, 8 + payload as u16);
    let mut ip = vec![
        0x45,
        0,
        (total >> 8) as u8,
        total as u8,
        0,
        0,
        0,
        0,
        64,
        17,
        0,
        0,
    ];
    ip.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2, 0, 9, 0, 9]);
    ip.extend_from_slice(&[(udp >> 8) as u8, udp as u8, 0, 0]);
    ip.resize(28 + payload, 0x55);
    ip
}

#[test]
fn the_counter_counts() {
    assert_eq!(calls(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn sealing_and_opening_allocate_nothing() {
    for suite in Suite::every() {
        for mode in [Mode::Trans, Mode::UdpEncTun] {
            for esn in [false, true] {
                for count in [1, 5, BATCH] {
                    round_trip(&sa(suite, mode, esn), count);
                }
            }
        }
    }
}

fn round_trip(sa: &Sa, count: usize) {
    let plain = plain(1000);
    let mut buffers = vec![vec![0; MAX_FRONT + plain.len() + MAX_BACK]; count];
    let sent = AtomicU64::new(0);
    let window = OwnedWindow::new(sa.replay_window()).unwrap();
    let mut iv = BufferedIv::new(|bytes: &mut [u8]| bytes.fill(7));
    let mut ranges = vec![(0, 0); count];
    let (mut sealed, mut opened) = (0, 0);

    let sealing = calls(|| {
        let mut batch: [_; BATCH] = std::array::from_fn(|_| None);
        for (buffer, slot) in buffers.iter_mut().zip(&mut batch) {
            let end = MAX_FRONT + plain.len();
            buffer[MAX_FRONT..end].copy_from_slice(&plain);
            let packet = PacketBuf::new(buffer, MAX_FRONT, end);
            *slot = Selected::new(packet, sa).ok().and_then(|selected| {
                let counter = Counter(&sent);
                selected
                    .number(&counter, EncapPorts::default(), &mut iv)
                    .ok()
            });
        }
        outbound::seal(best(), &mut batch, |i, packet| {
            if let Ok(packet) = packet {
                ranges[i] = (packet.packet().start(), packet.packet().end());
                sealed += 1;
            }
        });
    });
    let opening = calls(|| {
        let mut batch: [_; BATCH] = std::array::from_fn(|_| None);
        for ((buffer, (start, end)), slot) in buffers.iter_mut().zip(&ranges).zip(&mut batch) {
            let packet = PacketBuf::new(buffer, *start, *end);
            let received = Received::parse(packet, EncapPort::Dst(4500)).ok();
            *slot = received.and_then(|received| received.check(sa, &window.window()).ok());
        }
        inbound::open(best(), &mut batch, |_, packet| {
            let admitted = packet
                .and_then(|packet| packet.commit(&window.window()))
                .and_then(|packet| packet.admit());
            if admitted.is_ok_and(|admitted| admitted.packet().data()[12..] == plain[12..]) {
                opened += 1;
            }
        });
    });
    assert_eq!((sealed, opened), (count, count));
    let name = (sa.suite(), sa.mode(), sa.esn(), count);
    assert_eq!((sealing, opening), (0, 0), "{name:?}");
}
