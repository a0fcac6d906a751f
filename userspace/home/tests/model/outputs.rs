//! Carrying out what the machines want.

use std::net::{IpAddr, SocketAddr};

use gm_sip::edge::{Input, Output};
use gm_sip::ue::{UeEvent, UeInput, UeOutput};
use gm_sip::{Packet, Transport};

use crate::flight::Flight;
use crate::phone::Kind;
use crate::world::{World, home_address};

impl World {
    /// Nothing is lost in a calm.
    pub fn lost(&self, place: &str) -> Result<(), String> {
        if self.calm {
            return Err(format!("a packet is lost in {place}"));
        }
        Ok(())
    }

    pub fn home_sends(&mut self, all: Vec<(SocketAddr, Vec<u8>)>, transport: Transport) {
        for (to, bytes) in all {
            assert_eq!(
                to, self.config.core_local,
                "everything goes through the edge"
            );
            let answer = bytes.starts_with(b"SIP/2.0");
            let transport = if answer { transport } else { Transport::Udp };
            self.flights.push(Flight::FromCore { transport, bytes });
        }
    }

    pub fn ue_does(&mut self, n: usize, output: UeOutput) -> Result<(), String> {
        let now = self.now;
        let phone = &mut self.phones[n];
        match output {
            UeOutput::Send(packet) => self.ue_sends(n, packet)?,
            UeOutput::Install(request) => {
                let (set, ok) = (request.token, std::mem::replace(&mut phone.installs, true));
                let until = now + self.config.timers.registration;
                phone.plane.install(*request, until, ok)?;
                phone.ue.handle(now, UeInput::Installed { set, ok });
            }
            UeOutput::Activate { set } => phone.plane.activate(set)?,
            UeOutput::Retire { set } => phone.plane.retire(set)?,
            UeOutput::Remove { set } => phone.plane.remove(set)?,
            UeOutput::Event(event) if self.trace => {
                println!("{:9}   phone {n} {event:?}", self.now);
                self.hear(n, event)?;
            }
            UeOutput::Event(event) => self.hear(n, event)?,
        }
        Ok(())
    }

    /// What a phone tells.
    fn hear(&mut self, n: usize, event: UeEvent) -> Result<(), String> {
        let now = self.now;
        let phone = &mut self.phones[n];
        match event {
            UeEvent::Registered {
                set,
                expires,
                authenticated,
            } => {
                self.tally.registrations += u64::from(authenticated);
                let until = now + u64::from(expires) * 1000 + self.config.timers.margin;
                if let Some(set) = phone.plane.sets.get_mut(&set) {
                    set.until = set.until.max(until);
                }
                if !matches!(phone.kind, Kind::Good | Kind::Contested) {
                    return Err(format!("{:?} is registered", phone.kind));
                }
            }
            UeEvent::Resynchronising => self.tally.resyncs += 1,
            UeEvent::Failed(why) => {
                self.tally.failures += 1;
                if self.calm {
                    return Err(format!("phone {n} failed in a calm: {why}"));
                }
            }
            UeEvent::Request { .. } => phone.served += 1,
            UeEvent::Answered { status: 200, .. } => phone.answered += 1,
            _ => {}
        }
        Ok(())
    }

    fn ue_sends(&mut self, n: usize, packet: Packet) -> Result<(), String> {
        if packet.bytes == [0xff] {
            return Ok(());
        }
        let phone = &self.phones[n];
        let seal = phone.plane.seal(&packet);
        if let Some(seal) = &seal
            && !self.plane.has_had(seal)
        {
            return Err(format!(
                "phone {n} sends over a set that the edge does not have yet"
            ));
        }
        if seal.is_none() && self.config.is_protected(packet.remote.port()) {
            // Fail closed: what no SA protects does not leave.
            return self.lost("the phone, for want of an SA");
        }
        let source = match seal {
            Some(_) => packet.local,
            None => phone.seen_as(packet.local),
        };
        self.tally.tcp += u64::from(packet.transport == Transport::Tcp);
        self.flights.push(Flight::Up {
            phone: n,
            source,
            packet,
            seal,
        });
        Ok(())
    }

    pub fn edge_does(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::ToUe(packet) => {
                let seal = self.check_to_ue(&packet)?;
                self.tally.protected += u64::from(seal.is_some());
                self.tally.tcp += u64::from(packet.transport == Transport::Tcp);
                if seal.is_none() && self.config.is_protected(packet.local.port()) {
                    return self.lost("the edge, for want of an SA");
                }
                self.flights.push(Flight::Down { packet, seal });
            }
            Output::ToCore {
                remote,
                transport,
                bytes,
            } => {
                assert_eq!(remote, home_address());
                self.flights.push(Flight::ToCore { transport, bytes });
            }
            Output::Install(request) => {
                self.tally.installs += 1;
                self.tally.tunnels += u64::from(request.params.tunnel.is_some());
                self.check_install(&request)?;
                let (set, ok) = (request.token, std::mem::replace(&mut self.installs, true));
                let until = self.now + self.config.timers.registration;
                self.plane.install(*request, until, ok)?;
                self.flights.push(Flight::Installed { set, ok });
            }
            Output::Activate { set } => self.plane.activate(set)?,
            Output::Retire { set } => self.plane.retire(set)?,
            Output::Remove { set } => self.plane.remove(set)?,
            Output::Resolve { id, .. } => {
                let addresses: &[IpAddr] = &[];
                self.edge
                    .handle(self.now, Input::Resolved { id, addresses });
            }
            Output::Event(event) => {
                if self.trace {
                    println!("{:9}   edge {event:?}", self.now);
                }
                self.note(event);
            }
        }
        Ok(())
    }
}
