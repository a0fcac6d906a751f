//! A policy: which packets need which protection.

use std::fmt;
use std::net::IpAddr;

use super::select::{Selector, Wrap};
use super::state::{Limits, Mark};

/// Where a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyDir {
    /// Packets for this host.
    In,
    /// Packets of this host.
    Out,
    /// Packets that this host passes on.
    Forward,
}

impl fmt::Display for PolicyDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PolicyDir::In => "in",
            PolicyDir::Out => "out",
            PolicyDir::Forward => "fwd",
        })
    }
}

/// What a policy does with its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// They pass, protected as the templates say.
    Allow,
    /// They are dropped.
    Block,
}

/// What a state must be for a policy's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    /// Source address outside; unspecified: any. Tunnels only.
    pub src: IpAddr,
    /// Destination address outside; unspecified: that of the packet.
    pub dst: IpAddr,
    /// SPI, host byte order; 0: any.
    pub spi: u32,
    /// IP protocol.
    pub proto: u8,
    /// Transport or tunnel.
    pub wrap: Wrap,
    /// The state's; 0: any.
    pub reqid: u32,
    /// Whether a packet may come without.
    pub optional: bool,
}

/// What names a policy: in one direction there is one of a selector, mark and
/// interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyId {
    /// Where it is asked.
    pub dir: PolicyDir,
    /// Its packets.
    pub selector: Selector,
    /// Mark that packets need.
    pub mark: Option<Mark>,
    /// Of XFRM interfaces; 0: none.
    pub if_id: u32,
}

/// `out 192.0.2.1/32 port 5060 -> ...`.
impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dir, self.selector)
    }
}

/// A policy in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub id: PolicyId,
    /// What it does.
    pub action: Action,
    /// The lower one is asked first.
    pub priority: u32,
    /// All of them must be there on a packet in, and are put on a packet out.
    pub templates: Vec<Template>,
    /// The kernel's number for it; 0 in what is sent to the kernel.
    pub index: u32,
    /// When it ends by itself.
    pub limits: Limits,
    /// XFRM_POLICY_LOCALOK (1), XFRM_POLICY_ICMP (2).
    pub flags: u8,
    /// When it was made, in seconds since 1970; not sent.
    pub added: u64,
    /// When it was used first, in seconds since 1970; 0: never; not sent.
    pub first_used: u64,
}

impl Policy {
    /// Whether it does the same with the same packets.
    pub fn is_same(&self, other: &Policy) -> bool {
        self.id == other.id
            && self.action == other.action
            && self.priority == other.priority
            && self.templates == other.templates
            && self.flags == other.flags
    }
}
