//! What comes from the phone and ends here.

use std::collections::BTreeSet;

use gm_api::drops::Weight;
use gm_api::sad::Dir;
use gm_dataplane::Reason;

use super::Found;
use super::facts::{Facts, Gone, Seen, dropped};
use super::hit::{hit, weigh};
use super::keys;
use super::words::{ago, end, span, spi};

/// SPIs that gmesp chooses begin here (ten digits).
const OWN_SPIS: u32 = 1_000_000_000;

/// SPIs that one phone's findings name, at most.
const SPIS: usize = 4;

/// All findings about what comes in.
pub(super) fn findings(facts: &Facts) -> Vec<Found> {
    let mut found = unknown_spis(facts);
    found.extend(mode(facts));
    found.extend(keys::finding(facts));
    found.extend(numbers(facts));
    found.extend(cleartext(facts));
    found.extend(selector(facts));
    found.extend(fragments(facts));
    found.extend(malformed(facts));
    found
}

/// ESP for SAs that are no more, or never were.
fn unknown_spis(facts: &Facts) -> Vec<Found> {
    const UNKNOWN: &[Reason] = &[Reason::UnknownSpi];
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for seen in facts.seen(UNKNOWN) {
        let Some(number) = seen.sample.spi else {
            continue;
        };
        if told.len() >= SPIS || !told.insert(number) {
            continue;
        }
        let was = |gone: &&Gone| gone.spi == number && gone.dir == Dir::In;
        let weight = facts.weigh(Some(seen.ago_ms));
        found.push(match facts.gone.iter().find(was) {
            Some(gone) => deleted(facts, seen, gone, weight),
            None => never_known(facts, number, weight),
        });
    }
    if found.is_empty() && facts.count(UNKNOWN) > 0 {
        let text = "ESP has come with SPIs that nobody here knows; no sample of it is left.".into();
        found.push(
            Found::new(21, "unknown-spi", Weight::Hint, text).evidence(facts.evidence(UNKNOWN)),
        );
    }
    found
}

fn deleted(facts: &Facts, seen: &Seen, gone: &Gone, weight: Weight) -> Found {
    let set = gone.set.map_or_else(String::new, |n| format!(", set {n}"));
    let why = match gone.why.as_deref() {
        Some("expired") => ": its life had ended",
        Some("replaced") => ": a newer set had taken over",
        Some("deregistered") => ": the phone was de-registered",
        Some("unfinished") => ": the registration was not finished in time",
        Some("aborted") => ": a newer challenge or a failure ended it",
        _ => "",
    };
    let text = format!(
        "ESP arrives with {} that was deleted {}{set}{why}.",
        spi(gone.spi),
        ago(gone.ago_ms)
    );
    Found::new(10, "deleted-spi", weight, text)
        .evidence([super::words::seen(seen), super::words::gone(gone)])
        .evidence(facts.evidence(&[Reason::UnknownSpi]).into_iter().skip(1))
        .advice(
            "The phone believes that its registration is alive: it has to register again, which it \
             does when nobody answers. If this happens often, compare its registration's life with \
             the core's, and look at the log for what ended the set.",
        )
}

fn never_known(facts: &Facts, number: u32, weight: Weight) -> Found {
    let up = span(facts.uptime_ms);
    let mut guess: String = if number >= OWN_SPIS {
        format!(
            "It looks like an SPI of a gmespd: of this one before it was started {up} ago, or of \
             another P-CSCF."
        )
    } else {
        "It does not look like an SPI of gmespd's: another P-CSCF's, an SAD.toml that is not \
         installed, or a forgery."
            .into()
    };
    let text = match facts.remembered_ms {
        None => format!(
            "ESP arrives with {}, which nobody here has known since the start {up} ago. {guess}",
            spi(number)
        ),
        // The memory of what was removed has an end.
        Some(ms) => {
            let back = span(ms);
            if number >= OWN_SPIS {
                guess = format!(
                    "It may be of an SA that was removed more than {back} ago, of this gmespd \
                     before it was started {up} ago, or of another P-CSCF."
                );
            }
            format!(
                "ESP arrives with {}, which is of no SA here and of none that was removed in the \
                 last {back}. {guess}",
                spi(number)
            )
        }
    };
    Found::new(11, "unknown-spi", weight, text)
        .evidence(facts.evidence(&[Reason::UnknownSpi]))
        .advice(
            "After a restart phones find out when nobody answers, and register again. If they do \
             not: does the name that they registered with still lead here?",
        )
}

