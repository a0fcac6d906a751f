//! UDP or TCP (RFC 3261 clause 18.1.1, TS 33.203 clause 7.1), and what becomes of a message
//! for which there is no connection.

use std::net::SocketAddr;

use super::peers::transport_of;
use super::{Edge, Output, Refusal, top_via};
use crate::header::{Uri, Via};
use crate::lifecycle::{ContactId, SetState};
use crate::message::Message;
use crate::{Packet, Transport};

/// For so long after a failure a connection is not tried where UDP will do, in
/// milliseconds. Trying may take seconds, where something drops it in silence, and a call
/// waits for that: a phone that has never spoken TCP is not tried at every call.
const TCP_AGAIN: u64 = 60_000;
const TCP_AGAIN_UDP_PHONE: u64 = 3_600_000;
const TCP_AGAIN_CORE: u64 = 600_000;

impl Edge {
    pub(super) fn send_core(
        &mut self,
        remote: SocketAddr,
        transport: Transport,
        bytes: Vec<u8>,
    ) -> Option<SocketAddr> {
        let bytes = self.framed(remote, transport, bytes)?;
        self.out.push_back(Output::ToCore {
            remote,
            transport,
            bytes,
        });
        Some(remote)
    }

    /// On a stream a message says how long it is (RFC 3261 clause 16.6 step 9): what stands
    /// behind one that does not would be read as the next one, and as ours. In a datagram
    /// the body is the rest.
    pub(super) fn framed(
        &mut self,
        remote: SocketAddr,
        transport: Transport,
        bytes: Vec<u8>,
    ) -> Option<Vec<u8>> {
        if transport == Transport::Udp {
            return Some(bytes);
        }
        let parsed = Message::parse(&bytes).and_then(|m| Ok((m.content_length()?, m)));
        match parsed {
            Ok((Some(_), _)) => Some(bytes),
            Ok((None, mut message)) => {
                let length = message.body().len();
                message.push("Content-Length", &length.to_string());
                Some(message.to_bytes())
            }
            // By what was added it has become too long.
            Err(error) => {
                self.refused(remote, error.into());
                None
            }
        }
    }

    /// What a request of `size` bytes to the core goes over. A CANCEL, the ACK of a
    /// failure and a retransmission take their request's way (RFC 3261 clause 9.1).
    pub(super) fn over_up(&self, branch: &str, size: usize) -> Transport {
        if self.config.core_transport == Transport::Tcp {
            return Transport::Tcp;
        }
        if let Some(sent) = self.txs.get(branch).and_then(|tx| tx.sent) {
            return sent;
        }
        let large = size > self.config.tcp_above && !self.config.core.ip().is_loopback();
        if large && self.now >= self.core_tcp_failed {
            Transport::Tcp
        } else {
            Transport::Udp
        }
    }

    /// The same towards a phone: what the Request-URI names, else what it registered
    /// with; TCP above the bound; UDP while no connection could be made.
    pub(super) fn over_down(
        &self,
        id: ContactId,
        branch: &str,
        request: &Message,
        size: usize,
    ) -> Transport {
        if let Some(sent) = self.txs.get(branch).and_then(|tx| tx.sent) {
            return sent;
        }
        let peer = self.peers.get(id);
        if peer.is_some_and(|peer| self.now < peer.tcp_failed) {
            return Transport::Udp;
        }
        let named = request.uri().and_then(Uri::parse);
        let named = named.and_then(|uri| transport_of(&uri));
        let wanted = named.or(peer.and_then(|peer| peer.transport));
        if wanted == Some(Transport::Tcp) || size > self.config.tcp_above {
            Transport::Tcp
        } else {
            Transport::Udp
        }
    }

