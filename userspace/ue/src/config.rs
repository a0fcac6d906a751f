//! ue.toml: who the phone is and where it lives.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gm_esp::suite::{Legacy, Suite, SuiteError};
use gm_sip::ue::{Carrier, Fault};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use zeroize::{Zeroize, Zeroizing};

use crate::usim;

/// A phone's configuration.
pub struct Config {
    /// Interface that leads to the P-CSCF; its driver must know XDP.
    pub uplink: String,
    /// The phone's address on that interface.
    pub address: IpAddr,
    /// Where a first REGISTER goes, in clear.
    pub pcscf: SocketAddr,
    /// Home domain: the Request-URI of a REGISTER and the digest's realm.
    pub domain: String,
    /// Private identity (the digest's username).
    pub impi: String,
    /// Public identity, a SIP URI.
    pub impu: String,
    /// The subscriber's key.
    pub k: Zeroizing<[u8; 16]>,
    /// The operator's value, already mixed with K.
    pub opc: Zeroizing<[u8; 16]>,
    /// Suites to offer, the most wanted first.
    pub suites: Vec<Suite>,
    /// Offer UDP-enc-tun beside transport mode (Annex M).
    pub udp_enc_tun: bool,
    /// Protected client port; none: chosen at random.
    pub port_c: Option<u16>,
    /// Protected server port; none: chosen at random.
    pub port_s: Option<u16>,
    /// Asked registration time in seconds.
    pub expires: u32,
    /// How it behaves.
    pub habits: Habits,
}

/// How a phone behaves: what may be left out of ue.toml, and what the command line
/// may say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Habits {
    /// Offer transport mode.
    pub trans: bool,
    /// "udp", "tcp", or "auto": TCP for requests above `tcp_above` bytes.
    #[serde(deserialize_with = "read_carrier")]
    pub transport: Carrier,
    /// The most bytes of a request over UDP with "auto".
    pub tcp_above: usize,
    /// Seconds without a packet after which a NAT keepalive goes out; 0: none.
    pub nat_keepalive_s: u32,
    /// Seconds between pings on the TCP connection to the P-CSCF; 0: none.
    pub tcp_keepalive_s: u32,
    /// Register again before the registration ends.
    pub renew: bool,
    /// Attempts after one that failed and may succeed later.
    pub retries: u32,
    /// Milliseconds before the first of these, doubled for each further one.
    pub retry_ms: u64,
    /// What to do wrong; not in the file.
    #[serde(skip)]
    pub faults: Vec<Fault>,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits {
            trans: true,
            transport: Carrier::Udp,
            tcp_above: 1300,
            nat_keepalive_s: 20,
            tcp_keepalive_s: 0,
            renew: true,
            retries: 0,
            retry_ms: 2_000,
            faults: Vec::new(),
        }
    }
}

/// "udp", "tcp" or "auto".
///
/// # Errors
/// A sentence that says which there are.
pub fn carrier(text: &str) -> Result<Carrier, String> {
    match text {
        "udp" => Ok(Carrier::Udp),
        "tcp" => Ok(Carrier::Tcp),
        "auto" => Ok(Carrier::Auto),
        other => Err(format!("{other:?} is none of udp, tcp, auto")),
    }
}

/// A port that can be protected (TS 33.203 clause 7.1).
///
/// # Errors
/// A sentence that says which can be.
pub fn protected_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 1023 && !matches!(port, 5060 | 5061) => Ok(port),
        _ => Err("a protected port is above 1023 and not 5060 or 5061".into()),
    }
}

