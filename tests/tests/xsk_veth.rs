//! gm-xsk on real devices: veth pairs in a network namespace of the test's own.
#![expect(clippy::print_stdout, reason = "SKIPPED lines are for tests/run")]

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use gm_abi::maps::{META_OUTBOUND, Meta};
use gm_tests::netns::NetNs;
use gm_xsk::{FRAME_SIZE, LinkSocket, Mode, RingSizes, Socket, Umem, nic};
use std::os::fd::{AsFd, AsRawFd};

const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/prebuilt/gm-xdp.o");
const RINGS: RingSizes = RingSizes {
    rx: 256,
    tx: 256,
    fill: 256,
    completion: 256,
};

/// Runs a test in a network namespace of its own.
fn in_namespace(test: impl FnOnce(&NetNs) -> Result<()> + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: needs root for network namespaces and AF_XDP");
        return;
    }
    let ns = NetNs::new().expect("no network namespace");
    ns.run(|| {
        // Nothing but the test's own packets. Absent where there is no IPv6.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        test(&ns).expect("the test failed");
    });
}

/// A veth pair with both ends in the namespace, up, with this many queues.
fn veth(ns: &NetNs, one: &str, other: &str, queues: u32) {
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    ns.ip(&format!(
        "link add {one} {queues} type veth peer name {other} {queues}"
    ));
    ns.ip(&format!("link set {one} up"));
    ns.ip(&format!("link set {other} up"));
}

fn bind(umem: &mut Umem, ifname: &str, queue: u32) -> io::Result<Socket> {
    Socket::bind(umem, nic::index(ifname)?, queue, RINGS, Mode::Copy)
}

/// Sends all IP packets that come in on a device to the sockets in its map.
struct Redirect(Ebpf);

impl Redirect {
    fn attach(ifname: &str) -> Result<Redirect> {
        let mut bpf = EbpfLoader::new()
            .map_max_entries("SLOTS", 16)
            .map_max_entries("SLOT_DROPS", 16)
            .load_file(OBJECT)?;
        let program: &mut Xdp = bpf
            .program_mut("gm_xdp_gm0x")
            .context("no program")?
            .try_into()?;
        program.load()?;
        program.attach(ifname, XdpMode::Driver)?;
        Ok(Redirect(bpf))
    }

    fn to(&mut self, queue: u32, socket: &Socket) -> Result<()> {
        let map = self.0.map_mut("XSK_GM0X").context("no map")?;
        XskMap::try_from(map)?.set(queue, socket.as_fd().as_raw_fd(), 0)?;
        Ok(())
    }
}

/// An Ethernet frame with an IPv4 packet of `len` bytes in all, its content
/// told by `n`.
fn packet(n: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..6].fill(0x02);
    frame[6..12].fill(0x04);
    frame[12..14].copy_from_slice(&[8, 0]);
    let total = (len - 14) as u16;
    frame[14..18].copy_from_slice(&[0x45, 0, (total >> 8) as u8, total as u8]);
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..34].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    frame[34..38].copy_from_slice(&n.to_be_bytes());
    for (i, byte) in frame[38..].iter_mut().enumerate() {
        *byte = (n as usize).wrapping_mul(31).wrapping_add(i) as u8;
    }
    frame
}

/// Largest frame here: with 8 bytes more it still fits a device.
const MAX: usize = 1506;

fn length(n: u32) -> usize {
    60 + (n as usize * 37) % (MAX - 60 + 1)
}

/// Receives one frame, waiting for it if need be.
fn receive(link: &LinkSocket, buf: &mut [u8]) -> Result<usize> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match link.recv(buf) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                ensure!(Instant::now() < until, "nothing arrives")
            }
            other => return Ok(other?),
        }
    }
}

