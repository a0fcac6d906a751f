//! SM6 and SM7: the challenge, the SIM's answer, the new set (TS 33.203 clauses 7.2, M.7.2).

use std::net::IpAddr;

use gm_esp::{Ck, Ik, Mode};

use super::client::Purpose;
use super::procedure::{AWAIT, Answer};
use super::{AkaAnswer, AkaFailure, Fault, Ue, UeEvent, UeFailure, UeOutput, UeSet};
use crate::aka::{self, Challenge, Res};
use crate::message::Message;
use crate::sa_set::{Role, SaSetRequest, SetParams, SetToken, Tunnel};
use crate::sec_agree::{self, OfferError, Proposal, SECURITY_SERVER, SecList, choose_server};

/// Challenges of one procedure before the UE gives up.
const CHALLENGES: u8 = 3;
/// RES and IK that no SIM has.
const WRONG: [u8; 16] = [0xa5; 16];

/// Whether a phone can be at the address that a 401, in clear, says: its host will take
/// it for one of its own, and what goes there does not leave it any more.
pub fn may_be_public(address: IpAddr, pcscf: IpAddr) -> bool {
    address.is_ipv4() == pcscf.is_ipv4()
        && address != pcscf
        && !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
}

impl Ue {
    /// SM6: the SIM answers, a suite and a mode are chosen, the set is asked for.
    pub(super) fn challenged(
        &mut self,
        now: u64,
        received: Option<IpAddr>,
        message: &Message,
    ) -> Result<(), UeFailure> {
        let challenge = Challenge::from_message(message).map_err(UeFailure::Challenge)?;
        let Some(procedure) = &mut self.procedure else {
            return Ok(());
        };
        procedure.challenges += 1;
        if procedure.challenges > CHALLENGES {
            return Err(UeFailure::TooManyChallenges);
        }
        procedure.deadline = now + AWAIT;
        if procedure.set.is_some() {
            // A challenge in answer to SM7: the response did not please. Its SPIs are used up.
            return Err(UeFailure::Status(401));
        }
        if self.does(Fault::NoSm7) {
            return Ok(());
        }
        let answer = match self.ask_sim(&challenge) {
            Ok(answer) => answer,
            Err(failure) => return self.report(now, &challenge, failure),
        };
        let list = SecList::from_message(message, SECURITY_SERVER).unwrap_or_default();
        let chosen = self.choose(&list)?;
        if self.is_own_spi(chosen.ends) {
            return Err(UeFailure::SecurityServer(OfferError::Spi));
        }
        // Over a set we are where we were; in clear received says where that is.
        let public = match self.over() {
            Some(set) => set.params.ue,
            None => received.unwrap_or(self.config.local),
        };
        let nat = public != self.config.local;
        if nat && chosen.mode != Mode::UdpEncTun {
            return Err(UeFailure::Nat);
        }
        if nat && !may_be_public(public, self.config.pcscf.ip()) {
            return Err(UeFailure::PublicAddress);
        }
        let server_lines = message
            .lines(SECURITY_SERVER)
            .map(|h| h.value().into_owned())
            .collect();
        let Some(procedure) = &mut self.procedure else {
            return Ok(());
        };
        let (local, pcscf) = (self.config.local, self.config.pcscf.ip());
        let tunnel = Tunnel {
            local,
            remote: pcscf,
            port: self.config.encap_port,
        };
        let params = SetParams {
            ue: public,
            pcscf,
            ue_ends: procedure.ends,
            pcscf_ends: chosen.ends,
            suite: chosen.suite,
            tunnel: (chosen.mode == Mode::UdpEncTun).then_some(tunnel),
            replay_window: self.config.replay_window,
        };
        self.next_token += 1;
        let token = SetToken(self.next_token);
        procedure.set = Some(UeSet {
            token,
            params,
            server_lines,
            deadline: now + AWAIT,
            settling: false,
        });
        procedure.answer = Some(Answer {
            challenge,
            res: answer.res.clone(),
        });
        self.event(UeEvent::Sm6 {
            set: token,
            suite: params.suite,
            mode: params.mode(),
            public,
        });
        self.install(token, params, answer.ik.clone(), answer.ck.clone());
        Ok(())
    }

