//! A packet out: Selected -> Numbered -> Sealed.

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, ESP, IpPacket, L3};
use gm_engines::{Engine, HEADER_LEN, Key, MAX_IV_LEN};

use crate::batch::{self, InFlight};
use crate::encap;
use crate::headers::{self, IPV6_LEN, MAX_LENGTH};
use crate::inbound::{DUMMY, is_whole};
use crate::iv::IvSource;
use crate::packet::PacketBuf;
use crate::sa::Sa;
use crate::selector::InnerFlow;
use crate::seq::Counter;

/// Bytes of the trailer: padding length and next header.
const TRAILER: usize = 2;
/// UDP port of ESP (RFC 3948).
const ENCAP_PORT: u16 = 4500;

/// UDP ports of the outer header that are known now: what a worker has learnt
/// goes before what the SA was made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncapPorts {
    /// Source port; `None`: the SA's, or 4500.
    pub sport: Option<u16>,
    /// Destination port; `None`: the SA's.
    pub dport: Option<u16>,
}

/// A packet that an SA protects, with room for what sealing adds.
pub struct Selected<'p, 's> {
    packet: PacketBuf<'p>,
    sa: &'s Sa,
    plan: Plan,
}

/// Where everything will be. Offsets count from the start of the plain packet.
#[derive(Clone, Copy)]
struct Plan {
    v6: bool,
    /// Transport mode: headers up to here stay in front of ESP; tunnel: 0.
    kept: usize,
    /// Transport mode: where these headers name what follows them.
    named_at: usize,
    /// Bytes of outer headers: tunnel mode only.
    outer: usize,
    /// Bytes of padding.
    pad: usize,
    /// Bytes added in front of the payload, and behind it.
    front: usize,
    back: usize,
}

impl<'p, 's> Selected<'p, 's> {
    /// Takes an IP packet that is to leave through `sa`. What is behind the IP
    /// packet (Ethernet padding) is cut.
    ///
    /// # Errors
    /// [`Reason::OutMalformed`] when it is no whole IP packet with a whole UDP or
    /// TCP header, a fragment included: transport mode protects datagrams
    /// (RFC 4303 3.3.4).
    /// [`Reason::OutNoSa`] when it is not this SA's traffic, or would leave as a dummy
    /// packet (TS 33.203 6.2).
    /// [`Reason::OutTooBig`] when it would outgrow IP, or its buffer.
    pub fn new(packet: PacketBuf<'p>, sa: &'s Sa) -> Result<Selected<'p, 's>, Reason> {
        match wire::parse_ip(packet.data(), 0) {
            L3::Ip(ip) => Selected::parsed(packet, &ip, sa),
            _ => Err(Reason::OutMalformed),
        }
    }

    /// [`Selected::new`] for who has parsed the packet already: `ip` is what
    /// [`wire::parse_ip`] says of it from offset 0. Its lengths and protocols
    /// have not changed since.
    ///
    /// # Errors
    /// As [`Selected::new`].
    pub fn parsed(
        mut packet: PacketBuf<'p>,
        ip: &IpPacket,
        sa: &'s Sa,
    ) -> Result<Selected<'p, 's>, Reason> {
        let is_its = ip.l3 == 0 && ip.end <= packet.len();
        // As strict as the peer will be.
        if !is_its || !is_whole(ip) || ip.frag.is_some() {
            return Err(Reason::OutMalformed);
        }
        let flow = InnerFlow::of(ip);
        // An SA for any protocol would make a dummy of it.
        if flow.proto == DUMMY || !sa.matches(&flow) {
            return Err(Reason::OutNoSa);
        }
        packet.truncate(ip.end);
        let transform = sa.suite().transform();
        let (kept, named_at, outer) = match &sa.outer() {
            None => {
                let cut = headers::routed(packet.data(), ip.v6, ip.l4);
                (cut.at, cut.named_at, 0)
            }
            Some(outer) => (0, 0, encap::len(outer)),
        };
        let payload = packet.len() - kept;
        let pad = padding(payload + TRAILER, transform.block());
        let plan = Plan {
            v6: ip.v6,
            kept,
            named_at,
            outer,
            pad,
            front: outer + HEADER_LEN + transform.iv_len(),
            back: pad + TRAILER + transform.icv_len(),
        };
        let selected = Selected { packet, sa, plan };
        let limit = match sa.destination().is_ipv6() {
            true => MAX_LENGTH + IPV6_LEN,
            false => MAX_LENGTH,
        };
        let room =
            selected.packet.headroom() >= plan.front && selected.packet.tailroom() >= plan.back;
        if selected.sealed_len() > limit || !room {
            return Err(Reason::OutTooBig);
        }
        Ok(selected)
    }

