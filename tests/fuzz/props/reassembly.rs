//! Fragments of several senders in any order, with doubles, overlaps, gaps and
//! pauses, against a reassembler that keeps them in plain lists.
//!
//! The bounds hold after every step, what comes out whole is what went in, and
//! a fragment that overlaps another one ends its datagram.

#[path = "reassembly/naive.rs"]
mod naive;

use gm_esp::reassembly::{Limits, Pushed, Reassembler};

use crate::input::Input;
use crate::packets::{address, ip, set_length};
use naive::Naive;

/// Steps of one input at most.
const STEPS: usize = 64;

/// A few bytes choose the limits, the rest are fragments and pauses.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let limits = Limits {
        bytes: input.pick(&[1500, 4000, 16_000, 100, 400_000]),
        per_source_bytes: input.pick(&[1200, 4000, 100, 200_000]),
        datagrams: input.pick(&[3, 1, 8, 64, 0]),
        timeout_ms: input.pick(&[100, 1, 15_000]),
    };
    let mut naive = Naive::new(limits);
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
