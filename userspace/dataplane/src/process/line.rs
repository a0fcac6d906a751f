//! A worker without rings and its phones, for benches and for the proof that a
//! packet's path allocates nothing: frames come in and go out in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Instant;

use crossbeam::channel::bounded;
use gm_abi::maps::{META_ESP, META_MAGIC};
use gm_abi::verdict::Reason;
use gm_engines::Engine;
use gm_esp::{
    BufferedIv, Ck, Counter, EncapPorts, EspKeys, Ik, IvSource, Mode, PacketBuf, Sa, SaSpec,
    SelProto, Selected, Selector, Suite, Window, outbound,
};
use gm_region::Region;
use gm_sadb::{Dir, SetId};
use gm_xsk::{Frame, METADATA, Umem};

use super::{BATCH, Ctx, Out, Process, Settings};
use crate::publish::Published;
use crate::stats::Counters;
use crate::table::{Entry, Table};

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HERE_PORT: u16 = 5063;
const THERE_PORT: u16 = 6064;
const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];

/// A phone: what it seals with, and its number.
struct Phone {
    address: Ipv4Addr,
    sa: Sa,
    seq: AtomicU64,
}

/// See the module. Suites and phones are given, the mode is transport.
pub struct Line {
    umem: Umem,
    process: Process,
    batch: Vec<Frame>,
    out: Out,
    phones: Vec<Phone>,
    now: u64,
}

fn sa(suite: Suite, to: Ipv4Addr, from: Ipv4Addr, ports: (u16, u16), spi: u32) -> Sa {
    // Keys that differ, as those of phones do.
    let mut secret = [7; 16];
    secret[..4].copy_from_slice(&(u32::from(to) ^ u32::from(from)).to_be_bytes());
    let keys = EspKeys::expand(suite, &Ik::from_bytes(secret), &Ck::from_bytes(secret));
    let spec = SaSpec {
        spi,
        mode: Mode::Trans,
        selector: Selector {
            src: IpAddr::V4(from),
            dst: IpAddr::V4(to),
            src_port: Some(ports.0),
            dst_port: Some(ports.1),
            proto: SelProto::UdpTcp,
        },
        suite,
        outer: None,
        esn: false,
        replay_window: 64,
    };
    Sa::new(spec, &keys).expect("a specification that holds")
}

impl Line {
    /// A worker with an inbound and an outbound SA for each of `phones` (1 to
    /// 2^19), which seals and opens with `engine`.
    ///
    /// # Panics
    /// Without the memory for it.
    pub fn new(phones: u32, suite: Suite, engine: &'static dyn Engine) -> Line {
        let slots = (2 * phones).next_power_of_two();
        let region = Region::create(slots, Window::words(64) as u32).expect("a region");
        let (events, _) = bounded(16);
        let ctx = Ctx {
            engine,
            region: Arc::new(region),
            published: Arc::new(Published::in_memory(slots)),
            counters: Arc::new(Counters::default()),
            sampler: Default::default(),
            events,
            settings: Settings {
                kernel_sas: false,
                encap_port: 4500,
                follow: true,
                uplink_mtu: Arc::new(AtomicU32::new(1500)),
                gm0_mtu: 3506,
                ports: Vec::new(),
                advertised: Default::default(),
            },
            table: Table::new(slots),
            forgeries: Default::default(),
            begin: Instant::now(),
            now: 0,
        };
        let mut line = Line {
            umem: Umem::new(4 * BATCH).expect("packet memory"),
            process: Process::new(ctx, 7),
            batch: Vec::with_capacity(BATCH),
            out: Out::default(),
            phones: Vec::new(),
            now: 1000,
        };
        for i in 0..phones {
            line.add_phone(suite, i);
        }
        line
    }

    fn add_phone(&mut self, suite: Suite, i: u32) {
        let address = Ipv4Addr::from(0x0a01_0000 + i);
        let (slot, spi) = (i, 1_000_000_000 + i);
        let out = self.process.ctx.region.inbound() + i;
        let (up, down) = ((THERE_PORT, HERE_PORT), (HERE_PORT, THERE_PORT));
        let inbound = sa(suite, HERE, address, up, spi);
        let outbound = sa(suite, address, HERE, down, 5000 + i);
        let ctx = &mut self.process.ctx;
        let entry = |slot, dir, sa, partner: Option<u32>| {
            let partners = partner.into_iter().collect();
            Entry::new(slot, SetId(u64::from(i) + 1), dir, sa, partners)
        };
        ctx.load(entry(slot, Dir::In, inbound, Some(out)));
        ctx.load(entry(out, Dir::Out, outbound, None));
        ctx.table.activate(out);
        self.phones.push(Phone {
            address,
            sa: sa(suite, HERE, address, up, spi),
            seq: AtomicU64::new(0),
        });
    }