    /// A message for a phone is back. An answer whose connection is gone takes the way
    /// of a request, from port_pc to port_us (RFC 3261 clause 18.2.2); a request for
    /// which no connection can be made goes over UDP. Both through the set that is in
    /// use now: the one that they were for may not send any more.
    pub(super) fn unsent_to_ue(&mut self, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        let message = Message::parse(bytes).ok();
        let set = self.agent.table().by_flow(remote, local);
        let (Some(mut message), Some(set)) = (message, set) else {
            return self.refused(remote, Refusal::Unreachable);
        };
        let own = (set.local(), set.remote());
        let settled = matches!(set.state, SetState::Established | SetState::Replaced);
        let id = set.contact;
        let way = self.agent.way_to(id).filter(|_| settled);
        let way = way.map_or(own, |way| (way.local, way.remote));
        let mut transport = Transport::Tcp;
        if message.method().is_some() {
            transport = Transport::Udp;
            let now = self.now;
            let peer = self.peer(id);
            let period = match peer.transport {
                Some(Transport::Tcp) => TCP_AGAIN,
                _ => TCP_AGAIN_UDP_PHONE,
            };
            peer.tcp_failed = now.saturating_add(period);
            self.over_udp_now(&mut message);
        } else if (local, remote) == way {
            return self.refused(remote, Refusal::Unreachable);
        }
        self.out.push_back(Output::ToUe(Packet {
            local: way.0,
            remote: way.1,
            transport,
            bytes: message.to_bytes(),
        }));
    }

    /// A message for the core is back. An answer goes to where the Via says, on a new
    /// connection (RFC 3261 clause 18.2.2); a large request over UDP, where UDP is what
    /// is configured; of others the sender hears that they have failed (16.9).
    pub(super) fn unsent_to_core(&mut self, remote: SocketAddr, bytes: &[u8]) {
        let Ok(mut message) = Message::parse(bytes) else {
            return;
        };
        let Some(via) = top_via(&message) else {
            return;
        };
        if message.method().is_none() {
            return match sent_by(&via).filter(|at| *at != remote && self.config.is_core(*at)) {
                Some(at) => {
                    self.send_core(at, Transport::Tcp, message.to_bytes());
                }
                None => self.refused(remote, Refusal::Unreachable),
            };
        }
        if self.config.core_transport == Transport::Udp {
            self.core_tcp_failed = self.now.saturating_add(TCP_AGAIN_CORE);
            self.over_udp_now(&mut message);
            self.send_core(remote, Transport::Udp, message.to_bytes());
            return;
        }
        self.refused(remote, Refusal::Unreachable);
        let branch = via.branch().unwrap_or_default();
        let Some(reply) = self.txs.get(&branch).map(|tx| tx.reply) else {
            return;
        };
        message.remove_first_element("Via");
        if message.method() == Some("ACK") {
            return;
        }
        // It is another transaction when the phone tries again.
        if let Some(gone) = self.txs.remove(&branch) {
            self.over(self.now, &gone);
            if let Some(register) = gone.register {
                self.agent.abort(register.attempt);
            }
        }
        let answer = Message::response(&message, 503, "Service Unavailable", "gm");
        let answer = answer.with("Retry-After", "10").with("Content-Length", "0");
        self.send(reply, answer.to_bytes());
    }

    /// Our Via says UDP from here on, and the transaction stays with it.
    fn over_udp_now(&mut self, message: &mut Message) {
        let Some(element) = message.first_element("Via") else {
            return;
        };
        let udp = element.replacen("SIP/2.0/TCP", "SIP/2.0/UDP", 1);
        message.replace_first_element("Via", &udp);
        let branch = Via::parse(&udp).and_then(|via| via.branch());
        if let Some(tx) = branch.and_then(|branch| self.txs.get_mut(&branch)) {
            tx.sent = Some(Transport::Udp);
        }
    }
}

/// Where a Via wants its answers over TCP.
fn sent_by(via: &Via) -> Option<SocketAddr> {
    let ip = via.received().or(via.host.ip())?;
    Some(SocketAddr::new(ip, via.port.unwrap_or(5060)))
}

/// The transport of our own Via in a request that is ready to go: it is the first line
/// of that name, as we write it.
pub(super) fn via_transport(bytes: &[u8]) -> Transport {
    let mut lines = memchr::memchr_iter(b'\n', bytes).filter_map(|at| bytes.get(at + 1..));
    match lines.find_map(|line| line.strip_prefix(b"Via: SIP/2.0/")) {
        Some(rest) if rest.starts_with(b"TCP") => Transport::Tcp,
        _ => Transport::Udp,
    }
}
