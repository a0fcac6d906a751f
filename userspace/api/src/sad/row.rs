//! An SA as `sa list --json` shows it: SAD.toml's keys without the secrets.

use std::net::IpAddr;

use gm_esp::{Mode, SaSpec, SelProto};
use serde::{Deserialize, Serialize};

use super::Dir;

/// The keys of an `[[sa]]` table but for `ik`, `ck`, `integrity_key`,
/// `encryption_key` and `salt`. Keys without a value are left out in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SaRow {
    /// Security Parameters Index, 256 or more.
    pub spi: u32,
    /// "trans" or "udp-enc-tun".
    pub mode: String,
    /// Source address of the protected packet.
    pub src: IpAddr,
    /// Destination address of the protected packet.
    pub dst: IpAddr,
    /// Source port; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Destination port; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// "udp-tcp" or "any".
    pub proto: String,
    /// Integrity algorithm by its name in TS 33.203 Annex H.
    pub alg: String,
    /// Encryption algorithm by its name in TS 33.203 Annex H.
    pub ealg: String,
    /// Outer source address, udp-enc-tun only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer_src: Option<IpAddr>,
    /// Outer destination address, udp-enc-tun only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer_dst: Option<IpAddr>,
    /// Outer UDP source port, udp-enc-tun only; absent: not learnt yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encap_sport: Option<u16>,
    /// Outer UDP destination port, udp-enc-tun only; absent: not learnt yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encap_dport: Option<u16>,
    /// The set of four that the SA belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<u64>,
    /// Direction at the host that has installed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<Dir>,
    /// Sequence number: the first to send in SAD.toml.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Replay window in packets.
    pub replay_window: u32,
    /// Extended (64-bit) sequence numbers.
    pub esn: bool,
}

impl SaRow {
    /// The row of an SA, with `set`, `dir` and `seq` absent.
    pub fn from_spec(spec: &SaSpec) -> SaRow {
        let outer = spec.outer.as_ref();
        SaRow {
            spi: spec.spi,
            mode: mode_name(spec.mode).to_string(),
            src: spec.selector.src,
            dst: spec.selector.dst,
            src_port: spec.selector.src_port,
            dst_port: spec.selector.dst_port,
            proto: match spec.selector.proto {
                SelProto::UdpTcp => "udp-tcp",
                SelProto::Any => "any",
            }
            .to_string(),
            alg: spec.suite.alg().to_string(),
            ealg: spec.suite.ealg().to_string(),
            outer_src: outer.map(|o| o.src),
            outer_dst: outer.map(|o| o.dst),
            encap_sport: outer.and_then(|o| o.sport),
            encap_dport: outer.and_then(|o| o.dport),
            set: None,
            dir: None,
            seq: None,
            replay_window: spec.replay_window,
            esn: spec.esn,
        }
    }
}

/// A mode's name in SAD.toml and in the SIP headers (TS 33.203 Annex H).
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Trans => "trans",
        Mode::UdpEncTun => "udp-enc-tun",
    }
}
