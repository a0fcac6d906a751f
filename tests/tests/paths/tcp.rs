//! TCP as real stacks send it: segments of 64 kB that the device is to cut, checksums that
//! it is to write, one connection after another from the same two ports.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use gm_dataplane::Reason;
use gm_esp::{Mode, Suite};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use crate::lab::{Lab, PORT_PC, PORT_PS, PORT_UC, PORT_US};
use crate::sockets::{WAIT, connect};
use crate::{FAMILIES, bulk_both_ways, is_clean};

/// Connections one after another on one pair of ports.
const MANY: usize = 60;

#[test]
#[ignore = "root: namespaces, BPF"]
fn bulk_goes_both_ways_with_offloads_as_they_are() {
    for mode in [Mode::Trans, Mode::UdpEncTun] {
        for family in FAMILIES {
            let lab = Lab::new(None);
            lab.install_as(Suite::AesGmacNull, family, mode);
            for _ in 0..3 {
                bulk_both_ways(&lab, family);
            }
            is_clean(&lab);
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn many_short_connections_use_the_same_two_ports() {
    let lab = Lab::new(None);
    for family in FAMILIES {
        lab.install(Suite::AesGmacNull, family);
        let (p, u) = family.addresses();
        // Who opens, from where, to where.
        let ways = [
            (&lab.u, &lab.p, (u, PORT_UC), (p, PORT_PS)),
            (&lab.p, &lab.u, (p, PORT_PC), (u, PORT_US)),
        ];
        for (client, server, from, to) in ways {
            let listener = server.ns.run(|| TcpListener::bind(to).unwrap());
            let serve = thread::spawn(move || {
                for _ in 0..MANY {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.set_read_timeout(Some(WAIT)).unwrap();
                    let mut got = [0; 700];
                    stream.read_exact(&mut got).unwrap();
                    stream.write_all(&got).unwrap();
                    // The other end closes first.
                    let _ = stream.read(&mut got);
                }
            });
            for n in 0..MANY {
                let mut stream = client.ns.run(|| connect(from, to));
                stream.write_all(&[n as u8; 700]).unwrap();
                let mut got = [0; 700];
                stream.read_exact(&mut got).unwrap();
                assert_eq!(got, [n as u8; 700]);
                // With a reset, as gmespd closes: TIME_WAIT would keep the ports.
                let now = nix::libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                setsockopt(&stream, sockopt::Linger, &now).unwrap();
            }
            serve.join().unwrap();
        }
    }
    is_clean(&lab);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn both_ends_of_a_connection_learn_segments_that_fit_with_esp() {
    for (mode, most) in [(Mode::Trans, [1426, 1406]), (Mode::UdpEncTun, [1398, 1358])] {
        for (family, most) in FAMILIES.into_iter().zip(most) {
            let lab = Lab::new(None);
            lab.install_as(Suite::AesGmacNull, family, mode);
            let (p, u) = family.addresses();
            let listener = lab.p.ns.run(|| TcpListener::bind((p, PORT_PS)).unwrap());
            let client = lab.u.ns.run(|| connect((u, PORT_UC), (p, PORT_PS)));
            let (server, _) = listener.accept().unwrap();
            for end in [&client, &server] {
                let mss = getsockopt(end, sockopt::TcpMaxSeg).unwrap();
                // The option for time stamps takes 12 bytes of what is allowed.
                assert!(
                    (most - 12..=most).contains(&mss),
                    "{mode:?} {family:?}: {mss}"
                );
            }
            crate::sockets::megabyte(client, server);
            for side in [&lab.p, &lab.u] {
                let stats = side.plane.stats().unwrap();
                assert_eq!(stats.get(Reason::OutTooBig), 0, "{mode:?} {family:?}");
                assert_eq!(stats.get(Reason::Fragment), 0, "{mode:?} {family:?}");
            }
        }
    }
}
