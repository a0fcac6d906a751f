//! How messages leave: over UDP or TCP, and what keeps the way open (RFC 3261
//! clause 18.1.1, TS 33.203 clause 7.1 and M.7.2).

use std::net::SocketAddr;

use super::client::{Client, Purpose, Way};
use super::set::UeSet;
use super::{Carrier, Ue, UeEvent, UeFailure, UeOutput};
use crate::message::Message;
use crate::{Packet, Transport};

/// The one byte that keeps a NAT's mapping (RFC 3948 clause 2.3).
const NAT_KEEPALIVE: u8 = 0xff;
/// The ping of RFC 5626 clause 4.4.1.
const PING: &[u8] = b"\r\n\r\n";

/// The TCP connection to the P-CSCF that was used last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    local: SocketAddr,
    remote: SocketAddr,
    pub ping_at: u64,
}

impl Ue {
    /// Begins a transaction: through a set from port_uc to port_ps, else in clear.
    pub(super) fn request(
        &mut self,
        now: u64,
        branch: &str,
        purpose: Purpose,
        set: Option<&UeSet>,
        message: Message,
    ) {
        let (local, remote) = match set {
            Some(set) => set.way_out(),
            None => (self.clear(), self.config.pcscf),
        };
        let long = message.to_bytes().len() > self.config.tcp_above;
        let (transport, by_size) = match self.config.transport {
            Carrier::Udp => (Transport::Udp, false),
            Carrier::Tcp => (Transport::Tcp, false),
            Carrier::Auto if long => (Transport::Tcp, true),
            Carrier::Auto => (Transport::Udp, false),
        };
        let way = Way {
            local,
            remote,
            transport,
            by_size,
        };
        let token = set.map(|s| s.token);
        let client = Client::new(now, branch, purpose, token, way, message);
        let packet = client.packet();
        self.clients.add(client);
        self.emit(now, packet);
    }

    /// Our address and port for messages in clear.
    pub(super) fn clear(&self) -> SocketAddr {
        SocketAddr::new(self.config.local, self.config.clear_port)
    }

    pub(super) fn emit(&mut self, now: u64, packet: Packet) {
        if packet.local != self.clear() {
            self.nat_keepalive_after(now);
            // The connections that we open are those from port_uc.
            let ping = self.config.tcp_keepalive;
            let client = packet.local.port() != self.config.server_port;
            if packet.transport == Transport::Tcp && client && ping > 0 {
                self.flow = Some(Flow {
                    local: packet.local,
                    remote: packet.remote,
                    ping_at: now + ping,
                });
            }
        }
        self.out.push_back(UeOutput::Send(packet));
    }

    /// A message over TCP did not go.
    pub(super) fn unreachable(&mut self, now: u64, local: SocketAddr, remote: SocketAddr) {
        self.forget_flow(local, remote);
        let (over_udp, gone) = self.clients.unreachable(now, local, remote);
        over_udp.into_iter().for_each(|p| self.emit(now, p));
        gone.into_iter().for_each(|c| self.not_sent(now, c));
    }

    /// A connection has ended. What waits on it is sent once more on a new one.
    pub(super) fn closed(&mut self, now: u64, local: SocketAddr, remote: SocketAddr) {
        self.forget_flow(local, remote);
        let (again, gone) = self.clients.closed(local, remote);
        again.into_iter().for_each(|p| self.emit(now, p));
        gone.into_iter().for_each(|c| self.not_sent(now, c));
    }

    fn forget_flow(&mut self, local: SocketAddr, remote: SocketAddr) {
        self.flow
            .take_if(|f| (f.local, f.remote) == (local, remote));
    }

    /// RFC 3261 clause 8.1.3.1: as if answered with 503.
    pub(super) fn not_sent(&mut self, now: u64, client: Client) {
        match client.purpose {
            Purpose::Register => self.abandon(now, UeFailure::Unreachable, 0),
            Purpose::Report => {}
            Purpose::Request(id) => self.event(UeEvent::Answered {
                id,
                status: 503,
                body: Vec::new(),
            }),
        }
    }

    /// One NAT keepalive is due when nothing has been sent for so long.
    pub(super) fn nat_keepalive_after(&mut self, now: u64) {
        let wait = self.config.nat_keepalive;
        self.keepalive_at = (wait > 0 && self.is_encapsulated()).then(|| now + wait);
    }

    /// Sends the keepalives that are due.
    pub(super) fn keep_alive(&mut self, now: u64) {
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.nat_keepalive_after(now);
            if self.keepalive_at.is_some() {
                let port = self.config.encap_port;
                self.out.push_back(UeOutput::Send(Packet {
                    local: SocketAddr::new(self.config.local, port),
                    remote: SocketAddr::new(self.config.pcscf.ip(), port),
                    transport: Transport::Udp,
                    bytes: vec![NAT_KEEPALIVE],
                }));
            }
        }
        let Some(flow) = self.flow.filter(|f| f.ping_at <= now) else {
            return;
        };
        // Its set may have gone, and the connection with it.
        if self.set_of(flow.local, flow.remote).is_none() {
            self.flow = None;
            return;
        }
        self.emit(
            now,
            Packet {
                local: flow.local,
                remote: flow.remote,
                transport: Transport::Tcp,
                bytes: PING.to_vec(),
            },
        );
    }
}
