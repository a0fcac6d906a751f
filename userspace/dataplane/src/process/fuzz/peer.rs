//! A phone: seals what it sends, honest or not, and opens what reaches it.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use gm_abi::wire::{self, ESP, L3, TCP, UDP};
use gm_engines::{Job, Key, reference};
use gm_esp::*;

use super::input::Input;
use super::packets::{ENCAP_PORT, FAR_PORT, NEAR_PORT, address, ip, udp};

/// The slot of the phone's inbound SA here; the outbound one's is the next.
pub(super) const fn slot(nth: usize) -> u32 {
    1 + 2 * nth as u32
}

/// An SA with its key once more.
pub(super) struct Link {
    pub sa: Sa,
    key: Key,
}

pub(super) struct Peer {
    pub v6: bool,
    /// From the phone, and to it.
    pub inbound: &'static Link,
    pub outbound: &'static Link,
    /// The last number that it has used.
    sent: AtomicU64,
    window: OwnedWindow,
    iv: Iv,
    /// Its port outside the NAT.
    pub port: u16,
    /// Whether the worker has its SAs, and may send with the outbound one.
    pub loaded: bool,
    pub active: bool,
}

/// IVs that are the same in each run.
struct Iv(u128);

impl IvSource for Iv {
    fn fill(&mut self, iv: &mut [u8; 16]) {
        self.0 = self
            .0
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            + 1;
        *iv = self.0.to_be_bytes();
    }
}

impl Link {
    fn new(kind: usize) -> Link {
        let suite = Suite::every().nth(kind % 8).unwrap();
        let bit = |n: usize| kind >> n & 1 == 1;
        let (tunnel, other, v6, to_near) = (bit(3), bit(4), bit(5), bit(6));
        let ends = |v6, outside| {
            (
                address(v6, !to_near, outside),
                address(v6, to_near, outside),
            )
        };
        let (src, dst) = ends(v6, false);
        let outer = ends(v6 != other, true);
        let (src_port, dst_port) = match to_near {
            true => (Some(FAR_PORT), Some(NEAR_PORT)),
            false => (Some(NEAR_PORT), Some(FAR_PORT)),
        };
        let nth = usize::from(v6);
        let spec = SaSpec {
            spi: if to_near {
                1_000_000_000 + slot(nth)
            } else {
                4096 + nth as u32
            },
            mode: if tunnel { Mode::UdpEncTun } else { Mode::Trans },
            selector: Selector {
                src,
                dst,
                src_port,
                dst_port,
                proto: SelProto::UdpTcp,
            },
            suite,
            outer: tunnel.then_some(Outer {
                src: outer.0,
                dst: outer.1,
                sport: None,
                dport: None,
            }),
            esn: false,
            replay_window: 64,
        };
        let (ik, ck) = (Ik::from_bytes([1; 16]), Ck::from_bytes([2; 16]));
        let keys = EspKeys::expand(suite, &ik, &ck);
        let key = Key::new(
            suite.transform(),
            keys.integrity().unwrap_or_default(),
            keys.encryption().unwrap_or_default(),
            keys.salt().unwrap_or_default(),
        );
        Link {
            sa: Sa::new(spec, &keys).unwrap(),
            key: key.unwrap(),
        }
    }

    /// Each kind is made when it is first asked for.
    fn of(kind: usize) -> &'static Link {
        static LINKS: [OnceLock<Link>; 128] = [const { OnceLock::new() }; 128];
        LINKS[kind % 128].get_or_init(|| Link::new(kind % 128))
    }
}

impl Peer {
    pub(super) fn new(nth: usize, input: &mut Input<'_>) -> Peer {
        let kind = usize::from(input.u8() & 0x1f) | nth << 5;
        Peer {
            v6: nth == 1,
            inbound: Link::of(kind | 1 << 6),
            outbound: Link::of(kind),
            sent: AtomicU64::new(0),
            window: OwnedWindow::new(64).unwrap(),
            iv: Iv(1),
            port: 40_000,
            loaded: false,
            active: false,
        }
    }

    pub(super) fn in_tunnel(&self) -> bool {
        self.inbound.sa.mode() == Mode::UdpEncTun
    }

