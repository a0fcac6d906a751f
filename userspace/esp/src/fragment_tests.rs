//! Pieces fit, and fit together again.

use gm_abi::wire::Frag;
use proptest::prelude::*;

use super::*;
use crate::reassembly::{Limits, Pushed, Reassembler};
use crate::testing::Plain;

fn pieces(packet: &[u8], mtu: usize, ident: u32) -> Result<Vec<Vec<u8>>, Reason> {
    let mut pieces = vec![];
    let count = split(packet, mtu, ident, |head, payload| {
        pieces.push([head, payload].concat());
    })?;
    assert_eq!(count, pieces.len());
    Ok(pieces)
}

fn frag(piece: &[u8]) -> Option<Frag> {
    match wire::parse_ip(piece, 0) {
        L3::Ip(ip) => {
            assert!(!ip.contradicts && !ip.hidden && ip.end == piece.len());
            ip.frag
        }
        _ => panic!("no IP packet"),
    }
}

/// A packet with everything that a header can have.
fn plain(v6: bool, payload: usize, dressed: bool) -> Vec<u8> {
    let mut plain = Plain::udp(v6, payload);
    if dressed && v6 {
        plain.extensions = vec![(0, 8), (43, 24), (60, 16)];
    } else if dressed {
        // One option for every fragment, one for the first only.
        plain.options = vec![0x94, 4, 0, 0, 1, 7, 7, 4, 0, 0, 0, 0];
    }
    plain.bytes()
}

proptest! {
    #[test]
    fn what_is_split_comes_together_in_any_order(
        v6 in any::<bool>(), dressed in any::<bool>(), payload in 0..20_000_usize,
        mtu in 600..3000_usize, ident in any::<u32>(), shuffle in any::<u64>(), again in any::<bool>(),
    ) {
        let packet = plain(v6, payload, dressed);
        let mut pieces = pieces(&packet, mtu, ident).unwrap();
        if pieces.len() == 1 {
            prop_assert_eq!(&pieces[0], &packet);
            return Ok(());
        }
        for (i, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.len() <= mtu);
            let frag = frag(piece).unwrap();
            prop_assert_eq!(frag.more, i + 1 < pieces.len());
            prop_assert_eq!(frag.id, if v6 { ident } else { ident & 0xffff });
            prop_assert!(!frag.more || piece.len() + 8 > mtu, "pieces are filled");
        }
        let count = pieces.len();
        if again {
            pieces.extend(pieces.clone());
        }
        let mut dice = shuffle | 1;
        for i in (1..pieces.len()).rev() {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            pieces.swap(i, dice as usize % (i + 1));
        }
        let mut reassembler = Reassembler::new(Limits::default());
        let mut seen = std::collections::BTreeSet::new();
        let mut whole = None;
        for piece in &pieces {
            seen.insert(piece.clone());
            if let Pushed::Whole(datagram) = reassembler.push(piece, 0).unwrap() {
                prop_assert_eq!(seen.len(), count);
                whole = Some(datagram.packet().to_vec());
                break;
            }
        }
        let mut expected = packet.clone();
        if !v6 {
            expected[4..6].copy_from_slice(&(ident as u16).to_be_bytes());
            headers::set_checksum(&mut expected);
        }
        prop_assert_eq!(whole, Some(expected));
        prop_assert_eq!((reassembler.len(), reassembler.bytes()), (0, 0));
    }
}

#[test]
fn options_go_where_they_belong() {
    let pieces = pieces(&plain(false, 3000, true), 1000, 5).unwrap();
    assert_eq!(pieces[0][20..32], [0x94, 4, 0, 0, 1, 7, 7, 4, 0, 0, 0, 0]);
    for later in &pieces[1..] {
        assert_eq!(later[0], 0x46);
        assert_eq!(later[20..24], [0x94, 4, 0, 0]);
    }
}

#[test]
fn what_must_not_or_cannot_be_cut() {
    let mut whole = plain(false, 1400, false);
    whole[6] = 0x40;
    headers::set_checksum(&mut whole);
    assert_eq!(pieces(&whole, 1000, 1), Err(Reason::OutTooBig));
    assert_eq!(pieces(&whole, 1428, 1).map(|p| p.len()), Ok(1));
    let v6 = plain(true, 1400, false);
    assert_eq!(pieces(&v6, 55, 1), Err(Reason::OutTooBig));
    assert_eq!(pieces(&v6, 0, 1), Err(Reason::OutTooBig));
    assert!(pieces(&v6, 56, 1).is_ok());
    let piece = pieces(&v6, 1280, 1).unwrap().remove(0);
    assert_eq!(pieces(&piece, 600, 1), Err(Reason::OutMalformed));
    assert_eq!(pieces(&v6[..100], 60, 1), Err(Reason::OutMalformed));
}

/// Found by fuzzing: such a packet went without a piece and without an error.
#[test]
fn headers_alone_that_are_too_long_do_not_vanish() {
    let mut plain = Plain::udp(false, 0);
    plain.options = vec![1; 40];
    let packet = crate::testing::ip(&plain, &[]);
    assert_eq!(packet.len(), 60);
    assert_eq!(pieces(&packet, 60, 1).map(|p| p.len()), Ok(1));
    assert_eq!(pieces(&packet, 59, 1), Err(Reason::OutTooBig));
}

#[test]
fn bytes_behind_the_packet_are_not_sent() {
    let packet = [&plain(true, 100, false)[..], &[9; 20]].concat();
    assert_eq!(pieces(&packet, 1280, 1).unwrap()[0].len(), 148);
}
