//! Fragments of several senders in any order, with doubles, overlaps, gaps and
//! pauses, against a reassembler that keeps them in plain lists.
//!
//! The bounds hold after every step, what comes out whole is what went in, and
//! a fragment that overlaps another one ends its datagram.

mod input;
mod packets;

use gm_abi::wire::{self, L3};
use gm_esp::Reason;
use gm_esp::reassembly::{Limits, Pushed, Reassembler};

use input::Input;
use packets::{address, ip, set_length};

/// Steps of one input at most.
const STEPS: usize = 64;
/// What the bookkeeping is charged (`reassembly.rs`).
const PART_COST: usize = 64;
const DATAGRAM_COST: usize = 256;
/// Fragments of one datagram at most.
const MAX_PARTS: usize = 64;

/// Who sends what: SA and addresses, identification and, of IPv4, the protocol.
type Name = (Vec<u8>, u32, u8);

/// Bytes of a name's first part that say who answers for it.
const SOURCE: usize = 5 + 16;

/// A fragment as the naive reassembler reads it.
struct Piece {
    name: Name,
    offset: usize,
    more: bool,
    /// The datagram's header, as this fragment has it.
    head: Vec<u8>,
    payload: Vec<u8>,
}

struct Partial {
    name: Name,
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
struct Naive {
    limits: Limits,
    partials: Vec<Partial>,
    evicted: u64,
}

impl Naive {
    fn bytes(&self) -> usize {
        self.partials.iter().map(Partial::charged).sum()
    }

    fn of_source(&self, name: &Name) -> usize {
        let same = self
            .partials
            .iter()
            .filter(|p| p.name.0[..SOURCE] == name.0[..SOURCE]);
        same.map(Partial::charged).sum()
    }

