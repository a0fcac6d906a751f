//! From an SA of Gm to the kernel's state and policies, and back.
//!
//! One state, and a policy for UDP and one for TCP, all with the SA's exact
//! addresses and ports (TS 33.203 7.1). The state's own selector has protocol
//! 0: the kernel then compares the ports of UDP and TCP alike. It does so after
//! opening (RFC 4301 5.2), so an inbound policy may take any state: the old and
//! the new set of a renewal share it. An outbound policy names the SPI and the
//! reqid: one update of it moves the traffic from the old set to the new one.

mod found;

use std::net::IpAddr;

use gm_api::sad::SadEntry;
use gm_esp::{EspKeys, Mode, SaSpec, SelProto, Suite};

use super::numbers::Numbers;
use super::policy::{Action, Policy, PolicyDir, PolicyId, Template};
use super::select::{Net, Ports, Selector, Wrap, unspecified};
use super::state::{
    Algorithm, Algorithms, Counters, ESP, ESP_IN_UDP, Encap, Limits, Secret, State, StateId,
};

pub use found::{Found, Unfit, found, found_with, keys};
pub use gm_api::sad::Dir;

/// The upper half of each reqid of ours.
pub const REQID: u32 = 0x676d_0000;
/// Priority of the policies of SAs.
pub const SA_PRIORITY: u32 = 0x676d;
/// Priority of policies that block what no SA protects: asked later.
pub const BASE_PRIORITY: u32 = 0x676e;

/// UDP port of ESP in UDP (RFC 3948).
const NAT_T: u16 = 4500;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The reqid of a set: [`REQID`] and the low 16 bits of its number. Sets that
/// share one are told apart by their SPIs.
pub const fn reqid(set: u64) -> u32 {
    REQID | (set & 0xffff) as u32
}

/// Whether a state is one that this project made.
pub const fn is_our_state(state: &State) -> bool {
    state.reqid & 0xffff_0000 == REQID
}

/// Whether a policy is one that this project made.
pub const fn is_our_policy(policy: &Policy) -> bool {
    matches!(policy.priority, SA_PRIORITY | BASE_PRIORITY)
}

/// An SA as the kernel is to have it. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seen from this host.
    pub dir: Dir,
    /// The state.
    pub state: State,
    /// Its policies.
    pub policies: Vec<Policy>,
}

/// Why a SAD.toml's SA cannot go into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The table does not say which way.
    #[error("dir: missing; say \"in\" for what this host receives and \"out\" for what it sends")]
    NoDir,
}

/// What the kernel is to have of an SA, with a fresh window and counter.
pub fn sa(spec: &SaSpec, keys: &EspKeys, dir: Dir, reqid: u32) -> Plan {
    let numbers = Numbers::fresh(spec.replay_window, spec.esn);
    sa_with(spec, keys, dir, reqid, numbers)
}

/// [`sa`] with numbers.
pub fn sa_with(spec: &SaSpec, keys: &EspKeys, dir: Dir, reqid: u32, numbers: Numbers) -> Plan {
    let state = state(spec, keys, dir, reqid, numbers);
    let policies = policies(spec, dir, reqid);
    Plan {
        dir,
        state,
        policies,
    }
}

/// The SA of a SAD.toml. Its `seq` is the first number to send or to accept;
/// its reqid that of its set, or of set 0.
///
/// # Errors
/// [`PlanError::NoDir`].
pub fn entry(entry: &SadEntry) -> Result<Plan, PlanError> {
    let dir = entry.dir.ok_or(PlanError::NoDir)?;
    let spec = &entry.spec;
    let numbers = numbers(spec, dir, entry.seq);
    let reqid = reqid(entry.set.unwrap_or(0));
    Ok(sa_with(spec, &entry.keys, dir, reqid, numbers))
}

/// Numbers of an SA of which `first` is the first number that it sends or
/// accepts; `None`: 1.
pub fn numbers(spec: &SaSpec, dir: Dir, first: Option<u64>) -> Numbers {
    let before = first.map_or(0, |first| first.saturating_sub(1));
    match dir {
        Dir::Out => Numbers::fresh(spec.replay_window, spec.esn).after(before),
        Dir::In => Numbers::with_window(0, before, spec.replay_window, spec.esn, |_| true),
    }
}

/// The state alone.
pub fn state(spec: &SaSpec, keys: &EspKeys, dir: Dir, reqid: u32, numbers: Numbers) -> State {
    let encap = spec.outer.as_ref().map(|outer| Encap {
        kind: ESP_IN_UDP,
        // Our own port is 4500; the other one may have to be learnt.
        sport: outer.sport.unwrap_or(match dir {
            Dir::In => 0,
            Dir::Out => NAT_T,
        }),
        dport: outer.dport.unwrap_or(match dir {
            Dir::In => NAT_T,
            Dir::Out => 0,
        }),
    });
    State {
        id: StateId::esp(spec.destination(), spec.spi),
        src: spec.source(),
        wrap: wrap(spec.mode),
        reqid,
        selector: selector(&spec.selector, 0),
        algorithms: algorithms(keys),
        encap,
        numbers,
        counters: Counters::default(),
        limits: Limits::default(),
        flags: 0,
        extra_flags: 0,
        mark: None,
        if_id: 0,
    }
}

