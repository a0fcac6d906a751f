//! A datagram that was routed before its SA moved, and leaves afterwards: a program that has to
//! wait for a processor does that, and here one that has said that more is coming.

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use gm_esp::{Mode, Suite};
use gm_tests::needs_esp;
use gm_tests::netns::NetNs;
use rustix::net::{AddressFamily, SendFlags, SocketType, bind, sendto, socket, sockopt};

use crate::gm::{Gmespd, PORT_PS, WAIT};
use crate::lab::Family;
use crate::set::Set;
use crate::{Pair, ends};

/// Attempts to be quick enough for what is there for a second.
const TIMES: usize = 20;

/// One of several sockets of one port.
fn shared(ns: &NetNs, at: SocketAddr) -> UdpSocket {
    let family = match at.is_ipv4() {
        true => AddressFamily::INET,
        false => AddressFamily::INET6,
    };
    ns.run(|| {
        let socket = socket(family, SocketType::DGRAM, None).expect("a socket");
        sockopt::set_socket_reuseport(&socket, true).expect("an option");
        bind(&socket, &at).expect("bound");
        socket.into()
    })
}

struct Sides<'p> {
    pair: &'p Pair,
    gmespd: &'p Gmespd,
    set: &'p Set,
    phone: UdpSocket,
    to: SocketAddr,
}

impl Sides<'_> {
    /// A socket that has begun a datagram.
    fn half_sent(&self) -> UdpSocket {
        let ps = self.ps();
        sendto(&ps, b"too ", SendFlags::MORE, &self.to).expect("half a datagram");
        ps
    }

    fn ps(&self) -> UdpSocket {
        shared(&self.pair.p.ns, (self.set.p, PORT_PS).into())
    }

    /// Whether it comes.
    fn hears(&self, word: &[u8]) -> bool {
        let mut b = [0; 64];
        while let Ok(n) = self.phone.recv(&mut b) {
            if b[..n] == *word {
                return true;
            }
        }
        false
    }

    /// The set moves here. Whether a datagram left while the kernel still had its SAs for
    /// that: then it has come.
    fn adopted(&self) -> bool {
        let late = self.half_sent();
        let phone = format!("adopt --phone {}", self.set.ue);
        let mut adopt = self.gmespd.begin(&phone);
        let deadline = Instant::now() + WAIT;
        while self.pair.in_kernel() != (2, 0) {
            if adopt.try_wait().expect("a status").is_some() {
                break;
            }
            assert!(Instant::now() < deadline, "nothing moves");
        }
        // It begins above what is left to the kernel.
        self.ps().send_to(b"in time", self.to).expect("sent");
        assert!(self.hears(b"in time"));
        sendto(&late, b"late", SendFlags::empty(), &self.to).expect("the other half");
        let in_time = self.pair.in_kernel() == (2, 0);
        assert!(adopt.wait().expect("a status").success());
        assert_eq!(self.pair.in_kernel(), (0, 0));
        if in_time {
            assert!(self.hears(b"too late"), "{:?}", self.pair.p.errors());
        }
        self.goes_on();
        in_time
    }

    /// The set moves back. Whether a datagram that the kernel has not sealed left behind one
    /// that it has, while both still waited here: then both have come.
    fn given_back(&self, policies: usize) -> bool {
        let late = self.half_sent();
        let mut back = self.gmespd.begin("give-back");
        let deadline = Instant::now() + WAIT;
        while self.pair.in_kernel() != (4, policies) {
            assert!(Instant::now() < deadline, "nothing moves");
        }
        self.ps().send_to(b"in time", self.to).expect("sent");
        sendto(&late, b"late", SendFlags::empty(), &self.to).expect("the other half");
        let in_time = !self.gmespd.list().is_empty();
        assert!(back.wait().expect("a status").success());
        if in_time {
            assert!(self.hears(b"too late"), "{:?}", self.pair.ue.errors());
        }
        assert!(self.hears(b"in time"));
        self.goes_on();
        in_time
    }

    #[track_caller]
    fn goes_on(&self) {
        self.ps().send_to(b"after", self.to).expect("sent");
        assert!(self.hears(b"after"));
    }
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn what_was_routed_before_a_set_moves_arrives_afterwards() {
    needs_esp!();
    let (v4, v6) = (ends(Family::V4), ends(Family::V6));
    for mut set in [
        Set::new(1, Suite::NullAesGcm, Mode::Trans, v4),
        Set::new(2, Suite::HmacSha1AesCbc, Mode::Trans, v6),
        Set::new(3, Suite::HmacSha1Null, Mode::UdpEncTun, v4),
    ] {
        (set.window, set.port_known) = (32, true);
        let pair = Pair::new(std::slice::from_ref(&set));
        let policies = pair.in_kernel().1;
        let gmespd = pair.gmespd(None);
        let to: SocketAddr = (set.ue, set.ports[0]).into();
        let phone = pair.ue.ns.run(|| UdpSocket::bind(to).unwrap());
        phone.set_read_timeout(Some(WAIT)).unwrap();
        let sides = Sides {
            pair: &pair,
            gmespd: &gmespd,
            set: &set,
            phone,
            to,
        };
        let mut in_time = [false; 2];
        for _ in 0..TIMES {
            in_time[0] |= sides.adopted();
            in_time[1] |= sides.given_back(policies);
            if in_time == [true; 2] {
                break;
            }
        }
        assert_eq!(in_time, [true; 2], "here, back: never in time");
        // No number came twice, or too late.
        assert_eq!(pair.ue.errors(), Default::default());
    }
}
