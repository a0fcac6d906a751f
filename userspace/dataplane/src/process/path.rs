//! What routers say about our ESP: ICMP errors that quote it (RFC 4301 6.2 and
//! 8.2, RFC 1191, RFC 8201).
//!
//! Nobody vouches for an ICMP error. It is believed when what it quotes was
//! sent here a moment ago: an active outbound SA's SPI, addresses, ports and
//! one of its last numbers, in a packet longer than it is said to be allowed
//! to. Nothing else of it is used, and the worst that a lie does is smaller
//! packets for ten minutes: no smaller than every path takes.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use gm_abi::verdict::Reason;
use gm_abi::wire::{self, ESP, ICMP, ICMP_HEADER, ICMPV6, IpPacket, L3, UDP, UDP_HEADER};
use gm_esp::{Mode, Sa};

use super::Ctx;
use super::ends::Seen;
use crate::Event;
use crate::checksum;
use crate::config::map_addr;
use crate::table::Entry;

/// Numbers of an SA that may still be on their way or in a router's answer.
const LATELY: u32 = 4096;

/// How long a path MTU is believed, in milliseconds: as long as Linux does.
const LIFE: u64 = 600_000;

/// The smallest path MTU that is believed: what Linux takes by default.
const LEAST_V4: usize = 552;
/// The smallest MTU of an IPv6 link (RFC 8200 5).
const LEAST_V6: usize = 1280;

/// MTUs to try below a packet that a router of before 1990 has refused without
/// a number (RFC 1191 7.1).
const PLATEAUS: [usize; 5] = [8166, 4352, 2002, 1492, 1006];

/// The shortest packet that the local stack can be told to send: it does not
/// believe less either.
pub(super) fn least(v6: bool) -> usize {
    if v6 { LEAST_V6 } else { LEAST_V4 }
}

/// What is known of the path of an SA's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// Longest packet that gets through; 0: nothing is known.
    mtu: u16,
    /// The path takes even less than the least that is believed (IPv4): then
    /// routers have to be allowed to cut.
    tiny: bool,
    /// When that is forgotten, on the worker's clock.
    until: u64,
}

impl Path {
    fn at(self, now: u64) -> Option<Path> {
        (self.mtu != 0 && now < self.until).then_some(self)
    }
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A packet is too big; this long it may be, or (IPv4) nobody says how long.
    TooBig(Option<usize>),
    /// Anything else: it did not arrive.
    Lost,
}

/// The ESP packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quoted {
    pub v6: bool,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// In UDP: source and destination port.
    ports: Option<(u16, u16)>,
    pub spi: u32,
    pub seq: u32,
    /// Bytes of the packet, as its header has it.
    pub len: usize,
}

impl Quoted {
    /// It counts for the phone that cannot be reached, not for the router.
    fn seen(&self) -> Seen {
        Seen {
            outbound: true,
            proto: if self.ports.is_some() { UDP } else { ESP },
            src: map_addr(self.src),
            dst: map_addr(self.dst),
            ports: self.ports,
            esp: Some((self.spi, self.seq)),
            len: u32::try_from(self.len).unwrap_or(u32::MAX),
        }
    }
}

impl Ctx {
    /// The longest packet that may leave through an outbound SA.
    pub(super) fn mtu(&self, entry: &Entry) -> usize {
        let uplink = self.settings.mtu();
        let path = entry.path().at(self.now);
        path.map_or(uplink, |path| uplink.min(path.mtu.into()))
    }

    /// The same for what answers to an inbound SA's packets, so for all
    /// outbound ones of the set.
    pub(super) fn mtu_back(&self, entry: &Entry) -> usize {
        let partners = entry.partners().iter();
        let mtus = partners.filter_map(|slot| Some(self.mtu(self.table.get(*slot)?)));
        mtus.min().unwrap_or_else(|| self.settings.mtu())
    }

    /// Whether routers have to cut even the shortest packets of an SA.
    pub(super) fn is_tiny(&self, entry: &Entry) -> bool {
        entry.path().at(self.now).is_some_and(|path| path.tiny)
    }

    /// Whether an ICMP error is about ESP of the kernel's SAs, as far as we can
    /// know: not of ours. The kernel judges it as if we were not there.
    pub(super) fn is_about_kernel(&self, bytes: &[u8], l3: usize) -> bool {
        let quoted = || read(bytes.get(l3..)?, self.settings.encap_port);
        self.settings.kernel_sas
            && quoted().is_some_and(|(_, q)| self.table.by_peer(q.dst, q.spi).is_none())
    }

    /// Takes an ICMP error that was found to quote ESP, an IP packet at `l3`,
    /// and counts its end.
    pub(super) fn icmp_in(&self, bytes: &[u8], l3: usize) {
        let packet = bytes.get(l3..).unwrap_or_default();
        let end = read(packet, self.settings.encap_port).and_then(|(told, quoted)| {
            let entry = self.sender(&quoted)?;
            let reason = match told {
                Told::Lost => Reason::PeerUnreachable,
                Told::TooBig(mtu) => self.believe(entry, &quoted, mtu)?,
            };
            Some((entry, reason, quoted.seen()))
        });
        match end {
            Some((entry, reason, seen)) => self.drop_from(Some(entry), reason, &seen),
            None => self.drop_packet(None, Reason::IcmpUnbelieved, (bytes, l3), false),
        }
    }

