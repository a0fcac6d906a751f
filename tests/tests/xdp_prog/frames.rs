//! Frames for the programs. Addresses are documentation addresses.

use super::lab::{OURS_V4, OURS_V6};
use gm_abi::maps::{Addr, mapped};

pub const THEIRS_V4: Addr = mapped([198, 51, 100, 1]);
pub const THEIRS_V6: Addr = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const ESP: u8 = 50;
pub const UDP: u8 = 17;
pub const TCP: u8 = 6;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION: u8 = 60;

pub fn esp(spi: u32, seq: u32) -> Vec<u8> {
    let mut b = spi.to_be_bytes().to_vec();
    b.extend(seq.to_be_bytes());
    b.resize(64, 0xa5);
    b
}

pub fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(sport.to_be_bytes());
    b.extend(dport.to_be_bytes());
    b.extend((8 + payload.len() as u16).to_be_bytes());
    b.extend([0, 0]);
    b.extend(payload);
    b
}

pub fn tcp(sport: u16, dport: u16) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(sport.to_be_bytes());
    b.extend(dport.to_be_bytes());
    b.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    b
}

/// An IP packet in an Ethernet frame; the version is that of the addresses.
pub fn frame(src: Addr, dst: Addr, proto: u8, place: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if src[..12] == mapped([0; 4])[..12] {
        b.extend([8, 0, 0x45, 0]);
        b.extend((20 + payload.len() as u16).to_be_bytes());
        b.extend([0x12, 0x34]);
        b.extend(place.to_be_bytes());
        b.extend([64, proto, 0, 0]);
        b.extend(&src[12..]);
        b.extend(&dst[12..]);
    } else {
        assert_eq!(place, 0, "IPv6 has a header for this");
        b.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        b.extend((payload.len() as u16).to_be_bytes());
        b.extend([proto, 64]);
        b.extend(src);
        b.extend(dst);
    }
    b.extend(payload);
    b
}

/// To our IPv4 address.
pub fn v4(proto: u8, payload: &[u8]) -> Vec<u8> {
    frame(THEIRS_V4, OURS_V4, proto, 0, payload)
}

/// To our IPv6 address.
pub fn v6(proto: u8, payload: &[u8]) -> Vec<u8> {
    frame(THEIRS_V6, OURS_V6, proto, 0, payload)
}

/// An IPv6 extension header of eight bytes before `rest`.
pub fn extension(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut b = vec![next, 0, 1, 4, 0, 0, 0, 0];
    b.extend(rest);
    b
}

/// An IPv6 fragment header before `rest`.
pub fn fragment(next: u8, place: u16, rest: &[u8]) -> Vec<u8> {
    let mut b = vec![next, 0];
    b.extend(place.to_be_bytes());
    b.extend([0xde, 0xad, 0xbe, 0xef]);
    b.extend(rest);
    b
}

/// The frame with VLAN tags.
pub fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let mut b = frame[..12].to_vec();
    for tag in tags {
        b.extend(tag.to_be_bytes());
        b.extend([0, 100]);
    }
    b.extend(&frame[12..]);
    b
}

/// The packet in a frame without tags.
pub fn packet(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

/// An ICMP or ICMPv6 error of this type about `packet`, to our address of the
/// same family.
pub fn icmp_error(kind: u8, packet: &[u8]) -> Vec<u8> {
    let body = [&[kind, 4, 0, 0, 0, 0, 5, 0x78], packet].concat();
    if packet.first().is_some_and(|first| first >> 4 == 6) {
        v6(58, &body)
    } else {
        v4(1, &body)
    }
}

/// A packet of ours.
pub fn from_us(src: Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let dst = if src == OURS_V4 { THEIRS_V4 } else { THEIRS_V6 };
    packet(&frame(src, dst, proto, 0, payload)).to_vec()
}

/// The frame of an IPv4 packet with this many bytes of options (of four).
pub fn with_options(frame: &[u8], options: usize) -> Vec<u8> {
    let mut b = frame[..34].to_vec();
    b[14] = 0x45 + (options / 4) as u8;
    let length = (frame.len() - 14 + options) as u16;
    b[16..18].copy_from_slice(&length.to_be_bytes());
    b.resize(34 + options, 1);
    b.extend(&frame[34..]);
    b
}
