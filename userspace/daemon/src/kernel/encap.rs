//! UDP sockets that give ESP in UDP to the kernel (RFC 3948). Keepalives it drops
//! itself; what has the non-ESP marker waits for somebody to read it, and nobody does.

use std::net::{IpAddr, UdpSocket};

use super::KernelError;

/// Bytes of the packets that nobody reads; the kernel takes its least.
const ROOM: usize = 1;

/// One for each address. They close with their owner, and then nobody takes ESP in UDP:
/// it ends there.
pub fn open(addresses: &[IpAddr], port: u16) -> Result<Vec<UdpSocket>, KernelError> {
    let open = |address: &IpAddr| {
        let fail = |error| KernelError::Encap {
            address: *address,
            port,
            error,
        };
        let socket = UdpSocket::bind((*address, port)).map_err(fail)?;
        gm_xsk::esp_in_udp(&socket).map_err(fail)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, ROOM)
            .map_err(|error| fail(error.into()))?;
        Ok(socket)
    };
    addresses.iter().map(open).collect()
}
