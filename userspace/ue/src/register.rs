//! `gm-ue register`: one phone from its registration to its end.
//!
//! * [`Args`]: what it is to do;
//! * `script`: does it, step by step, over [`crate::agent::Agent`];
//! * `outcome`: how it went, for people and as JSON.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use gm_esp::suite::Suite;
use gm_sip::ue::{Carrier, Fault};

use crate::agent::Agent;
use crate::config::{Config, ConfigError, carrier, protected_port, suite};
use crate::signals::ended;
use crate::trace::{Detail, Sink, Trace};

mod outcome;
mod script;

pub use outcome::{Failure, Outcome, Registered, Sent};

/// One phone: registers, does what the options say, de-registers, and tells how it
/// went.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// Who the phone is (ue.toml, mode 0600; see below).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Suites to offer in this order, `alg/ealg` with commas between, `all` for
    /// those of today's specification, `legacy` for those of older ones.
    #[arg(long, value_name = "LIST", value_parser = suites)]
    pub suites: Option<Offer>,
    /// Modes to offer, in this order.
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
    /// What requests go over: udp, tcp, or auto (TCP above --tcp-above bytes).
    #[arg(long, value_name = "T", value_parser = carrier)]
    pub transport: Option<Carrier>,
    /// Most bytes of a request over UDP with --transport auto.
    #[arg(long, value_name = "BYTES")]
    pub tcp_above: Option<usize>,
    /// Seconds between NAT keepalives while nothing else is sent; 0: none.
    #[arg(long, value_name = "SECONDS")]
    pub nat_keepalive: Option<u32>,
    /// Seconds between pings on the TCP connection; 0: none.
    #[arg(long, value_name = "SECONDS")]
    pub tcp_keepalive: Option<u32>,
    /// Registration time to ask for.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub expires: Option<u32>,
    /// The first of 16 ports of which port_uc is drawn.
    #[arg(long, value_name = "PORT", value_parser = protected_port)]
    pub port_c: Option<u16>,
    /// port_us.
    #[arg(long, value_name = "PORT", value_parser = protected_port)]
    pub port_s: Option<u16>,
    /// Register again so many times, each through the SAs of the time before.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub again: u32,
    /// Send these in clear, so that each is challenged and makes new SAs.
    #[arg(long, requires = "again")]
    pub clear: bool,
    /// Seconds between these.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub every: f64,
    /// Send a MESSAGE with this text once registered.
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
    /// To whom; the home network's echo service when absent.
    #[arg(long, value_name = "URI", requires = "message")]
    pub to: Option<String>,
    /// Wait so many seconds for a MESSAGE from the network; none is a failure.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub expect: Option<f64>,
    /// Stay registered for so many seconds, and renew in time.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    pub hold: f64,
    /// Do not de-register at the end: the P-CSCF keeps its SAs until they expire.
    #[arg(long)]
    pub stay: bool,
    /// Attempts after one that failed and may succeed later (no answer, 5xx, 494).
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,
    /// Do this wrong; may be repeated. All faults are below.
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<Fault>,
    /// Seconds that a step may take: SIP gives up after 32.
    #[arg(long, value_name = "SECONDS", default_value_t = 40.0, value_parser = seconds)]
    pub timeout: f64,
    /// How much of each message is shown.
    #[arg(long, value_enum, default_value_t = TraceArg::Line)]
    pub trace: TraceArg,
    /// One JSON object at the end on stdout; the trace goes to stderr.
    #[arg(long)]
    pub json: bool,
    /// Write every SA with its keys to this file (SAD.toml, mode 0600), to open
    /// captures with. Whoever reads it reads the phone's SIP.
    #[arg(long, value_name = "FILE")]
    pub keys_out: Option<PathBuf>,
}

/// Modes to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Transport mode alone.
    Trans,
    /// UDP-encapsulated tunnel mode alone (Annex M).
    UdpEncTun,
    /// Transport mode, then UDP-encapsulated tunnel mode.
    Both,
}

/// What is shown of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceArg {
    /// Nothing.
    Off,
    /// An arrow, the way, the SA, and the first line.
    Line,
    /// All of it; never a key.
    Full,
}

/// Suites in the order of the offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer(pub Vec<Suite>);

fn suites(text: &str) -> Result<Offer, String> {
    let mut offer = Vec::new();
    for name in text.split(',').map(str::trim) {
        match name {
            "all" => offer.extend(Suite::ALL),
            "legacy" => offer.extend(Suite::LEGACY),
            name => offer.push(suite(name).map_err(|e| e.to_string())?),
        }
    }
    Ok(Offer(offer))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e8).contains(&seconds) => Ok(seconds),
        _ => Err("seconds, 0 or more".into()),
    }
}

