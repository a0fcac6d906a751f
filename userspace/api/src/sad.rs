//! SAD.toml: security associations written by hand, for the offline tools and
//! for `gmespctl sa add`.
//!
//! The file is an array of `[[sa]]` tables. [`Sad::parse`] checks every rule
//! that can be checked without a running daemon and names file, table
//! (counted from 1) and key of the first one that is broken. Values are never
//! repeated in an error: any of them may be a key in the wrong place.

mod fields;
mod row;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use gm_esp::keys::{Ck, EspKeys, Ik};
use gm_esp::suite::{Legacy, Suite};
use gm_esp::{Mode, Outer, SaSpec, SelProto, Selector};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use fields::Fields;
pub use row::{SaRow, mode_name};

/// The replay window of an SA that names none, in packets.
pub const DEFAULT_REPLAY_WINDOW: u32 = 64;

/// The smallest and the largest replay window, in packets.
pub const REPLAY_WINDOWS: std::ops::RangeInclusive<u32> = 32..=4096;

/// All keys of an `[[sa]]` table.
pub const KEYS: &[&str] = &[
    "spi",
    "mode",
    "src",
    "dst",
    "src_port",
    "dst_port",
    "proto",
    "alg",
    "ealg",
    "ik",
    "ck",
    "integrity_key",
    "encryption_key",
    "salt",
    "outer_src",
    "outer_dst",
    "encap_sport",
    "encap_dport",
    "set",
    "dir",
    "seq",
    "replay_window",
    "esn",
];

/// Keys that only an SA in udp-enc-tun mode has.
const TUNNEL_KEYS: [&str; 4] = ["outer_src", "outer_dst", "encap_sport", "encap_dport"];

/// Which way an SA's packets go, seen from the host that installs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Dir {
    /// The host receives on this SA.
    In,
    /// The host sends on this SA.
    Out,
}

/// One `[[sa]]` table, checked.
#[derive(Clone)]
pub struct SadEntry {
    /// The table's number in the file, from 1.
    pub table: usize,
    /// What the SA protects and how. `replay_window` is the table's or
    /// [`DEFAULT_REPLAY_WINDOW`].
    pub spec: SaSpec,
    /// The ESP keys, expanded (TS 33.203 Annex I) or as given.
    pub keys: EspKeys,
    /// The set that the SA belongs to; the four of one registration share it.
    pub set: Option<u64>,
    /// The direction, for a live daemon.
    pub dir: Option<Dir>,
    /// The first sequence number to send, from 1.
    pub seq: Option<u64>,
    /// The replay window if the table names one.
    pub replay_window: Option<u32>,
}

impl SadEntry {
    /// The address that together with the SPI names the SA at its receiver:
    /// the destination of the packet on the wire, so the outer one of a tunnel.
    pub fn destination(&self) -> IpAddr {
        match &self.spec.outer {
            Some(outer) => outer.dst,
            None => self.spec.selector.dst,
        }
    }

    /// The table without its secrets.
    pub fn row(&self) -> SaRow {
        let mut row = SaRow::from_spec(&self.spec);
        row.set = self.set;
        row.dir = self.dir;
        row.seq = self.seq;
        row
    }
}

/// The SAs of one file, in file order.
#[derive(Clone)]
pub struct Sad {
    /// What the file is called in errors.
    pub name: String,
    /// The SAs.
    pub entries: Vec<SadEntry>,
}

/// Why a SAD.toml cannot be used.
#[derive(Debug, Error)]
pub enum SadError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{file}: line {line}: {what}")]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// A key outside of the `[[sa]]` tables.
    #[error("{file}: unknown key {key}; a SAD file holds [[sa]] tables only")]
    Top {
        /// The file.
        file: String,
        /// The key.
        key: String,
    },
    /// A table breaks a rule.
    #[error("{file}: [[sa]] #{table}: {key}: {what}")]
    Key {
        /// The file.
        file: String,
        /// The table, from 1.
        table: usize,
        /// The key.
        key: String,
        /// What is wrong with it and what would be right.
        what: String,
    },
}

