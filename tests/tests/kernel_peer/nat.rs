//! Phones behind a NAT: the kernel's ESP in UDP through nftables' masquerade, to gmespd.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gm_dataplane::Reason;
use gm_esp::{Mode, Suite};
use gm_tests::netns::NetNs;

use crate::gm::{Gmespd, PORT_PS, WAIT};
use crate::lab::NAMES;
use crate::masquerade::{Masquerade, P_CSCF, PUBLIC, private};
use crate::set::{ENCAP, End, Set};
use crate::sockets::{connect, pass, silent, udp};
use crate::xfrm::Kernel;

/// A phone of the kernel's.
struct Phone {
    kernel: Kernel,
    set: Set,
    uc: UdpSocket,
}

/// gmespd, a NAT, and the phones behind it.
struct Nat {
    // It ends before its namespace.
    gm: Gmespd,
    p: NetNs,
    nat: Masquerade,
    phones: Vec<Phone>,
    ps: UdpSocket,
}

impl Nat {
    /// Two phones, each in a network of its own; nobody has sent anything.
    fn new() -> Nat {
        let [p, a, b] = [(); 3].map(|()| NetNs::new().unwrap());
        let nat = Masquerade::between(&p, &[&a, &b]);
        let gm = Gmespd::start(&p, End::PCscf, NAMES[0], &[P_CSCF.into()]);
        let suites = [Suite::HmacSha1AesCbc, Suite::NullAesGcm];
        let phones = [a, b]
            .into_iter()
            .zip(suites)
            .zip(1..)
            .map(|((ns, suite), n)| {
                let addresses: [IpAddr; 2] = [P_CSCF.into(), PUBLIC.into()];
                let set = Set {
                    private: private(n).into(),
                    ..Set::new(n.into(), suite, Mode::UdpEncTun, addresses)
                };
                let kernel = Kernel::new(ns, End::Ue);
                kernel.add(std::slice::from_ref(&set));
                let uc = kernel.ns.run(|| udp(PUBLIC.into(), set.ports[0]));
                Phone { kernel, set, uc }
            });
        let phones: Vec<Phone> = phones.collect();
        let sets: Vec<Set> = phones.iter().map(|phone| phone.set.clone()).collect();
        gm.add(&sets);
        let ps = p.run(|| udp(P_CSCF.into(), PORT_PS));
        Nat {
            gm,
            p,
            nat,
            phones,
            ps,
        }
    }

    /// The phone's port outside, as gmespd has learnt it; both SAs to the phone go there.
    fn port(&self, phone: &Phone) -> Option<u16> {
        let [_, to_uc, to_us, _] = phone.set.four();
        let rows = self.gm.sas();
        let of = |spi: u32| rows.iter().find(|row| row.sa.spi == spi).expect("the SA");
        let [a, b] = [to_uc, to_us].map(|sa| of(sa.spi).sa.encap_dport);
        assert_eq!(a, b);
        a
    }

