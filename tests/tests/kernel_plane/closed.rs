//! Nothing that is protected goes without an SA.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use gm_tests::needs_esp;
use gm_tests::netns::NetNs;

use crate::four::Four;
use crate::lab::{Lab, PC, PCSCF, PCSCF6, PS, UC, UE, UE6, crosses, is_dropped, received, until};

/// Sockets at both ends: the P-CSCF's protected port, an open one, and the phone's.
fn sockets(lab: &Lab, v6: bool) -> [UdpSocket; 3] {
    let (ue, pcscf) = if v6 { (UE6, PCSCF6) } else { (UE, PCSCF) };
    [
        Lab::udp(&lab.pcscf, pcscf, PS),
        Lab::udp(&lab.pcscf, pcscf, 5060),
        Lab::udp(&lab.ue, ue, UC),
    ]
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn before_any_sa_nothing_protected_goes_in_or_out_over_udp() {
    needs_esp!();
    let lab = Lab::new();
    for v6 in [false, true] {
        // Before gmespd runs everything goes: the test can fail.
        let [protected, _, phone] = sockets(&lab, v6);
        crosses(&phone, &protected, b"before");
        crosses(&protected, &phone, b"before");
    }
    let daemon = lab.start();
    for v6 in [false, true] {
        let [protected, open, phone] = sockets(&lab, v6);
        is_dropped(&phone, &protected);
        is_dropped(&protected, &phone);
        // Loopback, where XFRM's policies do not look.
        let inside = Lab::udp(&lab.pcscf, if v6 { PCSCF6 } else { PCSCF }, 0);
        is_dropped(&inside, &protected);
        is_dropped(&protected, &inside);
        // What is not protected is not touched.
        crosses(&phone, &open, b"REGISTER in clear");
        crosses(&open, &phone, b"401 in clear");
        crosses(&inside, &open, b"inside");
    }
    assert_eq!(lab.count("cleartext-protected"), 4);
    assert_eq!(lab.count("out-no-sa"), 4);
    daemon.stop();
}

/// Whether a connection comes about, from a port.
fn connects(ns: &NetNs, from: (&str, u16), to: (&str, u16)) -> bool {
    use std::os::fd::AsFd;
    let address = |(ip, port): (&str, u16)| std::net::SocketAddr::new(ip.parse().unwrap(), port);
    ns.run(|| {
        let family = match address(to).is_ipv6() {
            true => rustix::net::AddressFamily::INET6,
            false => rustix::net::AddressFamily::INET,
        };
        let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        rustix::net::bind(socket.as_fd(), &address(from)).unwrap();
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Send,
            Some(Duration::from_millis(900)),
        )
        .unwrap();
        match rustix::net::connect(&socket, &address(to)) {
            Ok(()) => true,
            Err(e) => {
                let kind = std::io::Error::from(e).kind();
                let silence = [
                    ErrorKind::PermissionDenied,
                    ErrorKind::WouldBlock,
                    ErrorKind::TimedOut,
                ];
                assert!(
                    silence.contains(&kind) || e == rustix::io::Errno::INPROGRESS,
                    "{e}: something has answered"
                );
                false
            }
        }
    })
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn before_any_sa_no_connection_to_or_from_a_protected_port_comes_about() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    for (ue, pcscf) in [(UE, PCSCF), (UE6, PCSCF6)] {
        let listen = |ns: &NetNs, at: (&str, u16)| {
            let at = std::net::SocketAddr::new(at.0.parse().unwrap(), at.1);
            ns.run(|| TcpListener::bind(at)).expect("listens")
        };
        let _protected = listen(&lab.pcscf, (pcscf, PS));
        let _open = listen(&lab.pcscf, (pcscf, 5060));
        let _phone = listen(&lab.ue, (ue, 6010));
        assert!(!connects(&lab.ue, (ue, UC), (pcscf, PS)), "in");
        // A port where nobody listens must not say so in clear.
        assert!(!connects(&lab.ue, (ue, UC), (pcscf, PC)), "in, closed");
        assert!(!connects(&lab.pcscf, (pcscf, PC), (ue, 6010)), "out");
        assert!(!connects(&lab.pcscf, (pcscf, 0), (pcscf, PS)), "inside");
        assert!(connects(&lab.ue, (ue, 0), (pcscf, 5060)), "open in");
        assert!(connects(&lab.pcscf, (pcscf, 0), (ue, 6010)), "open out");
        drop(TcpStream::connect("127.0.0.1:1").err());
    }
    daemon.stop();
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn fragments_in_clear_do_not_reach_a_protected_port() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    for v6 in [false, true] {
        let [protected, open, phone] = sockets(&lab, v6);
        let long = vec![0x5a; 4000];
        phone
            .send_to(&long, protected.local_addr().unwrap())
            .unwrap();
        assert_eq!(received(&protected), None);
        crosses(&phone, &open, &long);
    }
    daemon.stop();
}

