//! What the naive receiver makes of a packet.

use std::net::IpAddr;

use gm_abi::wire::{self, Class, L3};
use gm_esp::*;

use super::{ENCAP, Outcome, Run, SPI};
use crate::packets::{mark, marked};

impl Run {
    /// What has to come of a packet before the key is needed: the whole number,
    /// or a reason.
    pub fn precheck(&self, packet: &[u8]) -> Result<u64, Reason> {
        let sa = &self.link.sa;
        let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
            let not_ip = packet.first().is_some_and(|b| !matches!(b >> 4, 4 | 6));
            return Err(if not_ip {
                Reason::NotEsp
            } else {
                Reason::Malformed
            });
        };
        let (spi, low, in_udp) = match wire::classify(packet, &ip, ENCAP) {
            Class::Esp { spi, seq, .. } => (spi, seq, false),
            Class::UdpEsp { spi, seq, .. } => (spi, seq, true),
            Class::Keepalive => return Err(Reason::Keepalive),
            Class::NonEspMarker => return Err(Reason::PassNonEspMarker),
            Class::Fragment => return Err(Reason::Fragment),
            Class::Malformed { .. } => return Err(Reason::Malformed),
            Class::Other => return Err(Reason::NotEsp),
        };
        let dst = match ip.v6 {
            true => IpAddr::from(ip.dst),
            false => IpAddr::from([ip.dst[12], ip.dst[13], ip.dst[14], ip.dst[15]]),
        };
        if spi != SPI || dst != sa.destination() {
            return Err(Reason::UnknownSpi);
        }
        let esp = esp_of(packet).expect("the class says so");
        if !sa.suite().transform().fits(esp.len()) {
            return Err(Reason::Malformed);
        }
        if in_udp != (sa.mode() == Mode::UdpEncTun) {
            return Err(Reason::ModeMismatch);
        }
        // The first number from the window's bottom on that ends like this.
        let bottom = match sa.esn() {
            true => self.top.saturating_sub(u64::from(self.memory.size) - 1),
            false => 0,
        };
        let seq = bottom.wrapping_add(u64::from(low.wrapping_sub(bottom as u32)));
        self.fresh(seq).map(|()| seq)
    }

    fn fresh(&self, seq: u64) -> Result<(), Reason> {
        if seq == 0 {
            Err(Reason::Replay)
        } else if self.top.saturating_sub(seq) >= u64::from(self.memory.size) {
            Err(Reason::Stale)
        } else if self.seen.contains(&seq) {
            Err(Reason::Replay)
        } else {
            Ok(())
        }
    }

    /// What has to come of it with the key.
    pub fn judge(&mut self, packet: &[u8], seq: u64, result: Outcome) {
        let esp = esp_of(packet).expect("it was checked");
        // An authentic packet, though perhaps in other headers.
        let sealed = self.air.iter().find(|s| s.esp == esp && s.seq == seq);
        let Some(sealed) = sealed else {
            assert_eq!(result, Err(Reason::BadIcv), "never sealed");
            return;
        };
        if let Err(reason) = self.fresh(seq) {
            assert_eq!(result, Err(reason));
            return;
        }
        self.seen.insert(seq);
        self.top = self.top.max(seq);
        let spec = &self.link.sa.spec();
        if let Some(plain) = &sealed.plain {
            if spec.mode == Mode::UdpEncTun {
                let expected = marked(plain, mark(packet)).ok_or(Reason::Malformed);
                assert_eq!(result, expected.map(|p| (seq, p)), "not what was sealed");
                return;
            }
            if sealed.packet == packet {
                assert_eq!(result, Ok((seq, plain.clone())), "not what was sealed");
                return;
            }
            // The headers outside are nobody's word; what is inside stays.
            if let Ok((_, bytes)) = &result {
                let L3::Ip(ip) = wire::parse_ip(&plain[..], 0) else {
                    panic!()
                };
                assert!(bytes.ends_with(&plain[ip.l4..]));
            }
        }
        match result {
            Ok((number, bytes)) => {
                assert_eq!(number, seq);
                let L3::Ip(ip) = wire::parse_ip(&bytes[..], 0) else {
                    panic!("admitted what is no IP packet");
                };
                assert!(!ip.contradicts && !ip.hidden && ip.end == bytes.len());
                assert!(
                    spec.selector.matches(&InnerFlow::of(&ip)),
                    "another's packet"
                );
            }
            Err(reason) => assert!(
                matches!(
                    reason,
                    Reason::Malformed | Reason::Dummy | Reason::SelectorMismatch
                ),
                "{reason:?}"
            ),
        }
    }
}

/// From the SPI to the ICV.
pub fn esp_of(packet: &[u8]) -> Option<&[u8]> {
    let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
        return None;
    };
    match wire::classify(packet, &ip, ENCAP) {
        Class::Esp { esp, .. } => packet.get(esp..ip.end),
        Class::UdpEsp { esp, .. } => {
            let length = u16::from_be_bytes([packet[ip.l4 + 4], packet[ip.l4 + 5]]);
            packet.get(esp..ip.l4 + usize::from(length))
        }
        _ => None,
    }
}
