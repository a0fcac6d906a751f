//! The core's answers to REGISTER: SM4 becomes SAs, success and failure decide which
//! of them stay (TS 33.203 clauses 7.2, 7.3.1, 7.4.2a).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gm_esp::keys::{Ck, Ik};

use super::pending::{Attempt, AttemptId, Kind};
use super::{Agent, Command, FlowEvent, Held, Refusal};
use crate::lifecycle::{ContactId, SaSet, SetState};
use crate::sa_set::{Role, SaSetRequest, SetParams, SetToken, Tunnel};
use crate::sec_agree::{Ends, SecList, server_list};

/// What SM6 is to carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenged {
    /// The new set.
    pub set: SetToken,
    /// The value of Security-Server.
    pub security_server: String,
    /// The core sent the same challenge again; nothing new is installed.
    pub repeated: bool,
}

/// What a 2xx of the core says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// Seconds that this contact is registered for.
    pub expires: u32,
    /// URIs of P-Associated-URI, the default identity first.
    pub identities: Vec<Arc<str>>,
}

/// What becomes of the answer to a REGISTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// The set through which it travels; `None`: in clear.
    pub over: Option<SetToken>,
    /// The registration of this set is complete: the answer is SM12.
    pub confirmed: Option<SetToken>,
}

impl Agent {
    /// SM4: suite, SPIs and ports are chosen and the set is entered and installed;
    /// SM6 waits for [`Agent::installed`]. The keys are in the Install command alone.
    ///
    /// # Errors
    /// Why there will be no set; the UE gets the refusal in the place of SM6, on its
    /// way. [`Refusal::NoTransaction`] when the attempt is over.
    pub fn challenge(
        &mut self,
        now: u64,
        id: AttemptId,
        nonce: &str,
        ik: Ik,
        ck: Ck,
    ) -> Result<Challenged, Refusal> {
        if let Some(repeated) = self.challenged_before(id, nonce) {
            return Ok(repeated);
        }
        let attempt = self.attempts.get(id).ok_or(Refusal::NoTransaction)?.clone();
        let (offer, chosen) = attempt.offer.ok_or(Refusal::NoSecurityClient)?;
        let mode = if attempt.tunnel {
            gm_esp::Mode::UdpEncTun
        } else {
            gm_esp::Mode::Trans
        };
        let (pcscf, ue) = (attempt.local.ip(), attempt.ue.ip());
        let contact = self.table.by_key(&attempt.key);
        let ends = self.own_ends(contact, attempt.over, ue, &chosen.ends)?;
        let params = SetParams {
            ue,
            pcscf,
            ue_ends: chosen.ends,
            pcscf_ends: ends,
            suite: chosen.suite,
            tunnel: attempt.tunnel.then_some(Tunnel {
                local: pcscf,
                remote: ue,
                port: self.config.encap_port,
            }),
            replay_window: self.config.replay_window,
        };
        self.next_set += 1;
        let token = SetToken(self.next_set);
        let security_server = server_list(&self.config.policy, mode, &ends);
        let deadline = now.saturating_add(self.config.timers.registration);
        let mut set = SaSet::new(token, params, deadline);
        set.client_list = offer;
        set.server_list = SecList::parse(&security_server);
        set.nonce = nonce.to_owned();
        set.over = attempt.over;
        let added = self.table.add(&attempt.key, &attempt.path, set);
        self.carry_out();
        if let Err(error) = added {
            self.spis.push_front([ends.spi_c, ends.spi_s]);
            return Err(error.into());
        }
        self.event(FlowEvent::Sm4 {
            set: token,
            impi: attempt.key.impi.clone(),
            suite: chosen.suite,
            mode,
        });
        self.hold_set(id, token);
        let request = SaSetRequest::new(token, Role::Pcscf, params, ik, ck);
        self.commands.push_back(Command::Install(Box::new(request)));
        Ok(Challenged {
            set: token,
            security_server,
            repeated: false,
        })
    }

    /// The same challenge of the same attempt again.
    fn challenged_before(&self, id: AttemptId, nonce: &str) -> Option<Challenged> {
        let set = self.table.set(self.attempts.get(id)?.challenged?)?;
        (set.nonce == nonce).then(|| Challenged {
            set: set.token,
            security_server: set.server_list.to_string(),
            repeated: true,
        })
    }

