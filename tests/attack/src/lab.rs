//! The namespaces, and gmesp in one of them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use gm_dataplane::{Config, DataPlane};
use gm_tests::netns::{End, NetNs, veth};

use crate::wire::Cable;

/// The P-CSCF's protected ports (TS 33.203 7.1).
pub const PORT_PS: u16 = 5063;
/// See [`PORT_PS`].
pub const PORT_PC: u16 = 5064;

/// The P-CSCF's addresses.
pub const OURS: [&str; 2] = ["10.64.0.1", "fd77::1"];

/// Everything that a measurement needs.
pub struct Lab {
    /// The P-CSCF's namespace.
    pub p: NetNs,
    /// gmesp there.
    pub plane: DataPlane,
    /// The phones' cable.
    pub phones: Arc<Cable>,
    /// The attacker's cable.
    pub attacker: Arc<Cable>,
    /// MAC address of the P-CSCF.
    pub mac: [u8; 6],
    /// MAC addresses of phones and attacker.
    pub from: [[u8; 6]; 2],
    _others: Vec<NetNs>,
}

/// What may be chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Room for this many SAs.
    pub max_sas: u32,
    /// Where the maps are pinned.
    pub pins: Option<PathBuf>,
    /// CPU of gmesp; `None`: any.
    pub cpu: Option<usize>,
    /// Phones and attacker have a namespace each, behind a bridge.
    pub bridge: bool,
    /// Phones and attacker send with AF_XDP.
    pub xdp: bool,
}

/// The P-CSCF's address of a family.
pub fn ours(v6: bool) -> IpAddr {
    let text = OURS[usize::from(v6)];
    text.parse().unwrap_or(IpAddr::from([0; 4]))
}

/// A cable between two namespaces.
fn cable(a: &NetNs, name: &str, addresses: &[&str], b: &NetNs, other: &str) {
    veth(
        End {
            ns: a,
            name,
            addresses,
        },
        End {
            ns: b,
            name: other,
            addresses: &[],
        },
    );
}

impl Lab {
    /// Namespaces, cables and a data plane without an SA.
    ///
    /// # Errors
    /// What could not be made; needs root.
    pub fn new(options: &Options) -> Result<Lab> {
        let ns = || NetNs::new().context("make a network namespace");
        let (p, net) = (ns()?, ns()?);
        net.sh("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        net.sh("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
        let mac = |ns: &NetNs, name: &str| ns.run(|| gm_xsk::nic::mac(name));
        let link = |ns: &NetNs, name: &str| {
            let cable = ns.run(|| match options.xdp {
                true => Cable::xdp(name),
                false => Cable::packet(name),
            });
            cable.map(Arc::new)
        };
        cable(&p, "p0", &["10.64.0.1/10", "fd77::1/64"], &net, "net0");
        let to = mac(&p, "p0")?;
        let (phones, attacker, from, others) = if options.bridge {
            let (u, a) = (ns()?, ns()?);
            net.ip("link add br0 type bridge mcast_snooping 0");
            net.ip("link set br0 up");
            net.ip("link set net0 master br0");
            for (ns, name, port) in [(&u, "u0", "port-u"), (&a, "a0", "port-a")] {
                ns.sh("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
                cable(ns, name, &[], &net, port);
                net.ip(&format!("link set {port} master br0"));
            }
            let text = to.map(|b| format!("{b:02x}")).join(":");
            let words = ["fdb", "replace", &text, "dev", "net0", "master", "static"];
            net.sh("bridge", &words);
            let from = [mac(&u, "u0")?, mac(&a, "a0")?];
            (link(&u, "u0")?, link(&a, "a0")?, from, vec![net, u, a])
        } else {
            let from = [mac(&net, "net0")?; 2];
            let both = link(&net, "net0")?;
            (both.clone(), both, from, vec![net])
        };

        // Whatever the P-CSCF answers goes there; nobody asks for addresses.
        let gate = from[0].map(|b| format!("{b:02x}")).join(":");
        for (address, routes) in [("10.64.0.2", "10.64.0.0/11"), ("fd77::2", "fd77:1::/32")] {
            p.ip(&format!(
                "neigh replace {address} lladdr {gate} dev p0 nud permanent"
            ));
            p.ip(&format!("route add {routes} via {address} dev p0"));
        }
        let config = Config {
            uplink: "p0".into(),
            addresses: OURS.iter().filter_map(|a| a.parse().ok()).collect(),
            server_ports: vec![PORT_PS..=PORT_PS],
            client_ports: vec![PORT_PC..=PORT_PC],
            max_sas: options.max_sas,
            pin_dir: options.pins.clone(),
            ..Config::default()
        };
        let cpu = options.cpu;
        let plane = p.run(|| {
            // Its threads are where this one is.
            if let Some(cpu) = cpu {
                gm_xsk::sys::pin_thread(cpu).context("pin gmesp")?;
            }
            DataPlane::start(config).context("start gmesp")
        })?;
        Ok(Lab {
            p,
            plane,
            phones,
            attacker,
            mac: to,
            from,
            _others: others,
        })
    }
}
