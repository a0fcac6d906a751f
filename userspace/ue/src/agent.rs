//! One phone that runs: commands in, events out, around [`gm_sip::ue::Ue`].
//!
//! One task carries everything out in the order in which the protocol asks
//! for it; the data plane's commands are short and are waited for.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use gm_esp::Mode;
use gm_sip::Randomness;
use gm_sip::ue::{Retry, Ue, UeConfig, UeFailure};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::events::{Command, UeEvent};
use crate::host::{Arrival, Host, HostConfig};
use crate::phone::Phone;
use crate::report::Reporter;
use crate::trace::Trace;
use crate::usim::{Refusal, Usim};

/// port_uc is drawn from this many ports.
const CLIENT_PORTS: u16 = 16;
/// Protected ports that nobody has named are drawn from here on.
const FIRST_PORT: u16 = 30_000;

/// A phone that runs.
pub struct Agent {
    phone: Phone,
    host: Host,
    incoming: mpsc::Receiver<Arrival>,
    reporter: Reporter,
    began: Instant,
}

impl Agent {
    /// Starts the data plane in the caller's network namespace and opens the
    /// port for messages in clear. `keys_out` gets every set's keys.
    ///
    /// # Errors
    /// What the data plane or the host refuses, and what to do about it.
    pub async fn start(config: &Config, keys_out: Option<&Path>) -> Result<Agent> {
        Agent::start_traced(config, keys_out, None).await
    }

    /// The same; every message goes to the trace.
    ///
    /// # Errors
    /// Those of [`Agent::start`].
    pub async fn start_traced(
        config: &Config,
        keys_out: Option<&Path>,
        trace: Option<Trace>,
    ) -> Result<Agent> {
        let sip = sip_config(config)?;
        let (mut host, incoming) = Host::start(
            HostConfig {
                server_ports: vec![sip.server_port..=sip.server_port],
                client_ports: vec![sip.client_ports.clone()],
                ..HostConfig::new(&config.uplink, config.address)
            },
            keys_out,
        )
        .await?;
        host.listen(SocketAddr::new(sip.local, sip.clear_port))
            .await?;
        let sim = Box::new(Sim(Usim::new(*config.k, *config.opc)));
        let mut agent = Agent {
            phone: Phone::new(Ue::new(sip, sim, Box::new(System))),
            host,
            incoming,
            reporter: Reporter::new(trace),
            began: Instant::now(),
        };
        agent.carry_out(&mut |_| ()).await?;
        Ok(agent)
    }