    /// The count of the stranger's attempt goes over to its set.
    fn hold_set(&mut self, id: AttemptId, token: SetToken) {
        let Some(attempt) = self.attempts.get_mut(id) else {
            return;
        };
        attempt.challenged = Some(token);
        let source = attempt.source.take();
        source.iter().for_each(|_| self.strangers.challenge());
        let held = Held {
            installed: false,
            source,
            attempt: id,
        };
        self.held.insert(token, held);
    }

    /// Our SPIs, none of them the UE's (clause 7.1), and a client port that changes.
    fn own_ends(
        &mut self,
        contact: Option<ContactId>,
        over: Option<SetToken>,
        ue: IpAddr,
        theirs: &Ends,
    ) -> Result<Ends, Refusal> {
        let port_ps = self.config.server_port;
        let ended = self.table.ended_by(contact, over, ue, theirs, port_ps);
        let ue = SocketAddr::new(ue, theirs.port_s);
        let port_c = self
            .table
            .free_client_port(&self.config.client_ports, ue, contact, &ended)
            .ok_or(Refusal::NoClientPort)?;
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

    /// A final answer of the core that is no challenge: status 200 to 699. A 401 to
    /// SM7 is a failure too.
    ///
    /// # Errors
    /// [`Refusal::Unchallenged`]: success of a REGISTER in clear, the UE gets 500
    /// (ARCHITECTURE, reading A-16). [`Refusal::NoTransaction`] when the attempt is
    /// over, [`Refusal::NoSa`] when its set is.
    pub fn answered(
        &mut self,
        now: u64,
        id: AttemptId,
        status: u16,
        granted: Granted,
    ) -> Result<Answered, Refusal> {
        let attempt = self.attempts.get(id).ok_or(Refusal::NoTransaction)?;
        let good = (200..300).contains(&status);
        let Some(token) = attempt.over else {
            let clear = Answered {
                over: None,
                confirmed: None,
            };
            return if good {
                Err(Refusal::Unchallenged)
            } else {
                Ok(clear)
            };
        };
        let state = self.table.set(token).ok_or(Refusal::NoSa)?.state;
        let answer = attempt.kind == Kind::Answer;
        let failed = matches!(state, SetState::Registration | SetState::Lingering);
        let mut answered = Answered {
            over: Some(token),
            confirmed: None,
        };
        if good {
            self.success(now, id, token, granted);
            answered.confirmed = (answer && state != SetState::Lingering).then_some(token);
        } else if answer && failed {
            answered.over = Some(self.table.fail(token, now));
        }
        self.carry_out();
        Ok(answered)
    }

    /// SM12, a refresh or a de-registration.
    fn success(&mut self, now: u64, id: AttemptId, token: SetToken, granted: Granted) {
        let Some(attempt) = self.attempts.get(id) else {
            return;
        };
        let Some((contact, state)) = self.table.set(token).map(|s| (s.contact, s.state)) else {
            return;
        };
        let expires = if attempt.leaves { 0 } else { granted.expires };
        let life = u64::from(expires) * 1000 + self.config.timers.margin;
        let answer = attempt.kind == Kind::Answer;
        if answer && state == SetState::Registration {
            self.table.confirm(token, now, life);
        }
        if attempt.leaves {
            let attempt = attempt.clone();
            if answer && state == SetState::Registration {
                self.release(token, true);
            }
            return self.leave(now, contact, &attempt);
        }
        self.table
            .registered(contact, &attempt.aor, granted.identities);
        if answer && state == SetState::Registration {
            self.release(token, true);
        }
        if !answer && let Some(set) = self.table.refresh(contact, now, life) {
            self.event(FlowEvent::Refreshed { set, expires });
        }
    }

    /// The 200 to a de-REGISTER: of one contact, or of all of the identity. Their sets
    /// carry it and then go (ARCHITECTURE, reading A-30).
    fn leave(&mut self, now: u64, contact: ContactId, attempt: &Attempt) {
        let impi = &attempt.key.impi;
        let contacts = if attempt.everywhere {
            self.table.contacts_of(impi)
        } else {
            vec![contact]
        };
        for contact in contacts {
            if self.table.deregister(contact, &attempt.aor, now) {
                self.carry_out();
                let impi = impi.clone();
                self.event(FlowEvent::Deregistered { impi });
            }
        }
    }
}
