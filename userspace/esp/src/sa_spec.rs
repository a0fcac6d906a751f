//! What an SA is, without its keys, and why it is none.

use std::net::IpAddr;

use gm_engines::KeyError;

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
    /// The key was expanded for SAs between other addresses.
    #[error("the SA has other addresses than its key is for")]
    Addresses,
    /// The engine refuses the keys.
    #[error(transparent)]
    Key(#[from] KeyError),
}
