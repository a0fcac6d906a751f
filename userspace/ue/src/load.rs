//! `gm-ue load`: thousands of phones at a rate, in one process and over one data
//! plane.
//!
//! * `plan`: identities, keys, addresses and ports of each;
//! * `pace`: when which begins and leaves, without I/O;
//! * `summary`: what came of it;
//! * `executor`: [`crate::phone::Phone`]s on one [`crate::host::Host`].

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use gm_esp::Mode;
use gm_esp::suite::Suite;
use gm_sip::ue::{Carrier, UeConfig};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, ConfigError, suite};
use crate::host::{Host, HostConfig};
use crate::signals::ended;

mod executor;
mod pace;
mod plan;
mod summary;

use executor::Load;
use pace::Goal;
use plan::{Places, Subscribers};
use summary::Summary;

/// SAs of one phone: inbound four reserved SPIs and two of each of two sets, while it
/// registers again; and as many places for outbound ones.
const SAS_EACH: u32 = 16;
/// Datagrams that wait, at most.
const QUEUE: usize = 8192;
/// Sockets of a phone: in clear, UDP on two ports and TCP on one, connections.
const FILES_EACH: u64 = 8;

const HELP: &str = "\
ue.toml is that of gm-ue register with {n:1} in impi and impu, where the number of the \
phone goes (ue{n:1}@home.test, or 00101{n:010}@... for ten digits); K and OPc are the same \
for all. With --subscribers each \
has its own: a file of mode 0600 with lines impi,impu,k,opc. The home network must know \
them: gmespd's embedded one reads the same pattern from a [[subscriber]] with count = N.

  gm-ue load --config ue.toml --count 2000 --rate 100 --concurrent 50 --hold 10 --deregister

A P-CSCF takes so many unfinished registrations from one address (gmespd: 64 at most): \
keep --concurrent below that, or give several --address, which must be the host's. Phones \
that stay without --deregister leave the P-CSCF with their registrations; they end there \
by themselves. Ctrl-C ends it early, with the summary of what there was. Exit code: 0 all \
registered and nothing failed, 1 it could not run, 2 wrong configuration, 3 something \
failed. Needs root, and an uplink whose driver knows XDP.";

/// Many phones: register at a rate, stay, leave, and say how it went.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// What the phones have in common (ue.toml).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// How many phones; all of --subscribers when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: Option<u32>,
    /// The number of the first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub first: u64,
    /// Subscribers one by one: impi,impu,k,opc (mode 0600).
    #[arg(long, value_name = "FILE")]
    pub subscribers: Option<PathBuf>,
    /// Registrations that begin in a second; 0: as fast as --concurrent allows.
    #[arg(long, value_name = "R", default_value_t = 50.0, value_parser = rate)]
    pub rate: f64,
    /// Registrations and de-registrations under way at one time.
    #[arg(long, value_name = "C", default_value_t = 50)]
    pub concurrent: usize,
    /// Seconds that a phone stays registered.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub hold: u32,
    /// De-register afterwards.
    #[arg(long)]
    pub deregister: bool,
    /// Offer this suite only, `alg/ealg`; of older releases too.
    #[arg(long, value_name = "SUITE", value_parser = suite)]
    pub suite: Option<Suite>,
    /// What requests go over: udp, tcp, or auto (TCP for long ones).
    #[arg(long, value_name = "T", default_value = "udp", value_parser = carrier)]
    pub transport: Carrier,
    /// An address of this host for the phones, repeated for more; absent: the
    /// configuration's.
    #[arg(long = "address", value_name = "ADDR")]
    pub addresses: Vec<IpAddr>,
    /// The summary as one JSON object, and no progress bar.
    #[arg(long)]
    pub json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0 to 100000".into()),
    }
}

fn carrier(text: &str) -> Result<Carrier, String> {
    match text {
        "udp" => Ok(Carrier::Udp),
        "tcp" => Ok(Carrier::Tcp),
        "auto" => Ok(Carrier::Auto),
        _ => Err("udp, tcp or auto".into()),
    }
}

