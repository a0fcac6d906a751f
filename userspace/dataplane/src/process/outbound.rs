//! From the local stack to the uplink.

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, ESP, IpPacket, L3, TCP, UDP};
use gm_esp::outbound::{EncapPorts, Numbered, Selected};
use gm_esp::{Counter, InnerFlow, Mode, PacketBuf, Sa, outbound};
use gm_xsk::{Frame, Umem};
use std::sync::atomic::Ordering;

use super::emit::{self, Link};
use super::ends::Seen;
use super::translate::Way;
use super::{BATCH, Ctx, Iv, Out, Process, path};
use crate::table::Entry;
use crate::tap::Direction;
use crate::{Event, icmp};

/// "Don't fragment" in byte 6 of an IPv4 header.
const DF: u8 = 0x40;

/// Numbers left at which the owner is told to renew.
const LOW: u64 = 1 << 20;

/// What becomes of a frame of the batch.
#[derive(Clone, Copy)]
enum Fate {
    /// It ends for this reason.
    Drop(Reason),
    /// The stack is told that the packet may be this long.
    TooBig(usize),
    /// The sealed IP packet is at this place of the frame.
    Send(usize, usize),
    /// The kernel has sealed it: it goes on as it is.
    Kernel,
}

/// What is kept of a frame while its packet is on its way.
#[derive(Clone, Copy, Default)]
struct Kept {
    /// The slot of its SA.
    slot: Option<u32>,
    link: Option<Link>,
    /// Length of the plain IP packet.
    len: usize,
    /// The longest packet that may leave.
    mtu: usize,
}

/// The longest plain IP packet, its headers before the transport `header` bytes
/// long, that fits `mtu` when it is sealed by `sa`.
pub(super) fn room(sa: &Sa, header: usize, mtu: usize) -> usize {
    let t = sa.spec.suite.transform();
    let (outside, kept) = match sa.spec.outer {
        None => (header, header),
        Some(o) => (8 + if o.dst.is_ipv4() { 20 } else { 40 }, 0),
    };
    let around = outside + 8 + t.iv_len() + t.icv_len();
    let payload = mtu.saturating_sub(around) / t.block() * t.block();
    kept + payload.saturating_sub(2)
}

impl Process {
    /// Takes what gm0x has brought, at most [`BATCH`] frames.
    pub(crate) fn outbound(
        &mut self,
        umem: &mut Umem,
        batch: &mut Vec<Frame>,
        out: &mut Out,
        now: u64,
    ) {
        self.ctx.now = now;
        let sent = out.wire.len();
        let is_fragment =
            |f: &Frame| matches!(wire::parse_frame(f.data()), L3::Ip(ip) if ip.frag.is_some());
        for frame in batch.extract_if(.., |f| is_fragment(f)) {
            self.fragment_out(umem, &frame, out);
            umem.free(frame);
        }

        let mut kept = [Kept::default(); BATCH];
        let mut fates = [Fate::Drop(Reason::OutMalformed); BATCH];
        self.ctx.seal(&mut self.iv, batch, &mut kept, &mut fates);
        for (frame, (fate, kept)) in batch.drain(..).zip(fates.into_iter().zip(kept)) {
            self.send(umem, frame, fate, kept, out);
        }
        for frame in &out.wire[sent..] {
            self.tap.copy(Direction::Out, frame.data());
        }
    }

    /// Brings one frame of the batch to its end.
    fn send(&mut self, umem: &mut Umem, mut frame: Frame, fate: Fate, kept: Kept, out: &mut Out) {
        let ctx = &self.ctx;
        let entry = kept.slot.and_then(|slot| ctx.table.get(slot));
        let end = match (fate, kept.link) {
            (Fate::Drop(reason), _) => Err(reason),
            (Fate::Kernel, _) => {
                ctx.counters.count(Reason::PassKernelSa);
                return out.wire.push(frame);
            }
            (Fate::TooBig(most), Some(link)) => {
                let packet = &frame.data()[link.len()..];
                tell_too_big(umem, link, packet, most, out);
                Err(Reason::OutTooBig)
            }
            (Fate::Send(start, end), Some(link)) => {
                ctx.sent(entry, kept.len);
                if end - start > kept.mtu {
                    let packet = &frame.chunk()[start..end];
                    let (ident, wire) = (&mut self.ident, &mut out.wire);
                    emit::copies(umem, link, packet, kept.mtu, ident, wire)
                } else if link.put(&mut frame, start, end) {
                    ctx.counters.count(Reason::Sealed);
                    return out.wire.push(frame);
                } else {
                    Err(Reason::OutTooBig)
                }
            }
            (_, None) => Err(Reason::OutMalformed),
        };
        match (end, kept.link) {
            (Ok(()), _) => ctx.counters.count(Reason::Sealed),
            (Err(reason), Some(link)) => {
                ctx.drop_packet(entry, reason, (frame.data(), link.len()), true);
            }
            (Err(reason), None) => {
                let seen = Seen {
                    outbound: true,
                    ..Seen::default()
                };
                ctx.drop_from(entry, reason, &seen);
            }
        }
        umem.free(frame);
    }

