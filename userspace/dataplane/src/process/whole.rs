//! Datagrams that came in fragments: put together, then judged as a whole, for
//! XDP could not.

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, About, Class, L3, Quoted};
use gm_esp::reassembly::Datagram;
use gm_esp::{EncapPort, PacketBuf, inbound};
use gm_xsk::{Frame, Umem};

use super::emit::{self, Link};
use super::ends::Seen;
use super::pieces::Plain;
use super::{Ctx, Out, Process};
use crate::divide::Hand;
use crate::drops::from_map;

/// The slot of the SA where there is one, the reason, and what ended.
type End = (Option<u32>, Reason, Seen);

/// What is to be injected: the slot of the SA that has brought it, or why it is
/// without one.
type Passed<'d> = (Result<u32, Reason>, Plain<'d>);

impl Process {
    /// A fragment of anything to a Gm address; the last one of a datagram
    /// brings the whole of it.
    pub(super) fn fragment_in(&mut self, umem: &mut Umem, frame: &Frame, out: &mut Out) {
        let ctx = &self.ctx;
        let data = frame.data();
        let L3::Ip(ip) = wire::parse_frame(data) else {
            return ctx.drop_from(None, Reason::Malformed, &Seen::default());
        };
        let Some(link) = Link::of(data, ip.l3) else {
            return ctx.drop_packet(None, Reason::Malformed, (data, ip.l3), false);
        };
        let packet = &data[ip.l3..ip.end];
        let Some(whole) = ctx.put_together(&mut self.frags_in, packet, false) else {
            return;
        };
        if ctx.icmp_whole(whole.packet()) {
            return;
        }
        if self.hand.divides()
            && let Some(slot) = ctx.slot_of(&whole, &self.hand)
            && !self.hand.is_mine(slot)
        {
            let link = link.as_slice();
            return self.hand.pass_on(slot, link, whole.packet(), ctx);
        }
        self.judge(umem, link, whole, out);
    }

    /// A datagram that another worker has put together, and handed over because
    /// its SA is here; `link` bytes of link header are in front of it.
    pub(crate) fn whole_in(
        &mut self,
        umem: &mut Umem,
        bytes: &[u8],
        link: usize,
        out: &mut Out,
        now: u64,
    ) {
        self.ctx.now = now;
        match (Link::of(bytes, link), bytes.get(link..)) {
            (Some(link), Some(packet)) => self.judge(umem, link, Datagram::copy_of(packet), out),
            _ => self
                .ctx
                .drop_from(None, Reason::Malformed, &Seen::default()),
        }
    }

    fn judge(&mut self, umem: &mut Umem, link: Link, mut whole: Datagram, out: &mut Out) {
        let ctx = &self.ctx;
        let seen = Seen::of(whole.packet(), 0, ctx.settings.encap_port, false);
        let (reason, packet) = match ctx.whole(&mut whole) {
            Ok((Ok(slot), Plain::Piece(piece))) => {
                return self.piece_in(umem, (slot, link, &seen), piece.data(), out);
            }
            Ok((Ok(_), Plain::Whole(packet))) => (Reason::Ok, packet),
            Ok((Err(reason), Plain::Whole(packet) | Plain::Piece(packet))) => (reason, packet),
            Err((slot, reason, seen)) => {
                return ctx.drop_from(slot.and_then(|s| ctx.table.get(s)), reason, &seen);
            }
        };
        let mtu = ctx.settings.gm0_mtu;
        let end = emit::copies(
            umem,
            link,
            packet.data(),
            mtu,
            &mut self.ident,
            &mut out.stack,
        );
        match end {
            Ok(()) => ctx.counters.count(reason),
            Err(reason) => ctx.drop_packet(None, reason, (packet.data(), 0), false),
        }
    }
}