impl SadError {
    /// Whether the file could not be read at all, as opposed to what is in it.
    pub fn is_read(&self) -> bool {
        matches!(self, SadError::Read { .. })
    }
}

impl Sad {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Sad, SadError> {
        let file = path.display().to_string();
        let bytes = match std::fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(source) => return Err(SadError::Read { file, source }),
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Sad::parse(&file, text),
            Err(e) => {
                let good = &bytes[..e.valid_up_to()];
                let line = 1 + good.iter().filter(|b| **b == b'\n').count();
                let what = "not UTF-8 text".to_string();
                Err(SadError::Syntax { file, line, what })
            }
        }
    }

    /// Checks a file's text; `name` is what errors call it.
    pub fn parse(name: &str, text: &str) -> Result<Sad, SadError> {
        let mut entries: Vec<SadEntry> = Vec::new();
        let mut seen: HashMap<(IpAddr, u32), usize> = HashMap::new();
        for mut fields in fields::tables(name, text)? {
            let entry = entry(&mut fields)?;
            let id = (entry.destination(), entry.spec.spi);
            if let Some(first) = seen.insert(id, entry.table) {
                return Err(fields.error(
                    "spi",
                    format!(
                        "[[sa]] #{first} has this destination and SPI already; \
                         a receiver could not tell them apart"
                    ),
                ));
            }
            entries.push(entry);
        }
        Ok(Sad {
            name: name.to_string(),
            entries,
        })
    }
}

fn entry(fields: &mut Fields<'_>) -> Result<SadEntry, SadError> {
    let spi = fields.integer("spi", 256, i64::from(u32::MAX))?;
    let spi = fields.required("spi", spi)? as u32;
    let mode = mode(fields)?;
    let selector = selector(fields)?;
    let outer = outer(fields, mode)?;
    let suite = suite(fields)?;
    let keys = keys(fields, suite)?;
    let set = fields.integer("set", 0, i64::MAX)?.map(|n| n as u64);
    let dir = match fields.text("dir")?.as_deref().map(String::as_str) {
        None => None,
        Some("in") => Some(Dir::In),
        Some("out") => Some(Dir::Out),
        Some(_) => return Err(fields.error("dir", "must be \"in\" or \"out\"")),
    };
    let esn = fields.boolean("esn")?.unwrap_or(false);
    let last = if esn { i64::MAX } else { i64::from(u32::MAX) };
    let seq = fields.integer("seq", 1, last)?.map(|n| n as u64);
    let (low, high) = (*REPLAY_WINDOWS.start(), *REPLAY_WINDOWS.end());
    let replay_window = fields
        .integer("replay_window", low.into(), high.into())?
        .map(|n| n as u32);
    Ok(SadEntry {
        table: fields.table,
        spec: SaSpec {
            spi,
            mode,
            selector,
            suite,
            outer,
            esn,
            replay_window: replay_window.unwrap_or(DEFAULT_REPLAY_WINDOW),
        },
        keys,
        set,
        dir,
        seq,
        replay_window,
    })
}

fn mode(fields: &mut Fields<'_>) -> Result<Mode, SadError> {
    let text = fields.text("mode")?;
    match fields.required("mode", text)?.as_str() {
        "trans" => Ok(Mode::Trans),
        "udp-enc-tun" => Ok(Mode::UdpEncTun),
        _ => Err(fields.error("mode", "must be \"trans\" or \"udp-enc-tun\"")),
    }
}

fn selector(fields: &mut Fields<'_>) -> Result<Selector, SadError> {
    let (src, dst) = fields.addresses("src", "dst")?;
    let src_port = fields.port("src_port")?;
    let dst_port = fields.port("dst_port")?;
    let proto = match fields.text("proto")?.as_deref().map(String::as_str) {
        None | Some("udp-tcp") => SelProto::UdpTcp,
        Some("any") => SelProto::Any,
        Some(_) => return Err(fields.error("proto", "must be \"udp-tcp\" or \"any\"")),
    };
    Ok(Selector {
        src,
        dst,
        src_port,
        dst_port,
        proto,
    })
}

