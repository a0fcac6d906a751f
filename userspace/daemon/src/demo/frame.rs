//! Just enough of Ethernet, IPv4 and UDP for the demo's wire to find ESP,
//! forge a packet and rewrite addresses.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Result, ensure};

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
const UDP: usize = 8;
const PROTO_UDP: u8 = 17;
const PROTO_ESP: u8 = 50;
const ENCAP_PORT: u16 = 4500;

/// An IPv4 header in an Ethernet frame, by offset.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4 {
    /// Offset of the transport header.
    pub l4: usize,
    /// IP protocol.
    pub proto: u8,
    /// This packet starts with its transport header.
    pub first: bool,
}

/// Finds the IPv4 header of an untagged frame.
pub fn ipv4(frame: &[u8]) -> Option<Ipv4> {
    let ip = frame.get(ETHERNET..ETHERNET + 20)?;
    if frame[12..14] != [0x08, 0x00] || ip[0] >> 4 != 4 {
        return None;
    }
    let l4 = ETHERNET + usize::from(ip[0] & 15) * 4;
    let first = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff == 0;
    (frame.len() >= l4).then_some(Ipv4 {
        l4,
        proto: ip[9],
        first,
    })
}

/// Offset of the ESP header of a frame that starts an ESP packet, raw or in
/// UDP port 4500.
pub fn esp_offset(frame: &[u8]) -> Option<usize> {
    let ip = ipv4(frame)?;
    if !ip.first {
        return None;
    }
    let esp = match ip.proto {
        PROTO_ESP => ip.l4,
        PROTO_UDP => {
            let ports = [port(frame, ip.l4)?, port(frame, ip.l4 + 2)?];
            if !ports.contains(&ENCAP_PORT) {
                return None;
            }
            ip.l4 + UDP
        }
        _ => return None,
    };
    (frame.get(esp..esp + 4)? != [0; 4] && frame.len() >= esp + 8).then_some(esp)
}

/// Gives an ESP packet the next sequence number and turns one bit behind it.
pub fn tamper(frame: &mut [u8], esp: usize) -> Result<()> {
    ensure!(
        frame.len() > esp + 24,
        "an ESP packet too short to be tampered with"
    );
    let sequence = u32::from_be_bytes([
        frame[esp + 4],
        frame[esp + 5],
        frame[esp + 6],
        frame[esp + 7],
    ]);
    frame[esp + 4..esp + 8].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
    frame[esp + 20] ^= 1;
    Ok(())
}

/// A UDP packet in a frame with the Ethernet header of `template`.
pub fn udp(template: &[u8], from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp_length = (UDP + payload.len()) as u16;
    let mut frame = template[..ETHERNET].to_vec();
    frame.extend([0x45, 0]);
    frame.extend((20 + udp_length).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, PROTO_UDP, 0, 0]);
    frame.extend(from.ip().octets());
    frame.extend(to.ip().octets());
    let sum = checksum(&frame[ETHERNET..ETHERNET + 20]);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    // RFC 768: no checksum.
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// The transport port at `offset`.
pub fn port(frame: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(
        frame.get(offset..offset + 2)?.try_into().ok()?,
    ))
}

/// Replaces an address (`source` or destination) and, in a first fragment of
/// UDP, its port, and mends the checksums (RFC 1624).
pub fn rewrite(frame: &mut [u8], source: bool, address: Ipv4Addr, new_port: Option<u16>) {
    let Some(ip) = ipv4(frame) else { return };
    let at = ETHERNET + if source { 12 } else { 16 };
    let port_at = ip.l4 + if source { 0 } else { 2 };
    let mut changes = Vec::with_capacity(3);
    for (i, word) in address.octets().chunks_exact(2).enumerate() {
        changes.push(replace(frame, at + 2 * i, [word[0], word[1]]));
    }
    mend(frame, ETHERNET + 10, &changes);
    if ip.proto != PROTO_UDP || !ip.first || frame.len() < ip.l4 + UDP {
        return;
    }
    if let Some(port) = new_port {
        changes.push(replace(frame, port_at, port.to_be_bytes()));
    }
    if frame[ip.l4 + 6..ip.l4 + 8] != [0, 0] {
        mend(frame, ip.l4 + 6, &changes);
    }
}

fn replace(frame: &mut [u8], at: usize, word: [u8; 2]) -> (u16, u16) {
    let old = u16::from_be_bytes([frame[at], frame[at + 1]]);
    frame[at..at + 2].copy_from_slice(&word);
    (old, u16::from_be_bytes(word))
}

fn mend(frame: &mut [u8], at: usize, changes: &[(u16, u16)]) {
    let mut sum = u32::from(!u16::from_be_bytes([frame[at], frame[at + 1]]));
    for &(old, new) in changes {
        sum += u32::from(!old) + u32::from(new);
    }
    frame[at..at + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
}

fn checksum(header: &[u8]) -> u16 {
    !fold(
        header
            .chunks_exact(2)
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
            .sum(),
    )
}

fn fold(mut sum: u32) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let template = [0u8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 8, 0];
        udp(
            &template,
            "10.45.0.2:4500".parse().unwrap(),
            "192.0.2.1:4500".parse().unwrap(),
            b"\x12\x34\x56\x78\0\0\0\x09payload of some length..",
        )
    }

    #[test]
    fn a_forged_frame_has_a_good_header_checksum_and_keeps_it_when_rewritten() {
        let mut frame = sample();
        assert_eq!(checksum(&frame[14..34]), 0);
        rewrite(
            &mut frame,
            true,
            "203.0.113.200".parse().unwrap(),
            Some(40001),
        );
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(frame[26..30], [203, 0, 113, 200]);
        assert_eq!(port(&frame, 34), Some(40001));
        assert_eq!(frame[40..42], [0, 0], "a UDP checksum of zero stays zero");
    }

    #[test]
    fn tampering_takes_the_next_number_and_turns_one_bit() {
        let mut frame = sample();
        let esp = esp_offset(&frame).unwrap();
        let before = frame.clone();
        tamper(&mut frame, esp).unwrap();
        assert_eq!(frame[esp + 7], 10);
        let turned: u32 = before
            .iter()
            .zip(&frame)
            .skip(esp + 8)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert_eq!(turned, 1);
    }

    #[test]
    fn a_keepalive_and_the_non_esp_marker_are_no_esp() {
        let template = [0u8; 12].iter().copied().chain([8, 0]).collect::<Vec<_>>();
        let (a, b) = (
            "10.0.0.1:4500".parse().unwrap(),
            "10.0.0.2:4500".parse().unwrap(),
        );
        assert_eq!(esp_offset(&udp(&template, a, b, &[0xff])), None);
        assert_eq!(esp_offset(&udp(&template, a, b, &[0; 16])), None);
    }
}
