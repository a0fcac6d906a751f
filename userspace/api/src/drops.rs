//! Dropped packets over the control interface: counters, samples, and what a
//! phone's packets run into, in words.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/drops` | | [`DropReport`] |
//! | `GET /v1/drops/prefixes?limit=N` | | array of [`PrefixRow`] |
//! | `GET /v1/drops/recent?address=A&limit=N` | | array of [`DropSample`], the newest first |
//! | `GET /v1/drops/follow` | | one [`DropLine`] per line, until the client goes |
//! | `GET /v1/explain/{address}` | | [`Explanation`] |
//! | `GET /v1/workers` | | [`Workers`] |
//! | `PUT /v1/workers` | [`Workers`] | [`Workers`] |

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The paths.
pub mod path {
    /// Counters of drops by reason (`GET`).
    pub const DROPS: &str = "/v1/drops";
    /// Counters of drops by source prefix (`GET`).
    pub const PREFIXES: &str = "/v1/drops/prefixes";
    /// The last samples of dropped packets (`GET`).
    pub const RECENT: &str = "/v1/drops/recent";
    /// Stream of samples (`GET`).
    pub const FOLLOW: &str = "/v1/drops/follow";
    /// What a phone's packets run into (`GET`).
    pub const EXPLAIN: &str = "/v1/explain/{address}";
    /// Number of workers (`GET`, `PUT`).
    pub const WORKERS: &str = "/v1/workers";
}

/// Prefixes that are listed when the request names no number.
pub const PREFIXES: usize = 20;
/// Samples that are listed when the request names no number.
pub const SAMPLES: usize = 100;

/// Dropped packets since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DropReport {
    /// Reasons that have counted anything, most packets first.
    pub reasons: Vec<ReasonRow>,
}

/// One reason to drop packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReasonRow {
    /// Its word.
    pub reason: String,
    /// Packets dropped.
    pub packets: u64,
    /// Of these, how many have no sample.
    pub left_out: u64,
    /// What such a packet ran into.
    pub explain: String,
    /// What to look at.
    pub advice: String,
}

/// Dropped packets of one phone or network, since it has had its place in the
/// table: the busiest keep theirs, so this is a lower bound. The sums over all
/// are exact in [`DropReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PrefixRow {
    /// An IPv4 address, or an IPv6 prefix of 64 bits: the phone's side of the
    /// packets.
    pub prefix: String,
    /// Packets dropped.
    pub packets: u64,
    /// The same by reason; reasons with none are left out.
    pub reasons: BTreeMap<String, u64>,
}

/// One dropped packet, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DropSample {
    /// Milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// Why it was dropped.
    pub reason: String,
    /// `in`: from the network; `out`: from an application of this host.
    pub direction: String,
    /// Where: `uplink`, `guard`, `egress`, `gm0x` or `worker`.
    pub station: String,
    /// Interface, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// IP protocol: `esp`, `udp`, `tcp`, or a number.
    pub proto: String,
    /// Source address.
    pub src: IpAddr,
    /// Source port, of UDP and TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port, of UDP and TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// SPI, of ESP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spi: Option<u32>,
    /// Sequence number, of ESP; its low 32 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u32>,
    /// Length of the IP packet in bytes.
    pub length: u32,
}

/// Packets that were dropped without a sample, for all phones together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// By reason, since the last such line.
    pub left_out: BTreeMap<String, u64>,
    /// Samples that there were, and that this client was too slow for.
    pub missed: u64,
}

/// A line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum DropLine {
    /// Packets that are left out.
    LeftOut(LeftOut),
    /// One packet.
    Sample(DropSample),
}

/// What a phone's packets run into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explanation {
    /// The address asked for.
    pub address: IpAddr,
    /// `fine`: nothing is wrong; `trouble`: something is; `unknown`: nothing is
    /// known of the address.
    pub verdict: Verdict,
    /// What was found, the most probable cause first. Never empty.
    pub findings: Vec<Finding>,
}

/// The outcome of [`Explanation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Packets go through, or nothing speaks against it.
    Fine,
    /// Packets end for a reason that somebody should look at.
    Trouble,
    /// Nothing has ever been seen of the address.
    Unknown,
}

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// It explains why packets end now.
    Cause,
    /// It does so in part, or it was so some time ago.
    Hint,
    /// It is how things stand.
    State,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// Stable word in kebab case, such as `deleted-spi`, `keys-differ`.
    pub cause: String,
    /// How much it matters.
    pub weight: Weight,
    /// In words.
    pub text: String,
    /// Counters, times, SPIs and numbers that say so.
    pub evidence: Vec<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How many workers carry packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Workers {
    /// The number, at least 1.
    pub workers: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_stream_is_a_sample_or_what_was_left_out() {
        let sample = DropSample {
            time_ms: 1,
            reason: "unknown-spi".into(),
            direction: "in".into(),
            station: "uplink".into(),
            interface: None,
            proto: "esp".into(),
            src: [192, 0, 2, 7].into(),
            src_port: None,
            dst: [192, 0, 2, 1].into(),
            dst_port: None,
            spi: Some(7),
            seq: Some(8),
            length: 120,
        };
        let left_out = LeftOut {
            time_ms: 2,
            left_out: [("replay".to_owned(), 3)].into(),
            missed: 4,
        };
        for line in [DropLine::Sample(sample), DropLine::LeftOut(left_out)] {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<DropLine>(&text).unwrap(), line);
        }
    }

    #[test]
    fn the_number_of_workers_stands_alone() {
        let refused = serde_json::from_str::<Workers>(r#"{"workers":2,"cpus":[1]}"#);
        assert!(refused.unwrap_err().to_string().contains("cpus"));
    }
}
