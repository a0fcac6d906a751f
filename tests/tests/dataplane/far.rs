//! A data plane, and a peer that has none: packets with any number, right or wrong, are put on
//! the wire by hand.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{Dir, NewSa, Reason, SaStatus, SetId, SetSpec};
use gm_engines::{Job, Key, Transform, reference};
use gm_esp::outbound::seal_one;
use gm_esp::{
    BufferedIv, Counter, EncapPorts, MAX_BACK, MAX_FRONT, Mode, PacketBuf, Sa, SaSpec, SelProto,
    Selected, Selector, Suite,
};
use gm_tests::netns::NetNs;
use gm_xsk::LinkSocket;

use super::lab::{Family, NAMES, PORT_PC, PORT_PS, PORT_UC, Side, config, joined, keys, start};
use super::sockets::{WAIT, fix_ipv4, udp};

/// How an inbound packet may end.
const ENDS: [Reason; 9] = [
    Reason::Ok,
    Reason::Malformed,
    Reason::UnknownSpi,
    Reason::ModeMismatch,
    Reason::Replay,
    Reason::Stale,
    Reason::BadIcv,
    Reason::Dummy,
    Reason::SelectorMismatch,
];

/// Packets that are under way at a time: what a socket's buffer takes at least.
const CHUNK: usize = 32;

/// The P-CSCF with its data plane, and the other end of its wire.
pub struct Far {
    pub near: Side,
    pub ns: NetNs,
    pub wire: LinkSocket,
    /// What is behind port_ps.
    pub ps: UdpSocket,
    head: [u8; 14],
}

/// An SA from the far end to the near one.
pub struct Sender {
    pub set: SetId,
    sa: Sa,
    head: [u8; 14],
}

