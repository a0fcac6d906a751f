//! What the data plane protects and with what means: the policy that exists
//! before any SA does (ARCHITECTURE, rule 5).

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use gm_abi::maps::{Addr, PORT_WORDS, mapped};

use crate::Error;

/// Which kernel interface carries the tc programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcMode {
    /// tcx where the kernel has it (6.6 and later), else clsact.
    #[default]
    Auto,
    /// tcx links only; they can be pinned and come first in order.
    Tcx,
    /// Filters on the clsact qdisc, at the highest priority.
    Clsact,
}

/// Configuration of one data plane: one uplink, one gm0, one policy.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interface that leads to the phones (or, in the UE role, to the P-CSCF).
    pub uplink: String,
    /// Local addresses of the Gm link. Traffic of other addresses is not touched.
    pub addresses: Vec<IpAddr>,
    /// Of a static 1:1 NAT in front of this host: local addresses, each with
    /// the one of its family that phones know it by. Mostly empty.
    pub advertised: Vec<(IpAddr, IpAddr)>,
    /// Protected local server ports (port_ps, port_us).
    pub server_ports: Vec<RangeInclusive<u16>>,
    /// Protected local client ports (port_pc, port_uc).
    pub client_ports: Vec<RangeInclusive<u16>>,
    /// Most SAs at one time, both directions together; rounded up to a power
    /// of two. 4 to 1 048 576.
    pub max_sas: u32,
    /// Largest replay window of an SA, in sequence numbers, 32 to 4096.
    pub replay_window: u32,
    /// Local UDP port of UDP-encapsulated ESP; 0: none.
    pub encap_port: u16,
    /// Workers, 1 to the number of the uplink's queues.
    pub workers: u32,
    /// CPUs to pin the workers to, by number; those without one are left to
    /// the scheduler.
    pub cpus: Vec<usize>,
    /// Microseconds for which a worker looks again, and has the driver look, after
    /// its last packet, before it sleeps; 0: it sleeps at once, and packets wake
    /// it. 1 000 000 at most. A worker that polls gives way to whoever else has
    /// something to do on its CPU, and takes all the rest of it.
    pub busy_poll_us: u32,
    /// Directory on a bpffs (mounted there if it is none) that keeps the
    /// programs attached when this process is killed. `None`: nothing is
    /// pinned, and a killed process leaves the host without its policy.
    pub pin_dir: Option<PathBuf>,
    /// Name of the device that opened packets come from; its peer is called
    /// the same with an `x` appended. At most 14 bytes.
    pub gm0: String,
    /// Whether a verified packet from another NAT port moves the SA set to
    /// that port (ARCHITECTURE, reading A-19).
    pub follow_encap_port: bool,
    /// How the tc programs are attached.
    pub tc: TcMode,
    /// ESP of SPIs that are not ours is left to SAs that somebody else has put
    /// into the kernel, instead of dropped: until they are taken over
    /// ([`DataPlane::adopt`](crate::DataPlane::adopt)).
    pub kernel_sas: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            uplink: String::new(),
            addresses: Vec::new(),
            advertised: Vec::new(),
            server_ports: Vec::new(),
            client_ports: Vec::new(),
            max_sas: 4096,
            replay_window: 64,
            encap_port: 4500,
            workers: 1,
            cpus: Vec::new(),
            busy_poll_us: 0,
            pin_dir: None,
            gm0: "gm0".into(),
            follow_encap_port: true,
            tc: TcMode::Auto,
            kernel_sas: false,
        }
    }
}

/// The longest [`Config::busy_poll_us`].
pub const MAX_BUSY_POLL_US: u32 = 1_000_000;

/// Longest interface name that Linux takes, without the terminating zero.
const IFNAME_MAX: usize = 15;

