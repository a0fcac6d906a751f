//! `[edge]`: the SIP edge between the phones and the P-CSCF or I-CSCF.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gm_esp::suite::Suite;
use gm_sip::sec_agree::Policy;
use serde::Deserialize;

use super::{PortRange, defaults};

/// The table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Off: the table is read and checked, nothing runs.
    #[serde(default = "defaults::yes")]
    pub enabled: bool,
    /// Who speaks SIP with the phones: this daemon, or a proxy that asks over the
    /// control interface.
    #[serde(default)]
    pub door: Door,
    /// Unprotected SIP port on every Gm address; absent: 5060.
    pub sip_port: Option<u16>,
    /// Protected server port; absent: the first of `[gm] server_ports`.
    pub port_ps: Option<u16>,
    /// Protected client ports, at least three; absent: the first range of
    /// `[gm] client_ports`.
    pub port_pc: Option<PortRange>,
    /// Address and port of the SIP element behind the edge.
    pub next_hop: Option<SocketAddr>,
    /// "embedded": the next hop is `[home]`.
    pub home: Option<HomeKind>,
    /// Address and port of the edge on the side of the core; absent: 127.0.0.1:5062.
    pub core: Option<SocketAddr>,
    /// What carries requests to the core; absent: UDP.
    pub core_transport: Option<Transport>,
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
    /// Names in a Via are looked up; otherwise such a REGISTER is refused.
    #[serde(default = "defaults::yes")]
    pub resolve_via: bool,
    /// Bytes of a request above which it goes over TCP, 0: never; absent: 1300.
    pub tcp_above: Option<u16>,
    /// What becomes of Routes that a registration has not given; absent: replaced.
    pub service_route: Option<ServiceRoute>,
    /// Emergency calls of phones that are not registered are taken in clear.
    #[serde(default)]
    pub emergency_in_clear: bool,
    /// Times.
    #[serde(default)]
    pub timers: Timers,
}

/// `[edge] door`: where offers and keys come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// The daemon's own SIP edge.
    #[default]
    Sip,
    /// The control interface: the SIP is a proxy's.
    Http,
}

/// `[edge] core_transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Datagrams, TCP for what is too long.
    Udp,
    /// Connections for everything.
    Tcp,
}

/// `[edge] service_route`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceRoute {
    /// The registration's Service-Route takes their place.
    Replace,
    /// 400.
    Refuse,
    /// They go on as they are.
    Pass,
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
    /// How long an INVITE may wait for its answer (RFC 3261 timer C).
    pub invite_s: u32,
    /// What is left of the old SAs when new ones are taken into use, even if the
    /// phone has not used them yet.
    pub short_left_s: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            await_auth_s: 240,
            margin_s: 30,
            linger_s: 4,
            transaction_s: 32,
            invite_s: 190,
            short_left_s: 10,
        }
    }
}

fn suites() -> Vec<String> {
    let preference = Policy::default().preference;
    preference.iter().map(Suite::to_string).collect()
}

impl Edge {
    /// Unprotected SIP port on every Gm address.
    pub fn sip_port(&self) -> u16 {
        self.sip_port.unwrap_or(5060)
    }

    /// Address and port of the edge on the side of the core.
    pub fn core(&self) -> SocketAddr {
        let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5062);
        self.core.unwrap_or(default)
    }

    /// The SIP edge of this daemon is to run.
    pub fn speaks_sip(&self) -> bool {
        self.enabled && self.door == Door::Sip
    }
}
