//! What stands before and behind: tags, IPv4 options, IPv6 extension headers.

use gm_abi::maps::{MODE_TRANS, MODE_UDP_ENC_TUN, Meta};
use gm_abi::verdict::Reason;

use super::frames::*;
use super::lab::*;

const TAGS: [&[u16]; 5] = [
    &[],
    &[0x8100],
    &[0x88a8],
    &[0x88a8, 0x8100],
    &[0x8100, 0x8100],
];

fn lab() -> (Lab, u32, u32) {
    let mut lab = Lab::new();
    let four = Sa::of_slot(1, 0, OURS_V4, MODE_TRANS);
    let six = Sa::of_slot(2, 0, OURS_V6, MODE_UDP_ENC_TUN);
    lab.install(1, four);
    lab.install(2, six);
    (lab, four.spi, six.spi)
}

/// Where the worker is told to find the ESP header; the number stands there.
fn steered(lab: &mut Lab, frame: &[u8], spi: u32) -> usize {
    let ran = lab.uplink(frame);
    assert_eq!(ran.action, XDP_REDIRECT, "{:?}", ran.counted);
    let meta = Meta::from_bytes(ran.data[..16].try_into().unwrap()).unwrap();
    let at = usize::from(meta.esp);
    assert_eq!(frame[at..at + 4], spi.to_be_bytes());
    at - usize::from(meta.l3)
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn esp_and_cleartext_are_found_behind_up_to_two_tags() {
    let (mut lab, four, six) = lab();
    for tags in TAGS {
        let raw = tagged(&v4(ESP, &esp(four, 1)), tags);
        assert_eq!(steered(&mut lab, &raw, four), 20, "{tags:x?}");
        let in_udp = tagged(&v6(UDP, &udp(1, ENCAP_PORT, &esp(six, 1))), tags);
        assert_eq!(steered(&mut lab, &in_udp, six), 48, "{tags:x?}");
        let clear = tagged(&v4(UDP, &udp(1, PROTECTED, b"x")), tags);
        let counted = [(Reason::CleartextProtected, 1)];
        assert_eq!(lab.uplink(&clear).counted, counted, "{tags:x?}");
        assert_eq!(lab.tc("gm_tc_guard", &clear, 0).counted, counted);
        let out = frame(OURS_V4, THEIRS_V4, UDP, 0, &udp(PROTECTED, 1, b"x"));
        let ran = lab.tc("gm_tc_egress", &tagged(&out, tags), 0);
        assert_eq!(ran.counted, [(Reason::SteerOutbound, 1)], "{tags:x?}");
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn ipv4_options_are_stepped_over() {
    let (mut lab, four, _) = lab();
    let raw = v4(ESP, &esp(four, 1));
    let clear = v4(TCP, &tcp(1, PROTECTED));
    let other = v4(TCP, &tcp(1, 5060));
    for options in (0..=40).step_by(4) {
        let at = steered(&mut lab, &with_options(&raw, options), four);
        assert_eq!(at, 20 + options);
        let clear = with_options(&clear, options);
        let counted = [(Reason::CleartextProtected, 1)];
        assert_eq!(lab.uplink(&clear).counted, counted, "{options}");
        assert_eq!(lab.tc("gm_tc_guard", &clear, 0).counted, counted);
        let other = with_options(&other, options);
        assert_eq!(lab.uplink(&other).counted, [(Reason::PassOther, 1)]);
        // Options that reach beyond the packet.
        let mut cut = with_options(&raw, options)[..34].to_vec();
        cut[16..18].copy_from_slice(&20u16.to_be_bytes());
        let reason = if options == 0 {
            Reason::Malformed
        } else {
            super::model::uplink(&lab, &cut)
        };
        assert_eq!(lab.uplink(&cut).counted, [(reason, 1)], "{options}");
        assert_ne!(reason, Reason::SteerEsp);
    }
}

/// `n` extension headers of the kinds that may stand before ESP.
fn behind(n: usize, last: u8, rest: &[u8]) -> Vec<u8> {
    const ROUTING: u8 = 43;
    let kinds = [
        0,
        DESTINATION,
        ROUTING,
        DESTINATION,
        DESTINATION,
        DESTINATION,
    ];
    let mut b = rest.to_vec();
    for i in (0..n).rev() {
        let kind = |i: usize| kinds.get(i).copied().unwrap_or(DESTINATION);
        let next = if i + 1 == n { last } else { kind(i + 1) };
        b = extension(next, &b);
    }
    v6(if n == 0 { last } else { kinds[0] }, &b)
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn ipv6_extension_headers_before_esp_are_stepped_over() {
    let (mut lab, _, six) = lab();
    let mut raw = Sa::of_slot(3, 0, OURS_V6, MODE_TRANS);
    raw.window = Some((10, 64, [0; 4]));
    lab.install(3, raw);
    for n in 0..=6 {
        let frame = behind(n, UDP, &udp(1, ENCAP_PORT, &esp(six, 1)));
        assert_eq!(steered(&mut lab, &frame, six), 48 + 8 * n);
        let frame = behind(n, ESP, &esp(raw.spi, 11));
        assert_eq!(steered(&mut lab, &frame, raw.spi), 40 + 8 * n);
        // What is sealed behind ESP (more options, say) is no business of XDP.
        let mut sealed = esp(raw.spi, 12);
        sealed[8..16].copy_from_slice(&[UDP, 0, 1, 4, 0, 0, 0, 0]);
        steered(&mut lab, &behind(n, ESP, &sealed), raw.spi);
        let clear = behind(n, TCP, &tcp(1, PROTECTED));
        let counted = [(Reason::CleartextProtected, 1)];
        assert_eq!(lab.uplink(&clear).counted, counted, "{n}");
        assert_eq!(lab.tc("gm_tc_guard", &clear, 0).counted, counted, "{n}");
    }
}

/// Six are walked; what more of them hide ends at every program.
#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_chain_that_is_too_long_hides_nothing() {
    let (mut lab, _, _) = lab();
    let raw = Sa::of_slot(3, 0, OURS_V6, MODE_TRANS);
    lab.install(3, raw);
    for n in [7, 8, 12] {
        for (last, rest) in [
            (ESP, esp(raw.spi, 1)),
            (UDP, udp(1, PROTECTED, b"x")),
            (TCP, tcp(1, 5060)),
        ] {
            let frame = behind(n, last, &rest);
            let counted = [(Reason::Malformed, 1)];
            let ran = lab.uplink(&frame);
            assert_eq!((ran.action, &ran.counted[..]), (XDP_DROP, &counted[..]));
            let ran = lab.tc("gm_tc_guard", &frame, 0);
            assert_eq!((ran.action, &ran.counted[..]), (TC_DROP, &counted[..]));
            // And the other way.
            let out = [&frame[..22], &frame[38..54], &frame[22..38], &frame[54..]].concat();
            let ran = lab.tc("gm_tc_egress", &out, 0);
            let counted = [(Reason::OutMalformed, 1)];
            assert_eq!((ran.action, &ran.counted[..]), (TC_DROP, &counted[..]));
        }
    }
}
