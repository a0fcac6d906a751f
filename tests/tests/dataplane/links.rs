//! Interfaces that come and go while the data plane runs.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{Fault, Reason};
use gm_esp::Suite;
use gm_tests::netns::{End, veth};
use gm_xsk::LinkSocket;

use super::lab::{Family, Lab, NAMES, PORT_PS, PORT_UC};
use super::life::{attached, detached};
use super::sockets::{count, grows, pass, sees, udp};

/// More than what a netlink socket holds at a time.
const MANY: usize = 100;

#[test]
#[ignore = "root: namespaces, BPF"]
fn many_new_interfaces_at_once_all_get_the_guard() {
    let lab = Lab::new(None);
    let mut batch = tempfile::NamedTempFile::new().unwrap();
    for i in 0..MANY {
        writeln!(batch, "link add many{i} type veth peer name more{i}").unwrap();
    }
    batch.flush().unwrap();
    let path = batch.path().to_str().unwrap();
    lab.p.ns.sh("ip", &["-batch", path]);
    let end = Instant::now() + Duration::from_secs(60);
    for i in 0..MANY {
        for name in [format!("many{i}"), format!("more{i}")] {
            while attached(&lab.p.ns, &name) == 0 {
                assert!(Instant::now() < end, "{name} has no guard");
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// A device that is unplugged and comes back under its name: the data plane
/// wants to be started again, but until then nothing goes out in clear.
#[test]
#[ignore = "root: namespaces, BPF"]
fn an_uplink_that_comes_back_carries_nothing_in_clear() {
    let lab = Lab::new(None);
    let (p, u) = Family::V4.addresses();
    lab.p.ns.ip(&format!("link del {}", NAMES[0]));
    veth(
        End {
            ns: &lab.p.ns,
            name: NAMES[0],
            addresses: &["10.77.0.1/24"],
        },
        End {
            ns: &lab.u.ns,
            name: "w0",
            addresses: &["10.77.0.2/24"],
        },
    );
    let wire = lab.u.ns.run(|| LinkSocket::bind("w0").unwrap());
    let (ps, open) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.p.ns.run(|| udp(p, 5060)),
    );
    // The program follows the link event.
    thread::sleep(Duration::from_millis(300));
    open.send_to(b"may be seen", (u, 5060)).unwrap();
    assert!(sees(&wire, b"may be seen"));
    ps.send_to(b"must not be seen", (u, 5060)).unwrap();
    assert!(!sees(&wire, b"must not be seen"), "the new uplink leaks");
}

/// What was sealed when the uplink went down leaves when it is up again, without
/// another packet to wake the worker.
#[test]
#[ignore = "root: namespaces, BPF"]
fn what_waits_for_an_uplink_that_is_down_leaves_when_it_is_up() {
    let lab = Lab::new(None);
    lab.install(Suite::NullAesGcm, Family::V4);
    let (p, u) = Family::V4.addresses();
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    let uc = lab.u.ns.run(|| udp(u, PORT_UC));
    pass(&ps, &uc, 100);
    let sealed = count(&lab.p.plane, Reason::Sealed);
    let workers = 0..lab.p.plane.stats().unwrap().workers.len() as u32;
    let hold = |on| {
        for worker in workers.clone() {
            lab.p.plane.fault(Fault::HoldSends(worker, on)).unwrap();
        }
    };
    hold(true);
    ps.send_to(b"late", (u, PORT_UC)).unwrap();
    grows(&lab.p.plane, Reason::Sealed, sealed, 1);
    lab.p.ns.ip(&format!("link set {} down", NAMES[0]));
    hold(false);
    // It has found out, and sleeps.
    thread::sleep(Duration::from_millis(100));
    lab.p.ns.ip(&format!("link set {} up", NAMES[0]));
    let mut got = [0; 16];
    let (n, _) = uc.recv_from(&mut got).unwrap();
    assert_eq!(&got[..n], b"late");
}

/// A route may lead elsewhere, at once or when the uplink fails.
#[test]
#[ignore = "root: namespaces, BPF"]
fn another_interface_carries_nothing_in_clear() {
    for late in [false, true] {
        let lab = Lab::new(None);
        let plane = || super::lab::start(&lab.p.ns, super::life::p_config(None));
        lab.p.plane.shutdown().unwrap();
        let mut started = None;
        if late {
            started = Some(plane());
        }
        veth(
            End {
                ns: &lab.p.ns,
                name: "p1",
                addresses: &["10.79.0.1/24"],
            },
            End {
                ns: &lab.u.ns,
                name: "u1",
                addresses: &["10.79.0.2/24"],
            },
        );
        let plane = started.unwrap_or_else(plane);
        thread::sleep(Duration::from_millis(300));
        let wire = lab.u.ns.run(|| LinkSocket::bind("u1").unwrap());
        let (p, there) = (Family::V4.addresses().0, "10.79.0.2");
        let (ps, open) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.p.ns.run(|| udp(p, 5060)),
        );
        open.send_to(b"may be seen", (there, 5060)).unwrap();
        assert!(sees(&wire, b"may be seen"));
        ps.send_to(b"must not be seen", (there, 5060)).unwrap();
        assert!(!sees(&wire, b"must not be seen"), "late: {late}");
        super::grows(&plane, gm_dataplane::Reason::OutNoSa, 0, 1);
        plane.shutdown().unwrap();
        detached(&lab.p.ns, "p1");
    }
}
