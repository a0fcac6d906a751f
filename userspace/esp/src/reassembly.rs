//! Putting fragments together, within bounds (RFC 791 3.2, RFC 8200 4.5).
//!
//! Fragments are not authentic, so everything here is bounded: memory in all
//! and for each source, the number of datagrams, of fragments in one, and the
//! time. A source over its own bound is refused; when all of them together
//! fill the memory, the oldest datagrams go, so that a flood has to keep
//! flooding to keep others out.
//!
//! A fragment that overlaps another drops its datagram (RFC 5722); an exact
//! duplicate is ignored.

mod moving;
mod piece;

use std::collections::BTreeMap;

use gm_abi::verdict::Reason;

use crate::headers::{self, MAX_LENGTH};
use crate::packet::PacketBuf;
use crate::{MAX_BACK, MAX_FRONT};
use piece::{Name, Piece, Source};

/// Fragments of one datagram; 64 kB in pieces of IPv6's least MTU are 54.
const MAX_PARTS: usize = 64;
/// What a fragment is charged beyond its bytes.
const PART_COST: usize = 64;
/// What a datagram is charged beyond its fragments.
const DATAGRAM_COST: usize = 256;

/// Bounds of a [`Reassembler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all, bookkeeping included.
    pub bytes: usize,
    /// Bytes for one source address (or one SA), bookkeeping included.
    pub per_source_bytes: usize,
    /// Datagrams in all.
    pub datagrams: usize,
    /// Milliseconds from a datagram's first fragment to its end.
    pub timeout_ms: u64,
}

impl Default for Limits {
    /// 4 MiB, 256 KiB a source, 1024 datagrams, 5 seconds.
    fn default() -> Self {
        Limits {
            bytes: 4 << 20,
            per_source_bytes: 256 << 10,
            datagrams: 1024,
            timeout_ms: 5000,
        }
    }
}

/// What became of a fragment.
pub enum Pushed {
    /// Kept, or known already; the datagram is not whole.
    Stored,
    /// It was the last one missing.
    Whole(Datagram),
}

/// A datagram that is whole again, as one IP packet with room around it.
///
/// No `Debug`: the bytes may be cleartext.
pub struct Datagram {
    bytes: Vec<u8>,
    end: usize,
}

impl Datagram {
    /// A packet that somebody else has put together, copied.
    pub fn copy_of(packet: &[u8]) -> Datagram {
        let end = MAX_FRONT + packet.len();
        let mut bytes = Vec::with_capacity(end + MAX_BACK);
        bytes.resize(MAX_FRONT, 0);
        bytes.extend_from_slice(packet);
        bytes.resize(end + MAX_BACK, 0);
        Datagram { bytes, end }
    }

    /// The IP packet.
    pub fn packet(&self) -> &[u8] {
        &self.bytes[MAX_FRONT..self.end]
    }

    /// The IP packet with the room that sealing needs.
    pub fn buf(&mut self) -> PacketBuf<'_> {
        PacketBuf::new(&mut self.bytes, MAX_FRONT, self.end)
    }
}

#[derive(Default)]
struct Partial {
    /// Number in the order of arrival.
    serial: u64,
    born: u64,
    /// Header of the datagram, from its first fragment; empty until that is here.
    head: Box<[u8]>,
    /// Sorted, disjoint.
    parts: Vec<Part>,
    /// Length of the payload, once the last fragment is here.
    total: Option<usize>,
    charged: usize,
}

struct Part {
    offset: usize,
    bytes: Box<[u8]>,
}

impl Part {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }
}

/// Puts fragments together. Knows no clock: the caller says what time it is.
pub struct Reassembler {
    limits: Limits,
    partials: BTreeMap<Name, Partial>,
    /// Oldest first.
    by_age: BTreeMap<u64, Name>,
    per_source: BTreeMap<Source, usize>,
    charged: usize,
    serial: u64,
    evicted: u64,
}

