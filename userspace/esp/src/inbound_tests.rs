//! Verdicts, in their order, and that what is good comes through unchanged.

#[path = "inbound_tests/batches.rs"]
mod batches;
#[path = "inbound_tests/tunnel.rs"]
mod tunnel;

use proptest::prelude::*;

use gm_abi::wire::{TCP, UDP};

use super::*;
use crate::Suite;
use crate::testing::{Link, Plain, SPI, ends, ip, padded, spec};

/// Ends a forged packet's IP header on the bytes that are there.
fn fit(link: &Link, packet: &mut Vec<u8>, esp_len: usize) {
    let at = link.esp_at();
    let esp = packet[at..at + esp_len].to_vec();
    *packet = link.wrap(&esp);
}

#[test]
fn what_is_sealed_opens_to_the_same_bytes() {
    for mut link in Link::all() {
        let v6 = link.v6();
        let mut shapes = vec![];
        for payload in (0..70).chain([127, 128, 383, 384, 768, 1399, 1400, 1424, 8000]) {
            shapes.push(Plain::udp(v6, payload));
            shapes.push(Plain {
                proto: TCP,
                ..Plain::udp(v6, payload)
            });
        }
        shapes.push(Plain {
            options: if v6 {
                vec![]
            } else {
                [0x94, 4, 0, 0].repeat(10)
            },
            extensions: if v6 {
                vec![(0, 8), (60, 8), (43, 40), (60, 24)]
            } else {
                vec![]
            },
            ..Plain::udp(v6, 33)
        });
        for shape in shapes {
            let plain = shape.bytes();
            let sealed = link.seal(&plain).unwrap();
            assert_eq!(link.open(&sealed), Ok(plain), "{} {shape:?}", link.name());
        }
    }
}

proptest! {
    #[test]
    fn any_payload_comes_through(which in 0..32_usize, payload in 0..2000_usize, tcp in any::<bool>()) {
        let mut link = Link::all().nth(which).unwrap();
        let mut plain = Plain::udp(link.v6(), payload);
        plain.proto = if tcp { TCP } else { UDP };
        let plain = plain.bytes();
        let sealed = link.seal(&plain).unwrap();
        prop_assert_eq!(link.open(&sealed), Ok(plain));
    }

    #[test]
    fn noise_is_judged_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), first in prop_oneof![Just(0x45_u8), Just(0x60), Just(0x4f), any::<u8>()], proto in prop_oneof![Just(17_u8), Just(50), any::<u8>()]) {
        let mut bytes = bytes;
        if bytes.len() > 9 {
            bytes[0] = first;
            bytes[6] = if first == 0x60 { proto } else { 0 };
            bytes[9] = proto;
        }
        for link in Link::all() {
            prop_assert!(link.open(&bytes).is_err());
        }
    }

    #[test]
    fn an_authentic_body_of_any_kind_is_judged_and_never_panics(which in 0..32_usize, blocks in 1..8_usize, noise in any::<[u8; 32]>(), pad in any::<u8>(), next in prop_oneof![Just(4_u8), Just(41), Just(17), Just(6), Just(59), Just(44), any::<u8>()]) {
        let link = Link::all().nth(which).unwrap();
        let block = link.sa.suite().transform().block();
        let mut body: Vec<u8> = noise.iter().copied().cycle().take(blocks * block).collect();
        let end = body.len();
        body[end - 2] = pad;
        body[end - 1] = next;
        let verdict = link.open(&link.forge(9, &body));
        if usize::from(pad) + 2 > end {
            prop_assert_eq!(verdict, Err(Reason::Malformed));
        } else if next == 59 {
            prop_assert_eq!(verdict, Err(Reason::Dummy));
        } else {
            prop_assert!(matches!(verdict, Err(Reason::Malformed | Reason::SelectorMismatch)));
        }
        prop_assert_eq!(link.window.window().top(), 9);
    }
}