    /// A datagram of `payload` bytes from each of these phones has come in,
    /// with the metadata that XDP writes. At most 64 in all.
    pub fn arrive(&mut self, phones: impl IntoIterator<Item = u32>, payload: usize) {
        let mut iv = BufferedIv::new(|bytes: &mut [u8]| bytes.fill(0x5a));
        for i in phones {
            let mut frame = self.umem.alloc().expect("a free frame");
            self.seal(i, &mut frame, payload, &mut iv);
            self.batch.push(frame);
        }
    }

    fn seal(&self, i: u32, frame: &mut Frame, payload: usize, iv: &mut impl IvSource) {
        let phone = &self.phones[i as usize];
        let ports = (THERE_PORT, HERE_PORT);
        let plain = datagram(phone.address, HERE, ports, payload);
        assert!(frame.write(&plain));
        let (chunk, start, end) = frame.chunk_mut();
        let packet = PacketBuf::new(chunk, start + ETHERNET.len(), end);
        let numbered = Selected::new(packet, &phone.sa)
            .and_then(|s| s.number(&Counter(&phone.seq), EncapPorts::default(), iv));
        let sealed = numbered.and_then(|n| outbound::seal_one(self.process.ctx.engine, n));
        let packet = sealed.expect("room for ESP").into_packet();
        let (from, end) = (packet.start(), packet.end());
        let start = from - ETHERNET.len();
        assert!(frame.set_range(start, end));
        frame.data_mut()[..ETHERNET.len()].copy_from_slice(&ETHERNET);
        let mut meta = [0; METADATA];
        meta[..4].copy_from_slice(&i.to_ne_bytes());
        meta[4..6].copy_from_slice(&34u16.to_ne_bytes());
        (meta[6], meta[7]) = (14, META_ESP);
        meta[8..12].copy_from_slice(&META_MAGIC.to_ne_bytes());
        frame.chunk_mut().0[start - METADATA..start].copy_from_slice(&meta);
    }

    /// Changes the last byte of all that has come in: nothing verifies.
    pub fn forge(&mut self) {
        for frame in &mut self.batch {
            if let Some(last) = frame.data_mut().last_mut() {
                *last ^= 1;
            }
        }
    }

    /// A datagram of `payload` bytes for each of these phones is to go out. At
    /// most 64 in all.
    pub fn leave(&mut self, phones: impl IntoIterator<Item = u32>, payload: usize) {
        for i in phones {
            let mut frame = self.umem.alloc().expect("a free frame");
            let to = self.phones[i as usize].address;
            assert!(frame.write(&datagram(HERE, to, (HERE_PORT, THERE_PORT), payload)));
            self.batch.push(frame);
        }
    }

    /// The worker takes what has come in, as one batch. This is what is to be
    /// measured.
    pub fn inbound(&mut self) {
        let Line {
            umem, batch, out, ..
        } = self;
        self.process.inbound(umem, batch, out, self.now);
    }

    /// The worker takes what is to go out, as one batch. This is what is to be
    /// measured.
    pub fn outbound(&mut self) {
        let Line {
            umem, batch, out, ..
        } = self;
        self.process.outbound(umem, batch, out, self.now);
    }

    /// Takes away what the worker has made; the number of packets.
    pub fn take(&mut self) -> usize {
        let made = self.out.wire.drain(..).chain(self.out.stack.drain(..));
        made.map(|frame| self.umem.free(frame)).count()
    }

    /// Packets opened and sealed so far, and those that ended otherwise.
    pub fn counts(&self) -> (u64, u64) {
        let counts = self.process.ctx.counters.snapshot();
        let good = counts[Reason::Ok.index()] + counts[Reason::Sealed.index()];
        (good, counts.iter().sum::<u64>() - good)
    }
}

fn datagram(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16), payload: usize) -> Vec<u8> {
    let udp = (8 + payload) as u16;
    let mut frame = ETHERNET.to_vec();
    frame.extend([0x45, 0]);
    frame.extend((20 + udp).to_be_bytes());
    frame.extend([0, 7, 0, 0, 64, 17, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    let sum = crate::checksum::fold(crate::checksum::add(0, &frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ports.0.to_be_bytes());
    frame.extend(ports.1.to_be_bytes());
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(ETHERNET.len() + 20 + usize::from(udp), b'a');
    frame
}
