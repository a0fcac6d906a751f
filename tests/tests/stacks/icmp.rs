//! ICMP errors about what SAs carry (RFC 4301 6): none leaves or comes in in clear.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use gm_dataplane::Reason;
use gm_esp::Suite;
use gm_tests::checksum;

use crate::lab::{Family, PORT_PS, PORT_UC};
use crate::middle::{P, U, ip_of};
use crate::sockets::{count, fix_ipv4, grows, pass, udp};
use crate::{FAMILIES, through_a_box};

#[test]
#[ignore = "root: namespaces, BPF"]
fn no_icmp_error_about_an_opened_packet_leaves_and_others_do() {
    let (lab, middle) = through_a_box();
    for family in FAMILIES {
        lab.install(Suite::NullAesGcm, family);
        let (p, u) = family.addresses();
        let uc = lab.u.ns.run(|| udp(u, PORT_UC));
        let errors = Arc::new(Mutex::new(0));
        let seen = errors.clone();
        middle.set(move |leg, frame| {
            let icmp = ip_of(&frame).is_some_and(|ip| match ip.v6 {
                true => ip.proto == 58 && frame[ip.l4] < 128,
                false => ip.proto == 1 && frame[ip.l4] == 3,
            });
            *seen.lock().unwrap() += usize::from(leg == P && icmp);
            vec![(1 - leg, frame)]
        });
        // Nobody has port_ps open: the kernel would say so, and quote what came out of ESP.
        let before = count(&lab.p.plane, Reason::OutNoSa);
        uc.send_to(b"to nobody", (p, PORT_PS)).unwrap();
        grows(&lab.p.plane, Reason::OutNoSa, before, 1);
        assert_eq!(*errors.lock().unwrap(), 0);
        // About cleartext to a port that nobody protects it may, and it arrives.
        let clear = lab.u.ns.run(|| udp(u, 12_345));
        clear.connect((p, 5999)).unwrap();
        clear.send(b"to nobody").unwrap();
        let refused = clear.recv(&mut [0; 10]).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(*errors.lock().unwrap(), 1);
        middle.clear();
    }
}

/// A datagram of protected traffic as an ICMP error in clear would quote it, from the end that
/// the datagram has not reached.
fn unreachable(family: Family, macs: &[u8]) -> Vec<u8> {
    let (p, u) = family.addresses();
    let octets = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let quoted_udp = [PORT_UC, PORT_PS, 20, 0].map(u16::to_be_bytes).concat();
    let head = |from, to, len: usize, proto: u8| {
        let mut ip = match family {
            Family::V4 => vec![0x45, 0, 0, (20 + len) as u8, 0, 7, 0, 0, 64, proto, 0, 0],
            Family::V6 => vec![0x60, 0, 0, 0, 0, len as u8, proto, 64],
        };
        ip.extend(octets(from));
        ip.extend(octets(to));
        if family == Family::V4 {
            fix_ipv4(&mut ip);
        }
        ip
    };
    // Port unreachable.
    let (kind, code, proto, ether) = match family {
        Family::V4 => (3, 3, 1, [8, 0]),
        Family::V6 => (1, 4, 58, [0x86, 0xdd]),
    };
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 0, 0];
    icmp.extend(head(u, p, 20, 17));
    icmp.extend(quoted_udp);
    icmp.extend([7; 12]);
    let mut summed = icmp.clone();
    if family == Family::V6 {
        let len = (icmp.len() as u32).to_be_bytes();
        summed.extend([octets(p), octets(u), len.to_vec(), vec![0, 0, 0, proto]].concat());
    }
    let sum = checksum(&summed);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    [macs, &ether, &head(p, u, icmp.len(), proto), &icmp].concat()
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn an_icmp_error_in_clear_about_protected_traffic_does_not_reach_the_socket() {
    let (lab, middle) = through_a_box();
    for family in FAMILIES {
        lab.install(Suite::HmacSha1AesCbc, family);
        let (p, u) = family.addresses();
        let (ps, uc) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.u.ns.run(|| udp(u, PORT_UC)),
        );
        pass(&uc, &ps, 100);
        // Connected, a socket would hear of it.
        uc.connect((p, PORT_PS)).unwrap();
        let mut macs = lab
            .u
            .ns
            .run(|| gm_xsk::nic::mac(crate::NAMES[1]).unwrap())
            .to_vec();
        macs.extend(lab.p.ns.run(|| gm_xsk::nic::mac(crate::NAMES[0]).unwrap()));
        let before = count(&lab.u.plane, Reason::ClearIcmp);
        for n in 0..3 {
            middle.inject(U, &unreachable(family, &macs));
            grows(&lab.u.plane, Reason::ClearIcmp, before + n, 1);
        }
        for n in 0..3u8 {
            uc.send(&[n; 30]).expect("a stranger's word is believed");
            let mut got = [0; 100];
            assert_eq!(ps.recv(&mut got).unwrap(), 30);
        }
    }
}

/// The same is heard where nothing is protected: the error is a good one.
#[test]
#[ignore = "root: namespaces"]
fn the_same_icmp_error_is_heard_where_nobody_protects_anything() {
    let (lab, middle) = through_a_box();
    lab.u.plane.shutdown().unwrap();
    for family in FAMILIES {
        let (p, u) = family.addresses();
        let uc = lab.u.ns.run(|| udp(u, PORT_UC));
        uc.connect((p, PORT_PS)).unwrap();
        let mut macs = lab
            .u
            .ns
            .run(|| gm_xsk::nic::mac(crate::NAMES[1]).unwrap())
            .to_vec();
        macs.extend(lab.p.ns.run(|| gm_xsk::nic::mac(crate::NAMES[0]).unwrap()));
        middle.inject(U, &unreachable(family, &macs));
        let heard = uc.recv(&mut [0; 10]).unwrap_err();
        assert_eq!(
            heard.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{family:?}"
        );
    }
}
