//! One phone on a [`Host`]: carries out what the protocol asks for, in its order.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Result, anyhow};
use gm_dataplane::SetId;
use gm_sip::ue::{Ue, UeEvent, UeInput, UeOutput};
use gm_sip::{Packet, SaSetRequest, SetToken};

use crate::host::{Arrival, Host};

/// Whoever wants to know what a phone does. All methods do nothing unless written.
pub trait Watch {
    /// The protocol says something.
    fn event(&mut self, _event: UeEvent) {}
    /// A set is installed.
    fn installed(&mut self, _request: &SaSetRequest) {}
    /// A set could not be installed.
    fn refused(&mut self, _error: &anyhow::Error) {}
    /// A set is gone.
    fn removed(&mut self, _set: SetToken) {}
    /// A message leaves.
    fn sends(&mut self, _packet: &Packet) {}
    /// Something came for the phone.
    fn receives(&mut self, _arrival: &Arrival) {}
}

/// A phone: the protocol, and where its sets are in the data plane.
pub struct Phone {
    ue: Ue,
    sets: HashMap<SetToken, SetId>,
}

impl Phone {
    /// A phone that has no set yet.
    pub fn new(ue: Ue) -> Phone {
        Phone {
            ue,
            sets: HashMap::new(),
        }
    }

    /// The protocol, to be asked and told; [`Phone::carry_out`] follows.
    pub fn ue(&mut self) -> &mut Ue {
        &mut self.ue
    }

    /// When [`Ue::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<u64> {
        self.ue.next_timeout()
    }

    /// Takes in what came for this phone; [`Phone::carry_out`] follows.
    pub fn take_in(&mut self, now: u64, arrival: &Arrival, watch: &mut impl Watch) {
        watch.receives(arrival);
        let input = match arrival {
            Arrival::Message {
                local,
                remote,
                transport,
                bytes,
            } => UeInput::FromNetwork {
                local: *local,
                remote: *remote,
                transport: *transport,
                bytes,
            },
            Arrival::Unreachable { local, remote } => UeInput::Unreachable {
                local: *local,
                remote: *remote,
            },
            Arrival::Closed { local, remote } => UeInput::Closed {
                local: *local,
                remote: *remote,
            },
        };
        self.ue.handle(now, input);
    }

    /// Does everything that the protocol asks for, and sees to it that it has
    /// SPIs for what comes next. `now` reads the phone's clock.
    ///
    /// # Errors
    /// When the data plane fails; SIP that fails is an event.
    pub async fn carry_out(
        &mut self,
        host: &mut Host,
        now: impl Fn() -> u64,
        watch: &mut impl Watch,
    ) -> Result<()> {
        while let Some(output) = self.ue.poll() {
            match output {
                UeOutput::Send(packet) => {
                    watch.sends(&packet);
                    host.send(&packet).await;
                }
                UeOutput::Install(request) => {
                    let ok = self.install(host, &request, watch).await;
                    let set = request.token;
                    self.ue.handle(now(), UeInput::Installed { set, ok });
                }
                UeOutput::Activate { set } => host.activate(self.id(set)?)?,
                UeOutput::Retire { set } => host.retire(self.id(set)?)?,
                UeOutput::Remove { set } => {
                    host.remove(self.id(set)?)?;
                    self.sets.remove(&set);
                    watch.removed(set);
                }
                UeOutput::Event(event) => watch.event(event),
            }
        }
        while self.ue.wants_spis() {
            self.ue.add_spis(host.reserve()?);
        }
        Ok(())
    }

    async fn install(
        &mut self,
        host: &mut Host,
        request: &SaSetRequest,
        watch: &mut impl Watch,
    ) -> bool {
        match host.install(request).await {
            Ok(id) => {
                self.sets.insert(request.token, id);
                watch.installed(request);
                true
            }
            Err(error) => {
                watch.refused(&error);
                false
            }
        }
    }

    /// Whether what came to this address and port is for this phone alone: a
    /// port of one of its sets.
    pub fn has(&self, local: SocketAddr) -> bool {
        self.ue.has_port(local)
    }

    fn id(&self, set: SetToken) -> Result<SetId> {
        self.sets
            .get(&set)
            .copied()
            .ok_or_else(|| anyhow!("the protocol names a set that is not there"))
    }
}
