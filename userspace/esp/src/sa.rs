//! A security association: what both directions need to know of it.

use std::net::IpAddr;
use std::sync::Arc;

use gm_engines::{Key, KeyError};

use crate::keys::EspKeys;
use crate::replay::{MAX_SIZE, MIN_SIZE};
use crate::selector::Selector;
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
    /// The engine refuses the keys.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A security association, made once and never changed; what changes from
/// packet to packet (window, counter, learnt port) lives elsewhere.
///
/// No `Debug`, so that no key gets into a log by accident: print `spec`.
pub struct Sa {
    /// What it is.
    pub spec: SaSpec,
    key: Arc<Key>,
}

/// An expanded key, for all SAs that have it: as a rule the four of a set. It is
/// wiped with the last of them.
///
/// No `Debug`, and no way back to the bytes.
#[derive(Clone)]
pub struct SaKey {
    suite: Suite,
    key: Arc<Key>,
}

impl SaKey {
    /// Expands keys, which takes about as long as sealing a packet.
    ///
    /// # Errors
    /// [`SaError::Key`].
    pub fn new(keys: &EspKeys) -> Result<SaKey, SaError> {
        let suite = keys.suite();
        let key = Key::new(
            suite.transform(),
            keys.integrity().unwrap_or_default(),
            keys.encryption().unwrap_or_default(),
            keys.salt().unwrap_or_default(),
        )?;
        Ok(SaKey {
            suite,
            key: Arc::new(key),
        })
    }
}

impl Sa {
    /// Checks the specification and expands the keys.
    ///
    /// # Errors
    /// [`SaError`] names what does not fit.
    pub fn new(spec: SaSpec, keys: &EspKeys) -> Result<Sa, SaError> {
        Sa::with_key(spec, &SaKey::new(keys)?)
    }

    /// [`Sa::new`] for an SA that another P-CSCF has set up. It may have an SPI
    /// from 1 to 255: those are reserved (RFC 4303 2.1), but Kamailio's begin at
    /// 100 unless it is told otherwise, and phones take them.
    ///
    /// # Errors
    /// As [`Sa::new`].
    pub fn adopted(spec: SaSpec, keys: &EspKeys) -> Result<Sa, SaError> {
        Sa::adopted_with_key(spec, &SaKey::new(keys)?)
    }

    /// [`Sa::new`] with keys that are expanded already.
    ///
    /// # Errors
    /// As [`Sa::new`].
    pub fn with_key(spec: SaSpec, key: &SaKey) -> Result<Sa, SaError> {
        if spec.spi < 256 {
            return Err(SaError::ReservedSpi(spec.spi));
        }
        Sa::adopted_with_key(spec, key)
    }

    /// [`Sa::adopted`] with keys that are expanded already.
    ///
    /// # Errors
    /// As [`Sa::new`].
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
        if !(MIN_SIZE..=MAX_SIZE).contains(&spec.replay_window) {
            return Err(SaError::ReplayWindow(spec.replay_window));
        }
        if spec.suite != key.suite {
            return Err(SaError::Suite {
                spec: spec.suite,
                keys: key.suite,
            });
        }
        Ok(Sa {
            spec,
            key: key.key.clone(),
        })
    }

    /// The destination address that packets of this SA carry outside; with the
    /// SPI it names the SA.
    pub fn destination(&self) -> IpAddr {
        self.spec.destination()
    }

    /// The last sequence number that may be sent.
    ///
    /// 2^32 - 1 without ESN. So with ESN, too, for GCM and GMAC: their IV is
    /// SPI and 32 bits of number, and none may come twice under one key. The
    /// other suites with ESN have 2^64 - 1.
    pub fn seq_limit(&self) -> u64 {
        if self.spec.esn && !self.spec.suite.transform().has_salt() {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        }
    }

    /// The expanded key, for engines and for asking for its memory early.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The high half of the number where the ICV covers it.
    pub(crate) fn seq_hi(&self, seq: u64) -> Option<u32> {
        self.spec.esn.then_some((seq >> 32) as u32)
    }
}
