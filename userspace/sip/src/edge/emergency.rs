//! Emergency calls of phones that are not registered, in clear (TS 33.203 clause 7.1 port
//! rule 3, TS 24.229 clause 5.2.10), where the configuration wants them. Nobody's identity
//! is asserted, and the calls are few: strangers can open them.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use super::branch::Sender;
use super::forward::{hop, is_emergency};
use super::identity::{strip_down, strip_up};
use super::tx::{Reply, Tx};
use super::{Edge, Refusal, top_via};
use crate::agent::Source;
use crate::header::{self, Host, NameAddr};
use crate::lifecycle::ContactId;
use crate::message::Message;
use crate::{Packet, Transport, aka};

/// Calls in all, and of one IPv4 address or IPv6 /64.
const MOST: usize = 256;
const MOST_EACH: usize = 4;
/// Requests of one call that are remembered at a time.
const MOST_OPEN: usize = 16;
/// The longest call, and what is kept of one that is over, in milliseconds.
const LONGEST: u64 = 4 * 3600 * 1000;
const OVER: u64 = 32_000;
/// Requests of a phone inside a call.
const IN_CALL: [&str; 7] = ["ACK", "BYE", "CANCEL", "INFO", "INVITE", "PRACK", "UPDATE"];
/// Transactions are counted by contact; calls have numbers that no contact has.
const FIRST: ContactId = 1 << 63;

/// One call.
#[derive(Debug, Clone)]
struct Call {
    /// User part of our Record-Route.
    user: String,
    local: SocketAddr,
    /// Where requests for the phone go.
    remote: SocketAddr,
    transport: Transport,
    deadline: u64,
}

/// All calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    all: HashMap<ContactId, Call>,
    by_user: HashMap<String, ContactId>,
    ends: BTreeSet<(u64, ContactId)>,
    begun: u64,
}

impl Calls {
    pub fn next_timeout(&self) -> Option<u64> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: u64) {
        while let Some((at, id)) = self.ends.first().copied().filter(|(at, _)| *at <= now) {
            self.ends.remove(&(at, id));
            if let Some(call) = self.all.remove(&id) {
                self.by_user.remove(&call.user);
            }
        }
    }

    fn has_room(&self, from: SocketAddr) -> bool {
        let same = |call: &&Call| Source::of(call.remote.ip()) == Source::of(from.ip());
        self.all.len() < MOST && self.all.values().filter(same).count() < MOST_EACH
    }

    fn enter(&mut self, call: Call) -> ContactId {
        self.begun += 1;
        let id = FIRST | self.begun;
        self.ends.insert((call.deadline, id));
        self.by_user.insert(call.user.clone(), id);
        self.all.insert(id, call);
        id
    }

    fn until(&mut self, id: ContactId, deadline: u64) {
        if let Some(call) = self.all.get_mut(&id) {
            self.ends.remove(&(call.deadline, id));
            call.deadline = deadline;
            self.ends.insert((deadline, id));
        }
    }
}

impl Edge {
    /// A request other than REGISTER in clear: opens an emergency call, or belongs to one.
    pub(super) fn emergency_up(
        &mut self,
        now: u64,
        at: &Packet,
        reply: Reply,
        message: &Message,
    ) -> Result<(), Refusal> {
        if !self.config.emergency_in_clear {
            return Err(Refusal::Unprotected);
        }
        let method = message.method().unwrap_or_default();
        let branch = self.branch(message, Sender::Clear(at.remote))?;
        let user = self.call_user(at, message);
        let known = self.calls.by_user.get(&user).copied();
        let mut up = message.clone();
        let users = self.strip_routes(&mut up, |uri| self.is_own_for(uri, at.local));
        let to_tag = header::tag(message, "To");
        let sos = is_emergency(message);
        let opens = sos && method == "INVITE" && to_tag.is_none();
        // Of the opening INVITE itself: the same branch, and so the same transaction.
        let tx = self.txs.get(&branch).and_then(|tx| tx.contact);
        let same = sos && ["CANCEL", "ACK"].contains(&method) && known.is_some() && tx == known;
        // Inside the call: it brings back what an answer of the core has told it.
        let proof = to_tag.map(|tag| self.call_proof(&user, &tag));
        let inside = known.is_some()
            && IN_CALL.contains(&method)
            && proof.is_some_and(|proof| users.contains(&proof));
        if !(opens || same || inside) {
            return Err(Refusal::Unprotected);
        }
        if !inside {
            // Nobody has given it any.
            up.remove("Route");
        }
        hop(&mut up)?;
        let Reply::Clear { remote, .. } = reply else {
            return Err(Refusal::Unprotected);
        };
        let room = known.is_some() || self.calls.has_room(at.remote);
        let repeated = self.txs.get(&branch).is_some();
        let few = known.is_none_or(|id| self.txs.of(id) < MOST_OPEN);
        let free = few && self.txs.has_room(known, &self.config.limits);
        if !room || !(repeated || free) {
            return Err(Refusal::Overload);
        }
        let deadline = now.saturating_add(self.config.timers.invite);
        let id = known.unwrap_or_else(|| {
            self.calls.enter(Call {
                user: user.clone(),
                local: at.local,
                remote,
                transport: at.transport,
                deadline,
            })
        });
        strip_up(&mut up);
        up.remove("P-Preferred-Identity");
        self.mark_top(&mut up, at.remote);
        if method == "INVITE" {
            up.insert_top("Record-Route", &self.route_at_core(&user));
        }
        let over = self.push_via_up(&mut up, &branch);
        if method != "ACK" {
            self.remember_for(now, &branch, Tx::of(reply, id).over(over), method);
        }
        self.send(Reply::Up, up.to_bytes());
        Ok(())
    }

