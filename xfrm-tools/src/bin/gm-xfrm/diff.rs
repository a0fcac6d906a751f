//! `diff`: a SAD.toml and the kernel.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use gm_xfrm::kernel::diff::{Difference, diff};
use serde::Serialize;

use crate::common::{Failure, print, print_json};
use crate::install::{open, plans, refused};

const HELP: &str = "\
One line for each difference: missing (in the file only), extra (in the kernel
only, and made by this project), differs (with the parts that do). Sequence
numbers, counters and a phone's learnt UDP port are no differences. Keys are
compared and not shown.

Exit codes: 0 no difference; 1 differences; 2 they could not be compared.

Example:
  gm-xfrm diff --sad SAD.toml || gm-xfrm install --sad SAD.toml";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct DiffArgs {
    /// The security associations; - for standard input
    #[arg(long, value_name = "SAD.toml")]
    sad: PathBuf,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Reply {
    differences: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    kind: &'static str,
    /// "state" or "policy".
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    spi: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    parts: Vec<&'static str>,
}

impl Row {
    fn of(difference: &Difference) -> Row {
        let (state, policy) = match difference {
            Difference::StateMissing(id)
            | Difference::StateDiffers(id, _)
            | Difference::StateExtra(id) => (Some(id), None),
            Difference::PolicyMissing(id)
            | Difference::PolicyDiffers(id, _)
            | Difference::PolicyExtra(id) => (None, Some(id.to_string())),
        };
        Row {
            kind: difference.kind(),
            what: if state.is_some() { "state" } else { "policy" },
            spi: state.map(|id| id.spi),
            dst: state.map(|id| id.dst),
            policy,
            parts: difference.parts().to_vec(),
        }
    }
}

pub fn run(args: &DiffArgs) -> Result<ExitCode, Failure> {
    // 1 says that they differ.
    let trouble = |failure: Failure| Failure { code: 2, ..failure };
    let found = differences(args).map_err(trouble)?;
    if args.json {
        let differences = found.iter().map(Row::of).collect();
        print_json(&Reply { differences }).map_err(trouble)?;
    } else {
        let lines: String = found.iter().map(|d| format!("{d}\n")).collect();
        print(&lines).map_err(trouble)?;
    }
    Ok(ExitCode::from(u8::from(!found.is_empty())))
}

fn differences(args: &DiffArgs) -> Result<Vec<Difference>, Failure> {
    let plans = plans(&args.sad)?;
    let mut xfrm = open()?;
    let states = xfrm.states().map_err(refused)?;
    let policies = xfrm.policies().map_err(refused)?;
    Ok(diff(&plans, &states, &policies))
}
