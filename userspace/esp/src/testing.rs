//! Packets and SAs for the tests of this crate.

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;

use gm_abi::wire::{ESP, EncapPort, TCP, UDP};
use gm_engines::{Job, reference};

use crate::*;

/// What a plain packet is made of.
#[derive(Clone, Debug)]
pub struct Plain {
    pub v6: bool,
    pub proto: u8,
    pub ports: (u16, u16),
    /// Bytes behind the UDP or TCP header.
    pub payload: usize,
    /// IPv4 options (a multiple of 4 bytes), or IPv6 extension headers as
    /// number and length.
    pub options: Vec<u8>,
    pub extensions: Vec<(u8, usize)>,
}

impl Plain {
    pub fn udp(v6: bool, payload: usize) -> Plain {
        Plain {
            v6,
            proto: UDP,
            ports: (5060, 5062),
            payload,
            options: vec![],
            extensions: vec![],
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut l4 = Vec::new();
        l4.extend_from_slice(&self.ports.0.to_be_bytes());
        l4.extend_from_slice(&self.ports.1.to_be_bytes());
        match self.proto {
            TCP => l4.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]),
            _ => {
                l4.extend_from_slice(&(8 + self.payload as u16).to_be_bytes());
                l4.extend_from_slice(&[0x12, 0x34]);
            }
        }
        l4.extend((0..self.payload).map(|i| (i * 7) as u8));
        ip(self, &l4)
    }
}

/// `l4` behind the IP headers of `plain`.
pub fn ip(plain: &Plain, l4: &[u8]) -> Vec<u8> {
    let (src, dst) = ends(plain.v6);
    let mut ip;
    if plain.v6 {
        ip = vec![0x6b, 0x80, 0x12, 0x34, 0, 0, plain.proto, 61];
        let mut named_at = 6;
        for address in [src, dst] {
            let IpAddr::V6(address) = address else {
                unreachable!()
            };
            ip.extend_from_slice(&address.octets());
        }
        for (kind, len) in &plain.extensions {
            ip[named_at] = *kind;
            named_at = ip.len();
            ip.extend_from_slice(&[plain.proto, (len / 8 - 1) as u8]);
            // One PadN option.
            ip.extend_from_slice(&[1, (len - 4) as u8]);
            ip.resize(named_at + len, 0);
        }
    } else {
        let words = 5 + plain.options.len() / 4;
        ip = vec![
            0x40 | words as u8,
            0xb8,
            0,
            0,
            0x12,
            0x34,
            0,
            0,
            61,
            plain.proto,
            0,
            0,
        ];
        for address in [src, dst] {
            let IpAddr::V4(address) = address else {
                unreachable!()
            };
            ip.extend_from_slice(&address.octets());
        }
        ip.extend_from_slice(&plain.options);
    }
    ip.extend_from_slice(l4);
    headers::set_length(&mut ip, plain.v6);
    ip
}

/// Source and destination of all plain packets.
pub fn ends(v6: bool) -> (IpAddr, IpAddr) {
    match v6 {
        true => (
            "2001:db8::1".parse().unwrap(),
            "2001:db8:1::2".parse().unwrap(),
        ),
        false => ([192, 0, 2, 1].into(), [198, 51, 100, 2].into()),
    }
}

/// Source and destination of the outer header.
pub fn outer_ends(v6: bool) -> (IpAddr, IpAddr) {
    match v6 {
        true => (
            "2001:db8:f::1".parse().unwrap(),
            "2001:db8:f::2".parse().unwrap(),
        ),
        false => ([203, 0, 113, 1].into(), [203, 0, 113, 2].into()),
    }
}

pub const SPI: u32 = 1_000_000_007;
pub const PHONE_PORT: u16 = 40_123;

pub fn spec(suite: Suite, mode: Mode, v6: bool) -> SaSpec {
    let (src, dst) = ends(v6);
    let (outer_src, outer_dst) = outer_ends(v6);
    SaSpec {
        spi: SPI,
        mode,
        selector: Selector {
            src,
            dst,
            src_port: Some(5060),
            dst_port: Some(5062),
            proto: SelProto::UdpTcp,
        },
        suite,
        outer: (mode == Mode::UdpEncTun).then_some(Outer {
            src: outer_src,
            dst: outer_dst,
            sport: Some(PHONE_PORT),
            dport: Some(4500),
        }),
        esn: false,
        replay_window: 64,
    }
}

/// Both ends of an SA.
pub struct Link {
    pub sa: Sa,
    pub sent: AtomicU64,
    pub window: OwnedWindow,
    iv: u128,
}

impl Link {
    pub fn new(suite: Suite, mode: Mode, v6: bool) -> Link {
        Link::of(spec(suite, mode, v6))
    }

