//! The attacks, each as frames that are sent round and round.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;

use crate::lab::{Lab, PORT_PS, ours};
use crate::packet::{ETH, Frames, Random, ethernet, fix_ipv4, ip_header, udp};
use crate::phones::Phone;

/// Different frames of one attack.
const FRAMES: usize = 16_384;

/// Where the attacker is when he does not lie about it.
const ATTACKER: [u8; 4] = [10, 100, 66, 66];

/// One kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// ESP and ESP in UDP with SPIs that are nobody's, from random sources.
    UnknownSpi,
    /// Cleartext UDP to port_ps, from random sources.
    Cleartext,
    /// What the phones have sent, again.
    Replay,
    /// Live SPI of one phone, bad ICV, from the attacker's own address.
    IcvOne,
    /// The same from the phone's address, random sequence numbers.
    IcvOneSpoofed,
    /// SPIs of all phones, from the attacker's own address.
    IcvAll,
    /// SPIs of all phones, each from its phone's address.
    IcvAllSpoofed,
    /// SPIs of all phones, from random addresses.
    IcvAllRandom,
    /// The same as icv-one-spoofed with numbers just ahead of the window: who
    /// hears the phone. Nothing but the key tells these from the phone's.
    IcvOneNear,
    /// First fragments of datagrams that never become whole.
    FragmentFirst,
    /// Fragments with random offsets.
    FragmentRandom,
    /// Fragments that overlap.
    FragmentOverlap,
    /// NAT keepalives from random sources.
    Keepalive,
    /// The phones' packets, cut off anywhere.
    Truncated,
    /// Random bytes behind an Ethernet header.
    Random,
}

/// How much goodput has to be left (none: it is only measured).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target(pub Option<f64>);

impl Kind {
    /// The word in reports.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|v| v.get_name().to_owned())
            .unwrap_or_default()
    }

    /// What is asked for.
    pub fn target(self) -> Target {
        Target(match self {
            Kind::UnknownSpi | Kind::Cleartext | Kind::Replay => Some(0.9),
            Kind::IcvOne
            | Kind::IcvOneSpoofed
            | Kind::IcvAll
            | Kind::IcvAllSpoofed
            | Kind::IcvAllRandom => Some(0.7),
            _ => None,
        })
    }

    /// The frames. `sent` is what the phones have sent last.
    pub fn frames(self, lab: &Lab, phones: &[Phone], sent: &Frames, seed: u64) -> Frames {
        let mut make = Make {
            random: Random::new(seed),
            phones,
            sent,
            to: lab.mac,
            from: lab.from[1],
        };
        let mut frames = Frames::default();
        for n in 0..FRAMES {
            frames.push(&make.frame(self, n));
        }
        frames
    }
}

struct Make<'a> {
    random: Random,
    phones: &'a [Phone],
    sent: &'a Frames,
    to: [u8; 6],
    from: [u8; 6],
}

