//! A worker without rings: frames go in and come out in memory. For tests, and
//! for fuzzing, which does not take all of it.
#![cfg_attr(not(test), allow(dead_code))]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use crossbeam::channel::{Receiver, bounded};
use gm_abi::maps::{META_MAGIC, Meta};
use gm_abi::verdict::Reason;
use gm_engines::{Job, Key, Transform};
use gm_esp::{Ck, EspKeys, Ik, Mode, Outer, Sa, SaSpec, SelProto, Selector, Suite, Window};
use gm_region::{Hot, Region};
use gm_sadb::{Dir, SetId};
use gm_xsk::{Frame, Umem};

use crate::Event;
use crate::process::{Ctx, Out, Process, Settings};
use crate::publish::Published;
use crate::stats::Counters;
use crate::table::{Entry, Table};

pub(super) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const FAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(super) const NEAR_PORT: u16 = 5063;
pub(super) const FAR_PORT: u16 = 6064;
pub(super) const SLOTS: u32 = 8;
const MAC: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// A worker, its memory, and what it sent.
pub(super) struct Bench {
    pub umem: Umem,
    pub process: Process,
    pub out: Out,
    pub events: Receiver<Event>,
    /// Packets that were put in.
    pub given: u64,
    held: Vec<Frame>,
}

/// The SA from far to near (or back), in any suite and mode.
pub(super) fn sa(suite: Suite, mode: Mode, to_near: bool, spi: u32) -> Sa {
    let (src, dst, sport, dport) = match to_near {
        true => (FAR, NEAR, FAR_PORT, NEAR_PORT),
        false => (NEAR, FAR, NEAR_PORT, FAR_PORT),
    };
    let selector = Selector {
        src: IpAddr::V4(src),
        dst: IpAddr::V4(dst),
        src_port: Some(sport),
        dst_port: Some(dport),
        proto: SelProto::UdpTcp,
    };
    let outer = Outer {
        src: src.into(),
        dst: dst.into(),
        sport: None,
        dport: None,
    };
    let outer = (mode == Mode::UdpEncTun).then_some(outer);
    let spec = SaSpec {
        spi,
        mode,
        selector,
        suite,
        outer,
        esn: false,
        replay_window: 64,
    };
    Sa::new(spec, &keys(suite)).unwrap()
}

fn keys(suite: Suite) -> EspKeys {
    EspKeys::expand(suite, &Ik::from_bytes([1; 16]), &Ck::from_bytes([2; 16]))
}

/// Computes the ICV of a hmac-sha-1-96+null packet again, after a change.
pub(super) fn reseal(frame: &mut [u8]) {
    reseal_at(frame, 14 + 20);
}

/// The same where ESP begins at `esp` of the frame.
pub(super) fn reseal_at(frame: &mut [u8], esp: usize) {
    let keys = keys(Suite::HmacSha1Null);
    let key = Key::new(
        Transform::HmacSha1Null,
        keys.integrity().unwrap(),
        &[],
        [0; 4],
    )
    .unwrap();
    let mut jobs = [Job {
        key: &key,
        esp: &mut frame[esp..],
        seq_hi: None,
        ok: false,
    }];
    gm_engines::reference().seal(&mut jobs);
    assert!(jobs[0].ok);
}

impl Bench {
    pub(super) fn new(frames: usize) -> Bench {
        Bench::over(
            Umem::new(frames).unwrap(),
            Arc::new(Region::create(SLOTS, Window::words(64) as u32).unwrap()),
            Arc::new(Published::in_memory(SLOTS)),
        )
    }

    /// One over memory that is clean.
    pub(super) fn over(umem: Umem, region: Arc<Region>, published: Arc<Published>) -> Bench {
        let (tell, events) = bounded(16);
        let ctx = Ctx {
            engine: gm_engines::reference(),
            region,
            published,
            counters: Arc::new(Counters::default()),
            sampler: Default::default(),
            events: tell,
            settings: Settings {
                kernel_sas: false,
                encap_port: 4500,
                follow: true,
                uplink_mtu: Arc::new(AtomicU32::new(1500)),
                gm0_mtu: 3506,
                ports: crate::Config {
                    server_ports: vec![NEAR_PORT..=NEAR_PORT],
                    ..crate::Config::default()
                }
                .port_words(),
                advertised: Default::default(),
            },
            table: Table::new(SLOTS),
            forgeries: Default::default(),
            begin: Instant::now(),
            now: 0,
        };
        Bench {
            umem,
            process: Process::new(ctx, 7),
            out: Out::default(),
            events,
            given: 0,
            held: Vec::new(),
        }
    }

    /// Gives the worker an SA; an outbound one is active.
    pub(super) fn load(&mut self, slot: u32, dir: Dir, sa: Sa, partners: &[u32]) {
        let entry = Entry::new(slot, SetId(1), dir, sa, partners.iter().copied().collect());
        self.process.ctx.load(entry);
        self.process.ctx.table.activate(slot);
    }

    /// Takes frames away until `left` are free.
    pub(super) fn starve(&mut self, left: usize) {
        while self.umem.free_count() > left {
            let frame = self.umem.alloc().unwrap();
            self.held.push(frame);
        }
    }

    /// Gives back what was taken away.
    pub(super) fn feed(&mut self) {
        for frame in self.held.drain(..) {
            self.umem.free(frame);
        }
    }

