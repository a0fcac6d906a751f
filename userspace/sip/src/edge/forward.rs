//! Requests and responses of phones, REGISTER apart (RFC 3261 clauses 16.6, 16.7, 16.11).

use std::net::SocketAddr;

use super::branch::Sender;
use super::dialog::DIALOGS;
use super::identity::{anonymous, strip_up};
use super::tx::{Reply, Tx};
use super::{Edge, Refusal, ServiceRoute, top_via};
use crate::header::via::mark_source;
use crate::header::{self, Host, NameAddr, Uri};
use crate::message::Message;
use crate::sa_set::SetToken;
use crate::{Packet, Transport};

impl Edge {
    /// A request of a registered UE.
    pub(super) fn request_up(
        &mut self,
        now: u64,
        at: &Packet,
        token: SetToken,
        reply: Reply,
        message: &Message,
    ) -> Result<(), Refusal> {
        let id = self
            .agent
            .table()
            .set(token)
            .map(|s| s.contact)
            .ok_or(Refusal::NoSa)?;
        let branch = self.branch(message, Sender::Contact(id))?;
        let contact = self.agent.table().contact(id).ok_or(Refusal::NoSa)?;
        let from = message
            .value("From")
            .and_then(|f| NameAddr::parse(&f))
            .ok_or(Refusal::Headers)?;
        let mut up = message.clone();
        // Those of others behind us stay: the core sends the request back to us.
        let own = |uri: &Uri| {
            let mine = |user: &String| user.starts_with(&*contact.path);
            uri.user.as_ref().is_none_or(mine) && self.is_own_for(uri, at.local)
        };
        let users = self.strip_routes(&mut up, own);
        // In a dialog From may be whatever the other side called the user.
        let dialog = self.in_dialog(&contact.path, &users, message);
        if !dialog && !contact.owns(&from.uri) && !anonymous(&from) {
            return Err(Refusal::ForeignUser);
        }
        let known = self.txs.get(&branch).is_some();
        if !known && !self.txs.has_room(Some(id), &self.config.limits) {
            return Err(Refusal::Overload);
        }
        let method = message.method().unwrap_or_default();
        hop(&mut up)?;
        strip_up(&mut up);
        if !dialog && !is_emergency(message) {
            self.enforce_route(&mut up, id)?;
        } else if !dialog && self.config.service_route != ServiceRoute::Pass {
            // The core knows the way to emergency services (TS 24.229 clause 5.2.10).
            up.remove("Route");
        }
        self.mark_top(&mut up, at.remote);
        self.assert_identity(&mut up, id, message);
        if DIALOGS.contains(&method) {
            up.insert_top("Record-Route", &self.route_at_core(&contact.path));
        }
        let over = self.push_via_up(&mut up, &branch);
        self.agent.heard(token, now);
        self.carry_out();
        if method != "ACK" {
            self.remember_for(now, &branch, Tx::of(reply, id).over(over), method);
        }
        self.send(Reply::Up, up.to_bytes());
        Ok(())
    }

    /// A response of a registered UE to a request of the core.
    pub(super) fn response_up(
        &mut self,
        now: u64,
        token: SetToken,
        message: &Message,
    ) -> Result<(), Refusal> {
        let via = top_via(message).ok_or(Refusal::Headers)?;
        let branch = via.branch().ok_or(Refusal::NoTransaction)?;
        let tx = self.txs.get(&branch).ok_or(Refusal::NoTransaction)?;
        let Reply::Core { .. } = tx.reply else {
            return Err(Refusal::NoTransaction);
        };
        let (reply, id) = (tx.reply, self.agent.table().set(token).map(|s| s.contact));
        if tx.contact != id {
            return Err(Refusal::ForeignUser);
        }
        let mut up = message.clone();
        up.remove_first_element("Via");
        strip_up(&mut up);
        if let Some(id) = id {
            self.assert_identity(&mut up, id, message);
            if let Some(contact) = self.agent.table().contact(id) {
                self.turn_up(&mut up, &contact.path);
            }
        }
        self.prolong(now, &branch, message);
        self.agent.heard(token, now);
        self.carry_out();
        self.send(reply, up.to_bytes());
        Ok(())
    }

    /// What a REGISTER to the core loses and gets: the security agreement ends here, the
    /// source is marked. Every Route goes: whoever answers a REGISTER says who somebody
    /// is, and a phone does not choose him (TS 24.229 clause 5.2.2).
    pub(super) fn prepare_up(&self, up: &mut Message, source: SocketAddr) -> Result<(), Refusal> {
        hop(up)?;
        strip_up(up);
        up.remove("Route");
        self.mark_top(up, source);
        Ok(())
    }

