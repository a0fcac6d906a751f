//! Requests of the network: answered at once, and the same again when they repeat.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::reg_event::{Asked, asked};
use super::{Fault, Ignored, Ue, UeEvent};
use crate::header::Via;
use crate::message::Message;
use crate::{Packet, Transport};

/// Answers that are kept for retransmissions.
const KEPT: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Answered(VecDeque<(String, Packet)>);

impl Answered {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Ue {
    /// A request; only through the set in use or one that ends (clause 7.1, 7.4.1a).
    pub(super) fn serve(
        &mut self,
        now: u64,
        local: SocketAddr,
        remote: SocketAddr,
        transport: Transport,
        message: &Message,
    ) {
        let mut serving = self.current.iter().chain(self.old.iter().rev());
        let Some(set) = serving.find(|s| s.carries(local, remote)).cloned() else {
            return self.ignored(Ignored::WrongSa);
        };
        let via = message.first_element("Via").and_then(|v| Via::parse(&v));
        let Some(via) = via else {
            return self.ignored(Ignored::Malformed);
        };
        self.confirmed_by_use(now, set.token);
        if message.method() == Some("ACK") || self.does(Fault::Silent) {
            return;
        }
        let id = format!(
            "{:?} {:?} {:?} {:?}",
            via.branch(),
            via.host,
            via.port,
            message.method()
        );
        if let Some((_, packet)) = self.answered.0.iter().find(|(known, _)| *known == id) {
            let packet = packet.clone();
            // Over TCP the repetition came on a connection of its own.
            let packet = match transport {
                Transport::Udp => packet,
                Transport::Tcp => Packet {
                    local,
                    remote,
                    ..packet
                },
            };
            return self.emit(now, packet);
        }
        let (code, reason) = match message.method() {
            Some("MESSAGE" | "OPTIONS" | "NOTIFY") => (200, "OK"),
            _ => (405, "Method Not Allowed"),
        };
        let tag = self.random.token(6);
        let mut response = Message::response(message, code, reason, &tag);
        if code == 405 {
            response.push("Allow", "MESSAGE, OPTIONS, NOTIFY");
        }
        response.push("Content-Length", "0");
        // Over UDP from port_uc to the port in the Via, the P-CSCF's server port (clause 7.1).
        let (from, to) = match transport {
            Transport::Udp => set.way_out(),
            Transport::Tcp => (local, remote),
        };
        let packet = Packet {
            local: from,
            remote: to,
            transport,
            bytes: response.to_bytes(),
        };
        if self.answered.0.len() == KEPT {
            self.answered.0.pop_front();
        }
        self.answered.0.push_back((id, packet.clone()));
        self.emit(now, packet);
        self.event(UeEvent::Request {
            method: message.method().unwrap_or_default().to_owned(),
            from: message
                .value("From")
                .map(|f| f.into_owned())
                .unwrap_or_default(),
            body: message.body().to_vec(),
            status: code,
            transport,
        });
        if message.method() == Some("NOTIFY") {
            match asked(message, set.params.ue_ends.port_s) {
                Some(Asked::Again) => self.register_or_tell(now),
                Some(Asked::Anew) => {
                    self.end_registration(now);
                    self.register_or_tell(now);
                }
                Some(Asked::Ended) => {
                    self.end_registration(now);
                    self.event(UeEvent::Deregistered);
                }
                None => {}
            }
        }
    }
}
