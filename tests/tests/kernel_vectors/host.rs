//! A namespace whose kernel opens what comes to it, and shows what it has opened.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use gm_api::sad::{Dir, SadEntry};
use gm_tests::netns::{End, NetNs, veth};
use gm_xfrm::kernel::sets::{self, With};
use gm_xfrm::kernel::{Counters, StateId, Xfrm, plan};
use gm_xsk::LinkSocket;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto};

/// Longer than an emulated machine takes.
const WAIT: Duration = Duration::from_secs(20);
/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(500);
/// Where ESP in UDP comes to that names no port.
const NAT_T: u16 = 4500;
/// Longer than any of the packets.
const MTU: usize = 9000;

/// The addresses that an SA's packets come to, outside and inside.
pub fn local(sa: &SadEntry) -> [IpAddr; 2] {
    [sa.destination(), sa.spec.selector.dst]
}

/// A host and the link to it.
pub struct Host {
    link: LinkSocket,
    /// Ethernet header by IP version.
    headers: [Vec<u8>; 2],
    /// UDP and TCP, IPv4 and IPv6: what has passed the policies.
    raw: Vec<OwnedFd>,
    xfrm: Xfrm,
    encap: Vec<UdpSocket>,
    _spaces: [NetNs; 2],
}

impl Host {
    /// A host that has these addresses, and these SAs towards it.
    pub fn new(sas: &[&SadEntry], locals: &BTreeSet<IpAddr>) -> Host {
        let spaces = [(); 2].map(|()| NetNs::new().expect("root"));
        let [host, peer] = &spaces;
        let end = |ns, name| End {
            ns,
            name,
            addresses: &[],
        };
        veth(end(host, "h0"), end(peer, "w0"));
        for (ns, name) in [(host, "h0"), (peer, "w0")] {
            ns.ip(&format!("link set {name} mtu {MTU}"));
        }
        for at in locals {
            let nodad = if at.is_ipv6() { "nodad" } else { "" };
            host.ip(&format!("address add {at} dev lo {nodad}"));
        }
        // What is opened comes from somewhere, and the answers go there.
        host.ip("route add default dev h0");
        host.ip("-6 route add default dev h0");
        let macs = [host.mac("h0"), peer.mac("w0")].concat();
        let header = |kind: u16| [&macs[..], &kind.to_be_bytes()].concat();
        let link = peer
            .run(|| LinkSocket::bind("w0"))
            .expect("a packet socket");
        let (raw, encap, xfrm) = host.run(|| {
            let encap: BTreeSet<_> = sas.iter().filter_map(|sa| encap_end(sa)).collect();
            let encap = encap.into_iter().map(esp_socket).collect();
            let mut xfrm = Xfrm::open().expect("netlink");
            install(&mut xfrm, sas);
            (raw_sockets(), encap, xfrm)
        });
        Host {
            link,
            headers: [header(0x0800), header(0x86dd)],
            raw,
            xfrm,
            encap,
            _spaces: spaces,
        }
    }

    /// A packet comes, from the IP header on.
    pub fn receives(&self, packet: &[u8]) {
        let v6 = packet.first().is_some_and(|b| b >> 4 == 6);
        let frame = [&self.headers[usize::from(v6)][..], packet].concat();
        let deadline = Instant::now() + WAIT;
        while let Err(e) = self.link.send(&frame) {
            let full = e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline;
            assert!(full, "a packet socket: {e}");
        }
    }

    /// Takes what the kernel has opened, which is this and nothing else; how many.
    /// Order is each socket's own.
    pub fn delivered(&mut self, wanted: &[&[u8]]) -> usize {
        let mut missing: Vec<&[u8]> = wanted.iter().map(|p| seen(p)).collect();
        let ends = self.encap.iter().map(|s| s.local_addr().expect("bound"));
        let encap: Vec<u16> = ends.map(|at| at.port()).collect();
        let mut buffer = vec![0; MTU];
        let deadline = Instant::now() + WAIT;
        let mut silent = Instant::now();
        while !missing.is_empty() && Instant::now() < deadline || silent.elapsed() < SILENCE {
            let before = missing.len();
            for (n, socket) in self.raw.iter().enumerate() {
                while let Ok((len, _)) = net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
                    silent = Instant::now();
                    let got = &buffer[..len];
                    // The packet that carried ESP.
                    if port(got, n / 2 == 1).is_some_and(|port| encap.contains(&port)) {
                        continue;
                    }
                    let at = missing.iter().position(|w| *w == got);
                    let at = at.unwrap_or_else(|| panic!("not to be opened: {got:02x?}"));
                    missing.remove(at);
                }
            }
            if missing.len() == before {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(missing, Vec::<&[u8]>::new(), "not opened");
        wanted.len()
    }

    /// What the kernel has counted for an SA.
    pub fn counters(&mut self, sa: &SadEntry) -> Counters {
        let id = StateId::esp(sa.destination(), sa.spec.spi);
        self.xfrm.state(id).expect("a state").counters
    }
}

fn install(xfrm: &mut Xfrm, sas: &[&SadEntry]) {
    let plans: Vec<_> = (0..)
        .zip(sas)
        .map(|(set, sa)| {
            let numbers = plan::numbers(&sa.spec, Dir::In, sa.seq);
            plan::sa_with(&sa.spec, &sa.keys, Dir::In, plan::reqid(set), numbers)
        })
        .collect();
    sets::install(xfrm, &plans, With::AllPolicies).expect("the kernel takes the SAs");
}

/// Where an SA's ESP in UDP comes to.
fn encap_end(sa: &SadEntry) -> Option<SocketAddr> {
    let outer = sa.spec.outer?;
    Some(SocketAddr::new(outer.dst, outer.dport.unwrap_or(NAT_T)))
}

/// A socket that gives ESP in UDP to the kernel.
fn esp_socket(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("a port");
    gm_xsk::esp_in_udp(&socket).expect("the kernel knows ESP in UDP");
    socket
}

/// Sockets for what arrives with UDP or TCP in it, IPv4 with its header.
fn raw_sockets() -> Vec<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let families = [AddressFamily::INET, AddressFamily::INET6];
    let all = families.into_iter().flat_map(|family| {
        [ipproto::UDP, ipproto::TCP].map(|protocol| {
            let socket = net::socket_with(family, SocketType::RAW, flags, Some(protocol));
            let socket = socket.expect("a raw socket");
            let room = net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20);
            room.expect("room");
            socket
        })
    });
    all.collect()
}

/// What a raw socket shows of a packet: of IPv6 what follows the header.
fn seen(packet: &[u8]) -> &[u8] {
    match packet.first() {
        Some(b) if b >> 4 == 6 => packet.get(40..).unwrap_or_default(),
        _ => packet,
    }
}

/// The destination port that a raw socket shows.
fn port(shown: &[u8], v6: bool) -> Option<u16> {
    let l4 = if v6 {
        0
    } else {
        usize::from(*shown.first()? & 0xf) * 4
    };
    let port = shown.get(l4 + 2..l4 + 4)?;
    Some(u16::from_be_bytes(port.try_into().ok()?))
}
