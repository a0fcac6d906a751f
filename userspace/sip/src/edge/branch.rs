//! Branches and tokens that are computed, not kept, and the way back to a sender.

use std::net::{IpAddr, SocketAddr};

use super::tx::Reply;
use super::{Edge, Refusal};
use crate::header::{self, Via};
use crate::lifecycle::ContactId;
use crate::message::Message;
use crate::rand::{hex, keyed};
use crate::sa_set::SetToken;
use crate::{Packet, Transport};

/// Who sent a request. It is part of our branch: behind one NAT a phone sees the Vias of
/// another one's requests, and must not get into its transactions by repeating them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sender {
    /// In clear: an address and a port.
    Clear(SocketAddr),
    /// Through an SA of this contact, whichever.
    Contact(ContactId),
    /// The core, from whatever port.
    Core(IpAddr),
}

impl Sender {
    fn text(self) -> String {
        match self {
            Sender::Clear(at) => format!("clear {at}"),
            Sender::Contact(id) => format!("contact {id}"),
            Sender::Core(ip) => format!("core {ip}"),
        }
    }
}

impl Edge {
    /// A keyed hash: same input, same token, and nobody else can make one.
    pub(super) fn token(&self, parts: &[&str]) -> String {
        let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
        hex(&self.keyed(&parts))
    }

    fn keyed(&self, parts: &[&[u8]]) -> [u8; 16] {
        keyed(&self.secret, parts)
    }

    /// What a retransmission has in common with the first one: every byte, and the
    /// set or none. A branch says less: its sender can write it above another message.
    pub(super) fn print(&self, message: &Message, over: Option<SetToken>) -> [u8; 16] {
        let set = over.map_or(0, |set| set.0).to_be_bytes();
        self.keyed(&[&message.to_bytes(), &set])
    }

    /// A retransmission: SM6 again where it waits for SM7, else on to the core as before.
    pub(super) fn repeated(
        &mut self,
        branch: &str,
        message: &Message,
        over: Option<SetToken>,
    ) -> Result<bool, Refusal> {
        let Some(tx) = self.txs.get(branch).and_then(|t| t.register.clone()) else {
            return Ok(false);
        };
        if tx.print != self.print(message, over) {
            return Err(Refusal::Headers);
        }
        let attempt = self
            .agent
            .attempt(tx.attempt)
            .ok_or(Refusal::NoTransaction)?;
        match attempt.challenged {
            Some(set) => self.send_sm6(set),
            None => {
                let mut up = message.clone();
                self.prepare_up(&mut up, tx.ue)?;
                let (forwarded, _) = self.register_up(up, attempt, branch);
                self.send(Reply::Up, forwarded);
            }
        }
        Ok(true)
    }

    /// The branch of our Via: the same for a retransmission, for the CANCEL, and for
    /// the ACK of a failure (RFC 3261 clause 16.11).
    pub(super) fn branch(&self, message: &Message, from: Sender) -> Result<String, Refusal> {
        let via = top_via(message).ok_or(Refusal::Headers)?;
        let (number, method) = header::cseq(message).ok_or(Refusal::Headers)?;
        // What stands twice is read by each in his own way.
        let twice = |name: &&str| message.lines(name).count() > 1;
        let other = message.method().is_some_and(|m| m != method);
        if other || ["From", "To", "Call-ID", "CSeq"].iter().any(twice) {
            return Err(Refusal::Headers);
        }
        let call_id = message.value("Call-ID").ok_or(Refusal::Headers)?;
        let from_tag = header::tag(message, "From").unwrap_or_default();
        if message.value("From").is_none() || message.value("To").is_none() {
            return Err(Refusal::Headers);
        }
        let sent_by = format!("{}:{:?}", via.host, via.port);
        let branch = via.branch().unwrap_or_default();
        let parts = [
            &branch,
            &sent_by,
            &*call_id,
            &from_tag,
            &number.to_string(),
            &from.text(),
        ];
        Ok(format!("z9hG4bKgm{}", self.token(&parts)))
    }
}

pub(super) fn top_via(message: &Message) -> Option<Via> {
    Via::parse(&message.first_element("Via")?)
}

/// Where the answer to a request in clear goes: on the connection; over UDP by the
/// Via, and to the source port behind a NAT whether or not rport asks for it.
pub(super) fn clear_reply(at: &Packet, message: &Message) -> Reply {
    let remote = match (at.transport, top_via(message)) {
        (Transport::Udp, Some(via)) if via.host.ip() == Some(at.remote.ip()) => {
            via.reply_to(at.remote)
        }
        _ => at.remote,
    };
    Reply::Clear {
        local: at.local,
        remote,
        transport: at.transport,
    }
}
