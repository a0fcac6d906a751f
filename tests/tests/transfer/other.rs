//! Another data plane on the P-CSCF's host, as the kernel's XFRM is one, in user space: it
//! opens what comes to its socket and seals what it is given.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use gm_dataplane::{Dir, NewSa, Numbers, Reason};
use gm_engines::reference;
use gm_esp::outbound::seal_one;
use gm_esp::{
    BufferedIv, Counter, EncapPort, EncapPorts, MAX_BACK, MAX_FRONT, Mode, PacketBuf, Received, Sa,
    Selected, Window, inbound,
};
use gm_tests::netns::NetNs;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with, sockopt,
};

use super::lab::{PORT_PS, PORT_UC};
use super::sockets::fix_ipv4;

const WORDS: usize = 65;
const ENCAP: u16 = 4500;
/// Headers in front of ESP: IPv4, and UDP where it is in UDP.
const IP: usize = 20;
const UDP: usize = 8;

/// Its end of the wire.
enum Wire {
    Raw(OwnedFd),
    Udp(UdpSocket),
}

pub struct Other {
    wire: Wire,
    inside: Mutex<Inside>,
    sas: [Sa; 2],
    ends: (IpAddr, IpAddr),
}

pub struct Inside {
    /// It has the SAs.
    pub active: bool,
    top: AtomicU64,
    bits: Vec<AtomicU64>,
    seq: AtomicU64,
    /// Payloads that were opened.
    pub came: Vec<u32>,
    /// Why others were not; `NotEsp`: it had no SAs.
    pub refused: Vec<Reason>,
    /// The first of what was opened, as it came.
    pub early: Vec<Vec<u8>>,
}

impl Other {
    /// With fresh SAs: an inbound and an outbound one.
    pub fn new(ns: &NetNs, sas: &[NewSa], ends: (IpAddr, IpAddr)) -> Other {
        let [incoming, outgoing] = sas else {
            panic!("one SA each way")
        };
        assert!((incoming.dir, outgoing.dir) == (Dir::In, Dir::Out));
        let wire = ns.run(|| match incoming.spec.mode {
            Mode::Trans => {
                let flags = SocketFlags::CLOEXEC;
                let esp = Some(ipproto::ESP);
                let fd = socket_with(AddressFamily::INET, SocketType::RAW, flags, esp).unwrap();
                sockopt::set_socket_recv_buffer_size_force(&fd, 8 << 20).unwrap();
                let wait = Some(Duration::from_millis(5));
                sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, wait).unwrap();
                Wire::Raw(fd)
            }
            Mode::UdpEncTun => {
                let socket = UdpSocket::bind((ends.0, ENCAP)).unwrap();
                sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_millis(5)))
                    .unwrap();
                Wire::Udp(socket)
            }
        });
        let sa = |new: &NewSa| Sa::new(new.spec, &new.keys).unwrap();
        Other {
            wire,
            inside: Mutex::new(Inside {
                active: true,
                top: AtomicU64::new(0),
                bits: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
                seq: AtomicU64::new(0),
                came: Vec::new(),
                refused: Vec::new(),
                early: Vec::new(),
            }),
            sas: [sa(incoming), sa(outgoing)],
            ends,
        }
    }

    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    /// Takes a packet, if one comes within some milliseconds.
    pub fn receive(&self) {
        let mut bytes = vec![0; 4096];
        let len = match &self.wire {
            Wire::Raw(fd) => match recv(fd, &mut bytes, RecvFlags::empty()) {
                Ok((n, _)) => n,
                Err(_) => return,
            },
            Wire::Udp(socket) => match socket.recv_from(&mut bytes[IP + UDP..]) {
                Ok((n, from)) => {
                    self.headers(&mut bytes[..IP + UDP + n], from.port());
                    IP + UDP + n
                }
                Err(_) => return,
            },
        };
        let mut inside = self.inside();
        let raw = bytes[..len].to_vec();
        let opened = match inside.active {
            true => inside.open(&self.sas[0], &mut bytes, len),
            false => Err(Reason::NotEsp),
        };
        match opened {
            Ok(payload) => {
                inside.came.push(payload);
                if inside.early.len() < 64 {
                    inside.early.push(raw);
                }
            }
            Err(reason) => inside.refused.push(reason),
        }
    }

    /// IPv4 and UDP in front of what a UDP socket has given.
    fn headers(&self, packet: &mut [u8], port: u16) {
        let len = packet.len() as u16;
        packet[..IP].copy_from_slice(&ip(self.ends.1, self.ends.0, 17, len));
        let udp = [port, ENCAP, len - IP as u16, 0].map(u16::to_be_bytes);
        packet[IP..IP + UDP].copy_from_slice(&udp.concat());
    }

    /// Seals a datagram from port_ps to port_uc and sends it.
    pub fn send(&self, payload: u32) {
        let inside = self.inside();
        assert!(inside.active, "somebody sends with it");
        let mut plain = ip(self.ends.0, self.ends.1, 17, 32).to_vec();
        plain.extend([PORT_PS, PORT_UC, 12, 0].map(u16::to_be_bytes).concat());
        plain.extend(payload.to_be_bytes());
        let mut buffer = vec![0; MAX_FRONT];
        buffer.extend_from_slice(&plain);
        let end = buffer.len();
        buffer.resize(end + MAX_BACK, 0);
        let packet = PacketBuf::new(&mut buffer, MAX_FRONT, end);
        let mut iv = BufferedIv::new(|bytes: &mut [u8]| bytes.fill(payload as u8));
        let selected = Selected::new(packet, &self.sas[1]).unwrap();
        let ports = EncapPorts {
            sport: Some(ENCAP),
            dport: None,
        };
        let numbered = selected.number(&Counter(&inside.seq), ports, &mut iv);
        let sealed = seal_one(reference(), numbered.unwrap()).unwrap();
        let bytes = sealed.packet().data();
        let sent = match &self.wire {
            Wire::Raw(fd) => {
                let to = SocketAddr::new(self.ends.1, 0);
                sendto(fd, &bytes[IP..], SendFlags::empty(), &to).unwrap()
            }
            Wire::Udp(socket) => socket
                .send_to(&bytes[IP + UDP..], (self.ends.1, ENCAP))
                .unwrap(),
        };
        assert!(sent > 0);
    }
}

