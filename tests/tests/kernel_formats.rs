//! What `gm-xfrm export` writes for iproute2 is what a kernel then has, and what `import` reads
//! from a kernel is what another one gets.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use gm_api::sad::{Dir, Sad};
use gm_esp::Suite;
use gm_tests::needs_esp;
use gm_tests::netns::{End, NetNs, veth};
use gm_xfrm::kernel::plan::{self, Plan};
use gm_xfrm::kernel::{Limits, Policy, Ports, State, Xfrm};

/// This host's and the phone's address: IPv4 and IPv6.
const HERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const PHONE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// The phone's own address, which is in its tunnel.
const PRIVATE: &str = "10.0.0.2";

/// The program under test, beside this one.
fn gm_xfrm() -> PathBuf {
    let exe = std::env::current_exe().expect("a path");
    let target = exe.parent().and_then(Path::parent).expect("a folder");
    target.join("gm-xfrm")
}

fn ran(ns: &NetNs, words: &[&str]) -> Output {
    let mut command = Command::new(gm_xfrm());
    command.args(words);
    ns.run(|| command.output()).expect("gm-xfrm runs")
}

fn run(ns: &NetNs, words: &[&str]) -> String {
    let out = ran(ns, words);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "gm-xfrm {words:?}: {said}");
    said.into_owned()
}

fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

/// Ways that a suite's packets go: transport over IPv4 and IPv6, tunnel in UDP.
const WAYS: usize = 3;

/// An SA each way for every suite and way, as the P-CSCF has them. Numbers go on from other ones.
fn every() -> String {
    let mut text = String::new();
    for (n, suite) in Suite::every().enumerate() {
        for way in 0..WAYS {
            let set = n * WAYS + way;
            let (here, there) = match way {
                0 => (HERE[0], PHONE[0]),
                1 => (HERE[1], PHONE[1]),
                _ => (HERE[0], PRIVATE),
            };
            for dir in [Dir::In, Dir::Out] {
                let spi = 0x1000_0000 + 2 * set + usize::from(dir == Dir::Out);
                let port = 31_000 + set;
                let (src, dst, sport, dport, word) = match dir {
                    Dir::In => (there, here, port, 5064, "in"),
                    Dir::Out => (here, there, 5064, port, "out"),
                };
                write!(
                    text,
                    "[[sa]]\nspi = {spi}\nset = {set}\ndir = \"{word}\"\nsrc = \"{src}\"\n\
                     dst = \"{dst}\"\nsrc_port = {sport}\ndst_port = {dport}\nalg = \"{}\"\n\
                     ealg = \"{}\"\nik = \"a1a2a3a4a5a6a7a8a9aaabacadaeaf{set:02x}\"\n\
                     ck = \"c1c2c3c4c5c6c7c8c9cacbcccdcecf{set:02x}\"\n",
                    suite.alg(),
                    suite.ealg(),
                )
                .expect("a string");
                let mode = match (way, dir) {
                    (2, Dir::In) => format!(
                        "mode = \"udp-enc-tun\"\nouter_src = \"{}\"\nouter_dst = \"{}\"\n\
                         encap_sport = 40001\nencap_dport = 4500\n",
                        PHONE[0], HERE[0]
                    ),
                    (2, Dir::Out) => format!(
                        "mode = \"udp-enc-tun\"\nouter_src = \"{}\"\nouter_dst = \"{}\"\n\
                         encap_sport = 4500\nencap_dport = 40001\n",
                        HERE[0], PHONE[0]
                    ),
                    _ => "mode = \"trans\"\n".to_string(),
                };
                text.push_str(&mode);
                // Windows of all sizes, extended numbers, and numbers that are not the first.
                let window = [32, 64, 1024, 4096][set % 4];
                let numbers = match (way, suite) {
                    (1, Suite::NullAesGcm | Suite::AesGmacNull) => "esn = true\nseq = 8589934592\n",
                    (1, _) => "seq = 70001\n",
                    _ => "",
                };
                writeln!(text, "replay_window = {window}\n{numbers}").expect("a string");
            }
        }
    }
    text
}

fn plans(text: &str) -> Vec<Plan> {
    let sad = Sad::parse("SAD.toml", text).unwrap_or_else(|e| panic!("{e}"));
    let plan = |sa| plan::entry(sa).expect("a direction");
    sad.entries.iter().map(plan).collect()
}

/// States and policies, each in an order of their own.
fn kernel(ns: &NetNs) -> (Vec<State>, Vec<Policy>) {
    ns.run(|| {
        let mut xfrm = Xfrm::open().expect("XFRM");
        let mut states = xfrm.states().expect("states");
        let mut policies = xfrm.policies().expect("policies");
        states.sort_by_key(|state| state.id);
        policies.sort_by_key(|policy| format!("{:?}", policy.id));
        (states, policies)
    })
}

