//! Dividing a batch by owner: what is this worker's stays, what is another's
//! is copied into a parcel and handed over, what is of a bucket that is about
//! to come here is parked until its last owner has let go of it.
//!
//! With one worker nothing is looked at.

use std::collections::VecDeque;
use std::sync::Arc;

use gm_abi::maps::{META_ESP, META_FRAGMENT, META_ICMP, META_UDP_ESP, Meta, SPI_BASE};
use gm_abi::verdict::Reason;
use gm_abi::wire::{self, ESP, IpPacket, L3, Quoted, UDP, UDP_HEADER};
use gm_sadb::inbound;
use gm_xsk::{Frame, METADATA, Umem};

use crate::parcel::{Desks, Mailbox, Parcel, Side, WAITING};
use crate::process::Ctx;
use crate::routes::{Buckets, Routes, bucket};
use crate::stats::Counters;

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is processed here.
    Here,
    /// It waits here.
    Parked,
    /// It is this worker's.
    Other(u8),
}

/// Where the ends of packets are counted.
pub(crate) trait Ends {
    /// A packet of which nothing is known any more.
    fn ended(&self, reason: Reason);
    /// No queue had room for this frame (of a whole datagram: this packet).
    fn crowded_out(&self, side: Side, bytes: &[u8]);
}

impl Ends for Ctx {
    fn ended(&self, reason: Reason) {
        self.counters.count(reason);
    }

    fn crowded_out(&self, side: Side, bytes: &[u8]) {
        let l3 = match (side, wire::parse_frame(bytes)) {
            (Side::Whole(_), _) => 0,
            (_, L3::Ip(ip)) => ip.l3,
            _ => return self.ended(Reason::HandoverFull),
        };
        let outbound = side == Side::Stack;
        self.drop_packet(None, Reason::HandoverFull, (bytes, l3), outbound);
    }
}

impl Ends for Counters {
    fn ended(&self, reason: Reason) {
        self.count(reason);
    }

    fn crowded_out(&self, _: Side, _: &[u8]) {
        self.count(Reason::HandoverFull);
    }
}

/// What a worker needs to hand packets over.
pub(crate) struct Hand {
    me: u8,
    routes: Arc<Routes>,
    desks: Arc<Desks>,
    parked: Buckets,
    waiting: VecDeque<Parcel>,
    /// Parked before, to be processed now.
    released: VecDeque<Parcel>,
    /// Local UDP port of encapsulated ESP; 0: none.
    pub encap_port: u16,
    /// Workers that have got something since they were last woken, one bit
    /// each.
    to_wake: u32,
    spare: Vec<Frame>,
    pub handed_out: u64,
    pub handed_in: u64,
    pub times_parked: u64,
}

impl Hand {
    /// The hand of worker `me`.
    pub(crate) fn new(me: u8, routes: Arc<Routes>, desks: Arc<Desks>) -> Hand {
        Hand {
            me,
            routes,
            desks,
            parked: Buckets::default(),
            waiting: VecDeque::with_capacity(WAITING),
            released: VecDeque::new(),
            encap_port: 0,
            to_wake: 0,
            spare: Vec::with_capacity(crate::process::BATCH),
            handed_out: 0,
            handed_in: 0,
            times_parked: 0,
        }
    }

    /// The hand of a worker that nobody is beside.
    pub(crate) fn alone() -> Hand {
        let (routes, desks) = (Routes::new(0), Desks::none());
        Hand::new(0, Arc::new(routes), Arc::new(desks))
    }

    /// This worker's letter box.
    pub(crate) fn mailbox(&self) -> Option<&Mailbox> {
        self.desks.of(self.me)
    }

    /// Where a bucket's packets go.
    fn place_of(&self, bucket: u8) -> Place {
        match self.routes.owner(bucket) {
            me if me == self.me && self.parked.has(bucket) => Place::Parked,
            me if me == self.me => Place::Here,
            other => Place::Other(other),
        }
    }

    /// Whether there are other workers.
    pub(crate) fn divides(&self) -> bool {
        self.routes.is_shared()
    }

    /// The slot that one of our own SPIs names (ARCHITECTURE, rule 6).
    pub(crate) fn slot_of_spi(&self, spi: u32) -> Option<u32> {
        let slot = spi
            .checked_sub(SPI_BASE)?
            .checked_rem(inbound(self.routes.slots()));
        slot.filter(|slot| self.routes.bucket_of_slot(*slot).is_some())
    }

    /// Whether the SA in a slot is this worker's now; also where nobody has it.
    pub(crate) fn is_mine(&self, slot: u32) -> bool {
        self.place_of_slot(slot) == Place::Here
    }

