//! Netlink messages of XFRM as bytes: what the kernel is sent, and what it
//! answers.
//!
//! The fixed structures are netlink-packet-xfrm's. What may hold a key
//! (algorithms) and what that crate's parser would hold twice is read and
//! written here, so that no copy of a key stays behind. Bytes of the kernel
//! are damaged or truncated at worst; they make an error, never a panic.

pub(crate) mod attrs;
pub(crate) mod event;
pub(crate) mod policy;
pub(crate) mod replay;
pub(crate) mod reply;
pub(crate) mod state;

use std::net::IpAddr;

use netlink_packet_xfrm as nl;
use zeroize::Zeroizing;

use super::select::{Net, Ports, Selector, Wrap};
use super::state::Limits;
use attrs::align;

/// Bytes of a message's header.
pub(crate) const HEADER: usize = 16;

/// Why bytes are no message that this program understands; no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub &'static str);

/// A request that is being written. Wiped when dropped.
pub(crate) struct Request {
    bytes: Zeroizing<Vec<u8>>,
}

impl Request {
    /// A request of this type; acknowledgements are always wanted but for
    /// dumps, which end by themselves.
    pub(crate) fn new(kind: u16, flags: u16) -> Request {
        // Room for all that a state takes, so that no copy is left behind: the
        // window's 512 bytes, three algorithms of at most 200, the rest small.
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | nl_request()).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Request { bytes }
    }

    /// Adds a fixed structure.
    pub(crate) fn fixed(&mut self, part: &impl netlink_packet_core::Emitable) {
        let at = self.bytes.len();
        self.bytes.resize(align(at + part.buffer_len()), 0);
        if let Some(room) = self.bytes.get_mut(at..at + part.buffer_len()) {
            part.emit(room);
        }
    }

    /// Adds an attribute.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) {
        attrs::put(&mut self.bytes, kind, value);
    }

    /// The message with its length and number.
    pub(crate) fn finish(mut self, number: u32) -> Zeroizing<Vec<u8>> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(0);
        for (at, value) in [(0, length), (8, number)] {
            if let Some(room) = self.bytes.get_mut(at..at + 4) {
                room.copy_from_slice(&value.to_ne_bytes());
            }
        }
        self.bytes
    }
}

fn nl_request() -> u16 {
    netlink_packet_core::NLM_F_REQUEST
}

pub(crate) fn family(v6: bool) -> u16 {
    if v6 { nl::AF_INET6 } else { nl::AF_INET }
}

/// Whether it is IPv6, of an address family of the kernel's.
pub(crate) fn is_v6(family: u16) -> Result<bool, Damaged> {
    match family {
        nl::AF_INET => Ok(false),
        nl::AF_INET6 => Ok(true),
        _ => Err(Damaged("an address family that is neither IPv4 nor IPv6")),
    }
}

pub(crate) fn address(address: &nl::Address, v6: bool) -> IpAddr {
    match v6 {
        true => address.to_ipv6().into(),
        false => address.to_ipv4().into(),
    }
}

pub(crate) fn wrap(mode: u8) -> Wrap {
    match mode {
        nl::XFRM_MODE_TRANSPORT => Wrap::Transport,
        nl::XFRM_MODE_TUNNEL => Wrap::Tunnel,
        other => Wrap::Other(other),
    }
}

pub(crate) fn mode(wrap: Wrap) -> u8 {
    match wrap {
        Wrap::Transport => nl::XFRM_MODE_TRANSPORT,
        Wrap::Tunnel => nl::XFRM_MODE_TUNNEL,
        Wrap::Other(number) => number,
    }
}

pub(crate) fn limits_out(limits: &Limits) -> nl::LifetimeConfig {
    nl::LifetimeConfig {
        soft_byte_limit: limits.bytes[0],
        hard_byte_limit: limits.bytes[1],
        soft_packet_limit: limits.packets[0],
        hard_packet_limit: limits.packets[1],
        soft_add_expires_seconds: limits.added[0],
        hard_add_expires_seconds: limits.added[1],
        soft_use_expires_seconds: limits.used[0],
        hard_use_expires_seconds: limits.used[1],
    }
}

pub(crate) fn limits_in(raw: &nl::LifetimeConfig) -> Limits {
    Limits {
        bytes: [raw.soft_byte_limit, raw.hard_byte_limit],
        packets: [raw.soft_packet_limit, raw.hard_packet_limit],
        added: [raw.soft_add_expires_seconds, raw.hard_add_expires_seconds],
        used: [raw.soft_use_expires_seconds, raw.hard_use_expires_seconds],
    }
}

pub(crate) fn selector_out(selector: &Selector) -> nl::Selector {
    nl::Selector {
        daddr: nl::Address::from_ip(&selector.dst.addr),
        saddr: nl::Address::from_ip(&selector.src.addr),
        dport: selector.dport.port,
        dport_mask: selector.dport.mask,
        sport: selector.sport.port,
        sport_mask: selector.sport.mask,
        family: family(selector.is_v6()),
        prefixlen_d: selector.dst.prefix,
        prefixlen_s: selector.src.prefix,
        proto: selector.proto,
        ifindex: selector.ifindex,
        user: selector.user,
    }
}

/// A selector; `v6` is what it is where it does not say so itself.
pub(crate) fn selector_in(raw: &nl::Selector, v6: Option<bool>) -> Result<Selector, Damaged> {
    let v6 = match (raw.family, v6) {
        (nl::AF_UNSPEC, Some(v6)) => v6,
        (family, _) => is_v6(family)?,
    };
    let most = if v6 { 128 } else { 32 };
    if raw.prefixlen_s > most || raw.prefixlen_d > most {
        return Err(Damaged("a prefix longer than an address"));
    }
    Ok(Selector {
        src: Net {
            addr: address(&raw.saddr, v6),
            prefix: raw.prefixlen_s,
        },
        dst: Net {
            addr: address(&raw.daddr, v6),
            prefix: raw.prefixlen_d,
        },
        sport: Ports {
            port: raw.sport,
            mask: raw.sport_mask,
        },
        dport: Ports {
            port: raw.dport,
            mask: raw.dport_mask,
        },
        proto: raw.proto,
        ifindex: raw.ifindex,
        user: raw.user,
    })
}

#[cfg(test)]
mod tests;
