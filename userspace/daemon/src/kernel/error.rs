//! What goes wrong, and what to do about it.

use std::io;
use std::net::IpAddr;

use gm_api::control::ApiError;
use gm_dataplane::SadbError;
use gm_xfrm::kernel::XfrmError;
use gm_xfrm::kernel::sets::SetError;

/// Why the kernel's data plane did not do it. No secret is in it.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// nft is not there.
    #[error("there is no program nft, which makes the guard: install the package nftables")]
    NoNft,
    /// nft does not run.
    #[error("nft does not run: {0}")]
    Nft(io::Error),
    /// nft has run and failed.
    #[error(
        "nft: {0} (the guard needs CONFIG_NF_TABLES, modules nf_tables and nft_ct or newer \
         kernels' own, and CAP_NET_ADMIN)"
    )]
    NftRefused(String),
    /// A socket for ESP in UDP.
    #[error(
        "UDP {address} port {port} cannot be had for ESP in UDP: {error}; is the address on this \
         host, and has no IKE daemon the port?"
    )]
    Encap {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// What the system said.
        error: io::Error,
    },
    /// There is another instance.
    #[error(
        "another gmespd with data_plane = \"kernel\" runs in this network namespace; stop it first"
    )]
    Locked,
    /// The kernel's tables.
    #[error(transparent)]
    Xfrm(#[from] XfrmError),
    /// A set.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The database refused.
    #[error(transparent)]
    Sadb(#[from] SadbError),
    /// Something else.
    #[error("cannot {0}: {1}")]
    Io(&'static str, io::Error),
    /// It was shut down.
    #[error("the data plane is down")]
    Down,
}

impl From<KernelError> for ApiError {
    fn from(error: KernelError) -> ApiError {
        let code = match &error {
            // One place decides what a refusal of the database is called.
            KernelError::Sadb(refusal) => {
                return crate::live::error(refusal.clone().into());
            }
            KernelError::Set(_) => "refused",
            KernelError::Xfrm(error) if error.is_exists() => "exists",
            KernelError::Xfrm(error) if error.is_unsupported() => "unsupported",
            KernelError::Down => "stopped",
            _ => "internal",
        };
        ApiError::new(code, error.to_string())
    }
}
