//! From the uplink to the local stack.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use gm_abi::maps::{META_ESP, META_FRAGMENT, META_ICMP, META_UDP_ESP, Meta};
use gm_abi::verdict::Reason;
use gm_abi::wire::{self, L3, TCP};
use gm_esp::inbound::{Checked, Opened, Received};
use gm_esp::{EncapPort, Mode, PacketBuf, inbound};
use gm_region::prefetch;
use gm_sadb::Dir;
use gm_xsk::{Frame, Umem};

use super::emit::Link;
use super::ends::Seen;
use super::number::room;
use super::pieces::Plain;
use super::translate::Way;
use super::{BATCH, Ctx, FEW, Out, Process};
use crate::Event;
use crate::table::Entry;
use crate::tap::Direction;
use crate::tcp;

/// What becomes of a frame of the batch.
#[derive(Clone, Copy)]
enum Fate {
    /// It has ended and is counted.
    Ended,
    /// The plain IP packet is at this place of the frame.
    Inject(usize, usize),
    /// A piece of one is.
    Piece(usize, usize),
}

/// What is kept of a frame while its packet is on its way.
#[derive(Clone, Copy, Default)]
struct Kept {
    slot: u32,
    link: Option<Link>,
    seen: Seen,
    /// No SA here: it is left to the kernel's, as it came.
    to_kernel: bool,
}

impl Process {
    /// Takes what the uplink's queues have brought, at most [`BATCH`] frames.
    pub(crate) fn inbound(
        &mut self,
        umem: &mut Umem,
        batch: &mut Vec<Frame>,
        out: &mut Out,
        now: u64,
    ) {
        self.ctx.now = now;
        if self.tap.is_on() {
            for frame in batch.iter() {
                self.tap.copy(Direction::In, frame.data());
            }
        }
        if self.ctx.look(batch) {
            self.rare_in(umem, batch, out);
        }
        // A packet that comes alone pays for few places.
        match batch.len() {
            0 => {}
            1 => self.esp_in::<1>(umem, batch, out),
            2..=FEW => self.esp_in::<FEW>(umem, batch, out),
            _ => self.esp_in::<BATCH>(umem, batch, out),
        }
    }

    /// Takes fragments and ICMP errors out of the batch.
    fn rare_in(&mut self, umem: &mut Umem, batch: &mut Vec<Frame>, out: &mut Out) {
        let is = |f: &Frame, kind| meta(f).is_some_and(|m| m.kind == kind);
        for frame in batch.extract_if(.., |f| is(f, META_FRAGMENT)) {
            self.fragment_in(umem, &frame, out);
            umem.free(frame);
        }
        for frame in batch.extract_if(.., |f| is(f, META_ICMP)) {
            let l3 = meta(&frame).map_or(0, |m| usize::from(m.l3));
            if self.ctx.is_about_kernel(frame.data(), l3) {
                self.ctx.counters.count(Reason::PassKernelSa);
                out.stack.push(frame);
                continue;
            }
            self.ctx.icmp_in(frame.data(), l3);
            umem.free(frame);
        }
    }

    /// Up to `N` frames of ESP.
    fn esp_in<const N: usize>(&mut self, umem: &mut Umem, batch: &mut Vec<Frame>, out: &mut Out) {
        let mut kept = [Kept::default(); N];
        let mut fates = [Fate::Ended; N];
        self.ctx.open(batch, &mut kept, &mut fates);
        let mut opened = 0;
        for (mut frame, (fate, kept)) in batch.drain(..).zip(fates.into_iter().zip(&kept)) {
            match (fate, kept.link) {
                (Fate::Inject(start, end), Some(link)) if link.put(&mut frame, start, end) => {
                    opened += 1;
                    out.stack.push(frame);
                }
                // There is always room: ESP took more than the header takes.
                (Fate::Inject(..), _) => {
                    self.ctx.drop_from(None, Reason::NoFrame, &kept.seen);
                    umem.free(frame);
                }
                (Fate::Piece(start, end), Some(link)) => {
                    let piece = &frame.chunk()[start..end];
                    self.piece_in(umem, (kept.slot, link, &kept.seen), piece, out);
                    umem.free(frame);
                }
                (Fate::Ended, _) if kept.to_kernel => {
                    self.ctx.counters.count(Reason::PassKernelSa);
                    out.stack.push(frame);
                }
                (Fate::Ended | Fate::Piece(..), _) => umem.free(frame),
            }
        }
        self.ctx.counters.add(Reason::Ok, opened);
    }
}

