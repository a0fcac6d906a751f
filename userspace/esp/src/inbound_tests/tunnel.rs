//! What a tunnel brings besides whole datagrams: pieces, and congestion marks.

use super::*;
use crate::fragment::split;
use crate::inbound;
use crate::packet::PacketBuf;
use crate::reassembly::{Limits, Pushed, Reassembler};
use crate::{Mode, Received};

fn tunnels() -> impl Iterator<Item = Link> {
    Link::all().filter(|link| link.sa.mode() == Mode::UdpEncTun)
}

fn strip<'p, 's>(link: &'s Link, bytes: &'p mut [u8]) -> Stripped<'p, 's> {
    let end = bytes.len();
    let packet = PacketBuf::new(bytes, 0, end);
    let Ok(received) = Received::parse(packet, EncapPort::Dst(4500)) else {
        panic!("no ESP");
    };
    let checked = received.check(&link.sa, &link.window.window()).unwrap();
    let opened = open_one(gm_engines::reference(), checked).unwrap();
    opened
        .commit(&link.window.window())
        .unwrap()
        .strip()
        .unwrap()
}

#[test]
fn a_datagram_that_was_fragmented_before_encapsulation_is_judged_whole() {
    for link in tunnels() {
        let inner = if link.v6() { 41 } else { 4 };
        for (ports, want) in [((5060, 5062), true), ((5060, 5063), false)] {
            let plain = Plain {
                ports,
                ..Plain::udp(link.v6(), 1500)
            }
            .bytes();
            let mut reassembler = Reassembler::new(Limits::default());
            let (mut seq, mut done) = (link.window.window().top(), None);
            let mut push = |head: &[u8], payload: &[u8]| {
                seq += 1;
                let body = padded(&link, &[head, payload].concat(), inner);
                let mut sealed = link.forge(seq, &body);
                let stripped = strip(&link, &mut sealed);
                assert!(stripped.is_piece());
                if let Ok(Pushed::Whole(datagram)) =
                    reassembler.push_of(SPI, stripped.into_piece().data(), 0)
                {
                    done = Some(datagram);
                }
            };
            split(&plain, 600, 0x1234, &mut push).unwrap();
            let mut done = done.unwrap();
            let admitted =
                inbound::admit(done.buf(), &link.sa).map(|packet| packet.data().to_vec());
            let want = if want {
                Ok(plain)
            } else {
                Err(Reason::SelectorMismatch)
            };
            assert!(admitted == want, "{}", link.name());
        }
    }
}

#[test]
fn whole_packets_and_those_in_transport_mode_are_no_pieces() {
    for mut link in Link::all() {
        let mut sealed = link.sealed(40);
        assert!(!strip(&link, &mut sealed).is_piece());
    }
}

/// Sets the congestion mark of an IP packet whose header may be wrong after.
fn mark(ip: &mut [u8], mark: u8) {
    match ip[0] >> 4 {
        6 => ip[1] = ip[1] & 0xcf | mark << 4,
        _ => ip[1] = ip[1] & 0xfc | mark,
    }
}

#[test]
fn congestion_marks_go_out_with_the_tunnel_and_come_in_from_it() {
    for mut link in tunnels() {
        let mut plain = Plain::udp(link.v6(), 40).bytes();
        mark(&mut plain, 2);
        if !link.v6() {
            crate::headers::set_checksum(&mut plain);
        }
        let mut sealed = link.seal(&plain).unwrap();
        // Whatever the versions, the outer header has the class of the inner one.
        assert_eq!(crate::ecn::Mark::of(&sealed), crate::ecn::Mark::of(&plain));
        mark(&mut sealed, 3);
        let mut met = plain.clone();
        mark(&mut met, 3);
        if !link.v6() {
            crate::headers::set_checksum(&mut met);
        }
        assert!(link.open(&sealed) == Ok(met), "{}", link.name());

        let unaware = Plain::udp(link.v6(), 40).bytes();
        let mut sealed = link.seal(&unaware).unwrap();
        mark(&mut sealed, 3);
        assert_eq!(link.open(&sealed), Err(Reason::Malformed));
        let mut sealed = link.seal(&unaware).unwrap();
        mark(&mut sealed, 1);
        assert!(link.open(&sealed) == Ok(unaware));
    }
}