    /// Our Via towards the core, last of all: the size of what is there decides what it
    /// goes over.
    pub(super) fn push_via_up(&self, up: &mut Message, branch: &str) -> Transport {
        let at = &self.core_local;
        // The names of all transports have three letters.
        let size = "SIP/2.0/UDP ;branch=;rport".len() + at.len() + branch.len();
        let over = self.over_up(branch, up.size() + "Via: \r\n".len() + size);
        let mut via = String::with_capacity(size);
        for part in [
            "SIP/2.0/",
            over.name(),
            " ",
            at,
            ";branch=",
            branch,
            ";rport",
        ] {
            via.push_str(part);
        }
        up.insert_top("Via", &via);
        over
    }

    /// Remembers a REGISTER.
    pub(super) fn remember(&mut self, now: u64, branch: &str, tx: Tx) {
        self.remember_for(now, branch, tx, "REGISTER");
    }

    pub(super) fn remember_for(&mut self, now: u64, branch: &str, mut tx: Tx, method: &str) {
        // CANCEL has the INVITE's branch and the INVITE's way back.
        if method == "CANCEL" && self.txs.get(branch).is_some() {
            return;
        }
        let timers = &self.config.timers;
        let period = if method == "INVITE" {
            timers.invite
        } else {
            timers.transaction
        };
        // A retransmission is the same transaction: it goes on holding its set, and times
        // out when it would have (64 * T1 after its first request).
        let known = self.txs.get(branch);
        let deadline = known.map_or(now.saturating_add(period), Tx::deadline);
        let held = known.and_then(|known| known.set);
        let again = held.is_some() && held == tx.set;
        tx.set = tx.set.filter(|set| again || self.agent.hold(*set));
        if let Some(replaced) = self.txs.insert(branch, tx, deadline)
            && !again
        {
            self.over(now, &replaced);
        }
    }

    /// A transaction is completed or has timed out: its set need not stay for it.
    pub(super) fn over(&mut self, now: u64, tx: &Tx) {
        if let Some(set) = tx.set {
            self.agent.let_go(set, now);
        }
    }

    /// A provisional answer to INVITE starts its period again (timer C); after a final
    /// one it is remembered as long as any other.
    pub(super) fn prolong(&mut self, now: u64, branch: &str, message: &Message) {
        let invite = header::cseq(message).is_some_and(|(_, method)| method == "INVITE");
        if invite && let Some(status) = message.status() {
            let timers = &self.config.timers;
            let period = if status < 200 {
                timers.invite
            } else {
                timers.transaction
            };
            self.txs.extend(branch, now.saturating_add(period));
        }
    }

    /// Whether a URI names this edge, on either side.
    pub(super) fn is_own(&self, uri: &Uri) -> bool {
        let Some(ip) = uri.host.as_ref().and_then(Host::ip) else {
            return false;
        };
        let port = uri.port.unwrap_or(5060);
        let core = SocketAddr::new(ip, port) == self.config.core_local;
        core || (port == self.config.server_port
            && uri.user.as_ref().is_none_or(|u| self.by_user(u).is_some()))
    }

    /// The same as a phone sees it that sends to `local`: any port of that address.
    pub(super) fn is_own_for(&self, uri: &Uri, local: SocketAddr) -> bool {
        let ip = uri.host.as_ref().and_then(Host::ip);
        let local = local.ip();
        ip == Some(local) || ip == Some(self.config.told(local)) || self.is_own(uri)
    }

    pub(super) fn mark_top(&self, message: &mut Message, source: SocketAddr) {
        if let Some(marked) = message
            .first_element("Via")
            .and_then(|via| mark_source(&via, source, false))
        {
            message.replace_first_element("Via", &marked);
        }
    }
}

/// Whether a request is for an emergency service (RFC 5031, TS 24.229 clause 5.2.10).
pub(super) fn is_emergency(message: &Message) -> bool {
    let uri = message.uri().unwrap_or_default().to_ascii_lowercase();
    let rest = uri.strip_prefix("urn:service:sos");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Option tags of Proxy-Require that are not known here (RFC 3261 clause 16.3 step 5).
pub(super) fn unknown_extensions(request: &Message) -> Vec<String> {
    let mut tags = request.elements("Proxy-Require");
    tags.retain(|tag| !is_known(tag));
    tags
}

fn is_known(tag: &str) -> bool {
    let known = ["sec-agree", "privacy"];
    known.iter().any(|known| tag.eq_ignore_ascii_case(known))
}

/// Whether a request may go on (RFC 3261 clause 16.3), and counts Max-Forwards down
/// (16.6 step 3).
pub(super) fn hop(message: &mut Message) -> Result<(), Refusal> {
    let left = match message.value("Max-Forwards") {
        None => 71,
        Some(value) => value
            .trim()
            .parse::<u32>()
            .map_err(|_| Refusal::Headers)?
            .min(255),
    };
    if left == 0 {
        return Err(Refusal::Hops);
    }
    let hop_by_hop = matches!(message.method(), Some("ACK" | "CANCEL"));
    if !hop_by_hop && message.any_element("Proxy-Require", |tag| !is_known(tag)) {
        return Err(Refusal::Extension);
    }
    message.set("Max-Forwards", &(left - 1).to_string());
    Ok(())
}
