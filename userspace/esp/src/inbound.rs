//! A packet in: Received -> Checked -> Opened -> Committed -> Stripped -> Admitted.
//!
//! Each state owns the packet and is left by one method, in the order of the
//! verdicts; a step that is skipped does not compile. An error ends the
//! packet: what the buffer then holds is of no use.

use std::net::IpAddr;

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, Class, EncapPort, IpPacket, L3, UDP_HEADER};
use gm_engines::{Engine, HEADER_LEN, Key};

use crate::batch::{self, InFlight};
use crate::ecn::Mark;
use crate::headers;
use crate::packet::PacketBuf;
use crate::replay::Window;
use crate::sa::{Mode, Sa};
use crate::selector::address;

mod plain;

pub(crate) use plain::is_whole;
pub use plain::{Admitted, Stripped, admit};

/// Next header of a dummy packet (RFC 4303 2.6).
pub(crate) const DUMMY: u8 = 59;
/// Next header of IPv4 in a tunnel.
const IPV4: u8 = 4;
/// Next header of IPv6 in a tunnel.
const IPV6: u8 = 41;
/// Bytes of the trailer: padding length and next header.
const TRAILER: usize = 2;

/// A packet that is no ESP for us, and what could be read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// [`Reason::NotEsp`], [`Reason::Keepalive`], [`Reason::PassNonEspMarker`],
    /// [`Reason::Fragment`] (put it together first) or [`Reason::Malformed`].
    pub reason: Reason,
    /// SPI, host byte order, where the first 8 bytes of ESP are there.
    pub spi: Option<u32>,
    /// Sequence number, low 32 bits, where the first 8 bytes of ESP are there.
    pub seq: Option<u32>,
}

/// An ESP packet, raw or in UDP, about which nothing is proven.
pub struct Received<'p> {
    packet: PacketBuf<'p>,
    esp: usize,
    spi: u32,
    seq: u32,
    v6: bool,
    encapsulated: bool,
    source: (IpAddr, u16),
    destination: IpAddr,
}

impl<'p> Received<'p> {
    /// Looks whether the packet is ESP and whole. `encap` says on which UDP
    /// port ESP comes, 4500 usually. What is behind the IP packet (Ethernet
    /// padding) is cut.
    ///
    /// # Errors
    /// [`Rejected`] with the reason and what could be read.
    pub fn parse(mut packet: PacketBuf<'p>, encap: EncapPort) -> Result<Received<'p>, Rejected> {
        let reject = |reason, head: Option<(u32, u32)>| Rejected {
            reason,
            spi: head.map(|(spi, _)| spi),
            seq: head.map(|(_, seq)| seq),
        };
        let ip = match wire::parse_ip(packet.data(), 0) {
            L3::Ip(ip) => ip,
            L3::NotIp => return Err(reject(Reason::NotEsp, None)),
            L3::Malformed => return Err(reject(Reason::Malformed, None)),
        };
        let (spi, seq, esp, encapsulated) = match wire::classify(packet.data(), &ip, encap) {
            Class::Esp { spi, seq, esp } => (spi, seq, esp, false),
            Class::UdpEsp { spi, seq, esp } => (spi, seq, esp, true),
            Class::Keepalive => return Err(reject(Reason::Keepalive, None)),
            Class::NonEspMarker => return Err(reject(Reason::PassNonEspMarker, None)),
            Class::Fragment => return Err(reject(Reason::Fragment, None)),
            Class::Malformed { head } => return Err(reject(Reason::Malformed, head)),
            Class::Other => return Err(reject(Reason::NotEsp, None)),
        };
        let end = match encapsulated {
            true => udp_end(packet.data(), &ip),
            false => ip.end,
        };
        packet.truncate(end);
        Ok(Received {
            packet,
            esp,
            spi,
            seq,
            v6: ip.v6,
            encapsulated,
            source: (
                address(&ip.src, ip.v6),
                ip.ports.map_or(0, |(source, _)| source),
            ),
            destination: address(&ip.dst, ip.v6),
        })
    }

    /// SPI, host byte order.
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// Sequence number, the low 32 bits that are on the wire.
    pub fn seq(&self) -> u32 {
        self.seq
    }

    /// Outer destination; with the SPI it names the SA (RFC 4301 4.1).
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Whether the ESP packet is in UDP.
    pub fn encapsulated(&self) -> bool {
        self.encapsulated
    }

    /// Outer source address, and the UDP port where there is UDP (else 0).
    /// Nothing vouches for it yet.
    pub fn outer_source(&self) -> (IpAddr, u16) {
        self.source
    }

    /// Checks what needs no key: shape, mode, replay. Changes nothing.
    ///
    /// # Errors
    /// [`Reason::UnknownSpi`] when it is another SA's packet, then
    /// [`Reason::Malformed`], [`Reason::ModeMismatch`], [`Reason::Replay`],
    /// [`Reason::Stale`], in this order.
    pub fn check<'s>(self, sa: &'s Sa, window: &Window<'_>) -> Result<Checked<'p, 's>, Reason> {
        if sa.spi() != self.spi || !sa.is_to(&self.destination) {
            return Err(Reason::UnknownSpi);
        }
        if !sa.suite().transform().fits(self.packet.len() - self.esp) {
            return Err(Reason::Malformed);
        }
        if self.encapsulated != (sa.mode() == Mode::UdpEncTun) {
            return Err(Reason::ModeMismatch);
        }
        let seq = match sa.esn() {
            true => window.full_seq(self.seq),
            false => u64::from(self.seq),
        };
        window.check(seq)?;
        Ok(Checked(Passed {
            packet: self.packet,
            sa,
            esp: self.esp,
            seq,
            v6: self.v6,
            source: self.source,
        }))
    }
}

