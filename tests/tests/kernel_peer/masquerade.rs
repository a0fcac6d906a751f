//! A NAT: a namespace whose nftables masquerade what phones send over UDP.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use gm_tests::netns::{End as Leg, NetNs, veth};

use crate::lab::NAMES;

pub const P_CSCF: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The NAT's address, which the phones use inside (TS 33.203 annex M).
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

/// The address of the phone with this number, from 1, in its own network.
pub fn private(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, n, 2)
}

/// A running NAT.
pub struct Masquerade {
    ns: NetNs,
}

impl Masquerade {
    /// Between the P-CSCF's uplink and phones' uplinks, each in a network of its own. The
    /// phones have the public address on `lo` as well.
    pub fn between(p: &NetNs, phones: &[&NetNs]) -> Masquerade {
        let ns = NetNs::new().unwrap();
        let link = |at: &NetNs, name: &str, address: String, leg: &str, inner: String| {
            let end = |ns, name, addresses| Leg {
                ns,
                name,
                addresses,
            };
            veth(end(at, name, &[&address]), end(&ns, leg, &[&inner]));
        };
        let outside = format!("{PUBLIC}/24");
        link(p, NAMES[0], format!("{P_CSCF}/24"), "n0", outside);
        for (phone, n) in phones.iter().zip(1..) {
            let (address, gateway) = (private(n), format!("192.168.{n}.1"));
            link(
                phone,
                NAMES[1],
                format!("{address}/24"),
                &format!("n{n}"),
                format!("{gateway}/24"),
            );
            phone.ip(&format!("addr add {PUBLIC}/32 dev lo"));
            // The router does not answer who asks for it under its own address.
            phone
                .run(|| fs::write("/proc/sys/net/ipv4/conf/all/arp_announce", "2"))
                .unwrap();
            phone.ip(&format!("route add default via {gateway}"));
        }
        ns.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .unwrap();
        let nat = Masquerade { ns };
        nat.to("");
        nat
    }

    /// From now on new flows leave with ports of this range, such as ":31000-31099"; "" for the
    /// phone's own where it is free.
    pub fn to(&self, range: &str) {
        let to = if range.is_empty() { "" } else { "to" };
        let rules = format!(
            "table ip nat\ndelete table ip nat\ntable ip nat {{ chain out {{ type nat hook \
             postrouting priority srcnat; oifname \"n0\" meta l4proto udp masquerade {to} \
             {range}; }}; }}\n"
        );
        let mut nft = Command::new("nft");
        nft.args(["-f", "-"]).stdin(Stdio::piped());
        let mut child = self.ns.run(|| nft.spawn()).expect("nft");
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(rules.as_bytes()).expect("nft reads");
        drop(stdin);
        assert!(child.wait().expect("a status").success(), "nft: {rules}");
    }

    /// Forgets its flows, as a NAT does that gets its address again.
    pub fn forgets(&self) {
        self.ns.ip(&format!("addr del {PUBLIC}/24 dev n0"));
        self.ns.ip(&format!("addr add {PUBLIC}/24 dev n0"));
    }
}