fn meta(frame: &Frame) -> Option<Meta> {
    Meta::from_bytes(frame.metadata()?)
}

impl Ctx {
    /// A first look at a batch: says whether anything but ESP is in it, and asks
    /// for the memory of its SAs. The batch waits once for all that no cache
    /// has, not once for each packet.
    fn look(&self, frames: &[Frame]) -> bool {
        let mut rare = false;
        let (mut slots, mut count) = ([0; BATCH], 0);
        for m in frames.iter().take(BATCH).filter_map(meta) {
            rare |= matches!(m.kind, META_FRAGMENT | META_ICMP);
            if matches!(m.kind, META_ESP | META_UDP_ESP) {
                slots[count] = m.slot;
                count += 1;
                self.fetch(m.slot);
                self.published.fetch(m.slot);
            }
        }
        let slots = slots[..count].iter();
        let entries = slots.filter_map(|slot| self.table.get(*slot));
        entries.clone().for_each(|entry| {
            prefetch(entry.sa.ends());
            if let Some(window) = self.window(entry) {
                prefetch(window.newest_word());
            }
        });
        entries.for_each(|entry| prefetch(entry.sa.key()));
        rare
    }

    /// Opens a batch of which XDP has found the slots.
    fn open<const N: usize>(
        &self,
        frames: &mut [Frame],
        kept: &mut [Kept; N],
        fates: &mut [Fate; N],
    ) {
        let mut checked: [Option<Checked<'_, '_>>; N] = [const { None }; N];
        let places = checked.iter_mut().zip(kept.iter_mut());
        for (frame, (checked, kept)) in frames.iter_mut().zip(places) {
            *checked = self.check(frame, kept);
        }
        inbound::open(self.engine, &mut checked, |i, opened| {
            let (Some(entry), Some(fate)) = (self.table.get(kept[i].slot), fates.get_mut(i)) else {
                return;
            };
            let seen = &mut kept[i].seen;
            match opened.and_then(|o| self.finish(entry, o, seen)) {
                Ok(Plain::Whole(packet)) => *fate = Fate::Inject(packet.start(), packet.end()),
                Ok(Plain::Piece(packet)) => *fate = Fate::Piece(packet.start(), packet.end()),
                Err(reason) => self.drop_from(Some(entry), reason, &kept[i].seen),
            }
        });
    }

