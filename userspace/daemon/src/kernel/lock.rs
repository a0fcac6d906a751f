//! One instance per network namespace: what is marked as ours in the kernel's tables is
//! the instance's own.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::KernelError;

/// Held as long as this instance lives, however it ends: the name space of abstract
/// sockets is that of the network namespace.
#[derive(Debug)]
pub struct InstanceLock {
    _name: UnixDatagram,
}

impl InstanceLock {
    /// [`KernelError::Locked`] when there is a live one.
    pub fn take() -> Result<InstanceLock, KernelError> {
        let address = SocketAddr::from_abstract_name("gmesp/data-plane/kernel");
        let bound = address.and_then(|address| UnixDatagram::bind_addr(&address));
        match bound {
            Ok(name) => Ok(InstanceLock { _name: name }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Err(KernelError::Locked),
            Err(error) => Err(KernelError::Io("take the lock of the instance", error)),
        }
    }
}
