//! gmespd takes over the SAs that another P-CSCF has in the kernel, under traffic, and gives them
//! back: states and policies of iproute2 at both ends, gmespd beside the P-CSCF's.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "what has moved is shown by the step vm"
)]

// Programs and files are those of the tests with SIPp, sets and the kernel those of the matrix,
// links and sockets those of the data plane's tests. Each of the programs uses a part.
#[allow(dead_code)]
#[path = "sipp/lab.rs"]
mod common;
#[path = "kernel_adopt/crash.rs"]
mod crash;
#[path = "kernel_adopt/gm.rs"]
mod gm;
#[allow(dead_code)]
#[path = "dataplane/lab.rs"]
mod lab;
#[path = "kernel_adopt/late.rs"]
mod late;
#[allow(dead_code)]
#[path = "kernel_peer/set.rs"]
mod set;
#[allow(dead_code)]
#[path = "dataplane/sockets.rs"]
mod sockets;
#[path = "kernel_adopt/talk.rs"]
mod talk;
#[allow(dead_code)]
#[path = "kernel_peer/xfrm.rs"]
mod xfrm;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use gm_abi::wire::{self, L3};
use gm_api::sad::Dir;
use gm_api::transfer::TransferReply;
use gm_dataplane::Reason;
use gm_esp::{Mode, Suite};
use gm_tests::needs_esp;
use gm_xfrm::kernel::Xfrm;
use gm_xsk::LinkSocket;

use gm::{Gmespd, WAIT};
use lab::{Family, NAMES};
use set::{End, Set};
use talk::Talk;
use xfrm::Kernel;

/// The P-CSCF whose SAs are in the kernel, and the phones' kernel.
struct Pair {
    p: Kernel,
    ue: Kernel,
}

impl Pair {
    fn new(sets: &[Set]) -> Pair {
        let (p, ue) = lab::joined();
        let (p, ue) = (Kernel::new(p, End::PCscf), Kernel::new(ue, End::Ue));
        p.add(sets);
        ue.add(sets);
        Pair { p, ue }
    }

    fn gmespd(&self, pins: Option<&std::path::Path>) -> Gmespd {
        let ours = [Family::V4, Family::V6].map(|family| family.addresses().0);
        Gmespd::start(&self.p.ns, NAMES[0], &ours, pins)
    }

    /// The P-CSCF's states and policies.
    fn in_kernel(&self) -> (usize, usize) {
        self.p.ns.run(|| {
            let mut xfrm = Xfrm::open().unwrap();
            let (states, policies) = (xfrm.states().unwrap(), xfrm.policies().unwrap());
            (states.len(), policies.len())
        })
    }
}

fn ends(family: Family) -> [IpAddr; 2] {
    let (p, ue) = family.addresses();
    [p, ue]
}

/// Of everything one: suites, modes, families; a window as Kamailio's, and a large one.
fn sets() -> Vec<Set> {
    let (v4, v6) = (ends(Family::V4), ends(Family::V6));
    let mut sets = vec![
        Set::new(1, Suite::NullAesGcm, Mode::Trans, v4),
        Set::new(2, Suite::HmacSha1AesCbc, Mode::Trans, v4),
        Set::new(3, Suite::HmacSha1Null, Mode::Trans, v6),
        Set::new(4, Suite::NullAesGcm, Mode::UdpEncTun, v4),
        Set::new(5, Suite::AesGmacNull, Mode::Trans, v6),
        Set::new(6, Suite::HmacSha1AesCbc, Mode::UdpEncTun, v4),
    ];
    (sets[1].window, sets[2].window) = (32, 1024);
    sets.iter_mut().for_each(|set| set.port_known = true);
    sets
}

/// What has come from the phones so far, as it was on the wire.
fn captured(wire: &LinkSocket) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut b = [0; 4096];
    while let Ok(n) = wire.recv(&mut b) {
        let L3::Ip(ip) = wire::parse_frame(&b[..n]) else {
            continue;
        };
        let is_esp = ip.proto == 50 || ip.ports.is_some_and(|(_, to)| to == set::ENCAP);
        let phones = [Family::V4, Family::V6].map(|f| mapped(f.addresses().1));
        if is_esp && phones.contains(&ip.src) && ip.end - ip.l3 > 60 {
            frames.push(b[..n].to_vec());
        }
    }
    frames.truncate(60);
    frames
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// All that the kernel counts there of what a packet may get lost by.
fn told(end: &Kernel) -> String {
    let files = ["snmp", "snmp6", "softnet_stat"];
    let text = |file: &str| {
        let text = xfrm::proc_net(&end.ns, file);
        let lines = text.lines().filter(|line| !line.ends_with("\t0"));
        lines
            .map(|line| format!("{file}: {line}\n"))
            .collect::<String>()
    };
    files.map(text).concat() + &end.ns.ip("-s -s link show")
}

