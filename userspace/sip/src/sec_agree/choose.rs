//! Choosing from a list and writing one (TS 33.203 clauses 7.2 and M.7.2).

use gm_esp::{Mode, Suite};

use super::{Ends, OfferError, Proposal, SecList};

/// What the operator wants of encryption (TS 33.203 clause 7.2, note 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confidentiality {
    /// Never encrypt; no encryption algorithm is announced.
    Never,
    /// Encrypt whenever the UE can; all algorithms are always announced, against bidding down.
    #[default]
    WhenOffered,
    /// Refuse a UE that cannot.
    Required,
}

/// The P-CSCF's own order of suites and its policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Best first.
    pub preference: Vec<Suite>,
    /// Encryption.
    pub confidentiality: Confidentiality,
}

impl Default for Policy {
    fn default() -> Policy {
        let preference = vec![
            Suite::NullAesGcm,
            Suite::HmacSha1AesCbc,
            Suite::AesGmacNull,
            Suite::HmacSha1Null,
        ];
        Policy {
            preference,
            confidentiality: Confidentiality::default(),
        }
    }
}

impl Policy {
    /// The suites that policy leaves, best first.
    pub fn suites(&self) -> Vec<Suite> {
        let allowed = |suite: &Suite| match self.confidentiality {
            Confidentiality::Never => !encrypts(*suite),
            Confidentiality::WhenOffered => true,
            Confidentiality::Required => encrypts(*suite),
        };
        self.preference.iter().copied().filter(allowed).collect()
    }
}

fn encrypts(suite: Suite) -> bool {
    suite.ealg() != "null"
}

/// The P-CSCF's choice from the UE's offer: the first of its own list that the UE
/// has in the wanted mode (clause 7.2).
pub fn choose_offer(policy: &Policy, offer: &SecList, mode: Mode) -> Result<Proposal, OfferError> {
    let proposals = offer.proposals()?;
    let in_mode: Vec<_> = proposals.iter().filter(|p| p.mode == mode).collect();
    if in_mode.is_empty() {
        return Err(OfferError::Mode);
    }
    let find = |suite: &Suite| in_mode.iter().find(|p| p.suite == *suite);
    let chosen = policy.suites().iter().find_map(find).copied().copied();
    chosen.ok_or(match policy.confidentiality {
        Confidentiality::Required => OfferError::Confidentiality,
        _ => OfferError::Algorithms,
    })
}

/// The UE's choice from SM6: the entry that it supports with the highest q, the
/// first where q says nothing (RFC 3329 clause 2.3.1, TS 33.203 clause 7.2).
pub fn choose_server(
    suites: &[Suite],
    modes: &[Mode],
    list: &SecList,
) -> Result<Proposal, OfferError> {
    let proposals = list.proposals()?;
    let mut good: Vec<_> = proposals
        .iter()
        .filter(|p| suites.contains(&p.suite))
        .collect();
    if good.is_empty() {
        return Err(OfferError::Algorithms);
    }
    good.retain(|p| modes.contains(&p.mode));
    good.sort_by_key(|p| std::cmp::Reverse(p.q.unwrap_or(0)));
    good.first().copied().copied().ok_or(OfferError::Mode)
}

fn entry(suite: Suite, mode: Mode, ends: &Ends, q: Option<usize>, write_null: bool) -> String {
    let q = q.map(|tenths| format!(";q=0.{tenths}")).unwrap_or_default();
    let ealg = if encrypts(suite) || write_null {
        format!(";ealg={}", suite.ealg())
    } else {
        String::new()
    };
    let mode = match mode {
        Mode::Trans => "trans",
        Mode::UdpEncTun => "UDP-enc-tun",
    };
    format!(
        "ipsec-3gpp{q};alg={}{ealg};prot=esp;mod={mode};spi-c={:010};spi-s={:010};port-c={};port-s={}",
        suite.alg(),
        ends.spi_c,
        ends.spi_s,
        ends.port_c,
        ends.port_s
    )
}

/// Security-Server of SM6: everything that policy allows, best first, in the one
/// mode that was found; without encryption names when policy never encrypts.
pub fn server_list(policy: &Policy, mode: Mode, ends: &Ends) -> String {
    let write_null = policy.confidentiality != Confidentiality::Never;
    let suites = policy.suites();
    let count = suites.len().min(9);
    let entries: Vec<_> = suites
        .iter()
        .take(9)
        .enumerate()
        .map(|(n, s)| entry(*s, mode, ends, Some(count - n), write_null))
        .collect();
    entries.join(", ")
}

/// Security-Server of a 421 or 494: what policy wants, without SPIs and ports.
pub fn error_list(policy: &Policy) -> String {
    let entries: Vec<_> = policy
        .suites()
        .iter()
        .map(|s| format!("ipsec-3gpp;alg={};ealg={}", s.alg(), s.ealg()))
        .collect();
    if entries.is_empty() {
        "ipsec-3gpp;q=0.1".to_owned()
    } else {
        entries.join(", ")
    }
}

/// Security-Client of SM1: every suite in every mode, all with the same SPIs and ports.
pub fn offer_list(suites: &[Suite], modes: &[Mode], ends: &Ends) -> String {
    let entries: Vec<_> = modes
        .iter()
        .flat_map(|m| suites.iter().map(move |s| entry(*s, *m, ends, None, true)))
        .collect();
    entries.join(", ")
}
