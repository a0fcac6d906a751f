//! What goes over the control socket: HTTP and JSON, the bodies as types.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/sa` | [`AddRequest`] | [`AddReply`] |
//! | `GET /v1/sa`, `?from=N&limit=M` | | array of [`SaStatus`], of M sets from number N on |
//! | `DELETE /v1/sa?set=N`, `?set=N&to=M` or `?spi=S&dst=A` | | [`RemoveReply`] |
//! | `POST /v1/sa/{set}/activate`, `…/retire` | | [`StateReply`] |
//! | `GET /v1/stats` | | [`Stats`] |
//! | `GET /v1/health` | | [`Health`] |
//! | `POST /v1/capture` | [`CaptureRequest`] | [`CaptureReply`] |
//! | `DELETE /v1/capture` | | [`CaptureReply`] |
//! | `GET /v1/events` | | one [`FlowEvent`] per line, until the client goes |
//!
//! Dropped packets and workers are in [`crate::drops`].
//!
//! A request that fails is answered with a status of 4xx or 5xx and an
//! [`ErrorBody`]. Keys travel in one direction only, in [`AddRequest`]; no
//! answer carries any.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::sad::{Dir, SaRow};

/// Where the control socket is unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/gmesp/control.sock";

/// Largest request body in bytes: some ten thousand SA sets.
pub const MAX_BODY: usize = 32 << 20;

/// The paths of the interface, version 1.
pub mod path {
    /// SAs: add (`POST`), list (`GET`), remove (`DELETE`).
    pub const SA: &str = "/v1/sa";
    /// Counters (`GET`).
    pub const STATS: &str = "/v1/stats";
    /// Is the daemon well (`GET`).
    pub const HEALTH: &str = "/v1/health";
    /// Wire capture: start (`POST`), stop (`DELETE`).
    pub const CAPTURE: &str = "/v1/capture";
    /// Stream of flow events (`GET`).
    pub const EVENTS: &str = "/v1/events";
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ApiError,
}

/// What went wrong, for programs (`code`) and for people (the rest). `unsupported`:
/// the data plane that runs has nothing of the kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApiError {
    /// Stable word in kebab case, such as `bad-sad`, `not-found`, `exists`.
    pub code: String,
    /// What was wrong. Never a secret.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// An error without a hint.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        ApiError {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// The same error with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {}

/// Install SAs. All of the file or nothing; each set goes live at once.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// The text of a SAD.toml, with keys.
    pub sad: String,
    /// What messages call the text, usually the name of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl fmt::Debug for AddRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddRequest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What [`AddRequest`] made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AddReply {
    /// The sets, in the order of the file.
    pub sets: Vec<AddedSet>,
    /// What is legal but unlikely to be meant, for people.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One set of SAs that is live now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AddedSet {
    /// Number of the set: the file's `set`, or one that was chosen.
    pub set: u64,
    /// Its SAs, in the order of the file.
    pub sas: Vec<SaName>,
}

/// What names an SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SaName {
    /// SPI as a number.
    pub spi: u32,
    /// Destination of the ESP packets; for UDP-enc-tun the outer one.
    pub dst: IpAddr,
    /// Which way its packets go.
    pub dir: Dir,
}

/// One SA as the daemon holds it: SAD.toml's keys without the secrets, and
/// what has happened on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SaStatus {
    /// SAD.toml's keys; `set` and `dir` are always there. `seq` is the last
    /// sequence number that was sent, 0 for an inbound SA. Encapsulation
    /// ports are the ones learned, absent until then.
    #[serde(flatten)]
    pub sa: SaRow,
    /// `installing`, `live`, `standby`, `retiring`, `removing`, or `gone`: with the
    /// data plane `kernel`, where somebody else has removed it.
    pub state: String,
    /// The highest sequence number accepted, 0 for an outbound SA.
    pub top: u64,
    /// Packets opened and delivered, or sealed and sent.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Packets dropped on this SA, by reason; reasons with none are left out.
    pub drops: BTreeMap<String, u64>,
    /// Milliseconds since its last packet; absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Milliseconds since its set was installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RemoveReply {
    /// Numbers of the sets that are gone. An SA goes with its whole set
    /// (all four or none).
    pub sets: Vec<u64>,
    /// How many SAs that were.
    pub sas: usize,
}

/// Where a set stands after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StateReply {
    /// Number of the set.
    pub set: u64,
    /// `active` or `retired`.
    pub state: String,
}

/// Counters since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stats {
    /// Packets by reason. With the data plane `xdp` every reason is there, zero or
    /// not; with `kernel` those that the kernel counts.
    pub reasons: BTreeMap<String, u64>,
    /// SIP messages that were refused, by reason in kebab case; reasons with none
    /// are left out.
    #[serde(default)]
    pub refusals: BTreeMap<String, u64>,
    /// One entry per worker thread.
    pub workers: Vec<WorkerRow>,
}

