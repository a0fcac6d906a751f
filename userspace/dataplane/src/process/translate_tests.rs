//! Against sums computed from nothing.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

const LOCAL: [&str; 2] = ["10.0.0.1", "fd00::1"];
const PUBLIC: [&str; 2] = ["198.51.100.7", "2001:db8::7"];
const PHONE: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nat() -> Advertised {
    let pairs = [0, 1].map(|i| (ip(LOCAL[i]), ip(PUBLIC[i])));
    Advertised::new(&pairs)
}

/// Header, and what its pseudo header adds to a sum.
fn header(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> (Vec<u8>, u64) {
    let octets = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let addresses = [octets(src), octets(dst)].concat();
    let pseudo = checksum::add(0, &addresses) + len as u64 + u64::from(proto);
    let mut head = match src {
        IpAddr::V4(_) => {
            let total = ((20 + len) as u16).to_be_bytes();
            let mut head = vec![0x45, 0, total[0], total[1], 0, 9, 0, 0, 61, proto, 0, 0];
            head.extend(addresses);
            let sum = checksum::fold(checksum::add(0, &head));
            head[10..12].copy_from_slice(&sum.to_be_bytes());
            return (head, pseudo);
        }
        IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, 0, proto, 61],
    };
    head[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    head.extend(addresses);
    (head, pseudo)
}

/// Where each protocol keeps its sum.
fn place(proto: u8) -> usize {
    match proto {
        TCP => 16,
        ICMPV6 => 2,
        _ => 6,
    }
}

/// A packet whose sum is for `summed` instead of its own addresses.
fn packet(own: (IpAddr, IpAddr), summed: (IpAddr, IpAddr), proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut l4 = vec![0; if proto == TCP { 20 } else { 8 }];
    l4[..4].copy_from_slice(&[0x13, 0xc4, 0x13, 0xc6]);
    l4.extend_from_slice(payload);
    let at = place(proto);
    l4[at..at + 2].fill(0);
    let (_, pseudo) = header(summed.0, summed.1, proto, l4.len());
    let mut sum = checksum::fold(checksum::add(pseudo, &l4));
    if proto == UDP && sum == 0 {
        sum = 0xffff;
    }
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let (head, _) = header(own.0, own.1, proto, l4.len());
    [head, l4].concat()
}

/// Both ways, both modes: (given, wanted).
fn both(way: Way, mode: Mode, v6: usize, proto: u8, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (local, public, phone) = (ip(LOCAL[v6]), ip(PUBLIC[v6]), ip(PHONE[v6]));
    let ends = |mine| {
        if way == Way::In {
            (phone, mine)
        } else {
            (mine, phone)
        }
    };
    // As the phone's side and as this side have header and sum.
    let theirs = match mode {
        Mode::Trans => packet(ends(local), ends(public), proto, payload),
        Mode::UdpEncTun => packet(ends(public), ends(public), proto, payload),
    };
    let ours = packet(ends(local), ends(local), proto, payload);
    if way == Way::In {
        (theirs, ours)
    } else {
        (ours, theirs)
    }
}

/// The same packet but for the two ways to write a sum of nothing.
fn same(got: &[u8], want: &[u8], at: usize) -> bool {
    let other = |sum: &[u8]| sum == [0, 0] || sum == [0xff, 0xff];
    let same_sum = got[at..at + 2] == want[at..at + 2]
        || (other(&got[at..at + 2]) && other(&want[at..at + 2]));
    same_sum && got[..at] == want[..at] && got[at + 2..] == want[at + 2..]
}

proptest! {
    #[test]
    fn the_sum_is_what_a_full_one_would_be(
        payload in prop::collection::vec(any::<u8>(), 0..80),
        v6 in 0..2_usize,
        proto in prop_oneof![Just(TCP), Just(UDP), Just(UDP_LITE)],
        tunnel in any::<bool>(),
        out in any::<bool>(),
    ) {
        let way = if out { Way::Out } else { Way::In };
        let mode = if tunnel { Mode::UdpEncTun } else { Mode::Trans };
        let (mut given, want) = both(way, mode, v6, proto, &payload);
        nat().apply(way, mode, &mut given);
        let at = [20, 40][v6] + place(proto);
        prop_assert!(same(&given, &want, at), "{given:02x?} {want:02x?}");
        if proto == UDP {
            prop_assert!(given[at..at + 2] != [0, 0]);
        }
    }

    #[test]
    fn noise_is_left_to_the_judge_and_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..90), first in prop_oneof![Just(0x45_u8), Just(0x60), Just(0x4f)], proto in prop_oneof![Just(6_u8), Just(17), Just(58), Just(44)]) {
        if bytes.len() > 60 {
            bytes[0] = first;
            bytes[if first == 0x60 { 6 } else { 9 }] = proto;
            bytes[16..20].copy_from_slice(&[10, 0, 0, 1]);
            bytes[12..16].copy_from_slice(&[10, 0, 0, 1]);
        }
        for mode in [Mode::Trans, Mode::UdpEncTun] {
            for way in [Way::In, Way::Out] {
                nat().apply(way, mode, &mut bytes);
            }
        }
    }
}

