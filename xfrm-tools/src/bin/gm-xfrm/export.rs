//! `gm-xfrm export`: SAs in the forms that other programs read.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use gm_api::sad::{Dir, SadEntry};
use gm_xfrm::export::{ip_xfrm, json, wireshark};
use gm_xfrm::group::{self, Grouped};
use gm_xfrm::kernel::{Policy, State, Xfrm, plan};
use gm_xfrm::output::{Output, Secrecy, is_stdio};
use zeroize::Zeroizing;

use crate::common::{Failure, create, distinct, finish, load, misuse, say, unreadable};

const HELP: &str = "\
Formats:
  ip-xfrm    commands of iproute2: ip -batch FILE makes the states and policies
  wireshark  Wireshark's file esp_sa; it has no AES-GMAC and no extended
             sequence numbers (gm-xfrm pcap open has both)
  json       {\"sas\": [...], \"left_out\": [...]}, an SA with the keys of SAD.toml

ip-xfrm and wireshark are nothing without keys and want --show-keys; json has
keys with it only. A file is made with mode 0600.

Examples:
  gm-xfrm export --format json
  gm-xfrm export --sad SAD.toml --format wireshark --show-keys --out esp_sa
  gm-xfrm export --sad SAD.toml --format ip-xfrm --show-keys | ip -batch -
  gm-xfrm export --sad SAD.toml --peer --format ip-xfrm --show-keys --out phone.batch";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct ExportArgs {
    /// SAs of a file, instead of those in the kernel; - for standard input
    #[arg(long, value_name = "SAD.toml")]
    pub sad: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum)]
    pub format: Format,
    /// Where it goes, made with mode 0600; - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub out: PathBuf,
    /// Write keys, with which everyone can read and forge what the SAs protect
    #[arg(long)]
    pub show_keys: bool,
    /// As the other end has the file's SAs: in is out, out is in
    #[arg(long, requires = "sad")]
    pub peer: bool,
    /// An address of this host, for SAs of which nothing says the direction; may be given several times [default: those that it can bind to]
    #[arg(long, value_name = "ADDRESS")]
    pub local: Vec<IpAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    IpXfrm,
    Wireshark,
    Json,
}

pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    if !args.show_keys && args.format != Format::Json {
        return Err(misuse(
            "this format is nothing without its keys; give --show-keys, and keep what comes \
             out to yourself",
        ));
    }
    if let Some(sad) = &args.sad {
        distinct("--out", &args.out, &[("--sad", sad)])?;
    }
    let text = match &args.sad {
        Some(path) => of_file(args, path)?,
        None => of_kernel(args)?,
    };
    write(&args.out, &text, args.show_keys)
}

fn of_file(args: &ExportArgs, path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut sad = load(path)?;
    let is_local = local(&args.local);
    for sa in &mut sad.entries {
        sa.dir = sa.dir.or_else(|| {
            match (is_local(sa.spec.source()), is_local(sa.spec.destination())) {
                (true, false) => Some(Dir::Out),
                (false, true) => Some(Dir::In),
                _ => None,
            }
        });
        if args.peer {
            sa.dir = sa.dir.map(|dir| match dir {
                Dir::In => Dir::Out,
                Dir::Out => Dir::In,
            });
        }
    }
    match args.format {
        Format::Wireshark => Ok(of_wireshark(&sad.entries)),
        Format::Json => of_json(&sad.entries, &[], args.show_keys),
        Format::IpXfrm => {
            let plans = sad.entries.iter().map(|sa| {
                plan::entry(sa).map_err(|e| {
                    misuse(format!(
                        "{}: [[sa]] #{}: {e}; or give --local with this host's address",
                        sad.name, sa.table
                    ))
                })
            });
            let plans: Vec<plan::Plan> = plans.collect::<Result<_, _>>()?;
            let states: Vec<State> = plans.iter().map(|plan| plan.state.clone()).collect();
            let policies: Vec<Policy> = plans.into_iter().flat_map(|plan| plan.policies).collect();
            Ok(ip_xfrm::batch(&states, &policies))
        }
    }
}

fn of_kernel(args: &ExportArgs) -> Result<Zeroizing<String>, Failure> {
    let (mut states, mut policies) = kernel()?;
    if args.format == Format::IpXfrm {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        for state in &mut states {
            state.limits = state.limits.made_again(state.counters.added, now);
        }
        for policy in &mut policies {
            policy.limits = policy.limits.made_again(policy.added, now);
        }
        return Ok(ip_xfrm::batch(&states, &policies));
    }
    let grouped = group::group(&states, &policies, local(&args.local));
    let sas = grouped.entries();
    report(&grouped);
    match args.format {
        Format::Wireshark => Ok(of_wireshark(&sas)),
        _ => {
            let left: Vec<json::Left> = grouped.left_out.iter().map(json::Left::from).collect();
            of_json(&sas, &left, args.show_keys)
        }
    }
}

/// States and policies of this network namespace.
pub fn kernel() -> Result<(Vec<State>, Vec<Policy>), Failure> {
    let mut xfrm = Xfrm::open().map_err(unreadable)?;
    let states = xfrm.states().map_err(unreadable)?;
    let policies = xfrm.policies().map_err(unreadable)?;
    Ok((states, policies))
}

/// Says on standard error what is in the kernel, and what is in no set.
pub fn report(grouped: &Grouped) {
    let whole = grouped.sets.iter().filter(|set| set.is_whole()).count();
    for left in &grouped.left_out {
        say(&format!("state {}: in no set: {}", left.id, left.why));
    }
    for set in grouped.sets.iter().filter(|set| !set.is_whole()) {
        let (inbound, outbound) = set.missing();
        say(&format!(
            "set of {} and {}: of four SAs {inbound} inbound and {outbound} outbound are missing",
            set.local, set.remote
        ));
    }
    say(&format!(
        "{whole} whole sets, {} others, {} states in none",
        grouped.sets.len() - whole,
        grouped.left_out.len()
    ));
}

fn of_wireshark(sas: &[SadEntry]) -> Zeroizing<String> {
    for lack in wireshark::Lack::ALL {
        let has = |sa: &&SadEntry| wireshark::lack(sa) == Some(lack);
        let count = sas.iter().filter(has).count();
        let what = if lack.is_left_out() { " left out" } else { "" };
        if count > 0 {
            say(&format!("{count} SAs{what}: {lack}"));
        }
    }
    wireshark::table(sas)
}

fn of_json(
    sas: &[SadEntry],
    left_out: &[json::Left],
    keys: bool,
) -> Result<Zeroizing<String>, Failure> {
    json::object(sas, left_out, keys).map_err(unreadable)
}

/// Whether an address is this host's: as said, or one that a socket can have.
pub fn local(said: &[IpAddr]) -> impl Fn(IpAddr) -> bool {
    move |addr| {
        if said.is_empty() {
            UdpSocket::bind((addr, 0)).is_ok()
        } else {
            said.contains(&addr)
        }
    }
}

/// Writes text, with keys in it or not; who has which SAs is nobody's business
/// either.
pub fn write(out: &Path, text: &str, keys: bool) -> Result<(), Failure> {
    if keys && is_stdio(out) {
        say("warning: keys on standard output; --out FILE makes a file with mode 0600");
    } else if keys {
        let out = out.display();
        say(&format!(
            "warning: keys in {out}, mode 0600: whoever reads it can read and forge what they protect"
        ));
    }
    let mut output: Output = create(out, Secrecy::Private)?;
    output
        .write_all(text.as_bytes())
        .map_err(|e| unreadable(format!("cannot write {}: {e}", out.display())))?;
    finish(output, out)
}
