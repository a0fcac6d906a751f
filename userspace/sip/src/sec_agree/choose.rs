//! Choosing from a list (TS 33.203 clauses 7.2 and M.7.2).

use gm_esp::{Mode, Suite};

use super::{LegacyNames, OfferError, Proposal, SecList};

/// What the operator wants of encryption (TS 33.203 clause 7.2, note 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confidentiality {
    /// Never encrypt; no encryption algorithm is announced.
    Never,
    /// Encrypt whenever the UE can; all algorithms are always announced, against bidding down.
    #[default]
    WhenOffered,
    /// Refuse a UE that cannot; null is not announced.
    Required,
}

/// The P-CSCF's own order of suites and its policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Best first. A legacy suite counts only with `legacy`.
    pub preference: Vec<Suite>,
    /// Encryption.
    pub confidentiality: Confidentiality,
    /// Whether the suites of older releases are taken too, behind all others:
    /// hmac-md5-96 and des-ede3-cbc, all that some phones offer.
    pub legacy: bool,
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
            legacy: false,
        }
    }
}

/// Legacy suites, best first.
const LEGACY: [Suite; 4] = [
    Suite::HmacSha1DesEde3Cbc,
    Suite::HmacMd5AesCbc,
    Suite::HmacMd5DesEde3Cbc,
    Suite::HmacMd5Null,
];

impl Policy {
    /// The suites that policy leaves, each once, best first, legacy ones last.
    pub fn suites(&self) -> Vec<Suite> {
        let own = self.preference.iter().filter(|s| !s.is_legacy());
        let legacy = self.preference.iter().filter(|s| s.is_legacy());
        let legacy = legacy.chain(&LEGACY).filter(|_| self.legacy);
        let mut out = Vec::new();
        for suite in own.chain(legacy).filter(|s| self.allows(**s)) {
            if !out.contains(suite) {
                out.push(*suite);
            }
        }
        out
    }

    fn allows(&self, suite: Suite) -> bool {
        match self.confidentiality {
            Confidentiality::Never => !encrypts(suite),
            Confidentiality::WhenOffered => true,
            Confidentiality::Required => encrypts(suite),
        }
    }

    /// The first suite of ours that is among them; of several entries with it the
    /// one that the UE likes best.
    fn first_of(&self, offered: &[Proposal]) -> Option<Proposal> {
        self.suites().iter().find_map(|suite| {
            let mut entries = offered.iter().filter(|p| p.suite == *suite);
            let first = entries.next()?;
            let better = |best: Proposal, p: &Proposal| if p.q > best.q { *p } else { best };
            Some(entries.fold(*first, better))
        })
    }

    /// Why none of them will do.
    fn reason(&self, offered: &[Proposal]) -> OfferError {
        let open = Policy {
            legacy: true,
            ..self.clone()
        };
        if let Some(found) = open.first_of(offered) {
            let wanted = offered.iter().map(|p| p.suite);
            let wanted: Vec<_> = wanted.filter(|s| open.suites().contains(s)).collect();
            debug_assert!(found.suite.is_legacy());
            return OfferError::LegacyOnly(LegacyNames::of(&wanted));
        }
        let encrypted = offered.iter().filter(|p| encrypts(p.suite)).count();
        match self.confidentiality {
            Confidentiality::Required if encrypted == 0 => OfferError::Confidentiality,
            Confidentiality::Never if encrypted == offered.len() => OfferError::OnlyEncrypted,
            _ => OfferError::Algorithms,
        }
    }
}

fn encrypts(suite: Suite) -> bool {
    suite.ealg() != "null"
}

/// The P-CSCF's choice from the UE's offer: the first of its own list that the UE
/// has in the wanted mode (clause 7.2). The UE's own order and q do not count
/// between suites.
pub fn choose_offer(policy: &Policy, offer: &SecList, mode: Mode) -> Result<Proposal, OfferError> {
    let mut offered = offer.proposals()?;
    offered.retain(|p| p.mode == mode);
    if offered.is_empty() {
        return Err(OfferError::Mode);
    }
    let chosen = policy.first_of(&offered);
    chosen.ok_or_else(|| policy.reason(&offered))
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
        let listed: Vec<_> = proposals.iter().map(|p| p.suite).collect();
        return Err(if listed.iter().all(|s| s.is_legacy()) {
            OfferError::LegacyOnly(LegacyNames::of(&listed))
        } else {
            OfferError::Algorithms
        });
    }
    good.retain(|p| modes.contains(&p.mode));
    good.sort_by_key(|p| std::cmp::Reverse(p.q.unwrap_or(0)));
    good.first().copied().copied().ok_or(OfferError::Mode)
}