impl Make<'_> {
    fn frame(&mut self, kind: Kind, n: usize) -> Vec<u8> {
        let v6 = n % 4 == 3;
        let last = self.sent.len().saturating_sub(FRAMES);
        match kind {
            Kind::UnknownSpi => {
                let packet = self.unknown(v6, n.is_multiple_of(2));
                self.wrap(&packet)
            }
            Kind::Cleartext => {
                let (src, port) = (self.source(v6), self.random.word() as u16);
                let packet = udp((src, port), (ours(v6), PORT_PS), &self.bytes(64));
                self.wrap(&packet)
            }
            Kind::Replay => self.sent.get(last + n).to_vec(),
            Kind::IcvOne => self.bad(0, Some(ours_attacker(self.phones[0].address)), false),
            Kind::IcvOneSpoofed => self.bad(0, None, false),
            Kind::IcvOneNear => self.bad(0, None, true),
            Kind::IcvAll => {
                let at = n % self.phones.len();
                self.bad(at, Some(ours_attacker(self.phones[at].address)), false)
            }
            Kind::IcvAllSpoofed => self.bad(n % self.phones.len(), None, false),
            Kind::IcvAllRandom => {
                let at = n % self.phones.len();
                let source = self.source(self.phones[at].address.is_ipv6());
                self.bad(at, Some(source), false)
            }
            Kind::FragmentFirst => self.fragment(v6, 0, true, None),
            Kind::FragmentRandom => {
                let (offset, more) = (self.random.below(8000) as u16, n.is_multiple_of(2));
                self.fragment(v6, offset, more, None)
            }
            Kind::FragmentOverlap => {
                // Four of one datagram, each over the one before.
                let ident = (n / 4) as u32;
                self.fragment(v6, (n % 4 * 32) as u16, true, Some(ident))
            }
            Kind::Keepalive => {
                let (src, port) = (self.source(v6), self.random.word() as u16);
                let packet = udp((src, port), (ours(v6), 4500), &[0xff]);
                self.wrap(&packet)
            }
            Kind::Truncated => {
                let mut frame = self.sent.get(last + n).to_vec();
                let len = ETH + self.random.below(frame.len() - ETH);
                frame.truncate(len);
                frame
            }
            Kind::Random => {
                let len = 1 + self.random.below(600);
                let mut bytes = self.bytes(len);
                // Half of them say what they are, or nobody looks at all.
                bytes[0] = if v6 { 0x60 } else { 0x45 };
                if n.is_multiple_of(2) && bytes.len() >= 40 {
                    address(&mut bytes, v6);
                }
                self.wrap(&bytes)
            }
        }
    }

    fn wrap(&self, packet: &[u8]) -> Vec<u8> {
        ethernet(self.to, self.from, packet)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.random.fill(&mut bytes);
        bytes
    }

    fn source(&mut self, v6: bool) -> IpAddr {
        let word = self.random.word();
        if v6 {
            IpAddr::V6(Ipv6Addr::from(
                0x2001_0db8u128 << 96 | u128::from(word) << 32,
            ))
        } else {
            IpAddr::V4(Ipv4Addr::from(0x0a40_0000 | word as u32 & 0x3f_ffff))
        }
    }

    fn unknown(&mut self, v6: bool, in_udp: bool) -> Vec<u8> {
        let src = self.source(v6);
        let mut esp = self.bytes(64);
        // Neither ESP's reserved ones nor the first that gmesp chooses.
        esp[0] |= 0xc0;
        if in_udp {
            return udp((src, 4500), (ours(v6), 4500), &esp);
        }
        let mut packet = ip_header(src, ours(v6), 50, esp.len());
        packet.extend(esp);
        packet
    }

    /// A packet of a phone, with another number, and an ICV that is wrong.
    fn bad(&mut self, phone: usize, source: Option<IpAddr>, near: bool) -> Vec<u8> {
        // Its packets come in turns.
        let count = self.phones.len();
        let rounds = (self.sent.len() / count).max(1);
        let at = (self.random.below(rounds) * count + phone) % self.sent.len();
        let phone = &self.phones[phone];
        let mut frame = self.sent.get(at).to_vec();
        let ip = &mut frame[ETH..];
        let esp = phone.esp_at();
        let seq = match near {
            // Ahead of what it has sent.
            true => {
                let newest = self.sent.get((rounds - 1) * count + phone.number as usize);
                let newest = &newest[ETH + esp + 4..ETH + esp + 8];
                let newest = u32::from_be_bytes([newest[0], newest[1], newest[2], newest[3]]);
                newest + 1 + self.random.below(512) as u32
            }
            false => self.random.word() as u32 | 1,
        };
        ip[esp + 4..esp + 8].copy_from_slice(&seq.to_be_bytes());
        match source {
            Some(IpAddr::V4(a)) => {
                ip[12..16].copy_from_slice(&a.octets());
                fix_ipv4(ip);
            }
            Some(IpAddr::V6(a)) => ip[8..24].copy_from_slice(&a.octets()),
            None => {}
        }
        if let Some(last) = frame.last_mut() {
            *last ^= 0x55;
        }
        frame[6..12].copy_from_slice(&self.from);
        frame
    }

    /// A fragment of something to us. `offset` in units of 8 bytes.
    fn fragment(&mut self, v6: bool, offset: u16, more: bool, ident: Option<u32>) -> Vec<u8> {
        let src = self.source(v6);
        let src = if ident.is_some() {
            ours_attacker(src)
        } else {
            src
        };
        let ident = ident.unwrap_or(self.random.word() as u32);
        let body = self.bytes(256);
        let packet = if v6 {
            let mut packet = ip_header(src, ours(v6), 44, 8 + body.len());
            packet.extend([50, 0]);
            packet.extend((offset << 3 | u16::from(more)).to_be_bytes());
            packet.extend(ident.to_be_bytes());
            packet.extend(body);
            packet
        } else {
            let mut packet = ip_header(src, ours(v6), 50, body.len());
            packet[4..6].copy_from_slice(&(ident as u16).to_be_bytes());
            packet[6..8].copy_from_slice(&(offset & 0x1fff | u16::from(more) << 13).to_be_bytes());
            fix_ipv4(&mut packet);
            packet.extend(body);
            packet
        };
        self.wrap(&packet)
    }
}

/// The attacker's own address, of the family of another.
fn ours_attacker(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::from(ATTACKER),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfd77, 0x66, 0, 0, 0, 0, 0, 0x66)),
    }
}

/// Makes random bytes a packet to us, as far as the addresses go.
fn address(bytes: &mut [u8], v6: bool) {
    let len = bytes.len() as u16;
    match ours(v6) {
        IpAddr::V4(a) => {
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[16..20].copy_from_slice(&a.octets());
        }
        IpAddr::V6(a) => {
            bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            bytes[24..40].copy_from_slice(&a.octets());
        }
    }
}
