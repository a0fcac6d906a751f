//! A worker without rings for the fuzz target `batch` (tests/fuzz): batches of
//! frames with and without metadata of XDP, from an honest phone, from whoever
//! changes, repeats and forges, and from the local stack; commands in between.
//!
//! What has to hold: no frame gets lost, every packet ends with exactly one
//! reason, nothing reaches the local stack through an SA but what was sealed for
//! it, once, and nothing leaves but what its peer can open.

mod commands;
#[path = "../../../../tests/fuzz/props/input.rs"]
mod input;
#[path = "../../../../tests/fuzz/props/packets.rs"]
mod packets;
mod peer;
mod steps;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gm_abi::maps::Meta;
use gm_abi::verdict::Reason;
use gm_abi::wire::{self, L3, TCP, UDP};
use gm_esp::reassembly::{Pushed, Reassembler};
use gm_region::Region;
use gm_xsk::Umem;

use super::LIMITS;
use super::bench::{Bench, SLOTS};
use crate::publish::Published;
use input::Input;
use packets::NEAR_PORT;
use peer::{Peer, normal};

/// Steps of one input at most.
const STEPS: usize = 16;
/// Frames that the worker has.
const FRAMES: usize = 96;

/// What takes long to make, for the next input.
struct Memory {
    umem: Umem,
    region: Arc<Region>,
    published: Arc<Published>,
}

thread_local! {
    static MEMORY: Cell<Option<Memory>> = const { Cell::new(None) };
}

impl Memory {
    fn take() -> Memory {
        MEMORY.take().unwrap_or_else(|| Memory {
            umem: Umem::new(FRAMES).unwrap(),
            region: Arc::new(Region::create(SLOTS, gm_esp::Window::words(64) as u32).unwrap()),
            published: Arc::new(Published::in_memory(SLOTS)),
        })
    }

    /// As if nothing had happened; what the frames held stays in them.
    fn clean(&self) {
        for slot in 0..SLOTS {
            let memory = self.region.slot(slot).unwrap();
            memory.hot().clear();
            memory
                .window_bits()
                .iter()
                .for_each(|word| word.store(0, Ordering::Relaxed));
            self.published.withdraw(slot);
        }
    }
}

/// A frame with what XDP says of it.
type Given = (Vec<u8>, Option<Meta>);

/// A worker, two phones, and what is known of packets on their way.
struct Run {
    bench: Bench,
    /// The phone with IPv4 and the one with IPv6.
    peers: [Peer; 2],
    /// Frames that the phones have sent.
    air: Vec<Given>,
    /// What was sealed for us and has not reached the stack.
    sealed: Pool,
    /// What was to leave and has not.
    leaving: Pool,
    /// What the worker has put together of the stack's fragments, the same again.
    mirror: Reassembler,
    /// The last IP packet on the wire.
    last: Vec<u8>,
    now: u64,
    serial: u32,
}

/// Packets in their normal form, and how many there are of each.
#[derive(Default)]
struct Pool(HashMap<Vec<u8>, usize>);

impl Pool {
    fn add(&mut self, packet: &[u8]) {
        if let Some(normal) = normal(packet) {
            *self.0.entry(normal).or_default() += 1;
        }
    }

    /// Whether there was one.
    fn take(&mut self, packet: &[u8]) -> bool {
        let Some(left) = normal(packet).and_then(|n| self.0.get_mut(&n)) else {
            return false;
        };
        let had = *left > 0;
        *left = left.saturating_sub(1);
        had
    }
}

/// Runs one input. The first bytes choose the SAs, the rest are steps.
///
/// # Panics
/// When a property does not hold.
pub fn batch(data: &[u8]) {
    let mut input = Input(data);
    let memory = Memory::take();
    memory.clean();
    let (region, published) = (memory.region.clone(), memory.published.clone());
    let mut run = Run {
        bench: Bench::over(memory.umem, region.clone(), published.clone()),
        peers: [Peer::new(0, &mut input), Peer::new(1, &mut input)],
        air: Vec::new(),
        sealed: Pool::default(),
        leaving: Pool::default(),
        mirror: Reassembler::new(LIMITS),
        last: Vec::new(),
        now: 1000,
        serial: 0,
    };
    for nth in 0..2 {
        run.load(nth);
    }
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
    }
    let umem = run.bench.close();
    MEMORY.set(Some(Memory {
        umem,
        region,
        published,
    }));
}

impl Run {
    fn counters(&self) -> [u64; Reason::COUNT] {
        self.bench.process.ctx.counters.snapshot()
    }

    /// Each frame that is not free is held by someone who is known.
    fn no_leak(&self) {
        let out = &self.bench.out;
        let held = out.wire.len() + out.stack.len() + self.bench.held();
        assert_eq!(self.bench.umem.outstanding(), held, "frames are lost");
        assert_eq!(self.bench.umem.leaked(), 0);
    }

    /// How often each reason was counted since; once for each of the packets.
    fn ended(&self, before: &[u64; Reason::COUNT], packets: usize) -> [u64; Reason::COUNT] {
        let counted = since(before, &self.counters());
        assert_eq!(counted.iter().sum::<u64>(), packets as u64, "one end each");
        counted
    }