fn mac(ns: &NetNs, name: &str) -> [u8; 6] {
    let line = ns.ip(&format!("-o link show {name}"));
    let text = line.split("link/ether ").nth(1).unwrap();
    let bytes: Vec<u8> = text[..17]
        .split(':')
        .map(|b| u8::from_str_radix(b, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

impl Far {
    pub fn new() -> Far {
        let (p, ns) = joined();
        let addresses = [Family::V4, Family::V6].map(|f| f.addresses().0);
        let plane = start(&p, config(NAMES[0], addresses, [PORT_PS, PORT_PC], None));
        let mut head = [0; 14];
        head[..6].copy_from_slice(&mac(&p, NAMES[0]));
        head[6..12].copy_from_slice(&mac(&ns, NAMES[1]));
        head[12..].copy_from_slice(&[8, 0]);
        let wire = ns.run(|| LinkSocket::bind(NAMES[1]).unwrap());
        let ps = p.run(|| udp(addresses[0], PORT_PS));
        let near = Side { ns: p, plane };
        Far {
            near,
            ns,
            wire,
            ps,
            head,
        }
    }

    /// Sets an SA up at both ends, for UDP over IPv4 from port_uc to port_ps.
    pub fn install(&self, suite: Suite, window: u32, esn: bool) -> Sender {
        let (dst, src) = Family::V4.addresses();
        let spec = SaSpec {
            spi: self.near.plane.reserve(&[]).unwrap().spi,
            mode: Mode::Trans,
            selector: Selector {
                src,
                dst,
                src_port: Some(PORT_UC),
                dst_port: Some(PORT_PS),
                proto: SelProto::UdpTcp,
            },
            suite,
            outer: None,
            esn,
            replay_window: window,
        };
        let sa = NewSa {
            spec,
            keys: keys(suite),
            dir: Dir::In,
            first_seq: None,
        };
        let set = SetSpec {
            set: None,
            sas: vec![sa],
        };
        Sender {
            set: self.near.plane.install(set).unwrap(),
            sa: Sa::new(spec, &keys(suite)).unwrap(),
            head: self.head,
        }
    }

    pub fn count(&self, reason: Reason) -> u64 {
        self.near.plane.stats().unwrap().get(reason)
    }

    fn ends(&self) -> u64 {
        let stats = self.near.plane.stats().unwrap();
        ENDS.iter().map(|r| stats.get(*r)).sum()
    }

    /// Puts frames on the wire and waits until each has ended; what came out of port_ps, by the
    /// number that [`Sender::packet`] wrote into it, in order.
    pub fn carry(&self, frames: &[Vec<u8>]) -> Vec<u64> {
        let mut came = Vec::new();
        for chunk in frames.chunks(CHUNK) {
            let (ends, good) = (self.ends(), self.count(Reason::Ok));
            for frame in chunk {
                self.wire.send(frame).unwrap();
            }
            let want = ends + chunk.len() as u64;
            let end = Instant::now() + WAIT;
            while self.ends() < want && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(self.ends(), want, "not every packet has one end");
            self.ps.set_read_timeout(Some(WAIT)).unwrap();
            for _ in good..self.count(Reason::Ok) {
                let mut got = [0; 2048];
                let n = self.ps.recv(&mut got).unwrap();
                came.push(u64::from_be_bytes(got[..n][..8].try_into().unwrap()));
            }
        }
        came
    }

    /// The same one after the other: each one meets the window that the one before has left, in
    /// XDP too.
    pub fn carry_singly(&self, frames: &[Vec<u8>]) -> Vec<u64> {
        frames.chunks(1).flat_map(|f| self.carry(f)).collect()
    }

    /// The row of an SA's set in the list.
    pub fn row(&self, sender: &Sender) -> SaStatus {
        let rows = self.near.plane.list();
        rows.into_iter().find(|r| r.set == sender.set).unwrap()
    }

    /// What the SA has dropped for a reason.
    pub fn drops(&self, sender: &Sender, reason: Reason) -> u64 {
        let drops = self.row(sender).drops;
        drops.iter().find(|(r, _)| *r == reason).map_or(0, |d| d.1)
    }
}

impl Sender {
    /// A packet with this number, which its payload has in it too.
    pub fn packet(&self, seq: u64) -> Vec<u8> {
        self.sealed(seq, &seq.to_be_bytes())
    }

    /// The same as often as there are numbers.
    pub fn packets(&self, numbers: impl IntoIterator<Item = u64>) -> Vec<Vec<u8>> {
        numbers.into_iter().map(|seq| self.packet(seq)).collect()
    }

    /// Any payload in a packet with this number.
    pub fn sealed(&self, seq: u64, payload: &[u8]) -> Vec<u8> {
        let plain = self.plain(payload);
        let mut buffer = vec![0; MAX_FRONT];
        buffer.extend_from_slice(&plain);
        let end = buffer.len();
        buffer.resize(end + MAX_BACK, 0);
        let packet = PacketBuf::new(&mut buffer, MAX_FRONT, end);
        let last = AtomicU64::new(seq - 1);
        let mut iv = BufferedIv::new(|bytes: &mut [u8]| bytes.fill(seq as u8));
        let selected = Selected::new(packet, &self.sa).unwrap();
        let numbered = selected
            .number(&Counter(&last), EncapPorts::default(), &mut iv)
            .unwrap();
        let sealed = seal_one(reference(), numbered).unwrap();
        [&self.head, sealed.packet().data()].concat()
    }

    /// An authentic packet around any body (payload, padding, trailer), with hmac-sha-1-96 and
    /// null.
    pub fn forged(&self, seq: u32, body: &[u8]) -> Vec<u8> {
        assert_eq!(self.sa.suite(), Suite::HmacSha1Null);
        let (t, keys) = (Transform::HmacSha1Null, keys(Suite::HmacSha1Null));
        let key = Key::new(t, keys.integrity().unwrap(), &[], [0; 4]).unwrap();
        let mut esp = [self.sa.spi().to_be_bytes(), seq.to_be_bytes()].concat();
        esp.extend_from_slice(body);
        esp.resize(esp.len() + t.icv_len(), 0);
        let mut jobs = [Job {
            key: &key,
            esp: &mut esp,
            seq_hi: None,
            ok: false,
        }];
        reference().seal(&mut jobs);
        assert!(jobs[0].ok);
        let ip = self.ip(50, &esp);
        [&self.head[..], &ip].concat()
    }

    /// UDP from port_uc to port_ps, without a checksum.
    pub fn plain(&self, payload: &[u8]) -> Vec<u8> {
        let mut l4 = [PORT_UC, PORT_PS, 8 + payload.len() as u16, 0]
            .map(u16::to_be_bytes)
            .concat();
        l4.extend_from_slice(payload);
        self.ip(17, &l4)
    }

    fn ip(&self, proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 0, 0, 9, 0, 0, 64, proto, 0, 0];
        for address in [self.sa.selector().src, self.sa.selector().dst] {
            let IpAddr::V4(v4) = address else {
                unreachable!("only IPv4 here")
            };
            ip.extend_from_slice(&v4.octets());
        }
        ip.extend_from_slice(payload);
        let len = ip.len() as u16;
        ip[2..4].copy_from_slice(&len.to_be_bytes());
        fix_ipv4(&mut ip);
        ip
    }
}