impl Reassembler {
    /// With nothing in it.
    pub fn new(limits: Limits) -> Reassembler {
        Reassembler {
            limits,
            partials: BTreeMap::new(),
            by_age: BTreeMap::new(),
            per_source: BTreeMap::new(),
            charged: 0,
            serial: 0,
            evicted: 0,
        }
    }

    /// Datagrams that wait for more.
    pub fn len(&self) -> usize {
        self.partials.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.partials.is_empty()
    }

    /// Bytes charged now, never more than [`Limits::bytes`].
    pub fn bytes(&self) -> usize {
        self.charged
    }

    /// Datagrams that made room for newer ones since the last call; each counts
    /// as [`Reason::FragmentLimit`].
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Drops what is older than the timeout; answers how many datagrams, each
    /// of which counts as [`Reason::FragmentTimeout`].
    pub fn expire(&mut self, now_ms: u64) -> usize {
        let before = self.len();
        while let Some((_, name)) = self.by_age.first_key_value() {
            let name = *name;
            let born = self.partials.get(&name).map_or(0, |partial| partial.born);
            if now_ms.saturating_sub(born) < self.limits.timeout_ms {
                break;
            }
            self.remove(&name);
        }
        before - self.len()
    }

    /// Takes a fragment: an IP packet from its header on, copied. The time only
    /// grows from call to call.
    ///
    /// # Errors
    /// [`Reason::Malformed`] when it is no fragment, or one that no datagram
    /// has; [`Reason::FragmentOverlap`] and [`Reason::FragmentLimit`], where
    /// the whole datagram goes.
    pub fn push(&mut self, packet: &[u8], now_ms: u64) -> Result<Pushed, Reason> {
        self.push_piece(Piece::of(packet, None)?, now_ms)
    }

    /// The same for a fragment that an inbound SA with the SPI `sa` has brought:
    /// only what comes through one SA is put together, and its bound is its own.
    ///
    /// # Errors
    /// As of [`Reassembler::push`].
    pub fn push_of(&mut self, sa: u32, packet: &[u8], now_ms: u64) -> Result<Pushed, Reason> {
        self.push_piece(Piece::of(packet, Some(sa))?, now_ms)
    }

    fn push_piece(&mut self, piece: Piece<'_>, now_ms: u64) -> Result<Pushed, Reason> {
        if piece.frag.offset == 0 && !piece.frag.more {
            // An atomic fragment is a datagram of its own (RFC 6946).
            let part = Part {
                offset: 0,
                bytes: piece.payload.into(),
            };
            return whole(&piece.datagram_head(), &[part], piece.name.v6);
        }
        if !self.partials.contains_key(&piece.name) {
            self.admit(&piece.name, now_ms)?;
        }
        match self.add(&piece) {
            Ok(false) => Ok(Pushed::Stored),
            Ok(true) => {
                let partial = self.remove(&piece.name).ok_or(Reason::Malformed)?;
                whole(&partial.head, &partial.parts, piece.name.v6)
            }
            Err(reason) => {
                self.remove(&piece.name);
                Err(reason)
            }
        }
    }

    /// Makes an empty datagram, and room for it.
    fn admit(&mut self, name: &Name, now_ms: u64) -> Result<(), Reason> {
        self.charge(name, DATAGRAM_COST)?;
        while self.len() >= self.limits.datagrams.max(1) {
            self.evict(None)?;
        }
        self.serial += 1;
        self.by_age.insert(self.serial, *name);
        self.partials.insert(
            *name,
            Partial {
                serial: self.serial,
                born: now_ms,
                charged: DATAGRAM_COST,
                ..Partial::default()
            },
        );
        Ok(())
    }