#[test]
fn truncated_at_every_length() {
    for mut link in Link::all() {
        let sealed = link.sealed(90);
        let at = link.esp_at();
        for len in 0..sealed.len() {
            // As a cut capture: the headers promise more.
            let ports = link.sa.mode() == Mode::UdpEncTun && (at - 8..at - 4).contains(&len);
            let expected = if ports {
                Reason::NotEsp
            } else {
                Reason::Malformed
            };
            assert_eq!(link.open(&sealed[..len]), Err(expected), "{len}");
        }
        let transform = link.sa.suite().transform();
        for esp_len in 0..sealed.len() - at {
            // As a short packet: the headers know.
            let mut short = sealed.clone();
            fit(&link, &mut short, esp_len);
            let expected = match () {
                _ if esp_len < 20 || !transform.fits(esp_len) => Reason::Malformed,
                _ => Reason::BadIcv,
            };
            let got = link.open(&short);
            assert_eq!(got, Err(expected), "{} {esp_len}", link.name());
        }
        assert_eq!(link.window.window().top(), 0);
        assert!(link.open(&sealed).is_ok());
    }
}

#[test]
fn every_flipped_byte_of_esp_is_noticed() {
    for mut link in Link::all() {
        let sealed = link.sealed(40);
        for at in link.esp_at()..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            let expected = match at - link.esp_at() {
                0..4 => Reason::UnknownSpi,
                // The lowest bit of number 1: zero is never sent.
                7 => Reason::Replay,
                _ => Reason::BadIcv,
            };
            assert_eq!(link.open(&forged), Err(expected), "{} {at}", link.name());
        }
        assert!(link.open(&sealed).is_ok());
    }
}

#[test]
fn what_is_no_esp_is_told_apart() {
    let parse = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let end = bytes.len();
        Received::parse(PacketBuf::new(&mut bytes, 0, end), EncapPort::Dst(4500))
            .map(|received| (received.spi(), received.seq()))
    };
    let rejected = |reason| {
        Err(Rejected {
            reason,
            spi: None,
            seq: None,
        })
    };
    for v6 in [false, true] {
        assert_eq!(parse(&Plain::udp(v6, 30).bytes()), rejected(Reason::NotEsp));
        let to_4500 = |payload: &[u8]| {
            let mut udp = [4500_u16, 4500, 8 + payload.len() as u16, 0]
                .map(u16::to_be_bytes)
                .concat();
            udp.extend_from_slice(payload);
            ip(&Plain::udp(v6, 0), &udp)
        };
        assert_eq!(parse(&to_4500(&[0xff])), rejected(Reason::Keepalive));
        let marked = to_4500(&[0, 0, 0, 0, 1, 2, 3]);
        assert_eq!(parse(&marked), rejected(Reason::PassNonEspMarker));
        assert_eq!(parse(&to_4500(&[1; 7])), rejected(Reason::Malformed));
        let short = to_4500(&[1; 19]);
        let head = Some(0x0101_0101);
        let with_head = Err(Rejected {
            reason: Reason::Malformed,
            spi: head,
            seq: head,
        });
        assert_eq!(parse(&short), with_head);
        assert_eq!(parse(&to_4500(&[1; 20])), Ok((0x0101_0101, 0x0101_0101)));
    }
    let mut fragment = Plain::udp(false, 64).bytes();
    fragment[6] = 0x20;
    assert_eq!(parse(&fragment), rejected(Reason::Fragment));
    assert_eq!(parse(&[]), rejected(Reason::Malformed));
    assert_eq!(parse(&[0x12; 60]), rejected(Reason::NotEsp));
}

#[test]
fn bytes_behind_the_packet_are_cut() {
    for mut link in Link::all() {
        let sealed = link.sealed(20);
        let padded = [&sealed[..], &[0xee; 6]].concat();
        assert!(link.open(&padded).is_ok(), "{}", link.name());
    }
}

