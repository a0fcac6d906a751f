//! Answers of the network, and what a 200 to REGISTER means (TS 33.203 clause 7.4.1a).

use std::net::{IpAddr, SocketAddr};

use super::client::Purpose;
use super::procedure::LINGER;
use super::{Ignored, Ue, UeEvent, UeFailure};
use crate::header::{self, Via};
use crate::message::Message;
use crate::sa_set::SetToken;

/// What SAs live longer than the registration.
const MARGIN: u64 = 30_000;

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
        let came = self.set_of(local, remote).map(|s| s.token);
        let status = message.status().unwrap_or(500);
        if came != client.set && !self.clear_failure(local, client.set, status) {
            return self.ignored(Ignored::WrongSa);
        }
        if status < 200 {
            return self.clients.proceeding(&branch, now);
        }
        self.clients.remove(&branch);
        if let Some(token) = came {
            self.confirmed_by_use(now, token);
        }
        match client.purpose {
            Purpose::Request(id) => self.event(UeEvent::Answered {
                id,
                status,
                body: message.body().to_vec(),
            }),
            Purpose::Register => {
                let received = via.and_then(|v| v.received());
                self.registered_or_not(now, status, received, message);
            }
        }
    }

    /// The failure of SM7 comes in clear when SM1 was in clear, and over the old set
    /// when that protected it (clause 7.4.1a).
    fn clear_failure(&self, local: SocketAddr, set: Option<SetToken>, status: u16) -> bool {
        let Some(procedure) = &self.procedure else {
            return false;
        };
        let new = procedure.set.as_ref().is_some_and(|s| Some(s.token) == set);
        let clear = local == SocketAddr::new(self.config.local, self.config.clear_port);
        let old = self
            .current
            .as_ref()
            .is_some_and(|s| s.address(local.port()) == local);
        new && status >= 400 && status != 401 && if procedure.over.is_some() { old } else { clear }
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
                    self.abandon(failure);
                }
            }
            // In clear anybody says yes; the network that means it has challenged us.
            200..300
                if self
                    .procedure
                    .as_ref()
                    .is_some_and(|p| p.over.is_none() && p.set.is_none()) =>
            {
                self.abandon(UeFailure::NetworkAuthentication);
            }
            200..300 => self.registered(now, message),
            _ => self.abandon(UeFailure::Status(status)),
        }
    }

    /// SM12, or the 200 to a refresh that was not challenged: then the offer is forgotten.
    fn registered(&mut self, now: u64, message: &Message) {
        let Some(procedure) = self.procedure.take() else {
            return;
        };
        let expires = header::granted(message, |uri| uri.port == Some(self.config.server_port));
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
            self.registered_until = None;
            self.service_route.clear();
            self.old.extend(self.current.take());
            for set in &mut self.old {
                set.deadline = set.deadline.min(now + LINGER);
            }
            return self.event(UeEvent::Deregistered);
        }
        let routes = message.elements("Service-Route");
        if !routes.is_empty() {
            self.service_route = routes;
        }
        self.registered_until = Some(until);
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