impl Ctx {
    /// An ICMP error that came in fragments: XDP could not see whose packet it
    /// quotes. Says whether it ends here, as it would whole.
    fn icmp_whole(&self, packet: &[u8]) -> bool {
        let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
            return false;
        };
        let mut quoted = Quoted::EMPTY;
        if !wire::is_icmp_error(packet, &ip) || !wire::read_quoted(packet, &ip, &mut quoted) {
            return false;
        }
        // It came to one of our addresses, so what it quotes is ours or made up.
        let protects = |port| self.settings.protects(port);
        match wire::about(
            packet,
            &quoted,
            self.settings.encap_port,
            |_| true,
            protects,
        ) {
            About::Esp => self.icmp_in(packet, 0),
            About::Protected => self.drop_packet(None, Reason::ClearIcmp, (packet, 0), false),
            About::Other => return false,
        }
        true
    }

    /// A datagram that was put together: ESP is opened, cleartext judged by
    /// its port.
    fn whole<'d>(&self, datagram: &'d mut Datagram) -> Result<Passed<'d>, End> {
        let seen = Seen::of(datagram.packet(), 0, self.settings.encap_port, false);
        let end = |reason| (None, reason, seen);
        let ip = match wire::parse_ip(datagram.packet(), 0) {
            L3::Ip(ip) if !ip.contradicts => ip,
            _ => return Err(end(Reason::Malformed)),
        };
        let encap = EncapPort::Dst(self.settings.encap_port);
        let passed = |reason, packet| Ok((Err(reason), Plain::Whole(packet)));
        match wire::classify(datagram.packet(), &ip, encap) {
            Class::Esp { spi, .. } | Class::UdpEsp { spi, .. }
                if self.settings.kernel_sas
                    && self.table.by_spi(from_map(ip.dst), spi).is_none() =>
            {
                passed(Reason::PassKernelSa, datagram.buf())
            }
            Class::Esp { .. } | Class::UdpEsp { .. } => {
                let opened = self.whole_esp(datagram.buf(), &seen);
                let (slot, plain) = opened.map_err(|(slot, reason)| (slot, reason, seen))?;
                Ok((Ok(slot), plain))
            }
            Class::NonEspMarker => passed(Reason::ClearReassembled, datagram.buf()),
            Class::Keepalive => Err(end(Reason::Keepalive)),
            Class::Malformed { .. } | Class::Fragment => Err(end(Reason::Malformed)),
            Class::Other => match ip.ports {
                // It ends here as it does in the guard.
                Some((_, dst)) if self.settings.protects(dst) => {
                    Err(end(Reason::CleartextProtected))
                }
                None if ip.hides_ports() => Err(end(Reason::Malformed)),
                _ => passed(Reason::ClearReassembled, datagram.buf()),
            },
        }
    }

    /// The slot of the SA of a datagram that is ESP: one of this worker's, or
    /// the one that its SPI names.
    fn slot_of(&self, datagram: &Datagram, hand: &Hand) -> Option<u32> {
        let packet = datagram.packet();
        let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
            return None;
        };
        let encap = EncapPort::Dst(self.settings.encap_port);
        let spi = match wire::classify(packet, &ip, encap) {
            Class::Esp { spi, .. } | Class::UdpEsp { spi, .. } => spi,
            _ => return None,
        };
        let here = self.table.by_spi(from_map(ip.dst), spi).map(|e| e.slot);
        here.or_else(|| hand.slot_of_spi(spi))
    }

    /// Where it fails: the slot of the SA, and the reason.
    fn whole_esp<'d>(
        &self,
        packet: PacketBuf<'d>,
        seen: &Seen,
    ) -> Result<(u32, Plain<'d>), (Option<u32>, Reason)> {
        let received = self.received(packet).map_err(|reason| (None, reason))?;
        let entry = self
            .table
            .by_spi(received.destination(), received.spi())
            .ok_or((None, Reason::UnknownSpi))?;
        self.windowed(entry, received, seen)
            .and_then(|checked| inbound::open_one(self.engine, checked))
            .and_then(|opened| self.finish(entry, opened, &mut seen.clone()))
            .map(|plain| (entry.slot, plain))
            .map_err(|reason| (Some(entry.slot), reason))
    }
}