/// Waits until a count is `want`.
#[track_caller]
fn reaches(want: u64, count: impl Fn() -> u64) {
    let deadline = Instant::now() + WAIT;
    while count() < want && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(count(), want);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn an_orderly_end_gives_back_what_was_taken_over_and_an_end_that_cannot_leaves_nothing_in_clear() {
    needs_esp!();
    let sets = sets();
    let pair = Pair::new(&sets);
    let talk = Talk::new(&pair.p.ns, &pair.ue.ns, &sets);
    let there = pair.in_kernel();
    talk.during(&pair.ue.ns, || {
        let gmespd = pair.gmespd(None);
        assert_eq!(gmespd.xfrm("adopt").sets.len(), sets.len());
        talk.goes_on();
        assert!(gmespd.end().success());
        assert_eq!(pair.in_kernel(), there);
        talk.goes_on();
    });
    talk.all_once(&sets);
    assert_eq!(pair.ue.errors(), Default::default());

    // One of them is in the kernel's way by then.
    let pins = tempfile::tempdir().unwrap();
    let gmespd = pair.gmespd(Some(&pins.path().join("pins")));
    assert_eq!(gmespd.xfrm("adopt").sets.len(), sets.len());
    pair.p
        .ip(sets[0].states(End::PCscf).lines().next().unwrap());
    assert!(!gmespd.end().success(), "it says that one could not go");
    assert_eq!(pair.in_kernel().0, 4 * (sets.len() - 1) + 1);
    let links = pair.p.ns.ip("link show dev p0");
    assert!(links.contains("xdp"), "the policy stays: {links}");
}

fn lasts(reply: &TransferReply, dir: Dir) -> Vec<u64> {
    let sas = reply.sets.iter().flat_map(|set| &set.sas);
    sas.filter(|sa| sa.dir == dir).map(|sa| sa.last).collect()
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn sas_of_another_p_cscf_move_here_and_back_under_traffic() {
    needs_esp!();
    let sets = sets();
    let pair = Pair::new(&sets);
    let talk = Talk::new(&pair.p.ns, &pair.ue.ns, &sets);
    let wire = pair.ue.ns.run(|| LinkSocket::bind(NAMES[1]).unwrap());
    let tap = pair.p.ns.run(|| LinkSocket::bind(NAMES[0]).unwrap());
    let mut early = Vec::new();
    let mut replayed = 0;
    let policies = pair.in_kernel().1;
    // Where in the tale one was lost.
    let at = |what: &str| println!("{what}: sent down {:?}", talk.sent_down());
    talk.during(&pair.ue.ns, || {
        early = captured(&tap);
        at("before gmespd");
        let gmespd = pair.gmespd(None);
        at("beside gmespd");
        talk.goes_on();
        assert!(early.len() > 20, "{}", early.len());
        for round in 0..2 {
            // Nothing happens, and it is said.
            let would = gmespd.xfrm("adopt --dry-run");
            assert_eq!((would.sets.len(), would.left_out.len()), (sets.len(), 0));
            assert_eq!(pair.in_kernel().0, 4 * sets.len());
            // One phone, one SPI, the rest.
            at("all in the kernel");
            let v6 = format!("adopt --phone {}", Family::V6.addresses().1);
            assert_eq!(gmespd.xfrm(&v6).sets.len(), 2);
            talk.goes_on();
            let spi = sets[0].four()[0].spi;
            assert_eq!(gmespd.xfrm(&format!("adopt --spi {spi:#x}")).sets.len(), 1);
            let rest = gmespd.xfrm("adopt");
            assert_eq!(rest.sets.len(), sets.len() - 3);
            assert!(lasts(&rest, Dir::In).iter().any(|last| *last > 0));
            println!("round {round}: taken over: {rest:?}");
            at("all here");
            assert_eq!(pair.in_kernel(), (0, 0));
            assert_eq!(gmespd.list().len(), 4 * sets.len());
            // Numbers go on.
            for sa in rest.sets.iter().flat_map(|set| &set.sas) {
                let now = gmespd.list();
                let now = now.iter().find(|row| row.sa.spi == sa.spi).unwrap();
                assert!(now.sa.seq.unwrap_or(0).max(now.top) >= sa.last);
            }
            talk.goes_on();
            // What came before does not come again.
            let old = || gmespd.count(Reason::Replay) + gmespd.count(Reason::Stale);
            let before = old();
            early.iter().for_each(|frame| wire.send(frame).unwrap());
            reaches(before + early.len() as u64, old);

            at("all here still");
            let v4 = format!("give-back --phone {}", Family::V4.addresses().1);
            let back = gmespd.xfrm(&v4);
            assert_eq!(back.sets.len(), sets.len() - 2);
            println!("round {round}: given back: {back:?}");
            talk.goes_on();
            assert_eq!(gmespd.xfrm("give-back").sets.len(), 2);
            at("all given back");
            assert_eq!(pair.in_kernel(), (4 * sets.len(), policies));
            assert_eq!(gmespd.list(), []);
            talk.goes_on();
            early.iter().for_each(|frame| wire.send(frame).unwrap());
            replayed += early.len() as u64;
            let seq = || {
                let errors = pair.p.errors();
                errors.get("XfrmInStateSeqError").copied().unwrap_or(0)
            };
            reaches(replayed, seq);
            println!("round {round}: refused {:?}", pair.p.errors());
        }
        println!("reasons: {:?}", gmespd.reasons());
        assert!(gmespd.count(Reason::PassKernelSa) > 0);
        for reason in [Reason::OutNoSa, Reason::HandoverFull, Reason::UnknownSpi] {
            assert_eq!(gmespd.count(reason), 0, "{}", reason.name());
        }
    });
    println!("errors {:?} and {:?}", pair.p.errors(), pair.ue.errors());
    println!("P-CSCF:\n{}\nphones:\n{}", told(&pair.p), told(&pair.ue));
    // Of all namespaces together.
    for neighbours in ["arp_cache", "ndisc_cache"] {
        let text = std::fs::read_to_string(format!("/proc/net/stat/{neighbours}"));
        println!("{neighbours}: {text:?}");
    }
    let all = talk.all_once(&sets);
    println!(
        "{all} datagrams, each arrived once; {} rounds over TCP",
        talk.echoed()
    );
    // A number that came twice, or too late, the phones' kernel would have refused.
    assert_eq!(pair.ue.errors(), Default::default());
    let only = [("XfrmInStateSeqError".to_owned(), replayed)];
    assert_eq!(pair.p.errors(), only.into());
}
