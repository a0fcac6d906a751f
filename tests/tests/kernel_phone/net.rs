//! The way from the phone to gmespd: phone u0, m0 router m1, p0 gmespd.

use gm_tests::netns::{End, NetNs, veth};

use crate::lab::{Lab, Plan};

/// Addresses of a network.
pub struct Map {
    /// The phone's own.
    pub phone: &'static str,
    /// What gmespd sees of it.
    pub public: &'static str,
    /// gmespd's.
    pub pcscf: &'static str,
    /// The router's, towards the phone and towards gmespd.
    router: [&'static str; 2],
    prefix: u8,
}

/// IPv4, routed.
pub const V4: Map = Map {
    phone: "198.51.100.10",
    public: "198.51.100.10",
    pcscf: "192.0.2.1",
    router: ["198.51.100.1", "192.0.2.99"],
    prefix: 24,
};
/// IPv6, routed.
pub const V6: Map = Map {
    phone: "2001:db8:5a12::10",
    public: "2001:db8:5a12::10",
    pcscf: "2001:db8:cafe::1",
    router: ["2001:db8:5a12::1", "2001:db8:cafe::99"],
    prefix: 64,
};
/// IPv4, the phone behind a NAT that has the router's outer address.
pub const NAT: Map = Map {
    phone: "10.45.0.2",
    public: "192.0.2.99",
    pcscf: "192.0.2.1",
    router: ["10.45.0.1", "192.0.2.99"],
    prefix: 24,
};

/// Namespaces, router, gmespd.
pub struct Net {
    /// gmespd, and the phone's namespace.
    pub lab: Lab,
    /// The router's namespace.
    pub middle: NetNs,
    /// The addresses.
    pub map: &'static Map,
}

impl Net {
    /// gmespd runs and is well, and the phone can reach it.
    pub fn new(map: &'static Map) -> Net {
        let [phone, middle, pcscf] = [(); 3].map(|()| NetNs::new().expect("root"));
        let at = |address: &str| format!("{address}/{}", map.prefix);
        for (ns, name, address, near, side) in [
            (&phone, "u0", map.phone, "m0", 0),
            (&pcscf, "p0", map.pcscf, "m1", 1),
        ] {
            let router = map.router[side];
            veth(
                End {
                    ns,
                    name,
                    addresses: &[&at(address)],
                },
                End {
                    ns: &middle,
                    name: near,
                    addresses: &[&at(router)],
                },
            );
            ns.ip(&format!("route add default via {router}"));
        }
        forward(&middle);
        if map.phone != map.public {
            masquerade(&middle);
            // A phone behind a NAT has its public address inside (TS 33.203 M.7.1).
            phone.ip(&format!("address add {}/32 dev lo", map.public));
        }
        // A connection of the phone begins at a port of which an older one has just ended.
        phone.sh("sysctl", &["-qw", "net.ipv4.tcp_tw_reuse=1"]);
        let plan = Plan {
            own: map.pcscf,
            max_sas: 256,
            // Each REGISTER brings new keys.
            home: "always_challenge = true\n",
            ..Plan::one()
        };
        Net {
            lab: Lab::on(pcscf, phone, &plan),
            middle,
            map,
        }
    }
}

fn forward(ns: &NetNs) {
    for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        ns.sh("sysctl", &["-qw", &format!("{name}=1")]);
    }
}

/// The NAT changes source ports, too.
fn masquerade(ns: &NetNs) {
    for words in [
        "add table ip nat",
        "add chain ip nat out { type nat hook postrouting priority 100 ; }",
        "add rule ip nat out oifname m1 meta l4proto udp masquerade to :20000-29999 random",
    ] {
        ns.sh("nft", &words.split_whitespace().collect::<Vec<_>>());
    }
}
