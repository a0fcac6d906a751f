//! `gm-ue proxy`: makes an ordinary SIP UE without IPsec, such as SIPp or a soft
//! phone, an IMS UE on the Gm link.
//!
//! * [`machine`]: the proxy without I/O; its parts are `register` (offer, challenge,
//!   SAs), `pass` (everything else), `sets`, `transactions` and `rewrite`;
//! * [`executor`]: sockets, SAs and time around it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::agent::sip_config;
use crate::config::{Config, ConfigError};
use crate::host::{Host, HostConfig};
use crate::signals::ended;

pub mod executor;
pub mod machine;
mod pass;
mod register;
mod rewrite;
mod sets;
mod transactions;

#[cfg(test)]
mod tests;

use executor::Running;
use machine::{ProxyConfig, ProxyEvent};

const HELP: &str = "\
The SIP UE sends to --listen, in clear and over UDP, as to an outbound proxy. It has \
the subscriber's K and OP, as ue.toml has (op or opc), and answers the challenge itself (digest \
AKAv1-MD5); the proxy adds the security agreement, computes IK and CK for the SAs and \
does the ESP. One UE a proxy.

With SIPp (Debian: sip-tester), whose scenario has Authorization with an empty nonce \
in its first REGISTER and this in its second:
  [authentication username=alice@home.test aka_K=0x... aka_OP=0x... aka_AMF=0x8000]
(SIPp takes the octets of K and OP for text: none may be 00 or 5b) run
  gm-ue proxy --config ue.toml --listen 127.0.0.1:5070 &
  sipp 127.0.0.1:5070 -sf register.xml -i 127.0.0.1 -p 5071 -auth_uri home.test -m 1
and, for requests of the network to the Contact of that REGISTER (port 5072), another
  sipp 127.0.0.1:5070 -sf answer.xml -i 127.0.0.1 -p 5072 -m 1
Scenarios to begin with are in tests/sipp. ue.toml is that of gm-ue register, mode 0600.

A UE on another host: --listen with an address that it reaches. What passes there is in \
clear. Needs root, and an uplink whose driver knows XDP. SIGINT or SIGTERM ends it; \
registrations that are in force then end by themselves.";

/// An IMS UE out of an ordinary SIP UE: security agreement and ESP in front of it.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Who the UE is and where the Gm link is (ue.toml).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where the SIP UE sends to: address and port, in clear.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5070")]
    pub listen: SocketAddr,
    /// One JSON object a line on stdout instead of sentences.
    #[arg(long)]
    pub json: bool,
    /// Write every SA with its keys to this file (SAD.toml, mode 0600), to
    /// open captures with. Whoever reads it reads the UE's SIP.
    #[arg(long, value_name = "FILE")]
    pub keys_out: Option<PathBuf>,
}

/// Runs the program. Exit codes: 0 done, 1 it could not run, 2 wrong configuration.
pub fn main(args: &Args) -> ExitCode {
    let run = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the async runtime does not start")?
            .block_on(run(args, |event| tell(args.json, &event)))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gm-ue: {error:#}");
            let wrong_use = error.downcast_ref::<ConfigError>().is_some();
            ExitCode::from(if wrong_use { 2 } else { 1 })
        }
    }
}

fn tell(json: bool, event: &ProxyEvent) {
    let line = if json {
        serde_json::to_string(event).unwrap_or_default()
    } else {
        event.to_string()
    };
    // Nobody may be listening; the proxy goes on.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Runs until a signal.
///
/// # Errors
/// A wrong configuration, or what the host refuses.
async fn run(args: &Args, mut tell: impl FnMut(ProxyEvent)) -> Result<()> {
    let config = Config::read(&args.config)?;
    let gm = sip_config(&config)?;
    // From here on a signal lets everything be taken down again.
    let ended = ended()?;
    let (host, incoming) = Host::start(
        HostConfig {
            server_ports: vec![gm.server_port..=gm.server_port],
            client_ports: vec![gm.client_ports.clone()],
            ..HostConfig::new(&config.uplink, config.address)
        },
        args.keys_out.as_deref(),
    )
    .await?;
    let listen = args.listen;
    let proxy = ProxyConfig { gm, listen };
    let mut running = Running::start(proxy, &config, host, incoming).await?;
    tell(ProxyEvent::Ready { listen });
    let ran = running.run(ended, &mut tell).await;
    let registered = running.stop().await;
    ran?;
    if registered? {
        tell(ProxyEvent::Left);
    }
    Ok(())
}
