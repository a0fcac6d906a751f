//! The SIP application: an ordinary UDP socket on port_ps, and a reader that
//! takes many datagrams at a time and looks at none.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use gm_tests::netns::NetNs;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};

use crate::PORT_PS;
use crate::world::OURS;

/// Datagrams that one system call takes.
const MANY: usize = 64;
/// Bytes of each that are read.
const HEAD: usize = 64;
/// Bytes that the socket may keep.
const BUFFER: usize = 64 << 20;

/// The socket.
pub struct Sink {
    socket: UdpSocket,
    headers: MultiHeaders<()>,
    buffers: Vec<[u8; HEAD]>,
}

impl Sink {
    /// Listens in a namespace.
    ///
    /// # Errors
    /// What the socket says.
    pub fn bind(ns: &NetNs) -> Result<Sink> {
        let socket = ns
            .run(|| UdpSocket::bind((OURS, PORT_PS)))
            .context("listen on port_ps")?;
        socket.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
        Ok(Sink {
            socket,
            headers: MultiHeaders::preallocate(MANY, None),
            buffers: vec![[0; HEAD]; MANY],
        })
    }

    /// Takes what has come, at most [`MANY`]; how many.
    ///
    /// # Errors
    /// What the socket says.
    pub fn take(&mut self) -> Result<usize> {
        let Sink {
            socket,
            headers,
            buffers,
        } = self;
        let mut slices: Vec<_> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmmsg(socket.as_raw_fd(), headers, slices.iter_mut(), flags, None) {
            Ok(came) => Ok(came.count()),
            Err(Errno::EAGAIN) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }
}
