//! Dialogs without a table: what the edge must know of one stands in its own Record-Route.
//!
//! Towards the core its user part is the contact's token. Towards the phone it is that
//! token and a keyed hash over Call-ID, a tag and the phone's identity in this dialog. A
//! request inside the dialog brings it back as Route, so a made-up To tag, or another
//! From, shows (TS 33.203 clause 7.1 rule 4 and its note 14). No memory, so no bound.
//!
//! In responses our entry is changed to the other side's (RFC 3261 clause 16.7 step 6, TS
//! 24.229 clause 5.2.6.3): each side gets an address that it can reach.

use std::net::SocketAddr;

use super::{Edge, Refusal, ServiceRoute};
use crate::Transport;
use crate::header::{self, Host, NameAddr, Uri, list};
use crate::lifecycle::ContactId;
use crate::message::Message;

/// Methods that make dialogs, which then must come through us; NOTIFY makes one as well
/// (RFC 6665 clause 4.3).
pub(super) const DIALOGS: [&str; 4] = ["INVITE", "SUBSCRIBE", "REFER", "NOTIFY"];

/// Characters of a contact's token, at the front of ours.
const PATH: usize = 24;

/// Who began the dialog.
#[derive(Debug, Clone, Copy)]
pub(super) enum Began {
    /// The phone: the tag is its own, of From.
    Ue,
    /// The network: the tag is the other side's.
    Core,
}

impl Edge {
    /// The user part of our Record-Route at the phone's side. `tag` is that of From in the
    /// dialog's first request, `own` the phone's URI in this dialog.
    pub(super) fn dialog(
        &self,
        path: &str,
        began: Began,
        call: &str,
        tag: &str,
        own: &str,
    ) -> String {
        let kind = match began {
            Began::Ue => "o",
            Began::Core => "t",
        };
        let own = identity(own);
        let proof = self.token(&["dialog", path, kind, call, tag, &own]);
        format!("{path}{kind}{}", &proof[..16])
    }

    /// Whether a request of a phone is inside a dialog that went through us: `users` are
    /// the user parts of our own Routes in it.
    pub(super) fn in_dialog(&self, path: &str, users: &[String], message: &Message) -> bool {
        let (Some(from), Some(call)) = (header_addr(message, "From"), message.value("Call-ID"))
        else {
            return false;
        };
        let Some(to_tag) = header::tag(message, "To") else {
            return false;
        };
        let own_tag = from.param("tag").unwrap_or_default();
        [(Began::Ue, &own_tag), (Began::Core, &to_tag)]
            .iter()
            .map(|(began, tag)| self.dialog(path, *began, &call, tag, &from.uri))
            .any(|token| users.contains(&token))
    }

    /// Our Record-Route towards a phone that is reached from `local`.
    pub(super) fn route_at_ue(&self, user: &str, local: SocketAddr, over: Transport) -> String {
        let (ip, port) = (Host::Ip(self.config.told(local.ip())), local.port());
        format!("<sip:{user}@{ip}:{port}{};lr>", parameter(over))
    }

    /// Our Path and Record-Route towards the core.
    pub(super) fn route_at_core(&self, user: &str) -> String {
        let transport = parameter(self.config.core_transport);
        ["<sip:", user, "@", &self.core_local, transport, ";lr>"].concat()
    }

    /// In a response to a request of the phone: our Record-Route becomes the phone's.
    pub(super) fn turn_down(
        &self,
        message: &mut Message,
        path: &str,
        local: SocketAddr,
        over: Transport,
    ) {
        let from = header_addr(message, "From");
        let (Some(from), Some(call)) = (from, message.value("Call-ID")) else {
            return;
        };
        let tag = from.param("tag").unwrap_or_default();
        let user = self.dialog(path, Began::Ue, &call, &tag, &from.uri);
        let new = self.route_at_ue(&user, local, over);
        self.turn(message, |user| user == path, &new);
    }

    /// In a response of the phone: our Record-Route becomes the core's.
    pub(super) fn turn_up(&self, message: &mut Message, path: &str) {
        let new = self.route_at_core(path);
        self.turn(
            message,
            |user| user.len() > path.len() && user.starts_with(path),
            &new,
        );
    }

    /// Puts `new` in the place of our entries for a user; lines without one keep their bytes.
    pub(super) fn turn(&self, message: &mut Message, user: impl Fn(&str) -> bool, new: &str) {
        message.rewrite("Record-Route", |line| {
            let ours = |entry: &&str| {
                let uri = NameAddr::parse(entry).and_then(|entry| entry.parsed_uri());
                uri.and_then(|uri| uri.user).is_some_and(|u| user(&u))
            };
            let entries: Vec<&str> = list::split(line, ',').collect();
            if !entries.iter().any(ours) {
                return None;
            }
            let turned = |entry: &&str| {
                if ours(entry) {
                    new.to_owned()
                } else {
                    (*entry).to_owned()
                }
            };
            Some(entries.iter().map(turned).collect::<Vec<_>>().join(", "))
        });
    }

    /// The contact that a user part of ours names.
    pub(super) fn by_user(&self, user: &str) -> Option<ContactId> {
        self.agent.table().by_path(user.get(..PATH).unwrap_or(user))
    }

    /// Takes our own Routes off the top and gives their user parts.
    pub(super) fn strip_routes(&self, up: &mut Message, own: impl Fn(&Uri) -> bool) -> Vec<String> {
        let mut users = Vec::new();
        while let Some(route) = up.first_element("Route") {
            let uri = NameAddr::parse(&route).and_then(|r| r.parsed_uri());
            let Some(uri) = uri.filter(&own) else {
                break;
            };
            users.extend(uri.user);
            up.remove_first_element("Route");
        }
        users
    }

    /// The Routes of a request that is in no dialog are the Service-Route of the
    /// registration (RFC 3608 clause 5, TS 24.229 clause 5.2.6.3).
    pub(super) fn enforce_route(&self, up: &mut Message, id: ContactId) -> Result<(), Refusal> {
        if self.config.service_route == ServiceRoute::Pass {
            return Ok(());
        }
        let wanted = self.peers.get(id).map(|peer| peer.service_route.as_slice());
        let wanted = wanted.unwrap_or_default();
        let written = up.elements("Route");
        let same = written.len() == wanted.len()
            && written.iter().zip(wanted).all(|(route, uri)| {
                let route = NameAddr::parse(route).map(|route| route.uri);
                route.is_some_and(|route| identity(&route) == identity(uri))
            });
        if same {
            return Ok(());
        }
        if self.config.service_route == ServiceRoute::Refuse {
            return Err(Refusal::ServiceRoute);
        }
        up.remove("Route");
        for uri in wanted.iter().rev() {
            up.insert_top("Route", &format!("<{uri}>"));
        }
        Ok(())
    }
}

fn parameter(over: Transport) -> &'static str {
    match over {
        Transport::Udp => "",
        Transport::Tcp => ";transport=tcp",
    }
}

fn header_addr(message: &Message, name: &str) -> Option<NameAddr> {
    NameAddr::parse(&message.value(name)?)
}

/// What two ways to write one URI have in common: scheme, user, host and port.
fn identity(uri: &str) -> String {
    match Uri::parse(uri) {
        Some(uri) => format!(
            "{}:{:?}@{:?}:{:?}",
            uri.scheme, uri.user, uri.host, uri.port
        ),
        None => uri.to_owned(),
    }
}
