//! What is for the phone and does not leave; what the network says about what
//! does; what this host had no room for.

use gm_api::drops::Weight;
use gm_api::sad::Dir;
use gm_dataplane::Reason;

use super::Found;
use super::facts::{Facts, OVERLOAD};
use super::words::{end, packets, span};

/// All findings about what goes out.
pub(super) fn findings(facts: &Facts) -> Vec<Found> {
    let mut found = Vec::new();
    if let Some(ms) = facts.uplink_gone_ms {
        let text = "The uplink is gone: nothing arrives from any phone, and nothing leaves.".into();
        found.push(
            Found::new(1, "uplink-gone", Weight::Cause, text)
                .evidence([format!("since {}", span(ms))])
                .advice(
                    "Bring the interface back, by the same name; the SAs are kept. What is \
                     protected is dropped meanwhile.",
                ),
        );
    }
    found.extend(no_sa(facts));
    for (rank, reason, cause, text, advice) in [
        (
            31,
            Reason::OutNoEncapPort,
            "out-no-nat-port",
            "Nothing can be sent to the phone: the port of its NAT is not known, because nothing \
             that verified has come from it yet.",
            "The phone has to send first; what it sends is what else stands here.",
        ),
        (
            32,
            Reason::OutSeqExhausted,
            "out-seq-exhausted",
            "Nothing can be sent to the phone: the SA has used its last sequence number.",
            "The phone has to register again.",
        ),
        (
            34,
            Reason::OutTooBig,
            "out-too-big",
            "Packets for the phone do not fit when they are sealed, and must not be cut.",
            "For TCP this corrects itself. UDP with the don't-fragment bit: clear it in the \
             application, or raise the uplink's MTU.",
        ),
        (
            35,
            Reason::OutMalformed,
            "out-malformed",
            "Packets for the phone cannot be parsed, so they do not leave.",
            "More than two VLAN tags, or fragments whose first one was not seen.",
        ),
    ] {
        let newest = facts.seen(&[reason]).next();
        if newest.is_some() || facts.count(&[reason]) > 0 {
            let weight = outward(facts, newest.map(|s| s.ago_ms));
            found.push(
                Found::new(rank, cause, weight, text.into())
                    .evidence(facts.evidence(&[reason]))
                    .advice(advice),
            );
        }
    }
    found.extend(unreachable(facts));
    found.extend(path_mtu(facts));
    found.extend(forged_icmp(facts));
    found.extend(overload(facts));
    found
}

/// What this host had no room for: of this phone it may be why packets end, of
/// all since the start it is how things stand.
fn overload(facts: &Facts) -> Option<Found> {
    let newest = facts.seen(&OVERLOAD).next();
    if newest.is_none() && facts.host.is_empty() {
        return None;
    }
    let (weight, text) = match newest {
        Some(seen) => (
            outward(facts, Some(seen.ago_ms)),
            "This host has dropped packets of this phone that it had no room for.",
        ),
        None => (
            Weight::State,
            "This host has dropped packets that it had no room for, since the start and of all \
             phones.",
        ),
    };
    let counted = facts.host.iter();
    let counted = counted.map(|(reason, n)| format!("{}: {}", reason.name(), packets(*n)));
    Some(
        Found::new(40, "overload", weight, text.into())
            .evidence(facts.evidence(&OVERLOAD))
            .evidence(counted)
            .advice(
                "gmespctl stats shows rings and workers; gmespctl workers N gives more of them.",
            ),
    )
}

/// What the application sends and no SA takes.
fn no_sa(facts: &Facts) -> Option<Found> {
    const NO_SA: &[Reason] = &[Reason::OutNoSa];
    let newest = facts.seen(NO_SA).next();
    if newest.is_none() && facts.count(NO_SA) == 0 {
        return None;
    }
    let ports = newest.and_then(|s| s.sample.src_port.zip(s.sample.dst_port));
    let ports = ports.map_or_else(String::new, |(from, to)| {
        format!(" from port {from} to port {to}")
    });
    let outbound: Vec<String> = facts
        .sas(Dir::Out)
        .map(|row| {
            format!(
                "an SA carries {} to {}, {}",
                end(row.sa.src, row.sa.src_port),
                end(row.sa.dst, row.sa.dst_port),
                row.state
            )
        })
        .collect();
    let (text, advice) = if outbound.is_empty() {
        (
            format!(
                "An application of this host sends to the phone{ports}, a protected port, and the \
                 phone has no SA: nothing leaves."
            ),
            "Answers and calls go nowhere until the phone registers again. If SAs were there, \
             something has removed them: the log says what.",
        )
    } else {
        (
            format!(
                "An application of this host sends to the phone{ports}, and none of its active SAs \
                 is for these ports: nothing leaves."
            ),
            "Responses go from port_ps to port_uc, requests from port_pc to port_us (TS 33.203 \
             7.1); over TCP answers stay on their connection. An SA that stands by has to be \
             activated.",
        )
    };
    Some(
        Found::new(
            30,
            "out-no-sa",
            outward(facts, newest.map(|s| s.ago_ms)),
            text,
        )
        .evidence(facts.evidence(NO_SA))
        .evidence(outbound)
        .advice(advice),
    )
}

/// The network says that the phone is not there.
fn unreachable(facts: &Facts) -> Option<Found> {
    const GONE: &[Reason] = &[Reason::PeerUnreachable];
    let newest = facts.seen(GONE).next()?;
    let text =
        "The network answers with ICMP that the phone cannot be reached: what is sealed and \
                sent does not arrive."
            .into();
    Some(
        Found::new(
            23,
            "icmp-unreachable",
            facts.weigh(Some(newest.ago_ms)),
            text,
        )
        .evidence(facts.evidence(GONE))
        .advice(
            "Port unreachable: the phone has closed UDP 4500, or its NAT has forgotten it. \
                 Protocol unreachable: it knows no ESP, its SAs are gone. Host or network \
                 unreachable: it is gone; it registers again when it is back.",
        ),
    )
}

/// The network says how long packets may be.
fn path_mtu(facts: &Facts) -> Option<Found> {
    const MTU: &[Reason] = &[Reason::PathMtu];
    facts.seen(MTU).next()?;
    let text =
        "The way to the phone takes shorter packets than the uplink: what is sent is made to \
                fit."
            .into();
    Some(Found::new(33, "path-mtu", Weight::Hint, text).evidence(facts.evidence(MTU)))
}

/// ICMP errors that are not about what was sent.
fn forged_icmp(facts: &Facts) -> Option<Found> {
    const FORGED: &[Reason] = &[Reason::IcmpUnbelieved, Reason::ClearIcmp];
    if facts.seen(FORGED).next().is_none() && facts.count(FORGED) == 0 {
        return None;
    }
    let text = "ICMP errors arrive about packets that this host has not sent so: they change \
                nothing."
        .into();
    Some(
        Found::new(36, "icmp-unbelieved", Weight::Hint, text)
            .evidence(facts.evidence(FORGED))
            .advice("Forged, or about SAs that are gone."),
    )
}

/// How much something outbound matters: that good packets come in does not
/// mend it.
fn outward(facts: &Facts, ago_ms: Option<u64>) -> Weight {
    let alone = Facts {
        sas: Vec::new(),
        ..facts.clone()
    };
    alone.weigh(ago_ms)
}