/// The policies alone: for UDP and for TCP, or one for any protocol.
pub fn policies(spec: &SaSpec, dir: Dir, reqid: u32) -> Vec<Policy> {
    let protocols: &[u8] = match spec.selector.proto {
        SelProto::UdpTcp => &[UDP, TCP],
        SelProto::Any => &[0],
    };
    let v6 = spec.destination().is_ipv6();
    let template = match dir {
        // The phone may have moved to another address outside.
        Dir::In => Template {
            src: unspecified(v6),
            dst: match spec.mode {
                Mode::Trans => unspecified(v6),
                Mode::UdpEncTun => spec.destination(),
            },
            spi: 0,
            proto: ESP,
            wrap: wrap(spec.mode),
            reqid: 0,
            optional: false,
        },
        Dir::Out => Template {
            src: spec.source(),
            dst: spec.destination(),
            spi: spec.spi,
            proto: ESP,
            wrap: wrap(spec.mode),
            reqid,
            optional: false,
        },
    };
    let policy = |proto: &u8| Policy {
        id: PolicyId {
            dir: match dir {
                Dir::In => PolicyDir::In,
                Dir::Out => PolicyDir::Out,
            },
            selector: selector(&spec.selector, *proto),
            mark: None,
            if_id: 0,
        },
        action: Action::Allow,
        priority: SA_PRIORITY,
        templates: vec![template],
        index: 0,
        limits: Limits::default(),
        flags: 0,
        added: 0,
        first_used: 0,
    };
    protocols.iter().map(policy).collect()
}

/// A policy that drops what no SA protects: what is for `ports` of `local`, or
/// from them. Of ports there can be one, or a block of which all have the bits
/// of the mask in common.
pub fn base(local: IpAddr, ports: Ports, proto: u8, dir: PolicyDir) -> Policy {
    let any = Net::any(local.is_ipv6());
    let mut selector = Selector::between(any, any);
    selector.proto = proto;
    match dir {
        PolicyDir::Out => (selector.src, selector.sport) = (Net::host(local), ports),
        PolicyDir::In | PolicyDir::Forward => {
            (selector.dst, selector.dport) = (Net::host(local), ports);
        }
    }
    Policy {
        id: PolicyId {
            dir,
            selector,
            mark: None,
            if_id: 0,
        },
        action: Action::Block,
        priority: BASE_PRIORITY,
        templates: Vec::new(),
        index: 0,
        limits: Limits::default(),
        flags: 0,
        added: 0,
        first_used: 0,
    }
}

/// The fewest [`Ports`] that are exactly these, both ends included.
pub fn blocks(first: u16, last: u16) -> Vec<Ports> {
    let mut blocks = Vec::new();
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    while at < end {
        let aligned = if at == 0 {
            1 << 16
        } else {
            at & at.wrapping_neg()
        };
        let mut size = aligned;
        while at + size > end {
            size /= 2;
        }
        blocks.push(Ports {
            port: at as u16,
            mask: !((size - 1) as u16),
        });
        at += size;
    }
    blocks
}

fn wrap(mode: Mode) -> Wrap {
    match mode {
        Mode::Trans => Wrap::Transport,
        Mode::UdpEncTun => Wrap::Tunnel,
    }
}

fn selector(of: &gm_esp::Selector, proto: u8) -> Selector {
    Selector {
        src: Net::host(of.src),
        dst: Net::host(of.dst),
        sport: of.src_port.into(),
        dport: of.dst_port.into(),
        proto,
        ifindex: 0,
        user: 0,
    }
}

fn algorithm(name: &str, key: Secret, icv_bits: u32) -> Option<Algorithm> {
    Some(Algorithm {
        name: name.to_string(),
        key,
        icv_bits,
    })
}

/// Names of the kernel's cryptography for a suite, with its keys.
pub fn algorithms(keys: &EspKeys) -> Algorithms {
    let suite = keys.suite();
    let encryption = keys.encryption().unwrap_or_default();
    let integrity = keys.integrity().unwrap_or_default();
    let salt = keys.salt().unwrap_or_default();
    let aead = |name, key| Algorithms {
        aead: algorithm(name, Secret::joined(key, &salt), 128),
        ..Algorithms::default()
    };
    let (auth, crypt) = match suite {
        Suite::NullAesGcm => return aead(GCM, encryption),
        Suite::AesGmacNull => return aead(GMAC, integrity),
        Suite::HmacSha1Null => (SHA1, NULL),
        Suite::HmacSha1AesCbc => (SHA1, AES),
        Suite::HmacMd5Null => (MD5, NULL),
        Suite::HmacMd5AesCbc => (MD5, AES),
        Suite::HmacMd5DesEde3Cbc => (MD5, DES3),
        Suite::HmacSha1DesEde3Cbc => (SHA1, DES3),
    };
    Algorithms {
        auth: algorithm(auth, Secret::new(integrity), 96),
        crypt: algorithm(crypt, Secret::new(encryption), 0),
        aead: None,
    }
}

const GCM: &str = "rfc4106(gcm(aes))";
const GMAC: &str = "rfc4543(gcm(aes))";
const SHA1: &str = "hmac(sha1)";
const MD5: &str = "hmac(md5)";
const NULL: &str = "ecb(cipher_null)";
const AES: &str = "cbc(aes)";
const DES3: &str = "cbc(des3_ede)";

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