    fn place_of_slot(&self, slot: u32) -> Place {
        let bucket = self.routes.bucket_of_slot(slot);
        bucket.map_or(Place::Here, |bucket| self.place_of(bucket))
    }

    /// Where a packet goes; `Here` when nothing tells.
    fn place(&self, side: Side, meta: &[u8; METADATA], data: &[u8]) -> Place {
        let bucket = match side {
            Side::Wire => self.bucket_in(meta, data),
            Side::Stack => self.bucket_out(data),
            Side::Whole(_) => {
                let [a, b, c, d, ..] = *meta;
                return self.place_of_slot(u32::from_ne_bytes([a, b, c, d]));
            }
        };
        bucket.map_or(Place::Here, |bucket| self.place_of(bucket))
    }

    fn bucket_in(&self, meta: &[u8; METADATA], data: &[u8]) -> Option<u8> {
        let meta = Meta::from_bytes(*meta)?;
        match meta.kind {
            META_ESP | META_UDP_ESP => self.routes.bucket_of_slot(meta.slot),
            META_FRAGMENT => match wire::parse_frame(data) {
                L3::Ip(ip) => Some(bucket(&ip.src)),
                _ => None,
            },
            META_ICMP => self.bucket_quoted(data),
            _ => None,
        }
    }

    /// An ICMP error quotes what was sent to the phone, or to the NAT that it is
    /// behind.
    fn bucket_quoted(&self, data: &[u8]) -> Option<u8> {
        let L3::Ip(ip) = wire::parse_frame(data) else {
            return None;
        };
        let mut quoted = Quoted::EMPTY;
        if !wire::read_quoted(data, &ip, &mut quoted) {
            return None;
        }
        let spi = data
            .get(quoted.l4 + UDP_HEADER..)
            .and_then(<[u8]>::first_chunk);
        let tunnel = spi.filter(|_| quoted.proto == UDP).and_then(|spi| {
            self.routes
                .bucket_of_tunnel(&quoted.dst, u32::from_be_bytes(*spi))
        });
        Some(tunnel.unwrap_or_else(|| bucket(&quoted.dst)))
    }

    /// Whether a packet from the stack is ESP in UDP.
    fn is_in_udp(&self, ip: &IpPacket) -> bool {
        let port = self.encap_port;
        ip.proto == UDP && port != 0 && ip.ports.is_some_and(|(src, _)| src == port)
    }

    fn bucket_out(&self, data: &[u8]) -> Option<u8> {
        let L3::Ip(ip) = wire::parse_frame(data) else {
            return None;
        };
        // What the kernel has sealed, on its way back to it.
        if self.is_in_udp(&ip) {
            let spi = data.get(ip.l4 + UDP_HEADER..).and_then(<[u8]>::first_chunk);
            let tunnel = spi.map(|spi| u32::from_be_bytes(*spi));
            let found = tunnel.and_then(|spi| self.routes.bucket_of_tunnel(&ip.dst, spi));
            return Some(found.unwrap_or_else(|| bucket(&ip.dst)));
        }
        Some(bucket(&ip.dst))
    }

    /// Takes out of a batch what is not to be processed here and now.
    pub(crate) fn divide(
        &mut self,
        side: Side,
        umem: &mut Umem,
        batch: &mut Vec<Frame>,
        ends: &impl Ends,
    ) {
        if self.routes.is_shared() {
            self.divide_shared(side, umem, batch, ends);
        }
    }

    fn divide_shared(
        &mut self,
        side: Side,
        umem: &mut Umem,
        batch: &mut Vec<Frame>,
        ends: &impl Ends,
    ) {
        let mut stays = std::mem::take(&mut self.spare);
        for frame in batch.drain(..) {
            let meta = frame.metadata().unwrap_or_default();
            match self.place(side, &meta, frame.data()) {
                Place::Here => stays.push(frame),
                place => {
                    let parcel = self.pack(side, meta, &[frame.data()]);
                    if !self.put(place, parcel) {
                        ends.crowded_out(side, frame.data());
                    }
                    umem.free(frame);
                }
            }
        }
        std::mem::swap(batch, &mut stays);
        self.spare = stays;
        self.wake();
    }

    /// A copy of a packet that is not to be processed here.
    fn pack(&self, side: Side, meta: [u8; METADATA], parts: &[&[u8]]) -> Option<Parcel> {
        let mut parcel = self.desks.parcel()?;
        let contents = parcel.contents_mut()?;
        (contents.side, contents.meta) = (side, meta);
        contents.bytes.clear();
        for part in parts {
            contents.bytes.extend_from_slice(part);
        }
        Some(parcel)
    }

