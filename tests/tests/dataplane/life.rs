//! From start to shutdown, a kill in between: who holds what, and that nothing
//! is left behind.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gm_dataplane::{Config, DataPlane, Error, Reason, TcMode};
use gm_esp::Suite;
use gm_tests::netns::NetNs;
use gm_xsk::{LinkSocket, nic};

use super::lab::{Family, Lab, NAMES, PORT_PC, PORT_PS, PORT_UC, config, start};
use super::sockets::{WAIT, count, grows, pass, sees, silent, udp};

/// What makes the test binary a process that is to be killed.
const ROLE: &str = "GM_TEST_VICTIM_PINS";
/// What makes that process end by itself.
const FAILS: &str = "GM_TEST_VICTIM_FAILS";

pub fn p_config(pins: Option<&Path>) -> Config {
    let (v4, v6) = (Family::V4.addresses(), Family::V6.addresses());
    config(
        NAMES[0],
        [v4.0, v6.0],
        [PORT_PS, PORT_PC],
        pins.map(Path::to_path_buf),
    )
}

/// How many programs are attached to a device through tcx.
fn tcx(ns: &NetNs, device: &str) -> usize {
    use aya::programs::{SchedClassifier, TcAttachType};
    ns.run(|| {
        [TcAttachType::Ingress, TcAttachType::Egress]
            .map(|side| {
                SchedClassifier::query_tcx(device, side).map_or(0, |(_, programs)| programs.len())
            })
            .iter()
            .sum()
    })
}

/// How many of ours are attached to a device as filters on clsact.
fn filters(ns: &NetNs, device: &str) -> usize {
    let of = |side| ns.sh("tc", &["filter", "show", "dev", device, side]);
    let ours = |side| {
        of(side)
            .lines()
            .filter(|line| line.contains("gm_tc_"))
            .count()
    };
    ours("ingress") + ours("egress")
}

/// How many tc programs there are, whichever way the kernel offers.
pub fn attached(ns: &NetNs, device: &str) -> usize {
    tcx(ns, device) + filters(ns, device)
}

