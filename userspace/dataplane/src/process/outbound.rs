//! From the local stack to the uplink.

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, ESP, IpPacket, L3, UDP};
use gm_esp::outbound::{self, Numbered};
use gm_esp::{InnerFlow, PacketBuf};
use gm_region::prefetch;
use gm_xsk::{Frame, Umem};

use super::emit::{self, Link};
use super::ends::Seen;
use super::number::sealable;
use super::{BATCH, Ctx, FEW, Iv, Out, Process};
use crate::icmp;
use crate::table::Entry;
use crate::tap::Direction;

/// What becomes of a frame of the batch.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// It ends for this reason.
    Drop(Reason),
    /// The stack is told that the packet may be this long.
    TooBig(usize),
    /// The sealed IP packet is at this place of the frame.
    Send(usize, usize),
    /// The kernel has sealed it: it goes on as it is.
    Kernel,
}

/// What the first look at a frame has found.
#[derive(Clone, Copy)]
struct Looked {
    /// The IP packet, offsets from its header; `None`: there is none.
    ip: Option<IpPacket>,
    /// Where that header is in the frame.
    l3: usize,
    /// The slot of its SA.
    slot: Option<u32>,
}

impl Looked {
    const NOTHING: Looked = Looked {
        ip: None,
        l3: 0,
        slot: None,
    };
}

/// What is kept of a frame while its packet is on its way.
#[derive(Clone, Copy, Default)]
pub(super) struct Kept {
    /// The slot of its SA.
    pub slot: Option<u32>,
    pub link: Option<Link>,
    /// Length of the plain IP packet.
    pub len: usize,
    /// The longest packet that may leave.
    pub mtu: usize,
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
        // A packet that comes alone pays for few places.
        match batch.len() {
            0 => {}
            1 => self.out_of::<1>(umem, batch, out),
            2..=FEW => self.out_of::<FEW>(umem, batch, out),
            _ => self.out_of::<BATCH>(umem, batch, out),
        }
        if self.tap.is_on() {
            for frame in &out.wire[sent..] {
                self.tap.copy(Direction::Out, frame.data());
            }
        }
    }

    /// Up to `N` frames.
    fn out_of<const N: usize>(&mut self, umem: &mut Umem, batch: &mut Vec<Frame>, out: &mut Out) {
        let mut looked = [Looked::NOTHING; N];
        if self.ctx.look_out(batch, &mut looked) {
            let is_fragment =
                |f: &Frame| matches!(wire::parse_frame(f.data()), L3::Ip(ip) if ip.frag.is_some());
            for frame in batch.extract_if(.., |f| is_fragment(f)) {
                self.fragment_out(umem, &frame, out);
                umem.free(frame);
            }
            // The others have moved up.
            looked = [Looked::NOTHING; N];
            self.ctx.look_out(batch, &mut looked);
        }
        let mut kept = [Kept::default(); N];
        let mut fates = [Fate::Drop(Reason::OutMalformed); N];
        let iv = &mut self.iv;
        self.ctx.seal(iv, batch, &looked, &mut kept, &mut fates);
        let mut sealed = 0;
        for (frame, (fate, kept)) in batch.drain(..).zip(fates.into_iter().zip(kept)) {
            sealed += u64::from(self.send(umem, frame, fate, kept, out));
        }
        self.ctx.counters.add(Reason::Sealed, sealed);
    }

    /// Brings one frame of the batch to its end; says whether that is to be
    /// counted as sealed.
    fn send(
        &mut self,
        umem: &mut Umem,
        mut frame: Frame,
        fate: Fate,
        kept: Kept,
        out: &mut Out,
    ) -> bool {
        let ctx = &self.ctx;
        let entry = kept.slot.and_then(|slot| ctx.table.get(slot));
        let end = match (fate, kept.link) {
            (Fate::Drop(reason), _) => Err(reason),
            (Fate::Kernel, _) => {
                ctx.counters.count(Reason::PassKernelSa);
                out.wire.push(frame);
                return false;
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
                    out.wire.push(frame);
                    return true;
                } else {
                    Err(Reason::OutTooBig)
                }
            }
            (_, None) => Err(Reason::OutMalformed),
        };
        match (end, kept.link) {
            (Ok(()), _) => {}
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
        end.is_ok()
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
            .found(whole.packet())
            .and_then(|(ip, entry)| ctx.number(iv, whole.buf(), (&ip, entry), false, &mut kept))
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
    /// A first look at a batch: what each frame is, and which SA it will leave
    /// through. Says whether there are fragments, and asks for the memory of the
    /// SAs: the batch waits once for all that no cache has.
    fn look_out(&self, frames: &[Frame], looked: &mut [Looked]) -> bool {
        let mut fragments = false;
        for (frame, looked) in frames.iter().zip(looked.iter_mut()) {
            let L3::Ip(mut ip) = wire::parse_frame(frame.data()) else {
                continue;
            };
            fragments |= ip.frag.is_some();
            looked.l3 = ip.l3;
            (ip.l3, ip.l4, ip.end) = (0, ip.l4 - ip.l3, ip.end - ip.l3);
            looked.slot = self.table.by_flow(&InnerFlow::of(&ip)).map(|e| e.slot);
            looked.ip = Some(ip);
            if let Some(slot) = looked.slot {
                self.fetch(slot);
            }
        }
        let slots = looked.iter().filter_map(|l| l.slot);
        let entries = slots.filter_map(|slot| self.table.get(slot));
        entries.for_each(|entry| prefetch(entry.sa.key()));
        fragments
    }

    /// Seals a batch.
    fn seal<const N: usize>(
        &self,
        iv: &mut Iv,
        frames: &mut [Frame],
        looked: &[Looked; N],
        kept: &mut [Kept; N],
        fates: &mut [Fate; N],
    ) {
        let mut numbered: [Option<Numbered<'_, '_>>; N] = [const { None }; N];
        let places = numbered
            .iter_mut()
            .zip(kept.iter_mut().zip(fates.iter_mut()));
        for ((frame, looked), (numbered, (kept, fate))) in frames.iter_mut().zip(looked).zip(places)
        {
            match self.prepare(iv, frame, looked, kept) {
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
        looked: &Looked,
        kept: &mut Kept,
    ) -> Result<Numbered<'p, '_>, Fate> {
        let malformed = Fate::Drop(Reason::OutMalformed);
        let ip = looked.ip.as_ref().ok_or(malformed)?;
        kept.link = Some(Link::of(frame.data(), looked.l3).ok_or(malformed)?);
        if self.is_kernels(ip) {
            return Err(Fate::Kernel);
        }
        let entry = sealable(ip, looked.slot.and_then(|slot| self.table.get(slot)))?;
        let (chunk, start, _) = frame.chunk_mut();
        let begin = start + looked.l3;
        let packet = PacketBuf::new(chunk, begin, begin + ip.end);
        self.number(iv, packet, (ip, entry), true, kept)
    }

    /// Whether it is ESP already: tc takes it here only while SAs go back to the
    /// kernel, so that it comes behind what is sealed here.
    fn is_kernels(&self, ip: &IpPacket) -> bool {
        let port = self.settings.encap_port;
        let in_udp = ip.proto == UDP && port != 0 && ip.ports.is_some_and(|(src, _)| src == port);
        self.settings.kernel_sas && (ip.proto == ESP || in_udp)
    }

    fn sent(&self, entry: Option<&Entry>, bytes: usize) {
        if let Some(hot) = entry.and_then(|e| self.hot(e)) {
            self.used(hot, bytes);
        }
    }
}