/// Raw ESP for an SA in UDP, or the reverse.
fn mode(facts: &Facts) -> Option<Found> {
    const MODE: &[Reason] = &[Reason::ModeMismatch];
    let newest = facts.seen(MODE).next();
    let row = hit(facts, newest, MODE);
    if newest.is_none() && row.is_none() {
        return None;
    }
    let in_udp = row.map(|row| row.sa.mode == "udp-enc-tun");
    let text = match in_udp.or_else(|| newest.map(|seen| seen.sample.proto == 50)) {
        Some(true) => {
            "Raw ESP arrives for an SA of UDP-encapsulated tunnel mode: the registration saw a NAT, \
             and the phone sends past it, or does not know of it."
        }
        _ => {
            "ESP in UDP arrives for an SA of transport mode: there is a NAT on the way that the \
             registration did not see."
        }
    };
    let weight = weigh(facts, newest, row);
    Some(
        Found::new(12, "mode-mismatch", weight, text.into())
            .evidence(facts.evidence(MODE))
            .advice(
                "The phone has to register again, so that the NAT is looked for anew: the address in \
                 its Via is compared with the source of its REGISTER. An ALG that rewrites Via hides \
                 the NAT: switch it off.",
            ),
    )
}

/// Numbers that come twice or too late.
fn numbers(facts: &Facts) -> Option<Found> {
    const NUMBERS: &[Reason] = &[Reason::Replay, Reason::Stale];
    let newest = facts.seen(NUMBERS).next();
    let row = hit(facts, newest, NUMBERS);
    if newest.is_none() && row.is_none() {
        return None;
    }
    let count = |reason| match row {
        Some(row) => dropped(row, &[reason]),
        None => facts.count(&[reason]),
    };
    let (replay, stale) = (count(Reason::Replay), count(Reason::Stale));
    let top = row.map_or(0, |row| row.top);
    let seq = newest.and_then(|s| s.sample.seq).unwrap_or(0);
    let weight = weigh(facts, newest, row);
    let restarted = top > 0
        // Of extended numbers a sample has the low half only.
        && row.is_some_and(|row| !row.sa.esn)
        && u64::from(seq) < top / 2
        && facts.weigh(newest.map(|s| s.ago_ms)) == Weight::Cause;
    let (cause, text) = if restarted {
        let text = format!(
            "The phone sends sequence numbers far below those that it has used (now {seq}, the \
             highest was {top}): it has begun to count anew on the same SA, or recorded packets are \
             played again."
        );
        ("counter-restarted", text)
    } else if stale > replay {
        let window = row.map_or(0, |row| row.sa.replay_window);
        let text = format!(
            "Packets come later than the replay window of {window} numbers is wide: the network \
             delays or reorders them."
        );
        ("stale", text)
    } else {
        let text = "Packets come twice: a path or an interface doubles them, or somebody plays \
                    recorded ones again."
            .into();
        ("replay", text)
    };
    let numbers = row.map(|row| format!("highest number accepted on {}: {top}", spi(row.sa.spi)));
    Some(
        Found::new(15, cause, weight, text)
            .evidence(facts.evidence(NUMBERS))
            .evidence(numbers)
            .advice(match cause {
                "counter-restarted" => "A phone that has lost its counter has to register again.",
                "stale" => "Raise replay_window if the network reorders that much.",
                _ => "Copies cost nothing. Look for a mirror port, a bonding or a bridge loop.",
            }),
    )
}