/// Nothing is attached to a device any more. A child that another test has just forked holds a
/// link until it runs its program.
pub fn detached(ns: &NetNs, device: &str) {
    let end = std::time::Instant::now() + WAIT;
    while attached(ns, device) > 0 {
        assert!(std::time::Instant::now() < end, "{device}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn nothing_left(ns: &NetNs, pins: Option<&Path>) {
    for device in ["lo", NAMES[0]] {
        detached(ns, device);
    }
    let links = ns.ip("-d link");
    assert!(!links.contains("gm0"), "{links}");
    assert!(!links.contains("prog/xdp"), "{links}");
    if let Some(pins) = pins {
        assert!(!pins.exists(), "{pins:?} is still there");
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn shutdown_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let pins = scratch.path().join("pins");
    let lab = Lab::new(Some(pins.clone()));
    lab.install(Suite::NullAesGcm, Family::V4);
    assert!(lab.p.ns.ip("-d link").contains("gm0x"));
    assert_eq!(attached(&lab.p.ns, NAMES[0]), 2);
    // XDP is to see VLAN tags; the veth took them out when it was made.
    let strips = |ns: &NetNs, on| !ns.run(|| nic::set_vlan_stripping(NAMES[0], on).unwrap());
    assert!(strips(&lab.p.ns, false));
    let mode = std::fs::metadata(&pins).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "others may meddle with the pins");
    lab.p.plane.shutdown().unwrap();
    nothing_left(&lab.p.ns, Some(&pins));
    assert!(strips(&lab.p.ns, true), "tags stay in the frames");
    // Twice is no error; commands say what is the matter.
    lab.p.plane.shutdown().unwrap();
    assert!(matches!(lab.p.plane.reserve(&[]), Err(Error::Down)));
    // Dropped without it, the same.
    let Lab { u, .. } = lab;
    drop(u.plane);
    let links = u.ns.ip("-d link");
    assert!(
        !links.contains("gm0") && !links.contains("prog/xdp"),
        "{links}"
    );
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_second_instance_and_a_foreign_program_are_refused_by_name() {
    let lab = Lab::new(None);
    let fail = |ns: &NetNs, c: Config| match ns.run(|| DataPlane::start(c)) {
        Ok(_) => panic!("it started"),
        Err(e) => e,
    };
    let twice = fail(&lab.p.ns, p_config(None));
    assert!(matches!(twice, Error::Locked(_)), "{twice}");
    let other_gm0 = fail(
        &lab.p.ns,
        Config {
            gm0: "gm7".into(),
            ..p_config(None)
        },
    );
    assert!(matches!(other_gm0, Error::Locked(_)), "{other_gm0}");
    // The first one has not noticed.
    lab.install(Suite::NullAesGcm, Family::V4);
    let (p, u) = Family::V4.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    pass(&uc, &ps, 100);
    lab.p.plane.shutdown().unwrap();

    let missing = fail(
        &lab.p.ns,
        Config {
            uplink: "nowhere0".into(),
            ..p_config(None)
        },
    );
    assert!(matches!(missing, Error::NoInterface(_)), "{missing}");

    lab.p.ns.ip("link add gm0 type veth peer name somebody");
    let taken = fail(&lab.p.ns, p_config(None));
    assert!(matches!(taken, Error::DeviceTaken(_)), "{taken}");
    lab.p.ns.ip("link del gm0");

    let held = lab.p.ns.run(|| {
        use aya::programs::{Xdp, XdpMode};
        let object = aya::include_bytes_aligned!("../../../ebpf/prebuilt/gm-xdp.o");
        let mut ebpf = aya::Ebpf::load(object).unwrap();
        let xdp: &mut Xdp = ebpf.program_mut("gm_xdp_gm0x").unwrap().try_into().unwrap();
        xdp.load().unwrap();
        xdp.attach(NAMES[0], XdpMode::Driver).unwrap();
        ebpf
    });
    let busy = fail(&lab.p.ns, p_config(None));
    assert!(matches!(busy, Error::XdpBusy { .. }), "{busy}");
    drop(held);
    nothing_left(&lab.p.ns, None);
}

/// How the process ends that has put a policy in force.
#[derive(Clone, Copy, PartialEq)]
enum Death {
    /// By SIGKILL.
    Killed,
    /// By itself, because something has failed: the policy is left in force.
    Failed,
}

/// A bpffs that anybody may write to is what mount makes of it by default.
#[test]
#[ignore = "root: namespaces, BPF"]
fn a_pin_directory_of_somebody_else_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let bpffs = scratch.path();
    let none = None::<&str>;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(none, bpffs, Some("bpf"), flags, none).unwrap();
    let unmount = Unmount(bpffs);
    let pins = bpffs.join("gm");
    std::fs::create_dir(&pins).unwrap();
    std::os::unix::fs::chown(&pins, Some(1000), None).unwrap();
    let lab = Lab::new(None);
    lab.p.plane.shutdown().unwrap();
    let started = lab.p.ns.run(|| DataPlane::start(p_config(Some(&pins))));
    let refused = started.err().expect("it started");
    assert!(refused.to_string().contains("somebody else"), "{refused}");
    drop(unmount);
}

/// Not a test: the process that `policy_outlives` ends.
#[test]
#[ignore = "root: started by policy_outlives"]
#[allow(clippy::print_stdout, reason = "its parent waits for the line")]
fn victim() {
    let Some(pins) = std::env::var_os(ROLE) else {
        return;
    };
    let plane = DataPlane::start(p_config(Some(Path::new(&pins)))).unwrap();
    println!("victim is ready");
    if std::env::var_os(FAILS).is_some() {
        return plane.leave_in_force();
    }
    // Killed long before; alone it ends with its parent's test.
    std::thread::sleep(WAIT * 12);
}

fn start_victim(ns: &NetNs, pins: &Path, death: Death) -> Child {
    let fails = (death == Death::Failed).then_some((FAILS, "1"));
    let mut child = ns
        .run(|| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "life::victim", "--nocapture"])
                .env(ROLE, pins)
                .envs(fails)
                .stdout(Stdio::piped())
                .spawn()
        })
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("victim is ready") {
        line.clear();
        assert!(
            out.read_line(&mut line).unwrap() > 0,
            "the victim did not start"
        );
    }
    child
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_kill_leaves_the_policy_and_a_successor_takes_over() {
    policy_outlives(Death::Killed);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_failure_leaves_the_policy_and_a_successor_takes_over() {
    policy_outlives(Death::Failed);
}

fn policy_outlives(death: Death) {
    // A mount of this process, seen by the victim, gone with the directory.
    let scratch = tempfile::tempdir().unwrap();
    let bpffs = scratch.path().join("bpf");
    std::fs::create_dir(&bpffs).unwrap();
    let none = None::<&str>;
    nix::mount::mount(
        none,
        &bpffs,
        Some("bpf"),
        nix::mount::MsFlags::empty(),
        none,
    )
    .unwrap();
    let unmount = Unmount(&bpffs);
    let pins = bpffs.join("gm");

    let lab = Lab::new(None);
    lab.p.plane.shutdown().unwrap();
    let (p, u) = Family::V4.addresses();
    let mut victim = start_victim(&lab.p.ns, &pins, death);
    if death == Death::Killed {
        victim.kill().unwrap();
    }
    victim.wait().unwrap();

    // Nobody is there, and the policy is: nothing in clear, neither way.
    let gm0 = lab.p.ns.ip("-o link show gm0");
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    let clear = lab.u.ns.run(|| udp(u, 12_345));
    let open = lab.p.ns.run(|| udp(p, 5060));
    pass(&clear, &open, 100);
    clear.send_to(b"spoofed", (p, PORT_PS)).unwrap();
    silent(&ps);
    let wire = lab.u.ns.run(|| LinkSocket::bind(NAMES[1]).unwrap());
    ps.send_to(b"must not be seen", (u, PORT_UC)).unwrap();
    assert!(
        !sees(&wire, b"must not be seen"),
        "a killed instance leaks cleartext"
    );

    // The successor takes the links and the devices over.
    let plane = start(&lab.p.ns, p_config(Some(&pins)));
    assert_eq!(
        lab.p.ns.ip("-o link show gm0").split(':').next(),
        gm0.split(':').next()
    );
    let lab = Lab {
        p: super::lab::Side {
            ns: lab.p.ns,
            plane,
        },
        u: lab.u,
    };
    lab.install(Suite::NullAesGcm, Family::V4);
    let uc = lab.u.ns.run(|| udp(u, PORT_UC));
    pass(&uc, &ps, 100);
    pass(&ps, &uc, 3000);
    clear.send_to(b"spoofed", (p, PORT_PS)).unwrap();
    grows(&lab.p.plane, Reason::CleartextProtected, 0, 1);
    assert_eq!(
        attached(&lab.p.ns, NAMES[0]),
        2,
        "the programs are there twice"
    );
    lab.p.plane.shutdown().unwrap();
    nothing_left(&lab.p.ns, Some(&pins));
    drop(unmount);
}

/// The pins are another uplink's: they must not be taken for this one's.
#[test]
#[ignore = "root: namespaces, BPF"]
fn a_successor_may_have_another_uplink() {
    let scratch = tempfile::tempdir().unwrap();
    let pins = scratch.path().join("pins");
    let lab = Lab::new(None);
    lab.p.plane.shutdown().unwrap();
    // Without pins of the victim's own mount: those of a bpffs that stays.
    std::fs::create_dir(&pins).unwrap();
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
    nix::mount::mount(none, &pins, Some("bpf"), flags, none).unwrap();
    let unmount = Unmount(&pins);
    let pins = pins.join("gm");
    let mut victim = start_victim(&lab.p.ns, &pins, Death::Killed);
    victim.kill().unwrap();
    victim.wait().unwrap();

    gm_tests::netns::veth(
        gm_tests::netns::End {
            ns: &lab.p.ns,
            name: "p1",
            addresses: &["10.79.0.1/24"],
        },
        gm_tests::netns::End {
            ns: &lab.u.ns,
            name: "u1",
            addresses: &["10.79.0.2/24"],
        },
    );
    let [p, u] = ["10.79.0.1", "10.79.0.2"].map(|a| a.parse().unwrap());
    let moved = Config {
        uplink: "p1".into(),
        addresses: vec![p],
        ..p_config(Some(&pins))
    };
    let plane = start(&lab.p.ns, moved);
    let wire = lab.u.ns.run(|| LinkSocket::bind("u1").unwrap());
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    ps.send_to(b"must not be seen", (u, PORT_UC)).unwrap();
    assert!(!sees(&wire, b"must not be seen"), "the new uplink is open");
    assert_eq!(
        [NAMES[0], "p1"].map(|name| attached(&lab.p.ns, name)),
        [2, 2]
    );
    plane.shutdown().unwrap();
    nothing_left(&lab.p.ns, Some(&pins));
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn clsact_does_where_there_is_no_tcx() {
    let lab = Lab::new(None);
    lab.p.plane.shutdown().unwrap();
    let plane = start(
        &lab.p.ns,
        Config {
            tc: TcMode::Clsact,
            ..p_config(None)
        },
    );
    assert_eq!(tcx(&lab.p.ns, NAMES[0]), 0);
    let lab = Lab {
        p: super::lab::Side {
            ns: lab.p.ns,
            plane,
        },
        u: lab.u,
    };
    lab.install(Suite::AesGmacNull, Family::V6);
    let (p, u) = Family::V6.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    pass(&uc, &ps, 100);
    pass(&ps, &uc, 3000);
    lab.p
        .ns
        .run(|| udp(p, 12_345))
        .send_to(b"on lo", (p, PORT_PS))
        .unwrap();
    grows(&lab.p.plane, Reason::CleartextProtected, 0, 1);
    assert_eq!(filters(&lab.p.ns, NAMES[0]), 2);
    lab.p.plane.shutdown().unwrap();
    assert_eq!(filters(&lab.p.ns, NAMES[0]), 0);
    assert_eq!(count(&lab.u.plane, Reason::BadIcv), 0);
}
