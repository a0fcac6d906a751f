//! REGISTER of UEs on its way to the core: SM1 and SM7 (TS 33.203 clauses 7.1, 7.2).

use std::net::IpAddr;
use std::sync::Arc;

use super::branch::Sender;
use super::resolve::Arrival;
use super::tx::{RegisterTx, Reply, Tx};
use super::{Edge, Refusal};
use crate::agent::{Attempt, Register};
use crate::header::Host;
use crate::message::Message;
use crate::sa_set::SetToken;
use crate::{Packet, Transport, aka};

impl Edge {
    /// A REGISTER in clear, or through the set `over`.
    pub(super) fn register(
        &mut self,
        now: u64,
        at: &Packet,
        over: Option<SetToken>,
        reply: Reply,
        (message, bytes): (&Message, &[u8]),
    ) -> Result<(), Refusal> {
        let contact = over.and_then(|t| self.agent.set(t)).map(|s| s.contact);
        let sender = contact.map_or(Sender::Clear(at.remote), Sender::Contact);
        let (branch, host) = self.branch_and_host(message, sender)?;
        let print = self.print(bytes, over);
        if self.repeated(&branch, message, &print)? {
            return Ok(());
        }
        let arrival = Arrival {
            at: at.clone(),
            over,
            reply,
            branch,
            print,
        };
        match host {
            Host::Ip(ip) => self.register_from(now, arrival, message, &[ip]),
            Host::Name(name) => self.resolve(now, arrival, &name, message),
        }
    }

    /// A REGISTER whose Via has these addresses.
    pub(super) fn register_from(
        &mut self,
        now: u64,
        arrival: Arrival,
        message: &Message,
        via: &[IpAddr],
    ) -> Result<(), Refusal> {
        let Arrival {
            at,
            over,
            reply,
            branch,
            print,
        } = arrival;
        let register = Register::from_message(message, at.remote, at.local, via.to_vec())?;
        let mut up = message.clone();
        self.prepare_up(&mut up, at.remote)?;
        let contact = over.and_then(|t| self.agent.set(t)).map(|s| s.contact);
        if !self.txs.has_room(contact, &self.config.limits) {
            return Err(Refusal::Overload);
        }
        let way = over.and_then(|t| self.held.get(&t)).map(|held| held.reply);
        let done = self.agent.register(now, &register);
        self.carry_out();
        let id = match done {
            Ok(id) => id,
            Err(why) => {
                self.failed_sm7(over, way, message, &at, why);
                return Err(why);
            }
        };
        if let Some(held) = over.and_then(|t| self.held.get_mut(&t)) {
            held.sm6 = None;
        }
        let attempt = self.agent.attempt(id).ok_or(Refusal::NoTransaction)?;
        let (forwarded, sent) = self.register_up(up, attempt, &branch);
        let tx = RegisterTx {
            attempt: id,
            contact_uri: register.contact.map(|c| c.uri).unwrap_or_default(),
            ue: at.remote,
            over,
            leaves: attempt.leaves,
            print,
        };
        let mut entry = contact.map_or_else(|| Tx::new(reply), |id| Tx::of(reply, id));
        entry.register = Some(Arc::new(tx));
        self.remember(now, &branch, entry.over(sent));
        self.send(Reply::Up, forwarded);
        Ok(())
    }

    /// An SM7 has ended its procedure: the failure travels as SM6 did (clause 7.4.2a).
    /// The answer through the set itself comes to nothing, because the set is gone.
    fn failed_sm7(
        &mut self,
        over: Option<SetToken>,
        way: Option<Reply>,
        message: &Message,
        at: &Packet,
        why: Refusal,
    ) {
        let gone = over.is_some_and(|t| self.agent.set(t).is_none());
        let answer = self.refusal(message, at.remote, why);
        if let (true, Some(way), Some(bytes)) = (gone, way, answer) {
            self.send(way, bytes);
        }
    }

    /// SM2 or SM8: what goes to the core, with Path, so that requests come back through
    /// us. The security agreement, which ends here, is off already.
    pub(super) fn register_up(
        &self,
        mut up: Message,
        attempt: &Attempt,
        branch: &str,
    ) -> (Vec<u8>, Transport) {
        aka::set_integrity_protected(&mut up, attempt.integrity);
        up.insert_top("Path", &self.route_at_core(&attempt.path));
        if !up.any_element("Require", |e| e.eq_ignore_ascii_case("path")) {
            up.push("Require", "path");
        }
        let sent = self.push_via_up(&mut up, branch);
        (up.to_bytes(), sent)
    }
}