impl Inside {
    fn open(&self, sa: &Sa, bytes: &mut [u8], len: usize) -> Result<u32, Reason> {
        let window = self.window(sa);
        let packet = PacketBuf::new(bytes, 0, len);
        let received =
            Received::parse(packet, EncapPort::Dst(ENCAP)).map_err(|rejected| rejected.reason)?;
        let checked = received.check(sa, &window)?;
        let opened = inbound::open_one(reference(), checked)?;
        let packet = opened.commit(&window)?.admit()?.into_packet();
        let tail = packet.data().last_chunk().copied();
        Ok(u32::from_be_bytes(tail.ok_or(Reason::Malformed)?))
    }

    fn window(&self, sa: &Sa) -> Window<'_> {
        Window::new(&self.top, &self.bits, sa.replay_window()).unwrap()
    }

    /// Its numbers at the end.
    pub fn stop(&mut self, other: &Other) -> Vec<Numbers> {
        self.active = false;
        let window = self.window(&other.sas[0]);
        let size = u64::from(window.size());
        let mut seen = vec![0; size.div_ceil(64) as usize];
        for back in 0..size.min(window.top()) {
            if window.check(window.top() - back).is_err() {
                seen[(back / 64) as usize] |= 1u64 << (back % 64);
            }
        }
        let last = window.top();
        let out = Numbers {
            last: self.seq.load(Relaxed),
            seen: Vec::new(),
        };
        vec![Numbers { last, seen }, out]
    }

    /// It goes on: outbound `ahead` numbers further.
    pub fn start(&mut self, other: &Other, numbers: &[Numbers], ahead: u64) {
        let [incoming, outgoing] = numbers else {
            panic!("one SA each way")
        };
        self.top.store(0, Relaxed);
        self.bits.iter().for_each(|word| word.store(0, Relaxed));
        {
            let window = self.window(&other.sas[0]);
            for back in (0..u64::from(window.size()).min(incoming.last)).rev() {
                if incoming.has_seen(back) {
                    window.commit(incoming.last - back).unwrap();
                }
            }
        }
        self.seq.store(outgoing.last + ahead, Relaxed);
        self.active = true;
    }
}

fn ip(src: IpAddr, dst: IpAddr, proto: u8, len: u16) -> [u8; IP] {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) else {
        panic!("IPv4")
    };
    let mut b = [
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    b[2..4].copy_from_slice(&len.to_be_bytes());
    b[12..16].copy_from_slice(&src.octets());
    b[16..20].copy_from_slice(&dst.octets());
    fix_ipv4(&mut b);
    b
}
