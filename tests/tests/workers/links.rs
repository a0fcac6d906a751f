//! The uplink goes down and up, is unplugged and comes back, and a killed
//! instance with several queues leaves its policy.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{DataPlane, Event, Reason};
use gm_xsk::LinkSocket;

use super::net::{
    Net, P, PORT_PS, PORT_UC, U, WAIT, count, event, install, join, leaks, p_config, pcscf, phone,
    start, u_config, udp,
};
use super::talk::Talk;

#[test]
#[ignore = "root: namespaces, BPF"]
fn an_uplink_that_was_down_carries_on() {
    let net = Net::new(4, [2, 2], 6);
    let talk = Talk::new(&net);
    talk.during(Duration::from_millis(200), || {
        for _ in 0..3 {
            // The far end: here it is a carrier that is lost.
            net.u.ns.ip(&format!("link set {U} down"));
            thread::sleep(Duration::from_millis(300));
            net.u.ns.ip(&format!("link set {U} up"));
            for ip in net.phones.iter().filter(|ip| ip.is_ipv6()) {
                // An interface that goes down loses its IPv6 addresses.
                net.u.ns.ip(&format!("addr replace {ip}/64 dev {U} nodad"));
            }
            thread::sleep(Duration::from_millis(300));
        }
    });
    talk.rounds(2);
    for side in [&net.p, &net.u] {
        leaks(&side.plane.stats().unwrap());
        // What either leaves in clear the other one drops and counts.
        assert_eq!(count(&side.plane, Reason::CleartextProtected), 0);
    }
}

/// The same SAs, with their numbers, on a device of the same name.
#[test]
#[ignore = "root: namespaces, BPF"]
fn an_uplink_that_was_unplugged_carries_the_same_sas_when_it_is_back() {
    let net = Net::new(4, [3, 2], 6);
    net.all_pass();
    for round in 1..=2 {
        let before: Vec<_> = net
            .p
            .plane
            .list()
            .iter()
            .map(|r| r.top.max(r.seq))
            .collect();
        net.p.ns.ip(&format!("link del {P}"));
        for side in [&net.p, &net.u] {
            event(&side.plane, |e| *e == Event::UplinkGone);
        }
        join(&net.p.ns, &net.u.ns, 4, &net.phones);
        for side in [&net.p, &net.u] {
            event(&side.plane, |e| *e == Event::UplinkBack);
        }
        net.all_pass();
        for side in [&net.p, &net.u] {
            let stats = side.plane.stats().unwrap();
            leaks(&stats);
            assert_eq!(stats.get(Reason::Replay), 0, "round {round}");
            let sockets: usize = stats.workers.iter().map(|w| w.sockets.len()).sum();
            assert_eq!(sockets, 8);
        }
        let after = net.p.plane.list();
        assert!(after.iter().zip(before).all(|(r, b)| r.top.max(r.seq) >= b));
        // And the guard stands: cleartext does not come in.
        let n = count(&net.p.plane, Reason::CleartextProtected);
        let clear = net.u.ns.run(|| udp(phone(2), 12_345));
        clear.send_to(b"spoofed", (pcscf(false), PORT_PS)).unwrap();
        let end = Instant::now() + WAIT;
        while count(&net.p.plane, Reason::CleartextProtected) == n && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(count(&net.p.plane, Reason::CleartextProtected), n + 1);
    }
    net.p.plane.shutdown().unwrap();
    let links = net.p.ns.ip("-d link");
    assert!(
        !links.contains("gm0") && !links.contains("prog/xdp"),
        "{links}"
    );
}

/// Workers may die and change while the uplink is away.
#[test]
#[ignore = "root: namespaces, BPF"]
fn workers_change_while_the_uplink_is_away() {
    let net = Net::new(2, [1, 1], 4);
    net.p.ns.ip(&format!("link del {P}"));
    for side in [&net.p, &net.u] {
        event(&side.plane, |e| *e == Event::UplinkGone);
    }
    net.p.plane.set_workers(2).unwrap();
    join(&net.p.ns, &net.u.ns, 2, &net.phones);
    for side in [&net.p, &net.u] {
        event(&side.plane, |e| *e == Event::UplinkBack);
    }
    net.all_pass();
}

/// What makes the test binary a process that is to be killed.
const ROLE: &str = "GM_TEST_WORKERS_VICTIM_PINS";

/// Not a test: the process that is killed.
#[test]
#[ignore = "root: started by a_kill_with_several_queues_leaves_the_policy"]
#[allow(clippy::print_stdout, reason = "its parent waits for the line")]
fn victim() {
    let Some(pins) = std::env::var_os(ROLE) else {
        return;
    };
    let mut config = p_config(2);
    config.pin_dir = Some(pins.into());
    let _plane = DataPlane::start(config).unwrap();
    println!("victim is ready");
    // Killed long before; alone it ends with its parent's test.
    thread::sleep(WAIT * 6);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_kill_with_several_queues_leaves_the_policy() {
    let scratch = tempfile::tempdir().unwrap();
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
    nix::mount::mount(none, scratch.path(), Some("bpf"), flags, none).unwrap();
    let unmount = Unmount(scratch.path());
    let pins = scratch.path().join("gm");

    let [p, u] = std::array::from_fn(|_| gm_tests::netns::NetNs::new().unwrap());
    let phones: Vec<_> = (1..=4).map(phone).collect();
    join(&p, &u, 2, &phones);
    let mut victim = p
        .run(|| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "links::victim", "--nocapture"])
                .env(ROLE, &pins)
                .stdout(Stdio::piped())
                .spawn()
        })
        .unwrap();
    let mut out = BufReader::new(victim.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("victim is ready") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "it did not start");
    }
    victim.kill().unwrap();
    victim.wait().unwrap();

    // Nothing in clear, neither way, whatever the queue: many flows.
    let wire = u.run(|| LinkSocket::bind(U).unwrap());
    let ps = p.run(|| udp(pcscf(false), PORT_PS));
    ps.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    for port in 20_000..20_032 {
        let from = u.run(|| udp(phone(2), port));
        from.send_to(b"spoofed", (pcscf(false), PORT_PS)).unwrap();
        ps.send_to(b"must not be seen", (phone(2), PORT_UC + port % 7))
            .unwrap();
    }
    assert!(ps.recv(&mut [0; 64]).is_err(), "cleartext came in");
    let mut frame = [0; 4096];
    while let Ok(n) = wire.recv(&mut frame) {
        let leak = frame[..n].windows(16).any(|w| w == b"must not be seen");
        assert!(!leak, "a killed instance leaks cleartext");
    }

    // The successor finds another number of queues, and makes gm0 anew.
    p.ip(&format!("link del {P}"));
    join(&p, &u, 4, &phones);
    let config = |workers| gm_dataplane::Config {
        pin_dir: Some(pins.clone()),
        ..p_config(workers)
    };
    let p_plane = start(&p, config(3));
    assert!(p.ip("-d link show gm0").contains("numrxqueues 4"));
    let u_plane = start(&u, u_config(&phones, 1));
    let sets = vec![install(
        &p_plane,
        &u_plane,
        phones[0],
        gm_esp::Mode::Trans,
        1,
    )];
    let net = Net {
        p: super::net::Side {
            ns: p,
            plane: p_plane,
        },
        u: super::net::Side {
            ns: u,
            plane: u_plane,
        },
        phones: phones[..1].to_vec(),
        sets,
    };
    drop(ps);
    net.all_pass();
    net.p.plane.shutdown().unwrap();
    assert!(!pins.exists(), "pins are left");
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