    /// The sealed IP packet; `None`: it is not the SA's.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = vec![0xcc; MAX_FRONT];
        buffer.extend_from_slice(plain);
        let end = buffer.len();
        buffer.resize(end + MAX_BACK, 0xcc);
        let packet = PacketBuf::new(&mut buffer, MAX_FRONT, end);
        let ports = EncapPorts {
            sport: Some(self.port),
            dport: Some(ENCAP_PORT),
        };
        let selected = Selected::new(packet, &self.inbound.sa).ok()?;
        let numbered = selected
            .number(&Counter(&self.sent), ports, &mut self.iv)
            .ok()?;
        let sealed = outbound::seal_one(reference(), numbered).ok()?;
        Some(sealed.packet().data().to_vec())
    }

    /// Seals what no honest phone would: a fragment or another's packet in a
    /// tunnel, any upper layer in transport mode. `claimed` is the padding that
    /// the trailer names. The packet, and the one in it that may be taken.
    pub(super) fn forge(&self, inner: &[u8], claimed: Option<u8>) -> Option<(Vec<u8>, Vec<u8>)> {
        let spec = &self.inbound.sa.spec();
        let transform = spec.suite.transform();
        let (next, body) = match spec.mode {
            Mode::UdpEncTun => (if self.v6 { 41 } else { 4 }, inner),
            Mode::Trans => {
                let L3::Ip(ip) = wire::parse_ip(inner, 0) else {
                    return None;
                };
                (ip.proto, inner.get(ip.l4..)?)
            }
        };
        let seq = Counter(&self.sent).next(u64::from(u32::MAX)).ok()?;
        let pad = (body.len() + 2).next_multiple_of(transform.block()) - (body.len() + 2);
        let padded = [body, &[7; 16][..pad]].concat();
        let claimed = claimed.unwrap_or(pad as u8);
        let mut esp = [spec.spi.to_be_bytes(), (seq as u32).to_be_bytes()].concat();
        esp.resize(8 + transform.iv_len(), seq as u8);
        esp.extend_from_slice(&padded);
        esp.extend([claimed, next]);
        esp.resize(esp.len() + transform.icv_len(), 0);
        let mut jobs = [Job {
            key: &self.inbound.key,
            esp: &mut esp,
            seq_hi: None,
            ok: false,
        }];
        reference().seal(&mut jobs);
        assert!(jobs[0].ok);
        let found = &padded[..padded.len().saturating_sub(claimed.into())];
        let (src, dst) = (spec.selector.src, spec.selector.dst);
        Some(match &spec.outer {
            None => (ip(src, dst, ESP, &[], &esp), ip(src, dst, next, &[], found)),
            Some(outer) => {
                let udp = udp(self.port, ENCAP_PORT, &esp);
                (ip(outer.src, outer.dst, UDP, &[], &udp), found.to_vec())
            }
        })
    }

    /// Opens what the worker has sent; [`Reason::UnknownSpi`]: it is not for
    /// this phone.
    pub(super) fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut buffer = packet.to_vec();
        let end = buffer.len();
        let packet = PacketBuf::new(&mut buffer, 0, end);
        let received =
            Received::parse(packet, EncapPort::Either(ENCAP_PORT)).map_err(|r| r.reason)?;
        let window = self.window.window();
        let last = window.top();
        let checked = received.check(&self.outbound.sa, &window)?;
        let committed = inbound::open_one(reference(), checked)?.commit(&window)?;
        assert!(committed.seq() > last, "numbers only grow");
        Ok(committed.admit()?.packet().data().to_vec())
    }
}

/// What of an IP packet comes through unchanged: not what routers change, nor a
/// TCP segment's options, of which the MSS is lowered.
pub(super) fn normal(packet: &[u8]) -> Option<Vec<u8>> {
    let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
        return None;
    };
    if ip.contradicts || ip.hidden || ip.frag.is_some() {
        return None;
    }
    let mut upper = packet[ip.l4..ip.end].to_vec();
    if ip.proto == TCP && upper.len() >= 20 {
        upper[16..18].fill(0);
        let options = (usize::from(upper[12] >> 4) * 4).clamp(20, upper.len());
        upper[20..options].fill(0);
    }
    Some([&ip.src[..], &ip.dst, &[ip.proto, ip.v6.into()], &upper].concat())
}