    /// The plain IP packet, to write what a static NAT in front of this host
    /// will make of it: the selectors have seen it, its length stays.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.packet.data_mut()
    }

    /// Bytes that the IP packet will have when it is sealed.
    pub fn sealed_len(&self) -> usize {
        self.packet.len() + self.plan.front + self.plan.back
    }

    /// Gives the packet its number and writes all but ciphertext and ICV.
    ///
    /// The IV is SPI and number for GCM and GMAC: the four SAs of a set share
    /// a key and a salt, and their SPIs differ, so no nonce comes twice. For
    /// CBC it is drawn from `iv`; 3DES takes the first half of what is drawn.
    ///
    /// # Errors
    /// [`Reason::OutNoEncapPort`] when nobody knows the phone's port yet; no
    /// number is lost then. [`Reason::OutSeqExhausted`] past [`Sa::seq_limit`].
    pub fn number(
        self,
        counter: &Counter<'_>,
        ports: EncapPorts,
        iv: &mut (impl IvSource + ?Sized),
    ) -> Result<Numbered<'p, 's>, Reason> {
        let Selected {
            mut packet,
            sa,
            plan,
        } = self;
        let given = sa.outer();
        let outer = match &given {
            None => None,
            Some(outer) => {
                let dport = ports.dport.or(outer.dport).ok_or(Reason::OutNoEncapPort)?;
                let sport = ports.sport.or(outer.sport).unwrap_or(ENCAP_PORT);
                Some((outer, (sport, dport)))
            }
        };
        let seq = counter
            .next(sa.seq_limit())
            .map_err(|_| Reason::OutSeqExhausted)?;
        let too_big = |_| Reason::OutTooBig;
        packet.grow_back(plan.back).map_err(too_big)?;
        packet.grow_front(plan.front).map_err(too_big)?;

        let ip = packet.data_mut();
        let next = match outer {
            Some((outer, ports)) => {
                let class = encap::class(&ip[plan.front..], plan.v6);
                encap::write(ip, outer, ports, class, seq as u16);
                if plan.v6 { 41 } else { 4 }
            }
            None => {
                ip.copy_within(plan.front..plan.front + plan.kept, 0);
                let next = std::mem::replace(&mut ip[plan.named_at], ESP);
                headers::set_length(ip, plan.v6);
                next
            }
        };
        let esp = plan.outer + plan.kept;
        write_esp(&mut ip[esp..], sa, seq, &plan, next, iv);
        Ok(Numbered {
            packet,
            sa,
            esp,
            seq,
        })
    }
}

/// Bytes that `len` lacks to a multiple of `block`, a power of two.
fn padding(len: usize, block: usize) -> usize {
    len.wrapping_neg() & (block - 1)
}

/// Header, IV and trailer around the payload; padding 1, 2, 3, … (RFC 4303 2.4).
fn write_esp(
    esp: &mut [u8],
    sa: &Sa,
    seq: u64,
    plan: &Plan,
    next: u8,
    source: &mut (impl IvSource + ?Sized),
) {
    let spi = sa.spi().to_be_bytes();
    let low = (seq as u32).to_be_bytes();
    esp[..4].copy_from_slice(&spi);
    esp[4..8].copy_from_slice(&low);
    let transform = sa.suite().transform();
    match transform.iv_len() {
        0 => {}
        _ if transform.has_salt() => {
            esp[8..12].copy_from_slice(&spi);
            esp[12..16].copy_from_slice(&low);
        }
        len => {
            let mut iv = [0; MAX_IV_LEN];
            source.fill(&mut iv);
            esp[8..8 + len].copy_from_slice(&iv[..len]);
        }
    }
    let trailer = esp.len() - plan.back;
    for (byte, value) in esp[trailer..trailer + plan.pad].iter_mut().zip(1..) {
        *byte = value;
    }
    esp[trailer + plan.pad] = plan.pad as u8;
    esp[trailer + plan.pad + 1] = next;
}

/// A packet with its number, not encrypted yet.
pub struct Numbered<'p, 's> {
    packet: PacketBuf<'p>,
    sa: &'s Sa,
    esp: usize,
    seq: u64,
}

impl<'s> InFlight<'s> for Numbered<'_, 's> {
    fn parts(&mut self) -> (&'s Key, &mut [u8], Option<u32>) {
        let key = self.sa.key();
        let seq_hi = self.sa.seq_hi(self.seq);
        (key, &mut self.packet.data_mut()[self.esp..], seq_hi)
    }
}

/// Seals a batch: every packet that is there is taken out and given to `sink`
/// with its index, in order.
///
/// [`Reason::OutMalformed`] when an engine refuses a packet; none of those
/// that [`Selected`] lets through should ever be, and nothing of it leaves.
pub fn seal<'p, 's>(
    engine: &dyn Engine,
    batch: &mut [Option<Numbered<'p, 's>>],
    mut sink: impl FnMut(usize, Result<Sealed<'p>, Reason>),
) {
    batch::all(
        |jobs| engine.seal(jobs),
        batch,
        |index, numbered, good| sink(index, sealed(numbered, good)),
    );
}

/// Seals a single packet.
///
/// # Errors
/// See [`seal`].
pub fn seal_one<'p>(
    engine: &dyn Engine,
    mut numbered: Numbered<'p, '_>,
) -> Result<Sealed<'p>, Reason> {
    let good = batch::one(|jobs| engine.seal(jobs), &mut numbered);
    sealed(numbered, good)
}

fn sealed<'p>(numbered: Numbered<'p, '_>, good: bool) -> Result<Sealed<'p>, Reason> {
    let Numbered {
        mut packet,
        sa,
        seq,
        ..
    } = numbered;
    if !good {
        return Err(Reason::OutMalformed);
    }
    if let Some(outer) = &sa.outer() {
        encap::checksum(packet.data_mut(), outer);
    }
    Ok(Sealed { packet, seq })
}

/// A packet for the wire.
pub struct Sealed<'p> {
    packet: PacketBuf<'p>,
    seq: u64,
}

impl<'p> Sealed<'p> {
    /// The IP packet.
    pub fn packet(&self) -> &PacketBuf<'p> {
        &self.packet
    }

    /// The same, to keep.
    pub fn into_packet(self) -> PacketBuf<'p> {
        self.packet
    }

    /// Its sequence number.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
