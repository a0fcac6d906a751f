//! A security association: what both directions need to know of it.

use std::net::IpAddr;
use std::sync::Arc;

use gm_engines::{Key, KeyError};

use crate::keys::EspKeys;
use crate::replay::{MAX_SIZE, MIN_SIZE};
use crate::sa_key::{Common, Ends, SaKey, address};
use crate::selector::{SelProto, Selector};
use crate::suite::Suite;

/// How packets are wrapped (TS 33.203 7.1, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Transport mode, raw ESP.
    Trans,
    /// Tunnel mode, ESP in UDP (RFC 3948), for phones behind a NAT.
    UdpEncTun,
}

/// The outer header of UDP-encapsulated tunnel mode, as the packet carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outer {
    /// Source address. Not checked on packets that come in: a NAT owns it.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// UDP source port; `None`: 4500. Not checked on packets that come in.
    pub sport: Option<u16>,
    /// UDP destination port; `None`: not known yet, to be learnt.
    pub dport: Option<u16>,
}

/// What an SA is, without its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SaSpec {
    /// SPI, host byte order; 0 to 255 are reserved (RFC 4303 2.1).
    pub spi: u32,
    /// Wrapping.
    pub mode: Mode,
    /// Traffic.
    pub selector: Selector,
    /// Algorithms.
    pub suite: Suite,
    /// Outer header; there for UDP-enc-tun and only there.
    pub outer: Option<Outer>,
    /// Extended sequence numbers (RFC 4303 2.2.1).
    pub esn: bool,
    /// Replay window of an inbound SA, 32 to 4096 numbers.
    pub replay_window: u32,
}

impl SaSpec {
    /// The destination address that packets of this SA carry outside; with the
    /// SPI it names the SA.
    pub fn destination(&self) -> IpAddr {
        match &self.outer {
            Some(outer) => outer.dst,
            None => self.selector.dst,
        }
    }

    /// The source address that packets of this SA carry outside when they leave.
    pub fn source(&self) -> IpAddr {
        match &self.outer {
            Some(outer) => outer.src,
            None => self.selector.src,
        }
    }
}

/// Why a specification is no SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaError {
    /// 0 to 255 are reserved (RFC 4303 2.1).
    #[error("SPI {0} is reserved; SPIs begin at 256")]
    ReservedSpi(u32),
    /// One selector address is IPv4 and the other IPv6.
    #[error("src and dst are not of one address family")]
    Families,
    /// One outer address is IPv4 and the other IPv6.
    #[error("outer_src and outer_dst are not of one address family")]
    OuterFamilies,
    /// UDP-enc-tun without outer addresses.
    #[error("mode udp-enc-tun needs outer addresses")]
    OuterMissing,
    /// Transport mode with outer addresses.
    #[error("mode trans has no outer addresses")]
    OuterGiven,
    /// The window has another size than 32 to 4096.
    #[error("a replay window has {MIN_SIZE} to {MAX_SIZE} numbers, not {0}")]
    ReplayWindow(u32),
    /// The keys are for another suite.
    #[error("the SA has suite {spec}, its keys are for {keys}")]
    Suite {
        /// Suite of the specification.
        spec: Suite,
        /// Suite of the keys.
        keys: Suite,
    },
    /// The key was expanded for SAs between other addresses.
    #[error("the SA has other addresses than its key is for")]
    Addresses,
    /// The engine refuses the keys.
    #[error(transparent)]
    Key(#[from] KeyError),
}

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
        if self.has(OUTER) {
            self.pair(2, self.has(OUTER_V6))
        } else {
            self.pair(0, self.has(V6))
        }
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
mod tests {
    use super::*;
    use crate::keys::{Ck, Ik};

    fn every_spec() -> impl Iterator<Item = SaSpec> {
        let v4 = |n| IpAddr::from([192, 0, 2, n]);
        let v6 = |n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
        let outers = [
            None,
            Some((v4(7), v4(8), None, Some(4500))),
            Some((v6(7), v6(8), Some(4501), None)),
        ];
        let inners = [(v4(1), v4(2)), (v6(1), v6(2))];
        let ports = [
            (None, None),
            (Some(5060), None),
            (None, Some(0)),
            (Some(1), Some(2)),
        ];
        let all = inners
            .into_iter()
            .flat_map(move |i| outers.map(move |o| (i, o)));
        let all = all.flat_map(move |(i, o)| ports.map(move |p| (i, o, p)));
        let all = all.flat_map(|(i, o, p)| Suite::every().map(move |s| (i, o, p, s)));
        all.map(|((src, dst), outer, (src_port, dst_port), suite)| SaSpec {
            spi: 0xffff_fffe,
            mode: outer.map_or(Mode::Trans, |_| Mode::UdpEncTun),
            selector: Selector {
                src,
                dst,
                src_port,
                dst_port,
                proto: if src_port == Some(1) {
                    SelProto::Any
                } else {
                    SelProto::UdpTcp
                },
            },
            suite,
            outer: outer.map(|(src, dst, sport, dport)| Outer {
                src,
                dst,
                sport,
                dport,
            }),
            esn: dst_port.is_none(),
            replay_window: if src_port.is_none() { MAX_SIZE } else { 33 },
        })
    }

    /// The same the other way.
    fn back(spec: SaSpec) -> SaSpec {
        let (s, o) = (spec.selector, spec.outer);
        let selector = Selector {
            src: s.dst,
            dst: s.src,
            ..s
        };
        let outer = o.map(|o| Outer {
            src: o.dst,
            dst: o.src,
            ..o
        });
        SaSpec {
            selector,
            outer,
            ..spec
        }
    }

    #[test]
    fn an_sa_is_what_it_was_made_of_both_ways_with_one_key() {
        for spec in every_spec() {
            let keys = EspKeys::expand(
                spec.suite,
                &Ik::from_bytes([1; 16]),
                &Ck::from_bytes([2; 16]),
            );
            let key = SaKey::new(&keys, &spec).ok().unwrap();
            for spec in [spec, back(spec)] {
                let sa = Sa::with_key(spec, &key).ok().unwrap();
                assert_eq!(sa.spec(), spec);
                assert_eq!(sa.destination(), spec.destination());
                assert_eq!(sa.source(), spec.source());
            }
        }
    }

    #[test]
    fn a_key_is_for_its_addresses_only() {
        for spec in every_spec() {
            let keys = EspKeys::expand(
                spec.suite,
                &Ik::from_bytes([1; 16]),
                &Ck::from_bytes([2; 16]),
            );
            let key = SaKey::new(&keys, &spec).ok().unwrap();
            assert!(key.is_for(&spec) && key.is_for(&back(spec)));
            let mut other = spec;
            other.selector.src = other.selector.dst;
            assert!(!key.is_for(&other));
            let refused = Sa::with_key(other, &key).err();
            assert!(matches!(refused, Some(SaError::Addresses)));
            // One end turned is neither direction.
            if let Some(outer) = spec.outer {
                let mut other = spec;
                other.outer = Some(Outer {
                    src: outer.dst,
                    dst: outer.src,
                    ..outer
                });
                assert!(!key.is_for(&other));
            }
        }
    }
}
