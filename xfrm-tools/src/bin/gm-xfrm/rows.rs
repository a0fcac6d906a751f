//! States and policies as `list` and `watch` print them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gm_xfrm::kernel::plan::{self, is_our_policy, is_our_state};
use gm_xfrm::kernel::{Action, Policy, Selector, State};
use serde::Serialize;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Traffic.
#[derive(Serialize)]
pub struct SelectorRow {
    src: String,
    dst: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u32>,
}

impl SelectorRow {
    fn of(selector: &Selector) -> SelectorRow {
        let ports = |ports: gm_xfrm::kernel::Ports| match (ports.mask, ports.exact()) {
            (0, _) => None,
            (_, Some(port)) => Some(port.to_string()),
            (mask, None) => Some(format!("{}/{mask:#06x}", ports.port)),
        };
        SelectorRow {
            src: selector.src.to_string(),
            dst: selector.dst.to_string(),
            src_port: ports(selector.sport),
            dst_port: ports(selector.dport),
            proto: (selector.proto != 0).then_some(selector.proto),
            user: (selector.user != 0).then_some(selector.user),
        }
    }
}

/// UDP around ESP.
#[derive(Serialize)]
pub struct EncapRow {
    sport: u16,
    dport: u16,
}

/// A key in hexadecimal, wiped when dropped.
#[derive(Serialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Hex(String);

/// A state.
#[derive(Serialize)]
pub struct StateRow {
    pub spi: u32,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    mode: String,
    reqid: u32,
    ours: bool,
    selector: SelectorRow,
    /// Annex H's names, where it is a suite of Gm.
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ealg: Option<&'static str>,
    /// The kernel's names.
    algorithms: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encap: Option<EncapRow>,
    seq: u64,
    top: u64,
    replay_window: u32,
    esn: bool,
    bytes: u64,
    packets: u64,
    added: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<u64>,
    stale: u32,
    replay: u32,
    icv_failed: u32,
    /// Hexadecimal, by the kernel's names; with --show-keys only.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<BTreeMap<String, Hex>>,
}

impl StateRow {
    pub fn of(state: &State, show_keys: bool) -> StateRow {
        let suite = plan::keys(&state.algorithms).ok().map(|keys| keys.suite());
        let all = &state.algorithms;
        let all = || [&all.auth, &all.crypt, &all.aead].into_iter().flatten();
        let counters = &state.counters;
        StateRow {
            spi: state.id.spi,
            src: state.src,
            dst: state.id.dst,
            proto: state.id.proto,
            mode: state.wrap.to_string(),
            reqid: state.reqid,
            ours: is_our_state(state),
            selector: SelectorRow::of(&state.selector),
            alg: suite.map(|suite| suite.alg()),
            ealg: suite.map(|suite| suite.ealg()),
            algorithms: all().map(|a| a.name.clone()).collect(),
            encap: state.encap.map(|encap| EncapRow {
                sport: encap.sport,
                dport: encap.dport,
            }),
            seq: state.numbers.seq,
            top: state.numbers.top,
            replay_window: state.numbers.window,
            esn: state.numbers.esn,
            bytes: counters.bytes,
            packets: counters.packets,
            added: counters.added,
            last_used: counters.last_used.or(match counters.first_used {
                0 => None,
                time => Some(time),
            }),
            stale: counters.stale,
            replay: counters.replay,
            icv_failed: counters.icv_failed,
            keys: show_keys.then(|| {
                all()
                    .map(|a| (a.name.clone(), Hex(hex::encode(a.key.bytes()))))
                    .collect()
            }),
        }
    }

    /// Algorithms: Gm's names, or else the kernel's.
    pub fn suite(&self) -> String {
        match (self.alg, self.ealg) {
            (Some(alg), Some(ealg)) => format!("{alg}/{ealg}"),
            _ => self.algorithms.join(" "),
        }
    }

    /// The cells of a line.
    pub fn cells(&self, now: u64) -> Vec<String> {
        let side = |net: &str, port: &Option<String>| match port {
            None => net.to_string(),
            Some(port) => format!("{net} {port}"),
        };
        let host = |net: &str| {
            net.trim_end_matches("/32")
                .trim_end_matches("/128")
                .to_string()
        };
        let around = match &self.encap {
            None => self.mode.clone(),
            Some(encap) => format!("{} UDP {}->{}", self.mode, encap.sport, encap.dport),
        };
        let selector = &self.selector;
        vec![
            format!("{:#010x}", self.spi),
            self.dst.to_string(),
            side(&host(&selector.src), &selector.src_port),
            side(&host(&selector.dst), &selector.dst_port),
            around,
            self.suite(),
            self.seq.to_string(),
            self.top.to_string(),
            self.packets.to_string(),
            format!("{}/{}/{}", self.stale, self.replay, self.icv_failed),
            match self.last_used {
                None => "-".to_string(),
                Some(time) => format!("{} s", now.saturating_sub(time)),
            },
            if self.ours { "yes" } else { "no" }.to_string(),
        ]
    }
}

/// The heads over [`StateRow::cells`].
pub const HEADS: [&str; 12] = [
    "SPI",
    "TO",
    "FROM PORT",
    "TO PORT",
    "MODE",
    "SUITE",
    "SENT",
    "SEEN",
    "PACKETS",
    "STALE/REPLAY/ICV",
    "IDLE",
    "OURS",
];

/// What a state must be for a policy.
#[derive(Serialize)]
struct TemplateRow {
    src: IpAddr,
    dst: IpAddr,
    spi: u32,
    proto: u8,
    mode: String,
    reqid: u32,
    optional: bool,
}

/// A policy.
#[derive(Serialize)]
pub struct PolicyRow {
    dir: String,
    selector: SelectorRow,
    action: &'static str,
    priority: u32,
    index: u32,
    ours: bool,
    added: u64,
    templates: Vec<TemplateRow>,
}

impl PolicyRow {
    pub fn of(policy: &Policy) -> PolicyRow {
        PolicyRow {
            dir: policy.id.dir.to_string(),
            selector: SelectorRow::of(&policy.id.selector),
            action: action(policy),
            priority: policy.priority,
            index: policy.index,
            ours: is_our_policy(policy),
            added: policy.added,
            templates: policy
                .templates
                .iter()
                .map(|template| TemplateRow {
                    src: template.src,
                    dst: template.dst,
                    spi: template.spi,
                    proto: template.proto,
                    mode: template.wrap.to_string(),
                    reqid: template.reqid,
                    optional: template.optional,
                })
                .collect(),
        }
    }
}

fn action(policy: &Policy) -> &'static str {
    match policy.action {
        Action::Allow => "allow",
        Action::Block => "block",
    }
}

/// A policy on one line.
pub fn policy_line(policy: &Policy) -> String {
    let mut line = format!(
        "{} {}, priority {}",
        policy.id,
        action(policy),
        policy.priority
    );
    for template in &policy.templates {
        line += &format!(": ESP {}", template.wrap);
        if template.spi != 0 {
            line += &format!(" SPI {:#010x}", template.spi);
        }
        if template.reqid != 0 {
            line += &format!(" reqid {:#x}", template.reqid);
        }
    }
    if is_our_policy(policy) {
        line += " (ours)";
    }
    line
}
