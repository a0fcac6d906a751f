//! Frames of all kinds, and what becomes of them under way.

use gm_abi::maps::{Addr, mapped};

use super::dice::Dice;
use super::frames::*;
use super::lab::{ENCAP_PORT, OURS_V4, OURS_V6, PROTECTED, Sa};
use super::world::World;

/// The longest frame.
const LONGEST: usize = 900;

/// Bytes that mean something somewhere.
const BYTES: [u8; 24] = [
    0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 17, 43, 44, 50, 58, 59, 60, 0x45, 0x46, 0x4f, 0x60, 0x81, 0x94,
    0xff,
];

/// A frame: well-formed, or changed, cut, lengthened.
pub fn frame(dice: &mut Dice, world: &World) -> Vec<u8> {
    let mut frame = whole(dice, world);
    if dice.one_in(4) {
        let tags = [0x8100, 0x88a8, 0x8100][..1 + dice.below(3)].to_vec();
        frame = tagged(&frame, &tags);
    }
    if dice.one_in(2) {
        for _ in 0..=dice.below(3) {
            let at = 12 + dice.below(110);
            let byte = match dice.one_in(2) {
                true => dice.next() as u8,
                false => dice.pick(&BYTES),
            };
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
    }
    if dice.one_in(4) {
        let len = match dice.one_in(4) {
            true => dice.below(LONGEST),
            false => dice.below(frame.len() + 20),
        };
        frame.resize(len, 0x3c);
    }
    // The kernel takes no less than an Ethernet header.
    frame.resize(frame.len().clamp(14, LONGEST), 0);
    frame
}

/// One of the SAs, and a number that is interesting to its window.
fn some_esp(dice: &mut Dice, world: &World) -> (Sa, Vec<u8>) {
    let sa = dice.pick(&world.sas);
    let (top, window) = sa.window.map_or((0, 64), |(top, window, _)| (top, window));
    let seq = match dice.below(6) {
        0 => dice.next() as u32,
        1 => top
            .wrapping_sub(window)
            .wrapping_add(dice.below(5) as u32)
            .wrapping_sub(2),
        2 => top.wrapping_add(dice.below(2000) as u32),
        _ => top.saturating_sub(dice.below(140) as u32),
    };
    let spi = match dice.below(8) {
        0 => sa.spi ^ 1 << dice.below(32),
        1 => dice.next() as u32,
        _ => sa.spi,
    };
    let mut bytes = esp(spi, seq);
    bytes.truncate(if dice.one_in(6) { dice.below(64) } else { 64 });
    (sa, bytes)
}

fn is_v4(addr: &Addr) -> bool {
    addr[..12] == mapped([0; 4])[..12]
}

/// Somebody of the family of `dst`.
fn source(dice: &mut Dice, world: &World, dst: &Addr) -> Addr {
    if dice.one_in(8) {
        let random = dice.next().to_be_bytes();
        return match is_v4(dst) {
            true => mapped([random[0], random[1], random[2], random[3]]),
            false => [random, random].concat().try_into().unwrap(),
        };
    }
    let same: Vec<Addr> = world
        .sources
        .iter()
        .copied()
        .filter(|s| is_v4(s) == is_v4(dst))
        .collect();
    dice.pick(&same)
}

/// To one of our addresses, mostly.
fn destination(dice: &mut Dice) -> Addr {
    match dice.below(16) {
        0 => dice.pick(&[THEIRS_V4, THEIRS_V6]),
        n => [OURS_V4, OURS_V6][n % 2],
    }
}

fn port(dice: &mut Dice, world: &World) -> u16 {
    match dice.below(4) {
        0 => dice.next() as u16,
        1 => PROTECTED - 6 + dice.below(12) as u16,
        _ => dice.pick(&world.ports),
    }
}

/// A well-formed frame.
fn whole(dice: &mut Dice, world: &World) -> Vec<u8> {
    let dst = destination(dice);
    match dice.below(16) {
        0..=3 => {
            let (sa, bytes) = some_esp(dice, world);
            packed(dice, world, sa.dst, ESP, &bytes)
        }
        4..=7 => {
            let (sa, bytes) = some_esp(dice, world);
            let sport = port(dice, world);
            packed(dice, world, sa.dst, UDP, &udp(sport, ENCAP_PORT, &bytes))
        }
        8 => {
            let payload: &[u8] = dice.pick(&[
                &[0xff][..],
                &[0; 4],
                &[0; 40],
                &[1, 2, 3],
                &[0xff, 0xff],
                &[],
            ]);
            let sport = port(dice, world);
            packed(dice, world, dst, UDP, &udp(sport, ENCAP_PORT, payload))
        }
        9 | 10 => {
            let (sport, dport) = (port(dice, world), port(dice, world));
            match dice.one_in(2) {
                true => packed(
                    dice,
                    world,
                    dst,
                    UDP,
                    &udp(sport, dport, b"REGISTER sip:a SIP/2.0"),
                ),
                false => packed(dice, world, dst, TCP, &tcp(sport, dport)),
            }
        }
        11 | 12 => piece(dice, world, dst),
        13 | 14 => icmp(dice, world),
        _ => match dice.below(3) {
            0 => [&[0xff; 12][..], &[8, 6], &[0; 28]].concat(),
            1 => (0..60).map(|_| dice.next() as u8).collect(),
            _ => {
                let proto = dice.next() as u8;
                packed(dice, world, dst, proto, &[0x5a; 40])
            }
        },
    }
}

/// Behind IPv4 options or IPv6 extension headers, now and then.
fn packed(dice: &mut Dice, world: &World, dst: Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let src = source(dice, world, &dst);
    if is_v4(&dst) {
        let whole = super::frames::frame(
            src,
            dst,
            proto,
            if dice.one_in(3) { 0x4000 } else { 0 },
            payload,
        );
        return match dice.one_in(4) {
            true => with_options(&whole, 4 * dice.below(11)),
            false => whole,
        };
    }
    let (mut next, mut bytes) = (proto, payload.to_vec());
    if dice.one_in(3) {
        for _ in 0..=dice.below(7) {
            bytes = extension(next, &bytes);
            if dice.one_in(4) {
                // One that is longer: eight bytes more for each.
                let more = dice.pick(&[1, 2, 30, 64]);
                bytes[1] = more as u8;
                bytes.splice(8..8, vec![0; 8 * more]);
            }
            next = dice.pick(&[0, 43, DESTINATION]);
        }
    }
    super::frames::frame(src, dst, next, 0, &bytes)
}

/// A fragment of anything.
fn piece(dice: &mut Dice, world: &World, dst: Addr) -> Vec<u8> {
    let src = source(dice, world, &dst);
    let proto = dice.pick(&[ESP, UDP, TCP, 1, 58, 17]);
    let rest = udp(
        port(dice, world),
        port(dice, world),
        b"a part of something longer",
    );
    let place = dice.pick(&[0, 1, 8, 185, 0x1fff]);
    let more = dice.one_in(2);
    if is_v4(&dst) {
        let place = place & 0x1fff | if more { 0x2000 } else { 0 };
        return super::frames::frame(src, dst, proto, place, &rest);
    }
    let mut bytes = fragment(proto, place << 3 | u16::from(more), &rest);
    let mut next = FRAGMENT;
    if dice.one_in(4) {
        bytes = extension(next, &bytes);
        next = DESTINATION;
    }
    super::frames::frame(src, dst, next, 0, &bytes)
}

/// An ICMP error about a packet of ours, or of somebody's.
fn icmp(dice: &mut Dice, world: &World) -> Vec<u8> {
    let src = dice.pick(&[OURS_V4, OURS_V6, OURS_V4, OURS_V6, THEIRS_V4, THEIRS_V6]);
    let (sport, dport) = (port(dice, world), port(dice, world));
    let (_, bytes) = some_esp(dice, world);
    let (proto, payload) = match dice.below(5) {
        0 => (ESP, bytes),
        1 => (UDP, udp(ENCAP_PORT, dport, &bytes)),
        2 => (UDP, udp(sport, dport, b"in clear")),
        3 => (TCP, tcp(sport, dport)),
        _ => (dice.pick(&[1, 58, 60, 44, 0]), bytes),
    };
    let mut quoted = from_us(src, proto, &payload);
    if dice.one_in(4) {
        quoted.truncate(dice.below(quoted.len() + 1));
    }
    let v4 = quoted.first().is_none_or(|b| b >> 4 == 4);
    let kind = match v4 {
        true => dice.pick(&[3, 3, 3, 11, 12, 5, 4, 8, 0]),
        false => dice.pick(&[2, 2, 1, 3, 4, 128, 136]),
    };
    icmp_error(kind, &quoted)
}
