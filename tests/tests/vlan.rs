//! Two data planes on the parents of VLAN devices: the SAs' addresses are on
//! the VLAN devices, ordinary sockets use them, and on the link between the
//! namespaces every frame has its tags. Needs a kernel with 802.1Q: tests/vm.
#![expect(clippy::print_stdout, reason = "SKIPPED lines are for tests/run")]

// Each of the programs that share the laboratory uses a part of it.
#[allow(dead_code)]
#[path = "dataplane/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "dataplane/sockets.rs"]
mod sockets;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use gm_dataplane::{Config, DataPlane, Direction, Error, Reason};
use gm_esp::{Mode, Suite};
use gm_tests::netns::{End, NetNs, veth};
use gm_xsk::nic;
use lab::{Family, Lab, NAMES, PORT_PC, PORT_PS, PORT_UC, PORT_US, Side};
use nix::sys::socket::{setsockopt, sockopt};
use sockets::{connect, grows, pass, udp};

/// The tags between the namespaces, the outer one first: protocol, as `ip`
/// calls it and on the wire, and VLAN.
type Tags = &'static [(&'static str, u16, u16)];
const VLAN: Tags = &[("802.1Q", 0x8100, 100)];
const QINQ: Tags = &[("802.1ad", 0x88a8, 200), ("802.1Q", 0x8100, 100)];

/// What stands behind the MAC addresses of a frame: each tag's protocol and VLAN.
fn on_the_wire(tags: Tags) -> Vec<u8> {
    let tags = tags.iter().flat_map(|(_, protocol, id)| [*protocol, *id]);
    tags.flat_map(u16::to_be_bytes).collect()
}

/// The name of the VLAN device on the interface `below` that has all the tags.
fn device_of(below: &str, tags: Tags) -> String {
    let ids = tags.iter().map(|(_, _, id)| format!(".{id}"));
    below.to_owned() + &ids.collect::<String>()
}

/// Makes the VLAN devices on the interface `below`; the name of the last one,
/// which has the addresses. `None` where the kernel has no such devices.
fn devices(ns: &NetNs, below: &str, tags: Tags, addresses: &[&str]) -> Option<String> {
    let mut name = below.to_owned();
    for (protocol, _, id) in tags {
        let upper = format!("{name}.{id}");
        let words = format!("link add link {name} name {upper} type vlan proto {protocol} id {id}");
        let made = ns.run(|| Command::new("ip").args(words.split(' ')).output());
        if !made.is_ok_and(|out| out.status.success()) {
            println!("SKIPPED: this kernel has no VLAN devices; the step vm has one that does");
            return None;
        }
        ns.ip(&format!("link set {upper} mtu 1500 up"));
        name = upper;
    }
    for address in addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        ns.ip(&format!("addr add {address} dev {name} {nodad}"));
    }
    Some(name)
}

/// What [`Lab::new`] makes, with the addresses on VLAN devices.
fn vlan_lab(tags: Tags) -> Option<Lab> {
    let (p, u) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let end = |ns, name| End {
        ns,
        name,
        addresses: &[],
    };
    veth(end(&p, NAMES[0]), end(&u, NAMES[1]));
    // Else a veth hands the tag over beside the frame, where XDP does not see it.
    for (ns, name) in [(&p, NAMES[0]), (&u, NAMES[1])] {
        ns.run(|| nic::set_vlan_insertion(name, false).unwrap());
        // Room for all the tags but one, as who sets up such links gives them.
        ns.ip(&format!(
            "link set {name} mtu {}",
            1500 + 4 * (tags.len() - 1)
        ));
    }
    devices(&p, NAMES[0], tags, &["10.77.0.1/24", "fd77::1/64"])?;
    devices(&u, NAMES[1], tags, &["10.77.0.2/24", "fd77::2/64"])?;
    let (v4, v6) = (Family::V4.addresses(), Family::V6.addresses());
    let pc = lab::config(NAMES[0], [v4.0, v6.0], [PORT_PS, PORT_PC], None);
    let uc = lab::config(NAMES[1], [v4.1, v6.1], [PORT_US, PORT_UC], None);
    let (p_plane, u_plane) = (lab::start(&p, pc), lab::start(&u, uc));
    let side = |ns, plane| Side { ns, plane };
    Some(Lab {
        p: side(p, p_plane),
        u: side(u, u_plane),
    })
}