    /// The SA that has sent what is quoted, lately.
    fn sender(&self, quoted: &Quoted) -> Option<&Entry> {
        let entry = self.table.by_peer(quoted.dst, quoted.spi)?;
        let hot = self.hot(entry)?;
        let last = hot.seq.load(Ordering::Relaxed);
        let ago = (last as u32).wrapping_sub(quoted.seq);
        let lately = ago < LATELY && u64::from(ago) < last;
        let learnt = hot.encap_port.load(Ordering::Relaxed);
        (lately && self.is_from(&entry.sa, quoted, learnt)).then_some(entry)
    }

    /// Whether the quoted packet has the outside of an SA's packets.
    fn is_from(&self, sa: &Sa, quoted: &Quoted, learnt: u32) -> bool {
        let local = sa.spec().source();
        // A NAT in front of this host may leave in the quote what it has made
        // of our address.
        let ours = quoted.src == local || quoted.src == self.settings.advertised.of(local);
        let outside = match (sa.mode(), quoted.ports) {
            (Mode::Trans, None) => true,
            (Mode::UdpEncTun, Some((_, dport))) => {
                let given = sa.outer().and_then(|o| o.dport);
                let known = if learnt != 0 {
                    Some(learnt)
                } else {
                    given.map(u32::from)
                };
                known == Some(dport.into())
            }
            _ => false,
        };
        ours && outside
    }

    /// Notes a path MTU. `None`: it cannot be true.
    pub(super) fn believe(
        &self,
        entry: &Entry,
        quoted: &Quoted,
        mtu: Option<usize>,
    ) -> Option<Reason> {
        let mtu = match mtu {
            Some(mtu) => mtu,
            None => {
                let below = PLATEAUS.into_iter().find(|mtu| *mtu < quoted.len);
                below.unwrap_or(LEAST_V4)
            }
        };
        if mtu >= quoted.len {
            return None;
        }
        let least = least(quoted.v6);
        let path = Path {
            mtu: u16::try_from(mtu.max(least)).ok()?,
            tiny: !quoted.v6 && mtu < least,
            until: self.now.saturating_add(LIFE),
        };
        let known = entry.path().at(self.now);
        // Several packets were on their way: an older answer says nothing new.
        if known.is_none_or(|known| path.mtu <= known.mtu) {
            if known.is_none_or(|known| path.mtu < known.mtu) {
                self.tell(Event::PathMtu {
                    set: entry.set,
                    spi: quoted.spi,
                    mtu: path.mtu,
                });
            }
            entry.set_path(path);
        }
        Some(Reason::PathMtu)
    }
}

/// Reads an ICMP error about ESP. `None`: it is none, or damaged.
pub(super) fn read(packet: &[u8], encap_port: u16) -> Option<(Told, Quoted)> {
    let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
        return None;
    };
    let message = packet.get(ip.l4..ip.end)?;
    let [kind, code, _, _, rest @ ..] = message.first_chunk::<ICMP_HEADER>()?;
    if ip.frag.is_some() || ip.contradicts || ip.hidden {
        return None;
    }
    let told = match (ip.v6, ip.proto, kind) {
        (false, ICMP, 3) if *code == 4 => {
            let mtu = u16::from_be_bytes([rest[2], rest[3]]);
            Told::TooBig((mtu != 0).then_some(mtu.into()))
        }
        (false, ICMP, 3 | 11 | 12) => Told::Lost,
        (true, ICMPV6, 2) => {
            let mtu = u32::from_be_bytes(*rest);
            Told::TooBig(Some(usize::try_from(mtu).ok()?))
        }
        (true, ICMPV6, 1 | 3 | 4) => Told::Lost,
        _ => return None,
    };
    let pseudo = match ip.v6 {
        // Addresses, length, next header (RFC 4443 2.3).
        true => checksum::add(0, packet.get(8..40)?) + message.len() as u64 + u64::from(ICMPV6),
        false => 0,
    };
    if checksum::fold(checksum::add(pseudo, message)) != 0 {
        return None;
    }
    Some((told, quote(packet.get(..ip.end)?, &ip, encap_port)?))
}

/// Reads the beginning of a packet with ESP that an ICMP error quotes; the
/// rest of it may be missing.
fn quote(packet: &[u8], ip: &IpPacket, encap_port: u16) -> Option<Quoted> {
    let mut q = wire::Quoted::EMPTY;
    if !wire::read_quoted(packet, ip, &mut q) || q.later || q.hidden {
        return None;
    }
    let (at, ports) = match (q.proto, q.ports(packet)) {
        (ESP, _) => (q.l4, None),
        (UDP, Some(ports)) if encap_port != 0 && ports.0 == encap_port => {
            (q.l4 + UDP_HEADER, Some(ports))
        }
        _ => return None,
    };
    let [a, b, c, d, seq @ ..] = packet.get(at..)?.first_chunk::<8>()?;
    let length = |at: usize| {
        let bytes = packet.get(ip.l4 + ICMP_HEADER + at..)?.first_chunk()?;
        Some(usize::from(u16::from_be_bytes(*bytes)))
    };
    let address = |bytes: &[u8; 16]| match bytes {
        [.., a, b, c, d] if !ip.v6 => IpAddr::from([*a, *b, *c, *d]),
        _ => IpAddr::from(*bytes),
    };
    Some(Quoted {
        v6: ip.v6,
        src: address(&q.src),
        dst: address(&q.dst),
        ports,
        spi: u32::from_be_bytes([*a, *b, *c, *d]),
        seq: u32::from_be_bytes(*seq),
        len: match ip.v6 {
            true => 40 + length(4)?,
            false => length(2)?,
        },
    })
}
