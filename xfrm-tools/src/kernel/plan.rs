//! From an SA of Gm to the kernel's state and policies, and back.
//!
//! One state, and a policy for UDP and one for TCP, all with the SA's exact
//! addresses and ports (TS 33.203 7.1). The state's own selector has protocol
//! 0: the kernel then compares the ports of UDP and TCP alike. It does so after
//! opening (RFC 4301 5.2), so an inbound policy may take any state: the old and
//! the new set of a renewal share it. An outbound policy names the SPI and the
//! reqid: one update of it moves the traffic from the old set to the new one.

use std::net::IpAddr;

use gm_api::sad::SadEntry;
use gm_esp::{EspKeys, Mode, Outer, SaSpec, SelProto, Suite};
use zeroize::Zeroizing;

use super::numbers::Numbers;
use super::policy::{Action, Policy, PolicyDir, PolicyId, Template};
use super::select::{Net, Ports, Selector, Wrap, unspecified};
use super::state::{
    Algorithm, Algorithms, Counters, ESP, ESP_IN_UDP, Encap, Secret, State, StateId,
};

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

/// Why a state in the kernel is no SA of Gm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// AH, IPComp and others.
    #[error("it is not ESP")]
    NotEsp,
    /// SPIs begin at 256.
    #[error("its SPI is reserved, or not chosen yet")]
    Spi,
    /// Not transport mode, and not UDP-encapsulated tunnel mode.
    #[error("its mode is neither transport nor tunnel with ESP in UDP")]
    Mode,
    /// No suite of Gm.
    #[error("its algorithms are none of Gm")]
    Algorithms,
    /// The kernel shows zeros.
    #[error("the kernel hides its keys: it is locked down (lockdown=confidentiality)")]
    Hidden,
    /// Its traffic is not between two hosts.
    #[error("its selector has no exact addresses")]
    Selector,
    /// Marks and XFRM interfaces.
    #[error("it has a mark or belongs to an XFRM interface")]
    Mark,
}

/// An SA that is in the kernel. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is; `replay_window` is at least 32, a port of UDP around ESP
    /// that is not known is `None`.
    pub spec: SaSpec,
    /// Its keys.
    pub keys: EspKeys,
    /// Its numbers.
    pub numbers: Numbers,
}

/// The SA that a state is, with the traffic of the state's own selector.
///
/// # Errors
/// [`Unfit`].
pub fn found(state: &State) -> Result<Found, Unfit> {
    let of = &state.selector;
    if !of.src.is_host() || !of.dst.is_host() {
        return Err(Unfit::Selector);
    }
    let exact = |ports: &Ports| match (ports.mask, ports.exact()) {
        (0, _) => Ok(None),
        (_, Some(port)) => Ok(Some(port)),
        _ => Err(Unfit::Selector),
    };
    let selector = gm_esp::Selector {
        src: of.src.addr,
        dst: of.dst.addr,
        src_port: exact(&of.sport)?,
        dst_port: exact(&of.dport)?,
        proto: SelProto::UdpTcp,
    };
    found_with(state, selector)
}

/// [`found`] for a state whose selector says less than its policies do.
///
/// # Errors
/// [`Unfit`].
pub fn found_with(state: &State, selector: gm_esp::Selector) -> Result<Found, Unfit> {
    if state.id.proto != ESP {
        return Err(Unfit::NotEsp);
    }
    if state.id.spi < 256 {
        return Err(Unfit::Spi);
    }
    if state.mark.is_some() || state.if_id != 0 {
        return Err(Unfit::Mark);
    }
    let (mode, outer) = match (state.wrap, state.encap) {
        (Wrap::Transport, None) => (Mode::Trans, None),
        (Wrap::Tunnel, Some(encap)) if encap.kind == ESP_IN_UDP => {
            let known = |port| (port != 0).then_some(port);
            let outer = Outer {
                src: state.src,
                dst: state.id.dst,
                sport: known(encap.sport),
                dport: known(encap.dport),
            };
            (Mode::UdpEncTun, Some(outer))
        }
        _ => return Err(Unfit::Mode),
    };
    let keys = keys(&state.algorithms)?;
    if state.keys_are_hidden() {
        return Err(Unfit::Hidden);
    }
    let window = state.numbers.window;
    let windows = gm_api::sad::REPLAY_WINDOWS;
    Ok(Found {
        spec: SaSpec {
            spi: state.id.spi,
            mode,
            selector,
            suite: keys.suite(),
            outer,
            esn: state.numbers.esn,
            replay_window: window.clamp(*windows.start(), *windows.end()),
        },
        keys,
        numbers: state.numbers.clone(),
    })
}

/// Suite and keys of a state.
///
/// # Errors
/// [`Unfit::Algorithms`].
pub fn keys(algorithms: &Algorithms) -> Result<EspKeys, Unfit> {
    let unfit = |_| Unfit::Algorithms;
    match algorithms {
        Algorithms {
            aead: Some(aead),
            auth: None,
            crypt: None,
        } if aead.icv_bits == 128 => {
            let (key, salt) = aead
                .key
                .bytes()
                .split_at_checked(16)
                .ok_or(Unfit::Algorithms)?;
            let (suite, integrity, encryption) = match aead.name.as_str() {
                GCM => (Suite::NullAesGcm, None, Some(key)),
                GMAC => (Suite::AesGmacNull, Some(key), None),
                _ => return Err(Unfit::Algorithms),
            };
            EspKeys::explicit(suite, integrity, encryption, Some(salt)).map_err(unfit)
        }
        Algorithms {
            auth: Some(auth),
            crypt: Some(crypt),
            aead: None,
        } if matches!(auth.icv_bits, 0 | 96) => {
            // The kernel also takes the short names, and shows the long ones.
            let suite = match (auth.name.as_str(), crypt.name.as_str()) {
                (SHA1 | "sha1", NULL | "cipher_null") => Suite::HmacSha1Null,
                (SHA1 | "sha1", AES | "aes") => Suite::HmacSha1AesCbc,
                (MD5 | "md5", NULL | "cipher_null") => Suite::HmacMd5Null,
                (MD5 | "md5", AES | "aes") => Suite::HmacMd5AesCbc,
                (MD5 | "md5", DES3 | "des3_ede") => Suite::HmacMd5DesEde3Cbc,
                (SHA1 | "sha1", DES3 | "des3_ede") => Suite::HmacSha1DesEde3Cbc,
                _ => return Err(Unfit::Algorithms),
            };
            let mut integrity = Zeroizing::new(auth.key.bytes().to_vec());
            // Some give IK as it is. HMAC fills its key with zeros anyway
            // (RFC 2104 2), so that Annex I's 32 zero bits change nothing.
            if suite.transform().integrity_key_len() == 20 && integrity.len() == 16 {
                integrity = Zeroizing::new([&integrity[..], &[0; 4]].concat());
            }
            let encryption = crypt.key.bytes();
            let encryption = (!encryption.is_empty()).then_some(encryption);
            EspKeys::explicit(suite, Some(&integrity), encryption, None).map_err(unfit)
        }
        _ => Err(Unfit::Algorithms),
    }
}
