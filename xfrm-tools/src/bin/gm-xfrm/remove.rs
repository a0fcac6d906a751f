//! `remove`: SAs out of the kernel.

use std::path::PathBuf;

use clap::Args;
use gm_xfrm::kernel::Xfrm;
use gm_xfrm::kernel::plan::{self, Plan, SA_PRIORITY};
use gm_xfrm::kernel::sets::{self, Done};

use crate::common::{Failure, unreadable};
use crate::install::{open, plans, refused, report};

const HELP: &str = "\
States go first, so that nothing leaves in the clear while their policies are
still there. Outbound policies that lead to other SAs by now stay, and inbound
ones that another SA of ours shares. What other programs made is not touched.

--all removes every state and policy that this project made, those of a running
gmespd with data_plane = \"kernel\" too: its phones then have to register again.

Examples:
  gm-xfrm remove --sad SAD.toml
  gm-xfrm remove --all";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct RemoveArgs {
    /// The security associations; - for standard input
    #[arg(long, value_name = "SAD.toml", required_unless_present = "all")]
    sad: Option<PathBuf>,
    /// All that this project has in the kernel, but for what blocks cleartext
    #[arg(long, conflicts_with = "sad")]
    all: bool,
    /// Print one JSON object instead of a line
    #[arg(long)]
    json: bool,
}

pub fn run(args: &RemoveArgs) -> Result<(), Failure> {
    let done = match &args.sad {
        Some(sad) => these(&plans(sad)?)?,
        None => all(&mut open()?)?,
    };
    report(args.json, "removed", "were gone", done)
}

fn these(plans: &[Plan]) -> Result<Done, Failure> {
    let mut xfrm = open()?;
    let states = xfrm.states().map_err(refused)?;
    sets::remove(&mut xfrm, plans, sets::shared(&states, plans)).map_err(unreadable)
}

fn all(xfrm: &mut Xfrm) -> Result<Done, Failure> {
    let mut done = Done::default();
    let states = xfrm.states().map_err(refused)?;
    for state in states.iter().filter(|state| plan::is_our_state(state)) {
        match xfrm.delete_state_with(state.id, state.mark) {
            Ok(()) => done.states += 1,
            Err(e) if e.is_missing() => done.kept += 1,
            Err(e) => return Err(refused(e)),
        }
    }
    let policies = xfrm.policies().map_err(refused)?;
    for policy in policies.iter().filter(|p| p.priority == SA_PRIORITY) {
        match xfrm.delete_policy(&policy.id) {
            Ok(()) => done.policies += 1,
            Err(e) if e.is_missing() => done.kept += 1,
            Err(e) => return Err(refused(e)),
        }
    }
    Ok(done)
}
