//! The core's answers to REGISTER: SM4 becomes SAs and SM6, success becomes SM12.

use super::tx::{RegisterTx, Reply};
use super::{Edge, FlowEvent, Held, Output, Refusal, refuse};
use crate::aka;
use crate::header::{self, NameAddr, Uri};
use crate::lifecycle::{SaSet, SetState, TableError};
use crate::message::Message;
use crate::sa_set::{Role, SaSetRequest, SetParams, SetToken, Tunnel};
use crate::sec_agree::{Ends, SECURITY_SERVER, SecList, choose_offer, server_list};

impl Edge {
    /// A response to the REGISTER of `branch`; our Via is off already.
    pub(super) fn register_response(
        &mut self,
        now: u64,
        branch: &str,
        reply: Reply,
        tx: &RegisterTx,
        mut message: Message,
    ) -> Result<(), Refusal> {
        let code = message.status().unwrap_or(500);
        let registration = tx
            .over
            .filter(|t| tx.answer && self.table.set(*t).is_some());
        match code {
            ..200 => {}
            401 if registration.is_none() => {
                let error = server_error(&message);
                let done = self.challenge(now, branch, reply, tx, message);
                if let Err(why) = done {
                    self.send(reply, error);
                    return Err(why);
                }
                return Ok(());
            }
            200..300 if tx.over.is_none() => {
                // Nobody is registered without authentication (ARCHITECTURE, reading A-16).
                self.send(reply, server_error(&message));
                return Err(Refusal::Challenge(aka::ChallengeError::NotAka));
            }
            200..300 => self.success(now, tx, &message),
            _ => {
                // User authentication failure leaves through the new set, then it goes (clause 7.3.1.1).
                if let Some(set) = registration {
                    self.table.fail(set, now);
                    self.carry_out();
                }
            }
        }
        aka::strip_keys(&mut message);
        let sent = self.send(reply, message.to_bytes());
        if (200..300).contains(&code)
            && let (Some(ue), Some(set), true) = (sent, registration, tx.answer)
        {
            self.event(FlowEvent::Sm12 {
                set,
                ue,
                expires: granted(&message, tx),
            });
        }
        if (200..300).contains(&code) && tx.leaves {
            self.leave(now, tx);
        }
        Ok(())
    }

    /// SM4: keys out, suite and SPIs chosen, SAs to be installed; SM6 waits for them.
    fn challenge(
        &mut self,
        now: u64,
        branch: &str,
        reply: Reply,
        tx: &RegisterTx,
        mut message: Message,
    ) -> Result<(), Refusal> {
        let nonce = aka::Challenge::from_message(&message).map(|c| c.nonce);
        let keys = aka::take_keys(&mut message);
        if let Some(set) = tx.challenged
            && self
                .table
                .set(set)
                .is_some_and(|s| Ok(&s.nonce) == nonce.as_ref())
        {
            self.send_sm6(set);
            return Ok(());
        }
        let (ik, ck) = keys.map_err(Refusal::Challenge)?;
        let nonce = nonce.map_err(Refusal::Challenge)?;
        let offer = tx.offer.clone().ok_or(Refusal::NoSecurityClient)?;
        let mode = if tx.tunnel {
            gm_esp::Mode::UdpEncTun
        } else {
            gm_esp::Mode::Trans
        };
        let chosen = choose_offer(&self.config.policy, &offer, mode).map_err(Refusal::Offer)?;
        let ends = self.own_ends(tx, &chosen.ends)?;
        let (pcscf, ue) = (tx.local.ip(), tx.ue.ip());
        let params = SetParams {
            ue,
            pcscf,
            ue_ends: chosen.ends,
            pcscf_ends: ends,
            suite: chosen.suite,
            tunnel: tx.tunnel.then_some(Tunnel {
                local: pcscf,
                remote: ue,
                port: self.config.encap_port,
            }),
            replay_window: self.config.replay_window,
        };
        self.next_set += 1;
        let token = SetToken(self.next_set);
        let list = server_list(&self.config.policy, mode, &ends);
        let mut set = SaSet::new(
            token,
            params,
            now.saturating_add(self.config.timers.registration),
        );
        set.client_list = offer;
        set.server_list = SecList::parse(&list);
        set.nonce = nonce;
        set.over = tx.over;
        let added = self.table.add(&tx.key, &tx.path, set);
        self.carry_out();
        if let Err(error) = added {
            self.spis.push_front([ends.spi_c, ends.spi_s]);
            return Err(match error {
                TableError::TooManySets => Refusal::TooManySets,
                TableError::Full => Refusal::Overload,
                TableError::Collision => Refusal::Collision,
            });
        }
        self.event(FlowEvent::Sm4 {
            set: token,
            suite: chosen.suite,
            mode,
        });
        message.remove(SECURITY_SERVER);
        message.push(SECURITY_SERVER, &list);
        // The count of the stranger's transaction goes over to the set.
        let source = self.txs.get_mut(branch).and_then(|t| t.source.take());
        source.iter().for_each(|_| self.pending.challenge());
        self.held.insert(
            token,
            Held {
                sm6: Some(message.to_bytes()),
                reply,
                installed: false,
                source,
            },
        );
        if let Some(entry) = self.txs.get_mut(branch).and_then(|t| t.register.as_mut()) {
            entry.challenged = Some(token);
        }
        let request = SaSetRequest::new(token, Role::Pcscf, params, ik, ck);
        self.out.push_back(Output::Install(Box::new(request)));
        Ok(())
    }

