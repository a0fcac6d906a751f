//! `list`: what is in the kernel.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use gm_xfrm::kernel::plan::{is_our_policy, is_our_state};
use gm_xfrm::kernel::{Policy, State};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::common::{Failure, print, print_json};
use crate::install::{open, refused};
use crate::rows::{HEADS, PolicyRow, StateRow, policy_line};

const HELP: &str = "\
SENT is the last sequence number sent, SEEN the highest one received. IDLE is
the time since the last packet. OURS: made by this project (reqids from
0x676d0000 on), not by another program.

Keys are shown with --show-keys only: with --json beside each state, else in
lines below the table. Mind where they go.

Examples:
  gm-xfrm list --ours
  gm-xfrm list --json | jq '.states[] | select(.icv_failed > 0) | .spi'";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct ListArgs {
    /// Only what this project has made
    #[arg(long)]
    ours: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Print the keys, too
    #[arg(long)]
    show_keys: bool,
}

#[derive(Serialize)]
struct Reply {
    states: Vec<StateRow>,
    policies: Vec<PolicyRow>,
}

pub fn run(args: &ListArgs) -> Result<(), Failure> {
    let mut xfrm = open()?;
    let mut states = xfrm.states().map_err(refused)?;
    let mut policies = xfrm.policies().map_err(refused)?;
    states.retain(|state| !args.ours || is_our_state(state));
    policies.retain(|policy| !args.ours || is_our_policy(policy));
    states.sort_by_key(|state| (state.reqid, state.id.spi));
    policies.sort_by_key(|policy| (policy.priority, policy.id.selector, policy.id.dir));
    if args.json {
        return print_json(&Reply {
            states: states
                .iter()
                .map(|state| StateRow::of(state, args.show_keys))
                .collect(),
            policies: policies.iter().map(PolicyRow::of).collect(),
        });
    }
    print(&text(&states, &policies, args.show_keys))
}

fn text(states: &[State], policies: &[Policy], show_keys: bool) -> Zeroizing<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |time| time.as_secs());
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(HEADS);
    for state in states {
        table.add_row(StateRow::of(state, false).cells(now));
    }
    let mut text = Zeroizing::new(String::with_capacity(4096 + 512 * states.len()));
    if states.is_empty() {
        text.push_str("no states\n");
    } else {
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text.push('\n');
    if policies.is_empty() {
        text.push_str("no policies\n");
    }
    for policy in policies {
        text.push_str(&policy_line(policy));
        text.push('\n');
    }
    if show_keys {
        // Room for all keys, so that none is left in a buffer that was too small.
        text.reserve(1 + 1024 * states.len());
        text.push('\n');
        for state in states {
            let all = &state.algorithms;
            for algorithm in [&all.auth, &all.crypt, &all.aead].into_iter().flatten() {
                let key = Zeroizing::new(hex::encode(algorithm.key.bytes()));
                text.push_str(&format!("{}: {}: ", state.id, algorithm.name));
                text.push_str(&key);
                text.push('\n');
            }
        }
    }
    text
}
