//! The sets of SAs that the proxy holds, and the one registration that runs
//! (TS 33.203 clauses 7.3.1.2 and 7.4.1a).

use std::collections::VecDeque;
use std::net::SocketAddr;

use gm_sip::SetToken;
use gm_sip::message::Message;
use gm_sip::sa_set::SetParams;
use gm_sip::sec_agree::Ends;

use super::machine::ProxyOutput;

/// From the challenge to SM12 (await timer, 4 min).
pub const AWAIT: u64 = 240_000;
/// How long the network may take to answer a REGISTER: 64 * T1 (RFC 3261 timer F).
pub const ANSWER: u64 = 32_000;
/// How long replaced and de-registered sets serve what is under way: 64 * T1.
pub const LINGER: u64 = 32_000;
/// What SAs live longer than the registration.
pub const MARGIN: u64 = 30_000;
/// Challenges that are remembered.
const SPENT: usize = 4096;

/// A set that is installed, or asked for.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its name.
    pub token: SetToken,
    /// Addresses, ports and SPIs.
    pub params: SetParams,
    /// Security-Server of the challenge, for Security-Verify.
    pub server_text: String,
    /// When it goes, in milliseconds.
    pub deadline: u64,
}

impl Set {
    /// Our protected server port: sent-by and Contact.
    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.params.ue, self.params.ue_ends.port_s)
    }

    /// Over UDP all that we send goes from port_uc to port_ps (clause 7.1).
    pub fn way_out(&self) -> (SocketAddr, SocketAddr) {
        let (u, p) = (self.params.ue_ends, self.params.pcscf_ends);
        (
            SocketAddr::new(self.params.ue, u.port_c),
            SocketAddr::new(self.params.pcscf, p.port_s),
        )
    }

    /// The P-CSCF's own connections come from port_pc to port_us; answers go back on
    /// them (reading A-13).
    pub fn way_back(&self) -> (SocketAddr, SocketAddr) {
        let port_pc = self.params.pcscf_ends.port_c;
        (self.server(), SocketAddr::new(self.params.pcscf, port_pc))
    }

    fn carries(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let (u, p) = (self.params.ue_ends, self.params.pcscf_ends);
        let ports = (remote.port(), local.port());
        local.ip() == self.params.ue
            && remote.ip() == self.params.pcscf
            && (ports == (p.port_c, u.port_s) || ports == (p.port_s, u.port_c))
    }
}

/// What came to the UE with a challenge and waits for the SAs.
#[derive(Debug, Clone)]
pub struct Held {
    /// The UE's address and port.
    pub remote: SocketAddr,
    /// The challenge, ready to be sent.
    pub message: Message,
}

/// The registration that runs; one at a time (clause 7.4.1a).
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Our SPIs and ports in the offer.
    pub ends: Ends,
    /// Security-Client as sent.
    pub client_text: String,
    /// The set that protects the first REGISTER.
    pub over: Option<SetToken>,
    /// Whether it asks for zero seconds.
    pub leaves: bool,
    /// Whether anything has come back.
    pub answered: bool,
    /// The nonce of the challenge.
    pub nonce: String,
    /// The new set.
    pub set: Option<Set>,
    /// Whether the new set is installed.
    pub installed: bool,
    /// The challenge until the new set is installed.
    pub held: Option<Held>,
    /// When we give up, in milliseconds.
    pub deadline: u64,
}

/// All sets of the UE.
#[derive(Debug, Default)]
pub struct Sets {
    /// The registration that runs.
    pub attempt: Option<Attempt>,
    current: Option<Set>,
    old: Vec<Set>,
    tokens: u64,
    /// Nonces of challenges that sets were made of.
    spent: VecDeque<String>,
}

impl Sets {
    /// The set in use, after SM12.
    pub fn current(&self) -> Option<&Set> {
        self.current.as_ref()
    }

    /// A name for the next set.
    pub fn next_token(&mut self) -> SetToken {
        self.tokens += 1;
        SetToken(self.tokens)
    }

    /// The set of the running registration.
    pub fn pending(&self) -> Option<&Set> {
        self.attempt.as_ref().and_then(|a| a.set.as_ref())
    }

    /// A set in use, or one that ends.
    pub fn get(&self, token: SetToken) -> Option<&Set> {
        self.in_use().find(|s| s.token == token)
    }

    /// The set in use and those that end.
    pub fn in_use(&self) -> impl Iterator<Item = &Set> {
        self.current.iter().chain(&self.old)
    }

    /// The set through which a message came; none for one in clear.
    pub fn carrying(&self, local: SocketAddr, remote: SocketAddr) -> Option<&Set> {
        self.in_use()
            .chain(self.pending())
            .find(|s| s.carries(local, remote))
    }

