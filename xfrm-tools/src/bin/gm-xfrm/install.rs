//! `install`: SAs of a SAD.toml into the kernel.

use std::path::{Path, PathBuf};

use clap::Args;
use gm_xfrm::kernel::plan::{self, Plan};
use gm_xfrm::kernel::sets::{self, Done, With};
use gm_xfrm::kernel::{Xfrm, XfrmError};
use serde::Serialize;

use crate::common::{Failure, load, misuse, print, print_json, unreadable};

const HELP: &str = "\
Each table of SAD.toml needs dir = \"in\" or \"out\": which way this host uses it.
An SA becomes one state and two policies, for UDP and for TCP, with exactly its
addresses and ports; states of ours have reqids from 0x676d0000 on, policies of
ours the priority 26477. The same again changes nothing; sequence numbers that
have gone on stay. When one SA cannot be installed, what was installed before it
is removed again. See 'gm-xfrm pcap --help' for SAD.toml.

UDP-encapsulated tunnels also need a program that holds UDP port 4500 with the
socket option UDP_ENCAP, and packets that no policy is for pass in the clear:
gmespd with data_plane = \"kernel\" sees to both.

Example:
  gm-xfrm install --sad SAD.toml && gm-xfrm list";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct InstallArgs {
    /// The security associations; - for standard input
    #[arg(long, value_name = "SAD.toml")]
    sad: PathBuf,
    /// Print one JSON object instead of a line
    #[arg(long)]
    json: bool,
}

/// What was done, for programs.
#[derive(Serialize)]
struct Reply {
    states: usize,
    policies: usize,
    kept: usize,
}

pub fn run(args: &InstallArgs) -> Result<(), Failure> {
    let plans = plans(&args.sad)?;
    let mut xfrm = open()?;
    let done = sets::install(&mut xfrm, &plans, With::AllPolicies).map_err(unreadable)?;
    report(args.json, "installed", "were there", done)
}

pub fn open() -> Result<Xfrm, Failure> {
    Xfrm::open().map_err(refused)
}

pub fn refused(error: XfrmError) -> Failure {
    unreadable(error)
}

/// What the kernel is to have of a file's SAs.
pub fn plans(sad: &Path) -> Result<Vec<Plan>, Failure> {
    let sad = load(sad)?;
    let plan = |entry| {
        plan::entry(entry)
            .map_err(|e| misuse(format!("{}: [[sa]] #{}: {e}", sad.name, entry.table)))
    };
    sad.entries.iter().map(plan).collect()
}

pub fn report(json: bool, verb: &str, kept: &str, done: Done) -> Result<(), Failure> {
    if json {
        return print_json(&Reply {
            states: done.states,
            policies: done.policies,
            kept: done.kept,
        });
    }
    print(&format!(
        "{verb}: {} states and {} policies; {} {kept} already or are needed by others\n",
        done.states, done.policies, done.kept
    ))
}