/// Runs the program. Exit codes: 0 good, 1 it could not run, 2 wrong configuration,
/// 3 something failed.
pub fn main(args: &Args) -> ExitCode {
    let run = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the async runtime does not start")?
            .block_on(run(args))
    };
    match run() {
        Ok(summary) => {
            let text = if args.json {
                serde_json::to_string(&summary).unwrap_or_default()
            } else {
                summary.to_string()
            };
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::from(if summary.is_good() { 0 } else { 3 })
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gm-ue: {error:#}");
            let wrong_use = error.downcast_ref::<ConfigError>().is_some();
            ExitCode::from(if wrong_use { 2 } else { 1 })
        }
    }
}

async fn run(args: &Args) -> Result<Summary> {
    let config = Config::read(&args.config)?;
    let subscribers = match &args.subscribers {
        Some(file) => Subscribers::read(file)?,
        None => Subscribers::numbered(&config, args.first, args.count.unwrap_or(1) as usize)?,
    };
    let known = subscribers.len();
    let count = match args.count {
        Some(count) => (count as usize).min(known.unwrap_or(usize::MAX)),
        None => known.unwrap_or(1),
    };
    let addresses = match args.addresses.as_slice() {
        [] => vec![config.address],
        some => some.to_vec(),
    };
    let places = Places::new(addresses, count)?;
    let max_sas = (count as u32 * SAS_EACH).max(64);
    // From here on a signal lets everything be taken down again.
    let stop = ended()?;
    more_files(count as u64 * FILES_EACH);
    let (host, incoming) = Host::start(
        HostConfig {
            uplink: config.uplink.clone(),
            addresses: places.addresses().to_vec(),
            server_ports: vec![places.server_ports()],
            client_ports: vec![places.client_ports()],
            max_sas: max_sas.min(1 << 20),
            queue: QUEUE,
        },
        None,
    )
    .await?;
    let goal = Goal {
        count,
        rate: args.rate,
        concurrent: args.concurrent,
        hold: u64::from(args.hold) * 1000,
        deregister: args.deregister,
    };
    let mut load = Load::new(common(args, &config), places, subscribers, host, incoming);
    let bar = progress(args, count as u64);
    let show = |(registered, failed): (usize, u64), under_way: usize| {
        bar.set_position(registered as u64);
        bar.set_message(format!("{under_way} under way, {failed} failed"));
    };
    let ran = load.run(goal, stop, show).await;
    bar.finish_and_clear();
    let summary = load.stop(count).await;
    ran?;
    summary
}

/// What all phones say and offer; identity, address and ports are each one's own.
fn common(args: &Args, config: &Config) -> UeConfig {
    let (impi, impu) = (&config.impi, &config.impu);
    let mut common = UeConfig::new(impi, impu, &config.domain, config.address, config.pcscf);
    common.suites = match args.suite {
        Some(suite) => vec![suite],
        None => config.suites.clone(),
    };
    common.modes = vec![Mode::Trans];
    common.expires = config.expires;
    common.transport = args.transport;
    // Whoever holds for longer than a registration lives goes on being registered.
    common.renew = true;
    common
}

/// On a terminal, and where nobody wants JSON.
fn progress(args: &Args, count: u64) -> ProgressBar {
    if args.json {
        return ProgressBar::hidden();
    }
    let style = "{elapsed_precise} {bar:30} {pos}/{len} registered, {per_sec}, {msg}";
    let bar = ProgressBar::new(count);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// As many open files as the system allows, where they might not do.
fn more_files(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = wanted + 256;
    if limit.current.is_none_or(|now| now >= wanted) {
        return;
    }
    // Root may have more than it was given.
    let enough = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum.map(|most| most.max(wanted)),
    };
    let raised = setrlimit(Resource::Nofile, enough).or_else(|_| {
        let current = limit.maximum;
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })
    });
    if let Err(error) = raised {
        tracing::warn!("the limit of open files stays: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        _args: Args,
    }

    #[test]
    fn the_help_shows_how_numbers_are_written() {
        use clap::CommandFactory;
        // clap takes {n} for the end of a line.
        let help = Line::command().render_long_help().to_string();
        for shown in ["ue{n:1}@home.test", "00101{n:010}@"] {
            assert!(help.contains(shown), "{help}");
            assert!(gm_api::pattern::is_pattern(shown), "{shown}");
        }
    }
}