    /// Hands a datagram over that was put together here: the SA in `slot` is
    /// elsewhere, or on its way here. `link` is what goes in front.
    pub(crate) fn pass_on(&mut self, slot: u32, link: &[u8], packet: &[u8], ends: &impl Ends) {
        let mut meta = [0; METADATA];
        meta[..4].copy_from_slice(&slot.to_ne_bytes());
        let parcel = self.pack(Side::Whole(link.len() as u8), meta, &[link, packet]);
        if !self.put(self.place_of_slot(slot), parcel) {
            ends.crowded_out(Side::Whole(0), packet);
        }
        self.wake();
    }

    /// Brings a parcel where it belongs. False: there is no room for it, or
    /// there was no parcel left.
    fn put(&mut self, place: Place, parcel: Option<Parcel>) -> bool {
        match (place, parcel) {
            (Place::Parked, Some(parcel)) if self.waiting.len() < WAITING => {
                self.times_parked += 1;
                self.waiting.push_back(parcel);
                true
            }
            (Place::Other(to), Some(parcel)) => {
                let taken = self.desks.of(to).is_some_and(|d| d.push(parcel).is_ok());
                if taken {
                    self.handed_out += 1;
                    self.to_wake |= 1 << to;
                }
                taken
            }
            _ => false,
        }
    }

    /// Wakes who has got something.
    fn wake(&mut self) {
        while self.to_wake != 0 {
            let to = self.to_wake.trailing_zeros() as u8;
            self.to_wake &= self.to_wake - 1;
            if let Some(mailbox) = self.desks.of(to) {
                mailbox.nudge();
            }
        }
    }

    /// Whether something that has waited is to be processed, before anything
    /// that came later: replay windows may be narrow.
    pub(crate) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// Whether something waits to be processed here.
    pub(crate) fn has_mail(&self) -> bool {
        !self.released.is_empty() || self.mailbox().is_some_and(|m| !m.is_empty())
    }

    /// The next parcel that is to be processed here. What belongs elsewhere by
    /// now goes on.
    pub(crate) fn next(&mut self, ends: &impl Ends) -> Option<Parcel> {
        loop {
            let parcel = match self.released.pop_front() {
                Some(parcel) => parcel,
                None => {
                    let parcel = self.mailbox()?.pop()?;
                    self.handed_in += 1;
                    parcel
                }
            };
            let Some(contents) = parcel.contents() else {
                continue;
            };
            match self.place(contents.side, &contents.meta, &contents.bytes) {
                Place::Here => return Some(parcel),
                place => {
                    // No bytes any more where the queue has refused it: only
                    // what was in two hands at once ends here.
                    if !self.put(place, Some(parcel)) {
                        ends.ended(Reason::HandoverFull);
                    }
                    self.wake();
                }
            }
        }
    }

    /// Sends on what has come here and belongs to others, for a worker that
    /// goes. Nothing is its own any more: what nobody owns has ended.
    pub(crate) fn forward_all(&mut self, ends: &impl Ends) {
        while self.next(ends).is_some() {
            ends.ended(Reason::UnknownSpi);
        }
    }

    /// From now on packets of these buckets wait.
    pub(crate) fn park(&mut self, buckets: &Buckets) {
        self.parked.add(buckets);
    }

    /// They do no longer; those that have waited come first.
    pub(crate) fn unpark(&mut self, buckets: &Buckets) {
        self.parked.remove(buckets);
        self.released.append(&mut self.waiting);
    }

    /// The same, but what the kernel has sealed comes before all else.
    pub(crate) fn unpark_sealed_first(&mut self, buckets: &Buckets) {
        let (sealed, others) = self.unpark_parted(buckets);
        self.released = sealed;
        self.released.extend(others);
    }

    /// The same, but what the kernel has sealed comes behind all else.
    pub(crate) fn unpark_sealed_last(&mut self, buckets: &Buckets) {
        let (sealed, others) = self.unpark_parted(buckets);
        self.released = others;
        self.released.extend(sealed);
    }

    fn unpark_parted(&mut self, buckets: &Buckets) -> (VecDeque<Parcel>, VecDeque<Parcel>) {
        self.unpark(buckets);
        let all = std::mem::take(&mut self.released);
        let is_sealed = |parcel: &Parcel| {
            let contents = parcel.contents().filter(|c| c.side == Side::Stack);
            contents.is_some_and(|c| match wire::parse_frame(c.bytes.as_slice()) {
                L3::Ip(ip) => ip.proto == ESP || self.is_in_udp(&ip),
                _ => false,
            })
        };
        all.into_iter().partition(is_sealed)
    }
}

#[cfg(test)]
mod tests;