fn read_carrier<'de, D: Deserializer<'de>>(from: D) -> Result<Carrier, D::Error> {
    carrier(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// A suite that a phone is told to offer; legacy ones too, it is told so by name.
///
/// # Errors
/// Those of [`Suite::parse_with`].
pub fn suite(name: &str) -> Result<Suite, SuiteError> {
    Suite::parse_with(name, Legacy::Allow)
}

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: {error}")]
    Read {
        /// The file.
        file: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file holds keys and others may read it.
    #[error("{0}: others may read this file and it holds keys; run: chmod 600 {0}")]
    Mode(String),
    /// Not TOML, or a key that is unknown or missing.
    #[error("{file}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// What and where, without the line's text: it may be a key.
        message: String,
    },
    /// A value that cannot be.
    #[error("{file}: [ue] {key}: {message}")]
    Value {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ue: Raw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    uplink: String,
    address: IpAddr,
    pcscf: SocketAddr,
    domain: String,
    impi: String,
    impu: String,
    k: String,
    opc: Option<String>,
    op: Option<String>,
    suites: Option<Vec<String>>,
    #[serde(default)]
    udp_enc_tun: bool,
    port_c: Option<u16>,
    port_s: Option<u16>,
    #[serde(default = "default_expires")]
    expires: u32,
    #[serde(default)]
    habits: Habits,
}

fn default_expires() -> u32 {
    3600
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.k.zeroize();
        self.opc.zeroize();
        self.op.zeroize();
    }
}

impl Config {
    /// Reads a file that only its owner may read.
    ///
    /// # Errors
    /// [`ConfigError`]; none of them shows a key.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = read_private(path)?;
        Config::parse(&text, &path.display().to_string())
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`]; none of them shows a key.
    pub fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
        let parsed: File = toml::from_str(text).map_err(|e| ConfigError::Syntax {
            file: file.to_owned(),
            // message() leaves out the excerpt of the text.
            message: match e.span() {
                Some(span) => {
                    let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
                    format!("line {line}: {}", e.message())
                }
                None => e.message().to_owned(),
            },
        })?;
        let raw = &parsed.ue;
        let bad = |key, message: String| ConfigError::Value {
            file: file.to_owned(),
            key,
            message,
        };
        if raw.address.is_ipv4() != raw.pcscf.is_ipv4() {
            return Err(bad("pcscf", "not of the same IP version as address".into()));
        }
        for (key, port) in [("port_c", raw.port_c), ("port_s", raw.port_s)] {
            if let Some(port) = port {
                protected_port(&port.to_string()).map_err(|message| bad(key, message))?;
            }
        }
        if raw.expires == 0 {
            return Err(bad(
                "expires",
                "0 seconds would be a de-registration".into(),
            ));
        }
        let suites = match &raw.suites {
            None => Suite::ALL.to_vec(),
            Some(names) => names
                .iter()
                .map(|name| suite(name).map_err(|e| bad("suites", e.to_string())))
                .collect::<Result<Vec<_>, _>>()?,
        };
        if !raw.habits.trans && !raw.udp_enc_tun {
            let message = "without it udp_enc_tun = true is wanted";
            return Err(bad("habits.trans", message.into()));
        }
        if suites.is_empty() {
            return Err(bad("suites", "a phone offers at least one suite".into()));
        }
        let secret = |name: &'static str, digits: &str| {
            key(digits).ok_or_else(|| bad(name, "32 hex digits are wanted".into()))
        };
        let k = secret("k", &raw.k)?;
        let opc = match (&raw.opc, &raw.op) {
            (Some(opc), None) => secret("opc", opc)?,
            (None, Some(op)) => Zeroizing::new(usim::opc(*k, *secret("op", op)?)),
            (None, None) => return Err(bad("opc", "is missing; give opc or op".into())),
            (Some(_), Some(_)) => return Err(bad("op", "stands beside opc; keep one".into())),
        };
        Ok(Config {
            uplink: raw.uplink.clone(),
            address: raw.address,
            pcscf: raw.pcscf,
            domain: raw.domain.clone(),
            impi: raw.impi.clone(),
            impu: raw.impu.clone(),
            k,
            opc,
            suites,
            udp_enc_tun: raw.udp_enc_tun,
            port_c: raw.port_c,
            port_s: raw.port_s,
            expires: raw.expires,
            habits: raw.habits.clone(),
        })
    }
}

/// The text of a file that only its owner may read.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let file = path.display().to_string();
    let read = |error| ConfigError::Read {
        file: file.clone(),
        error,
    };
    let mode = fs::metadata(path).map_err(read)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(ConfigError::Mode(file));
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(read)
}

/// 16 octets out of 32 hexadecimal digits.
pub(crate) fn key(hex_digits: &str) -> Option<Zeroizing<[u8; 16]>> {
    let mut key = Zeroizing::new([0; 16]);
    hex::decode_to_slice(hex_digits, key.as_mut()).ok()?;
    Some(key)
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