fn whole(umem: &Umem) {
    assert_eq!(umem.leaked(), 0);
    assert_eq!(
        umem.free_count() + umem.in_kernel() + umem.outstanding(),
        umem.frames()
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn sent_frames_arrive_byte_for_byte() {
    in_namespace(|ns| {
        veth(ns, "a0", "a1", 1);
        let link = LinkSocket::bind("a1")?;
        link.set_receive_buffer(64 << 20)?;
        let mut umem = Umem::new(1024)?;
        let mut socket = bind(&mut umem, "a0", 0)?;
        let mut buf = [0; FRAME_SIZE];
        for n in 0..5000u32 {
            let mut frame = umem.alloc().context("no frame")?;
            ensure!(frame.write(&packet(n, length(n))));
            socket.send(&mut umem, frame).ok().context("ring full")?;
            if n % 50 == 49 {
                ensure!(socket.flush(&mut umem)?.queued == 0);
                for m in n - 49..=n {
                    let len = receive(&link, &mut buf)?;
                    ensure!(buf[..len] == packet(m, length(m)), "packet {m} differs");
                }
            }
        }
        // What the other end sends is not seen as received there.
        link.send(&packet(1, 60))?;
        ensure!(
            link.recv(&mut buf)
                .is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
        );
        whole(&umem);
        socket.close(&mut umem);
        ensure!(umem.free_count() == umem.frames());
        Ok(())
    });
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn received_frames_are_byte_for_byte_and_carry_metadata() {
    in_namespace(|ns| {
        veth(ns, "a0", "a1", 1);
        let mut redirect = Redirect::attach("a0")?;
        let mut umem = Umem::new(1024)?;
        let mut socket = bind(&mut umem, "a0", 0)?;
        redirect.to(0, &socket)?;
        let link = LinkSocket::bind("a1")?;
        let mut got = Vec::new();
        for n in 0..5000u32 {
            let sent = packet(n, length(n));
            link.send(&sent)?;
            let until = Instant::now() + Duration::from_secs(5);
            while socket.recv(&mut umem, &mut got, 8) == 0 {
                ensure!(Instant::now() < until, "packet {n} does not arrive");
            }
            ensure!(got.len() == 1);
            let frame = got.remove(0);
            ensure!(frame.data() == sent, "packet {n} differs");
            let meta = frame
                .metadata()
                .and_then(Meta::from_bytes)
                .context("no metadata")?;
            ensure!(meta.kind == META_OUTBOUND && meta.l3 == 14, "{meta:?}");
            umem.free(frame);
        }
        let statistics = socket.statistics()?;
        ensure!(
            statistics
                == gm_xsk::Statistics {
                    kicks_refused: statistics.kicks_refused,
                    ..Default::default()
                }
        );
        whole(&umem);
        socket.close(&mut umem);
        ensure!(umem.free_count() == umem.frames());
        Ok(())
    });
}

/// The worker's way: two devices, one umem, no copy between them.
#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_hundred_thousand_frames_from_device_to_device_without_a_leak() {
    const ALL: u32 = 100_000;
    in_namespace(|ns| {
        veth(ns, "a0", "a1", 1);
        veth(ns, "b0", "b1", 1);
        let mut redirect = Redirect::attach("a0")?;
        let mut umem = Umem::new(4 * 256 + 128)?;
        let mut from = bind(&mut umem, "a0", 0)?;
        let mut to = bind(&mut umem, "b0", 0)?;
        redirect.to(0, &from)?;
        let (input, output) = (LinkSocket::bind("a1")?, LinkSocket::bind("b1")?);
        output.set_receive_buffer(64 << 20)?;
        let (mut sent, mut arrived) = (0u32, 0u32);
        let (mut got, mut buf) = (Vec::new(), [0; FRAME_SIZE]);
        let mut progress = Instant::now();
        while arrived < ALL {
            while sent < ALL && sent - arrived < 128 {
                input.send(&packet(sent, length(sent)))?;
                sent += 1;
            }
            from.recv(&mut umem, &mut got, 64);
            for mut frame in got.drain(..) {
                // In place, and 8 bytes longer in front.
                let (chunk, start, end) = frame.chunk_mut();
                chunk.copy_within(start..start + 14, start - 8);
                chunk[start + 6..start + 14].fill(0xee);
                ensure!(frame.set_range(start - 8, end));
                to.send(&mut umem, frame).ok().context("ring full")?;
            }
            to.flush(&mut umem)?;
            while let Ok(len) = output.recv(&mut buf) {
                let plain = packet(arrived, length(arrived));
                ensure!(
                    len == plain.len() + 8
                        && buf[..14] == plain[..14]
                        && buf[22..len] == plain[14..],
                    "packet {arrived}"
                );
                arrived += 1;
                progress = Instant::now();
            }
            ensure!(
                progress.elapsed() < Duration::from_secs(5),
                "stuck at {arrived} of {sent}"
            );
            whole(&umem);
        }
        for socket in [&from, &to] {
            let s = socket.statistics()?;
            ensure!(
                s == gm_xsk::Statistics {
                    kicks_refused: s.kicks_refused,
                    ..Default::default()
                },
                "{s:?}"
            );
        }
        ensure!(umem.outstanding() == 0);
        from.close(&mut umem);
        to.close(&mut umem);
        ensure!(umem.free_count() == umem.frames() && umem.leaked() == 0);
        Ok(())
    });
}

/// Sockets on the queues of one device: each packet comes to the one of its
/// queue.
#[test]
#[ignore = "needs root: run by ./tests/run"]
fn every_queue_has_its_socket() {
    in_namespace(|ns| {
        veth(ns, "a0", "a1", 2);
        ensure!(nic::rx_queues("a0")? == 2);
        let mut redirect = Redirect::attach("a0")?;
        let mut umem = Umem::new(4 * 256)?;
        let mut sockets = [bind(&mut umem, "a0", 0)?, bind(&mut umem, "a0", 1)?];
        for (queue, socket) in (0..).zip(&sockets) {
            redirect.to(queue, socket)?;
        }
        let link = LinkSocket::bind("a1")?;
        let (mut seen, mut by_queue) = ([false; 200], [0; 2]);
        let until = Instant::now() + Duration::from_secs(5);
        for n in 0..200u32 {
            // Another source each: the sender's queue goes by the flow.
            let mut sent = packet(n, 100);
            sent[29] = n as u8;
            link.send(&sent)?;
        }
        let mut got = Vec::new();
        while seen.contains(&false) {
            for (socket, count) in sockets.iter_mut().zip(&mut by_queue) {
                *count += socket.recv(&mut umem, &mut got, 64);
            }
            for frame in got.drain(..) {
                let n = usize::from(frame.data()[29]);
                ensure!(
                    !std::mem::replace(&mut seen[n], true),
                    "packet {n} came twice"
                );
                umem.free(frame);
            }
            ensure!(Instant::now() < until, "{by_queue:?}");
        }
        ensure!(by_queue.iter().all(|n| *n > 0), "{by_queue:?}");
        sockets
            .into_iter()
            .for_each(|socket| socket.close(&mut umem));
        ensure!(umem.free_count() == umem.frames() && umem.leaked() == 0);
        Ok(())
    });
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_refused_bind_leaves_nothing_behind() {
    in_namespace(|ns| {
        veth(ns, "a0", "a1", 1);
        let mut umem = Umem::new(1024)?;
        let refused = |umem: &mut Umem, ifindex, queue| {
            let error = Socket::bind(umem, ifindex, queue, RINGS, Mode::Copy).expect_err("bound");
            assert_eq!(umem.free_count(), umem.frames() - umem.in_kernel());
            error.raw_os_error()
        };
        let device = nic::index("a0")?;
        ensure!(refused(&mut umem, 9999, 0) == Some(nix::libc::ENODEV));
        ensure!(refused(&mut umem, device, 99) == Some(nix::libc::EINVAL));
        let first = bind(&mut umem, "a0", 0)?;
        let lent = umem.in_kernel();
        ensure!(refused(&mut umem, device, 0) == Some(nix::libc::EINVAL));
        ensure!(umem.in_kernel() == lent);
        let mut other = Umem::new(1024)?;
        ensure!(refused(&mut other, device, 0) == Some(nix::libc::EBUSY));
        // The frames are free at once, the queue soon.
        first.close(&mut umem);
        ensure!(umem.free_count() == umem.frames());
        bind(&mut umem, "a0", 0)?.close(&mut umem);
        let odd = RingSizes { tx: 100, ..RINGS };
        ensure!(Socket::bind(&mut umem, device, 0, odd, Mode::Copy).is_err());
        // A mode of the driver's choice, where there is none but copying.
        let auto = Socket::bind(&mut umem, device, 0, RINGS, Mode::Auto)?;
        ensure!(!auto.is_zero_copy());
        auto.close(&mut umem);
        ensure!(umem.free_count() == umem.frames());
        Ok(())
    });
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_full_ring_and_a_dead_device_give_the_frames_back() {
    in_namespace(|ns| {
        veth(ns, "a0", "a1", 1);
        let mut umem = Umem::new(1024)?;
        let mut socket = bind(&mut umem, "a0", 0)?;
        let empty = umem.alloc().context("no frame")?;
        let empty = socket
            .send(&mut umem, empty)
            .expect_err("a packet without bytes was taken");
        umem.free(empty);
        let fill = |umem: &mut Umem, socket: &mut Socket| -> Result<u32> {
            for n in 0.. {
                let mut frame = umem.alloc().context("no frame")?;
                ensure!(frame.write(&packet(n, 100)));
                if let Err(frame) = socket.send(umem, frame) {
                    umem.free(frame);
                    return Ok(n);
                }
            }
            Ok(0)
        };
        ensure!(fill(&mut umem, &mut socket)? == RINGS.tx);
        ensure!(socket.flush(&mut umem)?.queued == 0);
        ns.ip("link set a0 down");
        fill(&mut umem, &mut socket)?;
        let error = socket.flush(&mut umem).expect_err("sent on a dead device");
        ensure!(error.raw_os_error() == Some(nix::libc::ENETDOWN), "{error}");
        whole(&umem);
        socket.close(&mut umem);
        ensure!(umem.free_count() == umem.frames());
        Ok(())
    });
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn silent_drops_show_in_the_statistics() {
    in_namespace(|ns| {
        veth(ns, "a0", "a1", 1);
        let mut redirect = Redirect::attach("a0")?;
        // Fewer frames than the fill ring takes, and nobody fetches.
        let mut umem = Umem::new(32)?;
        let socket = bind(&mut umem, "a0", 0)?;
        redirect.to(0, &socket)?;
        let link = LinkSocket::bind("a1")?;
        for n in 0..100 {
            link.send(&packet(n, 100))?;
        }
        let until = Instant::now() + Duration::from_secs(5);
        while socket.statistics()?.rx_dropped < 68 {
            ensure!(Instant::now() < until, "{:?}", socket.statistics()?);
        }
        ensure!(socket.statistics()?.rx_fill_ring_empty >= 68);
        socket.close(&mut umem);
        ensure!(umem.free_count() == umem.frames());
        Ok(())
    });
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn devices_tell_and_take_their_settings() {
    in_namespace(|ns| {
        ns.ip("link add m0 numrxqueues 2 numtxqueues 2 type veth peer name m1");
        ns.ip("link set m0 address 02:00:00:00:00:07 mtu 1400");
        ensure!(nic::rx_queues("m0")? == 2);
        ensure!(nic::mtu("m0")? == 1400);
        ensure!(nic::mac("m0")? == [2, 0, 0, 0, 0, 7]);
        ensure!(nic::tx_checksum("m0")?);
        nic::set_tx_checksum("m0", false)?;
        ensure!(!nic::tx_checksum("m0")?);
        nic::set_tx_checksum("m0", true)?;
        ensure!(nic::tx_checksum("m0")?);
        Ok(())
    });
}
