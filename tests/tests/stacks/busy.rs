//! Many that send, and one that does not read.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpListener;

use gm_dataplane::{Direction, Reason};
use gm_esp::{Mode, Suite};

use crate::lab::{Family, Lab, PORT_PC, PORT_PS, PORT_UC, PORT_US};
use crate::sockets::{connect, pass, udp};
use crate::traffic::{Traffic, during};

#[test]
#[ignore = "root: namespaces, BPF"]
fn many_threads_send_over_one_sa_and_each_packet_has_its_number() {
    let lab = Lab::new(None);
    let sets = lab.install(Suite::NullAesGcm, Family::V4);
    let (p, u) = Family::V4.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    let traffic = Traffic::default();
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| traffic.send(&uc, &ps));
        }
        s.spawn(|| traffic.receive(&ps));
        traffic.wait(10_000);
        traffic.stop();
    });
    let rows = lab.p.plane.list();
    let row = rows
        .iter()
        .find(|r| r.set == sets[0] && r.spec.selector.dst_port == Some(PORT_PS))
        .unwrap();
    assert_eq!((row.packets, row.top), (traffic.came(), traffic.came()));
    assert_eq!(row.drops, []);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_stack_that_does_not_read_costs_its_own_packets_only() {
    let lab = Lab::new(None);
    let (p, u) = Family::V4.addresses();
    lab.install(Suite::NullAesGcm, Family::V4);
    let (p6, u6) = Family::V6.addresses();
    lab.install(Suite::NullAesGcm, Family::V6);
    let lazy = lab.p.ns.run(|| udp(p, PORT_PC));
    let us = lab.u.ns.run(|| udp(u, PORT_US));
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p6, PORT_PS)),
        lab.u.ns.run(|| udp(u6, PORT_UC)),
    );
    // A connection whose other end never reads: the window closes, and stays so.
    let listener = lab.p.ns.run(|| TcpListener::bind((p, PORT_PS)).unwrap());
    let mut stuck = lab.u.ns.run(|| connect((u, PORT_UC), (p, PORT_PS)));
    let (_never_read, _) = listener.accept().unwrap();
    stuck.set_nonblocking(true).unwrap();
    during(&uc, &ps, |wait| {
        let lumps = [7; 60_000];
        for round in 0..50 {
            let _ = stuck.write(&lumps);
            for _ in 0..100 {
                us.send_to(&lumps[..1000], (p, PORT_PC)).unwrap();
            }
            wait(20);
            if round % 10 == 0 {
                us.send_to(&lumps, (p, PORT_PC)).unwrap();
            }
        }
    });
    // What a socket does not take is the kernel's to drop; what is there is still good.
    let mut got = [0; 65_536];
    assert_eq!(lazy.recv(&mut got).unwrap(), 1000);
    for side in [&lab.p, &lab.u] {
        let stats = side.plane.stats().unwrap();
        assert_eq!(stats.get(Reason::NoFrame), 0);
        assert_eq!(stats.workers[0].frames_leaked, 0);
    }
    pass(&uc, &ps, 65_000);
}

/// What would be known of an IV from those before it, were it a counter or the last block sent
/// (CVE-2022-46397 was the first; the second is what TLS 1.0 did).
#[test]
#[ignore = "root: namespaces, BPF"]
fn the_ivs_of_cbc_tell_nothing_of_each_other() {
    const PACKETS: usize = 4096;
    let mut all = HashSet::new();
    for (suite, len) in [
        (Suite::HmacSha1AesCbc, 16),
        (Suite::HmacSha1DesEde3Cbc, 8),
        (Suite::HmacSha1AesCbc, 16),
    ] {
        // The same keys again, in a process that has begun anew.
        let lab = Lab::new(None);
        lab.install_as(suite, Family::V4, Mode::Trans);
        let (p, u) = Family::V4.addresses();
        let (ps, uc) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.u.ns.run(|| udp(u, PORT_UC)),
        );
        let (tap, captured) = crossbeam::channel::unbounded();
        lab.u.plane.tap(Some(tap)).unwrap();
        for _ in 0..PACKETS {
            pass(&uc, &ps, 20);
        }
        let sealed: Vec<Vec<u8>> = captured
            .try_iter()
            .filter(|f| f.direction == Direction::Out)
            .map(|f| f.frame)
            .collect();
        assert_eq!(sealed.len(), PACKETS);
        let ivs: Vec<&[u8]> = sealed.iter().map(|f| &f[42..42 + len]).collect();
        let word =
            |iv: &[u8]| u128::from_be_bytes(std::array::from_fn(|i| *iv.get(i).unwrap_or(&0)));
        let differs = |a: u128, b: u128| (a ^ b, a.wrapping_sub(b));
        let (mut xors, mut steps) = (HashSet::new(), HashSet::new());
        for (n, iv) in ivs.iter().enumerate() {
            assert!(all.insert(word(iv)), "an IV comes twice");
            if n > 0 {
                let (xor, step) = differs(word(iv), word(ivs[n - 1]));
                assert!(xors.insert(xor) && steps.insert(step), "a constant step");
                // HMAC-SHA-1-96 follows the last block.
                let before = &sealed[n - 1];
                let last = &before[before.len() - 12 - len..before.len() - 12];
                assert_ne!(iv, &last, "the last block goes on as the IV");
            }
        }
        // Each bit is set in half of them, and changes in half of them: within seven times the
        // deviation that chance has, which chance exceeds once in 10^11 times.
        let half = PACKETS as f64 / 2.0;
        let most = 7.0 * (PACKETS as f64).sqrt() / 2.0;
        let bit = |iv: &[u8], n: usize| iv[n / 8] >> (n % 8) & 1;
        for n in 0..8 * len {
            let set = ivs.iter().filter(|iv| bit(iv, n) == 1).count();
            let changes = ivs.windows(2).filter(|w| bit(w[0], n) != bit(w[1], n));
            for seen in [set, changes.count()] {
                assert!((seen as f64 - half).abs() < most, "bit {n}: {seen}");
            }
        }
    }
}