#[test]
fn udp_without_a_sum_stays_without() {
    for mode in [Mode::Trans, Mode::UdpEncTun] {
        let (mut given, mut want) = both(Way::In, mode, 0, UDP, b"x");
        given[26..28].fill(0);
        want[26..28].fill(0);
        nat().apply(Way::In, mode, &mut given);
        assert_eq!(given, want);
    }
}

#[test]
fn a_udp_sum_never_becomes_none() {
    // Payloads of which one makes the sum 0xffff, for either direction.
    for tail in 0..=u16::MAX {
        let (mut given, want) = both(Way::In, Mode::Trans, 0, UDP, &tail.to_be_bytes());
        nat().apply(Way::In, Mode::Trans, &mut given);
        assert_eq!(given[26..28], want[26..28], "{tail}");
    }
}

#[test]
fn icmpv6_has_a_pseudo_header_and_icmp_has_none() {
    let (mut given, want) = both(Way::In, Mode::UdpEncTun, 1, ICMPV6, b"echo");
    nat().apply(Way::In, Mode::UdpEncTun, &mut given);
    assert_eq!(given, want);
    let (mut given, want) = both(Way::In, Mode::UdpEncTun, 0, 1, b"echo");
    let sum = given[22..24].to_vec();
    nat().apply(Way::In, Mode::UdpEncTun, &mut given);
    assert_eq!(given[..20], want[..20]);
    assert_eq!(given[22..24], sum);
}

#[test]
fn later_fragments_have_no_sum_and_get_the_address() {
    let (mut given, _) = both(Way::In, Mode::UdpEncTun, 0, UDP, &[7; 40]);
    given[7] = 5;
    let payload = given[20..].to_vec();
    nat().apply(Way::In, Mode::UdpEncTun, &mut given);
    assert_eq!(given[16..20], [10, 0, 0, 1]);
    assert_eq!(given[20..], payload);
}

#[test]
fn in_a_tunnel_the_local_address_is_not_what_phones_may_name() {
    let (_, mut ours) = both(Way::In, Mode::UdpEncTun, 0, UDP, b"x");
    nat().apply(Way::In, Mode::UdpEncTun, &mut ours);
    assert_eq!(ours[16..20], [198, 51, 100, 7]);
}

#[test]
fn other_addresses_and_a_host_without_a_nat_are_left_alone() {
    for mode in [Mode::Trans, Mode::UdpEncTun] {
        let (given, _) = both(Way::In, mode, 0, TCP, b"x");
        let mut bytes = given.clone();
        Advertised::default().apply(Way::In, mode, &mut bytes);
        assert_eq!(bytes, given);
        // Towards this host, but asked about the other end.
        nat().apply(Way::Out, mode, &mut bytes);
        assert_eq!(bytes, given);
    }
    assert_eq!(nat().of(ip(LOCAL[1])), ip(PUBLIC[1]));
    assert_eq!(nat().of(ip(PHONE[0])), ip(PHONE[0]));
}