#[test]
fn the_order_of_the_verdicts_before_the_key() {
    for mut link in Link::all() {
        let twin = match link.sa.mode() {
            Mode::Trans => Mode::UdpEncTun,
            Mode::UdpEncTun => Mode::Trans,
        };
        let sealed = link.sealed(40);
        let esp = sealed[link.esp_at()..].to_vec();

        // Another destination, another SPI.
        let mut elsewhere = sealed.clone();
        let last = if link.v6() { 39 } else { 19 };
        elsewhere[last] ^= 1;
        assert_eq!(link.open(&elsewhere), Err(Reason::UnknownSpi));

        // The other wrapping, to the same destination.
        let mut spec = link.sa.spec();
        spec.mode = twin;
        match spec.outer.take() {
            Some(outer) => {
                spec.selector = crate::Selector {
                    src: outer.src,
                    dst: outer.dst,
                    ..spec.selector
                }
            }
            None => {
                spec.outer = Some(crate::Outer {
                    src: spec.selector.src,
                    dst: spec.selector.dst,
                    sport: None,
                    dport: None,
                })
            }
        }
        let other = Link::of(spec);
        assert_eq!(
            other.open(&sealed),
            Err(Reason::ModeMismatch),
            "{}",
            link.name()
        );
        // Its shape comes first, before its mode; its number after.
        let short = link.wrap(&esp[..20]);
        assert_eq!(other.open(&short), Err(Reason::Malformed));
        let mut zero = sealed.clone();
        let at = link.esp_at() + 4;
        zero[at..at + 4].fill(0);
        assert_eq!(other.open(&zero), Err(Reason::ModeMismatch));

        // Number 0, then the window, then the ICV.
        assert_eq!(link.open(&zero), Err(Reason::Replay));
        for _ in 0..200 {
            link.sealed(1);
        }
        let new = link.sealed(40);
        assert!(link.open(&new).is_ok());
        assert_eq!(link.open(&sealed), Err(Reason::Stale));
        let mut both = new.clone();
        let end = both.len() - 1;
        both[end] ^= 1;
        assert_eq!(link.open(&both), Err(Reason::Replay));
    }
}

#[test]
fn the_order_of_the_verdicts_behind_the_key() {
    for link in Link::all() {
        let good = Plain::udp(link.v6(), 24).bytes();
        let head = good.len() - 32;
        let (payload, next) = match link.sa.mode() {
            Mode::Trans => (&good[head..], UDP),
            Mode::UdpEncTun => (&good[..], if link.v6() { IPV6 } else { IPV4 }),
        };
        let body = padded(&link, payload, next);
        let mut seq = 0;
        let mut verdict = |body: &[u8]| {
            seq += 1;
            let verdict = link.open(&link.forge(seq, body));
            // The window moves with every authentic packet, whatever it holds.
            assert_eq!(link.window.window().top(), seq);
            assert_eq!(link.window.window().check(seq), Err(Reason::Replay));
            verdict
        };
        assert_eq!(verdict(&body), Ok(good.clone()));
        let with = |pad: Option<u8>, next: u8| {
            let mut body = body.clone();
            let end = body.len();
            body[end - 2] = pad.unwrap_or(body[end - 2]);
            body[end - 1] = next;
            body
        };
        assert_eq!(verdict(&with(Some(255), next)), Err(Reason::Malformed));
        let most = body.len() - 2;
        assert_eq!(
            verdict(&with(Some(most as u8 + 1), next)),
            Err(Reason::Malformed)
        );
        // More padding than packet comes before what the packet is.
        assert_eq!(verdict(&with(Some(255), 59)), Err(Reason::Malformed));
        assert_eq!(verdict(&with(None, 59)), Err(Reason::Dummy));
        // Nothing but padding is a dummy too, but no packet.
        assert_eq!(verdict(&with(Some(most as u8), 59)), Err(Reason::Dummy));
        assert_eq!(
            verdict(&with(Some(most as u8), next)),
            Err(Reason::Malformed)
        );

        // Padding of any content is taken.
        let mut odd = body.clone();
        let pad = usize::from(odd[odd.len() - 2]);
        let end = odd.len() - 2;
        odd[end - pad..end].fill(0xaa);
        assert_eq!(verdict(&odd), Ok(good.clone()));

        let strangers = [
            Plain {
                ports: (5061, 5062),
                ..Plain::udp(link.v6(), 24)
            },
            Plain {
                ports: (5060, 5061),
                ..Plain::udp(link.v6(), 24)
            },
            Plain {
                proto: 132,
                ..Plain::udp(link.v6(), 24)
            },
        ];
        for stranger in strangers {
            let bytes = stranger.bytes();
            let body = match link.sa.mode() {
                Mode::Trans => padded(&link, &bytes[head..], stranger.proto),
                Mode::UdpEncTun => padded(&link, &bytes, next),
            };
            assert_eq!(
                verdict(&body),
                Err(Reason::SelectorMismatch),
                "{stranger:?}"
            );
        }
    }
}

