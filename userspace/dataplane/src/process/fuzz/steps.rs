//! What may happen between two looks: one byte chooses.

use gm_abi::maps::{META_ESP, META_FRAGMENT, META_ICMP, META_MAGIC, META_UDP_ESP, Meta};
use gm_abi::verdict::Reason;
use gm_abi::wire::{self, L3};
use gm_esp::fragment;

use super::input::Input;
use super::packets::{address, icmp_too_big, ip, plain, set_length, udp};
use super::peer::slot;
use super::{Given, Run};

/// Frames that are kept for another time.
const AIR: usize = 24;
/// The longest frame that a umem's frame takes.
const LONGEST: usize = 14 + 3506;
/// Frames in a batch of an input at most.
const MANY: usize = 10;

impl Run {
    pub(super) fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0 | 1 => self.honest(input),
            2 => {
                for _ in 0..=input.below(4) {
                    if let Some(given) = self.sent(input) {
                        self.keep(given);
                    }
                }
            }
            3 | 4 => {
                let batch: Vec<Given> = (0..=input.below(MANY))
                    .filter_map(|_| self.again(input))
                    .collect();
                self.inbound(&batch);
            }
            5 => self.in_pieces(input),
            6 | 7 => self.forged(input),
            8 | 9 => {
                let batch: Vec<_> = (0..=input.below(MANY))
                    .map(|_| self.stack_frame(input))
                    .collect();
                self.outbound(&batch);
            }
            10 => self.out_in_pieces(input),
            11 => self.noise(input),
            12 => self.command(input),
            13 => self.settings(input),
            14 => self.router(input),
            _ => self.wait(u64::from(input.u8()) * 100),
        }
    }

    /// A packet that is like no other, in one of the two families.
    fn plain(&mut self, input: &mut Input<'_>, to_near: bool) -> (usize, Vec<u8>) {
        let nth = input.below(2);
        let mut packet = plain(input, nth == 1, to_near);
        self.serial += 1;
        let header = if nth == 1 { 40 } else { 20 };
        if packet.len() >= header + 24 {
            let at = packet.len() - 4;
            packet[at..].copy_from_slice(&self.serial.to_be_bytes());
        }
        (nth, packet)
    }

    /// A frame with the phone's next packet, and what XDP says of it.
    fn sent(&mut self, input: &mut Input<'_>) -> Option<Given> {
        let (nth, packet) = self.plain(input, true);
        let peer = &mut self.peers[nth];
        let sealed = peer.seal(&packet)?;
        self.sealed.add(&packet);
        let kind = if peer.in_tunnel() {
            META_UDP_ESP
        } else {
            META_ESP
        };
        let frame = framed(input, &sealed);
        (frame.len() <= LONGEST).then(|| noted(frame, kind, slot(nth)))
    }

    fn keep(&mut self, given: Given) {
        if self.air.len() == AIR {
            self.air.remove(0);
        }
        self.air.push(given);
    }

    /// Fresh packets, as they should be: all are taken, or the limiter has a
    /// reason.
    fn honest(&mut self, input: &mut Input<'_>) {
        let batch: Vec<Given> = (0..=input.below(MANY))
            .filter_map(|_| self.sent(input))
            .collect();
        let loaded = |given: &Given| {
            let nth = given.1.map_or(0, |m| (m.slot - 1) / 2);
            self.peers[nth as usize].loaded
        };
        let good = batch.iter().filter(|g| loaded(g)).count() as u64;
        let counted = self.inbound(&batch);
        let count = |reason: Reason| counted[reason.index()];
        assert_eq!(count(Reason::Ok) + count(Reason::IcvLimited), good);
        assert_eq!(count(Reason::UnknownSpi), batch.len() as u64 - good);
        batch.into_iter().for_each(|given| self.keep(given));
    }

    /// One of the frames that were sent, perhaps changed, perhaps with another
    /// note.
    fn again(&mut self, input: &mut Input<'_>) -> Option<Given> {
        let nth = input.below(self.air.len().max(1));
        let (mut frame, mut meta) = self.air.get(nth)?.clone();
        let how = input.u8();
        if how & 3 == 1 {
            for _ in 0..=input.below(3) {
                let (at, by) = (input.below(frame.len().min(128)), input.u8());
                frame[at] ^= by;
            }
        }
        if how & 12 == 4 {
            let at = frame.len() - 1 - input.below(frame.len().min(40));
            frame[at] ^= input.u8();
        }
        if how & 0x30 == 0x10 {
            frame.truncate(input.below(frame.len() + 1));
        }
        if how & 0xc0 == 0x40 {
            meta = note(input);
        }
        Some((frame, meta))
    }

    /// Whatever the wire carries in fragments: sealed or in clear, in any order,
    /// not all of it.
    fn in_pieces(&mut self, input: &mut Input<'_>) {
        let (nth, mut packet) = self.plain(input, true);
        if input.u8() & 1 == 1 {
            let Some(sealed) = self.peers[nth].seal(&packet) else {
                return;
            };
            self.sealed.add(&packet);
            packet = sealed;
        }
        let pieces = self.pieces(input, &packet);
        let batch: Vec<Given> = pieces
            .iter()
            .map(|p| noted(framed(input, p), META_FRAGMENT, 0))
            .collect();
        self.inbound(&batch);
    }

    /// Pieces of a packet that fit into frames, shuffled a little.
    fn pieces(&mut self, input: &mut Input<'_>, packet: &[u8]) -> Vec<Vec<u8>> {
        self.serial += 1;
        let mtu = (if packet[0] >> 4 == 6 { 56 } else { 28 }) + 8 * input.below(300);
        let mut pieces = Vec::new();
        let cut = fragment::split(packet, mtu, self.serial, |head, payload| {
            pieces.push([head, payload].concat())
        });
        if cut.is_err() {
            return Vec::new();
        }
        pieces.truncate(40);
        pieces.retain(|p| p.len() + 22 <= LONGEST);
        let how = input.u8();
        if how & 1 == 1 {
            pieces.reverse();
        }
        if how & 6 == 2 && !pieces.is_empty() {
            pieces.remove(input.below(pieces.len()));
        }
        if how & 24 == 8 && !pieces.is_empty() {
            let nth = input.below(pieces.len());
            let mut again = pieces[nth].clone();
            if let Some(last) = again.last_mut() {
                *last ^= input.u8();
            }
            pieces.push(again);
        }
        pieces
    }

    /// Authentic packets that no honest phone sends.
    fn forged(&mut self, input: &mut Input<'_>) {
        let (nth, mut inner) = self.plain(input, true);
        for _ in 0..input.below(3) {
            let (at, by) = (input.below(inner.len().min(64)), input.u8());
            inner[at] ^= by;
        }
        let claimed = (input.u8() > 200).then(|| input.u8());
        let in_pieces = self.peers[nth].in_tunnel() && input.u8() & 1 == 1;
        let inners = match in_pieces {
            true => {
                self.sealed.add(&inner);
                self.pieces(input, &inner)
            }
            // One piece may fit those of another datagram.
            false if matches!(wire::parse_ip(&inner[..], 0), L3::Ip(ip) if ip.frag.is_some()) => {
                return;
            }
            false => vec![inner],
        };
        let kind = if self.peers[nth].in_tunnel() {
            META_UDP_ESP
        } else {
            META_ESP
        };
        let mut batch = Vec::new();
        for inner in inners {
            let Some((packet, found)) = self.peers[nth].forge(&inner, claimed) else {
                continue;
            };
            self.sealed.add(&found);
            let frame = framed(input, &packet);
            if frame.len() <= LONGEST {
                batch.push(noted(frame, kind, slot(nth)));
            }
        }
        self.inbound(&batch);
        batch.into_iter().take(2).for_each(|given| self.keep(given));
    }

    /// A frame of the local stack, mostly one that is to be sealed.
    fn stack_frame(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let (_, packet) = self.plain(input, false);
        let mut frame = framed(input, &packet);
        let how = input.u8();
        if how & 7 == 1 {
            let (at, by) = (input.below(frame.len().min(100)), input.u8());
            frame[at] ^= by;
        }
        if how & 0x38 == 8 {
            frame.truncate(input.below(frame.len() + 1));
        }
        if how & 0x40 != 0 && frame.len() > 14 + 60 && frame[12..15] == [8, 0, 0x45] {
            // Not to be fragmented.
            frame[20] |= 0x40;
            set_length(&mut frame[14..]);
        }
        frame.truncate(LONGEST);
        frame
    }

    fn out_in_pieces(&mut self, input: &mut Input<'_>) {
        let (_, packet) = self.plain(input, false);
        let pieces = self.pieces(input, &packet);
        let batch: Vec<_> = pieces.iter().map(|p| framed(input, p)).collect();
        self.outbound(&batch);
    }

    /// Any bytes, from either side.
    fn noise(&mut self, input: &mut Input<'_>) {
        let (len, outwards) = (input.below(200), input.u8() & 1 == 1);
        let meta = note(input);
        let bytes = input.bytes(len).to_vec();
        if outwards {
            self.outbound(&[bytes]);
        } else {
            self.inbound(&[(bytes, meta)]);
        }
    }

    /// A router's word on what was sent last, true or not.
    fn router(&mut self, input: &mut Input<'_>) {
        let quoted = match input.u8() & 3 {
            0 => {
                let (nth, spi) = (input.below(2), input.u32());
                let (src, dst) = (
                    address(nth == 1, true, false),
                    address(nth == 1, false, false),
                );
                let esp = [spi.to_be_bytes(), input.u32().to_be_bytes()].concat();
                ip(src, dst, 17, &[], &udp(4500, input.u16(), &esp))
            }
            _ => self.last.clone(),
        };
        if quoted.len() < 20 {
            return;
        }
        let mut error = icmp_too_big(&quoted, input.u16());
        if input.u8() & 7 == 1 {
            let (at, by) = (input.below(error.len().min(90)), input.u8());
            error[at] ^= by;
        }
        let given = noted(framed(input, &error), META_ICMP, 0);
        self.inbound(&[given]);
    }
}

