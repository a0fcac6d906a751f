//! The SA of a packet that is to leave, its room, and its number.

use std::sync::atomic::Ordering;

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, IpPacket, L3, TCP};
use gm_esp::outbound::{EncapPorts, Numbered, Selected};
use gm_esp::{Counter, InnerFlow, Mode, PacketBuf, Sa};

use super::emit::Link;
use super::outbound::{Fate, Kept};
use super::translate::Way;
use super::{Ctx, Iv, path};
use crate::Event;
use crate::table::Entry;

/// "Don't fragment" in byte 6 of an IPv4 header.
const DF: u8 = 0x40;

/// Numbers left at which the owner is told to renew.
const LOW: u64 = 1 << 20;

/// The longest plain IP packet, its headers before the transport `header` bytes
/// long, that fits `mtu` when it is sealed by `sa`.
pub(super) fn room(sa: &Sa, header: usize, mtu: usize) -> usize {
    let t = sa.suite().transform();
    let (outside, kept) = match sa.outer() {
        None => (header, header),
        Some(o) => (8 + if o.dst.is_ipv4() { 20 } else { 40 }, 0),
    };
    let around = outside + 8 + t.iv_len() + t.icv_len();
    // Blocks are powers of two.
    let payload = mtu.saturating_sub(around) & !(t.block() - 1);
    kept + payload.saturating_sub(2)
}

impl Ctx {
    /// What an IP packet is, and the SA that it will leave through.
    pub(super) fn found(&self, packet: &[u8]) -> Result<(IpPacket, &Entry), Fate> {
        let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
            return Err(Fate::Drop(Reason::OutMalformed));
        };
        let entry = sealable(&ip, self.table.by_flow(&InnerFlow::of(&ip)))?;
        Ok((ip, entry))
    }

    /// Gives the packet, which is `ip` to its SA, its number. With `tell` a TCP
    /// segment that does not fit goes back to the stack instead.
    pub(super) fn number<'p, 's>(
        &'s self,
        iv: &mut Iv,
        mut packet: PacketBuf<'p>,
        (ip, entry): (&IpPacket, &'s Entry),
        tell: bool,
        kept: &mut Kept,
    ) -> Result<Numbered<'p, 's>, Fate> {
        let hot = self.hot(entry).ok_or(Fate::Drop(Reason::OutNoSa))?;
        if ip.proto == TCP {
            self.clamp(entry, packet.data_mut());
        }
        (kept.slot, kept.len) = (Some(entry.slot), packet.len());
        let beyond = kept.link.map_or(0, Link::beyond_mtu);
        kept.mtu = self.mtu(entry).saturating_sub(beyond);

        let most = room(&entry.sa, transport(ip), kept.mtu);
        let fits = packet.len() <= most;
        if !fits && tell && ip.proto == TCP && (ip.v6 || dont_fragment(packet.data())) {
            let most = most.max(path::least(ip.v6));
            if packet.len() > most {
                return Err(Fate::TooBig(most));
            }
        }
        // What does not fit is fragmented after sealing whatever it says: SIP
        // over UDP does not come again smaller, nor does TCP below the least
        // that the stack believes. The checksum follows on sealing; in a tunnel
        // the outer header never forbids it.
        let cut = !fits || self.is_tiny(entry);
        if cut && !ip.v6 && entry.sa.mode() == Mode::Trans {
            packet.data_mut()[6] &= !DF;
        }
        let mut selected = Selected::parsed(packet, ip, &entry.sa).map_err(Fate::Drop)?;
        let nat = &self.settings.advertised;
        nat.apply(Way::Out, entry.sa.mode(), selected.data_mut());
        let numbered = selected.number(&Counter(&hot.seq), self.ports(entry, hot), iv);
        self.watch_numbers(
            entry,
            hot.seq.load(Ordering::Relaxed),
            numbered.as_ref().err(),
        );
        numbered.map_err(Fate::Drop)
    }

    fn ports(&self, entry: &Entry, hot: &gm_region::Hot) -> EncapPorts {
        let learnt = u16::try_from(hot.encap_port.load(Ordering::Relaxed))
            .ok()
            .filter(|p| *p != 0);
        let local = Some(self.settings.encap_port)
            .filter(|p| *p != 0 && entry.sa.mode() == Mode::UdpEncTun);
        // What the SA was made with goes before this host's port.
        let sport = entry.sa.outer().and_then(|o| o.sport).or(local);
        EncapPorts {
            sport,
            dport: learnt,
        }
    }

    /// Announces the end of an SA's numbers, once each.
    fn watch_numbers(&self, entry: &Entry, last: u64, end: Option<&Reason>) {
        let (set, spi) = (entry.set, entry.sa.spi());
        let remaining = entry.sa.seq_limit().saturating_sub(last);
        if remaining < LOW && !entry.tell_low() {
            self.tell(Event::SeqLow {
                set,
                spi,
                remaining,
            });
        }
        if end == Some(&Reason::OutSeqExhausted) && !entry.tell_end() {
            self.tell(Event::Exhausted { set, spi });
        }
    }
}

/// The SA of a packet that can be sealed.
pub(super) fn sealable<'s>(ip: &IpPacket, entry: Option<&'s Entry>) -> Result<&'s Entry, Fate> {
    if ip.contradicts || ip.hidden {
        return Err(Fate::Drop(Reason::OutMalformed));
    }
    entry.ok_or(Fate::Drop(Reason::OutNoSa))
}

/// Bytes in front of the transport header.
fn transport(ip: &IpPacket) -> usize {
    ip.l4 - ip.l3
}

/// The DF bit of an IPv4 packet.
fn dont_fragment(packet: &[u8]) -> bool {
    packet.get(6).is_some_and(|b| b & DF != 0)
}
