//! SAs of another P-CSCF in the kernel are taken over, and given back.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/kernel/adopt` | [`TransferRequest`] | [`TransferReply`] |
//! | `POST /v1/kernel/give-back` | [`TransferRequest`] | [`TransferReply`] |
//!
//! Sets move a few at a time, each group all or nothing. When one cannot, the
//! request ends with an error; what has moved before stays moved.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::sad::Dir;

/// The paths, version 1.
pub mod path {
    /// Take SAs over from the kernel (`POST`).
    pub const ADOPT: &str = "/v1/kernel/adopt";
    /// Give them back (`POST`).
    pub const GIVE_BACK: &str = "/v1/kernel/give-back";
}

/// Which sets are to move. Without `phones` and `spis`: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// Change nothing, and say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Only the sets of these phones, by their addresses as SIP sees them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phones: Vec<IpAddr>,
    /// Only the sets that have an SA with one of these SPIs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spis: Vec<u32>,
    /// At most this many sets; the others are counted in
    /// [`TransferReply::remaining`]. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// What has moved, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TransferReply {
    /// The sets.
    pub sets: Vec<TransferSet>,
    /// Sets that were asked for and are over the limit.
    pub remaining: usize,
    /// SAs that cannot move, and why.
    pub left_out: Vec<LeftOut>,
    /// What is worth knowing, for people.
    pub warnings: Vec<String>,
}

/// A set that has moved, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TransferSet {
    /// Its number in gmespd; absent: it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<u64>,
    /// The phone's address inside.
    pub phone: IpAddr,
    /// `alg/ealg` by Annex H's names.
    pub suite: String,
    /// `trans` or `udp-enc-tun`.
    pub mode: String,
    /// Its SAs.
    pub sas: Vec<TransferSa>,
}

/// An SA of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TransferSa {
    /// SPI as a number.
    pub spi: u32,
    /// Destination of the ESP packets.
    pub dst: IpAddr,
    /// Which way its packets go.
    pub dir: Dir,
    /// The last sequence number sent, or the highest accepted, when it moved.
    pub last: u64,
}

/// An SA that cannot move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftOut {
    /// SPI as a number.
    pub spi: u32,
    /// Destination of the ESP packets.
    pub dst: IpAddr,
    /// Why.
    pub why: String,
}
