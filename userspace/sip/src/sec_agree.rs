//! Security-Client, Security-Server and Security-Verify (RFC 3329 with Annex H of TS 33.203).
//!
//! Reading is liberal: any order and case, blanks, folds, several lines, unknown
//! mechanisms and parameters. Lists are compared by value (ARCHITECTURE, reading A-22): the
//! same entries in the same order with the same parameters, defaults made
//! explicit, leading zeros gone.

use gm_esp::{Mode, Suite};

mod choose;
mod list;
mod mechanism;
mod write;

pub use choose::{Confidentiality, Policy, choose_offer, choose_server};
pub use list::SecList;
pub use mechanism::Mechanism;
pub use write::{error_list, offer_list, server_list};

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
    /// Nothing fits but hmac-md5-96 or des-ede3-cbc, which TS 33.203 has dropped.
    #[error("only {0} offered, legacy algorithms that are switched off")]
    LegacyOnly(LegacyNames),
    /// Policy wants encryption and the UE offers none.
    #[error("policy requires confidentiality, none is offered")]
    Confidentiality,
    /// Policy wants no encryption and the UE offers nothing without.
    #[error("policy never encrypts, nothing is offered without encryption")]
    OnlyEncrypted,
    /// Behind a NAT without mod=UDP-enc-tun, or the mode is not supported.
    #[error("the mode that is needed is not in the list")]
    Mode,
    /// prot is not esp.
    #[error("only prot=esp is possible")]
    Protocol,
    /// A parameter stands twice in one entry.
    #[error("a parameter stands twice in one mechanism")]
    Twice,
    /// spi-c or spi-s is missing, no number, 0 to 255, or both are equal.
    #[error("spi-c or spi-s is missing or forbidden")]
    Spi,
    /// port-c or port-s is missing, 0, 5060, 5061, above 65535, or both are equal.
    #[error("port-c or port-s is missing or forbidden")]
    Port,
}

impl OfferError {
    /// What the operator can do about it, for the log; nothing for the UE.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            OfferError::LegacyOnly(_) => Some("set edge.legacy_suites = true to take such phones"),
            OfferError::Algorithms => Some("edge.suites says what is taken"),
            OfferError::Confidentiality => {
                Some("edge.confidentiality = \"when-offered\" takes phones without encryption")
            }
            OfferError::OnlyEncrypted => {
                Some("edge.confidentiality = \"when-offered\" takes phones that always encrypt")
            }
            _ => None,
        }
    }
}

/// The algorithms of older releases that an offer rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LegacyNames {
    md5: bool,
    des: bool,
}

impl LegacyNames {
    /// Those of the suites.
    pub fn of(suites: &[Suite]) -> LegacyNames {
        LegacyNames {
            md5: suites.iter().any(|s| s.alg() == "hmac-md5-96"),
            des: suites.iter().any(|s| s.ealg() == "des-ede3-cbc"),
        }
    }
}

impl std::fmt::Display for LegacyNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.md5, self.des) {
            (true, true) => "hmac-md5-96 and des-ede3-cbc",
            (false, true) => "des-ede3-cbc",
            _ => "hmac-md5-96",
        })
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

#[cfg(test)]
#[path = "sec_agree/tests.rs"]
mod tests;