    /// Everything before the cryptography. `None`: the packet has ended.
    fn check<'p>(&self, frame: &'p mut Frame, kept: &mut Kept) -> Option<Checked<'p, '_>> {
        let Some(m) = meta(frame).filter(|m| matches!(m.kind, META_ESP | META_UDP_ESP)) else {
            // Nothing of ours: XDP puts its metadata before all it steers.
            self.drop_from(None, Reason::Malformed, &Seen::default());
            return None;
        };
        let l3 = usize::from(m.l3);
        let Some(link) = Link::of(frame.data(), l3) else {
            self.drop_packet(None, Reason::Malformed, (frame.data(), l3), false);
            return None;
        };
        // The set may have gone between XDP and here.
        let Some(entry) = self.table.get(m.slot) else {
            // It may just have been given to the kernel.
            if self.settings.kernel_sas {
                kept.to_kernel = true;
            } else {
                self.drop_packet(None, Reason::UnknownSpi, (frame.data(), l3), false);
            }
            return None;
        };
        *kept = Kept {
            slot: m.slot,
            link: Some(link),
            ..Kept::default()
        };
        let (chunk, start, end) = frame.chunk_mut();
        let packet = PacketBuf::new(chunk, (start + l3).min(end), end);
        let len = packet.len();
        let checked = self.received(packet).and_then(|r| {
            kept.seen = Seen::received(&r, len, self.settings.encap_port);
            self.windowed(entry, r, &kept.seen)
        });
        match checked {
            Ok(checked) => Some(checked),
            Err(reason) => {
                let own = Some(entry).filter(|_| reason != Reason::UnknownSpi);
                self.drop_from(own, reason, &kept.seen);
                None
            }
        }
    }

    pub(super) fn received<'p>(&self, packet: PacketBuf<'p>) -> Result<Received<'p>, Reason> {
        Received::parse(packet, EncapPort::Dst(self.settings.encap_port)).map_err(|r| r.reason)
    }

    pub(super) fn windowed<'p, 's>(
        &'s self,
        entry: &'s Entry,
        r: Received<'p>,
        seen: &Seen,
    ) -> Result<Checked<'p, 's>, Reason> {
        let window = self.window(entry).ok_or(Reason::UnknownSpi)?;
        let checked = r.check(&entry.sa, &window)?;
        self.worth_trying(entry, seen, window.top())?;
        Ok(checked)
    }

    /// Everything behind the cryptography: the window moves and is published,
    /// the NAT's port is learnt, the packet is stripped and judged.
    pub(super) fn finish<'p>(
        &self,
        entry: &Entry,
        opened: Opened<'p, '_>,
        seen: &mut Seen,
    ) -> Result<Plain<'p>, Reason> {
        let (Some(window), Some(hot)) = (self.window(entry), self.hot(entry)) else {
            return Err(Reason::UnknownSpi);
        };
        let before = window.top();
        let committed = opened.commit(&window)?;
        let (seq, source) = (committed.seq(), committed.outer_source());
        self.published.accepted(entry.slot, seq, window.top());
        self.vouched(entry, source, seq > before);
        if seq > before {
            self.learn(entry, source);
        }
        let mut stripped = committed.strip()?;
        if stripped.is_piece() {
            let piece = stripped.into_piece();
            self.used(hot, piece.len());
            return Ok(Plain::Piece(piece));
        }
        let nat = &self.settings.advertised;
        nat.apply(Way::In, entry.sa.mode(), stripped.data_mut());
        let admitted = stripped.admit_or_show().map_err(|(reason, inside)| {
            // A person has to know which port it was for.
            if let Some(flow) = inside {
                (seen.proto, seen.ports) = (flow.proto, flow.ports);
            }
            reason
        })?;
        let is_tcp = admitted.flow().proto == TCP;
        let mut packet = admitted.into_packet();
        self.used(hot, packet.len());
        if is_tcp {
            self.clamp(entry, packet.data_mut());
        }
        Ok(Plain::Whole(packet))
    }

    /// A verified packet with the newest number says where the phone is now
    /// (ARCHITECTURE, reading A-19). The first one always does; whether a later
    /// one may say otherwise is a setting.
    fn learn(&self, entry: &Entry, (_, port): (IpAddr, u16)) {
        if entry.sa.mode() != Mode::UdpEncTun || port == 0 {
            return;
        }
        let mut moved = false;
        let partners = entry.partners().iter();
        for hot in partners.filter_map(|s| Some(self.region.slot(*s)?.hot())) {
            let known = hot.encap_port.load(Ordering::Relaxed);
            if known != u32::from(port) && (known == 0 || self.settings.follow) {
                hot.encap_port.store(u32::from(port), Ordering::Relaxed);
                moved = true;
            }
        }
        if moved {
            self.tell(Event::EncapPortLearned {
                set: entry.set,
                port,
            });
        }
    }

    /// The local stack sends segments of the size that the peer's SYN names;
    /// they must fit with ESP around them.
    pub(super) fn clamp(&self, entry: &Entry, packet: &mut [u8]) {
        let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
            return;
        };
        if ip.proto != TCP || ip.frag.is_some() || ip.hidden {
            return;
        }
        let mtu = match entry.dir {
            Dir::In => self.mtu_back(entry),
            Dir::Out => self.mtu(entry),
        };
        let most = room(&entry.sa, ip.l4, mtu).saturating_sub(ip.l4 + 20);
        let most = u16::try_from(most).unwrap_or(u16::MAX);
        if most > 0 && tcp::clamp_mss(&mut packet[ip.l4..ip.end], most) {
            tracing::trace!(most, "lowered the MSS of a SYN");
        }
    }
}
