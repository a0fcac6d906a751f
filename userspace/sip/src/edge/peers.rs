//! What the edge knows of a phone besides its SAs. Bounded by the contacts of the table.

use super::Edge;
use super::tx::{RegisterTx, Reply};
use crate::Transport;
use crate::header::{AddrParts, Uri, UriParts, list};
use crate::lifecycle::ContactId;
use crate::message::Message;
use crate::numbered::Numbered;

/// Entries of a Service-Route that are kept; real ones have one or two.
const MAX_ROUTES: usize = 8;

/// One registered phone.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// What its Contact names, else what its REGISTER came over.
    pub transport: Option<Transport>,
    /// URIs of the Service-Route of its latest registration (RFC 3608).
    pub service_route: Vec<String>,
    /// Until then, in milliseconds, no connection to it is tried.
    pub tcp_failed: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Peers(Numbered<ContactId, Peer>);

impl Peers {
    pub fn get(&self, id: ContactId) -> Option<&Peer> {
        self.0.get(&id)
    }

    /// The one of a contact; those whose contact is gone go when they are too many.
    fn entry(
        &mut self,
        id: ContactId,
        contacts: usize,
        there: impl Fn(ContactId) -> bool,
    ) -> &mut Peer {
        if self.0.len() > 2 * contacts + 64 {
            self.0.retain(|id, _| there(*id));
        }
        self.0.entry(id).or_default()
    }
}

impl Edge {
    /// What is known of a contact, to be changed.
    pub(super) fn peer(&mut self, id: ContactId) -> &mut Peer {
        let table = self.agent.table();
        let there = |id| table.contact(id).is_some();
        self.peers.entry(id, table.len().0, there)
    }

    /// A REGISTER succeeded; `routes` are the URIs of Service-Route in its 200.
    pub(super) fn registered(&mut self, tx: &RegisterTx, reply: Reply, routes: Vec<String>) {
        let set = tx.over.and_then(|token| self.agent.table().set(token));
        let Some(id) = set.map(|set| set.contact).filter(|_| !tx.leaves) else {
            return;
        };
        let named = UriParts::parse(&tx.contact_uri).and_then(|uri| transport_named(uri.params));
        let came = match reply {
            Reply::Set { transport, .. } => Some(transport),
            _ => None,
        };
        let peer = self.peer(id);
        peer.service_route = routes;
        peer.transport = named.or(came);
        if came == Some(Transport::Tcp) {
            peer.tcp_failed = 0;
        }
    }
}

/// The transport parameter of a URI.
pub(super) fn transport_of(uri: &Uri) -> Option<Transport> {
    by_name(&uri.params.find("transport")?)
}

fn transport_named(params: &str) -> Option<Transport> {
    by_name(&list::param(params, "transport")?)
}

fn by_name(name: &str) -> Option<Transport> {
    let all = [Transport::Udp, Transport::Tcp];
    all.into_iter()
        .find(|t| name.eq_ignore_ascii_case(t.name()))
}

/// The URIs of Service-Route where a response may have one.
pub(super) fn service_route(message: &Message) -> Option<Vec<String>> {
    let good = message
        .status()
        .is_some_and(|code| (200..300).contains(&code));
    good.then(|| {
        let mut uris = Vec::new();
        message.any_element("Service-Route", |route| {
            uris.extend(AddrParts::parse(route).map(|route| route.uri.to_owned()));
            uris.len() == MAX_ROUTES
        });
        uris
    })
}
