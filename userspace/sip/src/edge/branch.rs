//! Branches and tokens that are computed, not kept, and the way back to a sender.

use std::net::{IpAddr, SocketAddr};

use super::tx::Reply;
use super::{Edge, Refusal};
use crate::header::{self, AddrParts, Host, Via, ViaParts, list};
use crate::lifecycle::ContactId;
use crate::message::Message;
use crate::rand::{Keyed, hex, hex_behind, keyed};
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
    /// Hashed, so that no two of them are the same.
    fn hash(self, hash: &mut Keyed<'_>) {
        match self {
            Sender::Clear(at) => {
                hash.part(b"clear");
                hash.part(&at.port().to_be_bytes());
                hash_ip(hash, at.ip());
            }
            Sender::Contact(id) => {
                hash.part(b"contact");
                hash.part(&id.to_be_bytes());
            }
            Sender::Core(ip) => {
                hash.part(b"core");
                hash_ip(hash, ip);
            }
        }
    }
}

fn hash_ip(hash: &mut Keyed<'_>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => hash.part(&ip.octets()),
        IpAddr::V6(ip) => hash.part(&ip.octets()),
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
    pub(super) fn print(&self, bytes: &[u8], over: Option<SetToken>) -> [u8; 16] {
        let mut hash = Keyed::new(&self.secret);
        hash.part(bytes);
        hash.part(&over.map_or(0, |set| set.0).to_be_bytes());
        hash.done()
    }

    /// A retransmission: SM6 again where it waits for SM7, else on to the core as before.
    pub(super) fn repeated(
        &mut self,
        branch: &str,
        message: &Message,
        print: &[u8; 16],
    ) -> Result<bool, Refusal> {
        let Some(tx) = self.txs.get(branch).and_then(|t| t.register.clone()) else {
            return Ok(false);
        };
        if tx.print != *print {
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
        self.branch_and_host(message, from)
            .map(|(branch, _)| branch)
    }

    /// The same, with the host of the topmost Via.
    pub(super) fn branch_and_host(
        &self,
        message: &Message,
        from: Sender,
    ) -> Result<(String, Host), Refusal> {
        let value = message.value("Via").ok_or(Refusal::Headers)?;
        let top = list::split(&value, ',').next();
        let via = top.and_then(ViaParts::parse).ok_or(Refusal::Headers)?;
        let cseq = message.value("CSeq").ok_or(Refusal::Headers)?;
        let (number, method) = header::cseq_of(&cseq).ok_or(Refusal::Headers)?;
        // What stands twice is read by each in his own way.
        let twice = |name: &&str| message.lines(name).count() > 1;
        let other = message.method().is_some_and(|m| m != method);
        if other || ["From", "To", "Call-ID", "CSeq"].iter().any(twice) {
            return Err(Refusal::Headers);
        }
        let call_id = message.value("Call-ID").ok_or(Refusal::Headers)?;
        let value = message.value("From").ok_or(Refusal::Headers)?;
        let from_addr = AddrParts::parse(&value);
        let from_tag = from_addr.and_then(|addr| addr.param("tag"));
        let from_tag = from_tag.unwrap_or_default();
        if message.value("To").is_none() {
            return Err(Refusal::Headers);
        }
        let mut hash = Keyed::new(&self.secret);
        hash.part(b"branch");
        hash.part(via.param("branch").unwrap_or_default().as_bytes());
        match &via.host {
            Host::Ip(ip) => hash_ip(&mut hash, *ip),
            Host::Name(name) => hash.part(name.as_bytes()),
        }
        hash.part(&via.port.map_or([0; 3], |port| {
            let [high, low] = port.to_be_bytes();
            [1, high, low]
        }));
        hash.part(call_id.as_bytes());
        hash.part(from_tag.as_bytes());
        hash.part(&number.to_be_bytes());
        from.hash(&mut hash);
        let branch = hex_behind("z9hG4bKgm", &hash.done());
        Ok((branch, via.host))
    }
}

pub(super) fn top_via(message: &Message) -> Option<Via> {
    let value = message.value("Via")?;
    Via::parse(list::split(&value, ',').next()?)
}

/// What `read` makes of the topmost Via.
pub(super) fn with_top_via<T>(
    message: &Message,
    read: impl FnOnce(ViaParts<'_>) -> T,
) -> Option<T> {
    let value = message.value("Via")?;
    let via = ViaParts::parse(list::split(&value, ',').next()?)?;
    Some(read(via))
}

/// Where the answer to a request in clear goes: on the connection; over UDP by the
/// Via, and to the source port behind a NAT whether or not rport asks for it.
pub(super) fn clear_reply(at: &Packet, message: &Message) -> Reply {
    let by_via = || {
        with_top_via(message, |via| {
            let own = via.host.ip() == Some(at.remote.ip());
            own.then(|| via.reply_to(at.remote))
        })
    };
    let remote = match at.transport {
        Transport::Udp => by_via().flatten().unwrap_or(at.remote),
        Transport::Tcp => at.remote,
    };
    Reply::Clear {
        local: at.local,
        remote,
        transport: at.transport,
    }
}