    /// A response in clear: to a request of the core inside such a call, and nothing else.
    pub(super) fn emergency_response_up(
        &mut self,
        now: u64,
        at: &Packet,
        message: &Message,
    ) -> Result<(), Refusal> {
        let via = top_via(message).ok_or(Refusal::Unprotected)?;
        let branch = via.branch().ok_or(Refusal::Unprotected)?;
        let tx = self.txs.get(&branch).ok_or(Refusal::Unprotected)?;
        let (reply, id) = (tx.reply, tx.contact.ok_or(Refusal::Unprotected)?);
        let call = self.calls.all.get(&id).ok_or(Refusal::Unprotected)?;
        let from_core = matches!(reply, Reply::Core { .. });
        if !from_core || call.remote.ip() != at.remote.ip() || call.local != at.local {
            return Err(Refusal::Unprotected);
        }
        let core = self.route_at_core(&call.user);
        let mut up = message.clone();
        up.remove_first_element("Via");
        strip_up(&mut up);
        up.remove("P-Preferred-Identity");
        self.turn(&mut up, |user| user.starts_with(&call.user), &core);
        self.prolong(now, &branch, message);
        self.call_goes_on(now, id, message);
        self.send(reply, up.to_bytes());
        Ok(())
    }

    /// Whether a user part of our Route is such a call's.
    pub(super) fn is_call(&self, user: &str) -> bool {
        self.calls.by_user.contains_key(user)
    }

    /// A request of the core inside such a call: `user` is of our Route, which is off.
    pub(super) fn emergency_down(
        &mut self,
        now: u64,
        source: SocketAddr,
        reply: Reply,
        (user, mut down): (&str, Message),
        message: &Message,
    ) -> Result<(), Refusal> {
        let id = self.calls.by_user.get(user).copied();
        let id = id.ok_or(Refusal::NoContact)?;
        let call = self.calls.all.get(&id).ok_or(Refusal::NoContact)?;
        let (local, remote, transport) = (call.local, call.remote, call.transport);
        let branch = self.branch(message, Sender::Core(source.ip()))?;
        if self.txs.get(&branch).is_none() && !self.txs.has_room(Some(id), &self.config.limits) {
            return Err(Refusal::Overload);
        }
        self.mark_top(&mut down, source);
        aka::strip_keys(&mut down);
        strip_down(&mut down);
        let method = message.method().unwrap_or_default();
        if method == "INVITE" {
            let tag = header::tag(message, "From").unwrap_or_default();
            let proof = self.call_proof(user, &tag);
            down.insert_top("Record-Route", &self.route_at_ue(&proof, local, transport));
        }
        let host = Host::Ip(self.config.told(local.ip()));
        let (name, port) = (transport.name(), local.port());
        let via = format!("SIP/2.0/{name} {host}:{port};branch={branch}");
        down.insert_top("Via", &via);
        if method != "ACK" {
            let tx = Tx::of(reply, id).over(transport);
            self.remember_for(now, &branch, tx, method);
        }
        let way = Reply::Clear {
            local,
            remote,
            transport,
        };
        self.send(way, down.to_bytes());
        Ok(())
    }

    /// A response of the core inside such a call, on its way to the phone.
    pub(super) fn emergency_response_down(
        &mut self,
        now: u64,
        id: ContactId,
        message: &mut Message,
    ) {
        let Some(call) = self.calls.all.get(&id) else {
            return;
        };
        // A refusal makes no dialog, whatever tag it has.
        if message.status().is_some_and(|code| code < 300) {
            let tag = header::tag(message, "To").unwrap_or_default();
            let proof = self.call_proof(&call.user, &tag);
            let route = self.route_at_ue(&proof, call.local, call.transport);
            self.turn(message, |user| user == call.user, &route);
        }
        self.call_goes_on(now, id, message);
    }

    /// An answer to INVITE or BYE says how long the call is to be known.
    fn call_goes_on(&mut self, now: u64, id: ContactId, response: &Message) {
        let Some(code) = response.status().filter(|code| *code >= 200) else {
            return;
        };
        let good = code < 300;
        match header::cseq(response) {
            Some((_, method)) if method == "INVITE" && good => {
                self.calls.until(id, now.saturating_add(LONGEST));
            }
            Some((_, method)) if method == "BYE" => {
                self.calls.until(id, now.saturating_add(OVER));
            }
            _ => {}
        }
    }

    /// User part of our Record-Route at the phone's side: shows that the core has answered
    /// with this To tag.
    fn call_proof(&self, user: &str, tag: &str) -> String {
        let proof = self.token(&["sos in", user, tag]);
        format!("{user}{}", &proof[..16])
    }

    /// The same for all requests of one phone in one call.
    fn call_user(&self, at: &Packet, message: &Message) -> String {
        let from = message
            .value("From")
            .and_then(|from| NameAddr::parse(&from));
        let tag = from.and_then(|from| from.param("tag")).unwrap_or_default();
        let call = message.value("Call-ID").unwrap_or_default();
        let token = self.token(&["sos", &call, &tag, &at.remote.ip().to_string()]);
        format!("sos{}", &token[..21])
    }
}