    /// A fragment of something protected; the last one of a datagram brings
    /// the whole of it, which is sealed and fragmented again (RFC 4303 3.3.4).
    fn fragment_out(&mut self, umem: &mut Umem, frame: &Frame, out: &mut Out) {
        let Process {
            ctx,
            iv,
            frags_out,
            ident,
            ..
        } = self;
        let data = frame.data();
        let nothing = Seen {
            outbound: true,
            ..Seen::default()
        };
        let L3::Ip(ip) = wire::parse_frame(data) else {
            return ctx.drop_from(None, Reason::OutMalformed, &nothing);
        };
        let Some(link) = Link::of(data, ip.l3) else {
            return ctx.drop_from(None, Reason::OutMalformed, &nothing);
        };
        let Some(mut whole) = ctx.put_together(frags_out, &data[ip.l3..ip.end], true) else {
            return;
        };
        let seen = Seen::of(whole.packet(), 0, ctx.settings.encap_port, true);
        let mut kept = Kept {
            link: Some(link),
            ..Kept::default()
        };
        let sealed = ctx
            .number(iv, whole.buf(), false, &mut kept)
            .and_then(|n| outbound::seal_one(ctx.engine, n).map_err(Fate::Drop));
        let entry = kept.slot.and_then(|slot| ctx.table.get(slot));
        let end = match sealed {
            Ok(sealed) => {
                ctx.sent(entry, kept.len);
                let packet = sealed.packet().data();
                emit::copies(umem, link, packet, kept.mtu, ident, &mut out.wire)
            }
            Err(Fate::Drop(reason)) => Err(reason),
            Err(_) => Err(Reason::OutTooBig),
        };
        match end {
            Ok(()) => ctx.counters.count(Reason::Sealed),
            Err(reason) => ctx.drop_from(entry, reason, &seen),
        }
    }
}

/// Tells the local stack, as the peer would, how long a packet may be. Without
/// a free frame it hears the next time.
fn tell_too_big(umem: &mut Umem, link: Link, packet: &[u8], most: usize, out: &mut Out) {
    let mut error = [0; icmp::MAX];
    let most = u16::try_from(most).unwrap_or(u16::MAX);
    if let Some(len) = icmp::too_big(packet, most, &mut error) {
        let (link, mut ident) = (link.reversed(), 0);
        let _ = emit::copies(
            umem,
            link,
            &error[..len],
            usize::MAX,
            &mut ident,
            &mut out.stack,
        );
    }
}

impl Ctx {
    /// Seals a batch.
    fn seal(
        &self,
        iv: &mut Iv,
        frames: &mut [Frame],
        kept: &mut [Kept; BATCH],
        fates: &mut [Fate; BATCH],
    ) {
        let mut numbered: [Option<Numbered<'_, '_>>; BATCH] = [const { None }; BATCH];
        let places = numbered
            .iter_mut()
            .zip(kept.iter_mut().zip(fates.iter_mut()));
        for (frame, (numbered, (kept, fate))) in frames.iter_mut().zip(places) {
            match self.prepare(iv, frame, kept) {
                Ok(n) => *numbered = Some(n),
                Err(end) => *fate = end,
            }
        }
        outbound::seal(self.engine, &mut numbered, |i, sealed| {
            if let Some(fate) = fates.get_mut(i) {
                *fate = match sealed {
                    Ok(s) => Fate::Send(s.packet().start(), s.packet().end()),
                    Err(reason) => Fate::Drop(reason),
                };
            }
        });
    }

