//! The calls for which rustix has no safe form.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Since Linux 6.17 (linux/if_xdp.h).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Option of a UDP socket, and its value for ESP in UDP (linux/udp.h).
const UDP_ENCAP: libc::c_int = 100;
const UDP_ENCAP_ESPINUDP: libc::c_int = 2;

/// Keeps a packet socket from seeing what the host itself sends.
pub(crate) fn ignore_outgoing(fd: &OwnedFd) -> io::Result<()> {
    let one: libc::c_int = 1;
    set(fd.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &one)
}

/// Makes the interface promiscuous while the packet socket is open.
pub(crate) fn promiscuous(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let member = libc::packet_mreq {
        mr_ifindex: ifindex as libc::c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(
        fd.as_fd(),
        libc::SOL_PACKET,
        libc::PACKET_ADD_MEMBERSHIP,
        &member,
    )
}

/// Binds a packet socket to all protocols of one interface.
pub(crate) fn bind_link(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let addr = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: ifindex as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of_val(&addr) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `addr`, an address of the
    // socket's family.
    let rc = unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len) };
    result(rc)
}

/// Gives ESP that comes to a UDP socket to the kernel's XFRM (RFC 3948): what has neither the
/// non-ESP marker nor the one byte of a keepalive. The socket reads the rest, but for keepalives.
///
/// # Errors
///
/// What `setsockopt` said: `ENOPROTOOPT` for a socket that is not UDP.
pub fn esp_in_udp(socket: impl AsFd) -> io::Result<()> {
    set(
        socket.as_fd(),
        libc::IPPROTO_UDP,
        UDP_ENCAP,
        &UDP_ENCAP_ESPINUDP,
    )
}

/// Lets the kernel take this many packets at a kick in copy mode, from 32 to
/// the size of the transmit ring. Since Linux 6.17.
pub(crate) fn set_tx_budget(fd: BorrowedFd<'_>, packets: u32) -> io::Result<()> {
    set(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &packets)
}

/// Makes system calls on the socket run the device's receive path, at most `us`
/// microseconds and `budget` packets at a time, and its interrupts stand back
/// where the device is set up for it.
pub(crate) fn prefer_busy_poll(fd: BorrowedFd<'_>, us: u32, budget: u16) -> io::Result<()> {
    let us = libc::c_int::try_from(us).unwrap_or(libc::c_int::MAX);
    set(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, &1)?;
    set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &us)?;
    let budget = libc::c_int::from(budget);
    set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, &budget)
}

/// A value that the socket options here take.
trait Plain {}
impl Plain for libc::c_int {}
impl Plain for u32 {}
impl Plain for libc::packet_mreq {}

fn set<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `value`; the kernel only
    // reads.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    result(rc)
}

fn result(rc: libc::c_int) -> io::Result<()> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
