//! One mechanism of a list (Annex H of TS 33.203): its parameters and what they mean.

use std::borrow::Cow;

use gm_esp::{Legacy, Mode, Suite};

use super::{Ends, OfferError, Proposal};
use crate::header::list;

/// One mechanism as it stands in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mechanism<'a>(&'a str);

impl<'a> Mechanism<'a> {
    pub(super) fn new(text: &'a str) -> Mechanism<'a> {
        Mechanism(text)
    }

    /// As it is written.
    pub fn text(self) -> &'a str {
        self.0
    }

    fn parts(self) -> (&'a str, &'a str) {
        let end = list::find(self.0.as_bytes(), b';');
        (self.0[..end].trim(), self.0.get(end + 1..).unwrap_or(""))
    }

    /// The mechanism's name as written.
    pub fn name(self) -> &'a str {
        self.parts().0
    }

    /// Its parameters in order, values as written.
    pub fn params(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        list::params(self.parts().1)
    }

    /// A parameter's value (empty when it has none), blind to the name's case; quotes taken off.
    pub fn get(self, name: &str) -> Option<Cow<'a, str>> {
        let (_, value) = self.params().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(value.map(list::unquote).unwrap_or_default())
    }

    /// Whether this is the mechanism of TS 33.203.
    pub fn is_ipsec(self) -> bool {
        self.name().eq_ignore_ascii_case("ipsec-3gpp")
    }

    /// The preference in thousandths; `None` when it is absent or no number.
    pub fn q(self) -> Option<u16> {
        thousandths(&self.get("q")?)
    }

    /// Whether the other one says the same, with the same q or none.
    pub(super) fn same(self, echo: Mechanism<'_>) -> bool {
        if self.0 == echo.0 {
            return true;
        }
        self.name().eq_ignore_ascii_case(echo.name())
            && self.canonical() == echo.canonical()
            && (echo.get("q").is_none() || self.q() == echo.q())
    }

    /// Parameters by value, without q.
    fn canonical(self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        // Annex H: of the parameters of "tls" only the preference is relevant.
        if self.name().eq_ignore_ascii_case("tls") {
            return Vec::new();
        }
        let mut params = Vec::with_capacity(16);
        let (mut prot, mut mode, mut ealg) = (false, false, false);
        for (name, value) in self.params() {
            let name = lower(Cow::Borrowed(name));
            match &*name {
                "q" => continue,
                "prot" => prot = true,
                "mod" => mode = true,
                "ealg" => ealg = true,
                _ => {}
            }
            let value = lower(value.map(list::unquote).unwrap_or_default());
            params.push((name, without_zeros(value)));
        }
        if self.is_ipsec() {
            let defaults = [
                ("prot", "esp", prot),
                ("mod", "trans", mode),
                ("ealg", "null", ealg),
            ];
            let left_out = defaults.into_iter().filter(|(_, _, there)| !there);
            params.extend(left_out.map(|(name, value, _)| (name.into(), value.into())));
        }
        params.sort();
        params
    }
}

fn lower(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        text
    }
}

/// The parameters of ours, and where each stands in [`Read`].
const OURS: [&str; 9] = [
    "spi-c", "spi-s", "port-c", "port-s", "q", "alg", "ealg", "prot", "mod",
];
/// The first of them may come from a neighbour in the list.
const SHARED: usize = 4;
const Q: usize = 4;
const ALG: usize = 5;
const EALG: usize = 6;
const PROT: usize = 7;
const MOD: usize = 8;

/// One entry, gone through once.
pub(super) struct Read<'a> {
    ipsec: bool,
    /// One of ours stands twice: of two values everybody picks his own.
    twice: bool,
    /// How many parameters there are, ours or not.
    pub parameters: usize,
    /// The first value of each of ours, as written.
    values: [Option<&'a str>; OURS.len()],
}

impl<'a> Read<'a> {
    pub fn new(mechanism: Mechanism<'a>) -> Read<'a> {
        let (name, params) = mechanism.parts();
        let mut read = Read {
            ipsec: name.eq_ignore_ascii_case("ipsec-3gpp"),
            twice: false,
            parameters: 0,
            values: [None; OURS.len()],
        };
        for (name, value) in list::params(params) {
            read.parameters += 1;
            let Some(at) = OURS.iter().position(|n| n.eq_ignore_ascii_case(name)) else {
                continue;
            };
            match &mut read.values[at] {
                Some(_) => read.twice = true,
                none => *none = Some(value.unwrap_or_default()),
            }
        }
        read
    }

    fn value(&self, at: usize) -> Option<Cow<'a, str>> {
        self.values[at].map(list::unquote)
    }

    /// What the entry says when it is one of ours: suite, mode, SPIs and ports.
    pub fn proposal(&self, shared: &Shared<'_>) -> Result<Proposal, OfferError> {
        if !self.ipsec {
            return Err(OfferError::NotIpsec);
        }
        if self.twice {
            return Err(OfferError::Twice);
        }
        let text = |at, default| self.value(at).unwrap_or(Cow::Borrowed(default));
        if !text(PROT, "esp").eq_ignore_ascii_case("esp") {
            return Err(OfferError::Protocol);
        }
        let mode = match &*text(MOD, "trans") {
            mode if mode.eq_ignore_ascii_case("trans") => Mode::Trans,
            mode if mode.eq_ignore_ascii_case("udp-enc-tun") => Mode::UdpEncTun,
            _ => return Err(OfferError::Mode),
        };
        let (alg, ealg) = (text(ALG, ""), text(EALG, "null"));
        let suite = Suite::from_names_with(&alg, &ealg, Legacy::Allow)
            .map_err(|_| OfferError::Algorithms)?;
        let number = |at: usize| {
            let shared = || shared.0[at].as_deref().map(Cow::Borrowed);
            self.value(at).or_else(shared)
        };
        let spi = |at| {
            number(at)
                .and_then(|n| parse_spi(&n))
                .ok_or(OfferError::Spi)
        };
        let port = |at| {
            let port = number(at).and_then(|n| parse_port(&n));
            port.ok_or(OfferError::Port)
        };
        let proposal = Proposal {
            suite,
            mode,
            mode_written: self.values[MOD].is_some(),
            q: self.value(Q).and_then(|q| thousandths(&q)),
            ends: Ends {
                spi_c: spi(0)?,
                spi_s: spi(1)?,
                port_c: port(2)?,
                port_s: port(3)?,
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
}

/// Values that one entry lacks and all others that have them agree on.
pub(super) struct Shared<'a>([Option<Cow<'a, str>>; SHARED]);

impl<'a> Shared<'a> {
    pub fn of(list: &[Read<'a>]) -> Shared<'a> {
        let mut all = [const { None }; SHARED];
        for (at, common) in all.iter_mut().enumerate() {
            let ours = list.iter().filter(|entry| entry.ipsec);
            let mut values = ours.filter_map(|entry| entry.value(at));
            *common = values.next().filter(|first| values.all(|v| v == *first));
        }
        Shared(all)
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

fn without_zeros(value: Cow<'_, str>) -> Cow<'_, str> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if !digits || !value.starts_with('0') {
        return value;
    }
    let cut = value.trim_start_matches('0');
    Cow::Owned(if cut.is_empty() { "0" } else { cut }.to_owned())
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
