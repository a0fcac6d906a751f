//! Two namespaces and a cable: the P-CSCF's with gmesp, with the raw forwarder
//! or with nothing between its sockets and the wire, and the phones'.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use gm_dataplane::{Config, DataPlane};
use gm_tests::netns::{End, NetNs, veth};

use crate::forwarder::Forwarder;
use crate::{PORT_PC, PORT_PS, WORKER_CPU};

/// The P-CSCF's address.
pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// Where its route to the phones leads.
const GATE: &str = "10.64.0.2";
/// That neighbour's Ethernet address. The cable's other end has another one, so
/// the kernel there drops what arrives before it looks at it.
const GATE_MAC: [u8; 6] = [2, 0x67, 0x6d, 0, 0, 2];

/// The P-CSCF's uplink, the cable's other end, and the device that the worker's
/// packets come out of. Names in namespaces of our own meet nobody's.
pub const UPLINK: &str = "p0";
/// See [`UPLINK`].
pub const FAR: &str = "f0";
/// See [`UPLINK`].
pub const GM0: &str = "gm0";

/// Microseconds for which the worker of [`Kind::Busy`] goes on looking.
pub const BUSY_POLL: u32 = 200;

/// What is between the uplink and the sockets.
pub enum Middle {
    /// A worker of gmesp.
    Gmesp(DataPlane),
    /// The forwarder without cryptography.
    Raw(Box<Forwarder>),
    /// The kernel alone.
    Plain,
}

/// The namespaces, which go with this value.
pub struct World {
    /// What is measured; gone before its devices are.
    pub middle: Middle,
    /// The P-CSCF.
    pub p: NetNs,
    /// The phones.
    pub f: NetNs,
    /// Ethernet header of what the phones send.
    pub head_in: [u8; 14],
    /// Ethernet header of what the P-CSCF sends.
    pub head_out: [u8; 14],
}

/// Which [`Middle`] a world is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Middle::Gmesp`], whose worker sleeps when it finds nothing.
    Gmesp,
    /// [`Middle::Gmesp`], whose worker goes on looking ([`BUSY_POLL`]).
    Busy,
    /// [`Middle::Raw`].
    Raw,
    /// [`Middle::Plain`].
    Plain,
}

fn head(to: [u8; 6], from: [u8; 6]) -> [u8; 14] {
    let mut head = [0; 14];
    head[..6].copy_from_slice(&to);
    head[6..12].copy_from_slice(&from);
    head[12..].copy_from_slice(&[8, 0]);
    head
}

impl World {
    /// Makes one. Worker or forwarder is pinned to [`WORKER_CPU`]; their helpers
    /// inherit the caller's CPU.
    ///
    /// # Errors
    /// What could not be made; needs root.
    pub fn new(kind: Kind) -> Result<World> {
        let ns = || NetNs::new().context("make a network namespace");
        let (p, f) = (ns()?, ns()?);
        for ns in [&p, &f] {
            // Nothing but our own packets. Absent where there is no IPv6.
            let path = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
            let _ = ns.run(|| std::fs::write(path, "1"));
        }
        let ends = [format!("{OURS}/10")];
        let [ours] = ends.each_ref().map(String::as_str);
        veth(
            End {
                ns: &p,
                name: UPLINK,
                addresses: &[ours],
            },
            End {
                ns: &f,
                name: FAR,
                addresses: &[],
            },
        );
        let gate = GATE_MAC.map(|b| format!("{b:02x}")).join(":");
        p.ip(&format!(
            "neigh replace {GATE} lladdr {gate} dev {UPLINK} nud permanent"
        ));
        p.ip(&format!("route add 10.64.0.0/11 via {GATE} dev {UPLINK}"));
        let mac = p
            .run(|| gm_xsk::nic::mac(UPLINK))
            .context("address of the uplink")?;
        let middle = match kind {
            Kind::Gmesp => Middle::Gmesp(p.run(|| DataPlane::start(config()))?),
            Kind::Busy => Middle::Gmesp(p.run(|| {
                DataPlane::start(Config {
                    busy_poll_us: BUSY_POLL,
                    ..config()
                })
            })?),
            Kind::Raw => Middle::Raw(Box::new(Forwarder::start(&p)?)),
            Kind::Plain => Middle::Plain,
        };
        Ok(World {
            middle,
            p,
            f,
            head_in: head(mac, GATE_MAC),
            head_out: head(GATE_MAC, mac),
        })
    }

    /// gmesp, in a world that has it.
    pub fn plane(&self) -> Option<&DataPlane> {
        match &self.middle {
            Middle::Gmesp(plane) => Some(plane),
            Middle::Raw(_) | Middle::Plain => None,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Middle::Gmesp(plane) = &self.middle {
            // What it leaves goes with the namespace.
            let _ = plane.shutdown();
        }
    }
}

/// gmesp as it is by default, on one CPU.
pub fn config() -> Config {
    Config {
        uplink: UPLINK.into(),
        addresses: vec![OURS.into()],
        server_ports: vec![PORT_PS..=PORT_PS],
        client_ports: vec![PORT_PC..=PORT_PC],
        cpus: vec![WORKER_CPU],
        gm0: GM0.into(),
        ..Config::default()
    }
}
