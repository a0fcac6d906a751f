//! A security association: what both directions need to know of it.

use std::net::IpAddr;
use std::sync::Arc;

use gm_abi::wire::{TCP, UDP};
use gm_engines::Key;

use crate::keys::EspKeys;
use crate::replay::{MAX_SIZE, MIN_SIZE};
use crate::sa_key::{Common, Ends, SaKey, address};
use crate::selector::{InnerFlow, SelProto, Selector};
use crate::suite::Suite;

pub use crate::sa_spec::{Mode, Outer, SaError, SaSpec};

/// A security association, made once and never changed; what changes from
/// packet to packet (window, counter, learnt port) lives elsewhere.
///
/// Small, and cheap to clone: key and addresses lie with the [`SaKey`], once for
/// all SAs of a set. No `Debug`, so that no key gets into a log by accident:
/// print [`Sa::spec`].
#[derive(Clone)]
pub struct Sa {
    common: Arc<Common>,
    spi: u32,
    /// Source, destination, outer source, outer destination; those that are not
    /// there are zero and have no flag.
    ports: [u16; 4],
    window: u16,
    flags: u16,
}

const _: () = assert!(size_of::<Sa>() == 24);

/// Flag of the first port; the others follow.
const PORT: u16 = 1;
const ESN: u16 = 1 << 4;
/// Any protocol.
const ANY: u16 = 1 << 5;
/// There is an outer header, so UDP-enc-tun.
const OUTER: u16 = 1 << 6;
/// Source and destination are the other way round than with the key.
const TURNED: u16 = 1 << 7;
const V6: u16 = 1 << 8;
const OUTER_V6: u16 = 1 << 9;
/// Where the suite's number begins, three bits.
const SUITE: u16 = 10;

/// The suites in the order of their numbers.
const SUITES: [Suite; 8] = [
    Suite::HmacSha1Null,
    Suite::HmacSha1AesCbc,
    Suite::AesGmacNull,
    Suite::NullAesGcm,
    Suite::HmacMd5Null,
    Suite::HmacMd5AesCbc,
    Suite::HmacMd5DesEde3Cbc,
    Suite::HmacSha1DesEde3Cbc,
];

impl Sa {
    /// Checks the specification and expands the keys.
    ///
    /// # Errors
    /// [`SaError`] names what does not fit.
    pub fn new(spec: SaSpec, keys: &EspKeys) -> Result<Sa, SaError> {
        Sa::with_key(spec, &SaKey::new(keys, &spec)?)
    }

    /// [`Sa::new`] for an SA that another P-CSCF has set up. It may have an SPI
    /// from 1 to 255: those are reserved (RFC 4303 2.1), but Kamailio's begin at
    /// 100 unless it is told otherwise, and phones take them.
    ///
    /// # Errors
    /// As [`Sa::new`].
    pub fn adopted(spec: SaSpec, keys: &EspKeys) -> Result<Sa, SaError> {
        Sa::adopted_with_key(spec, &SaKey::new(keys, &spec)?)
    }

    /// [`Sa::new`] with keys that are expanded already.
    ///
    /// # Errors
    /// As [`Sa::new`]; [`SaError::Addresses`].
    pub fn with_key(spec: SaSpec, key: &SaKey) -> Result<Sa, SaError> {
        if spec.spi < 256 {
            return Err(SaError::ReservedSpi(spec.spi));
        }
        Sa::adopted_with_key(spec, key)
    }

