//! Nothing arrives: which way is blocked, told by what else has been seen.

use gm_api::control::SaStatus;
use gm_api::drops::Weight;
use gm_api::sad::Dir;
use gm_dataplane::Reason;

use super::Found;
use super::facts::{Facts, Seen};
use super::words::{ago, packets, span};

/// A phone answers a challenge within this time.
const PATIENCE_MS: u64 = 3_000;

/// A request is answered within this time, or never (RFC 3261 timer F).
const TRANSACTION_MS: u64 = 32_000;

/// Reasons for which ESP of the phone ends that does arrive.
const ARRIVED: &[Reason] = &[
    Reason::UnknownSpi,
    Reason::ModeMismatch,
    Reason::Replay,
    Reason::Stale,
    Reason::BadIcv,
    Reason::IcvLimited,
    Reason::Dummy,
    Reason::SelectorMismatch,
    Reason::Malformed,
    Reason::FragmentTimeout,
    Reason::FragmentOverlap,
    Reason::FragmentLimit,
    Reason::FragmentRate,
];

/// SAs are so young that nothing is late yet.
pub(super) fn is_early(facts: &Facts) -> bool {
    age(facts).is_some_and(|ms| ms < PATIENCE_MS)
}

/// Since when there are SAs.
fn age(facts: &Facts) -> Option<u64> {
    facts.sas(Dir::In).filter_map(|row| row.age_ms).max()
}

/// All findings about silence: one at most.
pub(super) fn findings(facts: &Facts) -> Option<Found> {
    let inbound: Vec<&SaStatus> = facts.sas(Dir::In).collect();
    let age = age(facts)?;
    let sealed: u64 = facts.sas(Dir::Out).map(|row| row.packets).sum();
    let in_udp = inbound.iter().any(|row| row.sa.mode == "udp-enc-tun");
    match facts.last_good() {
        None if age >= PATIENCE_MS && !arrives(facts, &inbound, age) => {
            Some(never(facts, age, sealed, in_udp))
        }
        None => None,
        Some(good) => no_more(facts, good, in_udp),
    }
}

/// Whether ESP of the phone has come as far as to be dropped since there are
/// SAs. The prefix's counters do not say: they have no time.
fn arrives(facts: &Facts, inbound: &[&SaStatus], age: u64) -> bool {
    let arrived = |s: &Seen| !s.sample.outbound && s.ago_ms <= age;
    facts.seen(ARRIVED).any(arrived) || inbound.iter().any(|row| !row.drops.is_empty())
}

fn keepalive(facts: &Facts) -> Option<u64> {
    facts.seen(&[Reason::Keepalive]).next().map(|s| s.ago_ms)
}

/// Nothing has ever verified, and nothing was dropped.
fn never(facts: &Facts, age: u64, sealed: u64, in_udp: bool) -> Found {
    let mut evidence = vec![format!(
        "the SAs are there since {}: no ESP for them, good or bad",
        span(age)
    )];
    if sealed > 0 {
        evidence.push(format!("sealed and sent to the phone: {}", packets(sealed)));
    }
    let port = facts.encap_port;
    let (cause, text, advice) = if !in_udp {
        (
            "esp-blocked",
            "SAs are installed, and no ESP arrives for them: raw ESP (IP protocol 50) is blocked \
             on the way, or the phone does not use its SAs."
                .to_owned(),
            "Let IP protocol 50 pass in both directions, also in the cloud's security group and in \
             the host's own firewall in front of gmesp. If there is a NAT between, the phone has to \
             offer UDP-enc-tun. If nothing is blocked: did the phone accept the challenge?",
        )
    } else if let Some(ms) = keepalive(facts) {
        evidence.push(format!(
            "last keepalive of the phone on UDP {port}: {}",
            ago(ms)
        ));
        (
            "no-esp-in-udp",
            format!(
                "UDP {port} is open from the phone to here: its keepalives arrive. Its ESP does not."
            ),
            "The phone has not accepted the challenge or does not use its SAs; or something on the \
             way lets through what is small and drops ESP in UDP.",
        )
    } else if sealed > 0 {
        evidence.push(format!(
            "nothing at all has come from the phone to UDP {port}"
        ));
        (
            "udp-blocked",
            format!(
                "ESP in UDP goes out to the phone, and nothing comes back: UDP {port} is blocked \
                 between the phone and here, in one direction or both."
            ),
            "Let UDP 4500 pass in both directions, in the phone's network, the cloud's security \
             group and the host's own firewall. gmespctl capture shows what crosses the uplink.",
        )
    } else {
        evidence.push(format!(
            "nothing at all has come from the phone to UDP {port}"
        ));
        (
            "udp-blocked-outbound",
            format!(
                "SAs in UDP are installed, and nothing comes from the phone: UDP {port} is blocked \
                 outbound, from the phone to here."
            ),
            "Let UDP 4500 pass from the phone's network to this host, also in the cloud's security \
             group and the host's own firewall. If it does: did the phone accept the challenge?",
        )
    };
    // What no SA has counted may have come all the same: nobody would know.
    let weight = if facts.is_blind {
        evidence.retain(|line| !line.starts_with("nothing at all"));
        Weight::Hint
    } else {
        Weight::Cause
    };
    // What is counted without a sample may be of now.
    let dropped = facts.count(ARRIVED);
    if dropped > 0 {
        evidence.push(format!(
            "unless it is among the {} dropped for {} since the start",
            packets(dropped),
            facts.prefix
        ));
    }
    Found::new(24, cause, weight, text)
        .evidence(evidence)
        .advice(advice)
}

/// It worked once; now what is sent has no answer.
fn no_more(facts: &Facts, good: u64, in_udp: bool) -> Option<Found> {
    let sent = facts.sas(Dir::Out).filter_map(|row| row.idle_ms).min()?;
    if good < sent.saturating_add(TRANSACTION_MS) || sent > 10 * TRANSACTION_MS {
        return None;
    }
    let mut evidence = vec![
        format!("last packet that verified: {}", ago(good)),
        format!("last packet sealed and sent: {}", ago(sent)),
    ];
    let alive = keepalive(facts).filter(|ms| *ms < good);
    let (cause, text, advice) = match (in_udp, alive) {
        (true, Some(ms)) => {
            evidence.push(format!("last keepalive of the phone: {}", ago(ms)));
            (
                "udp-blocked-inbound",
                "The phone is there, its keepalives arrive, but nothing answers what is sent to it: \
                 UDP 4500 is blocked inbound, from here to the phone, or its NAT has given it \
                 another port."
                    .to_owned(),
                "The phone's next packet mends a changed port (follow_encap_port). Its keepalives \
                 have to come more often than the NAT forgets.",
            )
        }
        (true, None) => (
            "no-answer",
            "Packets are sealed and sent, and nothing comes back any more: the NAT has forgotten \
             the phone, or the phone is gone."
                .to_owned(),
            "Keepalives of the phone more often than its NAT forgets (20 s is usual); a phone that \
             is gone registers again.",
        ),
        (false, _) => (
            "no-answer",
            "Packets are sealed and sent, and nothing comes back any more: the phone is out of \
             reach, has lost its SAs, or has another address by now."
                .to_owned(),
            "It registers again when it is back; until then its calls fail.",
        ),
    };
    // It may just have been asked.
    let weight = match sent < PATIENCE_MS {
        true => Weight::Hint,
        false => Weight::Cause,
    };
    Some(
        Found::new(25, cause, weight, text)
            .evidence(evidence)
            .advice(advice),
    )
}
