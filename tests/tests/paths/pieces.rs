//! A phone whose stack fragments before it encapsulates: each packet of the tunnel carries a
//! piece. Made by hand, because gmesp itself fragments what it has sealed.

use std::net::IpAddr;

use gm_dataplane::Reason;
use gm_engines::{Job, Key, Transform};
use gm_esp::{Mode, Suite, fragment};
use gm_tests::checksum;
use gm_xsk::LinkSocket;

use crate::FAMILIES;
use crate::lab::{Family, Lab, NAMES, PORT_PS, PORT_UC, keys};
use crate::sockets::{count, grows, udp};

const SUITE: Suite = Suite::HmacSha1Null;

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// An IP packet with UDP.
fn packet(ends: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let addresses = [octets(ends.0), octets(ends.1)].concat();
    let len = (8 + payload.len()) as u16;
    let mut udp = [ports.0, ports.1, len, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    let pseudo = [17u16.to_be_bytes(), len.to_be_bytes()].concat();
    let sum = checksum(&[&addresses[..], &pseudo, &udp].concat());
    udp[6..8].copy_from_slice(&sum.max(1).to_be_bytes());
    let mut ip = match ends.0 {
        IpAddr::V4(_) => {
            let mut ip = vec![0x45, 0, 0, 0, 0, 77, 0, 0, 64, 17, 0, 0];
            ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
            ip.extend(&addresses);
            let sum = checksum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            return [ip, udp].concat();
        }
        IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, 0, 17, 64],
    };
    ip[4..6].copy_from_slice(&len.to_be_bytes());
    ip.extend(addresses);
    [ip, udp].concat()
}

/// A tunnel's packet with `inner` in it.
fn tunnelled(ends: (IpAddr, IpAddr), spi: u32, seq: u32, inner: &[u8]) -> Vec<u8> {
    let next = if ends.0.is_ipv4() { 4 } else { 41 };
    let pad = (inner.len() + 2).next_multiple_of(4) - inner.len() - 2;
    let mut esp = [spi.to_be_bytes(), seq.to_be_bytes()].concat();
    esp.extend(inner);
    esp.extend((1..=pad).map(|n| n as u8));
    esp.extend([pad as u8, next]);
    esp.resize(esp.len() + 12, 0);
    let keys = keys(SUITE);
    let integrity = keys.integrity().unwrap();
    let key = Key::new(Transform::HmacSha1Null, integrity, &[], [0; 4]).unwrap();
    let mut jobs = [Job {
        key: &key,
        esp: &mut esp,
        seq_hi: None,
        ok: false,
    }];
    gm_engines::reference().seal(&mut jobs);
    assert!(jobs[0].ok);
    packet(ends, (4500, 4500), &esp)
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_datagram_that_was_fragmented_before_encapsulation_reaches_its_socket() {
    for family in FAMILIES {
        let lab = Lab::new(None);
        lab.install_as(SUITE, family, Mode::UdpEncTun);
        let (p, u) = family.addresses();
        let ps = lab.p.ns.run(|| udp(p, PORT_PS));
        let rows = lab.p.plane.list();
        let row = rows
            .iter()
            .find(|r| r.spec.selector.dst_port == Some(PORT_PS))
            .unwrap();
        let wire = lab.u.ns.run(|| LinkSocket::bind(NAMES[1]).unwrap());
        let kind: u16 = if family == Family::V4 { 0x0800 } else { 0x86dd };
        let mut link = [lab.p.ns.mac(NAMES[0]), lab.u.ns.mac(NAMES[1])].concat();
        link.extend(kind.to_be_bytes());
        let mut seq = 0;
        let mut send = |ports, payload: &[u8]| {
            let whole = packet((u, p), ports, payload);
            let mut pieces = Vec::new();
            let each = |head: &[u8], payload: &[u8]| pieces.push([head, payload].concat());
            fragment::split(&whole, 1280, 77 + seq, each).unwrap();
            // The last one first.
            for piece in pieces.iter().rev() {
                seq += 1;
                let sealed = tunnelled((u, p), row.spec.spi, seq, piece);
                wire.send(&[&link[..], &sealed].concat()).unwrap();
            }
            pieces.len() as u64
        };
        let mut got = vec![0; 65_536];
        let mut stored = 0;
        for len in [1300, 2000, 5000, 20_000] {
            let payload: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            stored += send((PORT_UC, PORT_PS), &payload) - 1;
            let (n, source) = ps.recv_from(&mut got).unwrap();
            assert!(got[..n] == payload, "{len} bytes");
            assert_eq!(source, (u, PORT_UC).into());
        }
        assert_eq!(count(&lab.p.plane, Reason::Ok), 4);
        assert_eq!(count(&lab.p.plane, Reason::Fragment), stored);
        // Together they are not this SA's traffic.
        send((PORT_UC, PORT_PS + 1), &[1; 3000]);
        grows(&lab.p.plane, Reason::SelectorMismatch, 0, 1);
        let stats = lab.p.plane.stats().unwrap();
        assert_eq!(stats.workers[0].frames_leaked, 0);
    }
}