#[test]
fn tunnels_carry_whole_packets_of_their_kind() {
    for link in Link::all().filter(|link| link.sa.mode() == Mode::UdpEncTun) {
        let good = Plain::udp(link.v6(), 24).bytes();
        let (next, other) = if link.v6() {
            (IPV6, IPV4)
        } else {
            (IPV4, IPV6)
        };
        let open =
            |seq, payload: &[u8], next| link.open(&link.forge(seq, &padded(&link, payload, next)));
        // Bytes behind the inner packet (traffic flow padding) are trimmed.
        let padded_inner = [&good[..], &[0xee; 70]].concat();
        assert_eq!(open(1, &padded_inner, next), Ok(good.clone()));
        assert_eq!(open(2, &good, other), Err(Reason::Malformed));
        assert_eq!(open(3, &good, UDP), Err(Reason::Malformed));
        for (seq, len) in (4..).zip(0..good.len()) {
            assert_eq!(open(seq, &good[..len], next), Err(Reason::Malformed));
        }
        let mut foreign = good.clone();
        let source = if link.v6() { 23 } else { 15 };
        foreign[source] ^= 1;
        assert_eq!(open(1000, &foreign, next), Err(Reason::SelectorMismatch));
        // An inner fragment hides its ports.
        if !link.v6() {
            let mut fragment = good.clone();
            fragment[7] = 4;
            assert_eq!(open(1001, &fragment, next), Err(Reason::SelectorMismatch));
        }
    }
}

#[test]
fn a_nat_may_change_the_outer_source() {
    let mut link = Link::new(Suite::NullAesGcm, Mode::UdpEncTun, false);
    let mut sealed = link.sealed(40);
    sealed[12..16].copy_from_slice(&[192, 0, 2, 99]);
    sealed[20..22].copy_from_slice(&7777_u16.to_be_bytes());
    let end = sealed.len();
    let packet = PacketBuf::new(&mut sealed, 0, end);
    let window = link.window.window();
    let received = Received::parse(packet, EncapPort::Dst(4500)).ok().unwrap();
    assert!(received.encapsulated());
    assert_eq!(received.destination(), link.sa.destination());
    let checked = received.check(&link.sa, &window).ok().unwrap();
    let opened = open_one(gm_engines::reference(), checked).ok().unwrap();
    let committed = opened.commit(&window).ok().unwrap();
    let source = (IpAddr::from([192, 0, 2, 99]), 7777);
    assert_eq!((committed.outer_source(), committed.seq()), (source, 1));
    let admitted = committed.admit().ok().unwrap();
    assert_eq!((admitted.outer_source(), admitted.seq()), (source, 1));
    assert_eq!(admitted.flow().src, ends(false).0);
    assert_eq!(admitted.into_packet().end(), end - 16 - 2 - 2);
}

#[test]
fn esn_opens_on_both_sides_of_the_edge() {
    for suite in Suite::every() {
        let mut sa = spec(suite, Mode::Trans, false);
        sa.esn = true;
        let link = Link::of(sa);
        let body = padded(&link, &Plain::udp(false, 24).bytes()[20..], UDP);
        let edge = 1_u64 << 32;
        for (seq, verdict) in [
            (1, None),
            (edge - 40, None),
            (edge + 3, None),
            (edge - 1, None),
            (edge, None),
            (edge + 3, Some(Reason::Replay)),
            (edge - 1, Some(Reason::Replay)),
            (edge + 200, None),
        ] {
            let got = link.open(&link.forge(seq, &body)).err();
            assert_eq!(got, verdict, "{suite} {seq:#x}");
        }
        // Left of the window is taken for one subspace later: it does not verify.
        let got = link.open(&link.forge(edge - 40, &body));
        assert_eq!(got, Err(Reason::BadIcv));
        assert_eq!(link.window.window().top(), edge + 200);
    }
    assert_eq!(
        SPI,
        Link::new(Suite::NullAesGcm, Mode::Trans, false).sa.spi()
    );
}