    /// Adds a fragment to its datagram; says whether that is whole now.
    fn add(&mut self, piece: &Piece<'_>) -> Result<bool, Reason> {
        let partial = self.partials.get(&piece.name).ok_or(Reason::Malformed)?;
        let (start, end) = (piece.frag.offset, piece.frag.offset + piece.payload.len());
        let at = partial.parts.partition_point(|part| part.offset < start);
        let known = partial.parts.get(at);
        if known.is_some_and(|part| part.offset == start && *part.bytes == *piece.payload) {
            return Ok(false);
        }
        let before = at.checked_sub(1).and_then(|i| partial.parts.get(i));
        let last = partial.parts.last().map_or(0, Part::end);
        let beyond = match partial.total {
            Some(total) => end > total || !piece.frag.more,
            None => !piece.frag.more && last > end,
        };
        if beyond
            || before.is_some_and(|part| part.end() > start)
            || known.is_some_and(|part| part.offset < end)
        {
            return Err(Reason::FragmentOverlap);
        }
        if partial.parts.len() == MAX_PARTS {
            return Err(Reason::FragmentLimit);
        }
        let head = match start {
            0 => piece.datagram_head(),
            _ => Box::default(),
        };
        let cost = PART_COST + piece.payload.len() + head.len();
        self.charge(&piece.name, cost)?;
        let partial = self
            .partials
            .get_mut(&piece.name)
            .ok_or(Reason::Malformed)?;
        partial.charged += cost;
        if start == 0 {
            partial.head = head;
        }
        if !piece.frag.more {
            partial.total = Some(end);
        }
        let part = Part {
            offset: start,
            bytes: piece.payload.into(),
        };
        partial.parts.insert(at, part);
        let have: usize = partial.parts.iter().map(|part| part.bytes.len()).sum();
        Ok(partial.total == Some(have))
    }

    /// Charges bytes to a source and to all; the oldest datagrams of others
    /// make room.
    fn charge(&mut self, name: &Name, cost: usize) -> Result<(), Reason> {
        let source = self.per_source.get(&name.source).copied().unwrap_or(0);
        if source + cost > self.limits.per_source_bytes || cost > self.limits.bytes {
            return Err(Reason::FragmentLimit);
        }
        while self.charged + cost > self.limits.bytes {
            self.evict(Some(name))?;
        }
        self.charged += cost;
        *self.per_source.entry(name.source).or_default() += cost;
        Ok(())
    }

    /// Drops the oldest datagram but `except`.
    fn evict(&mut self, except: Option<&Name>) -> Result<(), Reason> {
        let oldest = self.by_age.values().find(|name| Some(*name) != except);
        let oldest = *oldest.ok_or(Reason::FragmentLimit)?;
        self.remove(&oldest);
        self.evicted += 1;
        Ok(())
    }

    fn remove(&mut self, name: &Name) -> Option<Partial> {
        let partial = self.partials.remove(name)?;
        self.by_age.remove(&partial.serial);
        self.charged -= partial.charged;
        if let Some(source) = self.per_source.get_mut(&name.source) {
            *source -= partial.charged;
            if *source == 0 {
                self.per_source.remove(&name.source);
            }
        }
        Some(partial)
    }
}

fn whole(head: &[u8], parts: &[Part], v6: bool) -> Result<Pushed, Reason> {
    let payload: usize = parts.iter().map(|part| part.bytes.len()).sum();
    let end = MAX_FRONT + head.len() + payload;
    if head.is_empty() || end - MAX_FRONT > MAX_LENGTH {
        return Err(Reason::Malformed);
    }
    let mut bytes = Vec::with_capacity(end + MAX_BACK);
    bytes.resize(MAX_FRONT, 0);
    bytes.extend_from_slice(head);
    for part in parts {
        bytes.extend_from_slice(&part.bytes);
    }
    headers::set_length(&mut bytes[MAX_FRONT..], v6);
    bytes.resize(end + MAX_BACK, 0);
    Ok(Pushed::Whole(Datagram { bytes, end }))
}

#[cfg(test)]
#[path = "reassembly_tests.rs"]
mod tests;