/// End of the UDP datagram; the parser has found its length to hold.
fn udp_end(packet: &[u8], ip: &IpPacket) -> usize {
    let length = packet.get(ip.l4 + 4..ip.l4 + 6);
    let length = length.map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    (ip.l4 + length.max(UDP_HEADER)).min(ip.end)
}

/// What all later states know.
struct Passed<'p, 's> {
    packet: PacketBuf<'p>,
    sa: &'s Sa,
    esp: usize,
    seq: u64,
    v6: bool,
    source: (IpAddr, u16),
}

/// A packet that is worth its cryptography.
pub struct Checked<'p, 's>(Passed<'p, 's>);

impl<'s> InFlight<'s> for Checked<'_, 's> {
    fn parts(&mut self) -> (&'s Key, &mut [u8], Option<u32>) {
        let Passed { sa, esp, seq, .. } = self.0;
        (
            sa.key(),
            &mut self.0.packet.data_mut()[esp..],
            sa.seq_hi(seq),
        )
    }
}

/// Opens a batch: every packet that is there is taken out and given to `sink`
/// with its index, in order; a bad one as [`Reason::BadIcv`].
///
/// Any length will do; the engine sees [`crate::BATCH`] packets at a time.
pub fn open<'p, 's>(
    engine: &dyn Engine,
    batch: &mut [Option<Checked<'p, 's>>],
    mut sink: impl FnMut(usize, Result<Opened<'p, 's>, Reason>),
) {
    batch::all(
        |jobs| engine.open(jobs),
        batch,
        |index, checked, good| sink(index, opened(checked, good)),
    );
}

/// Opens a single packet.
///
/// # Errors
/// [`Reason::BadIcv`].
pub fn open_one<'p, 's>(
    engine: &dyn Engine,
    mut checked: Checked<'p, 's>,
) -> Result<Opened<'p, 's>, Reason> {
    let good = batch::one(|jobs| engine.open(jobs), &mut checked);
    opened(checked, good)
}

fn opened<'p, 's>(checked: Checked<'p, 's>, good: bool) -> Result<Opened<'p, 's>, Reason> {
    match good {
        true => Ok(Opened(checked.0)),
        false => Err(Reason::BadIcv),
    }
}

