//! The link around the SAs: its MTU, and TCP connections of all kinds.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use gm_dataplane::{Direction, Reason};
use gm_esp::Suite;
use nix::sys::socket::{setsockopt, sockopt};

use crate::FAMILIES;
use crate::lab::{ByHand, Family, Lab, PORT_PS, PORT_UC, configs, joined};
use crate::middle::ip_of;
use crate::sockets::{WAIT, connect, pass, udp};

#[test]
#[ignore = "root: namespaces, BPF"]
fn an_mtu_that_changes_under_the_sas_holds_for_the_next_packets() {
    for family in FAMILIES {
        let lab = Lab::new(None);
        lab.install(Suite::HmacSha1AesCbc, family);
        let (p, u) = family.addresses();
        let (ps, uc) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.u.ns.run(|| udp(u, PORT_UC)),
        );
        let (tap, captured) = crossbeam::channel::unbounded();
        lab.p.plane.tap(Some(tap)).unwrap();
        for mtu in [1400, 1300, 1500] {
            lab.p
                .ns
                .ip(&format!("link set {} mtu {mtu}", crate::NAMES[0]));
            // Whoever keeps the MTU hears of it a little later.
            let end = Instant::now() + WAIT;
            loop {
                let _ = captured.try_iter().count();
                pass(&ps, &uc, mtu - 120);
                pass(&ps, &uc, 4000);
                let sent = captured
                    .try_iter()
                    .filter(|f| f.direction == Direction::Out);
                let sizes: Vec<usize> = sent
                    .map(|f| ip_of(&f.frame).map(|ip| ip.end - ip.l3).unwrap())
                    .collect();
                let most = *sizes.iter().max().unwrap();
                // As long as may be, but for what a fragment's eight bytes leave over; a number
                // of fragments that says so too.
                let header = if family == Family::V4 { 20 } else { 48 };
                let pieces = 1 + 4052usize.div_ceil((mtu - header) / 8 * 8);
                if most <= mtu && most > mtu - 16 && sizes.len() == pieces {
                    break;
                }
                assert!(Instant::now() < end, "{mtu}: {sizes:?}");
            }
        }
    }
}

/// A P-CSCF's lab where a phone has a thousand client ports, and SAs that take any.
fn many_ports() -> Lab {
    let (p, u) = joined();
    let [pc, mut uc] = configs(None);
    uc.client_ports = vec![20_000..=20_999];
    let lab = Lab::with(p, u, [pc, uc]);
    lab.install_hand(ByHand {
        suite: Suite::HmacSha1AesCbc,
        window: 64,
        first_seq: 1,
        ..ByHand::default()
    });
    lab
}

/// Answers each connection with what it has sent, until it ends.
fn echo(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.read_to_end(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn many_short_connections_come_and_go() {
    const CONNECTIONS: u16 = 600;
    const AT_ONCE: u16 = 6;
    let lab = many_ports();
    let (p, u) = Family::V4.addresses();
    let listener = lab.p.ns.run(|| TcpListener::bind((p, PORT_PS)).unwrap());
    std::thread::scope(|s| {
        s.spawn(|| {
            for stream in listener.incoming().take(CONNECTIONS.into()) {
                let stream = stream.unwrap();
                s.spawn(move || echo(stream));
            }
        });
        for worker in 0..AT_ONCE {
            let lab = &lab;
            s.spawn(move || {
                for n in (worker..CONNECTIONS).step_by(AT_ONCE.into()) {
                    let mut stream = lab.u.ns.run(|| connect((u, 20_000 + n), (p, PORT_PS)));
                    // From nothing to some segments.
                    let bytes = vec![n as u8; usize::from(n) * 37 % 9000];
                    stream.write_all(&bytes).unwrap();
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).unwrap();
                    assert!(got == bytes, "connection {n}: {} bytes", got.len());
                }
            });
        }
    });
    for side in [&lab.p, &lab.u] {
        let stats = side.plane.stats().unwrap();
        assert_eq!(stats.get(Reason::BadIcv) + stats.get(Reason::Malformed), 0);
        assert!(stats.get(Reason::Ok) > 5 * u64::from(CONNECTIONS));
        assert_eq!(stats.workers[0].frames_leaked, 0);
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn tcp_comes_back_between_the_same_two_ports() {
    let lab = Lab::new(None);
    for family in FAMILIES {
        lab.install(Suite::NullAesGcm, family);
        let (p, u) = family.addresses();
        let listener = lab.p.ns.run(|| TcpListener::bind((p, PORT_PS)).unwrap());
        for n in 0..20u8 {
            let mut client = lab.u.ns.run(|| connect((u, PORT_UC), (p, PORT_PS)));
            let (mut server, peer) = listener.accept().unwrap();
            assert_eq!(peer.port(), PORT_UC);
            client.write_all(&[n; 3000]).unwrap();
            let mut got = [0; 3000];
            server.read_exact(&mut got).unwrap();
            assert_eq!(got, [n; 3000]);
            // The end that has only this port closes with a reset, so that no TIME_WAIT keeps it.
            let linger = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&client.as_fd(), sockopt::Linger, &linger).unwrap();
            drop(client);
            let end = server.read(&mut got);
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        }
    }
}
