//! Requests of the core to phones, and the core's answers (RFC 3261 clauses 16.6, 16.7, 16.11).

use std::borrow::Cow;
use std::net::SocketAddr;

use super::branch::Sender;
use super::branch::with_top_via;
use super::dialog::{Began, DIALOGS};
use super::forward::hop;
use super::identity::strip_down;
use super::peers::service_route;
use super::tx::{Reply, Tx};
use super::{Edge, Refusal};
use crate::aka;
use crate::header::{Host, NameAddr, Uri};
use crate::lifecycle::ContactId;
use crate::message::Message;

impl Edge {
    /// A request of the core to a registered UE: by our Path or Record-Route, else by
    /// the address in the Request-URI.
    pub(super) fn request_down(
        &mut self,
        now: u64,
        remote: SocketAddr,
        reply: Reply,
        message: &Message,
    ) -> Result<(), Refusal> {
        let branch = self.branch(message, Sender::Core(remote.ip()))?;
        let mut down = message.clone();
        hop(&mut down)?;
        let user = self.take_route(&mut down)?;
        if let Some(user) = user.as_deref().filter(|user| self.is_call(user)) {
            return self.emergency_down(now, remote, reply, (user, down), message);
        }
        let id = match user {
            Some(user) => self.by_user(&user),
            None => self.by_uri(&down),
        };
        let id = id.ok_or(Refusal::NoContact)?;
        let contact = self.agent.table().contact(id).ok_or(Refusal::NoContact)?;
        let set = contact
            .current
            .and_then(|t| self.agent.table().set(t))
            .ok_or(Refusal::NoContact)?;
        let (token, local, to) = (set.token, set.local(), set.remote());
        let server = SocketAddr::new(local.ip(), set.params.pcscf_ends.port_s);
        let method = message.method().unwrap_or_default();
        if self.txs.get(&branch).is_none() && !self.txs.has_room(Some(id), &self.config.limits) {
            return Err(Refusal::Overload);
        }
        let user = DIALOGS.contains(&method).then(|| {
            let addr = |name: &str| NameAddr::parse(&message.value(name)?);
            let tag = addr("From").and_then(|from| from.param("tag"));
            let own = addr("To").map(|to| to.uri).unwrap_or_default();
            let call = message.value("Call-ID").unwrap_or_default();
            let tag = tag.unwrap_or_default();
            self.dialog(&contact.path, Began::Core, &call, &tag, &own)
        });
        self.mark_top(&mut down, remote);
        aka::strip_keys(&mut down);
        strip_down(&mut down);
        // The UE answers to sent-by, our protected server port, or on the connection.
        let via = |over: crate::Transport| {
            let (host, port) = (Host::Ip(self.config.told(server.ip())), server.port());
            format!("SIP/2.0/{} {host}:{port};branch={branch}", over.name())
        };
        let route = |over| Some(self.route_at_ue(user.as_ref()?, server, over));
        let udp = crate::Transport::Udp;
        let more = via(udp).len() + route(udp).map_or(0, |route| route.len() + 16) + 7;
        let size = down.size() + more;
        let over = self.over_down(id, &branch, message, size);
        if let Some(route) = route(over) {
            down.insert_top("Record-Route", &route);
        }
        down.insert_top("Via", &via(over));
        if method != "ACK" {
            let tx = Tx::of(reply, id).through(token).over(over);
            self.remember_for(now, &branch, tx, method);
        }
        let way = Reply::Set {
            set: token,
            local,
            remote: to,
            transport: over,
        };
        self.send(way, down.to_bytes());
        Ok(())
    }

    /// A response of the core: our Via comes off, its branch says where to.
    pub(super) fn response_down(&mut self, now: u64, mut message: Message) -> Result<(), Refusal> {
        let branch = with_top_via(&message, |via| {
            let own = via.host.ip() == Some(self.config.core_local.ip());
            let branch = via.param("branch").filter(|_| own);
            branch.map(Cow::into_owned).ok_or(Refusal::NoTransaction)
        });
        let branch = branch.ok_or(Refusal::Headers)??;
        let tx = self.txs.get(&branch).ok_or(Refusal::NoTransaction)?;
        let (reply, register, contact) = (tx.reply, tx.register.clone(), tx.contact);
        if matches!(reply, Reply::Core { .. }) {
            return Err(Refusal::NoTransaction);
        }
        message.drop_first_element("Via");
        strip_down(&mut message);
        if let Some(register) = register {
            let routes = service_route(&message);
            self.register_response(now, reply, &register, message)?;
            if let Some(routes) = routes {
                self.registered(&register, reply, routes);
            }
            return Ok(());
        }
        aka::strip_keys(&mut message);
        if let Some(id) = contact {
            self.emergency_response_down(now, id, &mut message);
        }
        let path = contact.and_then(|id| Some(self.agent.table().contact(id)?.path.clone()));
        if let (
            Some(path),
            Reply::Set {
                local, transport, ..
            },
        ) = (path, reply)
        {
            let server = SocketAddr::new(local.ip(), self.config.server_port);
            self.turn_down(&mut message, &path, server, transport);
        }
        self.prolong(now, &branch, &message);
        self.send_or_newer(reply, contact, &message)
    }

    /// Sends an answer through the set of its request; when that has gone, through the
    /// one that has taken its place, as a request would go.
    fn send_or_newer(
        &mut self,
        reply: Reply,
        contact: Option<ContactId>,
        message: &Message,
    ) -> Result<(), Refusal> {
        if self.send(reply, message.to_bytes()).is_some() {
            return Ok(());
        }
        let way = contact.and_then(|id| self.agent.way_to(id));
        let (Some(way), Reply::Set { transport, .. }) = (way, reply) else {
            return Err(Refusal::NoSa);
        };
        let newer = Reply::Set {
            set: way.set,
            local: way.local,
            remote: way.remote,
            transport,
        };
        let sent = self.send(newer, message.to_bytes());
        sent.map(|_| ()).ok_or(Refusal::NoSa)
    }

    /// The user part of our own Route in a request of the core, which comes off.
    fn take_route(&self, down: &mut Message) -> Result<Option<String>, Refusal> {
        let Some(route) = down.first_element("Route") else {
            return Ok(None);
        };
        let uri = NameAddr::parse(&route).and_then(|route| route.parsed_uri());
        let uri = uri.filter(|uri| self.is_own(uri));
        down.remove_first_element("Route");
        uri.and_then(|uri| uri.user)
            .map(Some)
            .ok_or(Refusal::NoContact)
    }

    /// The contact at the address in the Request-URI.
    fn by_uri(&self, down: &Message) -> Option<ContactId> {
        let uri = Uri::parse(down.uri()?)?;
        self.agent
            .table()
            .by_server_port(SocketAddr::new(uri.host?.ip()?, uri.port?))
    }
}