impl Config {
    /// Refuses what cannot work, with what to change.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        let name_ok = |n: &str| {
            !n.is_empty()
                && n != "."
                && n != ".."
                && !n
                    .bytes()
                    .any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace() || b == 0)
        };
        if !name_ok(&self.uplink) || self.uplink.len() > IFNAME_MAX {
            return wrong(format!(
                "uplink {:?} is not the name of an interface",
                self.uplink
            ));
        }
        if !name_ok(&self.gm0) || self.gm0.len() >= IFNAME_MAX {
            return wrong(format!(
                "gm0 {:?}: want 1 to 14 bytes that Linux takes as a name",
                self.gm0
            ));
        }
        if self.uplink == self.gm0 || self.uplink == self.gm0x() {
            return wrong(format!("uplink and gm0 are both called {:?}", self.uplink));
        }
        if self.addresses.is_empty() {
            return wrong("addresses is empty: name the local addresses of the Gm link".into());
        }
        if let Some(a) = self
            .addresses
            .iter()
            .find(|a| a.is_unspecified() || a.is_multicast())
        {
            return wrong(format!("address {a} is not a host's address"));
        }
        self.check_advertised()?;
        if !(4..=1 << 20).contains(&self.max_sas) {
            return wrong(format!("max_sas {} is outside 4 to 1048576", self.max_sas));
        }
        if !(32..=4096).contains(&self.replay_window) {
            return wrong(format!(
                "replay_window {} is outside 32 to 4096",
                self.replay_window
            ));
        }
        let here = std::thread::available_parallelism();
        self.check_busy_poll(here.map_or(1, |n| n.get()))?;
        let mut ports = self
            .server_ports
            .iter()
            .chain(&self.client_ports)
            .peekable();
        if ports.peek().is_none() {
            return wrong(
                "neither server_ports nor client_ports: nothing would be protected".into(),
            );
        }
        for r in ports {
            if r.is_empty() || *r.start() == 0 {
                return wrong(format!(
                    "port range {}-{} is empty or holds 0",
                    r.start(),
                    r.end()
                ));
            }
            if self.encap_port != 0 && r.contains(&self.encap_port) {
                return wrong(format!(
                    "port range {}-{} holds the encapsulation port {}",
                    r.start(),
                    r.end(),
                    self.encap_port
                ));
            }
        }
        Ok(())
    }

    /// On a machine with this many CPUs.
    fn check_busy_poll(&self, cpus: usize) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        let us = self.busy_poll_us;
        if us == 0 {
            return Ok(());
        }
        if us > MAX_BUSY_POLL_US {
            return wrong(format!(
                "busy_poll_us {us} is more than {MAX_BUSY_POLL_US}, a second: 50 to 1000 suit a busy link"
            ));
        }
        if self.workers as usize > cpus {
            return wrong(format!(
                "busy_poll_us {us} with {} workers on {cpus} CPUs: they would take it from each other; \
                 fewer workers, or 0",
                self.workers
            ));
        }
        Ok(())
    }

    fn check_advertised(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        for (i, (local, public)) in self.advertised.iter().enumerate() {
            if !self.addresses.contains(local) {
                return wrong(format!(
                    "advertised: {local} is none of addresses: only those are translated"
                ));
            }
            if local.is_ipv4() != public.is_ipv4() {
                return wrong(format!(
                    "advertised: {local} and {public} are not of one address family"
                ));
            }
            if public.is_unspecified() || public.is_multicast() || public.is_loopback() {
                return wrong(format!(
                    "advertised: {public} is no address that phones can send to"
                ));
            }
            if self.addresses.contains(public) {
                return wrong(format!(
                    "advertised: {public} is one of addresses: what this host has needs no NAT"
                ));
            }
            let mut others = self.advertised[..i].iter();
            if others.any(|(l, p)| l == local || p == public) {
                return wrong(format!(
                    "advertised: {local} or {public} stands twice; a 1:1 NAT makes pairs"
                ));
            }
        }
        Ok(())
    }

    /// Name of gm0's peer, where AF_XDP sits.
    pub fn gm0x(&self) -> String {
        format!("{}x", self.gm0)
    }

    /// Number of SA slots: `max_sas` rounded up to a power of two.
    pub fn slots(&self) -> u32 {
        self.max_sas.next_power_of_two()
    }

    /// The protected ports as words of the map `PORTS`: bit `port % 64` of
    /// word `port / 64`.
    pub fn port_words(&self) -> Vec<u64> {
        let mut words = vec![0u64; PORT_WORDS as usize];
        for range in self.server_ports.iter().chain(&self.client_ports) {
            for port in range.clone() {
                words[usize::from(port) / 64] |= 1 << (port % 64);
            }
        }
        words
    }
}

