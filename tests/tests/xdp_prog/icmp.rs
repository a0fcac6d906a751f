//! ICMP errors: about ESP of ours to a worker, about what leaves as ESP only
//! nowhere, all others to the kernel.

use gm_abi::maps::{META_ICMP, Meta, STATE_FRAGMENT_RATE};
use gm_abi::source::ICMP_TOKENS;
use gm_abi::verdict::Reason;
use gm_tests::netns::{End, NetNs, veth};

use super::frames::*;
use super::lab::*;

/// Errors and what the uplink does with them.
fn errors() -> Vec<(&'static str, Vec<u8>, Reason)> {
    use Reason::*;
    let udp_from = |port, payload: &[u8]| from_us(OURS_V4, UDP, &udp(port, 33333, payload));
    let long = from_us(OURS_V4, ESP, &[7; 900]);
    let with_options = |packet: &[u8], options| {
        let b = with_options(&[&[0; 14], packet].concat(), options);
        packet_of(&b)
    };
    let protected = udp_from(PROTECTED, b"x");
    let cut_v6 = |proto, place, body: &[u8]| {
        icmp_error(
            2,
            &from_us(OURS_V6, FRAGMENT, &fragment(proto, place, body)),
        )
    };
    let others = frame(THEIRS_V4, OURS_V4, ESP, 0, &esp(1, 1));
    vec![
        (
            "ESP",
            icmp_error(3, &from_us(OURS_V4, ESP, &esp(1, 1))),
            SteerIcmp,
        ),
        ("much of it", icmp_error(3, &long), SteerIcmp),
        ("eight bytes of it", icmp_error(11, &long[..28]), SteerIcmp),
        ("nothing of it", icmp_error(3, &long[..20]), SteerIcmp),
        (
            "ESP with options",
            icmp_error(3, &with_options(&long, 40)),
            SteerIcmp,
        ),
        (
            "ESP, IPv6",
            icmp_error(2, &from_us(OURS_V6, ESP, &esp(1, 1))),
            SteerIcmp,
        ),
        ("ESP, IPv6, cut", cut_v6(ESP, 1, &esp(1, 1)), SteerIcmp),
        (
            "ESP in UDP",
            icmp_error(3, &udp_from(ENCAP_PORT, &esp(1, 1))),
            SteerIcmp,
        ),
        (
            "ESP in UDP, its header",
            icmp_error(3, &udp_from(ENCAP_PORT, b"")),
            SteerIcmp,
        ),
        (
            "IKE",
            icmp_error(3, &udp_from(ENCAP_PORT, &[0; 30])),
            PassOther,
        ),
        ("ESP of others", icmp_error(3, packet(&others)), PassOther),
        ("protected UDP", icmp_error(3, &protected), ClearIcmp),
        (
            "behind options",
            icmp_error(3, &with_options(&protected, 8)),
            ClearIcmp,
        ),
        (
            "protected TCP, IPv6",
            icmp_error(1, &from_us(OURS_V6, TCP, &tcp(PROTECTED, 5060))),
            ClearIcmp,
        ),
        (
            "protected UDP, IPv6, cut",
            cut_v6(UDP, 1, &udp(PROTECTED, 1, b"x")),
            ClearIcmp,
        ),
        (
            "behind extension headers",
            icmp_error(1, &from_us(OURS_V6, 0, &extension(UDP, &udp(1, 1, b"x")))),
            ClearIcmp,
        ),
        ("no ports", icmp_error(3, &protected[..21]), ClearIcmp),
        ("clear UDP", icmp_error(3, &udp_from(5060, b"x")), PassOther),
        (
            "clear TCP",
            icmp_error(3, &from_us(OURS_V4, TCP, &tcp(1, PROTECTED))),
            PassOther,
        ),
        (
            "ICMP",
            icmp_error(3, &from_us(OURS_V4, 1, &[8; 8])),
            PassOther,
        ),
        ("no IP header", icmp_error(3, &protected[..19]), PassOther),
        ("an echo", icmp_error(8, &protected), PassOther),
    ]
}

