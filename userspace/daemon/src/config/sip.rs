//! From `[edge]` to what gm-sip is told: what the types cannot say is checked here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use gm_esp::suite::{Legacy, Suite};
use gm_sip::edge::{EdgeConfig, ServiceRoute as SipServiceRoute, Timers as SipTimers};
use gm_sip::sec_agree::{Confidentiality, Policy};

use super::edge::{Door, Edge, Encrypt, HomeKind, ServiceRoute, Timers, Transport};
use super::{Config, ConfigError};

fn bad<T>(key: &str, what: impl Into<String>, hint: &str) -> Result<T, ConfigError> {
    Err(ConfigError::at("edge", key, what, hint))
}

/// Stands for the core where the edge has none.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Config {
    /// What gm-sip's edge is told, if the configuration has one.
    pub fn edge_config(&self, edge: &Edge) -> Result<EdgeConfig, ConfigError> {
        let (port_ps, port_pc) = self.edge_ports(edge)?;
        let mut sip = match edge.door {
            Door::Sip => EdgeConfig::new(self.next_hop(edge)?, edge.core()),
            // The core is the proxy's business: nobody sends there.
            Door::Http => EdgeConfig::new(NOWHERE, NOWHERE),
        };
        sip.core_trusted = edge.core_trusted.clone();
        sip.advertised = self.advertised();
        sip.server_port = port_ps;
        sip.client_ports = port_pc;
        sip.policy = edge.policy()?;
        sip.nat_traversal = edge.nat_traversal;
        sip.resolve_via = edge.resolve_via;
        sip.emergency_in_clear = edge.emergency_in_clear;
        sip.core_transport = match edge.core_transport.unwrap_or(Transport::Udp) {
            Transport::Udp => gm_sip::Transport::Udp,
            Transport::Tcp => gm_sip::Transport::Tcp,
        };
        sip.tcp_above = match edge.tcp_above.unwrap_or(1300) {
            0 => usize::MAX,
            bytes => bytes.into(),
        };
        sip.service_route = match edge.service_route.unwrap_or(ServiceRoute::Replace) {
            ServiceRoute::Replace => SipServiceRoute::Replace,
            ServiceRoute::Refuse => SipServiceRoute::Refuse,
            ServiceRoute::Pass => SipServiceRoute::Pass,
        };
        sip.encap_port = self.gm.encap_port;
        sip.replay_window = self.gm.replay_window;
        sip.timers = edge.timers.milliseconds();
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

    /// This host's addresses that phones know by another one, each with that.
    pub fn advertised(&self) -> Vec<(IpAddr, IpAddr)> {
        self.gm.advertised.iter().map(|(l, p)| (*l, *p)).collect()
    }

    pub(super) fn check_edge(&self, edge: &Edge) -> Result<(), ConfigError> {
        edge.timers.check()?;
        match edge.door {
            Door::Sip => self.check_sip(edge)?,
            Door::Http => edge.check_http()?,
        }
        self.edge_config(edge).map(|_| ())
    }

    fn check_sip(&self, edge: &Edge) -> Result<(), ConfigError> {
        let sip_port = edge.sip_port();
        if sip_port == 0 || self.is_protected(sip_port) {
            let what = format!("{sip_port} is a protected port or 0");
            let hint = "the first REGISTER comes in clear: use 5060";
            return bad("sip_port", what, hint);
        }
        let (next_hop, core) = (self.next_hop(edge)?, edge.core());
        if next_hop.is_ipv4() != core.is_ipv4() {
            let what = format!("{core} is not of the next hop's address family");
            let hint = "use an address from which the next hop can be reached";
            return bad("core", what, hint);
        }
        if core.ip().is_unspecified() || core.port() == 0 {
            let what = format!("{core} is no address with a port");
            let hint = "it stands in Via and Path, so name one that the core reaches";
            return bad("core", what, hint);
        }
        match &edge.domain {
            Some(domain) if !is_domain(domain) => bad(
                "domain",
                "is no domain name",
                "such as \"ims.mnc001.mcc001.3gppnetwork.org\"",
            ),
            _ => Ok(()),
        }
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
    /// With the second door the daemon speaks no SIP: what belongs to SIP is refused
    /// rather than ignored.
    fn check_http(&self) -> Result<(), ConfigError> {
        let given = [
            ("sip_port", self.sip_port.is_some()),
            ("next_hop", self.next_hop.is_some()),
            ("home", self.home.is_some()),
            ("core", self.core.is_some()),
            ("core_transport", self.core_transport.is_some()),
            ("core_trusted", !self.core_trusted.is_empty()),
            ("tcp_above", self.tcp_above.is_some()),
            ("service_route", self.service_route.is_some()),
            ("emergency_in_clear", self.emergency_in_clear),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((key, _)) => bad(
                key,
                "is for door = \"sip\"",
                "take it out: with door = \"http\" the SIP is the proxy's",
            ),
            None => Ok(()),
        }
    }

    /// Suites and encryption.
    fn policy(&self) -> Result<Policy, ConfigError> {
        let policy = Policy {
            preference: self.suites()?,
            confidentiality: match self.confidentiality {
                Encrypt::Never => Confidentiality::Never,
                Encrypt::WhenOffered => Confidentiality::WhenOffered,
                Encrypt::Required => Confidentiality::Required,
            },
            legacy: self.legacy_suites,
        };
        match (policy.suites().is_empty(), self.confidentiality) {
            (true, Encrypt::Never) => bad(
                "suites",
                "lists only suites with encryption, and confidentiality is \"never\"",
                "add \"hmac-sha-1-96/null\", or change confidentiality",
            ),
            (true, _) => bad(
                "suites",
                "lists no suite with encryption, and confidentiality is \"required\"",
                "add \"hmac-sha-1-96/aes-cbc\", or change confidentiality",
            ),
            (false, _) => Ok(policy),
        }
    }

    /// The suites in order of preference.
    fn suites(&self) -> Result<Vec<Suite>, ConfigError> {
        if self.suites.is_empty() {
            return bad("suites", "is empty", "leave it out for all four");
        }
        let mut suites = Vec::new();
        for text in &self.suites {
            let suite = match Suite::parse_with(text, Legacy::Allow) {
                Ok(suite) => suite,
                Err(error) => {
                    let hint = "write \"alg/ealg\", such as \"hmac-sha-1-96/aes-cbc\"";
                    return bad("suites", format!("{text:?}: {error}"), hint);
                }
            };
            if suite.is_legacy() {
                let what = format!("{text:?} is a suite of older releases");
                let hint = "take it out and set legacy_suites = true: they come behind all others";
                return bad("suites", what, hint);
            }
            if suites.contains(&suite) {
                return bad("suites", format!("{text:?} stands twice"), "remove one");
            }
            suites.push(suite);
        }
        Ok(suites)
    }

    /// What the operator should know about what he has configured, for the log.
    /// `own`: `[gm] addresses`.
    pub(super) fn warnings(&self, own: &[IpAddr]) -> Vec<String> {
        let legacy = "[edge] legacy_suites: hmac-md5-96 and des-ede3-cbc are taken from phones \
                      that offer nothing better; TS 33.203 has dropped them";
        let clear = "[edge] emergency_in_clear: emergency calls of phones without registration \
                     go on to the core unprotected";
        let all = [
            (self.legacy_suites, legacy),
            (self.emergency_in_clear, clear),
        ];
        let on = all.iter().filter(|(on, _)| *on);
        let on = on.map(|(_, text)| (*text).to_owned());
        // Anybody can send from an address that the host itself has; of a next hop on
        // loopback the port counts too.
        let core = self.next_hop.iter().map(|hop| ("next_hop", hop.ip()));
        let core = core.filter(|(_, ip)| !ip.is_loopback());
        let trusted = self.core_trusted.iter().map(|ip| ("core_trusted", *ip));
        let local = core.chain(trusted);
        let local = local.filter(|(_, ip)| ip.is_loopback() || own.contains(ip));
        on.chain(local.map(|(key, ip)| {
            format!("[edge] {key}: {ip} is this host's own: every user of it can pass for the core")
        }))
        .collect()
    }
}

/// Most seconds of a timer: what is meant as milliseconds is found.
const LONGEST: u32 = 3600;

impl Timers {
    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key: &str, what: &str, hint: &str| {
            Err(ConfigError::at("edge.timers", key, what, hint))
        };
        for (key, seconds) in [
            ("await_auth_s", self.await_auth_s),
            ("margin_s", self.margin_s),
            ("linger_s", self.linger_s),
            ("transaction_s", self.transaction_s),
            ("invite_s", self.invite_s),
            ("short_left_s", self.short_left_s),
        ] {
            if seconds > LONGEST {
                let hint = "SAs live longer by this: 3600 is the most";
                return bad(key, "is too long", hint);
            }
        }
        if self.await_auth_s == 0 {
            return bad("await_auth_s", "is 0", "240 is usual");
        }
        if self.transaction_s == 0 {
            return bad("transaction_s", "is 0", "32 is 64 times T1 of RFC 3261");
        }
        if self.invite_s <= 180 {
            let hint = "RFC 3261 wants more than 180: a call rings that long";
            return bad("invite_s", "is too short", hint);
        }
        Ok(())
    }

    fn milliseconds(&self) -> SipTimers {
        let ms = |seconds: u32| u64::from(seconds) * 1000;
        SipTimers {
            registration: ms(self.await_auth_s),
            margin: ms(self.margin_s),
            linger: ms(self.linger_s),
            transaction: ms(self.transaction_s),
            invite: ms(self.invite_s),
            short_left: ms(self.short_left_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GM: &str = "[gm]\nuplinks = [\"eth0\"]\naddresses = [\"192.0.2.1\"]\n\
                      server_ports = [5064]\nclient_ports = [\"5065-5068\"]\n";

    #[test]
    fn a_core_that_every_user_of_the_host_can_pass_for_is_warned_of() {
        for (lines, named) in [
            ("next_hop = \"127.0.0.1:5061\"\n", None),
            (
                "next_hop = \"192.0.2.1:5061\"\ncore = \"192.0.2.9:5062\"\n",
                Some("next_hop: 192.0.2.1 "),
            ),
            (
                "next_hop = \"127.0.0.1:5061\"\ncore_trusted = [\"198.51.100.1\", \"127.0.0.1\"]\n",
                Some("core_trusted: 127.0.0.1 "),
            ),
        ] {
            let config = Config::parse(
                &format!("{GM}[edge]\n{lines}"),
                std::path::Path::new("f.toml"),
            )
            .unwrap();
            let warnings = config.warnings();
            assert_eq!(warnings.len(), usize::from(named.is_some()), "{warnings:?}");
            for (warning, named) in warnings.iter().zip(named) {
                assert!(warning.contains(named), "{warning}");
            }
        }
    }
}