fn both_ways(tags: Tags) {
    let Some(lab) = vlan_lab(tags) else { return };
    let (tap, captured) = crossbeam::channel::bounded(4096);
    lab.p.plane.tap(Some(tap)).unwrap();
    for (suite, family, mode) in [
        (Suite::NullAesGcm, Family::V4, Mode::Trans),
        (Suite::HmacSha1AesCbc, Family::V6, Mode::Trans),
        (Suite::AesGmacNull, Family::V4, Mode::UdpEncTun),
    ] {
        let sets = lab.install_as(suite, family, mode);
        let (p, u) = family.addresses();
        let (ps, pc) = lab.p.ns.run(|| (udp(p, PORT_PS), udp(p, PORT_PC)));
        let (us, uc) = lab.u.ns.run(|| (udp(u, PORT_US), udp(u, PORT_UC)));
        for len in [1, 100, 1400, 1440, 1472, 3000, 20_000] {
            pass(&uc, &ps, len);
            pass(&ps, &uc, len);
            pass(&us, &pc, len);
            pass(&pc, &us, len);
        }
        lab.p.plane.remove(sets[0]).unwrap();
        lab.u.plane.remove(sets[1]).unwrap();
    }
    lab.p.plane.tap(None).unwrap();
    let mut seen = [0, 0];
    for packet in captured.try_iter() {
        let head = &packet.frame[..40];
        assert!(head[12..].starts_with(&on_the_wire(tags)), "{head:x?}");
        seen[usize::from(packet.direction == Direction::In)] += 1;
    }
    assert!(seen.iter().all(|n| *n > 40), "{seen:?}");
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn datagrams_cross_on_a_vlan_device() {
    both_ways(VLAN);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn datagrams_cross_on_a_vlan_device_on_a_vlan_device() {
    both_ways(QINQ);
}

fn tcp(tags: Tags) {
    const SIZE: usize = 300_000;
    let Some(lab) = vlan_lab(tags) else { return };
    lab.install(Suite::NullAesGcm, Family::V4);
    let (p, u) = Family::V4.addresses();
    let listener = lab.u.ns.run(|| TcpListener::bind((u, PORT_US)).unwrap());
    let client = lab.p.ns.run(|| connect((p, PORT_PC), (u, PORT_US)));
    let (server, _) = listener.accept().unwrap();
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i * 31 + i / 999) as u8).collect();
    for (mut from, mut to) in [(&client, &server), (&server, &client)] {
        let mut got = vec![0; SIZE];
        thread::scope(|s| {
            s.spawn(|| from.write_all(&bytes).unwrap());
            to.read_exact(&mut got).unwrap();
        });
        assert!(got == bytes, "the bytes differ");
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn tcp_crosses_on_a_vlan_device() {
    tcp(VLAN);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn tcp_crosses_on_a_vlan_device_on_a_vlan_device() {
    tcp(QINQ);
}

/// An outer tag as carriers without 802.1ad use it. Only such a one can be
/// kept in the frames of a veth; it concerns what no worker has sent.
const TWICE: Tags = &[("802.1Q", 0x8100, 200), ("802.1Q", 0x8100, 100)];

fn cleartext(tags: Tags) {
    let Some(lab) = vlan_lab(tags) else { return };
    lab.install(Suite::HmacSha1Null, Family::V4);
    let (p, u) = Family::V4.addresses();
    let plane = &lab.p.plane;
    let (ps, open) = lab.p.ns.run(|| (udp(p, PORT_PS), udp(p, 5060)));
    // They have come in on the VLAN device, with all their tags.
    for socket in [&ps, &open] {
        let device = device_of(NAMES[0], tags).into();
        setsockopt(socket, sockopt::BindToDevice, &device).unwrap();
    }
    let (clear, uc) = lab.u.ns.run(|| (udp(u, 12_345), udp(u, PORT_UC)));
    // Whole and in fragments: dropped where protected, else delivered.
    for (n, len) in [(1, 100), (2, 3000)] {
        clear.send_to(&vec![1; len], (p, PORT_PS)).unwrap();
        grows(plane, Reason::CleartextProtected, n - 1, 1);
        pass(&clear, &open, len);
        pass(&open, &clear, len);
    }
    // Only what an SA carries has come to the protected socket.
    pass(&uc, &ps, 200);
    // Nor does anything leave in clear from there: no SA leads to this port.
    ps.send_to(b"to nobody", (u, 12_345)).unwrap();
    grows(plane, Reason::OutNoSa, 0, 1);
    pass(&open, &clear, 300);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn cleartext_on_a_vlan_device_meets_the_policy() {
    cleartext(VLAN);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn cleartext_on_a_vlan_device_on_a_vlan_device_meets_the_policy() {
    cleartext(TWICE);
}

/// XDP in driver mode is the parent's.
#[test]
#[ignore = "root: namespaces, BPF"]
fn a_vlan_device_as_uplink_is_refused_by_name() {
    let (p, u) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let end = |ns, name| End {
        ns,
        name,
        addresses: &[],
    };
    veth(end(&p, NAMES[0]), end(&u, NAMES[1]));
    let Some(vlan) = devices(&p, NAMES[0], VLAN, &["10.77.0.1/24"]) else {
        return;
    };
    let (v4, v6) = (Family::V4.addresses(), Family::V6.addresses());
    let config: Config = lab::config(&vlan, [v4.0, v6.0], [PORT_PS, PORT_PC], None);
    let refused = match p.run(|| DataPlane::start(config)) {
        Ok(_) => panic!("it started"),
        Err(refused) => refused,
    };
    println!("{refused}");
    assert!(matches!(refused, Error::XdpUnsupported { .. }), "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("p0.100") && text.contains("below it"),
        "{text}"
    );
    assert!(!p.ip("-d link").contains("gm0"), "something is left behind");
}
