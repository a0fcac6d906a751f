//! `[edge]`: the SIP edge between the phones and the P-CSCF or I-CSCF.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use gm_esp::suite::{Suite, SuiteError};
use gm_sip::edge::{EdgeConfig, Timers as SipTimers};
use gm_sip::sec_agree::{Confidentiality, Policy};
use serde::Deserialize;

use super::{Config, ConfigError, PortRange, defaults};

/// The table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Off: the table is read and checked, nothing runs.
    #[serde(default = "defaults::yes")]
    pub enabled: bool,
    /// Unprotected SIP port on every Gm address.
    #[serde(default = "sip_port")]
    pub sip_port: u16,
    /// Protected server port; absent: the first of `[gm] server_ports`.
    pub port_ps: Option<u16>,
    /// Protected client ports, at least three; absent: the first range of
    /// `[gm] client_ports`.
    pub port_pc: Option<PortRange>,
    /// Address and port of the SIP element behind the edge.
    pub next_hop: Option<SocketAddr>,
    /// "embedded": the next hop is `[home]`.
    pub home: Option<HomeKind>,
    /// Address and port of the edge on the side of the core.
    #[serde(default = "core")]
    pub core: SocketAddr,
    /// Addresses besides the next hop's from which the core may send.
    #[serde(default)]
    pub core_trusted: Vec<IpAddr>,
    /// Home network domain name, for a `[home]` that names none.
    pub domain: Option<String>,
    /// Suites in order of preference, each "alg/ealg" with Annex H's names.
    #[serde(default = "suites")]
    pub suites: Vec<String>,
    /// What of encryption.
    #[serde(default)]
    pub confidentiality: Encrypt,
    /// Suites of older releases (hmac-md5-96, des-ede3-cbc) are taken too, behind
    /// all others.
    #[serde(default)]
    pub legacy_suites: bool,
    /// Phones behind a NAT are served (UDP-enc-tun); otherwise discarded.
    #[serde(default = "defaults::yes")]
    pub nat_traversal: bool,
    /// Times.
    #[serde(default)]
    pub timers: Timers,
}

/// `[edge] home`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HomeKind {
    /// The home network inside the daemon.
    Embedded,
}

/// `[edge] confidentiality`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encrypt {
    /// Suites without encryption only.
    Never,
    /// By the order of the suites.
    #[default]
    WhenOffered,
    /// Suites with encryption only.
    Required,
}

/// `[edge.timers]`, all in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timers {
    /// Life of SAs whose registration has not come through (clause 7.4: the
    /// registration await timer).
    pub await_auth_s: u32,
    /// How much longer SAs live than the registration.
    pub margin_s: u32,
    /// From the 200 of a de-registration to the end of its SAs.
    pub linger_s: u32,
    /// How long replaced SAs serve what is under way.
    pub transaction_s: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            await_auth_s: 240,
            margin_s: 30,
            linger_s: 4,
            transaction_s: 32,
        }
    }
}

fn sip_port() -> u16 {
    5060
}

fn core() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5062)
}

fn suites() -> Vec<String> {
    let preference = Policy::default().preference;
    preference.iter().map(Suite::to_string).collect()
}

fn bad<T>(key: &str, what: impl Into<String>, hint: &str) -> Result<T, ConfigError> {
    Err(ConfigError::at("edge", key, what, hint))
}

impl Config {
    /// What gm-sip's edge is told, if the configuration has one.
    pub fn edge_config(&self, edge: &Edge) -> Result<EdgeConfig, ConfigError> {
        let (port_ps, port_pc) = self.edge_ports(edge)?;
        let mut sip = EdgeConfig::new(self.next_hop(edge)?, edge.core);
        sip.core_trusted = edge.core_trusted.clone();
        sip.server_port = port_ps;
        sip.client_ports = port_pc;
        sip.policy = Policy {
            preference: edge.suites()?,
            confidentiality: match edge.confidentiality {
                Encrypt::Never => Confidentiality::Never,
                Encrypt::WhenOffered => Confidentiality::WhenOffered,
                Encrypt::Required => Confidentiality::Required,
            },
            legacy: edge.legacy_suites,
        };
        sip.nat_traversal = edge.nat_traversal;
        sip.encap_port = self.gm.encap_port;
        sip.replay_window = self.gm.replay_window;
        let timers = &edge.timers;
        sip.timers = SipTimers {
            registration: u64::from(timers.await_auth_s) * 1000,
            margin: u64::from(timers.margin_s) * 1000,
            linger: u64::from(timers.linger_s) * 1000,
            transaction: u64::from(timers.transaction_s) * 1000,
            ..SipTimers::default()
        };
        // A set takes four SAs, and the SPIs at hand take room too. The last sets are
        // for those who re-register, and strangers get half of all at most.
        let sets = self.gm.max_sas as usize / 4;
        let limits = &mut sip.limits;
        limits.contacts = limits.contacts.min(sets);
        limits.sets_for_strangers = sets - sets / 8 - sets / 16;
        limits.pending = limits.pending.min((sets / 2).max(2));
        let each = (limits.pending / 4).max(2);
        limits.pending_per_source = limits.pending_per_source.min(each);
        sip.check().map_err(|error| {
            let hint = "see port_ps, port_pc and suites";
            ConfigError::at("edge", "", error.to_string(), hint)
        })?;
        Ok(sip)
    }