fn help() -> String {
    let faults: String = Fault::ALL
        .iter()
        .map(|f| format!("  {:<13} {}\n", f.name(), f.about()))
        .collect();
    format!(
        "\
Examples:
  A registration, a MESSAGE to the echo service and its echo, a de-registration:
    gm-ue register --config ue.toml --message hello --expect 5
  What a phone with older suites gets, message by message:
    gm-ue register --config ue.toml --suites hmac-md5-96/des-ede3-cbc,hmac-md5-96/null --trace full
  REGISTER over TCP in the SAs, three times, for a program to read:
    gm-ue register --config ue.toml --transport tcp --again 2 --json
  Behind a NAT, an hour with keepalives every 10 s:
    gm-ue register --config ue.toml --mode both --nat-keepalive 10 --hold 3600
  What the network makes of a wrong response (exit code 3, and the reason):
    gm-ue register --config ue.toml --fault wrong-res

Faults:
{faults}
ue.toml (mode 0600, it has keys):
  [ue]
  uplink = \"eth0\"                   # leads to the P-CSCF
  address = \"192.0.2.10\"            # the phone's, on it
  pcscf = \"192.0.2.1:5060\"          # for the first REGISTER, in clear
  domain = \"home.test\"
  impi = \"alice@home.test\"
  impu = \"sip:alice@home.test\"
  k = \"32 hex digits\"
  opc = \"32 hex digits\"            # or op, which is then mixed with k
  suites = [\"null/aes-gcm\"]         # absent: all of today's
  udp_enc_tun = true                # offer NAT traversal
  [ue.habits]                       # all may be left out
  transport = \"auto\"                # udp, tcp, auto
  retries = 3

Ctrl-C de-registers, for 2 s at most and not with --stay, and ends with the result so far.

Exit codes: 0 all happened, 1 it could not run, 2 wrong use or configuration, 3 the network \
refused or something did not happen. Needs root, and an uplink whose driver knows XDP."
    )
}

impl Args {
    /// The file's configuration with what the command line says otherwise.
    ///
    /// # Errors
    /// Those of [`Config::read`].
    pub fn config(&self) -> Result<Config, ConfigError> {
        let mut config = Config::read(&self.config)?;
        if let Some(Offer(suites)) = &self.suites {
            config.suites = suites.clone();
        }
        if let Some(mode) = self.mode {
            config.habits.trans = mode != ModeArg::UdpEncTun;
            config.udp_enc_tun = mode != ModeArg::Trans;
        }
        let habits = &mut config.habits;
        let set = |value: Option<u32>, to: &mut u32| *to = value.unwrap_or(*to);
        set(self.nat_keepalive, &mut habits.nat_keepalive_s);
        set(self.tcp_keepalive, &mut habits.tcp_keepalive_s);
        set(self.retries, &mut habits.retries);
        set(self.expires, &mut config.expires);
        habits.transport = self.transport.unwrap_or(habits.transport);
        habits.tcp_above = self.tcp_above.unwrap_or(habits.tcp_above);
        habits.faults = self.faults.clone();
        config.port_c = self.port_c.or(config.port_c);
        config.port_s = self.port_s.or(config.port_s);
        Ok(config)
    }

    fn trace(&self) -> Option<Trace> {
        let detail = match self.trace {
            TraceArg::Off => return None,
            TraceArg::Line => Detail::Line,
            TraceArg::Full => Detail::Full,
        };
        let to: Sink = if self.json {
            Box::new(std::io::stderr())
        } else {
            Box::new(std::io::stdout())
        };
        Some(Trace::new(detail, to))
    }
}

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    match run(args) {
        Ok(outcome) => {
            tell(args.json, &outcome);
            ExitCode::from(if outcome.ok { 0 } else { 3 })
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gm-ue: {error:#}");
            if args.json {
                // Whoever reads JSON always gets some.
                tell(true, &Outcome::not_run(&args.faults, &error));
            }
            let wrong_use = error.downcast_ref::<ConfigError>().is_some();
            ExitCode::from(if wrong_use { 2 } else { 1 })
        }
    }
}

fn tell(json: bool, outcome: &Outcome) {
    let text = if json {
        serde_json::to_string_pretty(outcome).unwrap_or_default()
    } else {
        outcome.to_string()
    };
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn run(args: &Args) -> Result<Outcome> {
    let config = args.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the async runtime does not start")?;
    runtime.block_on(async {
        let stop = ended()?;
        let keys_out = args.keys_out.as_deref();
        let mut agent = Agent::start_traced(&config, keys_out, args.trace()).await?;
        let tell = !args.json && std::io::stdout().is_terminal();
        let played = script::play(&mut agent, &config, args, tell, stop).await;
        let stopped = agent.stop().await;
        let outcome = played?;
        stopped.map(|()| outcome)
    })
}

#[cfg(test)]
#[path = "register/tests.rs"]
mod tests;
