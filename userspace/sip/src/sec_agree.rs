//! Security-Client, Security-Server and Security-Verify (RFC 3329 with Annex H of TS 33.203).
//!
//! Reading is liberal: any order and case, blanks, folds, several lines, unknown
//! mechanisms and parameters. Lists are compared by value (ARCHITECTURE, reading A-22): the
//! same entries in the same order with the same parameters, defaults made
//! explicit, leading zeros gone.

use std::fmt;

use gm_esp::{Mode, Suite};

use crate::header::list;
use crate::message::Message;

mod choose;
pub use choose::{
    Confidentiality, Policy, choose_offer, choose_server, error_list, offer_list, server_list,
};

/// The header of SM1.
pub const SECURITY_CLIENT: &str = "Security-Client";
/// The header of SM6.
pub const SECURITY_SERVER: &str = "Security-Server";
/// The header of SM7.
pub const SECURITY_VERIFY: &str = "Security-Verify";

/// The most mechanisms of one list that are looked at.
pub const MAX_MECHANISMS: usize = 64;
/// The most parameters of all of them together: a set keeps its lists.
pub const MAX_PARAMETERS: usize = 1024;

/// Why no entry of a list can be used. Names the value's place, no secrets are in these headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OfferError {
    /// No header, or nothing in it.
    #[error("no mechanism in the list")]
    Empty,
    /// No entry is ipsec-3gpp.
    #[error("no ipsec-3gpp in the list")]
    NotIpsec,
    /// More than [`MAX_MECHANISMS`] or [`MAX_PARAMETERS`].
    #[error("more than {MAX_MECHANISMS} mechanisms or {MAX_PARAMETERS} parameters")]
    TooMany,
    /// No pair of algorithms that both sides have and policy allows.
    #[error("no pair of algorithms in common")]
    Algorithms,
    /// Only hmac-md5-96 or des-ede3-cbc, which TS 33.203 has dropped.
    #[error("only legacy algorithms (hmac-md5-96, des-ede3-cbc)")]
    LegacyOnly,
    /// Policy wants encryption and the UE offers none.
    #[error("policy requires confidentiality, none is offered")]
    Confidentiality,
    /// Behind a NAT without mod=UDP-enc-tun, or the mode is not supported.
    #[error("the mode that is needed is not in the list")]
    Mode,
    /// prot is not esp.
    #[error("only prot=esp is possible")]
    Protocol,
    /// spi-c or spi-s is missing, no number, 0 to 255, or both are equal.
    #[error("spi-c or spi-s is missing or forbidden")]
    Spi,
    /// port-c or port-s is missing, 0, 5060, 5061, above 65535, or both are equal.
    #[error("port-c or port-s is missing or forbidden")]
    Port,
}

/// One mechanism as it stands in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mechanism {
    /// The mechanism's name as written.
    pub name: String,
    /// Its parameters in order; values without quotes.
    pub params: list::Params,
}

impl Mechanism {
    fn parse(text: &str) -> Mechanism {
        let end = list::find(text.as_bytes(), b';');
        let params = list::Params::parse(text.get(end + 1..).unwrap_or(""));
        Mechanism {
            name: text[..end].trim().to_owned(),
            params,
        }
    }

    /// Whether this is the mechanism of TS 33.203.
    pub fn is_ipsec(&self) -> bool {
        self.name.eq_ignore_ascii_case("ipsec-3gpp")
    }

    /// The preference in thousandths; `None` when it is absent or no number.
    pub fn q(&self) -> Option<u16> {
        thousandths(&self.params.get("q")?)
    }

    /// What the entry says when it is one of ours: suite, mode, SPIs and ports.
    /// `spi-c` and its kin may come from a neighbour in the list.
    fn proposal(&self, shared: &Shared) -> Result<Proposal, OfferError> {
        if !self.is_ipsec() {
            return Err(OfferError::NotIpsec);
        }
        let text =
            |name: &str, default: &str| self.params.get(name).unwrap_or_else(|| default.to_owned());
        if !text("prot", "esp").eq_ignore_ascii_case("esp") {
            return Err(OfferError::Protocol);
        }
        let mode = match text("mod", "trans").to_ascii_lowercase().as_str() {
            "trans" => Mode::Trans,
            "udp-enc-tun" => Mode::UdpEncTun,
            _ => return Err(OfferError::Mode),
        };
        let (alg, ealg) = (text("alg", ""), text("ealg", "null"));
        let suite = Suite::from_names(&alg, &ealg).map_err(|e| match e {
            gm_esp::suite::SuiteError::Legacy(_) => OfferError::LegacyOnly,
            _ => OfferError::Algorithms,
        })?;
        let number = |name: &str| self.params.get(name).or_else(|| shared.get(name));
        let spi = |name| {
            number(name)
                .as_deref()
                .and_then(parse_spi)
                .ok_or(OfferError::Spi)
        };
        let port = |name| {
            number(name)
                .as_deref()
                .and_then(parse_port)
                .ok_or(OfferError::Port)
        };
        let proposal = Proposal {
            suite,
            mode,
            mode_written: self.params.get("mod").is_some(),
            q: self.q(),
            ends: Ends {
                spi_c: spi("spi-c")?,
                spi_s: spi("spi-s")?,
                port_c: port("port-c")?,
                port_s: port("port-s")?,
            },
        };
        if proposal.ends.spi_c == proposal.ends.spi_s {
            return Err(OfferError::Spi);
        }
        if proposal.ends.port_c == proposal.ends.port_s {
            return Err(OfferError::Port);
        }
        Ok(proposal)
    }

