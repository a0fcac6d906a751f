//! ESP over a wire that somebody else holds: packets are sealed, changed, cut,
//! repeated, forged, and opened again, one by one and in batches.
//!
//! A naive receiver, which keeps a set of the numbers that it has seen and a
//! list of what was really sealed, says what has to come of each.

#[path = "esp_open/link.rs"]
mod link;
#[path = "esp_open/naive.rs"]
mod naive;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use gm_abi::wire::{self, L3};
use gm_engines::{Job, reference};
use gm_esp::inbound::Checked;
use gm_esp::*;

use crate::input::Input;
use crate::packets::{ENCAP_PORT, plain, set_checksum, set_length};
use link::Link;
use naive::esp_of;

const SPI: u32 = 1_000_000_007;
const ENCAP: EncapPort = EncapPort::Dst(ENCAP_PORT);
/// Steps of one input at most.
const STEPS: usize = 20;
/// Sealed packets that are kept for another time.
const AIR: usize = 12;

/// What comes of a packet with the key: its number, and the plain packet.
type Outcome = Result<(u64, Vec<u8>), Reason>;

/// What was sealed with the key.
struct Sealed {
    packet: Vec<u8>,
    /// From the SPI to the ICV: what the key vouches for.
    esp: Vec<u8>,
    seq: u64,
    /// The plain packet; `None` where nonsense was sealed.
    plain: Option<Vec<u8>>,
}

/// Memory of a window, where everything of it can be seen.
struct Memory {
    top: AtomicU64,
    bits: Vec<AtomicU64>,
    size: u32,
}

impl Memory {
    fn window(&self) -> Window<'_> {
        Window::new(&self.top, &self.bits, self.size).expect("a window")
    }

    fn image(&self) -> Vec<u64> {
        let all = std::iter::once(&self.top).chain(&self.bits);
        all.map(|word| word.load(Ordering::Relaxed)).collect()
    }
}

struct Run {
    link: &'static Link,
    sent: AtomicU64,
    memory: Memory,
    air: Vec<Sealed>,
    iv: u128,
    // The naive receiver.
    seen: HashSet<u64>,
    top: u64,
}

impl IvSource for Run {
    fn fill(&mut self, iv: &mut [u8; 16]) {
        self.iv = self
            .iv
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            + 1;
        *iv = self.iv.to_be_bytes();
    }
}

