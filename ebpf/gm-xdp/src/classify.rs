//! Uplink, step 1: is the packet for the Gm link, and what is it?

use gm_abi::{
    maps::{CONFIG_SHED_CLEARTEXT, Config},
    verdict::Reason,
    wire::{self, Class, EncapPort, Found, IpPacket},
};

use crate::{
    frame::Frame,
    maps::{is_ours, is_protected},
};

/// What the next steps have to do with the packet.
pub enum Next {
    /// Look the SA up.
    Esp(Esp),
    /// Hand it to a worker's reassembly.
    Fragment,
    /// Nothing; it is decided.
    Decided(Reason),
}

/// Where the ESP header is and what it says.
pub struct Esp {
    /// SPI, host byte order.
    pub spi: u32,
    /// Sequence number, its low 32 bits.
    pub seq: u32,
    /// Offset of the ESP header.
    pub at: usize,
    /// In UDP, else raw.
    pub in_udp: bool,
}

/// Reads the frame into `ip`. Whether it is for a local address.
///
/// What has no whole IP header is left to the kernel, which drops it: it has
/// no destination by which it could be ours.
#[inline(always)]
pub fn is_for_us(frame: &Frame, ip: &mut IpPacket) -> bool {
    wire::read_frame(frame, ip) == Found::Ip && is_ours(&ip.dst)
}

/// Sorts a packet that came in on the uplink for a local address.
#[inline(always)]
pub fn uplink(frame: &Frame, ip: &IpPacket, config: &Config) -> Next {
    match wire::classify(frame, ip, EncapPort::Dst(config.encap_port as u16)) {
        Class::Esp { spi, seq, esp } => Next::Esp(Esp {
            spi,
            seq,
            at: esp,
            in_udp: false,
        }),
        Class::UdpEsp { spi, seq, esp } => Next::Esp(Esp {
            spi,
            seq,
            at: esp,
            in_udp: true,
        }),
        Class::Fragment => Next::Fragment,
        Class::Keepalive => Next::Decided(Reason::Keepalive),
        Class::NonEspMarker => Next::Decided(Reason::PassNonEspMarker),
        Class::Malformed { .. } => Next::Decided(Reason::Malformed),
        Class::Other => Next::Decided(cleartext(ip, config)),
    }
}

/// Cleartext to a local address: the guard behind the stack's entrance judges
/// it, but what it would drop can go here at once (TS 33.203 7.1).
#[inline(always)]
fn cleartext(ip: &IpPacket, config: &Config) -> Reason {
    if config.flags & CONFIG_SHED_CLEARTEXT == 0 {
        return Reason::PassOther;
    }
    match ip.ports {
        Some((_, dst)) if is_protected(dst) => Reason::CleartextProtected,
        None if ip.hides_ports() => Reason::Malformed,
        _ => Reason::PassOther,
    }
}
