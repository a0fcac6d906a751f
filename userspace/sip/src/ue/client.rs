//! Client transactions (RFC 3261 clause 17.1.2): over UDP sent again after 0.5, 1, 2,
//! 4, 4, ... seconds; over UDP and TCP given up after 32.

use std::net::SocketAddr;

use super::RequestId;
use crate::message::Message;
use crate::sa_set::SetToken;
use crate::{Packet, Transport};

const T1: u64 = 500;
const T2: u64 = 4_000;

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The running registration.
    Register,
    /// The network is told why there is no answer; its own does not matter any more.
    Report,
    /// A request of the user.
    Request(RequestId),
}

/// The way of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub transport: Transport,
    /// Over TCP for its size alone: UDP will do when no connection comes up.
    pub by_size: bool,
}

/// A request without a final answer yet.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub branch: String,
    pub purpose: Purpose,
    /// The set through which it left; the answer must come through it too.
    pub set: Option<SetToken>,
    pub way: Way,
    message: Message,
    /// Sent once more because its connection ended.
    repeated: bool,
    next: u64,
    wait: u64,
    end: u64,
}

impl Client {
    /// Sent at `now`. The first Via of `message` is made to name the transport.
    pub fn new(
        now: u64,
        branch: &str,
        purpose: Purpose,
        set: Option<SetToken>,
        way: Way,
        message: Message,
    ) -> Client {
        let mut client = Client {
            branch: branch.to_owned(),
            purpose,
            set,
            way,
            message,
            repeated: false,
            next: 0,
            wait: 0,
            end: 0,
        };
        client.begin(now);
        client
    }

    fn begin(&mut self, now: u64) {
        if let Some(via) = self.message.first_element("Via")
            && let Some((_, rest)) = via.split_once(' ')
        {
            let via = format!("SIP/2.0/{} {rest}", self.way.transport.name());
            self.message.replace_first_element("Via", &via);
        }
        self.wait = T1;
        self.end = now + 64 * T1;
        self.next = match self.way.transport {
            Transport::Udp => now + T1,
            // The connection repeats what is lost.
            Transport::Tcp => self.end,
        };
    }

    pub fn packet(&self) -> Packet {
        Packet {
            local: self.way.local,
            remote: self.way.remote,
            transport: self.way.transport,
            bytes: self.message.to_bytes(),
        }
    }

    fn is_on(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.way.transport == Transport::Tcp && (self.way.local, self.way.remote) == (local, remote)
    }
}

#[derive(Debug, Default)]
pub(super) struct Clients(Vec<Client>);

impl Clients {
    pub fn add(&mut self, client: Client) {
        self.0.push(client);
    }

    pub fn find(&self, branch: &str) -> Option<&Client> {
        self.0.iter().find(|c| c.branch == branch)
    }

    pub fn remove(&mut self, branch: &str) {
        self.0.retain(|c| c.branch != branch);
    }

    /// Ends the transactions of the registration.
    pub fn remove_registration(&mut self) {
        self.0.retain(|c| c.purpose != Purpose::Register);
    }

    /// Whether one waits for an answer through that set.
    pub fn waits_on(&self, set: SetToken) -> bool {
        self.0.iter().any(|c| c.set == Some(set))
    }

    /// A provisional answer: from now on every T2.
    pub fn proceeding(&mut self, branch: &str, now: u64) {
        let udp = |c: &&mut Client| c.branch == branch && c.way.transport == Transport::Udp;
        for client in self.0.iter_mut().filter(udp) {
            client.wait = T2;
            client.next = now + T2;
        }
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.0.iter().map(|c| c.next.min(c.end)).min()
    }

    /// What is to be sent again now.
    pub fn due(&mut self, now: u64) -> Vec<Packet> {
        let mut out = Vec::new();
        for client in self.0.iter_mut().filter(|c| c.next <= now && now < c.end) {
            client.wait = (client.wait * 2).min(T2);
            client.next = now + client.wait;
            out.push(client.packet());
        }
        out
    }

    pub fn take_expired(&mut self, now: u64) -> Vec<Client> {
        self.take(|c| c.end <= now)
    }

    /// Everything, for a UE that begins anew.
    pub fn take_all(&mut self) -> Vec<Client> {
        self.take(|_| true)
    }

    fn take(&mut self, gone: impl Fn(&Client) -> bool) -> Vec<Client> {
        let (gone, kept) = std::mem::take(&mut self.0).into_iter().partition(gone);
        self.0 = kept;
        gone
    }

    /// No connection came up: what went over TCP for its size goes over UDP from
    /// `now` on, and is given back to be sent; the rest is taken out.
    pub fn unreachable(
        &mut self,
        now: u64,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> (Vec<Packet>, Vec<Client>) {
        let mut over_udp = Vec::new();
        let here = self.0.iter_mut().filter(|c| c.is_on(local, remote));
        for client in here.filter(|c| c.way.by_size) {
            client.way.transport = Transport::Udp;
            client.way.by_size = false;
            client.begin(now);
            over_udp.push(client.packet());
        }
        (over_udp, self.take(|c| c.is_on(local, remote)))
    }

    /// A connection ended under its transactions: each is sent once more on a new
    /// one; whose second connection this was is taken out.
    pub fn closed(&mut self, local: SocketAddr, remote: SocketAddr) -> (Vec<Packet>, Vec<Client>) {
        let gone = self.take(|c| c.is_on(local, remote) && c.repeated);
        let mut again = Vec::new();
        for client in self.0.iter_mut().filter(|c| c.is_on(local, remote)) {
            client.repeated = true;
            again.push(client.packet());
        }
        (again, gone)
    }
}