fn packet_of(frame: &[u8]) -> Vec<u8> {
    packet(frame).to_vec()
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_worker_gets_no_more_icmp_errors_than_it_has_time_for() {
    let mut lab = Lab::new();
    let (_, error, _) = errors()
        .into_iter()
        .find(|(_, _, reason)| *reason == Reason::SteerIcmp)
        .unwrap();
    lab.set_word("STATE", STATE_FRAGMENT_RATE, 1);
    for (tokens, reason) in [
        (2, Reason::SteerIcmp),
        (1, Reason::SteerIcmp),
        (0, Reason::IcmpUnbelieved),
    ] {
        lab.set_word("FRAGMENT_TOKENS", ICMP_TOKENS, tokens);
        assert_eq!(lab.uplink(&error).counted, [(reason, 1)], "{tokens} left");
        assert_eq!(
            lab.word("FRAGMENT_TOKENS", ICMP_TOKENS),
            tokens.saturating_sub(1)
        );
    }
    // Those of fragments are others.
    assert_eq!(lab.word("FRAGMENT_TOKENS", 0), 0);
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn icmp_errors_about_esp_go_to_a_worker() {
    let mut lab = Lab::new();
    for (name, error, reason) in errors() {
        let options = |b: &[u8]| b[12..14] == [8, 0];
        let mut all = vec![
            (14, 0, error.clone()),
            (22, 0, tagged(&error, &[0x88a8, 0x8100])),
        ];
        if options(&error) {
            all.push((14, 24, with_options(&error, 24)));
        }
        for (l3, more, frame) in all {
            assert_eq!(
                super::model::uplink(&lab, &frame),
                reason,
                "{name}: the model"
            );
            let ran = lab.uplink(&frame);
            assert_eq!(ran.counted, [(reason, 1)], "{name}");
            if reason != Reason::SteerIcmp {
                continue;
            }
            assert_eq!(ran.action, XDP_REDIRECT, "{name}");
            let meta = Meta::from_bytes(ran.data[..16].try_into().unwrap()).unwrap();
            assert_eq!(
                (meta.kind, meta.slot, usize::from(meta.l3)),
                (META_ICMP, 0, l3)
            );
            let header = if frame[l3] >> 4 == 4 { 20 + more } else { 40 };
            assert_eq!(
                usize::from(meta.esp),
                l3 + header,
                "{name}: the ICMP header"
            );
            assert!(ran.data.ends_with(&frame));
        }
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn without_a_worker_an_icmp_error_about_esp_is_dropped() {
    let mut lab = Lab::new();
    lab.set_socket(false);
    let ran = lab.uplink(&icmp_error(3, &from_us(OURS_V4, ESP, &esp(1, 1))));
    assert_eq!(
        (ran.action, ran.counted),
        (XDP_DROP, vec![(Reason::NoWorker, 1)])
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn where_xdp_must_not_shed_the_guard_does() {
    let mut lab = Lab::new();
    let mut config = lab.array::<[u8; 32]>("CONFIG").get(&0, 0).unwrap();
    config[24..28].fill(0);
    lab.array::<[u8; 32]>("CONFIG").set(0, config, 0).unwrap();
    for (name, error, reason) in errors() {
        let reason = match reason {
            Reason::ClearIcmp => Reason::PassOther,
            other => other,
        };
        assert_eq!(lab.uplink(&error).counted, [(reason, 1)], "{name}");
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn the_guard_drops_icmp_errors_about_protected_ports_on_every_device_but_lo() {
    let (host, peer) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let end = |ns, name| End {
        ns,
        name,
        addresses: &[],
    };
    veth(end(&host, "up0"), end(&peer, "up1"));
    host.run(|| {
        let mut lab = Lab::new();
        let index = gm_xsk::nic::index("up0").unwrap();
        let mut judged = |error: &[u8], index| {
            let ran = lab.tc_on("gm_tc_guard", error, 0, index);
            (ran.action, ran.counted)
        };
        let passes = (TC_NEXT, vec![]);
        let dropped = (TC_DROP, vec![(Reason::ClearIcmp, 1)]);
        for (name, error, reason) in errors() {
            let expected = if reason == Reason::ClearIcmp {
                &dropped
            } else {
                &passes
            };
            assert_eq!(&judged(&error, index), expected, "{name}");
            assert_eq!(
                &judged(&tagged(&error, &[0x8100]), index),
                expected,
                "{name}"
            );
            // The host's own, that a phone cannot be reached.
            assert_eq!(judged(&error, 0), passes, "{name}: on lo");
        }
        // In fragments it could quote anything; pings may be long.
        let mut first = icmp_error(3, &from_us(OURS_V4, UDP, &udp(1, 1, &[0; 40])));
        first[20] = 0x20;
        assert_eq!(judged(&first, index), dropped);
        first[34] = 8;
        assert_eq!(judged(&first, index), passes);
    });
}