/// What opened packets run into must not go back in clear as the quote of an ICMP error.
#[test]
#[ignore = "needs a kernel with ESP"]
fn an_icmp_error_does_not_quote_what_was_opened() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    for (v6, base) in [(false, 3000), (true, 4000)] {
        let four = Four {
            v6,
            ..Four::new(u64::from(base), base)
        };
        lab.add(&four.pcscf());
        lab.peer("install", &four.ue());
        let (ue, pcscf) = if v6 { (UE6, PCSCF6) } else { (UE, PCSCF) };
        let phone = Lab::udp(&lab.ue, ue, UC);
        let target = std::net::SocketAddr::new(pcscf.parse().unwrap(), PS);
        phone.connect(target).unwrap();
        let before = lab.count("out-no-sa");
        // Nobody has the port.
        phone.send(b"SIP").unwrap();
        until("the error is dropped", || lab.count("out-no-sa") > before);
        let answer = phone.recv(&mut [0; 16]).expect_err("nothing comes");
        assert_ne!(answer.kind(), ErrorKind::ConnectionRefused, "{answer}");
    }
    daemon.stop();
}

/// On the wire it is ESP, so who quotes UDP has made it up.
#[test]
#[ignore = "needs a kernel with ESP"]
fn a_forged_icmp_error_about_a_protected_port_does_not_reach_its_socket() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    let four = Four::new(1, 3000);
    lab.add(&four.pcscf());
    lab.peer("install", &four.ue());
    let phone = Lab::udp(&lab.ue, UE, UC);
    let here = Lab::udp(&lab.pcscf, PCSCF, PS);
    crosses(&here, &phone, b"goes");
    here.connect((UE, UC)).unwrap();
    // Port unreachable, with the IPv4 and UDP header of what the P-CSCF has sent.
    let script = format!(
        "import socket, struct\n\
         def sum16(b):\n    s = sum(struct.unpack('!%dH' % (len(b) // 2), b))\n    \
         s = (s >> 16) + (s & 0xffff)\n    return 0xffff & ~(s + (s >> 16))\n\
         quote = struct.pack('!BBHHHBBH', 0x45, 0, 32, 1, 0, 64, 17, 0) + \
         socket.inet_aton('{PCSCF}') + socket.inet_aton('{UE}') + struct.pack('!HHHH', {PS}, {UC}, 12, 0)\n\
         head = struct.pack('!BBHI', 3, 3, 0, 0)\n\
         icmp = struct.pack('!BBHI', 3, 3, sum16(head + quote), 0) + quote\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)\n\
         s.sendto(icmp, ('{PCSCF}', 0))\n"
    );
    lab.ue.sh("python3", &["-c", &script]);
    until("it is dropped", || lab.count("clear-icmp") == 1);
    let answer = here.recv(&mut [0; 16]).expect_err("nothing comes");
    assert_ne!(answer.kind(), ErrorKind::ConnectionRefused, "{answer}");
    daemon.stop();
}
