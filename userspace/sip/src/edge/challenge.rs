//! The core's answers to REGISTER: SM4 becomes SM6, success becomes SM12.

use std::sync::Arc;

use super::refuse::{in_place_of, server_error};
use super::tx::{RegisterTx, Reply};
use super::{Edge, FlowEvent, Held, Refusal};
use crate::agent::{Granted, Kind};
use crate::aka;
use crate::header::{self, AddrParts, UriParts};
use crate::message::Message;
use crate::sec_agree::{SECURITY_CLIENT, SECURITY_SERVER, SECURITY_VERIFY};

impl Edge {
    /// A response to a REGISTER; our Via is off already.
    pub(super) fn register_response(
        &mut self,
        now: u64,
        reply: Reply,
        tx: &RegisterTx,
        mut message: Message,
    ) -> Result<(), Refusal> {
        // The security agreement is between the UE and us (clause 7.2: SM12 has none of it).
        message.remove_all([SECURITY_CLIENT, SECURITY_SERVER, SECURITY_VERIFY]);
        let attempt = self.agent.attempt(tx.attempt);
        let kind = attempt.ok_or(Refusal::NoTransaction)?.kind;
        match message.status().unwrap_or(500) {
            ..200 => {
                aka::strip_keys(&mut message);
                self.send(reply, message.to_bytes());
                Ok(())
            }
            401 if kind != Kind::Answer => {
                let done = self.challenge(now, reply, tx, &mut message);
                if let Err(why) = done {
                    let answer = in_place_of(&message, why, &self.config.policy);
                    self.send(reply, answer.to_bytes());
                }
                done
            }
            code => self.answered(now, code, reply, tx, message),
        }
    }

    /// SM4: the keys come out, SM6 waits for its SAs.
    fn challenge(
        &mut self,
        now: u64,
        reply: Reply,
        tx: &RegisterTx,
        message: &mut Message,
    ) -> Result<(), Refusal> {
        let (nonce, ik, ck) = aka::take_challenge(message).map_err(Refusal::Challenge)?;
        let challenged = self.agent.challenge(now, tx.attempt, &nonce, ik, ck);
        self.carry_out();
        let challenged = challenged?;
        if challenged.repeated {
            self.send_sm6(challenged.set);
            return Ok(());
        }
        message.push(SECURITY_SERVER, &challenged.security_server);
        let sm6 = Some(message.to_bytes());
        self.held.insert(challenged.set, Held { sm6, reply });
        Ok(())
    }

    /// SM12, a refresh, a de-registration, or a failure.
    fn answered(
        &mut self,
        now: u64,
        code: u16,
        reply: Reply,
        tx: &RegisterTx,
        mut message: Message,
    ) -> Result<(), Refusal> {
        let mut identities: Vec<Arc<str>> = Vec::new();
        message.any_element("P-Associated-URI", |a| {
            identities.extend(AddrParts::parse(a).map(|a| a.uri.into()));
            false
        });
        let granted = Granted {
            expires: granted(&message, tx),
            identities,
        };
        let held = tx.over.and_then(|t| self.held.get(&t)).map(|h| h.reply);
        let expires = granted.expires;
        let answered = self.agent.answered(now, tx.attempt, code, granted);
        self.carry_out();
        let answered = match answered {
            Ok(answered) => answered,
            Err(why) => {
                if why == Refusal::Unchallenged {
                    self.send(reply, server_error(&message).to_bytes());
                }
                return Err(why);
            }
        };
        aka::strip_keys(&mut message);
        let way = if answered.over == tx.over {
            reply
        } else {
            held.unwrap_or(reply)
        };
        let sent = self.send(way, message.to_bytes());
        if let Some(set) = answered.confirmed {
            self.held.remove(&set);
            if let Some(ue) = sent {
                self.event(FlowEvent::Sm12 { set, ue, expires });
            }
        }
        Ok(())
    }
}

/// Seconds granted to this contact.
fn granted(message: &Message, tx: &RegisterTx) -> u32 {
    if tx.leaves {
        return 0;
    }
    let wanted = UriParts::parse(&tx.contact_uri);
    header::granted_to(message, |uri| {
        let same = |w: &UriParts<'_>| UriParts::parse(uri).is_some_and(|uri| w.same_identity(&uri));
        wanted.as_ref().is_some_and(same)
    })
}