    /// Runs until [`Command::Quit`] or until the commands end. Every event
    /// goes to `tell`.
    ///
    /// # Errors
    /// When the data plane fails; SIP that fails is an event.
    pub async fn run(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        mut tell: impl FnMut(UeEvent),
    ) -> Result<()> {
        loop {
            let wait = match self.phone.next_timeout() {
                Some(at) => Duration::from_millis(at.saturating_sub(self.now())),
                None => Duration::from_secs(3600),
            };
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Quit) => return Ok(()),
                    Some(command) => self.obey(command, &mut tell),
                },
                Some(arrival) = self.incoming.recv() => {
                    let now = self.now();
                    self.phone.take_in(now, &arrival, &mut self.reporter.to(&mut tell));
                }
                () = tokio::time::sleep(wait) => {
                    let now = self.now();
                    self.phone.ue().handle_timeout(now);
                }
            }
            self.carry_out(&mut tell).await?;
        }
    }

    /// Takes everything apart again.
    ///
    /// # Errors
    /// What the data plane could not remove.
    pub async fn stop(self) -> Result<()> {
        self.host.stop().await
    }

    fn obey(&mut self, command: Command, tell: &mut impl FnMut(UeEvent)) {
        let now = self.now();
        let ue = self.phone.ue();
        let begun = match command {
            Command::Register => ue.register(now),
            Command::RegisterInClear => ue.register_in_clear(now),
            Command::Deregister => ue.deregister(now),
            Command::Message { to, text } => ue
                .send(now, "MESSAGE", &to, "text/plain", text.as_bytes())
                .map(|id| self.reporter.sent(id)),
            Command::Address(address) => return self.move_to(address, tell),
            Command::Quit => Ok(()),
        };
        if let Err(error) = begun {
            tell(UeEvent::Failed {
                reason: error.to_string(),
            });
        }
    }

    /// The phone has another address: the host first, so that it can be spoken from.
    fn move_to(&mut self, address: IpAddr, tell: &mut impl FnMut(UeEvent)) {
        let now = self.now();
        let moved = self.host.set_addresses(&[address]);
        let moved = moved.map_err(|e| format!("{e:#}")).and_then(|()| {
            let ue = self.phone.ue();
            let begun = ue.change_address(now, address);
            begun.map_err(|e: UeFailure| e.to_string())
        });
        if let Err(reason) = moved {
            tell(UeEvent::Failed { reason });
        }
    }

    async fn carry_out(&mut self, tell: &mut impl FnMut(UeEvent)) -> Result<()> {
        let began = self.began;
        let now = || began.elapsed().as_millis() as u64;
        let watch = &mut self.reporter.to(tell);
        self.phone.carry_out(&mut self.host, now, watch).await
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// What the protocol has to know of ue.toml; ports that it leaves open are drawn.
pub(crate) fn sip_config(config: &Config) -> Result<UeConfig> {
    let server_port = match config.port_s {
        Some(port) => port,
        None => random_port()?,
    };
    let first_client = match config.port_c {
        Some(port) => port,
        None => server_port.checked_add(1).unwrap_or(FIRST_PORT),
    };
    let mut sip = UeConfig::new(
        &config.impi,
        &config.impu,
        &config.domain,
        config.address,
        config.pcscf,
    );
    sip.server_port = server_port;
    sip.client_ports = first_client..=first_client.saturating_add(CLIENT_PORTS - 1);
    sip.suites = config.suites.clone();
    let habits = &config.habits;
    let modes = [
        (Mode::Trans, habits.trans),
        (Mode::UdpEncTun, config.udp_enc_tun),
    ];
    sip.modes = modes.iter().filter(|m| m.1).map(|m| m.0).collect();
    sip.transport = habits.transport;
    sip.tcp_above = habits.tcp_above;
    sip.nat_keepalive = u64::from(habits.nat_keepalive_s) * 1000;
    sip.tcp_keepalive = u64::from(habits.tcp_keepalive_s) * 1000;
    sip.renew = habits.renew;
    sip.retry = (habits.retries > 0).then_some(Retry {
        wait: habits.retry_ms,
        times: habits.retries,
    });
    sip.faults = habits.faults.clone();
    sip.expires = config.expires;
    Ok(sip)
}

fn random_port() -> Result<u16> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("no randomness: {e}"))?;
    // Two apart, so that the client ports after it fit below 65 536.
    Ok(FIRST_PORT + u16::from_be_bytes(bytes) % 30_000)
}

/// The kernel's randomness.
pub struct System;

impl Randomness for System {
    fn fill(&mut self, out: &mut [u8]) {
        // The kernel's generator does not fail once it is up; a phone that
        // went on without randomness would be worse than one that ends.
        #[allow(clippy::expect_used, reason = "fail closed")]
        getrandom::fill(out).expect("the kernel gives randomness");
    }
}

/// The protocol's view of the USIM.
pub struct Sim(pub Usim);

impl gm_sip::ue::Aka for Sim {
    fn answer(
        &mut self,
        rand: &[u8; 16],
        autn: &[u8; 16],
    ) -> Result<gm_sip::ue::AkaAnswer, gm_sip::ue::AkaFailure> {
        use gm_sip::ue::{AkaAnswer, AkaFailure};
        match self.0.authenticate(rand, autn) {
            Ok(ok) => Ok(AkaAnswer {
                res: gm_sip::aka::Res::new(&ok.res).ok_or(AkaFailure::Mac)?,
                ik: gm_esp::Ik::from_bytes(ok.ik),
                ck: gm_esp::Ck::from_bytes(ok.ck),
            }),
            Err(Refusal::Mac) => Err(AkaFailure::Mac),
            Err(Refusal::Sync { auts }) => Err(AkaFailure::Synchronisation(auts)),
        }
    }

    fn run_ahead(&mut self) {
        self.0.run_ahead();
    }
}
