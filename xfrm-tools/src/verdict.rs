//! The lines of a report: one per input packet.

use std::fmt;

use gm_abi::verdict::Reason;
use serde::{Deserialize, Serialize};

/// What became of a packet, in the order in which it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A fragment that is not the last one to come in of its datagram.
    Fragment,
    /// Neither ESP nor UDP-encapsulated ESP; keepalives and IKE are such too.
    NotEsp,
    /// Lengths contradict each other, or what was opened is no packet.
    Malformed,
    /// No SA for this destination and SPI.
    UnknownSpi,
    /// Raw ESP on a udp-enc-tun SA, or the other way round.
    ModeMismatch,
    /// Sequence number 0, or one that was seen before.
    Replay,
    /// Left of the replay window.
    Stale,
    /// The ICV does not verify.
    BadIcv,
    /// Next header 59.
    Dummy,
    /// Opened, but not what the SA protects (RFC 4301 5.2).
    SelectorMismatch,
    /// Opened.
    Ok,
}

impl Verdict {
    /// All verdicts in the order in which they are decided.
    pub const ALL: [Verdict; 11] = [
        Verdict::Fragment,
        Verdict::NotEsp,
        Verdict::Malformed,
        Verdict::UnknownSpi,
        Verdict::ModeMismatch,
        Verdict::Replay,
        Verdict::Stale,
        Verdict::BadIcv,
        Verdict::Dummy,
        Verdict::SelectorMismatch,
        Verdict::Ok,
    ];

    /// The verdict of an offline tool for a reason of the data path, which
    /// tells some things apart that a report does not.
    pub fn from_reason(reason: Reason) -> Verdict {
        match reason {
            Reason::Ok => Verdict::Ok,
            Reason::UnknownSpi => Verdict::UnknownSpi,
            Reason::ModeMismatch => Verdict::ModeMismatch,
            Reason::Replay => Verdict::Replay,
            Reason::Stale => Verdict::Stale,
            Reason::BadIcv => Verdict::BadIcv,
            Reason::Dummy => Verdict::Dummy,
            Reason::SelectorMismatch => Verdict::SelectorMismatch,
            Reason::NotEsp
            | Reason::Keepalive
            | Reason::PassNonEspMarker
            | Reason::PassOther
            | Reason::ClearReassembled => Verdict::NotEsp,
            // Never whole, as at the end of the file.
            Reason::Fragment
            | Reason::SteerFragment
            | Reason::FragmentLimit
            | Reason::FragmentTimeout => Verdict::Fragment,
            // Malformed itself, overlapping fragments, and reasons that only
            // a live data path gives.
            _ => Verdict::Malformed,
        }
    }

    /// The word in the report.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Fragment => "fragment",
            Verdict::NotEsp => "not-esp",
            Verdict::Malformed => "malformed",
            Verdict::UnknownSpi => "unknown-spi",
            Verdict::ModeMismatch => "mode-mismatch",
            Verdict::Replay => "replay",
            Verdict::Stale => "stale",
            Verdict::BadIcv => "bad-icv",
            Verdict::Dummy => "dummy",
            Verdict::SelectorMismatch => "selector-mismatch",
            Verdict::Ok => "ok",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of the report, in JSON with its keys in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The packet's number in the input, from 0, over all interfaces.
    pub index: u64,
    /// SPI as it stands in the packet; none where it was not read. The last
    /// fragment of a datagram has the datagram's.
    pub spi: Option<u32>,
    /// Sequence number as it stands in the packet: the low 32 bits of an
    /// extended one.
    pub seq: Option<u32>,
    /// What became of the packet.
    pub verdict: Verdict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_looks_as_documented() {
        let mut line = Line {
            index: 0,
            spi: Some(305_419_896),
            seq: Some(1),
            verdict: Verdict::Ok,
        };
        let json = |line: &Line| serde_json::to_string(line).unwrap();
        assert_eq!(
            json(&line),
            r#"{"index":0,"spi":305419896,"seq":1,"verdict":"ok"}"#
        );
        line.spi = None;
        line.seq = None;
        line.verdict = Verdict::NotEsp;
        assert_eq!(
            json(&line),
            r#"{"index":0,"spi":null,"seq":null,"verdict":"not-esp"}"#
        );
    }

    #[test]
    fn names_and_json_agree() {
        for verdict in Verdict::ALL {
            let json = serde_json::to_string(&verdict).unwrap();
            assert_eq!(json, format!("\"{verdict}\""));
        }
    }
}