    /// Nothing has gone wrong anywhere, but for this at gmespd.
    #[track_caller]
    fn is_well(&self, but: &[(Reason, u64)]) {
        let want = but.iter().map(|(r, n)| (r.name().to_owned(), *n));
        if gm_tests::plane::is_kernel() {
            // It learns a port a moment after the packet; what answers in between has no SA. Of
            // keepalives it says nothing.
            let mut dropped = self.gm.dropped();
            dropped.remove(Reason::OutNoSa.name());
            assert_eq!(dropped, [].into());
        } else {
            assert_eq!(self.gm.dropped(), want.collect());
        }
        for phone in &self.phones {
            assert_eq!(phone.kernel.errors(), [].into());
        }
    }
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn two_phones_behind_one_masquerade_each_get_what_is_theirs() {
    gm_tests::needs_esp!();
    let nat = Nat::new();
    let [first, second] = &nat.phones[..] else {
        panic!()
    };
    // Nobody has spoken: where to?
    let uc = first.uc.local_addr().unwrap();
    // The kernel's data plane says so to the sender, too.
    let sent = nat.ps.send_to(b"too early", uc);
    assert!(sent.is_ok() || gm_tests::plane::is_kernel());
    nat.gm.counts(Reason::OutNoEncapPort, 1);
    for len in [1, 100, 1400, 3000, 8192] {
        for phone in &nat.phones {
            pass(&phone.uc, &nat.ps, len);
            nat.gm.finds(&phone.set);
        }
        for phone in &nat.phones {
            pass(&nat.ps, &phone.uc, len);
        }
    }
    let [a, b] = [first, second].map(|phone| nat.port(phone).expect("a port"));
    assert_ne!(a, b, "both phones have the same port");

    // TCP, beside it.
    let listener = nat.p.run(|| TcpListener::bind((P_CSCF, PORT_PS)).unwrap());
    for phone in &nat.phones {
        let from = (PUBLIC.into(), phone.set.ports[0]);
        let run = || connect(from, (P_CSCF.into(), PORT_PS));
        let mut client = phone.kernel.ns.run(run);
        let (mut server, seen) = listener.accept().unwrap();
        assert_eq!((seen.ip(), seen.port()), from);
        let (sent, mut got) = (vec![7; 50_000], vec![0; 50_000]);
        std::thread::scope(|s| {
            s.spawn(|| server.write_all(&sent).unwrap());
            client.read_exact(&mut got).unwrap();
        });
        assert!(got == sent, "others came");
    }

    // Keepalives keep the NAT's flow and do nothing else, in either direction.
    first
        .kernel
        .encap
        .send_to(&[0xff], (P_CSCF, ENCAP))
        .unwrap();
    nat.gm.counts(Reason::Keepalive, 1);
    if !gm_tests::plane::is_kernel() {
        // That one has UDP 4500 for itself.
        let from = nat.p.run(|| udp(P_CSCF.into(), ENCAP));
        from.send_to(&[0xff], (PUBLIC, a)).unwrap();
    }
    // What is behind it has come when this has.
    pass(&nat.ps, &first.uc, 100);
    silent(&first.kernel.encap);
    assert_eq!(nat.port(first), Some(a));
    nat.is_well(&[(Reason::OutNoEncapPort, 1), (Reason::Keepalive, 1)]);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn gmespd_follows_a_phone_whose_port_changes_while_it_talks() {
    gm_tests::needs_esp!();
    let nat = Nat::new();
    let phone = &nat.phones[0];
    let other = &nat.phones[1];
    pass(&other.uc, &nat.ps, 100);
    let (stop, heard) = (AtomicBool::new(false), AtomicU64::new(0));
    let wait = |more: u64| {
        let (want, end) = (heard.load(Ordering::Relaxed) + more, Instant::now() + WAIT);
        while heard.load(Ordering::Relaxed) < want {
            assert!(Instant::now() < end, "no answer reaches the phone");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let moment = Some(Duration::from_millis(100));
    phone.uc.set_read_timeout(moment).unwrap();
    nat.ps.set_read_timeout(moment).unwrap();
    let goes = || !stop.load(Ordering::Relaxed);
    let ports = std::thread::scope(|s| {
        // The phone asks, the P-CSCF answers.
        s.spawn(|| {
            let mut got = [0; 8];
            for n in 0u64.. {
                if !goes() {
                    return;
                }
                let to = (P_CSCF, PORT_PS);
                // For a moment there is no way out.
                let _ = phone.uc.send_to(&n.to_be_bytes(), to);
                while phone.uc.recv(&mut got).is_ok() {
                    heard.fetch_add(1, Ordering::Relaxed);
                    if got == n.to_be_bytes() {
                        break;
                    }
                }
            }
        });
        s.spawn(|| {
            let mut got = [0; 8];
            while goes() {
                if let Ok((n, from)) = nat.ps.recv_from(&mut got) {
                    let _ = nat.ps.send_to(&got[..n], from);
                }
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait(20);
            let mut ports = vec![nat.port(phone).expect("a port")];
            for range in ["31000-31099", "32000-32099", "33000-33099"] {
                nat.nat.to(&format!(":{range}"));
                nat.nat.forgets();
                let begin: u16 = range[..5].parse().unwrap();
                let end = Instant::now() + WAIT;
                while nat.port(phone).is_none_or(|port| port < begin) {
                    assert!(Instant::now() < end, "{:?}", nat.port(phone));
                    std::thread::sleep(Duration::from_millis(10));
                }
                wait(20);
                ports.push(nat.port(phone).expect("a port"));
            }
            ports
        }));
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert!((31_000..31_100).contains(&ports[1]), "{ports:?}");
    assert!((32_000..32_100).contains(&ports[2]), "{ports:?}");
    assert!((33_000..33_100).contains(&ports[3]), "{ports:?}");
    // The other one, silent so far, is found again as soon as it speaks.
    assert!(nat.port(other).is_some_and(|port| port < 31_000));
    nat.ps.set_read_timeout(Some(WAIT)).unwrap();
    pass(&other.uc, &nat.ps, 100);
    let end = Instant::now() + WAIT;
    while nat.port(other).is_none_or(|port| port < 33_000) {
        assert!(Instant::now() < end, "{:?}", nat.port(other));
        std::thread::sleep(Duration::from_millis(5));
    }
    pass(&nat.ps, &other.uc, 3000);
    nat.is_well(&[]);
}
