//! The programs on devices: XDP in driver mode, tc by tcx where there is
//! one (else clsact), an untagged link
//! and a VLAN on it, with real sockets on both sides of the local stack.

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use aya::maps::XskMap;
use aya::programs::tc::qdisc_add_clsact;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use gm_abi::maps::{META_OUTBOUND, META_UDP_ESP, MODE_UDP_ENC_TUN, Meta, mapped};
use gm_abi::sample::{PLACE_GUARD, PLACE_UPLINK};
use gm_abi::verdict::Reason;
use gm_tests::netns::{End, NetNs, veth};
use gm_xsk::{LinkSocket, Mode, RingSizes, Socket, Umem, nic};

use super::frames::udp;
use super::lab::{ENCAP_PORT, Lab, PROTECTED, Sa};

const OURS: [u8; 4] = [10, 77, 0, 1];
const OURS_VLAN: [u8; 4] = [10, 78, 0, 1];
const RINGS: RingSizes = RingSizes {
    rx: 64,
    tx: 64,
    fill: 64,
    completion: 64,
};

/// The programs attached, and a worker's sockets.
struct Host {
    lab: Lab,
    umem: Umem,
    uplink: Socket,
    gm0x: Socket,
}

impl Host {
    /// With the guard on these devices.
    fn new(guarded: &[&str]) -> Host {
        let mut lab = Lab::bare();
        let index = |name| nic::index(name).expect(name);
        let addresses = [mapped(OURS), mapped(OURS_VLAN)];
        lab.configure(index("up0"), index("gm0"), &addresses);
        lab.install(3, Sa::of_slot(3, 0, addresses[0], MODE_UDP_ENC_TUN));

        let mut umem = Umem::new(256).unwrap();
        let uplink = Socket::bind(&mut umem, index("up0"), 0, RINGS, Mode::Copy).unwrap();
        let gm0x = Socket::bind(&mut umem, index("gm0x"), 0, RINGS, Mode::Copy).unwrap();
        for (map, socket) in [("XSK_UPLINK", &uplink), ("XSK_GM0X", &gm0x)] {
            let mut map: XskMap<_> = lab.map(map).try_into().unwrap();
            map.set(0, socket.as_fd().as_raw_fd(), 0).unwrap();
        }
        for (name, device) in [("gm_xdp_uplink", "up0"), ("gm_xdp_gm0x", "gm0x")] {
            let program: &mut Xdp = lab.bpf.program_mut(name).unwrap().try_into().unwrap();
            program.attach(device, XdpMode::Driver).unwrap();
        }
        let guards = guarded
            .iter()
            .map(|device| ("gm_tc_guard", *device, TcAttachType::Ingress));
        let others = [
            ("gm_tc_gm0", "gm0", TcAttachType::Ingress),
            ("gm_tc_egress", "up0", TcAttachType::Egress),
        ];
        for (name, device, side) in guards.chain(others) {
            let program: &mut SchedClassifier =
                lab.bpf.program_mut(name).unwrap().try_into().unwrap();
            let _ = qdisc_add_clsact(device);
            program.attach(device, side).unwrap();
        }
        Host {
            lab,
            umem,
            uplink,
            gm0x,
        }
    }

    /// The next frame for the worker from one of its two sockets.
    fn worker(&mut self, from_uplink: bool) -> (Meta, Vec<u8>) {
        let until = Instant::now() + Duration::from_secs(5);
        let mut got = Vec::new();
        loop {
            let socket = if from_uplink {
                &mut self.uplink
            } else {
                &mut self.gm0x
            };
            if socket.recv(&mut self.umem, &mut got, 1) == 1 {
                let frame = got.remove(0);
                let note = frame.metadata().expect("metadata");
                let answer = (Meta::from_bytes(note).unwrap(), frame.data().to_vec());
                self.umem.free(frame);
                return answer;
            }
            assert!(Instant::now() < until, "nothing comes to the worker");
        }
    }

