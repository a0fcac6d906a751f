//! How a packet ends here: the one place where a worker counts a drop, for
//! everybody, for its SA and for its source, and shows a few of many.

use gm_abi::maps::Addr;
use gm_abi::verdict::Reason;
use gm_abi::wire::{self, Class, ESP, EncapPort, L3, UDP};
use gm_esp::Received;

use super::Ctx;
use crate::config::map_addr;
use crate::drops::{DropSample, Station, from_map, monotonic_ns};
use crate::table::Entry;

/// What a packet showed before it was opened or sealed; its outermost headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// It was to leave: what it counts for is where it was going.
    pub outbound: bool,
    /// What follows the IP header; 0: there was none to read.
    pub proto: u8,
    pub src: Addr,
    pub dst: Addr,
    /// Ports of UDP or TCP, source first.
    pub ports: Option<(u16, u16)>,
    /// SPI and sequence number.
    pub esp: Option<(u32, u32)>,
    /// Bytes of the IP packet.
    pub len: u32,
}

impl Seen {
    /// What the IP packet that begins at `l3` of `bytes` shows. `encap_port`:
    /// where ESP in UDP is told from other UDP.
    pub(crate) fn of(bytes: &[u8], l3: usize, encap_port: u16, outbound: bool) -> Seen {
        let L3::Ip(ip) = wire::parse_ip(bytes, l3) else {
            return Seen {
                outbound,
                ..Seen::default()
            };
        };
        let esp = match wire::classify(bytes, &ip, EncapPort::Either(encap_port)) {
            Class::Esp { spi, seq, .. } | Class::UdpEsp { spi, seq, .. } => Some((spi, seq)),
            Class::Malformed { head } => head,
            _ => None,
        };
        Seen {
            outbound,
            proto: ip.proto,
            src: ip.src,
            dst: ip.dst,
            ports: ip.ports,
            esp,
            len: length(ip.end.saturating_sub(l3)),
        }
    }

    /// An ESP packet of `len` bytes that came to `encap_port` when it is in UDP.
    pub(super) fn received(r: &Received<'_>, len: usize, encap_port: u16) -> Seen {
        let (src, port) = r.outer_source();
        let in_udp = r.encapsulated();
        Seen {
            outbound: false,
            proto: if in_udp { UDP } else { ESP },
            src: map_addr(src),
            dst: map_addr(r.destination()),
            ports: in_udp.then_some((port, encap_port)),
            esp: Some((r.spi(), r.seq())),
            len: length(len),
        }
    }

    /// The other end: whose prefix its end is counted for.
    pub(crate) fn peer(&self) -> Option<Addr> {
        let peer = if self.outbound { self.dst } else { self.src };
        (self.proto != 0).then_some(peer)
    }

    fn sample(&self, reason: Reason) -> Option<DropSample> {
        (self.proto != 0).then(|| DropSample {
            at: monotonic_ns(),
            reason,
            station: Station::Worker,
            outbound: self.outbound,
            interface: 0,
            proto: self.proto,
            src: from_map(self.src),
            dst: from_map(self.dst),
            src_port: self.ports.map(|(src, _)| src),
            dst_port: self.ports.map(|(_, dst)| dst),
            spi: self.esp.map(|(spi, _)| spi),
            seq: self.esp.map(|(_, seq)| seq),
            len: self.len,
        })
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Ctx {
    /// Counts the end of a packet: its reason, for the SA when it is one of its
    /// own, and for the prefix that it came from or was going to. A forged one
    /// counts against both.
    pub(crate) fn drop_from(&self, entry: Option<&Entry>, reason: Reason, seen: &Seen) {
        self.counters.count(reason);
        if let Some(slot) = entry.and_then(|e| self.region.slot(e.slot)) {
            slot.count_drop(reason);
        }
        if let Some(peer) = seen.peer() {
            self.published.tables.count(&peer, reason);
        }
        if let Some(entry) = entry.filter(|_| reason == Reason::BadIcv) {
            self.forged(entry, seen);
        }
        self.sampler.sample(reason, || seen.sample(reason));
    }

    /// The same for a packet that is still there, from its IP header at `l3`.
    pub(crate) fn drop_packet(
        &self,
        entry: Option<&Entry>,
        reason: Reason,
        (bytes, l3): (&[u8], usize),
        outbound: bool,
    ) {
        let seen = Seen::of(bytes, l3, self.settings.encap_port, outbound);
        self.drop_from(entry, reason, &seen);
    }
}