    pub(super) fn check_edge(&self, edge: &Edge) -> Result<(), ConfigError> {
        if edge.sip_port == 0 || self.is_protected(edge.sip_port) {
            let what = format!("{} is a protected port or 0", edge.sip_port);
            return bad(
                "sip_port",
                what,
                "the first REGISTER comes in clear: use 5060",
            );
        }
        let next_hop = self.next_hop(edge)?;
        if next_hop.is_ipv4() != edge.core.is_ipv4() {
            let what = format!("{} is not of the next hop's address family", edge.core);
            return bad(
                "core",
                what,
                "use an address from which the next hop can be reached",
            );
        }
        if edge.core.ip().is_unspecified() || edge.core.port() == 0 {
            let what = format!("{} is no address with a port", edge.core);
            return bad(
                "core",
                what,
                "it stands in Via and Path, so name one that the core reaches",
            );
        }
        if let Some(domain) = &edge.domain
            && !is_domain(domain)
        {
            return bad(
                "domain",
                "is no domain name",
                "such as \"ims.mnc001.mcc001.3gppnetwork.org\"",
            );
        }
        if edge.timers.await_auth_s == 0 {
            let what = "is 0";
            return Err(ConfigError::at(
                "edge.timers",
                "await_auth_s",
                what,
                "240 is usual",
            ));
        }
        self.edge_config(edge).map(|_| ())
    }

    /// Where the edge sends what it forwards.
    pub fn next_hop(&self, edge: &Edge) -> Result<SocketAddr, ConfigError> {
        match (edge.next_hop, edge.home, &self.home) {
            (Some(hop), None, _) => Ok(hop),
            (None, Some(HomeKind::Embedded), Some(home)) => Ok(home.listen),
            (Some(_), Some(_), _) => bad("home", "stands beside next_hop", "keep one of the two"),
            (None, None, _) => bad(
                "next_hop",
                "is missing",
                "set next_hop = \"address:port\" or home = \"embedded\"",
            ),
            (None, Some(_), None) => bad(
                "home",
                "there is no [home] table",
                "add [home] with subscribers",
            ),
        }
    }

    fn edge_ports(&self, edge: &Edge) -> Result<(u16, RangeInclusive<u16>), ConfigError> {
        let gm = &self.gm;
        let port_ps = edge
            .port_ps
            .or_else(|| gm.server_ports.first().map(|ports| *ports.0.start()));
        let Some(port_ps) =
            port_ps.filter(|port| gm.server_ports.iter().any(|r| r.contains(*port)))
        else {
            let what = "is not in [gm] server_ports";
            return bad("port_ps", what, "use one of them or add it there");
        };
        let port_pc = edge
            .port_pc
            .as_ref()
            .or(gm.client_ports.first())
            .map(|ports| ports.0.clone());
        let inside = |range: &RangeInclusive<u16>| {
            range
                .clone()
                .all(|port| gm.client_ports.iter().any(|r| r.contains(port)))
        };
        match port_pc.filter(inside) {
            Some(range) if range.contains(&port_ps) => bad(
                "port_pc",
                format!("holds {port_ps}, port_ps"),
                "clause 7.1 wants two ports",
            ),
            Some(range) if range.clone().count() < 3 => {
                let what = format!("{}-{} is less than three ports", range.start(), range.end());
                let hint = "write a range such as \"5065-5072\": each of a phone's sets, up to \
                            three at a time, has a port of its own";
                bad("port_pc", what, hint)
            }
            Some(range) => Ok((port_ps, range)),
            None => bad(
                "port_pc",
                "is not in [gm] client_ports",
                "use a range of them or add it there",
            ),
        }
    }
}

/// Letters, digits, dots, hyphens: what can stand in a SIP URI without harm.
pub(super) fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.split('.').all(label)
}

impl Edge {
    /// The suites in order of preference.
    fn suites(&self) -> Result<Vec<Suite>, ConfigError> {
        let parse = |text: &String| {
            let hint = "write \"alg/ealg\", such as \"hmac-sha-1-96/aes-cbc\"";
            let bad = |what: String| ConfigError::at("edge", "suites", what, hint);
            text.parse()
                .map_err(|error: SuiteError| bad(format!("{text:?}: {error}")))
        };
        if self.suites.is_empty() {
            return bad("suites", "is empty", "leave it out for all four");
        }
        self.suites.iter().map(parse).collect()
    }
}
