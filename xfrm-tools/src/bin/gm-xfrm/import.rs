//! `gm-xfrm import`: what is in the kernel as SAD.toml.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use gm_xfrm::output::is_stdio;
use gm_xfrm::{group, import};

use crate::common::{Failure, misuse, say, unreadable};
use crate::export::{kernel, local, report, write};

const HELP: &str = "\
Reads the ESP states and policies of this network namespace, whoever made them
(Kamailio, OpenSIPS, ip xfrm, gmesp), and writes those that are SAs of Gm. Each
set of a registration has a number. The keys are those of ESP, not IK and CK.

seq is the next number to send, and for an inbound SA the first to accept: what
came late would come too late. The kernel's SAs go on and change their numbers:
stop what uses them first, or let gm-xfrm adopt move them under traffic.

Examples:
  gm-xfrm import --out SAD.toml
  gmespctl sa add --file SAD.toml";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct ImportArgs {
    /// Where the SAs go, with keys, made with mode 0600; - for standard output
    #[arg(long, value_name = "SAD.toml")]
    pub out: PathBuf,
    /// Needed for standard output
    #[arg(long)]
    pub show_keys: bool,
    /// An address of this host, for SAs of which nothing says the direction; may be given several times [default: those that it can bind to]
    #[arg(long, value_name = "ADDRESS")]
    pub local: Vec<IpAddr>,
}

pub fn run(args: &ImportArgs) -> Result<(), Failure> {
    if is_stdio(&args.out) && !args.show_keys {
        return Err(misuse(
            "SAD.toml is nothing without its keys; give --out a file, or --show-keys",
        ));
    }
    let (states, policies) = kernel()?;
    let grouped = group::group(&states, &policies, local(&args.local));
    let (text, remarks) = import::file(&grouped).map_err(unreadable)?;
    report(&grouped);
    for remark in remarks {
        say(&remark);
    }
    write(&args.out, &text, true)
}
