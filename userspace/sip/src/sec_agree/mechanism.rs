//! One mechanism of a list (Annex H of TS 33.203): its parameters and what they mean.

use gm_esp::{Legacy, Mode, Suite};

use super::{Ends, OfferError, Proposal, SecList};
use crate::header::list;

/// One mechanism as it stands in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mechanism {
    /// The mechanism's name as written.
    pub name: String,
    /// Its parameters in order; values without quotes.
    pub params: list::Params,
}

impl Mechanism {
    pub(super) fn parse(text: &str) -> Mechanism {
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
    pub(super) fn proposal(&self, shared: &Shared) -> Result<Proposal, OfferError> {
        if !self.is_ipsec() {
            return Err(OfferError::NotIpsec);
        }
        if !self.is_unambiguous() {
            return Err(OfferError::Twice);
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
        let suite = Suite::from_names_with(&alg, &ealg, Legacy::Allow)
            .map_err(|_| OfferError::Algorithms)?;
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

    /// Whether each parameter of ours stands once: of two values everybody picks his own.
    fn is_unambiguous(&self) -> bool {
        const OURS: [&str; 9] = [
            "q", "alg", "ealg", "prot", "mod", "spi-c", "spi-s", "port-c", "port-s",
        ];
        OURS.iter().all(|ours| {
            let names = self.params.0.iter().map(|(name, _)| name);
            names.filter(|name| name.eq_ignore_ascii_case(ours)).count() < 2
        })
    }

    /// Name and parameters by value, without q.
    pub(super) fn canonical(&self) -> (String, Vec<(String, String)>) {
        let name = self.name.to_ascii_lowercase();
        // Annex H: of the parameters of "tls" only the preference is relevant.
        if name == "tls" {
            return (name, Vec::new());
        }
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
        (name, params)
    }
}

/// Values that one entry lacks and all others that have them agree on.
pub(super) struct Shared([Option<String>; 4]);

const SHARED: [&str; 4] = ["spi-c", "spi-s", "port-c", "port-s"];

impl Shared {
    pub(super) fn of(list: &SecList) -> Shared {
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

/// qvalue of RFC 3261 clause 25.1 in thousandths.
pub(super) fn thousandths(text: &str) -> Option<u16> {
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
pub(super) fn parse_spi(text: &str) -> Option<u32> {
    if !(1..=10).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&spi| spi > 255)
}

/// Not 0 and not the standard SIP ports (TS 33.203 clause 7.1).
pub(super) fn parse_port(text: &str) -> Option<u16> {
    if text.len() > 10 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse()
        .ok()
        .filter(|&port| !matches!(port, 0 | 5060 | 5061))
}