/// Counters of one worker thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WorkerRow {
    /// Number of the worker, from 0.
    pub worker: u32,
    /// CPU that it is pinned to; null: none.
    pub cpu: Option<usize>,
    /// Batches that it took from its rings.
    pub batches: u64,
    /// Packets in them.
    pub packets: u64,
    /// Frames of its memory.
    pub frames: u64,
    /// Frames of it that are free.
    pub frames_free: u64,
    /// Frames that got lost; not 0 is a bug.
    pub frames_leaked: u64,
    /// Packets that wire captures had to leave out.
    pub tap_missed: u64,
    /// What it did with packets, by reason; reasons with none are left out.
    pub reasons: BTreeMap<String, u64>,
    /// Its AF_XDP sockets.
    pub sockets: Vec<SocketRow>,
    /// Queues of the uplink that it serves.
    #[serde(default)]
    pub lanes: Vec<u32>,
    /// Packets that it has received and handed to the worker of their SA.
    #[serde(default)]
    pub handed_out: u64,
    /// Packets that others have handed to it.
    #[serde(default)]
    pub handed_in: u64,
    /// Packets that have waited until another worker had let go of their SA.
    #[serde(default)]
    pub parked: u64,
    /// How often it was started again after a failure.
    #[serde(default)]
    pub restarts: u64,
}

/// What the kernel counts at one AF_XDP socket. Packets that are lost there
/// are lost in silence otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SocketRow {
    /// Name of the interface.
    pub interface: String,
    /// Its queue.
    pub queue: u32,
    /// Packets dropped for other reasons than a full ring.
    pub rx_dropped: u64,
    /// Packets dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times that there was no empty frame.
    pub fill_ring_empty: u64,
    /// Descriptors on the way out that the kernel refused.
    pub tx_invalid: u64,
}

/// Is the daemon well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Health {
    /// `ok`, or `stopping` while it shuts down.
    pub status: String,
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// What carries the packets: `xdp`, or `kernel` (XFRM).
    #[serde(default = "xdp")]
    pub data_plane: String,
    /// What computes the ciphers and MACs: `avx512`, `avx2`, `portable`, or `kernel`
    /// where that data plane does. Empty from a daemon that does not say.
    #[serde(default)]
    pub engine: String,
    /// What this data plane lacks of what `xdp` has, for people; empty with `xdp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// Names of the uplinks.
    pub uplinks: Vec<String>,
    /// Addresses of the Gm link.
    pub addresses: Vec<IpAddr>,
    /// Number of SAs.
    pub sas: usize,
    /// Upper bound of that.
    pub max_sas: u32,
    /// The SIP edge runs.
    pub edge: bool,
    /// Registrations of the edge that are live.
    pub registrations: usize,
    /// File of the wire capture that runs.
    pub capture: Option<String>,
}

fn xdp() -> String {
    "xdp".to_owned()
}

/// Start a wire capture: what crosses the uplink, still sealed. Only root and the
/// daemon's own user may: others get the error `forbidden`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// Absolute path of the pcapng file; it must not exist yet.
    pub file: String,
    /// Stop after this many bytes of file; absent: 1 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// A wire capture that began or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CaptureReply {
    /// Its file.
    pub file: String,
    /// Packets written so far.
    pub packets: u64,
    /// Bytes of file written so far.
    pub bytes: u64,
    /// Packets that were not written, because the disk was too slow or the
    /// file had reached its bound.
    pub missed: u64,
}

/// One step of a registration, as it happens; also what the data plane has to
/// say. No keys, no SIP bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FlowEvent {
    /// Milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// `SM1`, `SM6`, `SM7`, `SM12` (TS 33.203 6.1, 7.2), or a word in kebab
    /// case such as `refused`, `expired`, `encap-port`.
    pub step: String,
    /// Private identity of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impi: Option<String>,
    /// Address and port of the phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ue: Option<String>,
    /// `alg/ealg` by Annex H's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// `trans` or `udp-enc-tun`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Number of the set of SAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<u64>,
    /// SPIs by their names in clause 7.1: `uc`, `us`, `pc`, `ps`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spis: BTreeMap<String, u32>,
    /// Status of the SIP answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why, when something was refused or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What that means and which setting matters, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_form_of_a_request_has_no_keys() {
        let request = AddRequest {
            sad: "ik = \"00112233445566778899aabbccddeeff\"".into(),
            name: Some("a.toml".into()),
        };
        let shown = format!("{request:?}");
        assert!(shown.contains("a.toml"), "{shown}");
        assert!(!shown.contains("0011"), "{shown}");
    }

    #[test]
    fn a_request_with_an_unknown_key_is_refused() {
        let refused = serde_json::from_str::<AddRequest>(r#"{"sad":"","sda":""}"#);
        assert!(refused.unwrap_err().to_string().contains("sda"));
    }
}
