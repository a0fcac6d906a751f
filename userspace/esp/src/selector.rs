//! Which traffic an SA is for (TS 33.203 7.1, RFC 4301 4.4.1.1).

use std::net::IpAddr;

use gm_abi::wire::{IpPacket, TCP, UDP};

/// Upper-layer protocols that an SA carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SelProto {
    /// UDP and TCP: both transports of SIP share one SA (TS 33.203 7.1).
    #[default]
    UdpTcp,
    /// Any protocol.
    Any,
}

/// The traffic of one SA, as the protected packet carries it: the inner
/// addresses where there is an outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port; `None`: any.
    pub src_port: Option<u16>,
    /// Destination port; `None`: any.
    pub dst_port: Option<u16>,
    /// Protocols.
    pub proto: SelProto,
}

/// What a packet shows to a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerFlow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Source and destination port where the protocol has some and the packet
    /// shows them.
    pub ports: Option<(u16, u16)>,
}

impl InnerFlow {
    /// What the parser saw.
    pub fn of(ip: &IpPacket) -> InnerFlow {
        InnerFlow {
            src: address(&ip.src, ip.v6),
            dst: address(&ip.dst, ip.v6),
            proto: ip.proto,
            ports: ip.ports,
        }
    }
}

/// An address of the parser, which shows IPv4 as IPv4-mapped. An IPv6 packet
/// with an IPv4-mapped address keeps it: it is not the IPv4 host.
pub(crate) fn address(bytes: &[u8; 16], v6: bool) -> IpAddr {
    match bytes {
        [.., a, b, c, d] if !v6 => IpAddr::from([*a, *b, *c, *d]),
        _ => IpAddr::from(*bytes),
    }
}

impl Selector {
    /// Whether the traffic is this SA's.
    ///
    /// A packet that does not show its ports matches only where any will do.
    pub fn matches(&self, flow: &InnerFlow) -> bool {
        let (src_port, dst_port) = match flow.ports {
            Some((src, dst)) => (Some(src), Some(dst)),
            None => (None, None),
        };
        self.src == flow.src
            && self.dst == flow.dst
            && (self.src_port.is_none() || self.src_port == src_port)
            && (self.dst_port.is_none() || self.dst_port == dst_port)
            && (self.proto == SelProto::Any || matches!(flow.proto, UDP | TCP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> InnerFlow {
        InnerFlow {
            src: IpAddr::from([192, 0, 2, 1]),
            dst: IpAddr::from([192, 0, 2, 2]),
            proto: UDP,
            ports: Some((5060, 5062)),
        }
    }

    fn selector() -> Selector {
        Selector {
            src: flow().src,
            dst: flow().dst,
            src_port: Some(5060),
            dst_port: Some(5062),
            proto: SelProto::UdpTcp,
        }
    }

    #[test]
    fn both_transports_match() {
        assert!(selector().matches(&flow()));
        assert!(selector().matches(&InnerFlow {
            proto: TCP,
            ..flow()
        }));
    }

    #[test]
    fn each_part_counts() {
        let other = IpAddr::from([192, 0, 2, 3]);
        let strangers = [
            InnerFlow {
                src: other,
                ..flow()
            },
            InnerFlow {
                dst: other,
                ..flow()
            },
            InnerFlow {
                ports: Some((1, 5062)),
                ..flow()
            },
            InnerFlow {
                ports: Some((5060, 1)),
                ..flow()
            },
            InnerFlow {
                ports: None,
                ..flow()
            },
            InnerFlow {
                proto: 132,
                ..flow()
            },
        ];
        for stranger in strangers {
            assert!(!selector().matches(&stranger), "{stranger:?}");
        }
    }

    #[test]
    fn absent_ports_and_any_match_more() {
        let open = Selector {
            src_port: None,
            dst_port: None,
            proto: SelProto::Any,
            ..selector()
        };
        assert!(open.matches(&InnerFlow {
            proto: 1,
            ports: None,
            ..flow()
        }));
    }

    #[test]
    fn a_mapped_ipv6_address_is_not_the_ipv4_host() {
        let mapped = gm_abi::maps::mapped([192, 0, 2, 1]);
        assert_eq!(address(&mapped, false), flow().src);
        assert_ne!(address(&mapped, true), flow().src);
    }
}
