//! What can go wrong, said so that a person knows what to do about it.

use std::io;
use std::path::PathBuf;

/// Why the data plane did not start, or did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot work.
    #[error("configuration: {0}")]
    Config(String),
    /// A right is missing.
    #[error(
        "{what} was refused: run as root, or give the process CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF ({source})"
    )]
    NotPermitted {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel lacks something.
    #[error(
        "{what}: this kernel lacks it; 6.1 or later with CONFIG_BPF_SYSCALL, CONFIG_XDP_SOCKETS and CONFIG_NET_CLS_BPF is needed ({detail})"
    )]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel said.
        detail: String,
    },
    /// An interface is not there.
    #[error("interface {0} does not exist in this network namespace (see `ip link`)")]
    NoInterface(String),
    /// The device names belong to somebody else.
    #[error(
        "interface {0} exists and was not made by gmesp: remove it or configure another name for gm0"
    )]
    DeviceTaken(String),
    /// Another instance is alive.
    #[error("{0} is in use by another live gmesp: stop that one first, or configure another")]
    Locked(String),
    /// Another XDP program sits on the uplink.
    #[error(
        "another XDP program is attached to {interface}: see `ip -d link show dev {interface}`, take it off \
         (`ip link set dev {interface} xdp off`) or remove the pin that holds it, and start again"
    )]
    XdpBusy {
        /// The interface.
        interface: String,
    },
    /// The driver cannot do XDP.
    #[error(
        "the driver of {interface} does not take an XDP program: gmesp needs XDP in driver mode, and an MTU that \
         the driver allows with XDP; for a VLAN device the uplink is the interface below it ({detail})"
    )]
    XdpUnsupported {
        /// The interface.
        interface: String,
        /// What the kernel said.
        detail: String,
    },
    /// BPF: the object, a map or an attachment.
    #[error("{what}: {detail}")]
    Bpf {
        /// What was tried.
        what: String,
        /// What the kernel or the loader said.
        detail: String,
    },
    /// The pin directory.
    #[error("pin directory {path}: {detail}")]
    Pin {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Netlink refused.
    #[error("{what}: {detail}")]
    Netlink {
        /// What was tried.
        what: String,
        /// What the kernel said.
        detail: String,
    },
    /// Another operating system call.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The SA database refused.
    #[error(transparent)]
    Sadb(#[from] gm_sadb::SadbError),
    /// No slot is free.
    #[error("all {0} SA slots are taken: raise max_sas")]
    Full(u32),
    /// Too many follow the samples of dropped packets.
    #[error("the samples of dropped packets have {0} followers already: end one")]
    Followers(usize),
    /// A worker is gone; the events tell why.
    #[error("the worker does not answer: it has stopped, see the events and the log")]
    WorkerGone,
    /// SAs are changing hands.
    #[error(
        "SAs are on their way to or from the kernel, or this transfer has ended: wait a moment and try again"
    )]
    Transfer,
    /// The data plane was shut down.
    #[error("the data plane is shut down")]
    Down,
}

impl Error {
    /// Sorts an error of the operating system: lacking rights are said plainly.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Error {
        let what = what.into();
        match source.raw_os_error() {
            Some(nix::libc::EPERM | nix::libc::EACCES) => Error::NotPermitted { what, source },
            _ => Error::Io { what, source },
        }
    }
}
