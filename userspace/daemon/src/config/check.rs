//! What the types of the configuration cannot say.

use std::net::IpAddr;

use super::sip::is_domain;
use super::{Config, ConfigError, Home, PortRange};

type Result = std::result::Result<(), ConfigError>;

/// An interface name holds at most 15 bytes, and gm0's other end needs one.
const MAX_GM0: usize = 14;

impl Config {
    pub(super) fn check(&self) -> Result {
        self.check_gm()?;
        self.check_control()?;
        self.log.check()?;
        if let Some(edge) = &self.edge {
            self.check_edge(edge)?;
        }
        if let Some(home) = &self.home {
            self.check_home(home)?;
        }
        Ok(())
    }

    fn check_gm(&self) -> Result {
        let gm = &self.gm;
        let bad = |key: &str, what: String, hint: &str| Err(ConfigError::at("gm", key, what, hint));
        if gm.workers == 0 {
            return bad("workers", "is 0".into(), "one does, more share the load");
        }
        if gm.cpu.is_some() && !gm.cpus.is_empty() {
            let hint = "write cpus = [..] alone";
            return bad("cpu", "stands beside cpus".into(), hint);
        }
        if gm.addresses.is_empty() {
            return bad(
                "addresses",
                "is empty".into(),
                "list this host's addresses on the Gm link",
            );
        }
        for (index, address) in gm.addresses.iter().enumerate() {
            if address.is_unspecified() || address.is_multicast() {
                let what = format!("{address} is no address of a host");
                return bad("addresses", what, "list the addresses that the phones use");
            }
            if gm
                .addresses
                .iter()
                .take(index)
                .any(|other| other == address)
            {
                return bad(
                    "addresses",
                    format!("{address} is listed twice"),
                    "remove one",
                );
            }
        }
        self.check_advertised()?;
        self.check_plane()?;
        self.check_engine()?;
        for (key, ports) in [
            ("server_ports", &gm.server_ports),
            ("client_ports", &gm.client_ports),
        ] {
            if ports.is_empty() {
                let hint = "list the protected ports, such as [5064] or [\"5100-5199\"]";
                return bad(key, "is empty".into(), hint);
            }
            if contains(ports, gm.encap_port) {
                let what = format!("holds {}, the encapsulation port", gm.encap_port);
                return bad(key, what, "take it out, or change [gm] encap_port");
            }
        }
        if !gm.max_sas.is_power_of_two() || !(4..=1 << 20).contains(&gm.max_sas) {
            let what = format!("{} is no power of two from 4 to 1048576", gm.max_sas);
            return bad(
                "max_sas",
                what,
                "a registered phone takes 4, 12 while it re-registers",
            );
        }
        if self.edge.is_some() && gm.max_sas < 16 {
            let what = format!("{} is too few for [edge]", gm.max_sas);
            return bad("max_sas", what, "use 16 or more");
        }
        if !(32..=4096).contains(&gm.replay_window) {
            let what = format!("{} is not from 32 to 4096", gm.replay_window);
            return bad("replay_window", what, "64 is usual");
        }
        if gm.encap_port == 0 {
            return bad("encap_port", "is 0".into(), "4500 is what phones use");
        }
        let name_is_bad = |name: &str, max: usize| {
            name.is_empty()
                || name.len() > max
                || name.contains(|c: char| c == '/' || c.is_whitespace())
        };
        if name_is_bad(&gm.gm0, MAX_GM0) {
            let what = format!(
                "{:?} is no interface name of at most {MAX_GM0} bytes",
                gm.gm0
            );
            return bad("gm0", what, "leave it out for gm0");
        }
        if gm.uplinks.iter().any(|name| name_is_bad(name, MAX_GM0 + 1)) {
            return bad(
                "uplinks",
                "holds no interface name".into(),
                "ip link lists them",
            );
        }
        if gm.pin_dir.as_os_str() != "off" && !gm.pin_dir.is_absolute() {
            let what = format!("{:?} is no absolute path", gm.pin_dir);
            return bad(
                "pin_dir",
                what,
                "use a directory in /sys/fs/bpf, or \"off\"",
            );
        }
        Ok(())
    }

