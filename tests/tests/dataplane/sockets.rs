//! Sockets and counters for tests in namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{DataPlane, Reason};
use gm_xsk::LinkSocket;

/// Longer than a loaded machine takes, shorter than patience. Nothing that goes well takes it.
pub const WAIT: Duration = Duration::from_secs(20);

pub fn udp(ip: IpAddr, port: u16) -> UdpSocket {
    let s = UdpSocket::bind((ip, port)).unwrap();
    s.set_read_timeout(Some(WAIT)).unwrap();
    s
}

/// Sends `len` bytes from `from` to `to` and expects them there, from the
/// right source.
pub fn pass(from: &UdpSocket, to: &UdpSocket, len: usize) {
    try_pass(from, to, len).unwrap_or_else(|e| panic!("{e}"));
}

/// The same, with what went wrong in words.
pub fn try_pass(from: &UdpSocket, to: &UdpSocket, len: usize) -> Result<(), String> {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
    let source = from.local_addr().unwrap();
    let mut got = vec![0; 65_536];
    from.send_to(&bytes, to.local_addr().unwrap())
        .and_then(|_| to.recv_from(&mut got))
        .map_err(|e| format!("{len} bytes: {e}"))
        .and_then(
            |(n, seen)| match (&got[..n], seen) == (&bytes[..], source) {
                true => Ok(()),
                false => Err(format!(
                    "{len} bytes: {n} others came, from {seen}, not {source}"
                )),
            },
        )
}

pub fn count(plane: &DataPlane, reason: Reason) -> u64 {
    plane.stats().unwrap().get(reason)
}

/// Waits until `reason` was counted `n` times more than `before`.
pub fn grows(plane: &DataPlane, reason: Reason, before: u64, n: u64) {
    let end = Instant::now() + WAIT;
    while count(plane, reason) < before + n && Instant::now() < end {
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(count(plane, reason), before + n, "{}", reason.name());
}

/// Nothing arrives for a while.
pub fn silent(socket: &UdpSocket) {
    socket
        .set_read_timeout(Some(Duration::from_millis(150)))
        .unwrap();
    let got = socket.recv_from(&mut [0; 2048]);
    assert!(got.is_err(), "something came through: {got:?}");
    socket.set_read_timeout(Some(WAIT)).unwrap();
}

/// A connection from a given port, as a UE makes it.
pub fn connect(from: (IpAddr, u16), to: (IpAddr, u16)) -> TcpStream {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
        sockopt,
    };
    use std::os::fd::AsRawFd;
    let family = if from.0.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
    bind(
        fd.as_raw_fd(),
        &SockaddrStorage::from(std::net::SocketAddr::from(from)),
    )
    .unwrap();
    connect(
        fd.as_raw_fd(),
        &SockaddrStorage::from(std::net::SocketAddr::from(to)),
    )
    .unwrap();
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream
}

/// Sends a megabyte each way at once and compares.
pub fn megabyte(mut a: TcpStream, mut b: TcpStream) {
    const SIZE: usize = 1 << 20;
    let bytes = |seed: usize| {
        (0..SIZE)
            .map(|i| (i * 31 + i / 999 + seed) as u8)
            .collect::<Vec<u8>>()
    };
    thread::scope(|s| {
        for (from, to, seed) in [(&a, &b, 1), (&b, &a, 2)] {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            s.spawn(move || from.write_all(&bytes(seed)).unwrap());
            s.spawn(move || {
                let mut got = vec![0; SIZE];
                to.read_exact(&mut got).unwrap();
                assert!(got == bytes(seed), "the bytes differ");
            });
        }
    });
    // Both ends still answer.
    a.write_all(b"end").unwrap();
    let mut end = [0; 3];
    b.read_exact(&mut end).unwrap();
}

/// Recomputes the checksum of an IPv4 header.
pub fn fix_ipv4(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let sum = gm_tests::checksum(&ip[..20]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Whether a frame with these bytes comes within a short while.
pub fn sees(wire: &LinkSocket, bytes: &[u8]) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let end = Instant::now() + Duration::from_millis(300);
    let mut frame = [0; 4096];
    while Instant::now() < end {
        let mut fds = [PollFd::new(wire.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(50u8)).unwrap();
        while let Ok(n) = wire.recv(&mut frame) {
            if frame[..n].windows(bytes.len()).any(|w| w == bytes) {
                return true;
            }
        }
    }
    false
}
