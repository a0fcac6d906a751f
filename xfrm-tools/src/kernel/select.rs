//! Traffic as the kernel selects it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net {
    /// The address.
    pub addr: IpAddr,
    /// Bits that count, 0 to 32 or 128.
    pub prefix: u8,
}

impl Net {
    /// One host.
    pub const fn host(addr: IpAddr) -> Net {
        let prefix = match addr {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Net { addr, prefix }
    }

    /// All addresses of the family.
    pub const fn any(v6: bool) -> Net {
        let addr = unspecified(v6);
        Net { addr, prefix: 0 }
    }

    /// Whether exactly one address is meant.
    pub fn is_host(&self) -> bool {
        *self == Net::host(self.addr)
    }
}

/// The address that stands for none and for any.
pub const fn unspecified(v6: bool) -> IpAddr {
    match v6 {
        false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// `192.0.2.0/24`.
impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// Ports: those that are equal to `port` in the bits of `mask`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The port, host byte order.
    pub port: u16,
    /// Bits that count; 0: any port.
    pub mask: u16,
}

impl Ports {
    /// Any port.
    pub const ANY: Ports = Ports { port: 0, mask: 0 };

    /// One port.
    pub const fn one(port: u16) -> Ports {
        let mask = u16::MAX;
        Ports { port, mask }
    }

    /// The port where exactly one is meant.
    pub fn exact(&self) -> Option<u16> {
        (self.mask == u16::MAX).then_some(self.port)
    }
}

impl From<Option<u16>> for Ports {
    fn from(port: Option<u16>) -> Ports {
        port.map_or(Ports::ANY, Ports::one)
    }
}

/// Which packets a state or a policy is for. Source and destination are of one
/// family.
///
/// With `proto` 0 the ports are compared all the same: for UDP and TCP (and
/// UDP-Lite and SCTP) alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    /// Source addresses.
    pub src: Net,
    /// Destination addresses.
    pub dst: Net,
    /// Source ports.
    pub sport: Ports,
    /// Destination ports.
    pub dport: Ports,
    /// IP protocol; 0: any.
    pub proto: u8,
    /// Interface; 0: any.
    pub ifindex: i32,
    /// User; 0: any.
    pub user: u32,
}

impl Selector {
    /// Between two nets, whatever protocol and ports.
    pub const fn between(src: Net, dst: Net) -> Selector {
        Selector {
            src,
            dst,
            sport: Ports::ANY,
            dport: Ports::ANY,
            proto: 0,
            ifindex: 0,
            user: 0,
        }
    }

    /// Everything of one family.
    pub const fn all(v6: bool) -> Selector {
        Selector::between(Net::any(v6), Net::any(v6))
    }

    /// Whether the addresses are IPv6.
    pub const fn is_v6(&self) -> bool {
        self.src.addr.is_ipv6()
    }
}

/// `192.0.2.1/32 port 5060 -> 192.0.2.2/32 port 5062 udp`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |f: &mut fmt::Formatter<'_>, net: &Net, ports: &Ports| {
            write!(f, "{net}")?;
            match (ports.mask, ports.exact()) {
                (0, _) => Ok(()),
                (_, Some(port)) => write!(f, " port {port}"),
                (mask, None) => write!(f, " port {}/{mask:#06x}", ports.port),
            }
        };
        side(f, &self.src, &self.sport)?;
        f.write_str(" -> ")?;
        side(f, &self.dst, &self.dport)?;
        match self.proto {
            0 => Ok(()),
            6 => f.write_str(" tcp"),
            17 => f.write_str(" udp"),
            proto => write!(f, " protocol {proto}"),
        }
    }
}

/// How the kernel wraps packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wrap {
    /// Transport mode.
    Transport,
    /// Tunnel mode.
    Tunnel,
    /// Something that Gm has no use for, by its number.
    Other(u8),
}

impl fmt::Display for Wrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrap::Transport => f.write_str("transport"),
            Wrap::Tunnel => f.write_str("tunnel"),
            Wrap::Other(number) => write!(f, "mode {number}"),
        }
    }
}