/// An address as the maps hold it: IPv4 as IPv4-mapped IPv6, network order.
pub fn map_addr(a: IpAddr) -> Addr {
    match a {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Config {
        Config {
            uplink: "eth0".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            server_ports: vec![5060..=5060],
            client_ports: vec![20000..=20999],
            ..Config::default()
        }
    }

    fn nat(c: &mut Config, pairs: &[(&str, &str)]) {
        let pair = |(l, p): &(&str, &str)| (l.parse().unwrap(), p.parse().unwrap());
        c.advertised = pairs.iter().map(pair).collect();
    }

    #[test]
    fn accepts_a_plain_configuration() {
        good().validate().unwrap();
        let mut behind_a_nat = good();
        nat(&mut behind_a_nat, &[("10.0.0.1", "198.51.100.1")]);
        behind_a_nat.validate().unwrap();
    }

    #[test]
    fn names_what_is_wrong() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 14] = [
            (|c| c.uplink = String::new(), "uplink"),
            (|c| c.uplink = "a b".into(), "uplink"),
            (|c| c.gm0 = "fifteen-bytes-x".into(), "gm0"),
            (|c| c.gm0 = "eth0".into(), "both called"),
            (|c| c.addresses.clear(), "addresses"),
            (|c| c.max_sas = 3, "max_sas"),
            (
                |c| nat(c, &[("10.0.0.9", "198.51.100.1")]),
                "10.0.0.9 is none",
            ),
            (|c| nat(c, &[("10.0.0.1", "2001:db8::1")]), "family"),
            (|c| nat(c, &[("10.0.0.1", "127.0.0.1")]), "127.0.0.1"),
            (|c| nat(c, &[("10.0.0.1", "10.0.0.1")]), "needs no NAT"),
            (
                |c| {
                    c.addresses.push("10.0.0.2".parse().unwrap());
                    nat(
                        c,
                        &[("10.0.0.1", "198.51.100.1"), ("10.0.0.2", "198.51.100.1")],
                    );
                },
                "twice",
            ),
            (|c| c.replay_window = 5000, "replay_window"),
            (|c| c.client_ports = vec![4000..=5000], "encapsulation port"),
            (
                |c| {
                    c.client_ports.clear();
                    c.server_ports.clear();
                },
                "nothing would be protected",
            ),
        ];
        for (change, word) in cases {
            let mut c = good();
            change(&mut c);
            let text = c.validate().unwrap_err().to_string();
            assert!(text.contains(word), "{text:?} does not say {word:?}");
        }
    }

    #[test]
    fn no_more_workers_poll_busily_than_there_are_cpus() {
        let polls = |us, workers| Config {
            busy_poll_us: us,
            workers,
            ..good()
        };
        polls(0, 64).check_busy_poll(1).unwrap();
        polls(1, 1).check_busy_poll(1).unwrap();
        polls(MAX_BUSY_POLL_US, 4).check_busy_poll(4).unwrap();
        for (us, workers, cpus, word) in [
            (50, 2, 1, "on 1 CPUs"),
            (50, 5, 4, "5 workers on 4 CPUs"),
            (MAX_BUSY_POLL_US + 1, 1, 8, "more than 1000000"),
        ] {
            let refused = polls(us, workers).check_busy_poll(cpus).unwrap_err();
            assert!(refused.to_string().contains(word), "{refused}");
        }
    }

    #[test]
    fn the_bitmap_holds_exactly_the_ports() {
        let words = good().port_words();
        let ports: Vec<u16> = (0..=u16::MAX)
            .filter(|p| words[usize::from(*p) / 64] >> (p % 64) & 1 == 1)
            .collect();
        let want: Vec<u16> = std::iter::once(5060).chain(20000..=20999).collect();
        assert_eq!(ports, want);
    }
}
