//! The phone: sockets, SAs and time around [`gm_sip::ue::Ue`].
//!
//! One task carries everything out in the order in which the protocol asks
//! for it; the data plane's commands are short and are waited for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use gm_dataplane::{DataPlane, Dir, NewSa, SetId, SetSpec};
use gm_esp::Mode;
use gm_sip::ue::{Ue, UeConfig, UeInput, UeOutput};
use gm_sip::{Packet, Randomness, SaSetRequest, SetToken, Transport};
use tokio::sync::mpsc;

use crate::addresses::Addresses;
use crate::config::Config;
use crate::events::{Command, UeEvent};
use crate::keys_out::KeysOut;
use crate::report::Reporter;
use crate::sockets::{Datagram, Sockets};
use crate::usim::{Refusal, Usim};

/// port_uc is drawn from this many ports.
const CLIENT_PORTS: u16 = 16;
/// Protected ports that nobody has named are drawn from here on.
const FIRST_PORT: u16 = 30_000;

/// A phone that runs.
pub struct Agent {
    ue: Ue,
    plane: DataPlane,
    sockets: Sockets,
    incoming: mpsc::Receiver<Datagram>,
    addresses: Addresses,
    sets: HashMap<SetToken, SetId>,
    reporter: Reporter,
    keys_out: Option<KeysOut>,
    began: Instant,
}

