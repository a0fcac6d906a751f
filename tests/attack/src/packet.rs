//! Frames made by hand.

use std::net::IpAddr;

/// Bytes of an Ethernet header.
pub const ETH: usize = 14;

/// Many frames in one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    /// Adds a frame.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The frame at a place; places go round.
    pub fn get(&self, at: usize) -> &[u8] {
        let at = at % self.ends.len();
        let begin = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[begin..self.ends[at]]
    }
}

/// A small generator for what need not be secret: xorshift64*.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same sequence for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.word() >> 16) as usize % n.max(1)
    }

    /// Fills with bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// The sum of 16-bit words that internet checksums are made of.
fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])))
        .fold(0, |a, b| a.wrapping_add(b))
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Puts the checksum of an IPv4 header right.
pub fn fix_ipv4(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let sum = fold(sum(&ip[..20]));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An IP header in front of `len` bytes of `proto`, both ends of one family.
pub fn ip_header(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip = vec![0x45, 0];
            ip.extend(((20 + len) as u16).to_be_bytes());
            ip.extend([0, 7, 0, 0, 64, proto, 0, 0]);
            ip.extend(src.octets());
            ip.extend(dst.octets());
            fix_ipv4(&mut ip);
            ip
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut ip = vec![0x60, 0, 0, 0];
            ip.extend((len as u16).to_be_bytes());
            ip.extend([proto, 64]);
            ip.extend(src.octets());
            ip.extend(dst.octets());
            ip
        }
        _ => unreachable!("both ends are of one family"),
    }
}

/// A whole UDP datagram in IP.
pub fn udp(src: (IpAddr, u16), dst: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let mut l4 = Vec::with_capacity(8 + payload.len());
    l4.extend(src.1.to_be_bytes());
    l4.extend(dst.1.to_be_bytes());
    l4.extend(((8 + payload.len()) as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(payload);
    let mut pseudo = Vec::with_capacity(40);
    for a in [src.0, dst.0] {
        match a {
            IpAddr::V4(a) => pseudo.extend(a.octets()),
            IpAddr::V6(a) => pseudo.extend(a.octets()),
        }
    }
    let check = match fold(sum(&pseudo) + sum(&l4) + 17 + l4.len() as u32) {
        0 => 0xffff,
        check => check,
    };
    l4[6..8].copy_from_slice(&check.to_be_bytes());
    let mut packet = ip_header(src.0, dst.0, 17, l4.len());
    packet.extend(l4);
    packet
}

/// An Ethernet frame around an IP packet.
pub fn ethernet(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETH + packet.len());
    frame.extend(to);
    frame.extend(from);
    frame.extend(match packet.first().map(|b| b >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    });
    frame.extend(packet);
    frame
}