    fn prepare<'p>(
        &self,
        iv: &mut Iv,
        frame: &'p mut Frame,
        kept: &mut Kept,
    ) -> Result<Numbered<'p, '_>, Fate> {
        let malformed = Fate::Drop(Reason::OutMalformed);
        let L3::Ip(ip) = wire::parse_frame(frame.data()) else {
            return Err(malformed);
        };
        kept.link = Some(Link::of(frame.data(), ip.l3).ok_or(malformed)?);
        if self.is_kernels(&ip) {
            return Err(Fate::Kernel);
        }
        let (chunk, start, _) = frame.chunk_mut();
        self.number(
            iv,
            PacketBuf::new(chunk, start + ip.l3, start + ip.end),
            true,
            kept,
        )
    }

    /// Whether it is ESP already: tc takes it here only while SAs go back to the
    /// kernel, so that it comes behind what is sealed here.
    fn is_kernels(&self, ip: &IpPacket) -> bool {
        let port = self.settings.encap_port;
        let in_udp = ip.proto == UDP && port != 0 && ip.ports.is_some_and(|(src, _)| src == port);
        self.settings.kernel_sas && (ip.proto == ESP || in_udp)
    }

    /// Finds the SA, and gives the packet its number. With `tell` a TCP segment
    /// that does not fit goes back to the stack instead.
    fn number<'p>(
        &self,
        iv: &mut Iv,
        mut packet: PacketBuf<'p>,
        tell: bool,
        kept: &mut Kept,
    ) -> Result<Numbered<'p, '_>, Fate> {
        let L3::Ip(ip) = wire::parse_ip(packet.data(), 0) else {
            return Err(Fate::Drop(Reason::OutMalformed));
        };
        if ip.contradicts || ip.hidden {
            return Err(Fate::Drop(Reason::OutMalformed));
        }
        let entry = self
            .table
            .by_flow(&InnerFlow::of(&ip))
            .ok_or(Fate::Drop(Reason::OutNoSa))?;
        let hot = self.hot(entry).ok_or(Fate::Drop(Reason::OutNoSa))?;
        self.clamp(entry, packet.data_mut());
        (kept.slot, kept.len) = (Some(entry.slot), packet.len());
        let beyond = kept.link.map_or(0, Link::beyond_mtu);
        kept.mtu = self.mtu(entry).saturating_sub(beyond);

        let most = room(&entry.sa, transport(&ip), kept.mtu);
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
        if cut && !ip.v6 && entry.sa.spec.mode == Mode::Trans {
            packet.data_mut()[6] &= !DF;
        }
        let mut selected = Selected::new(packet, &entry.sa).map_err(Fate::Drop)?;
        let nat = &self.settings.advertised;
        nat.apply(Way::Out, entry.sa.spec.mode, selected.data_mut());
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
            .filter(|p| *p != 0 && entry.sa.spec.mode == Mode::UdpEncTun);
        // What the SA was made with goes before this host's port.
        let sport = entry.sa.spec.outer.and_then(|o| o.sport).or(local);
        EncapPorts {
            sport,
            dport: learnt,
        }
    }

    /// Announces the end of an SA's numbers, once each.
    fn watch_numbers(&self, entry: &Entry, last: u64, end: Option<&Reason>) {
        let (set, spi) = (entry.set, entry.sa.spec.spi);
        let remaining = entry.sa.seq_limit().saturating_sub(last);
        if remaining < LOW && !entry.low_told.replace(true) {
            self.tell(Event::SeqLow {
                set,
                spi,
                remaining,
            });
        }
        if end == Some(&Reason::OutSeqExhausted) && !entry.end_told.replace(true) {
            self.tell(Event::Exhausted { set, spi });
        }
    }

    fn sent(&self, entry: Option<&Entry>, bytes: usize) {
        if let Some(hot) = entry.and_then(|e| self.hot(e)) {
            self.used(hot, bytes);
        }
    }
}

/// Bytes in front of the transport header.
fn transport(ip: &IpPacket) -> usize {
    ip.l4 - ip.l3
}

/// The DF bit of an IPv4 packet.
fn dont_fragment(packet: &[u8]) -> bool {
    packet.get(6).is_some_and(|b| b & DF != 0)
}