/// A packet that is authentic and decrypted, but may be the second of its kind.
pub struct Opened<'p, 's>(Passed<'p, 's>);

impl<'p, 's> Opened<'p, 's> {
    /// Marks the number in the window, the same one that [`Received::check`]
    /// saw. Two copies in one batch both pass that first check; here the
    /// second fails.
    ///
    /// # Errors
    /// [`Reason::Replay`], [`Reason::Stale`].
    pub fn commit(self, window: &Window<'_>) -> Result<Committed<'p, 's>, Reason> {
        window.commit(self.0.seq)?;
        Ok(Committed(self.0))
    }
}

/// A packet that is authentic and new. The window has moved, whatever comes.
pub struct Committed<'p, 's>(Passed<'p, 's>);

impl<'p, 's> Committed<'p, 's> {
    /// The whole sequence number.
    pub fn seq(&self) -> u64 {
        self.0.seq
    }

    /// Outer source address and UDP port (0 without UDP), now vouched for: a
    /// phone's port behind a NAT may be learnt from it.
    pub fn outer_source(&self) -> (IpAddr, u16) {
        self.0.source
    }

    /// Strips ESP off in place and checks that what it carried is for this SA
    /// (RFC 4301 5.2).
    ///
    /// An inner fragment matches only where the SA takes any port.
    ///
    /// # Errors
    /// [`Reason::Malformed`], [`Reason::Dummy`], [`Reason::SelectorMismatch`],
    /// in this order.
    pub fn admit(self) -> Result<Admitted<'p>, Reason> {
        self.strip()?.admit()
    }

    /// Strips ESP off in place; whether what it carried is for this SA is not
    /// judged yet. In a tunnel the outer header's congestion mark goes inside
    /// (RFC 6040 4.2).
    ///
    /// # Errors
    /// [`Reason::Malformed`], [`Reason::Dummy`], in this order. A mark on a
    /// packet whose sender does not know marks makes it malformed.
    pub fn strip(self) -> Result<Stripped<'p, 's>, Reason> {
        let Passed {
            mut packet,
            sa,
            esp,
            seq,
            v6,
            source,
        } = self.0;
        let transform = sa.suite().transform();
        let head = HEADER_LEN + transform.iv_len();
        let trailer_end = packet.len() - transform.icv_len();
        let payload = trailer_end.saturating_sub(esp + head);
        // What the padding holds is not judged: the ICV vouches for it.
        let [.., pad, next] = packet.data()[..trailer_end] else {
            return Err(Reason::Malformed);
        };
        let tail = TRAILER + usize::from(pad);
        if tail > payload {
            return Err(Reason::Malformed);
        }
        if next == DUMMY {
            return Err(Reason::Dummy);
        }
        let malformed = |_| Reason::Malformed;
        packet
            .trim_back(transform.icv_len() + tail)
            .map_err(malformed)?;
        match sa.mode() {
            Mode::Trans => {
                let named_at = headers::named_at(packet.data(), v6, esp);
                let ip = packet.data_mut();
                ip[named_at] = next;
                ip.copy_within(..esp, head);
                packet.trim_front(head).map_err(malformed)?;
                headers::set_length(packet.data_mut(), v6);
            }
            Mode::UdpEncTun => {
                let mark = Mark::of(packet.data());
                packet.trim_front(esp + head).map_err(malformed)?;
                let version = packet.data().first().map(|first| first >> 4);
                if !matches!((next, version), (IPV4, Some(4)) | (IPV6, Some(6))) {
                    return Err(Reason::Malformed);
                }
                mark.carry_in(packet.data_mut()).ok_or(Reason::Malformed)?;
            }
        }
        Ok(Stripped {
            packet,
            sa,
            seq,
            source,
        })
    }
}

#[cfg(test)]
#[path = "inbound_tests.rs"]
mod tests;
