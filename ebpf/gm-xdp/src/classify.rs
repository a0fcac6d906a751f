//! Uplink, step 1: is the packet for the Gm link, and what is it?

use gm_abi::{
    maps::{Addr, CONFIG_SHED_CLEARTEXT, Config},
    verdict::Reason,
    wire::{self, About, Bytes, Class, EncapPort, Found, IpPacket, Quoted},
};

use crate::{
    frame::Frame,
    maps::{is_ours, is_protected, words},
    report::Head,
};

/// What the next steps have to do with the packet.
pub enum Next {
    /// Look the SA up.
    Esp(Esp),
    /// Hand it to a worker's reassembly.
    Fragment,
    /// An ICMP error about ESP of ours, for a worker.
    Icmp,
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
pub fn is_for_us(frame: &Frame, ip: &mut IpPacket, config: &Config) -> bool {
    wire::read_frame(frame, ip) == Found::Ip && is_ours(&words(&ip.dst), config)
}

/// Sorts a packet that came in on the uplink for a local address. What it says
/// of ESP is noted in `head`.
#[inline(always)]
pub fn uplink(frame: &Frame, ip: &IpPacket, config: &Config, head: &mut Head) -> Next {
    let (spi, seq, at, in_udp) =
        match wire::classify(frame, ip, EncapPort::Dst(config.encap_port as u16)) {
            Class::Esp { spi, seq, esp } => (spi, seq, esp, false),
            Class::UdpEsp { spi, seq, esp } => (spi, seq, esp, true),
            Class::Fragment => return Next::Fragment,
            Class::Keepalive => return Next::Decided(Reason::Keepalive),
            Class::NonEspMarker => return Next::Decided(Reason::PassNonEspMarker),
            Class::Malformed { head: found } => {
                if let Some((spi, seq)) = found {
                    head.set(spi, seq);
                }
                return Next::Decided(Reason::Malformed);
            }
            Class::Other => return cleartext(frame, ip, config),
        };
    head.set(spi, seq);
    Next::Esp(Esp {
        spi,
        seq,
        at,
        in_udp,
    })
}

/// Cleartext to a local address: the guard behind the stack's entrance judges
/// it, but what it would drop can go here at once (TS 33.203 7.1).
#[inline(always)]
fn cleartext(frame: &Frame, ip: &IpPacket, config: &Config) -> Next {
    let shed = config.flags & CONFIG_SHED_CLEARTEXT != 0;
    Next::Decided(match ip.ports {
        Some((_, dst)) if shed && is_protected(dst) => Reason::CleartextProtected,
        Some(_) => Reason::PassOther,
        None if ip.hides_ports() && shed => Reason::Malformed,
        None => match icmp_about(frame, ip, config) {
            About::Esp => return Next::Icmp,
            About::Protected if shed => Reason::ClearIcmp,
            About::Protected | About::Other => Reason::PassOther,
        },
    })
}

/// Whose packet it is that an ICMP error is about; anything else is about
/// nobody's.
#[inline(always)]
pub fn icmp_about<B: Bytes>(bytes: &B, ip: &IpPacket, config: &Config) -> About {
    let mut quoted = Quoted::EMPTY;
    if !wire::is_icmp_error(bytes, ip) || !wire::read_quoted(bytes, ip, &mut quoted) {
        return About::Other;
    }
    let encap_port = config.encap_port as u16;
    let is_ours = |addr: &Addr| is_ours(&words(addr), config);
    wire::about(bytes, &quoted, encap_port, is_ours, is_protected)
}