impl Agent {
    /// Starts the data plane in the caller's network namespace and opens the
    /// port for messages in clear. `keys_out` gets every set's keys.
    ///
    /// # Errors
    /// What the data plane or the host refuses, and what to do about it.
    pub async fn start(config: &Config, keys_out: Option<&Path>) -> Result<Agent> {
        let keys_out = keys_out.map(KeysOut::create).transpose()?;
        let server_port = match config.port_s {
            Some(port) => port,
            None => random_port()?,
        };
        let first_client = match config.port_c {
            Some(port) => port,
            None => server_port.checked_add(1).unwrap_or(FIRST_PORT),
        };
        let client_ports = first_client..=first_client.saturating_add(CLIENT_PORTS - 1);
        let plane = start_plane(config, server_port, client_ports.clone()).await?;

        let mut sip = UeConfig::new(
            &config.impi,
            &config.impu,
            &config.domain,
            config.address,
            config.pcscf,
        );
        sip.server_port = server_port;
        sip.client_ports = client_ports;
        sip.suites = config.suites.clone();
        sip.modes = vec![Mode::Trans];
        if config.udp_enc_tun {
            sip.modes.push(Mode::UdpEncTun);
        }
        sip.expires = config.expires;
        let clear = SocketAddr::new(config.address, sip.clear_port);

        let (mut sockets, incoming) = Sockets::new();
        sockets.listen(clear).await?;
        let sim = Box::new(Sim(Usim::new(*config.k, *config.opc)));
        let mut agent = Agent {
            ue: Ue::new(sip, sim, Box::new(System)),
            plane,
            sockets,
            incoming,
            addresses: Addresses::new(config.address)?,
            sets: HashMap::new(),
            reporter: Reporter::default(),
            keys_out,
            began: Instant::now(),
        };
        agent.refill()?;
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
            let wait = match self.ue.next_timeout() {
                Some(at) => Duration::from_millis(at.saturating_sub(self.now())),
                None => Duration::from_secs(3600),
            };
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Quit) => return Ok(()),
                    Some(command) => self.obey(command, &mut tell),
                },
                Some(datagram) = self.incoming.recv() => {
                    let now = self.now();
                    self.ue.handle(now, UeInput::FromNetwork {
                        local: datagram.local,
                        remote: datagram.remote,
                        transport: Transport::Udp,
                        bytes: &datagram.bytes,
                    });
                }
                () = tokio::time::sleep(wait) => {
                    let now = self.now();
                    self.ue.handle_timeout(now);
                }
            }
            while let Some(output) = self.ue.poll() {
                self.carry_out(output, &mut tell).await?;
            }
            self.refill()?;
        }
    }

    /// Takes everything apart again.
    ///
    /// # Errors
    /// What the data plane could not remove.
    pub async fn stop(mut self) -> Result<()> {
        self.addresses.remove_all().await;
        let plane = self.plane.clone();
        tokio::task::spawn_blocking(move || plane.shutdown())
            .await?
            .context("the data path could not be taken down")
    }

    fn obey(&mut self, command: Command, tell: &mut impl FnMut(UeEvent)) {
        let now = self.now();
        let begun = match command {
            Command::Register => self.ue.register(now),
            Command::Deregister => self.ue.deregister(now),
            Command::Message { to, text } => self
                .ue
                .send(now, "MESSAGE", &to, "text/plain", text.as_bytes())
                .map(|id| self.reporter.sent(id)),
            Command::Quit => Ok(()),
        };
        if let Err(error) = begun {
            tell(UeEvent::Failed {
                reason: error.to_string(),
            });
        }
    }

    async fn carry_out(&mut self, output: UeOutput, tell: &mut impl FnMut(UeEvent)) -> Result<()> {
        match output {
            UeOutput::Send(packet) => self.send(&packet).await,
            UeOutput::Install(request) => {
                let set = request.token;
                let done = self.install(&request).await;
                if let Err(error) = &done {
                    tell(UeEvent::Failed {
                        reason: format!("{error:#}"),
                    });
                }
                let now = self.now();
                self.ue.handle(
                    now,
                    UeInput::Installed {
                        set,
                        ok: done.is_ok(),
                    },
                );
            }
            UeOutput::Activate { set } => self.plane.activate(self.id(set)?)?,
            UeOutput::Retire { set } => self.plane.retire(self.id(set)?)?,
            UeOutput::Remove { set } => {
                let id = self.id(set)?;
                self.plane.remove(id)?;
                self.sets.remove(&set);
                self.reporter.removed(set);
            }
            UeOutput::Event(event) => self.reporter.report(event, tell),
        }
        Ok(())
    }

    async fn send(&mut self, packet: &Packet) {
        if packet.transport != Transport::Udp {
            tracing::warn!("a message over TCP is not sent: this phone speaks UDP only");
            return;
        }
        if let Err(error) = self
            .sockets
            .send(packet.local, packet.remote, &packet.bytes)
            .await
        {
            // SIP repeats what is lost.
            tracing::warn!("{error:#}");
        }
    }

    async fn install(&mut self, request: &SaSetRequest) -> Result<()> {
        let params = &request.params;
        if self.addresses.ensure(params.ue).await? {
            self.plane.set_addresses(&self.addresses.all())?;
        }
        let keys = request.keys();
        let sa = |spec: &gm_esp::SaSpec, dir| NewSa {
            spec: *spec,
            keys: keys.clone(),
            dir,
            first_seq: None,
        };
        let sas = request
            .inbound
            .iter()
            .map(|spec| sa(spec, Dir::In))
            .chain(request.outbound.iter().map(|spec| sa(spec, Dir::Out)))
            .collect();
        if let Some(out) = &mut self.keys_out {
            out.write(request)?;
        }
        let id = self.plane.install(SetSpec { set: None, sas })?;
        self.sets.insert(request.token, id);
        for port in [params.ue_ends.port_c, params.ue_ends.port_s] {
            self.sockets
                .listen(SocketAddr::new(params.ue, port))
                .await?;
        }
        self.reporter.installed(request);
        Ok(())
    }

    /// SPIs are set aside before the protocol needs them.
    fn refill(&mut self) -> Result<()> {
        while self.ue.wants_spis() {
            let pair = [self.plane.reserve(&[])?.spi, self.plane.reserve(&[])?.spi];
            self.ue.add_spis(pair);
        }
        Ok(())
    }

    fn id(&self, set: SetToken) -> Result<SetId> {
        self.sets
            .get(&set)
            .copied()
            .ok_or_else(|| anyhow!("the protocol names a set that is not there"))
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

async fn start_plane(
    config: &Config,
    server_port: u16,
    client_ports: std::ops::RangeInclusive<u16>,
) -> Result<DataPlane> {
    let plane = gm_dataplane::Config {
        uplink: config.uplink.clone(),
        addresses: vec![config.address],
        server_ports: vec![server_port..=server_port],
        client_ports: vec![client_ports],
        max_sas: 64,
        ..gm_dataplane::Config::default()
    };
    // The data plane runs a netlink runtime of its own while it starts.
    tokio::task::spawn_blocking(move || DataPlane::start(plane))
        .await?
        .context("the data path does not start")
}

fn random_port() -> Result<u16> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("no randomness: {e}"))?;
    // Two apart, so that the client ports after it fit below 65 536.
    Ok(FIRST_PORT + u16::from_be_bytes(bytes) % 30_000)
}

/// The kernel's randomness.
struct System;

impl Randomness for System {
    fn fill(&mut self, out: &mut [u8]) {
        // The kernel's generator does not fail once it is up; a phone that
        // went on without randomness would be worse than one that ends.
        #[allow(clippy::expect_used, reason = "fail closed")]
        getrandom::fill(out).expect("the kernel gives randomness");
    }
}

/// The protocol's view of the USIM.
struct Sim(Usim);

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
}
