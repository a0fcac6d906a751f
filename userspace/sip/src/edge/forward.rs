//! Everything but REGISTER: requests and responses both ways (RFC 3261 clauses 16.6, 16.7, 16.11).

use std::net::SocketAddr;

use super::tx::{Reply, Tx};
use super::{Edge, Refusal, top_via};
use crate::header::via::mark_source;
use crate::header::{self, Host, NameAddr, Uri};
use crate::lifecycle::ContactId;
use crate::message::Message;
use crate::sa_set::SetToken;
use crate::sec_agree::{SECURITY_CLIENT, SECURITY_VERIFY};
use crate::{Packet, aka};

/// Methods that make dialogs, which then must come through us.
const DIALOGS: [&str; 3] = ["INVITE", "SUBSCRIBE", "REFER"];

/// What only the network says (RFC 3325, RFC 7315, TS 24.229 clause 5.2): out of a
/// phone's mouth it is taken away.
const NETWORK_ONLY: [&str; 9] = [
    "P-Asserted-Identity",
    "P-Asserted-Service",
    "P-Associated-URI",
    "P-Charging-Function-Addresses",
    "P-Charging-Vector",
    "P-Profile-Key",
    "P-Served-User",
    "P-User-Database",
    "Path",
];

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
        let branch = self.branch(message, at.remote)?;
        let id = self
            .table
            .set(token)
            .map(|s| s.contact)
            .ok_or(Refusal::NoSa)?;
        let contact = self.table.contact(id).ok_or(Refusal::NoSa)?;
        let from = message
            .value("From")
            .and_then(|f| NameAddr::parse(&f))
            .ok_or(Refusal::Headers)?;
        // In a dialog From may be whatever the other side called the user.
        let opens = header::tag(message, "To").is_none();
        if opens && !contact.owns(&from.uri) && !anonymous(&from) {
            return Err(Refusal::ForeignUser);
        }
        let known = self.txs.get(&branch).is_some();
        if !known && !self.txs.has_room(Some(id), &self.config.limits) {
            return Err(Refusal::Overload);
        }
        let method = message.method().unwrap_or_default();
        let mut up = message.clone();
        self.prepare_up(&mut up, at.remote)?;
        self.assert_identity(&mut up, id, message);
        if DIALOGS.contains(&method) {
            let path = self
                .table
                .contact(id)
                .map(|c| c.path.clone())
                .unwrap_or_default();
            up.insert_top("Record-Route", &format!("<{};lr>", self.own_uri(&path)));
        }
        self.push_via_up(&mut up, &branch);
        self.table.heard(token, now);
        self.carry_out();
        if method != "ACK" {
            self.remember_for(now, &branch, Tx::of(reply, id), method);
        }
        self.send(
            Reply::Core {
                remote: self.config.core,
            },
            up.to_bytes(),
        );
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
        let (reply, id) = (tx.reply, self.table.set(token).map(|s| s.contact));
        if tx.contact != id {
            return Err(Refusal::ForeignUser);
        }
        let mut up = message.clone();
        up.remove_first_element("Via");
        for name in NETWORK_ONLY {
            up.remove(name);
        }
        if let Some(id) = id {
            self.assert_identity(&mut up, id, message);
        }
        self.prolong(now, &branch, message);
        self.table.heard(token, now);
        self.carry_out();
        self.send(reply, up.to_bytes());
        Ok(())
    }

    /// A request of the core to a registered UE: by our Path or Record-Route, else by
    /// the address in the Request-URI.
    pub(super) fn request_down(
        &mut self,
        now: u64,
        remote: SocketAddr,
        reply: Reply,
        message: &Message,
    ) -> Result<(), Refusal> {
        let branch = self.branch(message, remote)?;
        let mut down = message.clone();
        hop(&mut down)?;
        let id = self.find_contact(&mut down).ok_or(Refusal::NoContact)?;
        let contact = self.table.contact(id).ok_or(Refusal::NoContact)?;
        let set = contact
            .current
            .and_then(|t| self.table.set(t))
            .ok_or(Refusal::NoContact)?;
        let (token, local, to) = (set.token, set.local(), set.remote());
        let method = message.method().unwrap_or_default();
        if self.txs.get(&branch).is_none() && !self.txs.has_room(Some(id), &self.config.limits) {
            return Err(Refusal::Overload);
        }
        if DIALOGS.contains(&method) {
            let uri = self.own_uri(&contact.path);
            down.insert_top("Record-Route", &format!("<{uri};lr>"));
        }
        self.mark_top(&mut down, remote);
        // The UE answers over UDP to sent-by: our protected server port.
        let via = Host::Ip(local.ip());
        let port = self.config.server_port;
        down.insert_top("Via", &format!("SIP/2.0/UDP {via}:{port};branch={branch}"));
        aka::strip_keys(&mut down);
        if method != "ACK" {
            self.remember_for(now, &branch, Tx::of(reply, id), method);
        }
        let way = Reply::Set {
            set: token,
            local,
            remote: to,
            transport: crate::Transport::Udp,
        };
        self.send(way, down.to_bytes());
        Ok(())
    }

    /// A response of the core: our Via comes off, its branch says where to.
    pub(super) fn response_down(&mut self, now: u64, mut message: Message) -> Result<(), Refusal> {
        let via = top_via(&message).ok_or(Refusal::Headers)?;
        let own = via.host.ip() == Some(self.config.core_local.ip());
        let branch = via.branch().filter(|_| own).ok_or(Refusal::NoTransaction)?;
        let tx = self.txs.get(&branch).ok_or(Refusal::NoTransaction)?;
        let (reply, register) = (tx.reply, tx.register.clone());
        if matches!(reply, Reply::Core { .. }) {
            return Err(Refusal::NoTransaction);
        }
        message.remove_first_element("Via");
        match register {
            Some(register) => self.register_response(now, &branch, reply, &register, message),
            None => {
                aka::strip_keys(&mut message);
                self.prolong(now, &branch, &message);
                self.send(reply, message.to_bytes())
                    .map(|_| ())
                    .ok_or(Refusal::NoSa)
            }
        }
    }

    /// What every request to the core loses and gets: the security agreement ends
    /// here, our Routes come off, the source is marked.
    pub(super) fn prepare_up(&self, up: &mut Message, source: SocketAddr) -> Result<(), Refusal> {
        hop(up)?;
        for name in [SECURITY_CLIENT, SECURITY_VERIFY]
            .iter()
            .chain(&NETWORK_ONLY)
        {
            up.remove(name);
        }
        for name in ["Require", "Proxy-Require"] {
            up.remove_element(name, "sec-agree");
        }
        while let Some(route) = up.first_element("Route") {
            let uri = NameAddr::parse(&route).and_then(|r| r.parsed_uri());
            if !uri.is_some_and(|uri| self.is_own(&uri)) {
                break;
            }
            up.remove_first_element("Route");
        }
        self.mark_top(up, source);
        Ok(())
    }

    /// Our Via towards the core.
    pub(super) fn push_via_up(&self, up: &mut Message, branch: &str) {
        let at = self.config.core_local;
        up.insert_top(
            "Via",
            &format!(
                "SIP/2.0/UDP {}:{};branch={branch};rport",
                Host::Ip(at.ip()),
                at.port()
            ),
        );
    }

    /// `sip:TOKEN@us`, for Path and Record-Route.
    pub(super) fn own_uri(&self, token: &str) -> String {
        let at = self.config.core_local;
        format!("sip:{token}@{}:{}", Host::Ip(at.ip()), at.port())
    }

    /// Remembers a REGISTER.
    pub(super) fn remember(&mut self, now: u64, branch: &str, tx: Tx) {
        self.remember_for(now, branch, tx, "REGISTER");
    }

    fn remember_for(&mut self, now: u64, branch: &str, tx: Tx, method: &str) {
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
        if let Some(source) = self.txs.insert(branch, tx, now.saturating_add(period)) {
            self.pending.leave(source);
        }
    }

    /// A provisional answer to INVITE starts its period again (timer C).
    fn prolong(&mut self, now: u64, branch: &str, message: &Message) {
        let invite = header::cseq(message).is_some_and(|(_, method)| method == "INVITE");
        if invite && message.status().is_some_and(|s| s < 200) {
            self.txs
                .extend(branch, now.saturating_add(self.config.timers.invite));
        }
    }

    /// The contact that a request of the core is for; our Route comes off.
    fn find_contact(&self, down: &mut Message) -> Option<ContactId> {
        if let Some(route) = down.first_element("Route") {
            let uri = NameAddr::parse(&route)?.parsed_uri()?;
            if !self.is_own(&uri) {
                return None;
            }
            down.remove_first_element("Route");
            return self.table.by_path(uri.user.as_deref()?);
        }
        let uri = Uri::parse(down.uri()?)?;
        self.table
            .by_server_port(SocketAddr::new(uri.host?.ip()?, uri.port?))
    }

    /// Whether a URI names this edge, on either side.
    fn is_own(&self, uri: &Uri) -> bool {
        let Some(ip) = uri.host.as_ref().and_then(Host::ip) else {
            return false;
        };
        let port = uri.port.unwrap_or(5060);
        let core = SocketAddr::new(ip, port) == self.config.core_local;
        core || (port == self.config.server_port
            && uri
                .user
                .as_ref()
                .is_none_or(|u| self.table.by_path(u).is_some()))
    }

    fn mark_top(&self, message: &mut Message, source: SocketAddr) {
        if let Some(marked) = message
            .first_element("Via")
            .and_then(|via| mark_source(&via, source, false))
        {
            message.replace_first_element("Via", &marked);
        }
    }

    /// P-Asserted-Identity is one of the registered identities, never the UE's word
    /// (clause 7.1 rule 4, RFC 3325): the preferred one when it is registered, else the default.
    fn assert_identity(&self, up: &mut Message, id: ContactId, message: &Message) {
        up.remove("P-Preferred-Identity");
        let Some(contact) = self.table.contact(id) else {
            return;
        };
        let preferred = message
            .value("P-Preferred-Identity")
            .and_then(|p| NameAddr::parse(&p));
        let preferred = preferred.map(|p| p.uri).filter(|uri| contact.owns(uri));
        if let Some(uri) = preferred.or_else(|| contact.impus.first().cloned()) {
            up.push("P-Asserted-Identity", &format!("<{uri}>"));
        }
    }
}

/// Counts Max-Forwards down (RFC 3261 clause 16.6 step 3).
fn hop(message: &mut Message) -> Result<(), Refusal> {
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
    message.set("Max-Forwards", &(left - 1).to_string());
    Ok(())
}

/// RFC 3323: a From that says who nobody is.
fn anonymous(from: &NameAddr) -> bool {
    let host = from.parsed_uri().and_then(|uri| uri.host);
    host == Some(Host::Name("anonymous.invalid".into()))
}