fn assert_same(ns: &NetNs, mut states: Vec<State>, mut policies: Vec<Policy>) {
    states.sort_by_key(|state| state.id);
    policies.sort_by_key(|policy| format!("{:?}", policy.id));
    let (there, protected) = kernel(ns);
    assert_eq!(
        (there.len(), protected.len()),
        (states.len(), policies.len())
    );
    for (is, wanted) in there.iter().zip(&states) {
        assert!(is.is_same_sa(wanted), "{is:?}\n{wanted:?}");
        assert_eq!(is.encap, wanted.encap);
        assert_eq!(is.numbers.seq, wanted.numbers.seq, "{}", is.id);
        let (old, new) = (wanted.numbers.top, wanted.numbers.top + 1);
        assert!(is.numbers.is_seen(old), "{}: {old} again", is.id);
        assert!(!is.numbers.is_seen(new), "{}: {new} never", is.id);
    }
    for (is, wanted) in protected.iter().zip(&policies) {
        assert!(is.is_same(wanted), "{is:?}\n{wanted:?}");
    }
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn a_batch_makes_what_install_makes() {
    needs_esp!();
    let dir = tempfile::tempdir().expect("a folder");
    let (sad, batch) = (path(&dir, "SAD.toml"), path(&dir, "batch"));
    std::fs::write(&sad, every()).expect("written");
    let words = ["export", "--sad", &sad, "--format", "ip-xfrm"];

    let here = NetNs::new().expect("root");
    let refused = ran(&here, &words);
    assert_eq!(refused.status.code(), Some(2), "keys without being asked");
    run(
        &here,
        &[&words[..], &["--show-keys", "--out", &batch]].concat(),
    );
    let mode = std::fs::metadata(&batch).expect("a file").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    here.sh("ip", &["-batch", &batch]);

    let plans = plans(&every());
    assert_eq!(plans.len(), 2 * WAYS * Suite::every().count());
    let states = plans.iter().map(|plan| plan.state.clone()).collect();
    let policies = plans.iter().flat_map(|plan| plan.policies.clone());
    assert_same(&here, states, policies.collect());

    // Out of the kernel, and into another one: what others have made, too.
    let foreign = foreign();
    here.run(|| Xfrm::open().and_then(|mut xfrm| xfrm.add_state(&foreign)))
        .expect("a state");
    let (states, policies) = kernel(&here);
    let again = path(&dir, "again");
    let words = [
        "export",
        "--format",
        "ip-xfrm",
        "--show-keys",
        "--out",
        &again,
    ];
    run(&here, &words);
    let other = NetNs::new().expect("root");
    other.sh("ip", &["-batch", &again]);
    assert_same(&other, states, policies);
    let (there, _) = kernel(&other);
    let found = there.iter().find(|state| state.id == foreign.id);
    let limits = found.expect("the state").limits;
    assert_eq!(
        (limits.bytes, limits.packets),
        (foreign.limits.bytes, foreign.limits.packets)
    );
    // What is left of an hour.
    assert!((3000..=3600).contains(&limits.added[1]), "{limits:?}");
}

/// A tunnel that ends by itself, has flags, and is for a whole net.
fn foreign() -> State {
    let mut state = plans(&every()).swap_remove(2 * (WAYS - 1)).state;
    state.id.spi = 0x2000_0000;
    (state.reqid, state.flags, state.extra_flags) = (7, 0x01, 0x1);
    state.selector.src.prefix = 24;
    (state.selector.proto, state.selector.sport) = (17, Ports::ANY);
    state.limits = Limits {
        bytes: [1 << 40, 1 << 41],
        packets: [1000, 2000],
        added: [0, 3600],
        used: [0, 0],
    };
    state
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn what_import_reads_is_what_install_makes() {
    needs_esp!();
    let dir = tempfile::tempdir().expect("a folder");
    let (sad, imported) = (path(&dir, "SAD.toml"), path(&dir, "imported.toml"));
    std::fs::write(&sad, every()).expect("written");
    let (here, other) = (NetNs::new().expect("root"), NetNs::new().expect("root"));
    run(&here, &["install", "--sad", &sad]);

    let refused = ran(&here, &["import", "--out", "-"]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
    let said = run(&here, &["import", "--out", &imported]);
    // Two SAs of each four are here.
    assert!(
        said.contains("0 whole sets, 24 others, 0 states in none"),
        "{said}"
    );
    let mode = std::fs::metadata(&imported).expect("a file").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    let ours = Sad::parse("SAD.toml", &every()).unwrap_or_else(|e| panic!("{e}"));
    let theirs = Sad::load(Path::new(&imported)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(theirs.entries.len(), ours.entries.len());
    let mut sets = Vec::new();
    for sa in &ours.entries {
        let same = |other: &&gm_api::sad::SadEntry| other.spec.spi == sa.spec.spi;
        let found = theirs.entries.iter().find(same).expect("the SPI");
        assert_eq!((found.spec, found.dir), (sa.spec, sa.dir));
        assert_eq!(found.seq.unwrap_or(1), sa.seq.unwrap_or(1));
        assert!(found.keys == sa.keys, "SPI {}: other keys", sa.spec.spi);
        sets.push((sa.set, found.set));
    }
    // Sets are the same ones, by other numbers.
    sets.sort_unstable();
    sets.dedup();
    assert_eq!(sets.len(), WAYS * Suite::every().count());

    run(&other, &["install", "--sad", &imported]);
    let (mut states, mut policies) = kernel(&here);
    let (others, _) = kernel(&other);
    // The reqid goes with the number of the set.
    for state in &mut states {
        let same = |other: &&State| other.id == state.id;
        let reqid = others.iter().find(same).expect("the state").reqid;
        let old = std::mem::replace(&mut state.reqid, reqid);
        for template in policies.iter_mut().flat_map(|policy| &mut policy.templates) {
            if template.spi == state.id.spi && template.reqid == old {
                template.reqid = reqid;
            }
        }
    }
    assert_same(&other, states, policies);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn both_ends_of_one_file_talk_to_each_other() {
    needs_esp!();
    let dir = tempfile::tempdir().expect("a folder");
    let sad = path(&dir, "SAD.toml");
    std::fs::write(&sad, every()).expect("written");
    let (here, phone) = (NetNs::new().expect("root"), NetNs::new().expect("root"));
    let with_length = |addresses: [&str; 2]| {
        let [v4, v6] = addresses;
        [format!("{v4}/24"), format!("{v6}/64")]
    };
    let (a, b) = (with_length(HERE), with_length(PHONE));
    veth(
        End {
            ns: &here,
            name: "gm0",
            addresses: &[&a[0], &a[1]],
        },
        End {
            ns: &phone,
            name: "ue0",
            addresses: &[&b[0], &b[1], "10.0.0.2/32"],
        },
    );
    here.ip(&format!("route add {PRIVATE} via {} dev gm0", PHONE[0]));
    let words = [
        "export",
        "--sad",
        &sad,
        "--format",
        "ip-xfrm",
        "--show-keys",
    ];
    for (ns, more) in [(&here, &[][..]), (&phone, &["--peer"])] {
        let batch = path(&dir, "batch");
        run(ns, &[&words[..], more, &["--out", &batch]].concat());
        ns.sh("ip", &["-batch", &batch]);
    }
    // The kernel takes ESP out of UDP at a socket.
    let encap = |ns: &NetNs, at: &str, port: u16| {
        let socket = ns.run(|| UdpSocket::bind((at, port))).expect("a port");
        gm_xsk::esp_in_udp(&socket).expect("UDP_ENCAP");
        socket
    };
    let _open = [encap(&here, HERE[0], 4500), encap(&phone, PHONE[0], 40_001)];

    let mut crossed = 0;
    for set in 0..WAYS * Suite::every().count() {
        let (pcscf, ue) = match set % WAYS {
            0 => (HERE[0], PHONE[0]),
            1 => (HERE[1], PHONE[1]),
            _ => (HERE[0], PRIVATE),
        };
        let socket = |ns: &NetNs, at: &str, port: usize| {
            let at = SocketAddr::new(at.parse().expect("an address"), port as u16);
            let socket = ns.run(|| UdpSocket::bind(at)).expect("a socket");
            socket
                .set_read_timeout(Some(Duration::from_secs(20)))
                .expect("a timeout");
            socket
        };
        let port = 31_000 + set;
        let (server, client) = (socket(&here, pcscf, 5064), socket(&phone, ue, port));
        let mut buffer = [0; 64];
        client.connect((pcscf, 5064)).expect("connected");
        client.send(b"REGISTER").expect("sent");
        let (len, from) = server
            .recv_from(&mut buffer)
            .unwrap_or_else(|e| panic!("set {set}: {e}"));
        assert_eq!(
            (&buffer[..len], from.port()),
            (&b"REGISTER"[..], port as u16)
        );
        server.send_to(b"200 OK", from).expect("sent");
        let len = client
            .recv(&mut buffer)
            .unwrap_or_else(|e| panic!("set {set}: {e}"));
        assert_eq!(&buffer[..len], b"200 OK");
        crossed += 1;
    }
    // All of it in ESP, and each SA has sealed or opened one packet.
    for ns in [&here, &phone] {
        let (states, _) = kernel(ns);
        assert_eq!(states.len(), 2 * crossed);
        for state in states {
            assert_eq!(state.counters.packets, 1, "{}", state.id);
        }
    }
}