    /// Sends what a worker has opened.
    fn inject(&mut self, bytes: &[u8]) {
        let mut frame = self.umem.alloc().unwrap();
        assert!(frame.write(bytes));
        assert!(self.gm0x.send(&mut self.umem, frame).is_ok());
        self.gm0x.flush(&mut self.umem).unwrap();
    }

    fn count(&mut self, reason: Reason) -> u64 {
        self.lab.counters()[reason.index()]
    }
}

fn devices(host: &NetNs, ue: &NetNs) {
    host.ip("link add gm0 type veth peer name gm0x");
    host.run(|| {
        for name in ["gm0", "gm0x"] {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            std::fs::write(path, "1").unwrap();
        }
        nic::set_tx_checksum("gm0", false).unwrap();
    });
    for name in ["gm0", "gm0x"] {
        host.ip(&format!("link set {name} arp off up"));
    }
    let end = |ns, name, addresses| End {
        ns,
        name,
        addresses,
    };
    veth(
        end(host, "up0", &["10.77.0.1/24"]),
        end(ue, "ue0", &["10.77.0.2/24"]),
    );
}

/// A VLAN on both ends of the link, if the kernel has that.
fn vlans(host: &NetNs, ue: &NetNs) -> bool {
    for (ns, below, address) in [(host, "up0", "10.78.0.1/24"), (ue, "ue0", "10.78.0.2/24")] {
        let words = format!("link add link {below} name vl0 type vlan id 100");
        let made = ns.run(|| Command::new("ip").args(words.split(' ')).output());
        if !made.is_ok_and(|out| out.status.success()) {
            return false;
        }
        ns.ip(&format!("addr add {address} dev vl0"));
        ns.ip("link set vl0 up");
    }
    true
}

