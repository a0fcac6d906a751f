//! `gm-ue` on the command line; gmespd's demo runs it, too.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::agent::Agent;
use crate::config::{Config, ConfigError};
use crate::events::{Command, UeEvent};

/// A phone without a phone: registers with IMS AKA over gmesp's data path.
#[derive(Debug, clap::Args)]
#[command(after_help = "Commands, one a line on stdin:\n  \
        register\n  register clear\n  message URI TEXT\n  address IP\n  deregister\n  quit\n\
        The end of stdin is quit. Needs root, and an uplink whose driver knows XDP.\n\n\
        Example ue.toml (mode 0600):\n  \
        [ue]\n  uplink = \"eth0\"\n  address = \"192.0.2.10\"\n  pcscf = \"192.0.2.1:5060\"\n  \
        domain = \"home.test\"\n  impi = \"alice@home.test\"\n  impu = \"sip:alice@home.test\"\n  \
        k = \"32 hex digits\"\n  opc = \"32 hex digits\"\n  suites = [\"null/aes-gcm\"]  # absent: all\n  \
        udp_enc_tun = true                # offer NAT traversal")]
pub struct Args {
    /// Who the phone is (ue.toml).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// One JSON object a line on stdout instead of sentences.
    #[arg(long)]
    pub json: bool,
    /// Write every SA with its keys to this file (SAD.toml, mode 0600), to
    /// open captures with. Whoever reads it reads the phone's SIP.
    #[arg(long, value_name = "FILE")]
    pub keys_out: Option<PathBuf>,
}

/// Runs the program. Exit codes: 0 done, 1 it could not run, 2 wrong configuration.
pub fn main(args: &Args) -> ExitCode {
    log_to_stderr();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gm-ue: {error:#}");
            let wrong_use = error.downcast_ref::<ConfigError>().is_some();
            ExitCode::from(if wrong_use { 2 } else { 1 })
        }
    }
}

/// What goes wrong is told on stderr; `GMESP_LOG` says how much.
pub fn log_to_stderr() {
    let filter = std::env::var("GMESP_LOG")
        .ok()
        .and_then(|wanted| wanted.parse::<Targets>().ok())
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    // Colours are for people, not for files.
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Somebody may have a subscriber already; then it stays.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
}

fn run(args: &Args) -> Result<()> {
    let config = Config::read(&args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the async runtime does not start")?;
    let result = runtime.block_on(async {
        let mut commands = commands()?;
        let mut agent = Agent::start(&config, args.keys_out.as_deref()).await?;
        let tell = |event: UeEvent| tell(args.json, &event);
        tell(UeEvent::Ready {
            address: config.address,
        });
        let ran = agent.run(&mut commands, tell).await;
        ran.and(agent.stop().await)
    });
    // The thread that reads stdin may wait for a line that never comes.
    runtime.shutdown_background();
    result
}

fn tell(json: bool, event: &UeEvent) {
    let line = if json {
        serde_json::to_string(event).unwrap_or_default()
    } else {
        event.to_string()
    };
    // Nobody may be listening; the phone goes on.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Commands from stdin; a signal is [`Command::Quit`].
fn commands() -> Result<mpsc::Receiver<Command>> {
    let (sender, receiver) = mpsc::channel(16);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut stream = signal(kind).context("signals cannot be watched")?;
        let sender = sender.clone();
        tokio::spawn(async move {
            if stream.recv().await.is_some() {
                let _ = sender.send(Command::Quit).await;
            }
        });
    }
    std::thread::Builder::new()
        .name("gm-ue-stdin".into())
        .spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if line.trim().is_empty() {
                    continue;
                }
                let sent = match Command::parse(&line) {
                    Ok(command) => sender.blocking_send(command),
                    Err(help) => {
                        let _ = writeln!(std::io::stderr(), "gm-ue: {help}");
                        continue;
                    }
                };
                if sent.is_err() {
                    return;
                }
            }
            let _ = sender.blocking_send(Command::Quit);
        })
        .context("a thread does not start")?;
    Ok(receiver)
}
