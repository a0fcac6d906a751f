//! Answers of the network, and what a 200 to REGISTER means (TS 33.203 clause 7.4.1a).

use std::net::{IpAddr, SocketAddr};

use super::client::Purpose;
use super::{Fault, Ignored, Ue, UeEvent, UeFailure};
use crate::header::{self, Host, Via};
use crate::message::Message;
use crate::sa_set::SetToken;

/// What SAs live longer than the registration.
const MARGIN: u64 = 30_000;
/// Seconds of Retry-After that are believed.
const MOST_WAIT: u32 = 3600;

impl Ue {
    /// A response, to be taken only through the set that carried the request.
    pub(super) fn answer(
        &mut self,
        now: u64,
        local: SocketAddr,
        remote: SocketAddr,
        message: &Message,
    ) {
        let via = message.first_element("Via").and_then(|v| Via::parse(&v));
        let branch = via.as_ref().and_then(Via::branch).unwrap_or_default();
        let Some(client) = self.clients.find(&branch).cloned() else {
            return self.ignored(Ignored::NoTransaction);
        };
        let own = client
            .set
            .filter(|set| self.came_through(*set, local, remote));
        let came = own.or_else(|| self.set_of(local, remote).map(|s| s.token));
        let status = message.status().unwrap_or(500);
        if came != client.set && !self.clear_failure(local, came, client.set, status) {
            return self.ignored(Ignored::WrongSa);
        }
        if status < 200 {
            return self.clients.proceeding(&branch, now);
        }
        let sm12 = client.purpose == Purpose::Register && status < 300;
        if sm12 && self.does(Fault::DropSm12) {
            return;
        }
        self.clients.remove(&branch);
        if let Some(token) = came {
            self.confirmed_by_use(now, token);
        }
        self.settle(now);
        match client.purpose {
            Purpose::Request(id) => self.event(UeEvent::Answered {
                id,
                status,
                body: message.body().to_vec(),
            }),
            Purpose::Report => {}
            Purpose::Register => {
                let received = via.and_then(|v| v.received());
                self.registered_or_not(now, status, received, message);
            }
        }
    }

    /// The failure of SM7 comes in clear when SM1 was in clear, and over the old set
    /// when that protected it (clause 7.4.1a).
    fn clear_failure(
        &self,
        local: SocketAddr,
        came: Option<SetToken>,
        set: Option<SetToken>,
        status: u16,
    ) -> bool {
        let Some(procedure) = &self.procedure else {
            return false;
        };
        let new = procedure.set.as_ref().is_some_and(|s| Some(s.token) == set);
        let way = match procedure.over {
            Some(old) => came == Some(old),
            None => came.is_none() && local == self.clear(),
        };
        new && way && status >= 400 && status != 401
    }

    fn registered_or_not(
        &mut self,
        now: u64,
        status: u16,
        received: Option<IpAddr>,
        message: &Message,
    ) {
        match status {
            401 => {
                if let Err(failure) = self.challenged(now, received, message) {
                    self.abandon(now, failure, 0);
                }
            }
            // In clear anybody says yes; the network that means it has challenged us.
            200..300
                if self
                    .procedure
                    .as_ref()
                    .is_some_and(|p| p.over.is_none() && p.set.is_none()) =>
            {
                self.abandon(now, UeFailure::NetworkAuthentication, 0);
            }
            200..300 => self.registered(now, message),
            _ => self.refused(now, status, message),
        }
    }

    /// A failure. Where the answer says what would do, that is tried at once.
    fn refused(&mut self, now: u64, status: u16, message: &Message) {
        let Some(procedure) = &self.procedure else {
            return;
        };
        let (first, leaves) = (procedure.over.is_none(), procedure.expires == 0);
        let number = |name: &str| {
            let value = message.value(name)?;
            value
                .split([';', ' ', '('])
                .next()?
                .trim()
                .parse::<u32>()
                .ok()
        };
        let longer = number("Min-Expires").filter(|min| *min > procedure.expires);
        let wait = number("Retry-After").map_or(0, |s| u64::from(s.min(MOST_WAIT)) * 1000);
        self.abandon(now, UeFailure::Status(status), wait);
        match status {
            // RFC 3261 clause 10.2.8.
            423 if !leaves && longer.is_some() => {
                self.config.expires = longer.unwrap_or(self.config.expires);
                self.register_or_tell(now);
            }
            // Another phone behind our NAT has these ports (M.7.1 rule 6).
            400 if first && !leaves => {
                if let Some(port) = self.spare_port() {
                    self.config.server_port = port;
                    self.register_or_tell(now);
                }
            }
            _ => {}
        }
    }

    /// Another port_us, drawn at random and not tried again.
    fn spare_port(&mut self) -> Option<u16> {
        let at = (self.random.u32() as usize).checked_rem(self.config.spare_ports.len())?;
        Some(self.config.spare_ports.swap_remove(at))
    }

    /// SM12, or the 200 to a refresh that was not challenged: then the offer is forgotten.
    fn registered(&mut self, now: u64, message: &Message) {
        let Some(procedure) = self.procedure.take() else {
            return;
        };
        // The list may have a binding of where we were before.
        let sent = procedure.set.as_ref().or(self.current.as_ref());
        let at = sent.map_or(self.config.local, |set| set.params.ue);
        let port = procedure.ends.port_s;
        let expires = header::granted(message, |uri| {
            uri.port == Some(port) && uri.host.as_ref().and_then(Host::ip) == Some(at)
        });
        let until = now + u64::from(expires) * 1000;
        let authenticated = procedure.set.is_some();
        if !authenticated {
            // A 200 without a challenge throws the offer away; its SPIs are free again.
            self.give_back(procedure.ends);
        }
        let mut old_deadline = 0;
        if let Some(new) = procedure.set
            && let Some(mut old) = self.current.replace(new)
        {
            old_deadline = old.deadline;
            if procedure.over == Some(old.token) {
                // It serves pending transactions until the new one is heard of.
                self.old.push(old);
            } else {
                old.deadline = now;
                self.drop_set(&old);
            }
        }
        if procedure.expires == 0 {
            self.end_registration(now);
            return self.event(UeEvent::Deregistered);
        }
        let routes = message.elements("Service-Route");
        if !routes.is_empty() {
            self.service_route = routes;
        }
        self.registered_until = Some(until);
        self.plan_renewal(now, expires);
        if let Some(set) = &mut self.current {
            // A life never shrinks (clause 7.4.1a).
            set.deadline = if authenticated {
                old_deadline.max(until + MARGIN)
            } else {
                set.deadline.max(until + MARGIN)
            };
            let set = set.token;
            self.event(UeEvent::Registered {
                set,
                expires,
                authenticated,
            });
        }
    }
}
