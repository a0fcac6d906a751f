//! `[gm] data_plane`: what carries the packets, and what that asks of the rest.

use serde::Deserialize;

use super::{Config, ConfigError};

/// `[gm] data_plane`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PlaneKind {
    /// XDP and AF_XDP with workers of this daemon.
    #[default]
    Xdp,
    /// The kernel's own ESP (XFRM), with nftables as the guard.
    Kernel,
}

impl PlaneKind {
    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            PlaneKind::Xdp => "xdp",
            PlaneKind::Kernel => "kernel",
        }
    }
}

impl Config {
    /// What the chosen data plane needs, and what it cannot have.
    pub(super) fn check_plane(&self) -> Result<(), ConfigError> {
        match self.gm.data_plane {
            PlaneKind::Xdp => self.check_uplinks(),
            PlaneKind::Kernel => self.check_kernel(),
        }
    }

    fn check_uplinks(&self) -> Result<(), ConfigError> {
        let (what, hint) = match self.gm.uplinks.len() {
            1 => return Ok(()),
            0 => (
                "is empty".to_owned(),
                "name the interface towards the phones",
            ),
            n => (
                format!("{n} uplinks are listed, this version drives exactly one"),
                "keep one and run no second daemon on this host",
            ),
        };
        Err(ConfigError::at("gm", "uplinks", what, hint))
    }

    fn check_kernel(&self) -> Result<(), ConfigError> {
        let gm = &self.gm;
        let refuse = |key: &str, what: &str, hint: &str| {
            let what = format!("{what}, and data_plane is \"kernel\"");
            Err(ConfigError::at("gm", key, what, hint))
        };
        if !gm.advertised.is_empty() {
            return refuse(
                "advertised",
                "a static NAT is given",
                "the kernel's ESP does not translate inside of SAs: use data_plane = \"xdp\"",
            );
        }
        if gm.workers != 1 {
            return refuse(
                "workers",
                "workers are asked for",
                "the kernel has none, it opens and seals where packets come and go: take it out",
            );
        }
        if gm.busy_poll.0 != 0 {
            return refuse(
                "busy_poll",
                "workers are to poll",
                "the kernel has no workers: take it out",
            );
        }
        if gm.kernel_sas {
            return refuse(
                "kernel_sas",
                "SAs of another P-CSCF are to be taken over",
                "only data_plane = \"xdp\" takes them over: take it out",
            );
        }
        if gm.cpu.is_some() || !gm.cpus.is_empty() {
            return refuse(
                if gm.cpu.is_some() { "cpu" } else { "cpus" },
                "CPUs for workers are given",
                "the kernel has no workers: take it out",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const KERNEL: &str = "[gm]\ndata_plane = \"kernel\"\naddresses = [\"192.0.2.1\"]\n\
                          server_ports = [5064]\nclient_ports = [\"5065-5068\"]\n";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("f.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_kernel_needs_no_uplink_and_takes_one_all_the_same() {
        assert_eq!(parse(KERNEL).unwrap().gm.data_plane, PlaneKind::Kernel);
        let with = format!("{KERNEL}uplinks = [\"eth0\", \"eth1\"]\npin_dir = \"off\"\n");
        assert_eq!(parse(&with).unwrap().gm.uplinks.len(), 2);
        let warnings = parse(KERNEL).unwrap().warnings();
        let lost = "lost with data_plane = \"kernel\": ";
        assert!(warnings.len() > 5 && warnings.iter().all(|w| w.starts_with(lost)));
        let xdp = KERNEL.replace("kernel", "xdp");
        let error = parse(&xdp).unwrap_err();
        assert!(error.contains("[gm] uplinks: is empty"), "{error}");
    }

    #[test]
    fn what_the_kernel_cannot_do_is_refused_with_words() {
        for (key, line) in [
            (
                "advertised",
                "advertised = { \"192.0.2.1\" = \"198.51.100.7\" }",
            ),
            ("workers", "workers = 2"),
            ("cpu", "cpu = 3"),
            ("cpus", "cpus = [3]"),
            ("busy_poll", "busy_poll = 50"),
        ] {
            let error = parse(&format!("{KERNEL}{line}\n")).unwrap_err();
            assert!(error.contains(&format!("f.toml: [gm] {key}: ")), "{error}");
            assert!(error.contains("data_plane is \"kernel\"; "), "{error}");
        }
        let error = parse(&KERNEL.replace("kernel", "ebpf")).unwrap_err();
        assert!(
            error.contains("[gm] data_plane: unknown variant"),
            "{error}"
        );
    }
}
