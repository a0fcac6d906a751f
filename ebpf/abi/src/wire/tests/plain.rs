//! The short ways say what the long way says, or nothing.

use super::*;

/// [`Bytes`] that end behind the first `N`.
fn head<const N: usize>(b: &[u8]) -> Option<&[u8]> {
    b.get(..N)
}

fn plain_esp(b: &[u8]) -> Option<PlainEsp> {
    let v4 = head::<PLAIN_ESP_V4>(b).and_then(|head| plain_esp_v4(&head, b.len(), 4500));
    v4.or_else(|| head::<PLAIN_ESP_V6>(b).and_then(|head| plain_esp_v6(&head, b.len(), 4500)))
}

fn plain_flow(b: &[u8]) -> Option<PlainFlow> {
    let v4 = head::<PLAIN_FLOW_V4>(b).and_then(|head| plain_flow_v4(&head));
    v4.or_else(|| head::<PLAIN_FLOW_V6>(b).and_then(|head| plain_flow_v6(&head)))
}

fn check_esp(b: &[u8]) -> Option<PlainEsp> {
    let plain = plain_esp(b)?;
    let p = ip(b);
    let (spi, seq, esp) = (plain.spi, plain.seq, plain.esp);
    let expected = if plain.in_udp {
        Class::UdpEsp { spi, seq, esp }
    } else {
        Class::Esp { spi, seq, esp }
    };
    assert_eq!(classify(b, &p, XDP), expected, "{b:02x?}");
    assert_eq!(plain.dst, words_of(&p.dst), "{b:02x?}");
    Some(plain)
}

fn check_flow(b: &[u8]) -> Option<PlainFlow> {
    let flow = plain_flow(b)?;
    let p = ip(b);
    let words = (words_of(&p.src), words_of(&p.dst));
    assert_eq!((flow.src, flow.dst), words, "{b:02x?}");
    assert_eq!(flow.proto, b[if p.v6 { 6 } else { 9 }]);
    if matches!(flow.proto, TCP | UDP) {
        assert_eq!(Some(flow.ports()), p.ports, "{b:02x?}");
        assert!(!p.hidden && p.frag.is_none(), "{b:02x?}");
    } else if !is_extension(flow.proto) || !p.v6 {
        assert_eq!((p.ports, p.hidden, p.frag), (None, false, None));
        assert_eq!(flow.start, b[p.l4..p.l4 + 4], "{b:02x?}");
    }
    Some(flow)
}

#[test]
fn plain_packets_are_read() {
    for (ip, in_udp) in [
        (v4(ESP, &esp(12)), false),
        (v6(ESP, &esp(40)), false),
        (v4(UDP, &udp(1, 4500, &esp(12))), true),
        (v6(UDP, &udp(4500, 4500, &esp(12))), true),
    ] {
        let plain = check_esp(&ip).expect("plain");
        assert_eq!((plain.spi, plain.seq, plain.in_udp), (SPI, SEQ, in_udp));
        assert!(check_flow(&ip).is_some());
        // What the link layer has added behind it does not matter.
        let mut longer = ip.clone();
        longer.extend([0; 7]);
        assert_eq!(check_esp(&longer), Some(plain));
    }
    let flow = check_flow(&v4(TCP, &[0x13, 0xf0, 0x13, 0xc4])).expect("plain");
    assert_eq!(flow.ports(), (5104, 5060));
    assert_eq!(flow.src[0], 0);
}

#[test]
fn what_is_not_plain_is_left_to_the_long_way() {
    let short = v4(ESP, &esp(11));
    let marker = v4(UDP, &udp(1, 4500, &[0; 20]));
    let elsewhere = v4(UDP, &udp(4500, 5060, &esp(12)));
    let options = v4_frag(ESP, 4, 0x4000, &esp(12));
    let first = v4_frag(ESP, 0, 0x2000, &esp(12));
    let chained = v6(DESTINATION, &extension(ESP, 0, &esp(12)));
    for b in [&short, &marker, &elsewhere, &options, &first, &chained] {
        assert_eq!(check_esp(b), None, "{b:02x?}");
    }
    for b in [&options, &first, &v4(TCP, &[1, 2, 3])] {
        assert_eq!(check_flow(b), None, "{b:02x?}");
    }
    // Without an encapsulation port nothing in UDP is ESP.
    let b = v4(UDP, &udp(0, 0, &esp(12)));
    assert_eq!(plain_esp_v4(&&b[..PLAIN_ESP_V4], b.len(), 0), None);
}

#[test]
fn every_truncation_of_a_plain_packet() {
    for whole in [v4(UDP, &udp(1, 4500, &esp(16))), v6(ESP, &esp(12))] {
        for length in 0..=whole.len() {
            let plain = check_esp(&whole[..length]);
            assert_eq!(plain.is_some(), length == whole.len(), "{length}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16384))]

    #[test]
    fn the_short_ways_agree_with_the_long_one(b in noise()) {
        for at in [14, 18] {
            if let Some(b) = b.get(at..) {
                check_esp(b);
                check_flow(b);
            }
        }
    }
}
