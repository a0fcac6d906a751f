//! An SA says what it was made of, however it keeps it.

use super::*;
use crate::keys::{Ck, Ik};

fn every_spec() -> impl Iterator<Item = SaSpec> {
    let v4 = |n| IpAddr::from([192, 0, 2, n]);
    let v6 = |n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
    let outers = [
        None,
        Some((v4(7), v4(8), None, Some(4500))),
        Some((v6(7), v6(8), Some(4501), None)),
    ];
    let inners = [(v4(1), v4(2)), (v6(1), v6(2))];
    let ports = [
        (None, None),
        (Some(5060), None),
        (None, Some(0)),
        (Some(1), Some(2)),
    ];
    let all = inners
        .into_iter()
        .flat_map(move |i| outers.map(move |o| (i, o)));
    let all = all.flat_map(move |(i, o)| ports.map(move |p| (i, o, p)));
    let all = all.flat_map(|(i, o, p)| Suite::every().map(move |s| (i, o, p, s)));
    all.map(|((src, dst), outer, (src_port, dst_port), suite)| SaSpec {
        spi: 0xffff_fffe,
        mode: outer.map_or(Mode::Trans, |_| Mode::UdpEncTun),
        selector: Selector {
            src,
            dst,
            src_port,
            dst_port,
            proto: if src_port == Some(1) {
                SelProto::Any
            } else {
                SelProto::UdpTcp
            },
        },
        suite,
        outer: outer.map(|(src, dst, sport, dport)| Outer {
            src,
            dst,
            sport,
            dport,
        }),
        esn: dst_port.is_none(),
        replay_window: if src_port.is_none() { MAX_SIZE } else { 33 },
    })
}

fn every_address() -> impl Iterator<Item = IpAddr> {
    let v4 = |n| IpAddr::from([192, 0, 2, n]);
    let v6 = |n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
    // IPv6 that begins as an IPv4 address does, and a mapped one.
    let near = [
        IpAddr::from([0xc000, 0x0201, 0, 0, 0, 0, 0, 0]),
        IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0201]),
    ];
    (1..9).map(v4).chain((1..9).map(v6)).chain(near)
}

/// Traffic that is the selector's, or nearly.
fn flows(spec: &SaSpec) -> Vec<InnerFlow> {
    let s = spec.selector;
    let own = (s.src_port.unwrap_or(7), s.dst_port.unwrap_or(7));
    let ports = [
        Some(own),
        None,
        Some((own.0 + 1, own.1)),
        Some((own.0, own.1 + 1)),
        Some((0, 0)),
    ];
    let mut all = Vec::new();
    for ports in ports {
        for proto in [UDP, TCP, 1] {
            for other in every_address() {
                let flow = |src, dst| InnerFlow {
                    src,
                    dst,
                    proto,
                    ports,
                };
                all.extend([flow(s.src, s.dst), flow(other, s.dst), flow(s.src, other)]);
            }
        }
    }
    all
}

/// The same the other way.
fn back(spec: SaSpec) -> SaSpec {
    let (s, o) = (spec.selector, spec.outer);
    let selector = Selector {
        src: s.dst,
        dst: s.src,
        ..s
    };
    let outer = o.map(|o| Outer {
        src: o.dst,
        dst: o.src,
        ..o
    });
    SaSpec {
        selector,
        outer,
        ..spec
    }
}

#[test]
fn an_sa_is_what_it_was_made_of_both_ways_with_one_key() {
    for spec in every_spec() {
        let keys = EspKeys::expand(
            spec.suite,
            &Ik::from_bytes([1; 16]),
            &Ck::from_bytes([2; 16]),
        );
        let key = SaKey::new(&keys, &spec).ok().unwrap();
        for spec in [spec, back(spec)] {
            let sa = Sa::with_key(spec, &key).ok().unwrap();
            assert_eq!(sa.spec(), spec);
            assert_eq!(sa.destination(), spec.destination());
            assert_eq!(sa.source(), spec.source());
            for addr in every_address() {
                assert_eq!(sa.is_to(&addr), spec.destination() == addr);
            }
            for flow in flows(&spec) {
                assert_eq!(sa.matches(&flow), spec.selector.matches(&flow), "{flow:?}");
            }
        }
    }
}

#[test]
fn a_key_is_for_its_addresses_only() {
    for spec in every_spec() {
        let keys = EspKeys::expand(
            spec.suite,
            &Ik::from_bytes([1; 16]),
            &Ck::from_bytes([2; 16]),
        );
        let key = SaKey::new(&keys, &spec).ok().unwrap();
        assert!(key.is_for(&spec) && key.is_for(&back(spec)));
        let mut other = spec;
        other.selector.src = other.selector.dst;
        assert!(!key.is_for(&other));
        let refused = Sa::with_key(other, &key).err();
        assert!(matches!(refused, Some(SaError::Addresses)));
        // One end turned is neither direction.
        if let Some(outer) = spec.outer {
            let mut other = spec;
            other.outer = Some(Outer {
                src: outer.dst,
                dst: outer.src,
                ..outer
            });
            assert!(!key.is_for(&other));
        }
    }
}
