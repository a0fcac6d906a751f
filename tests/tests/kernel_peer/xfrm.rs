//! The kernel as the other end: its states and policies, and what it counts.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use gm_tests::netns::NetNs;

use crate::common::{program, write_private};
use crate::set::{ENCAP, End, Set};

/// What a receiver has to say of one SA: packets that came again, that came too late, and whose
/// ICV did not verify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    pub replay: u64,
    pub stale: u64,
    pub icv: u64,
}

/// A namespace whose kernel does ESP.
pub struct Kernel {
    pub ns: NetNs,
    pub end: End,
    dir: tempfile::TempDir,
    /// Hands ESP in UDP to XFRM, and sends keepalives.
    pub encap: UdpSocket,
}

impl Kernel {
    /// At one end of the link, without any SA.
    pub fn new(ns: NetNs, end: End) -> Kernel {
        let encap = ns.run(|| UdpSocket::bind(("0.0.0.0", ENCAP)).expect("UDP 4500"));
        gm_xsk::esp_in_udp(&encap).expect("ESP in UDP");
        Kernel {
            ns,
            end,
            dir: tempfile::tempdir().expect("a directory"),
            encap,
        }
    }

    /// Commands of iproute2, out of a file: keys are no arguments.
    pub fn ip(&self, commands: &str) {
        let file = self.dir.path().join("commands");
        write_private(&file, commands);
        self.ns
            .sh("ip", &["-batch", file.to_str().expect("a path")]);
    }

    /// States and policies of these sets, made by iproute2.
    pub fn add(&self, sets: &[Set]) {
        let commands: Vec<String> = sets
            .iter()
            .flat_map(|set| [set.states(self.end), set.policies(self.end, "add")])
            .collect();
        self.ip(&commands.concat());
    }

    /// The same, made by `gm-xfrm install`.
    pub fn install(&self, sets: &[Set]) {
        let file = self.dir.path().join("SAD.toml");
        let text: Vec<String> = sets.iter().map(|set| set.sad(self.end)).collect();
        write_private(&file, &text.concat());
        let program = program("gm-xfrm");
        let said = self.ns.sh(
            program.to_str().expect("a path"),
            &["install", "--sad", file.to_str().expect("a path"), "--json"],
        );
        let states = format!("\"states\":{}", 4 * sets.len());
        assert!(said.replace(' ', "").contains(&states), "{said}");
    }

    /// What is not 0 of the errors that XFRM counts here.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        counters(&self.ns, "xfrm_stat")
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect()
    }

    /// What the state with this SPI has refused, as `ip -s` shows it.
    pub fn refused(&self, spi: u32) -> Refused {
        let text = self.ns.ip(&format!("-s xfrm state list spi {spi}"));
        // `replay-window N replay N failed N`, the statistics; the window itself is above.
        let stats = text
            .split("stats:")
            .nth(1)
            .unwrap_or_else(|| panic!("{text}"));
        let after = |name: &str| {
            let mut words = stats.split_whitespace().skip_while(|word| *word != name);
            let n = words.nth(1).unwrap_or_else(|| panic!("{text}"));
            n.parse().unwrap_or_else(|e| panic!("{n}: {e}"))
        };
        Refused {
            replay: after("replay"),
            stale: after("replay-window"),
            icv: after("failed"),
        }
    }

    /// Fragments that IP has made here, and that have come.
    pub fn fragments(&self) -> u64 {
        let v6 = counters(&self.ns, "snmp6");
        let v4 = snmp(&self.ns);
        let names = ["ReasmReqds", "FragCreates"];
        let of = |all: &BTreeMap<String, u64>, family: &str| -> u64 {
            names
                .map(|name| all[&format!("{family}{name}")])
                .iter()
                .sum()
        };
        of(&v4, "Ip") + of(&v6, "Ip6")
    }
}

/// A file of /proc/net as seen in a namespace: a name and a number each line.
fn counters(ns: &NetNs, file: &str) -> BTreeMap<String, u64> {
    let text = proc_net(ns, file);
    let pair = |line: &str| {
        let (name, n) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), n.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// /proc/net/snmp: a line of names, a line of numbers.
fn snmp(ns: &NetNs) -> BTreeMap<String, u64> {
    let text = proc_net(ns, "snmp");
    let lines: Vec<&str> = text.lines().collect();
    let mut all = BTreeMap::new();
    for pair in lines.chunks(2) {
        let [names, numbers] = pair else { break };
        let family = names.split(':').next().unwrap_or_default();
        for (name, n) in names.split(' ').zip(numbers.split(' ')).skip(1) {
            all.insert(format!("{family}{name}"), n.parse().unwrap_or_default());
        }
    }
    all
}

pub fn proc_net(ns: &NetNs, file: &str) -> String {
    // /proc/net is the main thread's namespace.
    let path = format!("/proc/thread-self/net/{file}");
    ns.run(|| std::fs::read_to_string(&path))
        .unwrap_or_else(|e| panic!("{path}: {e}"))
}
