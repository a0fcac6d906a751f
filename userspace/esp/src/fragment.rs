//! Cutting an IP packet to an MTU (RFC 791 3.2, RFC 8200 4.5).

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, IpPacket, L3, MAX_CHAIN};

use crate::headers::{self, FRAGMENT, FRAGMENT_LEN, IPV4_LEN};

/// Longest header of a fragment.
const MAX_HEAD: usize = MAX_CHAIN + FRAGMENT_LEN;
/// Fragments but the last carry a multiple of so many bytes.
const UNIT: usize = 8;
/// IPv4's "don't fragment".
const DONT_FRAGMENT: u8 = 0x40;
/// IPv4's "more fragments".
const MORE: u8 = 0x20;

/// Cuts `packet` so that no piece has more than `mtu` bytes, IP header
/// included. `sink` gets each piece, in order, as header and payload, to be
/// written one after the other. A packet that fits comes as it is, in one piece.
///
/// `ident` names the datagram; IPv4 takes its low 16 bits. It must not repeat
/// between two hosts while fragments may still be on their way. Answers the
/// number of pieces.
///
/// # Errors
/// [`Reason::OutTooBig`] when IPv4's "don't fragment" is set, or the MTU leaves
/// no room for payload. [`Reason::OutMalformed`] when `packet` is no whole IP
/// packet or itself a fragment.
pub fn split(
    packet: &[u8],
    mtu: usize,
    ident: u32,
    mut sink: impl FnMut(&[u8], &[u8]),
) -> Result<usize, Reason> {
    let ip = match wire::parse_ip(packet, 0) {
        L3::Ip(ip) if !ip.contradicts && !ip.hidden && ip.frag.is_none() => ip,
        _ => return Err(Reason::OutMalformed),
    };
    let packet = &packet[..ip.end];
    if packet.len() <= mtu {
        let (head, payload) = packet.split_at(ip.l4);
        sink(head, payload);
        return Ok(1);
    }
    if !ip.v6 && packet[6] & DONT_FRAGMENT != 0 {
        return Err(Reason::OutTooBig);
    }
    let mut first = Head::first(packet, &ip, ident);
    let mut later = Head::later(&first, ip.v6);
    let payload = &packet[first.payload..];
    if payload.is_empty() {
        // Headers alone, and too long: there is nothing to cut.
        return Err(Reason::OutTooBig);
    }
    let (mut at, mut pieces) = (0, 0);
    while at < payload.len() {
        let head = if at == 0 { &mut first } else { &mut later };
        let room = mtu.saturating_sub(head.len);
        let left = payload.len() - at;
        let more = left > room;
        let take = if more { room - room % UNIT } else { left };
        if take == 0 {
            return Err(Reason::OutTooBig);
        }
        head.place(ip.v6, at, more, take);
        sink(&head.bytes[..head.len], &payload[at..at + take]);
        at += take;
        pieces += 1;
    }
    Ok(pieces)
}

/// The header of a fragment, without place and length.
struct Head {
    bytes: [u8; MAX_HEAD],
    len: usize,
    /// Where the datagram's payload begins: what is cut.
    payload: usize,
}

impl Head {
    fn first(packet: &[u8], ip: &IpPacket, ident: u32) -> Head {
        let cut = headers::routed(packet, ip.v6, ip.l4);
        let mut bytes = [0; MAX_HEAD];
        bytes[..cut.at].copy_from_slice(&packet[..cut.at]);
        let mut len = cut.at;
        if ip.v6 {
            let next = std::mem::replace(&mut bytes[cut.named_at], FRAGMENT);
            bytes[len] = next;
            bytes[len + 4..len + 8].copy_from_slice(&ident.to_be_bytes());
            len += FRAGMENT_LEN;
        } else {
            bytes[4..6].copy_from_slice(&(ident as u16).to_be_bytes());
        }
        Head {
            bytes,
            len,
            payload: cut.at,
        }
    }

    /// Later fragments carry only those IPv4 options that say so (RFC 791 3.1).
    fn later(first: &Head, v6: bool) -> Head {
        let mut head = Head { ..*first };
        if v6 {
            return head;
        }
        head.len = IPV4_LEN;
        let mut options = &first.bytes[IPV4_LEN..first.len];
        while let [kind, rest @ ..] = options {
            let len = match (kind, rest.first()) {
                // No operation, and end of options.
                (1, _) => 1,
                (0, _) | (_, None) => break,
                (_, Some(len)) => usize::from(*len).max(2),
            };
            let Some(option) = options.get(..len) else {
                break;
            };
            if kind & 0x80 != 0 {
                head.bytes[head.len..head.len + len].copy_from_slice(option);
                head.len += len;
            }
            options = &options[len..];
        }
        let padded = head.len.next_multiple_of(4);
        head.bytes[head.len..padded].fill(0);
        head.len = padded;
        head.bytes[0] = 0x40 | (padded / 4) as u8;
        head
    }

    fn place(&mut self, v6: bool, offset: usize, more: bool, payload: usize) {
        let total = self.len + payload;
        if v6 {
            let at = self.len - FRAGMENT_LEN + 2;
            let place = (offset as u16) | u16::from(more);
            self.bytes[at..at + 2].copy_from_slice(&place.to_be_bytes());
            let length = (total - headers::IPV6_LEN) as u16;
            self.bytes[4..6].copy_from_slice(&length.to_be_bytes());
        } else {
            let place = (offset / UNIT) as u16 | if more { u16::from(MORE) << 8 } else { 0 };
            self.bytes[6..8].copy_from_slice(&place.to_be_bytes());
            self.bytes[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            headers::set_checksum(&mut self.bytes);
        }
    }
}

#[cfg(test)]
#[path = "fragment_tests.rs"]
mod tests;