    /// [`Sa::adopted`] with keys that are expanded already.
    ///
    /// # Errors
    /// As [`Sa::with_key`].
    pub fn adopted_with_key(spec: SaSpec, key: &SaKey) -> Result<Sa, SaError> {
        if spec.spi == 0 {
            return Err(SaError::ReservedSpi(spec.spi));
        }
        if spec.selector.src.is_ipv4() != spec.selector.dst.is_ipv4() {
            return Err(SaError::Families);
        }
        match (spec.mode, &spec.outer) {
            (Mode::Trans, Some(_)) => return Err(SaError::OuterGiven),
            (Mode::UdpEncTun, None) => return Err(SaError::OuterMissing),
            (_, Some(outer)) if outer.src.is_ipv4() != outer.dst.is_ipv4() => {
                return Err(SaError::OuterFamilies);
            }
            _ => {}
        }
        let window = u16::try_from(spec.replay_window).ok();
        let window = window.filter(|_| (MIN_SIZE..=MAX_SIZE).contains(&spec.replay_window));
        let window = window.ok_or(SaError::ReplayWindow(spec.replay_window))?;
        if spec.suite != key.suite {
            return Err(SaError::Suite {
                spec: spec.suite,
                keys: key.suite,
            });
        }
        let turned = key.turned(&spec).ok_or(SaError::Addresses)?;
        let mut flags = (spec.suite as u16) << SUITE;
        let mut ports = [0; 4];
        let given = [
            spec.selector.src_port,
            spec.selector.dst_port,
            spec.outer.and_then(|o| o.sport),
            spec.outer.and_then(|o| o.dport),
        ];
        for (i, port) in given.into_iter().enumerate() {
            if let Some(port) = port {
                ports[i] = port;
                flags |= PORT << i;
            }
        }
        let facts = [
            (ESN, spec.esn),
            (ANY, spec.selector.proto == SelProto::Any),
            (OUTER, spec.outer.is_some()),
            (TURNED, turned),
            (V6, spec.selector.src.is_ipv6()),
            (OUTER_V6, spec.outer.is_some_and(|o| o.src.is_ipv6())),
        ];
        for (flag, _) in facts.into_iter().filter(|(_, is)| *is) {
            flags |= flag;
        }
        Ok(Sa {
            common: key.common.clone(),
            spi: spec.spi,
            ports,
            window,
            flags,
        })
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    fn port(&self, i: usize) -> Option<u16> {
        self.has(PORT << i).then_some(self.ports[i])
    }

    /// Source and destination of the ends that begin at `from`.
    #[inline]
    fn pair(&self, from: usize, v6: bool) -> (IpAddr, IpAddr) {
        let turned = usize::from(self.has(TURNED));
        let Ends(ends) = &self.common.ends;
        (
            address(&ends[from + turned], v6),
            address(&ends[from + 1 - turned], v6),
        )
    }

    /// What it is, without its keys.
    #[inline]
    pub fn spec(&self) -> SaSpec {
        SaSpec {
            spi: self.spi,
            mode: self.mode(),
            selector: self.selector(),
            suite: self.suite(),
            outer: self.outer(),
            esn: self.esn(),
            replay_window: self.window.into(),
        }
    }

    /// SPI, host byte order.
    #[inline]
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// Wrapping.
    #[inline]
    pub fn mode(&self) -> Mode {
        if self.has(OUTER) {
            Mode::UdpEncTun
        } else {
            Mode::Trans
        }
    }

    /// Algorithms.
    #[inline]
    pub fn suite(&self) -> Suite {
        SUITES[usize::from(self.flags >> SUITE & 7)]
    }

    /// Whether it has extended sequence numbers.
    #[inline]
    pub fn esn(&self) -> bool {
        self.has(ESN)
    }

    /// Size of the replay window.
    #[inline]
    pub fn replay_window(&self) -> u32 {
        self.window.into()
    }

    /// Traffic.
    #[inline]
    pub fn selector(&self) -> Selector {
        let (src, dst) = self.pair(0, self.has(V6));
        Selector {
            src,
            dst,
            src_port: self.port(0),
            dst_port: self.port(1),
            proto: if self.has(ANY) {
                SelProto::Any
            } else {
                SelProto::UdpTcp
            },
        }
    }

    /// The outer header of UDP-enc-tun.
    #[inline]
    pub fn outer(&self) -> Option<Outer> {
        if !self.has(OUTER) {
            return None;
        }
        let (src, dst) = self.pair(2, self.has(OUTER_V6));
        Some(Outer {
            src,
            dst,
            sport: self.port(2),
            dport: self.port(3),
        })
    }

    /// Whether packets of this SA carry this destination outside: as
    /// [`Sa::destination`] says, and faster.
    #[inline]
    pub fn is_to(&self, dst: &IpAddr) -> bool {
        let (from, v6) = self.outside_at();
        self.is_end(from + 1, v6, dst)
    }

    /// Whether the selector names a port.
    #[inline]
    pub fn names_ports(&self) -> bool {
        self.has(PORT | PORT << 1)
    }

    /// Whether the traffic is this SA's: as [`Selector::matches`] says, and
    /// faster.
    #[inline]
    pub fn matches(&self, flow: &InnerFlow) -> bool {
        let v6 = self.has(V6);
        let (src, dst) = flow.ports.unwrap_or_default();
        let is_port = |i: usize, port: u16| !self.has(PORT << i) || self.ports[i] == port;
        self.is_end(0, v6, &flow.src)
            && self.is_end(1, v6, &flow.dst)
            && (!self.names_ports() || flow.ports.is_some() && is_port(0, src) && is_port(1, dst))
            && (self.has(ANY) || matches!(flow.proto, UDP | TCP))
    }

    /// Whether an end of this SA, in the order of [`Ends`], is this address.
    #[inline]
    fn is_end(&self, at: usize, v6: bool, addr: &IpAddr) -> bool {
        let Ends(ends) = &self.common.ends;
        let end = &ends[(at ^ usize::from(self.has(TURNED))) & 3];
        match addr {
            IpAddr::V4(addr) => !v6 && end[..4] == addr.octets(),
            IpAddr::V6(addr) => v6 && *end == addr.octets(),
        }
    }

    /// Where the outer ends begin, or the only ones; whether they are IPv6.
    #[inline]
    fn outside_at(&self) -> (usize, bool) {
        match self.has(OUTER) {
            true => (2, self.has(OUTER_V6)),
            false => (0, self.has(V6)),
        }
    }

    /// The destination address that packets of this SA carry outside; with the
    /// SPI it names the SA.
    #[inline]
    pub fn destination(&self) -> IpAddr {
        self.outside().1
    }

    /// The source address that packets of this SA carry outside when they leave.
    #[inline]
    pub fn source(&self) -> IpAddr {
        self.outside().0
    }

    #[inline]
    fn outside(&self) -> (IpAddr, IpAddr) {
        let (from, v6) = self.outside_at();
        self.pair(from, v6)
    }

    /// The last sequence number that may be sent.
    ///
    /// 2^32 - 1 without ESN. So with ESN, too, for GCM and GMAC: their IV is
    /// SPI and 32 bits of number, and none may come twice under one key. The
    /// other suites with ESN have 2^64 - 1.
    pub fn seq_limit(&self) -> u64 {
        if self.esn() && !self.suite().transform().has_salt() {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        }
    }

    /// The expanded key, for engines and for asking for its memory early.
    pub fn key(&self) -> &Key {
        &self.common.key
    }

    /// The addresses, for asking for their memory early.
    pub fn ends(&self) -> &Ends {
        &self.common.ends
    }

    /// The high half of the number where the ICV covers it.
    pub(crate) fn seq_hi(&self, seq: u64) -> Option<u32> {
        self.esn().then_some((seq >> 32) as u32)
    }
}

#[cfg(test)]
#[path = "sa_tests.rs"]
mod tests;