    /// Gives the worker what has come in on the uplink, and judges what it does:
    /// how often each reason was counted.
    fn inbound(&mut self, batch: &[Given]) -> [u64; Reason::COUNT] {
        let before = self.counters();
        let batch: Vec<_> = batch.iter().map(|(f, m)| (f.as_slice(), *m)).collect();
        self.bench.inbound_at(&batch, self.now);
        self.no_leak();
        let counted = self.ended(&before, batch.len());
        assert!(self.bench.wire().is_empty(), "what came in goes out");
        let wholes = together(self.bench.stack(), self.bench.process.ctx.settings.gm0_mtu);
        let count = |reason: Reason| counted[reason.index()] as usize;
        let (ok, clear) = (count(Reason::Ok), count(Reason::ClearReassembled));
        assert_eq!(wholes.len(), ok + clear, "as many as are counted");
        let mut opened = 0;
        for whole in &wholes {
            if self.sealed.take(whole) {
                opened += 1;
                let v6 = whole[0] >> 4 == 6;
                assert!(self.peers[usize::from(v6)].loaded, "for an SA that is gone");
            } else {
                let L3::Ip(ip) = wire::parse_ip(&whole[..], 0) else {
                    panic!("no IP packet reaches the stack");
                };
                let to = ip
                    .ports
                    .filter(|_| matches!(ip.proto, TCP | UDP))
                    .map(|p| p.1);
                assert!(
                    to != Some(NEAR_PORT) && !ip.hides_ports(),
                    "in clear, or twice"
                );
            }
        }
        assert_eq!(opened, ok, "what was opened was sealed");
        counted
    }

    /// The same for what the local stack sends.
    fn outbound(&mut self, batch: &[Vec<u8>]) {
        let before = self.counters();
        for frame in batch {
            let L3::Ip(ip) = wire::parse_frame(&frame[..]) else {
                continue;
            };
            let packet = &frame[ip.l3..ip.end];
            if ip.frag.is_none() {
                self.leaving.add(packet);
            } else if let Ok(Pushed::Whole(whole)) = self.mirror.push(packet, self.now) {
                self.leaving.add(whole.packet());
            }
        }
        let frames: Vec<_> = batch.iter().map(Vec::as_slice).collect();
        self.bench.outbound_at(&frames, self.now);
        self.no_leak();
        let counted = self.ended(&before, batch.len());
        let told = self.bench.stack();
        assert!(told.len() as u64 <= counted[Reason::OutTooBig.index()]);
        for frame in told {
            let is_icmp = |ip: wire::IpPacket| ip.proto == if ip.v6 { 58 } else { 1 };
            assert!(matches!(wire::parse_frame(&frame[..]), L3::Ip(ip) if is_icmp(ip)));
        }
        let mtu = self.bench.process.ctx.settings.mtu();
        let wholes = together(self.bench.wire(), mtu);
        assert_eq!(wholes.len() as u64, counted[Reason::Sealed.index()]);
        for whole in wholes {
            let mut to = 0;
            let mut plain = self.peers[0].open(&whole);
            if plain == Err(Reason::UnknownSpi) {
                to = 1;
                plain = self.peers[1].open(&whole);
            }
            assert!(self.peers[to].active, "an SA sends that must not");
            match plain {
                Ok(plain) => assert!(
                    self.leaving.take(&plain),
                    "nobody has sent this, or not twice"
                ),
                Err(reason) => panic!("its peer cannot open what leaves: {reason:?}"),
            }
            self.last = whole;
        }
    }

    /// Time passes.
    fn wait(&mut self, ms: u64) {
        self.now += ms;
        let before = self.counters();
        self.bench.process.expire(self.now);
        self.mirror.expire(self.now);
        let counted = since(&before, &self.counters());
        let late = counted[Reason::FragmentTimeout.index()];
        assert_eq!(counted.iter().sum::<u64>(), late);
    }
}

fn since(before: &[u64; Reason::COUNT], now: &[u64; Reason::COUNT]) -> [u64; Reason::COUNT] {
    std::array::from_fn(|i| now[i] - before[i])
}

/// The IP packet of a frame. What is in front of it goes out as it came in, also
/// where XDP would not have taken it for what the note says.
fn behind_link(frame: &[u8]) -> Option<wire::IpPacket> {
    if let L3::Ip(ip) = wire::parse_frame(frame) {
        return Some(ip);
    }
    [14, 18, 22]
        .iter()
        .find_map(|l3| match wire::parse_ip(frame, *l3) {
            L3::Ip(ip) if !ip.contradicts && ip.end == frame.len() => Some(ip),
            _ => None,
        })
}

/// The IP packets of frames that go out, put together where they are fragments.
fn together(frames: Vec<Vec<u8>>, mtu: usize) -> Vec<Vec<u8>> {
    let mut pieces = Reassembler::new(LIMITS);
    let mut wholes = Vec::new();
    for frame in frames {
        let ip = behind_link(&frame).expect("a frame with an IP packet");
        assert!(
            !ip.contradicts && ip.end == frame.len(),
            "bytes too many or too few"
        );
        assert!(ip.end - ip.l3 <= mtu, "longer than the MTU");
        let packet = &frame[ip.l3..];
        if ip.frag.is_none() {
            wholes.push(packet.to_vec());
            continue;
        }
        match pieces.push(packet, 0) {
            Ok(Pushed::Whole(whole)) => wholes.push(whole.packet().to_vec()),
            Ok(Pushed::Stored) => {}
            Err(reason) => panic!("a fragment that nobody takes: {reason:?}"),
        }
    }
    assert!(pieces.is_empty(), "half a datagram goes out");
    wholes
}
