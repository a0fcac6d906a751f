//! The guard: a table of nftables that drops what is protected and has no SA on it, in
//! both directions, on every interface. XFRM's own policies do not look at loopback, nor
//! at what an ICMP error quotes.
//!
//! It stays when the process is killed, and a successor replaces it in one transaction.

use std::fmt::Write;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::Deserialize;

use super::{KernelError, nft, ports};

/// The table, in the family inet.
pub const TABLE: &str = "gmesp";

/// The guard that is in force.
#[derive(Debug)]
pub struct Guard {
    script: String,
    /// The table as nft shows it, without counters: what it must look like.
    shape: String,
    /// What was counted by tables that somebody has removed or changed.
    before: Counts,
}

/// Packets that the guard has dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cleartext to protected ports.
    pub cleartext_protected: u64,
    /// What left from protected ports without an SA.
    pub out_no_sa: u64,
    /// ICMP errors that quote cleartext of protected ports.
    pub clear_icmp: u64,
}

impl Counts {
    fn plus(self, other: Counts) -> Counts {
        Counts {
            cleartext_protected: self.cleartext_protected + other.cleartext_protected,
            out_no_sa: self.out_no_sa + other.out_no_sa,
            clear_icmp: self.clear_icmp + other.clear_icmp,
        }
    }
}

impl Guard {
    /// Puts the guard in force, in place of a predecessor's.
    pub fn put(
        addresses: &[IpAddr],
        protected: impl IntoIterator<Item = RangeInclusive<u16>>,
    ) -> Result<Guard, KernelError> {
        let script = script(addresses, &ports::merged(protected));
        nft::run(&["-f", "-"], &script)?;
        Ok(Guard {
            shape: shape()?,
            script,
            before: Counts::default(),
        })
    }

    /// There is one, of whoever.
    pub fn is_there() -> bool {
        shape().is_ok()
    }

    /// Puts it in force again where somebody has removed or changed it. Whether that was
    /// so.
    pub fn look(&mut self) -> Result<bool, KernelError> {
        // Without the table nft fails, which is as good as another shape.
        if shape().is_ok_and(|shape| shape == self.shape) {
            return Ok(false);
        }
        let counted = counters().unwrap_or_default();
        nft::run(&["-f", "-"], &self.script)?;
        self.before = self.before.plus(counted);
        self.shape = shape()?;
        Ok(true)
    }

    /// What it has dropped since the start.
    pub fn counts(&self) -> Result<Counts, KernelError> {
        Ok(self.before.plus(counters()?))
    }

    /// Takes it away. That it is gone already is no error.
    pub fn remove(&self) -> Result<(), KernelError> {
        remove()
    }
}

/// Takes the guard away, whoever has put it there.
pub fn remove() -> Result<(), KernelError> {
    nft::run(&["-f", "-"], &opening()).map(drop)
}

/// The table is made so that it can be deleted whether it was there or not.
fn opening() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

fn shape() -> Result<String, KernelError> {
    nft::run(&["--stateless", "list", "table", "inet", TABLE], "")
}

/// The whole table as one transaction.
fn script(addresses: &[IpAddr], protected: &[RangeInclusive<u16>]) -> String {
    let ports = set(protected.iter().map(|range| {
        if range.start() == range.end() {
            range.start().to_string()
        } else {
            format!("{}-{}", range.start(), range.end())
        }
    }));
    let (mut input, mut output) = (String::new(), String::new());
    for address in addresses {
        let rules = Rules::of(address, &ports);
        rules.input(&mut input);
        rules.output(&mut output);
    }
    format!(
        "{opening}table inet {TABLE} {{\n\
         comment \"gmespd: nothing that is protected without an SA\"\n\
         counter cleartext-protected {{ }}\ncounter out-no-sa {{ }}\ncounter clear-icmp {{ }}\n\
         chain input {{\ntype filter hook input priority -300; policy accept;\n{input}}}\n\
         chain output {{\ntype filter hook output priority -300; policy accept;\n{output}}}\n}}\n",
        opening = opening()
    )
}

fn set(words: impl Iterator<Item = String>) -> String {
    format!("{{ {} }}", words.collect::<Vec<_>>().join(", "))
}

/// Rules about one address. What an ICMP error quotes is found by bit offsets from the
/// ICMP header, which has 64 bits.
struct Rules<'a> {
    address: &'a IpAddr,
    ports: &'a str,
    /// `ip` or `ip6`.
    family: &'static str,
    /// What says that a packet is an ICMP error.
    error: &'static str,
    /// The address as a number.
    number: String,
    /// Where in the quote the source address stands, how long it is, and where the
    /// destination address does.
    ends: [u32; 3],
    /// What says that the quote has UDP or TCP right behind a plain header, and where its
    /// ports stand.
    plain: &'static str,
    quoted_ports: [u32; 2],
    /// What says that there may be UDP or TCP somewhere else.
    hidden: &'static str,
}