    /// The SIM's answer, or what a fault makes of it.
    fn ask_sim(&mut self, challenge: &Challenge) -> Result<AkaAnswer, AkaFailure> {
        if self.does(Fault::WrongAutn) {
            return Err(AkaFailure::Mac);
        }
        if self.does(Fault::StaleSqn) {
            // Once: the network catches up by AUTS.
            self.config.faults.retain(|f| *f != Fault::StaleSqn);
            self.aka.run_ahead();
        }
        let mut answer = self.aka.answer(&challenge.rand, &challenge.autn)?;
        if self.does(Fault::WrongRes) {
            answer.res = Res::new(&WRONG[..8]).unwrap_or(answer.res);
        }
        if self.does(Fault::WrongKeys) {
            answer.ik = Ik::from_bytes(WRONG);
        }
        Ok(answer)
    }

    /// Suite, mode, SPIs and ports. Where the old set is UDP-encapsulated the new
    /// one is, too (M.7.4.1a), also when the list says nothing of modes.
    fn choose(&self, list: &SecList) -> Result<Proposal, UeFailure> {
        let suites = &self.config.suites;
        let over = self.over().map(|s| s.params.mode());
        let chosen = match over {
            Some(Mode::UdpEncTun) => choose_server(suites, &[Mode::UdpEncTun], list).or_else(|e| {
                let silent = choose_server(suites, &[Mode::Trans], list)?;
                let tunnel = Proposal {
                    mode: Mode::UdpEncTun,
                    ..silent
                };
                if silent.mode_written {
                    Err(e)
                } else {
                    Ok(tunnel)
                }
            }),
            _ => choose_server(suites, &self.config.modes, list),
        };
        chosen.map_err(UeFailure::SecurityServer)
    }

    pub(super) fn install(&mut self, token: SetToken, params: SetParams, ik: Ik, ck: Ck) {
        let request = SaSetRequest::new(token, Role::Ue, params, ik, ck);
        self.out.push_back(UeOutput::Install(Box::new(request)));
    }

    /// Tells the network why there is no answer (clauses 6.1.2.2, 6.1.3), with a new offer.
    pub(super) fn report(
        &mut self,
        now: u64,
        challenge: &Challenge,
        failure: AkaFailure,
    ) -> Result<(), UeFailure> {
        let cnonce = self.random.token(8);
        let uri = format!("sip:{}", self.config.domain);
        let username = self.config.impi.clone();
        let ends = self.new_ends()?;
        if let Some(procedure) = &mut self.procedure {
            procedure.client_text =
                sec_agree::offer_list(&self.config.suites, &self.config.modes, &ends);
            let offered = std::mem::replace(&mut procedure.ends, ends);
            self.give_back(offered);
        }
        match failure {
            AkaFailure::Synchronisation(auts) => {
                let value = aka::authorization(challenge, &username, &uri, &cnonce, Err(&auts));
                self.send_register(now, &value, false);
                self.event(UeEvent::Resynchronising);
                Ok(())
            }
            AkaFailure::Mac => {
                let (realm, nonce) = (&challenge.realm, &challenge.nonce);
                let value = format!(
                    "Digest username=\"{username}\",realm=\"{realm}\",nonce=\"{nonce}\",uri=\"{uri}\",response=\"\",algorithm=AKAv1-MD5"
                );
                // Whatever the network answers, this procedure is over for us.
                self.send_register_as(now, &value, false, Purpose::Report);
                Err(UeFailure::NetworkAuthentication)
            }
        }
    }

    /// The inbound SAs are live: SM7 leaves through the new set.
    pub(super) fn installed(&mut self, now: u64, token: SetToken, ok: bool) {
        let current = self
            .procedure
            .as_ref()
            .and_then(|p| p.set.as_ref())
            .map(|s| s.token);
        if current != Some(token) {
            return;
        }
        if !ok {
            if let Some(procedure) = &mut self.procedure {
                procedure.set = None;
            }
            return self.abandon(now, UeFailure::NotInstalled, 0);
        }
        let Some(answer) = self.procedure.as_mut().and_then(|p| p.answer.take()) else {
            return;
        };
        self.out.push_back(UeOutput::Activate { set: token });
        let cnonce = self.random.token(8);
        let uri = format!("sip:{}", self.config.domain);
        let username = match self.does(Fault::WrongUser) {
            true => format!("other.{}", self.config.impi),
            false => self.config.impi.clone(),
        };
        let value =
            aka::authorization(&answer.challenge, &username, &uri, &cnonce, Ok(&answer.res));
        self.last_answer = Some(value.clone());
        self.send_register(now, &value, true);
        self.event(UeEvent::Sm7 { set: token });
        self.nat_keepalive_after(now);
    }
}