/// The IP packet in an Ethernet frame, with up to two tags.
fn framed(input: &mut Input<'_>, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(
        [
            &[][..],
            &[],
            &[],
            &[],
            &[],
            &[0x81, 0, 0, 5],
            &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 5],
            &[],
        ][usize::from(input.u8() & 7)],
    );
    frame.extend(if packet.first().is_some_and(|b| b >> 4 == 6) {
        [0x86, 0xdd]
    } else {
        [8, 0]
    });
    frame.extend_from_slice(packet);
    frame
}

/// The note that XDP puts in front of such a frame.
fn noted(frame: Vec<u8>, kind: u8, slot: u32) -> Given {
    let l3 = match &frame[12..14] {
        [0x81, 0] => 18,
        [0x88, 0xa8] => 22,
        _ => 14,
    };
    let meta = Meta {
        slot,
        esp: 0,
        l3,
        kind,
        magic: META_MAGIC,
        reserved: 0,
    };
    (frame, Some(meta))
}

/// Any note, or none.
fn note(input: &mut Input<'_>) -> Option<Meta> {
    let kind = input.u8() % 7;
    let (slot, l3) = (
        u32::from(input.u8() % 10),
        input.pick(&[14, 18, 22, 0, 13, 34, 255]),
    );
    (kind != 6).then_some(Meta {
        slot,
        esp: 0,
        l3,
        kind,
        magic: META_MAGIC,
        reserved: 0,
    })
}