    fn expire(&mut self, now: u64) -> usize {
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
    fn push(
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

/// A few bytes choose the limits, the rest are fragments and pauses.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let limits = Limits {
        bytes: input.pick(&[1500, 4000, 16_000, 100, 400_000]),
        per_source_bytes: input.pick(&[1200, 4000, 100, 200_000]),
        datagrams: input.pick(&[3, 1, 8, 64, 0]),
        timeout_ms: input.pick(&[100, 1, 15_000]),
    };
    let mut naive = Naive {
        limits,
        partials: Vec::new(),
        evicted: 0,
    };
    let mut reassembler = Reassembler::new(limits);
    let mut now = 0;
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let kind = input.u8();
        if kind < 24 {
            now += u64::from(input.u8()) * 3;
            assert_eq!(reassembler.expire(now), naive.expire(now));
        } else {
            // What came in clear, or through one of two SAs.
            let sa = [None, None, Some(1), Some(2)][usize::from(kind >> 4 & 3)];
            for packet in packets_of(kind, &mut input) {
                one(&mut reassembler, &mut naive, sa, &packet, now);
            }
        }
        assert_eq!(reassembler.len(), naive.partials.len());
        assert_eq!(reassembler.bytes(), naive.bytes());
        assert_eq!(
            reassembler.take_evicted(),
            std::mem::take(&mut naive.evicted)
        );
        assert!(
            reassembler.bytes() <= limits.bytes && reassembler.len() <= limits.datagrams.max(1)
        );
        for partial in &naive.partials {
            assert!(naive.of_source(&partial.name) <= limits.per_source_bytes);
        }
    }
}

fn one(reassembler: &mut Reassembler, naive: &mut Naive, sa: Option<u32>, packet: &[u8], now: u64) {
    let got = match sa {
        Some(sa) => reassembler.push_of(sa, packet, now),
        None => reassembler.push(packet, now),
    };
    let want = naive.push(sa, packet, now);
    match (got, want) {
        (Ok(Pushed::Stored), Ok(None)) => {}
        (Ok(Pushed::Whole(mut datagram)), Ok(Some(want))) => {
            assert!(datagram.packet() == want, "not what went in");
            let buf = datagram.buf();
            let room = (buf.headroom(), buf.tailroom());
            assert!(
                room.0 >= gm_esp::MAX_FRONT && room.1 >= gm_esp::MAX_BACK && buf.data() == want
            );
        }
        (Err(got), Err(want)) => assert_eq!(got, want),
        (Ok(Pushed::Stored), want) => panic!("stored, not {:?}", want.map(|w| w.map(|w| w.len()))),
        (Ok(Pushed::Whole(_)), want) => panic!("whole, not {:?}", want.map(|w| w.map(|w| w.len()))),
        (Err(got), Ok(_)) => panic!("{got:?} for a good fragment"),
    }
}

/// Fragments: of gm-esp's own cutting, one of a made-up place, or any bytes.
fn packets_of(kind: u8, input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let v6 = kind & 1 == 1;
    match kind >> 1 & 7 {
        0 => {
            let len = input.below(120);
            vec![input.bytes(len).to_vec()]
        }
        // A whole datagram, cut; some pieces missing, double, or the other way round.
        1 => {
            let (sender, ident) = (input.u8(), u32::from(input.u8() % 4));
            let len = usize::from(input.u16()) % if kind < 8 { 65_536 } else { 2048 };
            let whole = datagram(v6, sender, input, len);
            let mtu = 28 + 8 * input.below(300);
            let mut pieces = Vec::new();
            let cut = gm_esp::fragment::split(
                &whole,
                mtu.max(if v6 { 56 } else { 28 }),
                ident,
                |h, p| {
                    pieces.push([h, p].concat());
                },
            );
            if cut.is_ok() {
                assert!(!pieces.is_empty(), "a datagram is gone");
            }
            if cut.is_err() || pieces.len() > 80 {
                return Vec::new();
            }
            let how = input.u8();
            if how & 1 == 1 {
                pieces.reverse();
            }
            if how & 2 == 2 {
                let nth = input.below(pieces.len());
                let again = pieces[nth].clone();
                pieces.insert(0, again);
            }
            if how & 4 == 4 {
                pieces.remove(input.below(pieces.len()));
            }
            pieces
        }
        _ => {
            let (sender, ident) = (input.u8(), input.u8() % 4);
            let place = u16::from(input.u8()) | if kind > 250 { 0x1f00 } else { 0 };
            let (units, more) = (input.u8(), input.u8());
            let len = match more & 1 {
                1 => usize::from(units) * 8,
                _ => usize::from(units) * 3,
            };
            let mut packet = datagram(v6, sender, input, len);
            place_at(&mut packet, v6, place, more & 1 == 1, ident);
            vec![packet]
        }
    }
}

/// A packet of one of four senders, to one of two of our addresses.
fn datagram(v6: bool, sender: u8, input: &mut Input<'_>, len: usize) -> Vec<u8> {
    let (src, dst) = (
        address(v6, sender & 1 == 0, sender & 2 == 2),
        address(v6, true, sender & 4 == 4),
    );
    let extra: Vec<(u8, u8)> = (0..usize::from(sender >> 6))
        .map(|_| (input.u8(), input.u8()))
        .collect();
    let salt = input.u8() % 2;
    let payload: Vec<u8> = (0..len.min(65_000)).map(|i| (i / 8) as u8 ^ salt).collect();
    ip(
        src,
        dst,
        if sender & 8 == 8 { 6 } else { 17 },
        &extra,
        &payload,
    )
}

/// Makes a fragment of a packet.
fn place_at(packet: &mut Vec<u8>, v6: bool, place: u16, more: bool, ident: u8) {
    let place = match v6 {
        true => place << 3 | u16::from(more),
        false => (place & 0x1fff) | u16::from(more) << 13,
    };
    if v6 {
        let next = std::mem::replace(&mut packet[6], 44);
        let [high, low] = place.to_be_bytes();
        packet.splice(40..40, [next, 0, high, low, 0, 0, 0, ident]);
    } else {
        packet[4..6].copy_from_slice(&[0, ident]);
        packet[6..8].copy_from_slice(&place.to_be_bytes());
    }
    set_length(packet);
}