    /// Whether a message may have come through this set. Sets share addresses and ports
    /// where the P-CSCF keeps its port_pc; then only what the message answers tells them
    /// apart.
    pub fn carries(&self, token: SetToken, local: SocketAddr, remote: SocketAddr) -> bool {
        let mut all = self.in_use().chain(self.pending());
        all.any(|s| s.token == token && s.carries(local, remote))
    }

    /// Client ports that a new set must not use (clause 7.1 rule 6).
    pub fn ports(&self) -> Vec<u16> {
        self.in_use()
            .chain(self.pending())
            .map(|s| s.params.ue_ends.port_c)
            .collect()
    }

    /// Whether the P-CSCF names an SPI that is ours in an offer or an SA: all four SAs
    /// have one key, and a message could be sent back to where it came from.
    pub fn is_own_spi(&self, theirs: Ends) -> bool {
        let live = self.in_use().chain(self.pending());
        let offered = self.attempt.iter().map(|a| a.ends);
        let mut own = live.map(|s| s.params.ue_ends).chain(offered);
        own.any(|own| {
            let own = [own.spi_c, own.spi_s];
            own.contains(&theirs.spi_c) || own.contains(&theirs.spi_s)
        })
    }

    /// Takes a challenge's nonce, once: nobody here judges its sequence number, and the
    /// keys of the same challenge again, with numbers that begin anew, would give the
    /// same IV twice.
    pub fn spend(&mut self, nonce: &str) -> Result<(), &'static str> {
        if self.spent.iter().any(|spent| spent == nonce) {
            return Err("the 401 has a challenge of before: somebody repeats it");
        }
        if self.spent.len() == SPENT {
            self.spent.pop_front();
        }
        self.spent.push_back(nonce.to_owned());
        Ok(())
    }

    /// SM12: the new set is the one in use; the one before it serves what is under way.
    pub fn establish(&mut self, now: u64, new: Set) {
        if let Some(mut old) = self.current.replace(new) {
            old.deadline = old.deadline.min(now + LINGER);
            self.old.push(old);
        }
    }

    /// The registration lives until then; a life never shrinks (clause 7.4.1a).
    pub fn prolong(&mut self, until: u64) {
        if let Some(set) = &mut self.current {
            set.deadline = set.deadline.max(until + MARGIN);
        }
    }

    /// De-registered: all sets serve the last answers and go.
    pub fn leave(&mut self, now: u64) {
        self.old.extend(self.current.take());
        for set in &mut self.old {
            set.deadline = set.deadline.min(now + LINGER);
        }
    }

    /// The registration that runs ends without success.
    pub fn abandon(&mut self, out: &mut VecDeque<ProxyOutput>) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        match attempt.set {
            Some(set) => drop_set(&set, out),
            None => out.push_back(unreserve(&attempt.ends)),
        }
    }

    /// When [`Sets::expire`] is due.
    pub fn next_timeout(&self) -> Option<u64> {
        let sets = self.in_use().map(|s| s.deadline);
        sets.chain(self.attempt.iter().map(|a| a.deadline)).min()
    }

    /// Ends what is due; says when a registration failed by it.
    pub fn expire(&mut self, now: u64, out: &mut VecDeque<ProxyOutput>) -> Option<&'static str> {
        let (gone, kept) = std::mem::take(&mut self.old)
            .into_iter()
            .partition::<Vec<_>, _>(|s| s.deadline <= now);
        self.old = kept;
        for set in gone
            .iter()
            .chain(&self.current.take_if(|s| s.deadline <= now))
        {
            drop_set(set, out);
        }
        let due = self.attempt.take_if(|a| a.deadline <= now)?;
        let silent = !due.answered;
        let over = due.over;
        self.attempt = Some(due);
        self.abandon(out);
        if silent && over.is_some() {
            // Nobody answers through the SAs: they count as dead, and the next
            // REGISTER goes in clear (clause 7.4.1a).
            if let Some(set) = self.current.take() {
                drop_set(&set, out);
            }
        }
        Some(if silent {
            "the P-CSCF did not answer the REGISTER"
        } else {
            "the UE did not answer the challenge in time"
        })
    }
}

/// SPIs that were offered and never installed.
pub fn unreserve(ends: &Ends) -> ProxyOutput {
    ProxyOutput::Unreserve([ends.spi_c, ends.spi_s])
}

fn drop_set(set: &Set, out: &mut VecDeque<ProxyOutput>) {
    out.push_back(ProxyOutput::Retire(set.token));
    out.push_back(ProxyOutput::Remove(set.token));
}
