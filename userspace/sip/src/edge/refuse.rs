//! Saying no: which refusal gets an answer, and which silence.

use std::net::SocketAddr;

use super::forward::unknown_extensions;
use super::tx::Reply;
use super::{Edge, FlowEvent, Refusal};
use crate::agent::offered;
use crate::message::Message;
use crate::sec_agree::{Policy, SECURITY_CLIENT, SecList};

impl Edge {
    /// Tells the log, and the sender where an answer is due. An ACK or a response gets none.
    pub(super) fn refuse(
        &mut self,
        from: SocketAddr,
        request: &Message,
        reply: Reply,
        why: Refusal,
    ) {
        let offer = match why {
            Refusal::Offer(_) | Refusal::NatWithoutTunnel => {
                SecList::from_message(request, SECURITY_CLIENT)
            }
            _ => None,
        };
        self.event(FlowEvent::Refused {
            from,
            why,
            offered: offer.as_ref().map(offered),
        });
        if request.method().is_none_or(|m| m == "ACK") {
            return;
        }
        if let Some(bytes) = self.refusal(request, from, why) {
            self.send(reply, bytes);
        }
    }

    /// The answer that a refusal gets.
    pub(super) fn refusal(
        &self,
        request: &Message,
        from: SocketAddr,
        why: Refusal,
    ) -> Option<Vec<u8>> {
        let (code, reason) = why.status()?;
        let mut request = request.clone();
        let via = request.first_element("Via")?;
        if let Some(marked) = crate::header::via::mark_source(&via, from, false) {
            request.replace_first_element("Via", &marked);
        }
        let tag = self.token(&["tag", &via, &request.value("Call-ID").unwrap_or_default()]);
        let mut response = Message::response(&request, code, reason, &tag[..16]);
        for (name, value) in why.headers(&self.config.policy) {
            response.push(name, &value);
        }
        if why == Refusal::Extension {
            response.push("Unsupported", &unknown_extensions(&request).join(", "));
        }
        response.push("Content-Length", "0");
        Some(response.to_bytes())
    }

    /// The set of a challenge could not be installed: the UE gets an error in SM6's place.
    pub(super) fn not_installed(&mut self, reply: Reply, sm6: Option<Vec<u8>>) {
        let ue = match reply {
            Reply::Clear { remote, .. }
            | Reply::Set { remote, .. }
            | Reply::Core { remote, .. } => remote,
            Reply::Up => self.config.core,
        };
        self.refused(ue, Refusal::NotInstalled);
        let challenge = sm6.and_then(|bytes| Message::parse(&bytes).ok());
        if let Some(challenge) = challenge {
            self.send(reply, server_error(&challenge).to_bytes());
        }
    }
}

/// A 500 in the place of another response.
pub(super) fn server_error(response: &Message) -> Message {
    Message::response(response, 500, "Server Internal Error", "gm").with("Content-Length", "0")
}

/// The answer that a refusal gets in the place of the core's.
pub(super) fn in_place_of(response: &Message, why: Refusal, policy: &Policy) -> Message {
    let Some((code, reason)) = why.status() else {
        return server_error(response);
    };
    let mut answer = Message::response(response, code, reason, "gm");
    for (name, value) in why.headers(policy) {
        answer.push(name, &value);
    }
    answer.with("Content-Length", "0")
}
