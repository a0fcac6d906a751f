//! One instance per set of devices and per pin directory.
//!
//! The lock on the device names is an abstract Unix socket: its name space is
//! that of the network namespace, as the devices' is, and it goes with the
//! process however that ends. The lock on the pin directory is an `flock`.

use std::fs::File;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::{Config, Error};

/// Held as long as this instance lives.
pub(crate) struct InstanceLock {
    _names: Vec<UnixDatagram>,
    _pins: Option<Flock<File>>,
}

impl InstanceLock {
    /// Takes the names of gm0 and of the uplink in the caller's network
    /// namespace. [`Error::Locked`] when a live instance has one of them.
    pub(crate) fn take(cfg: &Config) -> Result<InstanceLock, Error> {
        let mut names = Vec::new();
        for name in [&cfg.gm0, &cfg.uplink] {
            let what = || format!("lock on interface {name}");
            let addr = SocketAddr::from_abstract_name(format!("gmesp/{name}"))
                .map_err(|e| Error::io(what(), e))?;
            let socket = UnixDatagram::bind_addr(&addr).map_err(|e| match e.kind() {
                ErrorKind::AddrInUse => Error::Locked(format!("interface {name}")),
                _ => Error::io(what(), e),
            })?;
            names.push(socket);
        }
        Ok(InstanceLock {
            _names: names,
            _pins: None,
        })
    }

    /// Takes the pin directory too.
    pub(crate) fn take_pins(&mut self, dir: &Path) -> Result<(), Error> {
        let file = File::open(dir).map_err(|e| Error::io(format!("open {}", dir.display()), e))?;
        let held = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, _)| Error::Locked(format!("pin directory {}", dir.display())))?;
        self._pins = Some(held);
        Ok(())
    }
}
