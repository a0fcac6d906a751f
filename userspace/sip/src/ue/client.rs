//! Client transactions over UDP (RFC 3261 clause 17.1.2): sent again after 0.5, 1, 2,
//! 4, 4, ... seconds, given up after 32.

use std::net::SocketAddr;

use super::RequestId;
use crate::sa_set::SetToken;

const T1: u64 = 500;
const T2: u64 = 4_000;

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The running registration.
    Register,
    /// A request of the user.
    Request(RequestId),
}

/// A request without a final answer yet.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub branch: String,
    pub purpose: Purpose,
    /// The set through which it left; the answer must come through it too.
    pub set: Option<SetToken>,
    local: SocketAddr,
    remote: SocketAddr,
    bytes: Vec<u8>,
    next: u64,
    wait: u64,
    end: u64,
}

#[derive(Debug, Default)]
pub(super) struct Clients(Vec<Client>);

impl Clients {
    #[allow(clippy::too_many_arguments, reason = "a transaction is just these")]
    pub fn add(
        &mut self,
        now: u64,
        branch: &str,
        purpose: Purpose,
        set: Option<SetToken>,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: Vec<u8>,
    ) {
        let branch = branch.to_owned();
        self.0.push(Client {
            branch,
            purpose,
            set,
            local,
            remote,
            bytes,
            next: now + T1,
            wait: T1,
            end: now + 64 * T1,
        });
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

    /// A provisional answer: from now on every T2.
    pub fn proceeding(&mut self, branch: &str, now: u64) {
        for client in self.0.iter_mut().filter(|c| c.branch == branch) {
            client.wait = T2;
            client.next = now + T2;
        }
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.0.iter().map(|c| c.next.min(c.end)).min()
    }

    /// What is to be sent again now.
    pub fn due(&mut self, now: u64) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        for client in self.0.iter_mut().filter(|c| c.next <= now && now < c.end) {
            client.wait = (client.wait * 2).min(T2);
            client.next = now + client.wait;
            out.push((client.local, client.remote, client.bytes.clone()));
        }
        out
    }

    pub fn take_expired(&mut self, now: u64) -> Vec<Purpose> {
        let (gone, kept) = std::mem::take(&mut self.0)
            .into_iter()
            .partition::<Vec<_>, _>(|c| c.end <= now);
        self.0 = kept;
        gone.into_iter().map(|c| c.purpose).collect()
    }
}