fn outer(fields: &mut Fields<'_>, mode: Mode) -> Result<Option<Outer>, SadError> {
    if mode == Mode::Trans {
        if let Some(key) = TUNNEL_KEYS.into_iter().find(|key| fields.has(key)) {
            return Err(fields.error(key, "only an SA with mode = \"udp-enc-tun\" has this key"));
        }
        return Ok(None);
    }
    let (src, dst) = fields.addresses("outer_src", "outer_dst")?;
    let sport = fields.port("encap_sport")?;
    let dport = fields.port("encap_dport")?;
    if sport.is_none() && dport.is_none() {
        let what = "missing; only one of encap_sport and encap_dport, the UE's, may be left out";
        return Err(fields.error("encap_sport", what));
    }
    Ok(Some(Outer {
        src,
        dst,
        sport,
        dport,
    }))
}

/// Every suite there is, the legacy ones too: this file is not what a stranger
/// offers but what its author wants, and what reads it may warn.
fn suite(fields: &mut Fields<'_>) -> Result<Suite, SadError> {
    let alg = fields.text("alg")?;
    let alg = fields.required("alg", alg)?;
    let ealg = fields.text("ealg")?;
    let ealg = fields.required("ealg", ealg)?;
    if !Suite::every().any(|s| s.alg() == alg.as_str()) {
        let what = "must be \"hmac-sha-1-96\", \"aes-gmac\" or \"null\" (TS 33.203 Annex H), \
                    or \"hmac-md5-96\" of older releases";
        return Err(fields.error("alg", what));
    }
    if !Suite::every().any(|s| s.ealg() == ealg.as_str()) {
        let what = "must be \"null\", \"aes-cbc\" or \"aes-gcm\" (TS 33.203 Annex H), or \
                    \"des-ede3-cbc\" of older releases";
        return Err(fields.error("ealg", what));
    }
    Suite::from_names_with(&alg, &ealg, Legacy::Allow).map_err(|_| {
        let pairs: Vec<String> = Suite::every()
            .map(|s| format!("{} with {}", s.alg(), s.ealg()))
            .collect();
        let what = format!(
            "{} does not go with alg {}; the pairs are {}",
            *ealg,
            *alg,
            pairs.join(", ")
        );
        fields.error("ealg", what)
    })
}

/// Either `ik` and `ck`, or the explicit keys that the suite needs.
fn keys(fields: &mut Fields<'_>, suite: Suite) -> Result<EspKeys, SadError> {
    let explicit = ["integrity_key", "encryption_key", "salt"]
        .into_iter()
        .find(|key| fields.has(key));
    if fields.has("ik") || fields.has("ck") {
        if let Some(key) = explicit {
            let what = "give either ik and ck, or explicit keys, not both";
            return Err(fields.error(key, what));
        }
        let ik = fields.key("ik", 16)?;
        let ck = fields.key("ck", 16)?;
        return Ok(EspKeys::expand(
            suite,
            &Ik::from_bytes(sized(&ik)),
            &Ck::from_bytes(sized(&ck)),
        ));
    }
    if explicit.is_none() {
        return Err(fields.error("ik", "missing; give ik and ck, or explicit keys"));
    }
    let transform = suite.transform();
    let some = |len: usize| (len != 0).then_some(len);
    let salt = transform.has_salt().then_some(4);
    let integrity = some(transform.integrity_key_len());
    let encryption = some(transform.encryption_key_len());
    let integrity = fields.key_if("integrity_key", integrity, suite)?;
    let encryption = fields.key_if("encryption_key", encryption, suite)?;
    let salt = fields.key_if("salt", salt, suite)?;
    EspKeys::explicit(
        suite,
        integrity.as_deref().map(Vec::as_slice),
        encryption.as_deref().map(Vec::as_slice),
        salt.as_deref().map(Vec::as_slice),
    )
    .map_err(|e| fields.error("integrity_key", e.to_string()))
}

/// The first N bytes; the length has been checked.
fn sized<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().zip(bytes) {
        *to = *from;
    }
    array
}
