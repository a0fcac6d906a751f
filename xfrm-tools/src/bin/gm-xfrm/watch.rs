//! `watch`: what happens in the kernel, as it happens.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use gm_xfrm::kernel::{Event, Topic, Watch};
use serde::Serialize;

use crate::common::{Failure, json_line, print_to_reader};
use crate::install::refused;
use crate::rows::{PolicyRow, StateRow, policy_line};

const HELP: &str = "\
One line for each event: states and policies made, changed, removed, expired,
and phones behind a NAT that come from another port. Keys are never shown.
Ends with Ctrl-C, or after --count events.

Examples:
  gm-xfrm watch
  gm-xfrm watch --json | jq 'select(.event == \"state-removed\")'";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct WatchArgs {
    /// Print JSON objects, one on a line
    #[arg(long)]
    json: bool,
    /// Sequence numbers, too: the kernel tells them after every second packet
    #[arg(long)]
    numbers: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// An event, for programs.
#[derive(Default, Serialize)]
struct Row {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    spi: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<StateRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<(IpAddr, u16)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<(IpAddr, u16)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<u64>,
}

pub fn run(args: &WatchArgs) -> Result<(), Failure> {
    let mut topics = vec![
        Topic::States,
        Topic::Policies,
        Topic::Expiry,
        Topic::Mappings,
    ];
    if args.numbers {
        topics.push(Topic::Numbers);
    }
    let mut watch = Watch::open(&topics).map_err(refused)?;
    let mut left = args.count;
    while left != Some(0) {
        // A reader of ours that has gone is noticed at the next line.
        let Some(event) = watch
            .next(Some(Duration::from_secs(3600)))
            .map_err(refused)?
        else {
            continue;
        };
        let (row, line) = shown(&event);
        let heard = match args.json {
            true => print_to_reader(&json_line(&row)?)?,
            false => print_to_reader(&(line + "\n"))?,
        };
        if !heard {
            break;
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn shown(event: &Event) -> (Row, String) {
    let state = |name: &'static str, state: &gm_xfrm::kernel::State| {
        let row = StateRow::of(state, false);
        let line = format!(
            "{name} {}: {} {} {}, sent {}, seen {}",
            state.id,
            state.wrap,
            row.suite(),
            state.selector,
            state.numbers.seq,
            state.numbers.top
        );
        let row = Row {
            event: name,
            spi: Some(state.id.spi),
            dst: Some(state.id.dst),
            state: Some(row),
            ..Row::default()
        };
        (row, line)
    };
    let policy = |name: &'static str, policy: &gm_xfrm::kernel::Policy| {
        let row = Row {
            event: name,
            policy: Some(PolicyRow::of(policy)),
            ..Row::default()
        };
        (row, format!("{name} {}", policy_line(policy)))
    };
    let named = |name: &'static str, id: &gm_xfrm::kernel::StateId| {
        let row = Row {
            event: name,
            spi: Some(id.spi),
            dst: Some(id.dst),
            ..Row::default()
        };
        (row, format!("{name} {id}"))
    };
    let bare = |name: &'static str| {
        let row = Row {
            event: name,
            ..Row::default()
        };
        (row, name.to_string())
    };
    match event {
        Event::StateAdded(new) => state("state-added", new),
        Event::StateUpdated(new) => state("state-updated", new),
        Event::StateRemoved {
            last: Some(last), ..
        } => state("state-removed", last),
        Event::StateRemoved { id, last: None } => named("state-removed", id),
        Event::StateExpired { id, hard } => {
            let (row, line) = named("state-expired", id);
            let line = line + if *hard { ", it is gone" } else { "" };
            let hard = Some(*hard);
            (Row { hard, ..row }, line)
        }
        Event::StatesFlushed => bare("states-flushed"),
        Event::PolicyAdded(new) => policy("policy-added", new),
        Event::PolicyUpdated(new) => policy("policy-updated", new),
        Event::PolicyRemoved(id) => {
            let row = Row {
                event: "policy-removed",
                removed_policy: Some(id.to_string()),
                ..Row::default()
            };
            (row, format!("policy-removed {id}"))
        }
        Event::PoliciesFlushed => bare("policies-flushed"),
        Event::Mapping { id, old, new, .. } => {
            let (row, line) = named("mapping", id);
            let line = format!(
                "{line}: from {} port {} to {} port {}",
                old.0, old.1, new.0, new.1
            );
            let (old, new) = (Some(*old), Some(*new));
            (Row { old, new, ..row }, line)
        }
        Event::Numbers { id, numbers } => {
            let (row, line) = named("numbers", id);
            let line = format!("{line}: sent {}, seen {}", numbers.seq, numbers.top);
            let (seq, top) = (Some(numbers.seq), Some(numbers.top));
            (Row { seq, top, ..row }, line)
        }
        Event::Wanted { selector } => {
            let (row, line) = bare("wanted");
            (row, format!("{line} a state for {selector}"))
        }
        Event::Lost => bare("lost"),
    }
}