/// The frame turned round: addresses of both layers and ports.
fn answer(frame: &[u8], l3: usize, payload: &[u8]) -> Vec<u8> {
    let mut b = [&frame[6..12], &frame[..6], &frame[12..l3 + 20]].concat();
    b[l3 + 12..l3 + 16].copy_from_slice(&frame[l3 + 16..l3 + 20]);
    b[l3 + 16..l3 + 20].copy_from_slice(&frame[l3 + 12..l3 + 16]);
    b[l3 + 2..l3 + 4].copy_from_slice(&(28 + payload.len() as u16).to_be_bytes());
    b[l3 + 10..l3 + 12].fill(0);
    let sum: u32 = b[l3..l3 + 20]
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    b[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    b.extend(udp(port(l3 + 22), port(l3 + 20), payload));
    b
}

/// Out and in through the worker between `ours` and `theirs`, with spoofed
/// cleartext between; the worker's frames have their IP header at `l3`.
fn both_ways(host: &mut Host, ue: &NetNs, ours: &str, theirs: &str, l3: usize) {
    let socket = UdpSocket::bind((ours, PROTECTED)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();

    // Out: taken before the NIC, with its resolved Ethernet header.
    socket.send_to(b"MESSAGE", (theirs, 5060)).unwrap();
    let (meta, frame) = host.worker(false);
    assert_eq!((meta.kind, usize::from(meta.l3)), (META_OUTBOUND, l3));
    assert_eq!(usize::from(meta.esp), l3 + 20);
    assert!(frame.ends_with(b"MESSAGE"));
    if l3 == 18 {
        assert_eq!(frame[12..18], [0x81, 0, 0, 100, 8, 0]);
    }

    // In: cleartext is dropped, what the worker injects arrives.
    let dropped = host.count(Reason::CleartextProtected);
    host.lab.give_samples(100);
    host.lab.samples();
    ue.run(|| {
        let spoofed = UdpSocket::bind((theirs, 5060)).unwrap();
        spoofed.send_to(b"spoofed", (ours, PROTECTED)).unwrap();
    });
    host.inject(&answer(&frame, l3, b"200 OK"));
    let mut buf = [0; 100];
    let (length, from) = socket.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..length], b"200 OK");
    assert_eq!(from.to_string(), format!("{theirs}:5060"));
    assert_eq!(host.count(Reason::CleartextProtected), dropped + 1);

    // Local cleartext is not trusted either.
    let local = UdpSocket::bind((ours, 0)).unwrap();
    local.send_to(b"local", (ours, PROTECTED)).unwrap();
    assert_eq!(host.count(Reason::CleartextProtected), dropped + 2);

    // Both are told, with the device that they came in on.
    let v4 = |text: &str| mapped(text.parse::<std::net::Ipv4Addr>().unwrap().octets());
    let index = |name| nic::index(name).unwrap();
    let told = host.lab.samples().into_iter().filter(|s| s.dst == v4(ours));
    let told: Vec<_> = told.map(|s| (s.place, s.ifindex, s.src)).collect();
    assert_eq!(
        told,
        [
            (PLACE_UPLINK, index("up0"), v4(theirs)),
            (PLACE_GUARD, index("lo"), v4(ours)),
        ]
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn on_a_vlan() {
    let (host_ns, ue_ns) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    devices(&host_ns, &ue_ns);
    if !vlans(&host_ns, &ue_ns) {
        #[expect(clippy::print_stdout, reason = "SKIPPED lines are for tests/run")]
        {
            println!("SKIPPED: this kernel has no VLAN devices");
        }
        return;
    }
    host_ns.run(|| {
        let mut host = Host::new(&["up0", "vl0", "lo"]);
        both_ways(&mut host, &ue_ns, "10.78.0.1", "10.78.0.2", 18);
    });
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn on_devices() {
    let (host_ns, ue_ns) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    devices(&host_ns, &ue_ns);
    let tap = ue_ns.run(|| LinkSocket::bind("ue0").unwrap());
    host_ns.run(|| {
        let mut host = Host::new(&["up0", "lo"]);
        both_ways(&mut host, &ue_ns, "10.77.0.1", "10.77.0.2", 14);

        // ESP in UDP comes to the uplink's worker with its slot.
        let mut esp = 1_000_000_003u32.to_be_bytes().to_vec();
        esp.extend(1u32.to_be_bytes());
        esp.resize(64, 0xa5);
        ue_ns.run(|| {
            let encap = UdpSocket::bind("10.77.0.2:0").unwrap();
            encap.send_to(&esp, ("10.77.0.1", ENCAP_PORT)).unwrap();
        });
        let (meta, frame) = host.worker(true);
        assert_eq!((meta.kind, meta.slot), (META_UDP_ESP, 3));
        assert_eq!(frame[usize::from(meta.esp)..], esp);

        // A dead worker: nothing protected leaves in clear.
        let Host {
            mut lab,
            mut umem,
            uplink,
            gm0x,
        } = host;
        uplink.close(&mut umem);
        gm0x.close(&mut umem);
        let mut buf = [0; 2048];
        while tap.recv(&mut buf).is_ok() {}
        let socket = UdpSocket::bind(("10.77.0.1", PROTECTED)).unwrap();
        socket.send_to(b"MESSAGE", ("10.77.0.2", 5060)).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while lab.counters()[Reason::NoWorker.index()] == 0 {
            assert!(Instant::now() < until, "{:?}", lab.counters());
        }
        while let Ok(length) = tap.recv(&mut buf) {
            assert!(!buf[..length].ends_with(b"MESSAGE"));
        }
    });
}

/// The verifier walks a million instructions at most. Old kernels recognise
/// less as walked before. With IP headers in a map (`SCRATCH`) 6.1 takes up to
/// twice what 6.18 takes; with them on the stack it took twelve times as much.
#[test]
#[ignore = "needs root: run by ./tests/run"]
#[expect(clippy::print_stdout, reason = "shown by tests/vm, for Linux 6.1")]
fn the_verifier_is_far_from_its_limit() {
    for (beside, how) in [(false, ""), (true, ", beside the kernel's SAs")] {
        for (name, program) in Lab::loaded(beside).bpf.programs() {
            let info = program.info().unwrap();
            let walked = info.verified_instruction_count().expect("Linux 5.16");
            println!("{name}{how}: {walked} instructions walked of a million");
            assert!(walked < 80_000, "{name}{how}: {walked}");
        }
    }
}
