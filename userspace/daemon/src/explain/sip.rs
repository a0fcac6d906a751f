//! What the SIP side knows: challenged, registered, refused, ended. Where SAs
//! come from a file or the core's own proxy nothing is known, and nothing said.

use gm_api::drops::Weight;

use super::Found;
use super::facts::{Facts, Step};
use super::words::ago;

/// A challenge that is not answered in this time will not be.
const ANSWER_MS: u64 = 10_000;

/// Where the last registration stands: one finding at most.
pub(super) fn findings(facts: &Facts) -> Option<Found> {
    let last = facts.steps.iter().rev().find(|step| {
        let step = step.event.step.as_str();
        !matches!(
            step,
            "encap-port" | "path-mtu" | "seq-low" | "seq-exhausted" | "switched-over"
        )
    })?;
    let impi = last
        .event
        .impi
        .clone()
        .unwrap_or_else(|| "the phone".into());
    let when = ago(last.ago_ms);
    let found = match last.event.step.as_str() {
        "SM1" => Found::new(
            26,
            "no-challenge",
            if last.ago_ms > ANSWER_MS {
                Weight::Cause
            } else {
                Weight::State
            },
            format!("{impi} has sent a REGISTER {when}, and the core has not answered it yet."),
        )
        .advice(
            "Does the core get it, and is the next hop right? Its log, and [edge] in gmespd.toml.",
        ),
        "SM6" => Found::new(
            27,
            "challenge-unanswered",
            if last.ago_ms > ANSWER_MS {
                Weight::Cause
            } else {
                Weight::State
            },
            format!("{impi} was challenged {when}, and has not answered over its SAs."),
        )
        .advice(
            "The 401 did not reach the phone, the phone refused it (AUTN, algorithms), or its \
             answer, the first ESP, did not reach this host.",
        ),
        "SM7" if last.ago_ms > ANSWER_MS => Found::new(
            26,
            "no-decision",
            Weight::Cause,
            format!(
                "{impi} has answered its challenge over its SAs {when}, and the core has not \
                 decided yet."
            ),
        )
        .advice("Does the core get the second REGISTER? Its log, and [edge] in gmespd.toml."),
        "SM7" => Found::new(
            2,
            "answered",
            Weight::State,
            format!("{impi} has answered its challenge over its SAs {when}; the core decides."),
        ),
        "SM12" | "refreshed" => Found::new(
            2,
            "registered",
            Weight::State,
            format!("{impi} is registered, last {when}."),
        ),
        "refused" => Found::new(
            9,
            "refused",
            facts.weigh(Some(last.ago_ms)),
            format!(
                "A message of {impi} was refused {when}: {}.",
                last.event.reason.as_deref().unwrap_or("no reason known")
            ),
        )
        .evidence(last.event.explain.clone())
        .advice("README lists the refusals, each with the setting that matters."),
        "deregistered" => Found::new(
            2,
            "deregistered",
            Weight::State,
            format!("{impi} was de-registered {when}."),
        ),
        "removed" => removed(facts, last, &impi),
        _ => return None,
    };
    Some(found.evidence(trail(facts)))
}

fn removed(facts: &Facts, last: &Step, impi: &str) -> Found {
    let why = last.event.reason.as_deref().unwrap_or("removed");
    let weight = if facts.sas.is_empty() && why != "deregistered" {
        Weight::Hint
    } else {
        Weight::State
    };
    let text = format!("SAs of {impi} were removed {}: {why}.", ago(last.ago_ms));
    let found = Found::new(28, "sas-removed", weight, text);
    match why {
        "expired" => found.advice("The phone did not register again in time."),
        "unfinished" => found.advice(
            "The phone did not answer its challenge, or its answer did not reach this host.",
        ),
        _ => found,
    }
}

/// The last steps, the newest first.
fn trail(facts: &Facts) -> Vec<String> {
    let steps = facts.steps.iter().rev().take(4);
    steps
        .map(|step| {
            let event = &step.event;
            let mut line = format!("{}: {}", ago(step.ago_ms), event.step);
            if let Some(set) = event.set {
                line += &format!(", set {set}");
            }
            if let Some(status) = event.status {
                line += &format!(", {status}");
            }
            if let Some(reason) = &event.reason {
                line += &format!(", {reason}");
            }
            line
        })
        .collect()
}
