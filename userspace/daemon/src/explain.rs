//! What a phone's packets run into, in words: from facts to findings, the most
//! probable cause first. `facts.rs` collects, the others judge; none of it
//! changes anything.

mod advice;
mod facts;
mod hit;
mod inbound;
mod keys;
mod outbound;
mod silence;
mod sip;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;

use gm_api::drops::{Explanation, Finding, Verdict, Weight};

pub use advice::advice;
pub use facts::{Facts, prefix};

/// A finding on its way to its place.
pub(crate) struct Found {
    /// Which of two causes is the more probable: the smaller one.
    rank: u32,
    finding: Finding,
}

impl Found {
    fn new(rank: u32, cause: &str, weight: Weight, text: String) -> Found {
        Found {
            rank,
            finding: Finding {
                cause: cause.into(),
                weight,
                text,
                evidence: Vec::new(),
                advice: None,
            },
        }
    }

    fn advice(mut self, text: &str) -> Found {
        self.finding.advice = Some(text.into());
        self
    }

    fn evidence(mut self, lines: impl IntoIterator<Item = String>) -> Found {
        self.finding.evidence.extend(lines);
        self
    }
}

/// Says what the facts mean.
pub fn explain(facts: &Facts) -> Explanation {
    let mut found = inbound::findings(facts);
    found.extend(silence::findings(facts));
    found.extend(outbound::findings(facts));
    found.extend(sip::findings(facts));
    let is = |weight: Weight| found.iter().any(|f| f.finding.weight == weight);
    // With SAs of which no packet verifies even a trace is one.
    let works = facts.last_good().is_some() || silence::is_early(facts);
    let verdict = if facts.is_empty() {
        Verdict::Unknown
    } else if is(Weight::Cause) || (!works && is(Weight::Hint)) {
        Verdict::Trouble
    } else {
        Verdict::Fine
    };
    found.push(state(facts, verdict));
    found.extend(shared(facts));
    found.extend(blind(facts));
    found.sort_by_key(|f| (f.finding.weight, f.rank));
    Explanation {
        address: facts.address,
        verdict,
        findings: found.into_iter().map(|f| f.finding).collect(),
    }
}

/// Sets of one phone: the one in use, and one that is coming or going.
const SETS: usize = 2;

/// Where an address is a NAT's, what is found is of any phone behind it.
fn shared(facts: &Facts) -> Option<Found> {
    let sets: BTreeSet<u64> = facts.sas.iter().filter_map(|row| row.sa.set).collect();
    (sets.len() > SETS).then(|| {
        let text = format!(
            "{} has {} sets of SAs: several phones are behind it. What is said here is of all of \
             them; that one is fine hides what another runs into.",
            facts.address,
            sets.len()
        );
        Found::new(1, "several-phones", Weight::State, text).advice(
            "Each SA is listed here with what it has dropped, and how long ago its last packet was.",
        )
    })
}

/// What cannot be known of what was dropped.
fn blind(facts: &Facts) -> Option<Found> {
    facts.is_blind.then(|| {
        let text =
            "The data plane is the kernel's: it does not show which packets it drops. What is \
                    said here is from the SAs' own counters and from SIP."
                .to_owned();
        Found::new(2, "kernel-data-plane", Weight::State, text).advice(
            "/proc/net/xfrm_stat counts why ESP was dropped, for all phones together; tcpdump \
             shows what comes.",
        )
    })
}

/// How the SAs stand, whatever else there is.
fn state(facts: &Facts, verdict: Verdict) -> Found {
    let address = facts.address;
    let evidence: Vec<String> = facts.sas.iter().map(words::sa).collect();
    let found = |cause, text| Found::new(0, cause, Weight::State, text);
    if facts.is_empty() {
        return found(
            "never-seen",
            format!(
                "Nothing is known of {address}: no SA, no REGISTER and no dropped packet since the \
                 start {}.",
                words::ago(facts.uptime_ms)
            ),
        )
        .advice(
            "Is it the address that this host sees, outside of any NAT? Does what the phone sends \
             reach the uplink at all: tcpdump there shows REGISTERs in clear, gmespctl capture \
             what is sealed.",
        );
    }
    if facts.sas.is_empty() {
        return found("no-sas", format!("{address} has no SAs."));
    }
    let text = match (facts.last_good(), verdict) {
        (Some(ms), Verdict::Fine) if ms < 300_000 => format!(
            "Nothing is wrong here: the last packet of {address} verified {}.",
            words::ago(ms)
        ),
        (Some(ms), _) => format!(
            "{address} has SAs; its last packet verified {}.",
            words::ago(ms)
        ),
        (None, _) => format!("{address} has SAs; no packet of it has verified yet."),
    };
    let cause = match facts.last_good() {
        Some(ms) if verdict == Verdict::Fine && ms < 300_000 => "healthy",
        Some(_) if verdict == Verdict::Fine => "idle",
        _ => "sas",
    };
    found(cause, text).evidence(evidence)
}