    pub fn of(spec: SaSpec) -> Link {
        let keys = EspKeys::expand(
            spec.suite,
            &Ik::from_bytes([0x11; 16]),
            &Ck::from_bytes([0x22; 16]),
        );
        Link {
            window: OwnedWindow::new(spec.replay_window).unwrap(),
            sa: Sa::new(spec, &keys).unwrap(),
            sent: AtomicU64::new(0),
            iv: 1,
        }
    }

    /// All of all: every suite, mode and IP version.
    pub fn all() -> impl Iterator<Item = Link> {
        Suite::every().flat_map(|suite| {
            [Mode::Trans, Mode::UdpEncTun]
                .into_iter()
                .flat_map(move |mode| {
                    [false, true]
                        .into_iter()
                        .map(move |v6| Link::new(suite, mode, v6))
                })
        })
    }

    pub fn v6(&self) -> bool {
        self.sa.selector().dst.is_ipv6()
    }

    pub fn name(&self) -> String {
        let spec = &self.sa.spec();
        format!("{} {:?} v6={}", spec.suite, spec.mode, self.v6())
    }

    pub fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut buffer = vec![0xcc; MAX_FRONT];
        buffer.extend_from_slice(plain);
        let end = buffer.len();
        buffer.resize(end + MAX_BACK, 0xcc);
        let packet = PacketBuf::new(&mut buffer, MAX_FRONT, end);
        let mut iv = self.iv;
        let selected = Selected::new(packet, &self.sa)?;
        let sealed_len = selected.sealed_len();
        let counter = Counter(&self.sent);
        let mut source = Fixed(&mut iv);
        let numbered = selected.number(&counter, EncapPorts::default(), &mut source)?;
        let sealed = outbound::seal_one(reference(), numbered)?;
        assert_eq!(sealed.seq(), counter.last());
        let bytes = sealed.packet().data().to_vec();
        assert_eq!(bytes.len(), sealed_len);
        self.iv = iv;
        Ok(bytes)
    }

    pub fn sealed(&mut self, payload: usize) -> Vec<u8> {
        let plain = Plain::udp(self.v6(), payload).bytes();
        self.seal(&plain).unwrap()
    }

    pub fn open(&self, packet: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut buffer = packet.to_vec();
        let end = buffer.len();
        let packet = PacketBuf::new(&mut buffer, 0, end);
        let received =
            Received::parse(packet, EncapPort::Dst(4500)).map_err(|rejected| rejected.reason)?;
        let checked = received.check(&self.sa, &self.window.window())?;
        let opened = inbound::open_one(reference(), checked)?;
        let admitted = opened.commit(&self.window.window())?.admit()?;
        Ok(admitted.packet().data().to_vec())
    }

    /// A packet with an authentic ICV around any body (payload, padding,
    /// trailer), which must fit the cipher's blocks.
    pub fn forge(&self, seq: u64, body: &[u8]) -> Vec<u8> {
        let transform = self.sa.suite().transform();
        let mut esp = SPI.to_be_bytes().to_vec();
        esp.extend_from_slice(&(seq as u32).to_be_bytes());
        esp.resize(8 + transform.iv_len(), 0x99);
        esp.extend_from_slice(body);
        esp.resize(esp.len() + transform.icv_len(), 0);
        let mut jobs = [Job {
            key: self.sa.key(),
            esp: &mut esp,
            seq_hi: self.sa.seq_hi(seq),
            ok: false,
        }];
        reference().seal(&mut jobs);
        assert!(jobs[0].ok, "the body fits");
        self.wrap(&esp)
    }

    /// An ESP packet in the headers of this SA.
    pub fn wrap(&self, esp: &[u8]) -> Vec<u8> {
        let mut plain = Plain::udp(self.v6(), 0);
        match &self.sa.outer() {
            None => {
                plain.proto = ESP;
                ip(&plain, esp)
            }
            Some(outer) => {
                let mut packet = vec![0; encap::len(outer)];
                packet.extend_from_slice(esp);
                encap::write(&mut packet, outer, (PHONE_PORT, 4500), 0, 1);
                packet
            }
        }
    }

    /// Where ESP begins in a packet of [`Link::wrap`].
    pub fn esp_at(&self) -> usize {
        self.wrap(&[]).len()
    }
}

struct Fixed<'a>(&'a mut u128);

impl IvSource for Fixed<'_> {
    fn fill(&mut self, iv: &mut [u8; 16]) {
        *self.0 = self
            .0
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            + 1;
        *iv = self.0.to_be_bytes();
    }
}

/// `body` with padding and trailer, for any suite of `link`.
pub fn padded(link: &Link, payload: &[u8], next: u8) -> Vec<u8> {
    let block = link.sa.suite().transform().block();
    let pad = (payload.len() + 2).next_multiple_of(block) - payload.len() - 2;
    let mut body = payload.to_vec();
    body.extend((1..=pad).map(|i| i as u8));
    body.extend_from_slice(&[pad as u8, next]);
    body
}