/// Cleartext to a protected port.
fn cleartext(facts: &Facts) -> Option<Found> {
    const CLEAR: &[Reason] = &[Reason::CleartextProtected];
    let newest = facts.seen(CLEAR).next();
    if newest.is_none() && facts.count(CLEAR) == 0 {
        return None;
    }
    let port = newest.and_then(|s| s.sample.dst_port);
    let port = port.map_or_else(|| "a protected port".into(), |port| format!("port {port}"));
    let weight = weigh(facts, newest, None);
    let evidence = facts.evidence(CLEAR);
    Some(if facts.sas.is_empty() {
        let text = format!(
            "Cleartext arrives on {port}, which is protected, from a phone that has no SAs."
        );
        Found::new(17, "cleartext-without-sas", weight, text)
            .evidence(evidence)
            .advice(
                "The phone has to register first, in clear to the unprotected port of the edge. If \
                 it has registered: its SAs are gone here, and it should have noticed.",
            )
    } else {
        let text = format!("Cleartext arrives on {port} from a phone that has SAs.");
        Found::new(16, "cleartext-with-sas", weight, text)
            .evidence(evidence)
            .advice(
                "The phone does not seal what it sends there: its SAs were not set up, its policy \
                 has other ports, or somebody uses its address. What protected ports get in clear \
                 is never delivered (TS 33.203 7.1).",
            )
    })
}

/// Opened, but not for the SA's ports or addresses.
fn selector(facts: &Facts) -> Option<Found> {
    const SELECTOR: &[Reason] = &[Reason::SelectorMismatch];
    let newest = facts.seen(SELECTOR).next();
    let row = hit(facts, newest, SELECTOR);
    if newest.is_none() && row.is_none() {
        return None;
    }
    let wanted = row.map_or_else(String::new, |row| {
        format!(
            " The SA carries {} to {} only.",
            end(row.sa.src, row.sa.src_port),
            end(row.sa.dst, row.sa.dst_port)
        )
    });
    let inside = newest.and_then(|s| s.sample.src_port.zip(s.sample.dst_port));
    let inside = inside.filter(|_| newest.is_some_and(|s| s.sample.proto != 50));
    let inside = inside.filter(|(_, to)| *to != facts.encap_port);
    let inside = inside.map_or_else(String::new, |(from, to)| {
        format!(" (from port {from} to port {to})")
    });
    let text = format!(
        "ESP verifies, but what is inside is not for this SA's addresses and ports{inside}.{wanted}"
    );
    Some(
        Found::new(13, "selector-mismatch", weigh(facts, newest, row), text)
            .evidence(facts.evidence(SELECTOR))
            .advice(
                "Client and server port swapped, another port than the one in Security-Client, or a \
                 NAT in transport mode that changes the address: compare with gmespctl sa list.",
            ),
    )
}

/// Fragments that come to nothing.
fn fragments(facts: &Facts) -> Option<Found> {
    const LOST: &[Reason] = &[Reason::FragmentTimeout, Reason::FragmentOverlap];
    const MUCH: &[Reason] = &[Reason::FragmentLimit, Reason::FragmentRate];
    let all: Vec<Reason> = LOST.iter().chain(MUCH).copied().collect();
    let newest = facts.seen(&all).next();
    if newest.is_none() && facts.count(&all) == 0 {
        return None;
    }
    let weight = weigh(facts, newest, None);
    let is_much = newest.map_or(facts.count(MUCH) > facts.count(LOST), |s| {
        MUCH.contains(&s.sample.reason)
    });
    let evidence = facts.evidence(&all);
    Some(if is_much {
        let text = "More fragments arrive than are taken: those over the bound are dropped.".into();
        Found::new(19, "fragments-limited", weight, text)
            .evidence(evidence)
            .advice(
                "A flood, or a phone whose datagrams never become whole. Others are not affected.",
            )
    } else {
        let text =
            "Fragments arrive whose datagram never becomes whole: some of them are lost on the way."
                .into();
        Found::new(18, "fragments-lost", weight, text)
            .evidence(evidence)
            .advice(
                "Many firewalls and NATs drop fragments, all but the first. Let the phone use TCP, \
                 or smaller messages: a protected REGISTER is 1.4 to 2.1 kB.",
            )
    })
}

/// What is no packet.
fn malformed(facts: &Facts) -> Option<Found> {
    const BROKEN: &[Reason] = &[Reason::Malformed, Reason::NotEsp, Reason::Dummy];
    let newest = facts.seen(BROKEN).next();
    let row = hit(facts, newest, BROKEN);
    if newest.is_none() && row.is_none() && facts.count(BROKEN) == 0 {
        return None;
    }
    let text = "Packets arrive whose lengths contradict each other, or that carry nothing.".into();
    Some(
        Found::new(20, "malformed", weigh(facts, newest, row), text)
            .evidence(facts.evidence(BROKEN))
            .advice("A broken sender, a middlebox that cuts packets, or an attack."),
    )
}
