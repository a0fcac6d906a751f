//! Sealing and opening, whole: from an IP packet to an ESP packet and back,
//! with selectors, numbers, window, headers, IV and trailer, as a worker does
//! it, 64 packets at a time, the SAs round-robin.
//!
//! The size is that of the plain IP packet. Each measurement includes one copy
//! of every packet into its buffer, as if it came from a ring.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gm_engines::best;
use gm_esp::{
    BATCH, BufferedIv, Ck, Counter, EncapPort, EncapPorts, EspKeys, Ik, IvSource, MAX_FRONT, Mode,
    PacketBuf, Received, Sa, SaSpec, SelProto, Selected, Selector, Suite, Window, inbound,
    outbound,
};

const SIZES: [usize; 4] = [128, 384, 768, 1424];
const SAS: [usize; 2] = [1, 1024];
const WINDOW: u32 = 64;
const BUFFER: usize = 2048;

/// An SA with what changes beside it, as the region keeps it.
struct Slot {
    sa: Sa,
    sent: AtomicU64,
    top: AtomicU64,
    bits: [AtomicU64; Window::words(WINDOW)],
}

fn slots(suite: Suite, count: usize) -> Vec<Slot> {
    let slot = |i: usize| {
        let mut ik = [0x31; 16];
        ik[..8].copy_from_slice(&(i as u64).to_be_bytes());
        let keys = EspKeys::expand(suite, &Ik::from_bytes(ik), &Ck::from_bytes(ik));
        let spec = SaSpec {
            spi: 1_000_000_000 + i as u32,
            mode: Mode::Trans,
            selector: Selector {
                src: [192, 0, 2, 1].into(),
                dst: [192, 0, 2, 2].into(),
                src_port: Some(5060),
                dst_port: Some(5062),
                proto: SelProto::UdpTcp,
            },
            suite,
            outer: None,
            esn: false,
            replay_window: WINDOW,
        };
        Slot {
            sa: Sa::new(spec, &keys).expect("a good SA"),
            sent: AtomicU64::new(0),
            top: AtomicU64::new(0),
            bits: Default::default(),
        }
    };
    (0..count).map(slot).collect()
}

/// A UDP datagram of `size` bytes, IP header included.
fn plain(size: usize) -> Vec<u8> {
    let (total, udp) = (
        (size as u16).to_be_bytes(),
        (size as u16 - 20).to_be_bytes(),
    );
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    ip.extend_from_slice(&5060_u16.to_be_bytes());
    ip.extend_from_slice(&5062_u16.to_be_bytes());
    ip.extend_from_slice(&[udp[0], udp[1], 0, 0]);
    ip.resize(size, 0x6d);
    ip
}

/// Seals one batch for the SAs from `first` on; `sink` gets place and packet.
fn seal(
    slots: &[Slot],
    first: usize,
    plain: &[u8],
    buffers: &mut [Vec<u8>],
    iv: &mut impl IvSource,
    mut sink: impl FnMut(usize, &[u8]),
) {
    let mut batch: [_; BATCH] = std::array::from_fn(|_| None);
    for (i, (buffer, place)) in buffers.iter_mut().zip(&mut batch).enumerate() {
        let slot = &slots[(first + i) % slots.len()];
        let end = MAX_FRONT + plain.len();
        buffer[MAX_FRONT..end].copy_from_slice(plain);
        let packet = PacketBuf::new(buffer, MAX_FRONT, end);
        *place = Selected::new(packet, &slot.sa).ok().and_then(|selected| {
            let counter = Counter(&slot.sent);
            selected.number(&counter, EncapPorts::default(), iv).ok()
        });
    }
    outbound::seal(best(), &mut batch, |i, sealed| match sealed {
        Ok(sealed) => sink(i, sealed.packet().data()),
        Err(reason) => panic!("{}", reason.name()),
    });
}

/// Opens one batch of sealed packets; every window is fresh again first.
fn open(slots: &[Slot], first: usize, sealed: &[Vec<u8>], buffers: &mut [Vec<u8>]) -> usize {
    let window = |i: usize| {
        let slot = &slots[(first + i) % slots.len()];
        Window::new(&slot.top, &slot.bits, WINDOW).expect("a good window")
    };
    let mut batch: [_; BATCH] = std::array::from_fn(|_| None);
    for (i, (buffer, place)) in buffers.iter_mut().zip(&mut batch).enumerate() {
        let at = (first + i) % sealed.len();
        let slot = &slots[at % slots.len()];
        if slot.top.load(Ordering::Relaxed) >= sealed.len() as u64 / slots.len() as u64 {
            slot.top.store(0, Ordering::Relaxed);
        }
        let end = sealed[at].len();
        buffer[..end].copy_from_slice(&sealed[at]);
        let packet = PacketBuf::new(buffer, 0, end);
        let received = Received::parse(packet, EncapPort::Dst(4500)).ok();
        *place = received.and_then(|received| received.check(&slot.sa, &window(i)).ok());
    }
    let mut good = 0;
    inbound::open(best(), &mut batch, |i, opened| {
        let admitted = opened
            .and_then(|opened| opened.commit(&window(i)))
            .and_then(|committed| committed.admit());
        good += usize::from(black_box(admitted).is_ok());
    });
    good
}

fn esp(c: &mut Criterion) {
    let mut iv = BufferedIv::new(|bytes: &mut [u8]| {
        getrandom::fill(bytes).expect("the operating system has random bytes");
    });
    let mut buffers = vec![vec![0; BUFFER]; BATCH];
    for suite in Suite::every() {
        for count in SAS {
            for opening in [false, true] {
                let way = if opening { "open" } else { "seal" };
                let mut group = c.benchmark_group(format!("{way}/{suite}/{count} SA"));
                group
                    .sample_size(20)
                    .warm_up_time(Duration::from_millis(300))
                    .measurement_time(Duration::from_millis(1000));
                for size in SIZES {
                    group.throughput(Throughput::ElementsAndBytes {
                        elements: BATCH as u64,
                        bytes: (BATCH * size) as u64,
                    });
                    let slots = slots(suite, count);
                    let plain = plain(size);
                    let mut first = 0;
                    let mut sealed = vec![vec![]; count.max(BATCH)];
                    if opening {
                        for at in (0..sealed.len()).step_by(BATCH) {
                            seal(&slots, at, &plain, &mut buffers, &mut iv, |i, packet| {
                                sealed[at + i] = packet.to_vec();
                            });
                        }
                        assert_eq!(open(&slots, 0, &sealed, &mut buffers), BATCH);
                    }
                    group.bench_function(BenchmarkId::from_parameter(size), |b| {
                        b.iter(|| {
                            first = (first + BATCH) % count.max(BATCH);
                            if opening {
                                let good = open(&slots, first, &sealed, &mut buffers);
                                assert_eq!(good, BATCH, "every packet is new and good");
                            } else {
                                seal(&slots, first, &plain, &mut buffers, &mut iv, |_, packet| {
                                    black_box(packet);
                                });
                            }
                        });
                    });
                }
                group.finish();
            }
        }
    }
}

criterion_group!(benches, esp);
criterion_main!(benches);