    fn check_advertised(&self) -> Result {
        let gm = &self.gm;
        for (local, public) in &gm.advertised {
            let (what, hint) = if !gm.addresses.contains(local) {
                (
                    format!("{local} is none of addresses"),
                    "write { \"this host's address\" = \"the one that phones use\" }",
                )
            } else if local.is_ipv4() != public.is_ipv4() {
                (
                    format!("{local} and {public} are not of one address family"),
                    "a 1:1 NAT translates IPv4 to IPv4 and IPv6 to IPv6",
                )
            } else if public.is_unspecified() || public.is_multicast() || public.is_loopback() {
                (
                    format!("{public} is no address that phones can send to"),
                    "write the NAT's outer address",
                )
            } else if gm.addresses.contains(public) {
                (
                    format!("{public} is one of addresses"),
                    "take the line out: what this host has itself needs no NAT",
                )
            } else if gm.advertised.iter().any(|(l, p)| l != local && p == public) {
                (
                    format!("{public} stands twice"),
                    "a 1:1 NAT has an outer address for each inner one",
                )
            } else {
                continue;
            };
            return Err(ConfigError::at("gm", "advertised", what, hint));
        }
        Ok(())
    }

    fn check_control(&self) -> Result {
        if !self.control.socket.is_absolute() {
            let what = format!("{:?} is no absolute path", self.control.socket);
            return Err(ConfigError::at(
                "control",
                "socket",
                what,
                "begin it with /",
            ));
        }
        self.control.mode_bits()?;
        self.control.check_http()
    }

    fn check_home(&self, home: &Home) -> Result {
        let bad =
            |key: &str, what: String, hint: &str| Err(ConfigError::at("home", key, what, hint));
        if !home.listen.ip().is_loopback() || home.listen.port() == 0 {
            let what = format!("{} is no loopback address with a port", home.listen);
            return bad(
                "listen",
                what,
                "the embedded home is for labs: use 127.0.0.1:5061",
            );
        }
        match self.home_domain() {
            Some(domain) if is_domain(domain) => Ok(()),
            Some(_) => bad(
                "domain",
                "is no domain name".into(),
                "such as \"ims.example.org\"",
            ),
            None => bad(
                "domain",
                "is missing".into(),
                "name the home network's domain",
            ),
        }
    }

    /// The domain of the embedded home network.
    pub fn home_domain(&self) -> Option<&str> {
        let of_edge = || self.edge.as_ref().and_then(|edge| edge.domain.as_deref());
        self.home.as_ref()?.domain.as_deref().or_else(of_edge)
    }

    /// The port is protected by policy.
    pub fn is_protected(&self, port: u16) -> bool {
        contains(&self.gm.server_ports, port) || contains(&self.gm.client_ports, port)
    }

    /// This host's address that phones know by `address`; `address` where none is.
    pub fn own(&self, address: IpAddr) -> IpAddr {
        let mut pairs = self.gm.advertised.iter();
        let pair = pairs.find(|(_, public)| **public == address);
        pair.map_or(address, |(own, _)| *own)
    }

    /// The address is one of the Gm link's.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.gm.addresses.contains(&address)
    }
}

impl super::Control {
    fn check_http(&self) -> Result {
        let bad =
            |key: &str, what: String, hint: &str| Err(ConfigError::at("control", key, what, hint));
        if let Some(http) = self.http
            && (!http.ip().is_loopback() || http.port() == 0)
        {
            let what = format!("{http} is no loopback address with a port");
            let hint = "keys travel there in clear: use 127.0.0.1:8443";
            return bad("http", what, hint);
        }
        match (&self.http, &self.token_file) {
            (Some(_), None) => bad(
                "token_file",
                "is missing, and http is given".into(),
                "name a file with a secret of 32 characters or more: over TCP the kernel does \
                 not say who asks",
            ),
            (None, Some(_)) => bad(
                "token_file",
                "stands without http".into(),
                "add http = \"127.0.0.1:8443\" or take it out; the Unix socket needs no token",
            ),
            (_, Some(file)) if !file.is_absolute() => bad(
                "token_file",
                format!("{file:?} is no absolute path"),
                "begin it with /",
            ),
            _ => Ok(()),
        }
    }

    /// The permission bits.
    pub fn mode_bits(&self) -> std::result::Result<u32, ConfigError> {
        match u32::from_str_radix(&self.mode, 8) {
            // Nobody but owner and group: who can use the socket can read
            // traffic counters and install keys.
            Ok(bits) if bits & !0o770 == 0 && bits & 0o600 == 0o600 => Ok(bits),
            _ => {
                let what = format!("{:?} is not \"0600\" or \"0660\"", self.mode);
                let hint = "with \"0660\" name the group that may use it in [control] group";
                Err(ConfigError::at("control", "mode", what, hint))
            }
        }
    }
}

fn contains(ranges: &[PortRange], port: u16) -> bool {
    ranges.iter().any(|range| range.contains(port))
}
