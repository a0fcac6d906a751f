//! Datagrams that a phone has fragmented before it encapsulated them: each
//! packet of a tunnel is authentic but shows only a piece. The pieces of one SA
//! are put together, within bounds, and the whole is judged by it.

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, L3};
use gm_esp::reassembly::Pushed;
use gm_esp::{Mode, PacketBuf, inbound};
use gm_xsk::Umem;

use super::emit::{self, Link};
use super::ends::Seen;
use super::translate::Way;
use super::{Out, Process};
use crate::config::map_addr;

/// What an opened packet has brought.
pub(super) enum Plain<'p> {
    /// A packet of the SA's traffic.
    Whole(PacketBuf<'p>),
    /// A fragment that its SA cannot judge.
    Piece(PacketBuf<'p>),
}

impl Process {
    /// Takes a piece that the SA in `slot` has brought; the last one of a
    /// datagram brings the whole of it.
    pub(super) fn piece_in(
        &mut self,
        umem: &mut Umem,
        (slot, link, seen): (u32, Link, &Seen),
        piece: &[u8],
        out: &mut Out,
    ) {
        let ctx = &self.ctx;
        let Some(entry) = ctx.table.get(slot) else {
            return ctx.drop_from(None, Reason::UnknownSpi, seen);
        };
        // Each piece shows whose it is: one SA fills no other's room.
        let phone = map_addr(entry.sa.selector().src);
        if !matches!(wire::parse_ip(piece, 0), L3::Ip(ip) if ip.src == phone) {
            return ctx.drop_from(Some(entry), Reason::SelectorMismatch, seen);
        }
        let pushed = self.frags_sa.push_of(entry.sa.spi(), piece, ctx.now);
        ctx.counters
            .add(Reason::FragmentLimit, self.frags_sa.take_evicted());
        let mut datagram = match pushed {
            Ok(Pushed::Whole(datagram)) => datagram,
            Ok(Pushed::Stored) => return ctx.counters.count(Reason::Fragment),
            Err(reason) => return ctx.drop_from(Some(entry), reason, seen),
        };
        let mut whole = datagram.buf();
        let nat = &ctx.settings.advertised;
        nat.apply(Way::In, Mode::UdpEncTun, whole.data_mut());
        let end = inbound::admit(whole, &entry.sa).and_then(|mut packet| {
            ctx.clamp(entry, packet.data_mut());
            emit::copies(
                umem,
                link,
                packet.data(),
                ctx.settings.gm0_mtu,
                &mut self.ident,
                &mut out.stack,
            )
        });
        match end {
            Ok(()) => ctx.counters.count(Reason::Ok),
            Err(reason) => ctx.drop_from(Some(entry), reason, seen),
        }
    }
}
