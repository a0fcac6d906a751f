//! Packets of one interface with their link header, without AF_XDP: AF_PACKET.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::nic;
use crate::sockopt;

/// A raw packet socket on one interface: sends and receives whole Ethernet
/// frames of all protocols, does not see what the host itself sends, never
/// blocks.
///
/// Receives in promiscuous mode. A VLAN tag that the device has taken off is
/// not put back.
#[derive(Debug)]
pub struct LinkSocket {
    fd: OwnedFd,
}

impl LinkSocket {
    /// Opens a socket on the interface of this name in the calling thread's
    /// network namespace.
    ///
    /// # Errors
    ///
    /// `ENODEV` no such interface, `EPERM` needs CAP_NET_RAW.
    pub fn bind(ifname: &str) -> io::Result<LinkSocket> {
        let index = nic::index(ifname)?;
        // Protocol 0: nothing arrives, from any interface, before the bind.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        sockopt::ignore_outgoing(&fd)?;
        sockopt::promiscuous(&fd, index)?;
        sockopt::bind_link(&fd, index)?;
        Ok(LinkSocket { fd })
    }

    /// Receives one frame, its length. One that is longer than `buf` is cut.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when none is there, `ENETDOWN` once when the interface goes
    /// down.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let (len, _) = net::recv(&self.fd, buf, RecvFlags::empty())?;
        Ok(len)
    }

    /// Sends one frame, Ethernet header included.
    ///
    /// # Errors
    ///
    /// `WouldBlock` or `ENOBUFS` when the device's queue is full, `EMSGSIZE`
    /// above its MTU, `ENETDOWN` when it is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        net::send(&self.fd, frame, SendFlags::empty())?;
        Ok(())
    }

    /// Asks for a receive buffer of this many bytes, beyond the system's limit
    /// where the process may (CAP_NET_ADMIN).
    ///
    /// # Errors
    ///
    /// What `setsockopt` said.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        net::sockopt::set_socket_recv_buffer_size_force(&self.fd, bytes)
            .or_else(|_| net::sockopt::set_socket_recv_buffer_size(&self.fd, bytes))?;
        Ok(())
    }
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
