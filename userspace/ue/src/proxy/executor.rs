//! Sockets, SAs and time around [`super::machine::Proxy`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use gm_dataplane::SetId;
use gm_sip::SetToken;
use gm_sip::ue::{Aka, AkaAnswer, AkaFailure};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::machine::{Proxy, ProxyConfig, ProxyEvent, ProxyInput, ProxyOutput};
use crate::agent::{Sim, System};
use crate::config::Config;
use crate::host::{Arrival, Host};
use crate::usim::Usim;

/// A proxy that runs.
pub struct Running {
    proxy: Proxy,
    host: Host,
    incoming: mpsc::Receiver<Arrival>,
    sets: HashMap<SetToken, SetId>,
    listen: SocketAddr,
    began: Instant,
}

impl Running {
    /// Puts the proxy on a host that runs, and opens its ports for messages in clear:
    /// `listen` towards the UE, and the one towards the P-CSCF.
    ///
    /// # Errors
    /// When a port cannot be had or no SPI is free.
    pub async fn start(
        config: ProxyConfig,
        subscriber: &Config,
        mut host: Host,
        incoming: mpsc::Receiver<Arrival>,
    ) -> Result<Running> {
        let listen = config.listen;
        let clear = SocketAddr::new(config.gm.local, config.gm.clear_port);
        host.listen(listen)
            .await
            .with_context(|| format!("cannot listen for the UE on {listen}; see --listen"))?;
        host.listen(clear).await?;
        let sim = Box::new(Fresh {
            k: subscriber.k.clone(),
            opc: subscriber.opc.clone(),
        });
        let mut running = Running {
            proxy: Proxy::new(config, sim, Box::new(System)),
            host,
            incoming,
            sets: HashMap::new(),
            listen,
            began: Instant::now(),
        };
        running.refill()?;
        Ok(running)
    }

    /// Runs until `stop` is done. Every event goes to `tell`.
    ///
    /// # Errors
    /// When the data plane fails; SIP that fails is an event.
    pub async fn run(
        &mut self,
        stop: impl Future<Output = ()>,
        mut tell: impl FnMut(ProxyEvent),
    ) -> Result<()> {
        tokio::pin!(stop);
        loop {
            let wait = match self.proxy.next_timeout() {
                Some(at) => Duration::from_millis(at.saturating_sub(self.now())),
                None => Duration::from_secs(3600),
            };
            tokio::select! {
                () = &mut stop => return Ok(()),
                Some(arrival) = self.incoming.recv() => self.take_in(&arrival),
                () = tokio::time::sleep(wait) => {
                    let now = self.now();
                    self.proxy.handle_timeout(now);
                }
            }
            while let Some(output) = self.proxy.poll() {
                self.carry_out(output, &mut tell).await?;
            }
            self.refill()?;
        }
    }

    /// Takes everything apart again: no SA and no address stays. Says whether the
    /// UE was still registered.
    ///
    /// # Errors
    /// What the data plane could not remove.
    pub async fn stop(self) -> Result<bool> {
        let registered = self.proxy.is_registered();
        self.host.stop().await?;
        Ok(registered)
    }

    fn take_in(&mut self, arrival: &Arrival) {
        let now = self.now();
        let input = match arrival {
            Arrival::Message {
                local,
                remote,
                bytes,
                ..
            } if *local == self.listen => ProxyInput::FromUe {
                remote: *remote,
                bytes,
            },
            Arrival::Message {
                local,
                remote,
                transport,
                bytes,
            } => ProxyInput::FromNetwork {
                local: *local,
                remote: *remote,
                transport: *transport,
                bytes,
            },
            // Answers on a connection that is gone are lost; the P-CSCF asks again.
            Arrival::Unreachable { .. } | Arrival::Closed { .. } => return,
        };
        self.proxy.handle(now, input);
    }

    async fn carry_out(
        &mut self,
        output: ProxyOutput,
        tell: &mut impl FnMut(ProxyEvent),
    ) -> Result<()> {
        match output {
            ProxyOutput::ToUe { remote, bytes } => {
                let packet = gm_sip::Packet {
                    local: self.listen,
                    remote,
                    transport: gm_sip::Transport::Udp,
                    bytes,
                };
                self.host.send(&packet).await;
            }
            ProxyOutput::ToNetwork(packet) => self.host.send(&packet).await,
            ProxyOutput::Install(request) => {
                let installed = self.host.install(&request).await;
                let ok = installed.is_ok();
                match installed {
                    Ok(id) => {
                        self.sets.insert(request.token, id);
                    }
                    Err(error) => tracing::warn!("{error:#}"),
                }
                let (now, set) = (self.now(), request.token);
                self.proxy.handle(now, ProxyInput::Installed { set, ok });
            }
            ProxyOutput::Activate(set) => self.host.activate(self.id(set)?)?,
            ProxyOutput::Retire(set) => {
                // A set that could not be installed is not there.
                if let Some(id) = self.sets.get(&set) {
                    self.host.retire(*id)?;
                }
            }
            ProxyOutput::Remove(set) => {
                if let Some(id) = self.sets.remove(&set) {
                    self.host.remove(id)?;
                }
            }
            ProxyOutput::Unreserve(spis) => {
                for spi in spis {
                    self.host.plane().unreserve(spi)?;
                }
            }
            ProxyOutput::Event(event) => tell(event),
        }
        Ok(())
    }

    fn refill(&mut self) -> Result<()> {
        while self.proxy.wants_spis() {
            self.proxy.add_spis(self.host.reserve()?);
        }
        Ok(())
    }

    fn id(&self, set: SetToken) -> Result<SetId> {
        self.sets
            .get(&set)
            .copied()
            .ok_or_else(|| anyhow!("the proxy names a set that is not there"))
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// A USIM that has seen no sequence number: whether a number is fresh is judged by
/// the one in the UE, which answers.
struct Fresh {
    k: Zeroizing<[u8; 16]>,
    opc: Zeroizing<[u8; 16]>,
}

impl Aka for Fresh {
    fn answer(&mut self, rand: &[u8; 16], autn: &[u8; 16]) -> Result<AkaAnswer, AkaFailure> {
        Sim(Usim::new(*self.k, *self.opc)).answer(rand, autn)
    }
}
