//! "Fragmentation needed" (RFC 1191) and "packet too big" (RFC 4443 3.2) for
//! the local stack, as if they came from the peer.

use gm_abi::wire::{ICMP, ICMPV6};

use crate::checksum;

/// Longest error message: as RFC 1812 4.3.2.3 wants it for IPv4.
const MAX_V4: usize = 576;
/// Longest error message for IPv6: its minimum MTU.
const MAX_V6: usize = 1280;
/// Room that [`too_big`] needs.
pub(crate) const MAX: usize = MAX_V6;

/// Writes the error for `packet` (from its IP header), which may be at most
/// `mtu` bytes long, into `out` and returns its length. `None` for what is no
/// IP packet. The error goes from the packet's destination to its source.
pub(crate) fn too_big(packet: &[u8], mtu: u16, out: &mut [u8; MAX]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 => v4(packet, mtu, out),
        6 => v6(packet, mtu, out),
        _ => None,
    }
}

fn v4(packet: &[u8], mtu: u16, out: &mut [u8; MAX]) -> Option<usize> {
    let head: &[u8; 20] = packet.first_chunk()?;
    let quoted = packet.len().min(MAX_V4 - 28);
    let len = 28 + quoted;
    let ip = &mut out[..len];
    ip.fill(0);
    ip[0] = 0x45;
    ip[1] = 0xc0;
    ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = ICMP;
    ip[12..16].copy_from_slice(&head[16..20]);
    ip[16..20].copy_from_slice(&head[12..16]);
    let sum = checksum::fold(checksum::add(0, &ip[..20]));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let icmp = &mut ip[20..];
    // Destination unreachable, fragmentation needed; the MTU in the last half.
    icmp[0] = 3;
    icmp[1] = 4;
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    icmp[8..].copy_from_slice(&packet[..quoted]);
    let sum = checksum::fold(checksum::add(0, icmp));
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(len)
}

fn v6(packet: &[u8], mtu: u16, out: &mut [u8; MAX]) -> Option<usize> {
    let head: &[u8; 40] = packet.first_chunk()?;
    let quoted = packet.len().min(MAX_V6 - 48);
    let (len, payload) = (48 + quoted, 8 + quoted);
    let ip = &mut out[..len];
    ip.fill(0);
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    ip[6] = ICMPV6;
    ip[7] = 64;
    ip[8..24].copy_from_slice(&head[24..40]);
    ip[24..40].copy_from_slice(&head[8..24]);
    ip[40] = 2;
    ip[46..48].copy_from_slice(&mtu.to_be_bytes());
    ip[48..].copy_from_slice(&packet[..quoted]);
    // Pseudo header: addresses, length, next header (RFC 8200 8.1).
    let sum = checksum::add(0, &ip[8..40]) + payload as u64 + u64::from(ICMPV6);
    let sum = checksum::fold(checksum::add(sum, &ip[40..]));
    ip[42..44].copy_from_slice(&sum.to_be_bytes());
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_quotes_the_packet_and_sums_up() {
        let mut packet = vec![
            0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        packet.resize(1500, 7);
        let mut out = [0; MAX];
        let n = too_big(&packet, 1400, &mut out).unwrap();
        assert_eq!(n, 576);
        assert_eq!(checksum::fold(checksum::add(0, &out[..20])), 0);
        assert_eq!(checksum::fold(checksum::add(0, &out[20..n])), 0);
        assert_eq!(
            (&out[12..16], &out[16..20]),
            (&[10, 0, 0, 2][..], &[10, 0, 0, 1][..])
        );
        assert_eq!(&out[26..28], &1400u16.to_be_bytes());
        assert_eq!(&out[28..n], &packet[..548]);
    }

    #[test]
    fn v6_stays_within_the_minimum_mtu() {
        let mut packet = vec![0x60, 0, 0, 0, 5, 0xb4, 6, 64];
        packet.resize(1500, 9);
        let mut out = [0; MAX];
        let n = too_big(&packet, 1400, &mut out).unwrap();
        assert_eq!(n, 1280);
        let pseudo = checksum::add(0, &out[8..40]) + (n as u64 - 40) + 58;
        assert_eq!(checksum::fold(checksum::add(pseudo, &out[40..n])), 0);
    }

    #[test]
    fn what_is_no_packet_gets_none() {
        let mut out = [0; MAX];
        assert_eq!(too_big(&[], 1400, &mut out), None);
        assert_eq!(too_big(&[0x45; 19], 1400, &mut out), None);
        assert_eq!(too_big(&[0x60; 39], 1400, &mut out), None);
        assert_eq!(too_big(&[0; 60], 1400, &mut out), None);
    }
}
