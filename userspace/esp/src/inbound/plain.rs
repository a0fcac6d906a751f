//! The end of a packet's way in: without ESP, judged by its SA's selectors.

use std::net::IpAddr;

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, IpPacket, L3, TCP, UDP, UDP_HEADER};

use crate::packet::PacketBuf;
use crate::sa::{Mode, Sa};
use crate::selector::InnerFlow;

/// Shortest TCP header.
const TCP_HEADER: usize = 20;

/// A packet without ESP. It is authentic and new; whether it is its SA's
/// traffic is not known yet.
pub struct Stripped<'p, 's> {
    pub(super) packet: PacketBuf<'p>,
    pub(super) sa: &'s Sa,
    pub(super) seq: u64,
    pub(super) source: (IpAddr, u16),
}

impl<'p, 's> Stripped<'p, 's> {
    /// The plain IP packet, to put right what a static NAT between the ends
    /// has changed before the selectors see it.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.packet.data_mut()
    }

    /// Whether it is a piece of a datagram that was fragmented before it was
    /// encapsulated, and of an SA that wants to see ports: it has to be put
    /// together with the others of this SA, and the whole to be judged by
    /// [`admit`].
    pub fn is_piece(&self) -> bool {
        self.sa.mode() == Mode::UdpEncTun
            && self.sa.names_ports()
            && matches!(wire::parse_ip(self.packet.data(), 0), L3::Ip(ip) if ip.frag.is_some())
    }

    /// The packet as it is, not judged: for a piece.
    pub fn into_piece(self) -> PacketBuf<'p> {
        self.packet
    }

    /// Checks that the packet is for this SA (RFC 4301 5.2).
    ///
    /// # Errors
    /// [`Reason::Malformed`], [`Reason::SelectorMismatch`], in this order.
    pub fn admit(self) -> Result<Admitted<'p>, Reason> {
        self.admit_or_show().map_err(|(reason, _)| reason)
    }

    /// The same; an error shows whose traffic it would have been.
    ///
    /// # Errors
    /// As [`Stripped::admit`]; with [`Reason::SelectorMismatch`] the flow.
    pub fn admit_or_show(self) -> Result<Admitted<'p>, (Reason, Option<InnerFlow>)> {
        let Stripped {
            packet,
            sa,
            seq,
            source,
        } = self;
        let (packet, flow) = judge(packet, sa)?;
        Ok(Admitted {
            packet,
            flow,
            seq,
            source,
        })
    }
}

/// Checks that a datagram that was put together of an SA's pieces is for it
/// (RFC 4301 5.2, 7.4).
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::SelectorMismatch`], in this order.
pub fn admit<'p>(packet: PacketBuf<'p>, sa: &Sa) -> Result<PacketBuf<'p>, Reason> {
    judge(packet, sa)
        .map(|(packet, _)| packet)
        .map_err(|(reason, _)| reason)
}

type Refused = (Reason, Option<InnerFlow>);

fn judge<'p>(mut packet: PacketBuf<'p>, sa: &Sa) -> Result<(PacketBuf<'p>, InnerFlow), Refused> {
    let ip = inner(packet.data()).map_err(|reason| (reason, None))?;
    packet.truncate(ip.end);
    let flow = InnerFlow::of(&ip);
    if !sa.matches(&flow) {
        return Err((Reason::SelectorMismatch, Some(flow)));
    }
    Ok((packet, flow))
}

/// The inner packet, when there is one: whole by its lengths, and with a whole
/// UDP or TCP header where it is one of these.
fn inner(packet: &[u8]) -> Result<IpPacket, Reason> {
    match wire::parse_ip(packet, 0) {
        L3::Ip(ip) if is_whole(&ip) => Ok(ip),
        _ => Err(Reason::Malformed),
    }
}

/// Whether a packet is whole in this sense.
pub(crate) fn is_whole(ip: &IpPacket) -> bool {
    let least = match ip.proto {
        _ if ip.is_later_fragment() => 0,
        UDP => UDP_HEADER,
        TCP => TCP_HEADER,
        _ => 0,
    };
    !ip.contradicts && !ip.hidden && ip.end >= ip.l4 + least
}

/// A packet for the local stack.
pub struct Admitted<'p> {
    packet: PacketBuf<'p>,
    flow: InnerFlow,
    seq: u64,
    source: (IpAddr, u16),
}

impl<'p> Admitted<'p> {
    /// The plain IP packet.
    pub fn packet(&self) -> &PacketBuf<'p> {
        &self.packet
    }

    /// The same, to keep.
    pub fn into_packet(self) -> PacketBuf<'p> {
        self.packet
    }

    /// Whose traffic it is.
    pub fn flow(&self) -> &InnerFlow {
        &self.flow
    }

    /// The whole sequence number.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// See [`super::Committed::outer_source`].
    pub fn outer_source(&self) -> (IpAddr, u16) {
        self.source
    }
}
