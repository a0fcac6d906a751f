//! What kind of packet is this? One parser for BPF and user space.
//!
//! ```text
//! frame --parse_frame--> Ethernet, 0..2 VLAN tags --parse_ip--> IPv4 (options)
//!                                                          \--> IPv6 (extension headers)
//! IpPacket --classify--> raw ESP | ESP in UDP | keepalive | marker | fragment | malformed | other
//! ICMP error --read_quoted--> the IP header that it quotes
//! plain_esp, plain_flow: the same of packets as most are, in few steps
//! ```
//!
//! Nothing here allocates, formats or panics, and every loop is bounded, so
//! that the kernel's verifier accepts the same code that the workers run. All
//! offsets are in bytes from the start of what [`Bytes`] shows; numbers are in
//! host byte order, addresses in network byte order.
//!
//! The order of the decisions is that of the verdicts: first whether it is ESP
//! at all, then whether the lengths hold.

mod class;
mod icmp;
mod ip;
mod plain;

use crate::maps::Addr;

pub use class::{Class, EncapPort, classify};
pub use icmp::{About, ICMP, ICMP_HEADER, ICMPV6, Quoted, about, is_icmp_error, read_quoted};
pub use ip::{
    Found, IPV4, IPV6, SERVICE_VLAN, VLAN, is_extension, parse_frame, parse_ip, read_frame, read_ip,
};

pub use plain::{
    PLAIN_ESP_V4, PLAIN_ESP_V6, PLAIN_FLOW_V4, PLAIN_FLOW_V6, PlainEsp, PlainFlow, Words,
    plain_esp_v4, plain_esp_v6, plain_flow_v4, plain_flow_v6, words_of,
};

/// A packet of which bytes can be read where they exist.
pub trait Bytes {
    /// The bytes `off .. off + N`, or `None` when one of them is outside.
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]>;

    /// Length in bytes. In BPF the length of what the program can read.
    fn len(&self) -> usize;

    /// Whether there is nothing at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for [u8] {
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]> {
        <[u8]>::get(self, off..off.checked_add(N)?)?.try_into().ok()
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

impl<B: Bytes + ?Sized> Bytes for &B {
    #[inline(always)]
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]> {
        (**self).get(off)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        (**self).len()
    }
}

/// Length of an Ethernet header without VLAN tags.
pub const ETH_LEN: usize = 14;
/// Number of VLAN tags that are walked: 802.1Q inside 802.1ad.
pub const MAX_VLAN_TAGS: usize = 2;
/// Number of IPv6 extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 6;
/// How far behind the start of the IP header the upper-layer header may begin.
/// Real chains take a few dozen bytes; what lies further is not looked for.
pub const MAX_CHAIN: usize = 512;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ESP.
pub const ESP: u8 = 50;

/// Length of the ESP header: SPI and sequence number (RFC 4303 2).
pub const ESP_HEADER: usize = 8;
/// Shortest ICV of all suites; ESP shorter than header and this is malformed.
pub const ESP_MIN_ICV: usize = 12;
/// Length of a UDP header.
pub const UDP_HEADER: usize = 8;

/// Where in its datagram a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frag {
    /// Identification; IPv4's 16 bits are in the low half.
    pub id: u32,
    /// Offset of this fragment's payload in the datagram's, in bytes.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
}

/// What the IP header and its extensions say. The addresses stand where they
/// can be read as words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct IpPacket {
    /// Source address, IPv4 as IPv4-mapped.
    pub src: Addr,
    /// Destination address, IPv4 as IPv4-mapped.
    pub dst: Addr,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of what follows the IP header, its options and its extension
    /// headers (up to and with a fragment header when this is not the first
    /// fragment). May equal `end`, never exceeds it unless `hidden`.
    pub l4: usize,
    /// End of the packet by the IP length, never behind the end of the bytes.
    pub end: usize,
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Protocol number of what is at `l4`.
    pub proto: u8,
    /// Set on every fragment, also on an IPv6 "atomic" one (RFC 6946).
    pub frag: Option<Frag>,
    /// Source and destination port of UDP or TCP, where the packet is whole or
    /// a first fragment and the first four bytes of the header are there.
    pub ports: Option<(u16, u16)>,
    /// The IP length promises more than there is or less than the headers
    /// take. A zero length (jumbo payload, segmentation offload) is one too.
    pub contradicts: bool,
    /// The upper-layer protocol was not found: the chain of extension headers
    /// is cut off, too long, or has too many members; `proto` is then where
    /// the walk ended.
    pub hidden: bool,
}

const _: () = assert!(align_of::<IpPacket>() == align_of::<usize>());

impl IpPacket {
    /// All zero: what [`read_frame`] and [`read_ip`] fill.
    pub const EMPTY: IpPacket = IpPacket {
        l3: 0,
        l4: 0,
        end: 0,
        v6: false,
        proto: 0,
        src: [0; 16],
        dst: [0; 16],
        frag: None,
        ports: None,
        contradicts: false,
        hidden: false,
    };

    /// Whether this is a fragment other than the first one, which carries no
    /// upper-layer header.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        matches!(self.frag, Some(frag) if frag.offset != 0)
    }

    /// Whether a filter by ports cannot judge this packet though its protocol
    /// has ports: a later fragment, a header that is cut off, a hidden one.
    #[inline(always)]
    pub fn hides_ports(&self) -> bool {
        self.hidden || (self.ports.is_none() && matches!(self.proto, TCP | UDP))
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L3 {
    /// IPv4 or IPv6.
    Ip(IpPacket),
    /// Neither, or more VLAN tags than are walked.
    NotIp,
    /// Says it is IP, but has no whole IP header or one of the wrong version.
    Malformed,
}

#[cfg(test)]
mod tests;
