//! UDP datagrams of 1 to 65 000 bytes, both ways, in both modes and IP versions.

use gm_dataplane::Reason;
use gm_esp::{Mode, Suite};

use crate::lab::{self, Family, Lab, PORT_PC, PORT_PS, PORT_UC, PORT_US};
use crate::sockets::{pass, udp};
use crate::{FAMILIES, pause};

/// Around each place where a datagram becomes something else: blocks of padding, the MTU with
/// each suite's overhead, two and three fragments, gm0's MTU, and the largest.
fn sizes() -> Vec<usize> {
    let mut sizes: Vec<usize> = (1..=34).collect();
    sizes.extend(1384..=1476);
    sizes.extend(2856..=2966);
    sizes.extend((3440..=3500).step_by(2));
    sizes.extend([4095, 4096, 8192, 16_384, 32_767, 50_000, 64_999, 65_000]);
    sizes
}

/// The places themselves, for suites whose overhead is another one's.
fn fewer() -> Vec<usize> {
    let edges = [
        1, 2, 3, 15, 16, 17, 1400, 1424, 1432, 1448, 1472, 1473, 2960, 3478, 3479,
    ];
    edges.into_iter().chain([20_000, 65_000]).collect()
}

/// Each size each way in every suite, between data planes that stay; ends with the counters of
/// each right.
fn all_cross(family: Family, mode: Mode) {
    let lab = Lab::new(None);
    let (p, u) = family.addresses();
    let (ps, pc) = lab.p.ns.run(|| (udp(p, PORT_PS), udp(p, PORT_PC)));
    let (us, uc) = lab.u.ns.run(|| (udp(u, PORT_US), udp(u, PORT_UC)));
    let mut carried = 0;
    for suite in Suite::every() {
        let sets = lab.install_as(suite, family, mode);
        let some = [Suite::HmacSha1AesCbc, Suite::NullAesGcm].contains(&suite);
        let sizes = if some { sizes() } else { fewer() };
        for (n, len) in sizes.iter().enumerate() {
            pass(&uc, &ps, *len);
            pass(&ps, &uc, *len);
            pause(n);
        }
        // The other pair of the set's SAs.
        for len in [1, 1450, 65_000] {
            pass(&us, &pc, len);
            pass(&pc, &us, len);
        }
        carried += sizes.len() as u64 + 3;
        for (side, set) in [&lab.p, &lab.u].into_iter().zip(sets) {
            let stats = side.plane.stats().unwrap();
            let what = format!("{suite} {family:?} {mode:?}: {:?}", lab::named(&stats));
            for reason in [Reason::Ok, Reason::Sealed] {
                assert_eq!(stats.get(reason), carried, "{what}");
            }
            let drops = Reason::ALL
                .iter()
                .filter(|r| r.action() == gm_dataplane::Action::Drop);
            let dropped: u64 = drops.map(|r| stats.get(*r)).sum();
            assert_eq!(dropped, 0, "{what}");
            assert_eq!(stats.workers[0].frames_leaked, 0, "{what}");
            side.plane.remove(set).unwrap();
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn datagrams_of_1_to_65000_bytes_cross_in_transport_mode() {
    for family in FAMILIES {
        all_cross(family, Mode::Trans);
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn datagrams_of_1_to_65000_bytes_cross_in_udp_encapsulated_tunnels() {
    for family in FAMILIES {
        all_cross(family, Mode::UdpEncTun);
    }
}
