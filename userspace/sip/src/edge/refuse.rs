//! Saying no: which refusal gets an answer, and which silence.

use std::net::SocketAddr;

use super::tx::Reply;
use super::{Edge, Refusal};
use crate::message::Message;
use crate::sec_agree::{self, SECURITY_SERVER};

impl Refusal {
    /// The status that the sender gets; `None`: silence.
    pub fn status(&self) -> Option<(u16, &'static str)> {
        match self {
            Refusal::Headers | Refusal::ViaName | Refusal::ServiceRoute => {
                Some((400, "Bad Request"))
            }
            Refusal::Collision => Some((400, "Protected Port Or SPI In Use")),
            Refusal::Unprotected | Refusal::ViaMismatch | Refusal::ForeignUser => {
                Some((403, "Forbidden"))
            }
            Refusal::NoSecurityClient => Some((421, "Extension Required")),
            Refusal::NoContact => Some((480, "Temporarily Unavailable")),
            Refusal::Hops => Some((483, "Too Many Hops")),
            Refusal::Offer(_) | Refusal::SecurityVerify | Refusal::SecurityClient => {
                Some((494, "Security Agreement Required"))
            }
            Refusal::Challenge(_) | Refusal::NotInstalled => Some((500, "Server Internal Error")),
            Refusal::Overload | Refusal::NoSpi | Refusal::TooManySets => {
                Some((503, "Service Unavailable"))
            }
            Refusal::Malformed
            | Refusal::NatWithoutTunnel
            | Refusal::NoSa
            | Refusal::WrongSa
            | Refusal::NotAnAnswer
            | Refusal::CoreUntrusted
            | Refusal::Unreachable
            | Refusal::NoTransaction => None,
        }
    }
}

impl Edge {
    /// Tells the log, and the sender where an answer is due. An ACK or a response gets none.
    pub(super) fn refuse(
        &mut self,
        from: SocketAddr,
        request: &Message,
        reply: Reply,
        why: Refusal,
    ) {
        self.refused(from, why);
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
        match code {
            // RFC 3329 clause 2.3.1: the server says what it wants.
            421 | 494 => {
                response.push("Require", "sec-agree");
                response.push(SECURITY_SERVER, &sec_agree::error_list(&self.config.policy));
            }
            503 => response.push("Retry-After", "30"),
            400 if why == Refusal::Collision => {
                response.push(
                    "Warning",
                    "399 gmesp \"protected port or SPI is in use, choose others\"",
                );
            }
            _ => {}
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