    /// Frames that are taken away.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn frame(&mut self, bytes: &[u8], meta: Option<Meta>) -> Frame {
        // What comes in has found a frame.
        if self.umem.free_count() == 0 {
            self.umem.free(self.held.pop().unwrap());
        }
        let mut frame = self.umem.alloc().unwrap();
        assert!(frame.write(bytes));
        let mut words = [0; 16];
        if let Some(m) = meta {
            words[..4].copy_from_slice(&m.slot.to_ne_bytes());
            words[4..6].copy_from_slice(&m.esp.to_ne_bytes());
            (words[6], words[7]) = (m.l3, m.kind);
            words[8..12].copy_from_slice(&META_MAGIC.to_ne_bytes());
        }
        let (chunk, start, _) = frame.chunk_mut();
        chunk[start - 16..start].copy_from_slice(&words);
        self.given += 1;
        frame
    }

    /// Packets from the uplink, as one batch, each with its metadata.
    pub(super) fn inbound(&mut self, packets: &[(&[u8], Option<Meta>)]) {
        self.inbound_at(packets, 1000);
    }

    /// The same at another time.
    pub(super) fn inbound_at(&mut self, packets: &[(&[u8], Option<Meta>)], now: u64) {
        let mut batch: Vec<Frame> = packets.iter().map(|(b, m)| self.frame(b, *m)).collect();
        self.process
            .inbound(&mut self.umem, &mut batch, &mut self.out, now);
        assert!(batch.is_empty());
    }

    /// Packets from gm0x, as one batch.
    pub(super) fn outbound(&mut self, packets: &[&[u8]]) {
        self.outbound_at(packets, 1000);
    }

    /// The same at another time.
    pub(super) fn outbound_at(&mut self, packets: &[&[u8]], now: u64) {
        let mut batch: Vec<Frame> = packets.iter().map(|b| self.frame(b, None)).collect();
        self.process
            .outbound(&mut self.umem, &mut batch, &mut self.out, now);
        assert!(batch.is_empty());
    }

    /// What was sent to the wire since the last time.
    pub(super) fn wire(&mut self) -> Vec<Vec<u8>> {
        drain(&mut self.umem, &mut self.out.wire)
    }

    /// What was sent to the local stack since the last time.
    pub(super) fn stack(&mut self) -> Vec<Vec<u8>> {
        drain(&mut self.umem, &mut self.out.stack)
    }

    pub(super) fn count(&self, reason: Reason) -> u64 {
        self.process.ctx.counters.snapshot()[reason.index()]
    }

    pub(super) fn hot(&self, slot: u32) -> &Hot {
        self.process.ctx.region.slot(slot).unwrap().hot()
    }

    /// Packets of an SA that were dropped.
    pub(super) fn drops(&self, slot: u32, reason: gm_abi::verdict::Reason) -> u64 {
        let drops = self.process.ctx.region.slot(slot).unwrap().drops();
        let place = gm_region::DROP_REASONS.iter().position(|r| *r == reason);
        drops[place.unwrap()]
    }

    /// Every packet has one end, and no frame is lost.
    pub(super) fn settle(self) {
        let ends: u64 = self.process.ctx.counters.snapshot().iter().sum();
        assert_eq!(ends, self.given, "{:?}", self.process.ctx.counters);
        self.close();
    }

    /// No frame is lost; the memory, for another one.
    pub(super) fn close(mut self) -> Umem {
        self.wire();
        self.stack();
        self.feed();
        assert_eq!((self.umem.outstanding(), self.umem.leaked()), (0, 0));
        self.umem
    }
}

fn drain(umem: &mut Umem, frames: &mut Vec<Frame>) -> Vec<Vec<u8>> {
    frames
        .drain(..)
        .map(|frame| {
            let bytes = frame.data().to_vec();
            umem.free(frame);
            bytes
        })
        .collect()
}

/// An Ethernet frame with IPv4 and UDP or TCP, `payload` bytes behind that.
pub(super) fn frame(to_near: bool, proto: u8, payload: usize, dont_fragment: bool) -> Vec<u8> {
    let (src, dst, sport, dport) = match to_near {
        true => (FAR, NEAR, FAR_PORT, NEAR_PORT),
        false => (NEAR, FAR, NEAR_PORT, FAR_PORT),
    };
    let mut l4 = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    match proto {
        6 => l4.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x18, 255, 255, 0, 0, 0, 0]),
        _ => l4.extend([((payload + 8) as u16).to_be_bytes(), [0, 0]].concat()),
    }
    l4.extend((0..payload).map(|i| i as u8));
    let mut f = MAC.to_vec();
    f.extend([8, 0, 0x45, 0]);
    f.extend(((20 + l4.len()) as u16).to_be_bytes());
    f.extend([
        0,
        7,
        if dont_fragment { 0x40 } else { 0 },
        0,
        64,
        proto,
        0,
        0,
    ]);
    f.extend(src.octets());
    f.extend(dst.octets());
    f.extend(l4);
    fix(&mut f[14..]);
    f
}

/// Recomputes the checksum of an IPv4 header.
pub(super) fn fix(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let sum = crate::checksum::fold(crate::checksum::add(0, &ip[..20]));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The metadata of ESP in a plain Ethernet and IPv4 frame.
pub(super) fn meta(slot: u32, kind: u8) -> Option<Meta> {
    Some(Meta {
        slot,
        esp: 34,
        l3: 14,
        kind,
        magic: META_MAGIC,
        reserved: 0,
    })
}
