//! `adopt` and `give-back`: gmespd takes over the SAs that another P-CSCF has
//! in the kernel, and gives them back. gmespd does it; this asks.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use gm_api::control::DEFAULT_SOCKET;
use gm_api::sad::Dir;
use gm_api::transfer::{TransferReply, TransferRequest, TransferSet};
use gmespctl::client::{Client, ClientError};

use crate::common::{Failure, print, print_json, say, unreadable};

pub const HELP: &str = "\
gmespd has to run beside the other P-CSCF, on the same addresses and protected
ports, with kernel_sas = true in [gm]. The SAs move with their sequence numbers
and replay windows while traffic goes on: no packet is lost, none is accepted
twice, no number is used twice. Sets move one after the other, each whole or not
at all. An error ends it; what has moved before stays moved.

Examples:
  gm-xfrm adopt --dry-run
  gm-xfrm adopt --phone 198.51.100.10
  gm-xfrm adopt";

pub const BACK_HELP: &str = "\
What was taken over goes back under traffic: states and policies as they were,
with the numbers of now. Outbound ones go on 1024 further; inbound ones get a
replay window of 4096. gmespd does the same by itself before an orderly end. What
was taken over by a gmespd that has died is known to nobody any more.

Examples:
  gm-xfrm give-back --dry-run
  gm-xfrm give-back --spi 2831146962";

/// Sets that are asked for at a time, so that there is progress to tell.
const AT_A_TIME: usize = 16;

#[derive(Args)]
pub struct TransferArgs {
    /// Only this phone's SAs, by its address as SIP sees it; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    phone: Vec<IpAddr>,
    /// Only the set that has this SPI; may be given several times
    #[arg(long, value_name = "SPI", value_parser = spi)]
    spi: Vec<u32>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// gmespd's control socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the kernel.
    Here,
    /// To it.
    Back,
}

fn spi(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "must be an SPI, in decimal or as 0x...".to_string())
}

pub fn run(args: &TransferArgs, way: Way) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| unreadable(format!("cannot start: {e}")))?;
    let client = Client::new(&args.socket);
    let mut all = TransferReply::default();
    let ended = runtime.block_on(move_all(args, way, &client, &mut all));
    if args.json {
        print_json(&all)?;
    } else {
        report(args, way, &all)?;
    }
    ended.map_err(unreadable)
}

/// Asks for some sets at a time until none is left.
async fn move_all(
    args: &TransferArgs,
    way: Way,
    client: &Client,
    all: &mut TransferReply,
) -> Result<(), ClientError> {
    let request = TransferRequest {
        dry_run: args.dry_run,
        phones: args.phone.clone(),
        spis: args.spi.clone(),
        limit: (!args.dry_run).then_some(AT_A_TIME),
    };
    let mut told = HashSet::new();
    loop {
        let reply = match way {
            Way::Here => client.adopt(&request).await?,
            Way::Back => client.give_back(&request).await?,
        };
        let moved = reply.sets.len();
        all.sets.extend(reply.sets);
        all.remaining = reply.remaining;
        all.left_out = reply.left_out;
        let new = reply.warnings.into_iter();
        all.warnings.extend(new.filter(|w| told.insert(w.clone())));
        if all.remaining == 0 || moved == 0 {
            return Ok(());
        }
        say(&format!(
            "{} of {} sets",
            all.sets.len(),
            all.sets.len() + all.remaining
        ));
    }
}

fn report(args: &TransferArgs, way: Way, all: &TransferReply) -> Result<(), Failure> {
    let mut text = String::new();
    for set in &all.sets {
        text += &line(set);
    }
    for left in &all.left_out {
        text += &format!("left: SPI {} to {}: {}\n", left.spi, left.dst, left.why);
    }
    for warning in &all.warnings {
        say(&format!("warning: {warning}"));
    }
    let done = match (args.dry_run, way) {
        (true, Way::Here) => "would be taken over from the kernel",
        (true, Way::Back) => "would be given back to the kernel",
        (false, Way::Here) => "taken over from the kernel",
        (false, Way::Back) => "given back to the kernel",
    };
    let sas: usize = all.sets.iter().map(|set| set.sas.len()).sum();
    text += &format!(
        "{} sets with {sas} SAs {done}, {} SAs left\n",
        all.sets.len(),
        all.left_out.len()
    );
    print(&text)
}

/// One line for a set: `set 10001 198.51.100.10 null/aes-gcm trans: in 4711 (17), out 815 (3)`.
fn line(set: &TransferSet) -> String {
    let number = set.set.map_or_else(String::new, |n| format!("set {n} "));
    let sas = set.sas.iter().map(|sa| {
        let dir = match sa.dir {
            Dir::In => "in",
            Dir::Out => "out",
        };
        format!("{dir} {} ({})", sa.spi, sa.last)
    });
    let sas: Vec<String> = sas.collect();
    format!(
        "{number}{} {} {}: {}\n",
        set.phone,
        set.suite,
        set.mode,
        sas.join(", ")
    )
}