    /// Our SPIs, none of them the UE's (clause 7.1), and a client port that changes.
    fn own_ends(&mut self, tx: &RegisterTx, theirs: &Ends) -> Result<Ends, Refusal> {
        let ue = std::net::SocketAddr::new(tx.ue.ip(), theirs.port_s);
        let id = self.table.by_key(&tx.key);
        let port_c = self
            .table
            .free_client_port(&self.config.client_ports, ue, id)
            .ok_or(Refusal::Collision)?;
        let differs = |pair: &[u32; 2]| {
            pair.iter()
                .all(|spi| ![theirs.spi_c, theirs.spi_s].contains(spi))
        };
        let at = self.spis.iter().position(differs).ok_or(Refusal::NoSpi)?;
        let [spi_c, spi_s] = self.spis.remove(at).ok_or(Refusal::NoSpi)?;
        Ok(Ends {
            spi_c,
            spi_s,
            port_c,
            port_s: self.config.server_port,
        })
    }

    /// A registration succeeded: over its registration set (SM12), or refreshed.
    fn success(&mut self, now: u64, tx: &RegisterTx, message: &Message) {
        let Some(token) = tx.over else { return };
        let Some((id, state)) = self.table.set(token).map(|s| (s.contact, s.state)) else {
            return;
        };
        let expires = granted(message, tx);
        let life = u64::from(expires) * 1000 + self.config.timers.margin;
        let confirmed = tx.answer && state == SetState::Registration;
        if confirmed {
            self.table.confirm(token, now, life);
            self.release(token);
        }
        if !tx.leaves {
            let associated = message.elements("P-Associated-URI");
            let associated = associated
                .iter()
                .filter_map(|a| NameAddr::parse(a))
                .map(|a| a.uri)
                .collect();
            self.table.registered(id, &tx.aor, associated);
            if !tx.answer
                && let Some(set) = self.table.refresh(id, now, life)
            {
                self.event(FlowEvent::Refreshed { set, expires });
            }
        }
        self.carry_out();
    }

    /// After the 200 to a de-REGISTER has left.
    fn leave(&mut self, now: u64, tx: &RegisterTx) {
        let Some(id) = tx.over.and_then(|t| self.table.set(t)).map(|s| s.contact) else {
            return;
        };
        if self.table.deregister(id, &tx.aor, now) {
            self.event(FlowEvent::Deregistered {
                impi: tx.key.impi.clone(),
            });
        }
        self.carry_out();
    }
}

fn server_error(response: &Message) -> Vec<u8> {
    refuse::server_error(response).to_bytes()
}

/// Seconds granted to this contact.
fn granted(message: &Message, tx: &RegisterTx) -> u32 {
    if tx.leaves {
        return 0;
    }
    let wanted = Uri::parse(&tx.contact_uri);
    header::granted(message, |uri| {
        wanted.as_ref().is_some_and(|w| w.same_identity(uri))
    })
}