    /// Parameters by value, without q.
    fn canonical(&self) -> (String, Vec<(String, String)>) {
        let mut params: Vec<_> = self
            .params
            .0
            .iter()
            .map(|(name, value)| {
                let value = value
                    .as_deref()
                    .map(list::unquote)
                    .unwrap_or_default()
                    .to_ascii_lowercase();
                (name.to_ascii_lowercase(), without_zeros(&value))
            })
            .filter(|(name, _)| name != "q")
            .collect();
        if self.is_ipsec() {
            for (name, value) in [("prot", "esp"), ("mod", "trans"), ("ealg", "null")] {
                if self.params.get(name).is_none() {
                    params.push((name.into(), value.into()));
                }
            }
        }
        params.sort();
        (self.name.to_ascii_lowercase(), params)
    }
}

/// SPIs and ports of one side of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// SPI of the inbound SA at the protected client port.
    pub spi_c: u32,
    /// SPI of the inbound SA at the protected server port.
    pub spi_s: u32,
    /// The protected client port.
    pub port_c: u16,
    /// The protected server port.
    pub port_s: u16,
}

/// An entry that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// alg and ealg.
    pub suite: Suite,
    /// mod.
    pub mode: Mode,
    /// Whether mod was there: absent it means trans, and a UE looks for a NAT first (M.7.2).
    pub mode_written: bool,
    /// Preference in thousandths.
    pub q: Option<u16>,
    /// The sender's SPIs and ports.
    pub ends: Ends,
}

/// Values that one entry lacks and all others that have them agree on.
struct Shared([Option<String>; 4]);

const SHARED: [&str; 4] = ["spi-c", "spi-s", "port-c", "port-s"];

impl Shared {
    fn of(list: &SecList) -> Shared {
        Shared(SHARED.map(|name| {
            let mut values = list
                .0
                .iter()
                .filter(|m| m.is_ipsec())
                .filter_map(|m| m.params.get(name));
            let first = values.next()?;
            values.all(|v| v == first).then_some(first)
        }))
    }

    fn get(&self, name: &str) -> Option<String> {
        SHARED
            .iter()
            .position(|n| *n == name)
            .and_then(|at| self.0[at].clone())
    }
}

/// A whole list, over all lines of the header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecList(pub Vec<Mechanism>);

impl SecList {
    /// The list of that header; `None` when the header is not there at all.
    pub fn from_message(message: &Message, name: &str) -> Option<SecList> {
        message.value(name)?;
        let entries = message.elements(name);
        Some(SecList(
            entries.iter().map(|e| Mechanism::parse(e)).collect(),
        ))
    }

    /// Parses a header value.
    pub fn parse(value: &str) -> SecList {
        SecList(list::split(value, ',').map(Mechanism::parse).collect())
    }

    /// The entries that can be used, in order, or why there is none.
    pub fn proposals(&self) -> Result<Vec<Proposal>, OfferError> {
        if self.0.is_empty() {
            return Err(OfferError::Empty);
        }
        let parameters: usize = self.0.iter().map(|m| m.params.0.len()).sum();
        if self.0.len() > MAX_MECHANISMS || parameters > MAX_PARAMETERS {
            return Err(OfferError::TooMany);
        }
        let shared = Shared::of(self);
        let mut usable = Vec::new();
        let mut reason = OfferError::NotIpsec;
        for entry in &self.0 {
            match entry.proposal(&shared) {
                Ok(proposal) => usable.push(proposal),
                // The last reason that is more than "another mechanism" is the telling one.
                Err(OfferError::NotIpsec) => {}
                Err(error) => reason = error,
            }
        }
        if usable.is_empty() {
            Err(reason)
        } else {
            Ok(usable)
        }
    }

    /// Whether `echo` says the same as this list (ARCHITECTURE, reading A-22). An absent q in
    /// the echo is accepted, another q is not.
    pub fn same(&self, echo: &SecList) -> bool {
        let same_q = |ours: &Mechanism, theirs: &Mechanism| {
            theirs.params.get("q").is_none() || ours.q() == theirs.q()
        };
        self.0.len() == echo.0.len()
            && self
                .0
                .iter()
                .zip(&echo.0)
                .all(|(a, b)| a.canonical() == b.canonical() && same_q(a, b))
    }
}

impl fmt::Display for SecList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, entry) in self.0.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, entry.name)?;
            for (name, value) in &entry.params.0 {
                match value {
                    Some(value) => write!(f, ";{name}={value}")?,
                    None => write!(f, ";{name}")?,
                }
            }
        }
        Ok(())
    }
}

/// qvalue of RFC 3261 clause 25.1 in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part: u16 = format!("{part:0<3}").parse().ok()?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

fn without_zeros(value: &str) -> String {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return value.to_owned();
    }
    let cut = value.trim_start_matches('0');
    if cut.is_empty() {
        "0".to_owned()
    } else {
        cut.to_owned()
    }
}

/// 1 to 10 digits (ARCHITECTURE, reading A-14), not 0 to 255, which RFC 4303 clause 2.1 reserves.
fn parse_spi(text: &str) -> Option<u32> {
    if !(1..=10).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&spi| spi > 255)
}

/// Not 0 and not the standard SIP ports (TS 33.203 clause 7.1).
fn parse_port(text: &str) -> Option<u16> {
    if text.len() > 10 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse()
        .ok()
        .filter(|&port| !matches!(port, 0 | 5060 | 5061))
}

#[cfg(test)]
#[path = "sec_agree/tests.rs"]
mod tests;
