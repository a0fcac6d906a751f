//! A set of SAs as states and policies of the kernel, in iproute2's words.
//!
//! A state of iproute2 cannot have ports without a protocol, so the policies have them:
//! one for UDP and one for TCP to each SA. The outbound ones come when the set goes live.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gm_esp::{EspKeys, Mode, SaSpec, Suite};
use gm_sip::SaSetRequest;
use gm_tests::netns::NetNs;

use crate::lab::write_private;

/// The kernel of one namespace.
pub struct IpXfrm<'a> {
    ns: &'a NetNs,
    batch: PathBuf,
}

/// What a policy is for and what becomes of its packets.
#[derive(Clone, Copy)]
enum Policy {
    Add,
    Block,
    Delete,
}

impl<'a> IpXfrm<'a> {
    /// `dir` has room for a file with keys, which is there for a moment.
    pub fn new(ns: &'a NetNs, dir: &Path) -> IpXfrm<'a> {
        let batch = dir.join("ip.batch");
        IpXfrm { ns, batch }
    }

    /// Four states, and the policies of the two inbound ones.
    pub fn install(&self, set: &SaSetRequest) {
        let mut lines = String::new();
        for spec in set.inbound.iter().chain(&set.outbound) {
            state(&mut lines, set, spec);
        }
        policies(&mut lines, set, &set.inbound, "in", Policy::Add);
        self.batch(&lines);
    }

    /// What leaves the set's ports is protected by it.
    pub fn activate(&self, set: &SaSetRequest) {
        self.outbound(set, Policy::Add);
    }

    /// What leaves the set's ports does not leave any more.
    pub fn retire(&self, set: &SaSetRequest) {
        self.outbound(set, Policy::Block);
    }

    /// Nothing of the set stays.
    pub fn remove(&self, set: &SaSetRequest) {
        let mut lines = String::new();
        policies(&mut lines, set, &set.outbound, "out", Policy::Delete);
        policies(&mut lines, set, &set.inbound, "in", Policy::Delete);
        for spec in set.inbound.iter().chain(&set.outbound) {
            let (dst, spi) = (spec.destination(), spec.spi);
            let _ = writeln!(lines, "xfrm state delete dst {dst} proto esp spi {spi}");
        }
        self.batch(&lines);
    }

    fn outbound(&self, set: &SaSetRequest, policy: Policy) {
        let mut lines = String::new();
        policies(&mut lines, set, &set.outbound, "out", policy);
        self.batch(&lines);
    }

    /// Keys go through a file that is the tester's own, not over a command line.
    fn batch(&self, lines: &str) {
        write_private(&self.batch, lines);
        self.ns
            .sh("ip", &["-batch", &self.batch.display().to_string()]);
        std::fs::remove_file(&self.batch).expect("it was there");
    }

    /// Packets that an SA has carried.
    pub fn packets(&self, spec: &SaSpec) -> u64 {
        let (dst, spi) = (spec.destination(), spec.spi);
        let words = format!("-s xfrm state get dst {dst} proto esp spi {spi}");
        let told = self.ns.ip(&words);
        let mut current = told.lines().skip_while(|l| !l.contains("lifetime current"));
        let line = current.nth(1).unwrap_or_else(|| panic!("{told}"));
        let count = line.split(", ").nth(1).unwrap_or_default();
        let digits = count.trim_end_matches("(packets)");
        digits.parse().unwrap_or_else(|e| panic!("{e}: {told}"))
    }

    /// Why the kernel has dropped something: counters that are not 0.
    pub fn drops(&self) -> Vec<String> {
        let stat = self.ns.sh("cat", &["/proc/net/xfrm_stat"]);
        let counts = stat.lines().filter(|line| {
            let count = line.split_whitespace().nth(1);
            count.is_some_and(|n| n != "0")
        });
        counts.map(str::to_owned).collect()
    }

    /// Lines of states and policies.
    pub fn left(&self) -> String {
        self.ns.ip("xfrm state") + &self.ns.ip("xfrm policy")
    }
}

/// The set's name in the kernel.
fn reqid(set: &SaSetRequest) -> u64 {
    7000 + set.token.0
}

fn mode(spec: &SaSpec) -> &'static str {
    match spec.mode {
        Mode::Trans => "transport",
        Mode::UdpEncTun => "tunnel",
    }
}

fn state(lines: &mut String, set: &SaSetRequest, spec: &SaSpec) {
    let (src, dst) = (spec.source(), spec.destination());
    let (spi, mode, window) = (spec.spi, mode(spec), spec.replay_window);
    let _ = write!(
        lines,
        "xfrm state add src {src} dst {dst} proto esp spi {spi} reqid {} mode {mode} \
         replay-window {window} {}",
        reqid(set),
        algorithms(&set.keys())
    );
    if let Some(outer) = spec.outer {
        let port = |port: Option<u16>| port.unwrap_or(4500);
        let (sport, dport) = (port(outer.sport), port(outer.dport));
        let _ = write!(lines, " encap espinudp {sport} {dport} 0.0.0.0");
    }
    lines.push('\n');
}

/// Algorithms and keys of Annex I by the kernel's names.
fn algorithms(keys: &EspKeys) -> String {
    let hex = |bytes: Option<&[u8]>| {
        let bytes = bytes.unwrap_or_default().iter();
        bytes.map(|b| format!("{b:02x}")).collect::<String>()
    };
    let salt = hex(keys.salt().as_ref().map(|s| &s[..]));
    let (integrity, encryption) = (hex(keys.integrity()), hex(keys.encryption()));
    let sha1 = format!("auth-trunc hmac(sha1) 0x{integrity} 96");
    match keys.suite() {
        Suite::HmacSha1Null => format!("{sha1} enc ecb(cipher_null) \"\""),
        Suite::HmacSha1AesCbc => format!("{sha1} enc cbc(aes) 0x{encryption}"),
        Suite::AesGmacNull => format!("aead rfc4543(gcm(aes)) 0x{integrity}{salt} 128"),
        Suite::NullAesGcm => format!("aead rfc4106(gcm(aes)) 0x{encryption}{salt} 128"),
        other => panic!("{other} is not of this test"),
    }
}

fn policies(lines: &mut String, set: &SaSetRequest, sas: &[SaSpec], dir: &str, policy: Policy) {
    for spec in sas {
        let s = &spec.selector;
        let (sport, dport) = (s.src_port.unwrap_or(0), s.dst_port.unwrap_or(0));
        for proto in ["udp", "tcp"] {
            let selector = format!(
                "src {} dst {} proto {proto} sport {sport} dport {dport} dir {dir}",
                s.src, s.dst
            );
            let _ = match policy {
                Policy::Add => writeln!(
                    lines,
                    "xfrm policy add {selector} tmpl src {} dst {} proto esp spi {} \
                     reqid {} mode {}",
                    spec.source(),
                    spec.destination(),
                    spec.spi,
                    reqid(set),
                    mode(spec)
                ),
                Policy::Block => writeln!(lines, "xfrm policy update {selector} action block"),
                Policy::Delete => writeln!(lines, "xfrm policy delete {selector}"),
            };
        }
    }
}