impl Rules<'_> {
    fn of<'a>(address: &'a IpAddr, ports: &'a str) -> Rules<'a> {
        match address {
            IpAddr::V4(v4) => Rules {
                address,
                ports,
                family: "ip",
                error: "icmp type { destination-unreachable, source-quench, redirect, \
                        time-exceeded, parameter-problem }",
                number: format!("{:#010x}", v4.to_bits()),
                ends: [160, 32, 192],
                plain: "@th,68,4 5 @th,136,8 { 6, 17 }",
                quoted_ports: [224, 240],
                hidden: "@th,68,4 != 5 @th,136,8 { 6, 17 }",
            },
            IpAddr::V6(v6) => Rules {
                address,
                ports,
                family: "ip6",
                error: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, \
                        parameter-problem }",
                number: format!("{:#034x}", v6.to_bits()),
                ends: [128, 128, 256],
                plain: "@th,112,8 { 6, 17 }",
                quoted_ports: [384, 400],
                hidden: "@th,112,8 { 0, 43, 44, 51, 60, 135, 139, 140 }",
            },
        }
    }

    fn input(&self, to: &mut String) {
        let Rules { error, number, .. } = self;
        let [source, bits, _] = self.ends;
        self.packets(to, "daddr", "dport", "meta", "cleartext-protected");
        let about = format!("meta ipsec missing {error} @th,{source},{bits} {number}");
        self.quotes(to, &about, self.quoted_ports[0], "clear-icmp");
    }

    fn output(&self, to: &mut String) {
        let Rules { error, number, .. } = self;
        let [_, bits, destination] = self.ends;
        self.packets(to, "saddr", "sport", "rt", "out-no-sa");
        // What was opened must not go back in clear as a quote.
        let about = format!("rt ipsec missing {error} @th,{destination},{bits} {number}");
        self.quotes(to, &about, self.quoted_ports[1], "out-no-sa");
    }

    fn packets(&self, to: &mut String, end: &str, port: &str, key: &str, counter: &str) {
        let Rules {
            family,
            address,
            ports,
            ..
        } = self;
        let _ = writeln!(
            to,
            "{family} {end} {address} meta l4proto {{ tcp, udp }} th {port} {ports} \
             {key} ipsec missing counter name \"{counter}\" drop"
        );
    }

    fn quotes(&self, to: &mut String, about: &str, port: u32, counter: &str) {
        let Rules {
            plain,
            hidden,
            ports,
            ..
        } = self;
        for what in [format!("{plain} @th,{port},16 {ports}"), (*hidden).into()] {
            let _ = writeln!(to, "{about} {what} counter name \"{counter}\" drop");
        }
    }
}

/// What `nft -j list counters` prints, as far as it is read.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    name: String,
    packets: u64,
}

fn counters() -> Result<Counts, KernelError> {
    parse(&nft::run(
        &["--json", "list", "counters", "table", "inet", TABLE],
        "",
    )?)
}

fn parse(text: &str) -> Result<Counts, KernelError> {
    let listing: Listing = serde_json::from_str(text).map_err(|_| {
        KernelError::NftRefused("its list of counters is not the JSON that is expected".into())
    })?;
    let mut counts = Counts::default();
    for counter in listing.nftables.into_iter().filter_map(|item| item.counter) {
        match counter.name.as_str() {
            "cleartext-protected" => counts.cleartext_protected = counter.packets,
            "out-no-sa" => counts.out_no_sa = counter.packets,
            "clear-icmp" => counts.clear_icmp = counter.packets,
            _ => {}
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Vec<IpAddr> {
        vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]
    }

    #[test]
    fn every_address_is_guarded_in_both_directions_in_one_transaction() {
        let script = script(&addresses(), &[5066..=5074, 6000..=6000]);
        assert!(
            script.starts_with("table inet gmesp\ndelete table inet gmesp\ntable inet gmesp {\n")
        );
        for rule in [
            "ip daddr 192.0.2.1 meta l4proto { tcp, udp } th dport { 5066-5074, 6000 } meta ipsec missing counter name \"cleartext-protected\" drop\n",
            "ip6 saddr 2001:db8::1 meta l4proto { tcp, udp } th sport { 5066-5074, 6000 } rt ipsec missing counter name \"out-no-sa\" drop\n",
            "@th,160,32 0xc0000201 @th,68,4 5 @th,136,8 { 6, 17 } @th,224,16 { 5066-5074, 6000 } counter name \"clear-icmp\" drop\n",
            "@th,256,128 0x20010db8000000000000000000000001 @th,112,8 { 6, 17 } @th,400,16 { 5066-5074, 6000 } counter name \"out-no-sa\" drop\n",
        ] {
            assert!(script.contains(rule), "{rule}\nis not in\n{script}");
        }
        assert_eq!(script.matches(" drop\n").count(), 12);
    }

    #[test]
    fn counters_are_read_and_what_is_no_listing_is_an_error() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "inet", "name": "out-no-sa", "table": "gmesp", "packets": 7, "bytes": 9}},
            {"counter": {"family": "inet", "name": "other", "table": "gmesp", "packets": 1, "bytes": 9}}]}"#;
        let counts = parse(text).unwrap();
        assert_eq!((counts.out_no_sa, counts.clear_icmp), (7, 0));
        for text in [
            "",
            "{}",
            "{\"nftables\": 3}",
            "{\"nftables\": [{\"counter\": {}}]}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