/// Two bytes choose SA and window, the rest are steps.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let link = Link::of(input.u8());
    let size = input.pick(&[32, 64, 33, 63, 65, 128, 1000, 4096]);
    let mut run = Run {
        link,
        sent: AtomicU64::new(0),
        memory: Memory {
            top: AtomicU64::new(0),
            bits: (0..Window::words(size))
                .map(|_| AtomicU64::new(0))
                .collect(),
            size,
        },
        air: Vec::new(),
        iv: 1,
        seen: HashSet::new(),
        top: 0,
    };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
    }
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 12 {
            0 | 1 => {
                let packet = plain(input, self.link.v6.0, true);
                self.send(&packet);
            }
            2 => {
                let len = input.below(120);
                self.send(input.bytes(len));
            }
            3 | 4 => self.deliver(vec![self.again(input)]),
            5 => {
                let mut packet = self.again(input);
                change(&mut packet, input);
                self.deliver(vec![packet]);
            }
            6 => {
                let mut packet = self.again(input);
                let len = input.below(packet.len() + 32);
                packet.resize(len, 0x3c);
                if input.u8() & 1 == 1 && packet.len() >= 40 {
                    set_length(&mut packet);
                }
                self.deliver(vec![packet]);
            }
            7 => {
                let len = input.below(120);
                self.deliver(vec![input.bytes(len).to_vec()]);
            }
            8 => {
                let len = input.below(120);
                let head = [SPI.to_be_bytes(), input.u32().to_be_bytes()].concat();
                let esp = [&head, input.bytes(len)].concat();
                self.deliver(vec![self.link.wrap(&esp)]);
            }
            9 => self.forge(input),
            10 => self.jump(input),
            _ => {
                let mut batch: Vec<_> = (0..=input.below(8)).map(|_| self.again(input)).collect();
                let nth = input.below(batch.len());
                change(&mut batch[nth], input);
                self.deliver(batch);
            }
        }
    }

    /// One of the packets that were sealed.
    fn again(&self, input: &mut Input<'_>) -> Vec<u8> {
        let nth = input.below(self.air.len().max(1));
        self.air
            .get(nth)
            .map(|s| s.packet.clone())
            .unwrap_or_default()
    }

    fn keep(&mut self, sealed: Sealed) {
        if self.air.len() == AIR {
            self.air.remove(0);
        }
        self.air.push(sealed);
    }

    /// Seals a packet, if it is the SA's.
    fn send(&mut self, packet: &[u8]) {
        let (sa, last) = (&self.link.sa, self.sent.load(Ordering::Relaxed));
        let mut buffer = vec![0xcc; MAX_FRONT];
        buffer.extend_from_slice(packet);
        let end = buffer.len();
        buffer.resize(end + MAX_BACK, 0xcc);
        let Ok(selected) = Selected::new(PacketBuf::new(&mut buffer, MAX_FRONT, end), sa) else {
            return;
        };
        let L3::Ip(whole) = wire::parse_ip(packet, 0) else {
            panic!("sealed what is no IP packet");
        };
        assert!(sa.selector().matches(&InnerFlow::of(&whole)));
        let (len, sent) = (selected.sealed_len(), AtomicU64::new(last));
        let numbered = selected.number(&Counter(&sent), EncapPorts::default(), self);
        let now = sent.load(Ordering::Relaxed);
        self.sent.store(now, Ordering::Relaxed);
        let numbered = match numbered {
            Ok(numbered) => numbered,
            Err(reason) => {
                assert_eq!((reason, last), (Reason::OutSeqExhausted, sa.seq_limit()));
                return;
            }
        };
        let sealed = outbound::seal_one(reference(), numbered).expect("sealed");
        assert_eq!((sealed.seq(), now), (last + 1, last + 1));
        let packet_out = sealed.packet().data().to_vec();
        assert_eq!(packet_out.len(), len);
        let mut original = packet[..whole.end].to_vec();
        if sa.mode() == Mode::Trans && !whole.v6 {
            set_checksum(&mut original);
        }
        let esp = esp_of(&packet_out).expect("ESP").to_vec();
        assert_eq!(
            esp[..8],
            [SPI.to_be_bytes(), (now as u32).to_be_bytes()].concat()
        );
        self.keep(Sealed {
            packet: packet_out,
            esp,
            seq: now,
            plain: Some(original),
        });
    }

    /// Seals a body that no honest sender would.
    fn forge(&mut self, input: &mut Input<'_>) {
        let transform = self.link.sa.suite().transform();
        let seq = match input.u8() % 4 {
            0 => u64::from(input.u32()),
            1 => self.top.saturating_sub(u64::from(input.u8())),
            _ => self.top.saturating_add(u64::from(input.u8())),
        };
        let body = match input.u8() % 2 {
            0 => plain(input, self.link.v6.0, true),
            _ => {
                let len = input.below(120);
                input.bytes(len).to_vec()
            }
        };
        // In transport mode the upper layer alone.
        let skip = if self.link.sa.mode() == Mode::Trans {
            input.pick(&[0, 20, 40])
        } else {
            0
        };
        let mut esp = [SPI.to_be_bytes(), (seq as u32).to_be_bytes()].concat();
        esp.resize(8 + transform.iv_len(), 0x99);
        let head = esp.len();
        esp.extend_from_slice(body.get(skip..).unwrap_or_default());
        let pad =
            (esp.len() - head + 2).next_multiple_of(transform.block()) - (esp.len() - head + 2);
        esp.resize(esp.len() + pad, 7);
        let claimed = if input.u8() < 200 {
            pad as u8
        } else {
            input.u8()
        };
        esp.extend([claimed, input.pick(&[17, 6, 4, 41, 59, 44, 60, 0, 50, 1])]);
        esp.resize(esp.len() + transform.icv_len(), 0);
        let seq_hi = self.link.sa.esn().then_some((seq >> 32) as u32);
        let mut jobs = [Job {
            key: &self.link.key,
            esp: &mut esp,
            seq_hi,
            ok: false,
        }];
        reference().seal(&mut jobs);
        assert!(jobs[0].ok, "the body has a length that fits");
        let packet = self.link.wrap(&esp);
        self.deliver_sealed(Sealed {
            packet,
            esp,
            seq,
            plain: None,
        });
    }

    fn deliver_sealed(&mut self, sealed: Sealed) {
        let packet = sealed.packet.clone();
        self.keep(sealed);
        self.deliver(vec![packet]);
    }

    /// Goes on with later numbers, as if much had been sent in between.
    fn jump(&mut self, input: &mut Input<'_>) {
        let by = match input.u8() % 4 {
            0 => u64::from(input.u8()),
            1 => u64::from(input.u16()),
            2 => u64::from(input.u32()),
            // Right before the end of a subspace, or of all.
            _ => {
                let high = [u64::from(u32::MAX), u64::MAX, 1 << 32, 1 << 33][input.below(4)];
                let to = high - u64::from(input.u8() % 8);
                to.saturating_sub(self.sent.load(Ordering::Relaxed))
            }
        };
        let now = self.sent.load(Ordering::Relaxed).saturating_add(by);
        self.sent
            .store(now.min(self.link.sa.seq_limit()), Ordering::Relaxed);
    }

    /// Gives the receiver a batch, and holds what it does against the naive one.
    fn deliver(&mut self, mut batch: Vec<Vec<u8>>) {
        let before = self.memory.image();
        let originals = batch.clone();
        let window = self.memory.window();
        let mut expected = Vec::new();
        let mut checked: Vec<Option<Checked<'_, '_>>> = Vec::new();
        for (bytes, original) in batch.iter_mut().zip(&originals) {
            let end = bytes.len();
            let outcome = Received::parse(PacketBuf::new(bytes, 0, end), ENCAP)
                .map_err(|rejected| rejected.reason)
                .and_then(|received| received.check(&self.link.sa, &window));
            let naive = self.precheck(original);
            assert_eq!(outcome.as_ref().err(), naive.as_ref().err());
            checked.push(outcome.ok());
            expected.push(naive);
        }
        assert_eq!(self.memory.image(), before, "a check has moved the window");
        let mut results: Vec<Option<Outcome>> = vec![];
        results.resize_with(checked.len(), || None);
        let memory = &self.memory;
        inbound::open(reference(), &mut checked, |i, opened| {
            let image = memory.image();
            let committed = opened.and_then(|o| o.commit(&memory.window()));
            results[i] = Some(match committed {
                Ok(committed) => {
                    let seq = committed.seq();
                    committed.strip().and_then(|stripped| {
                        let piece = stripped.is_piece();
                        let admitted = stripped.admit().map(|a| (seq, a.packet().data().to_vec()));
                        assert!(!piece || admitted.is_err(), "a piece shows no ports");
                        admitted
                    })
                }
                Err(reason) => {
                    assert_eq!(memory.image(), image, "{reason:?} has moved the window");
                    Err(reason)
                }
            });
        });
        for ((original, naive), result) in originals.iter().zip(expected).zip(results) {
            match (naive, result) {
                (Err(_), None) => {}
                (Ok(seq), Some(result)) => self.judge(original, seq, result),
                _ => panic!("a packet was lost, or came from nowhere"),
            }
        }
        assert_eq!(self.memory.window().top(), self.top);
    }
}

/// Changes a few bytes, near the front or anywhere.
fn change(packet: &mut [u8], input: &mut Input<'_>) {
    for _ in 0..=input.below(3) {
        let at = match input.u8() {
            near @ 0..=127 => usize::from(near),
            _ => input.below(packet.len().max(1)),
        };
        let by = input.u8();
        if let Some(byte) = packet.get_mut(at) {
            *byte ^= by;
        }
    }
}
