//! The reassembler that everybody would write who had no bounds in time to keep.

use gm_abi::wire::{self, L3};
use gm_esp::Reason;
use gm_esp::reassembly::Limits;

use crate::packets::set_length;

/// What the bookkeeping is charged (`reassembly.rs`).
const PART_COST: usize = 64;
const DATAGRAM_COST: usize = 256;
/// Fragments of one datagram at most.
const MAX_PARTS: usize = 64;

/// Who sends what: SA and addresses, identification and, of IPv4, the protocol.
pub type Name = (Vec<u8>, u32, u8);

/// Bytes of a name's first part that say who answers for it.
const SOURCE: usize = 5 + 16;

/// A fragment as the naive reassembler reads it.
pub struct Piece {
    name: Name,
    offset: usize,
    more: bool,
    /// The datagram's header, as this fragment has it.
    head: Vec<u8>,
    payload: Vec<u8>,
}

pub struct Partial {
    pub name: Name,
    born: u64,
    pieces: Vec<Piece>,
}

impl Partial {
    fn charged(&self) -> usize {
        let pieces = self.pieces.iter().map(Piece::cost);
        DATAGRAM_COST + pieces.sum::<usize>()
    }
}

impl Piece {
    fn end(&self) -> usize {
        self.offset + self.payload.len()
    }

    fn cost(&self) -> usize {
        let head = if self.offset == 0 { self.head.len() } else { 0 };
        PART_COST + self.payload.len() + head
    }

    /// `None`: no fragment, or one that no datagram has.
    fn read(packet: &[u8], sa: Option<u32>) -> Option<Piece> {
        let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
            return None;
        };
        let frag = ip.frag?;
        let (at, named_at, payload) = match ip.v6 {
            false => (ip.l4, 9, ip.l4),
            true => {
                let (mut at, mut named_at) = (40, 6);
                while packet.get(named_at).copied()? != 44 {
                    named_at = at;
                    at += 8 + 8 * usize::from(*packet.get(at + 1)?);
                }
                (at, named_at, at + 8)
            }
        };
        let mut head = packet.get(..at)?.to_vec();
        match ip.v6 {
            true => head[named_at] = packet[at],
            false => head[6..8].fill(0),
        }
        let payload = packet.get(payload..ip.end)?.to_vec();
        let odd = frag.more && payload.len() % 8 != 0;
        let long = at + frag.offset + payload.len() > 65_535;
        if ip.contradicts || ip.hidden || payload.is_empty() || odd || long {
            return None;
        }
        let mut ends = vec![sa.is_some().into()];
        ends.extend(sa.unwrap_or_default().to_be_bytes());
        ends.extend(ip.src);
        ends.extend(ip.dst);
        ends.push(ip.v6.into());
        Some(Piece {
            name: (ends, frag.id, if ip.v6 { 0 } else { ip.proto }),
            offset: frag.offset,
            more: frag.more,
            head,
            payload,
        })
    }
}

/// The plainest reassembler: a list, oldest first, added up anew each time.
pub struct Naive {
    limits: Limits,
    pub partials: Vec<Partial>,
    pub evicted: u64,
}

impl Naive {
    pub fn new(limits: Limits) -> Naive {
        Naive {
            limits,
            partials: Vec::new(),
            evicted: 0,
        }
    }

    pub fn bytes(&self) -> usize {
        self.partials.iter().map(Partial::charged).sum()
    }

    pub fn of_source(&self, name: &Name) -> usize {
        let same = self
            .partials
            .iter()
            .filter(|p| p.name.0[..SOURCE] == name.0[..SOURCE]);
        same.map(Partial::charged).sum()
    }

    pub fn expire(&mut self, now: u64) -> usize {
        let before = self.partials.len();
        let timeout = self.limits.timeout_ms;
        self.partials.retain(|p| now - p.born < timeout);
        before - self.partials.len()
    }

    /// Makes room for `cost` bytes; the oldest goes, but not `keep` itself.
    fn room(&mut self, cost: usize, keep: &Name) -> Result<(), Reason> {
        let source = self.of_source(keep) + cost;
        if source > self.limits.per_source_bytes || cost > self.limits.bytes {
            return Err(Reason::FragmentLimit);
        }
        while self.bytes() + cost > self.limits.bytes {
            let oldest = self.partials.iter().position(|p| p.name != *keep);
            self.partials.remove(oldest.ok_or(Reason::FragmentLimit)?);
            self.evicted += 1;
        }
        Ok(())
    }

    /// The datagram when it is whole.
    pub fn push(
        &mut self,
        sa: Option<u32>,
        packet: &[u8],
        now: u64,
    ) -> Result<Option<Vec<u8>>, Reason> {
        let piece = Piece::read(packet, sa).ok_or(Reason::Malformed)?;
        if piece.offset == 0 && !piece.more {
            return together(&[piece]).map(Some);
        }
        let name = piece.name.clone();
        if !self.partials.iter().any(|p| p.name == name) {
            self.room(DATAGRAM_COST, &name)?;
            while self.partials.len() >= self.limits.datagrams.max(1) {
                self.partials.remove(0);
                self.evicted += 1;
            }
            self.partials.push(Partial {
                name: name.clone(),
                born: now,
                pieces: Vec::new(),
            });
        }
        let added = self.add(piece);
        let at = self
            .partials
            .iter()
            .position(|p| p.name == name)
            .expect("just added to");
        match added {
            Ok(false) => Ok(None),
            Ok(true) => together(&self.partials.remove(at).pieces).map(Some),
            Err(reason) => {
                self.partials.remove(at);
                Err(reason)
            }
        }
    }

    fn add(&mut self, piece: Piece) -> Result<bool, Reason> {
        let mine = |p: &&Partial| p.name == piece.name;
        let pieces = &self.partials.iter().find(mine).expect("it was made").pieces;
        if pieces
            .iter()
            .any(|p| p.offset == piece.offset && p.payload == piece.payload)
        {
            return Ok(false);
        }
        let overlap = pieces
            .iter()
            .any(|p| p.offset < piece.end() && piece.offset < p.end());
        let end = pieces.iter().find(|p| !p.more).map(Piece::end);
        let beyond = match end {
            Some(end) => piece.end() > end || !piece.more,
            None => !piece.more && pieces.iter().any(|p| p.end() > piece.end()),
        };
        if overlap || beyond {
            return Err(Reason::FragmentOverlap);
        }
        if pieces.len() == MAX_PARTS {
            return Err(Reason::FragmentLimit);
        }
        self.room(piece.cost(), &piece.name.clone())?;
        let mine = |p: &&mut Partial| p.name == piece.name;
        let pieces = &mut self
            .partials
            .iter_mut()
            .find(mine)
            .expect("it was kept")
            .pieces;
        pieces.push(piece);
        pieces.sort_by_key(|p| p.offset);
        let mut at = 0;
        for piece in pieces.iter() {
            if piece.offset != at {
                return Ok(false);
            }
            at = piece.end();
        }
        Ok(pieces.last().is_some_and(|p| !p.more))
    }
}

/// The datagram of pieces that are all there.
fn together(pieces: &[Piece]) -> Result<Vec<u8>, Reason> {
    let mut packet = pieces[0].head.clone();
    pieces
        .iter()
        .for_each(|p| packet.extend_from_slice(&p.payload));
    if packet.len() > 65_535 {
        return Err(Reason::Malformed);
    }
    set_length(&mut packet);
    Ok(packet)
}
