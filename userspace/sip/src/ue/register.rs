//! One registration procedure: SM1, SM6, SM7, SM12, and the ways in which it fails.

use std::net::{IpAddr, SocketAddr};

use gm_esp::{Ck, Ik, Mode};

use super::client::Purpose;
use super::{AkaFailure, Ignored, Ue, UeEvent, UeFailure, UeOutput, UeSet};
use crate::aka::{self, Challenge, Res};
use crate::header::{self, NameAddr, Uri, Via};
use crate::message::Message;
use crate::sa_set::{Role, SaSetRequest, SetParams, SetToken, Tunnel};
use crate::sec_agree::{
    self, Ends, SECURITY_CLIENT, SECURITY_SERVER, SECURITY_VERIFY, SecList, choose_server,
};

/// From the challenge to SM12 (await timer, 4 min).
const AWAIT: u64 = 240_000;
/// How long replaced and de-registered sets serve: 64 * T1.
const LINGER: u64 = 32_000;
/// What SAs live longer than the registration.
const MARGIN: u64 = 30_000;
/// Challenges of one procedure before the UE gives up (RFC 3310 clause 3.4 in spirit).
const CHALLENGES: u8 = 3;

/// The one that runs (clause 7.4.1a: one at a time).
pub(super) struct Procedure {
    ends: Ends,
    client_text: String,
    expires: u32,
    /// The set that protects SM1, 401s and failures.
    over: Option<SetToken>,
    /// The new set.
    pub(super) set: Option<UeSet>,
    answer: Option<Answer>,
    challenges: u8,
    deadline: u64,
}

struct Answer {
    challenge: Challenge,
    res: Res,
}

impl Procedure {
    pub(super) fn deadline(&self) -> u64 {
        self.deadline
    }
}

impl Ue {
    /// SM1, through the current set when there is one.
    pub(super) fn start(&mut self, now: u64, expires: u32) -> Result<(), UeFailure> {
        if self.procedure.is_some() {
            return Err(UeFailure::Busy);
        }
        let ends = self.new_ends()?;
        self.procedure = Some(Procedure {
            client_text: sec_agree::offer_list(&self.config.suites, &self.config.modes, &ends),
            ends,
            expires,
            over: self.current.as_ref().map(|s| s.token),
            set: None,
            answer: None,
            challenges: 0,
            deadline: now + AWAIT,
        });
        let realm = self.config.domain.clone();
        let first = format!(
            "Digest username=\"{}\",realm=\"{realm}\",nonce=\"\",uri=\"sip:{realm}\",response=\"\"",
            self.config.impi
        );
        self.send_register(now, &first, false);
        let protected = self.current.is_some();
        self.event(UeEvent::Sm1 { protected });
        Ok(())
    }

    /// A REGISTER of the running procedure, through the new set or as SM1.
    fn send_register(&mut self, now: u64, authorization: &str, answers: bool) {
        let Some(procedure) = &self.procedure else {
            return;
        };
        let set = if answers {
            procedure.set.clone()
        } else {
            self.current.clone()
        };
        let (expires, client) = (procedure.expires, procedure.client_text.clone());
        let server_port = procedure.ends.port_s;
        let (local, remote) = match &set {
            Some(set) => set.way_out(),
            None => (
                SocketAddr::new(self.config.local, self.config.clear_port),
                self.config.pcscf,
            ),
        };
        let sent_by = if set.is_some() {
            SocketAddr::new(local.ip(), server_port)
        } else {
            local
        };
        let contact = SocketAddr::new(local.ip(), server_port);
        let branch = self.new_branch();
        self.cseq += 1;
        let user = Uri::parse(&self.config.impu)
            .and_then(|u| u.user)
            .unwrap_or_else(|| "ue".into());
        let mut message = Message::request("REGISTER", &format!("sip:{}", self.config.domain))
            .with("Via", &self.via(sent_by, &branch, set.is_none()))
            .with("Max-Forwards", "70")
            .with(
                "From",
                &format!("<{}>;tag={}", self.config.impu, self.from_tag),
            )
            .with("To", &format!("<{}>", self.config.impu))
            .with("Call-ID", &self.call_id)
            .with("CSeq", &format!("{} REGISTER", self.cseq))
            .with(
                "Contact",
                &format!("<sip:{user}@{contact}>;expires={expires}"),
            )
            .with("Expires", &expires.to_string())
            .with("Supported", "path")
            .with("Require", "sec-agree")
            .with("Proxy-Require", "sec-agree")
            .with("Authorization", authorization)
            .with(SECURITY_CLIENT, &client);
        if let Some(set) = &set {
            message.push(SECURITY_VERIFY, &set.server_text);
        }
        message.push("User-Agent", &self.config.user_agent);
        message.push("Content-Length", "0");
        let token = set.map(|s| s.token);
        self.clients.remove_registration();
        self.request(
            now,
            &branch,
            Purpose::Register,
            token,
            local,
            remote,
            message.to_bytes(),
        );
    }

    #[allow(clippy::too_many_arguments, reason = "a transaction is just these")]
    pub(super) fn request(
        &mut self,
        now: u64,
        branch: &str,
        purpose: Purpose,
        set: Option<SetToken>,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: Vec<u8>,
    ) {
        self.clients
            .add(now, branch, purpose, set, local, remote, bytes.clone());
        self.emit(local, remote, bytes);
    }

    /// A response, to be taken only through the set that carried the request.
    pub(super) fn answer(
        &mut self,
        now: u64,
        local: SocketAddr,
        remote: SocketAddr,
        message: &Message,
    ) {
        let via = message.first_element("Via").and_then(|v| Via::parse(&v));
        let branch = via.as_ref().and_then(Via::branch).unwrap_or_default();
        let Some(client) = self.clients.find(&branch).cloned() else {
            return self.ignored(Ignored::NoTransaction);
        };
        let came = self.set_of(local, remote).map(|s| s.token);
        let status = message.status().unwrap_or(500);
        if came != client.set && !self.clear_failure(local, client.set, status) {
            return self.ignored(Ignored::WrongSa);
        }
        if status < 200 {
            return self.clients.proceeding(&branch, now);
        }
        self.clients.remove(&branch);
        if let Some(token) = came {
            self.confirmed_by_use(now, token);
        }
        match client.purpose {
            Purpose::Request(id) => self.event(UeEvent::Answered {
                id,
                status,
                body: message.body().to_vec(),
            }),
            Purpose::Register => {
                let received = via.and_then(|v| v.received());
                self.registered_or_not(now, status, received, message);
            }
        }
    }

    /// The failure of SM7 comes in clear when SM1 was in clear, and over the old set
    /// when that protected it (clause 7.4.1a).
    fn clear_failure(&self, local: SocketAddr, set: Option<SetToken>, status: u16) -> bool {
        let Some(procedure) = &self.procedure else {
            return false;
        };
        let new = procedure.set.as_ref().is_some_and(|s| Some(s.token) == set);
        let clear = local == SocketAddr::new(self.config.local, self.config.clear_port);
        let old = self
            .current
            .as_ref()
            .is_some_and(|s| s.address(local.port()) == local);
        new && status >= 400 && status != 401 && if procedure.over.is_some() { old } else { clear }
    }

    fn registered_or_not(
        &mut self,
        now: u64,
        status: u16,
        received: Option<IpAddr>,
        message: &Message,
    ) {
        match status {
            401 => {
                if let Err(failure) = self.challenged(now, received, message) {
                    self.abandon(failure);
                }
            }
            200..300 => self.registered(now, message),
            _ => self.abandon(UeFailure::Status(status)),
        }
    }

    /// SM6: the SIM answers, a suite and a mode are chosen, the set is asked for.
    fn challenged(
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
        if let Some(set) = procedure.set.take() {
            self.drop_set(&set);
        }
        let answer = match self.aka.answer(&challenge.rand, &challenge.autn) {
            Ok(answer) => answer,
            Err(failure) => return self.report(now, &challenge, failure),
        };
        let list = SecList::from_message(message, SECURITY_SERVER).unwrap_or_default();
        let chosen = choose_server(&self.config.suites, &self.config.modes, &list)
            .map_err(UeFailure::SecurityServer)?;
        // Over a set the mode stays (M.7.4.1a); in clear received says where we are.
        let public = match &self.current {
            Some(set) => set.params.ue,
            None => received.unwrap_or(self.config.local),
        };
        let nat = public != self.config.local;
        if nat && (!chosen.mode_written || chosen.mode != Mode::UdpEncTun) {
            return Err(UeFailure::Nat);
        }
        let text: Vec<_> = message
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
            server_text: text.join(", "),
            deadline: now + AWAIT,
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

    fn install(&mut self, token: SetToken, params: SetParams, ik: Ik, ck: Ck) {
        let request = SaSetRequest::new(token, Role::Ue, params, ik, ck);
        self.out.push_back(UeOutput::Install(Box::new(request)));
    }

    /// Tells the network why there is no answer (clauses 6.1.2.2, 6.1.3), with a new offer.
    fn report(
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
            procedure.ends = ends;
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
                self.send_register(now, &value, false);
                // Whatever the network answers, this procedure is over for us.
                self.clients.remove_registration();
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
            return self.abandon(UeFailure::NotInstalled);
        }
        let Some(answer) = self.procedure.as_mut().and_then(|p| p.answer.take()) else {
            return;
        };
        self.out.push_back(UeOutput::Activate { set: token });
        let cnonce = self.random.token(8);
        let uri = format!("sip:{}", self.config.domain);
        let value = aka::authorization(
            &answer.challenge,
            &self.config.impi,
            &uri,
            &cnonce,
            Ok(&answer.res),
        );
        self.send_register(now, &value, true);
        self.event(UeEvent::Sm7 { set: token });
    }

    /// SM12, or the 200 to a refresh that was not challenged: then the offer is forgotten.
    fn registered(&mut self, now: u64, message: &Message) {
        let Some(procedure) = self.procedure.take() else {
            return;
        };
        let expires = granted(message, self.config.server_port);
        let until = now + u64::from(expires) * 1000;
        let authenticated = procedure.set.is_some();
        let mut old_deadline = 0;
        if let Some(new) = procedure.set {
            if let Some(mut old) = self.current.replace(new) {
                old_deadline = old.deadline;
                if procedure.over == Some(old.token) {
                    // It serves pending transactions until the new one is heard of.
                    self.old.push(old);
                } else {
                    old.deadline = now;
                    self.drop_set(&old);
                }
            }
        }
        if procedure.expires == 0 {
            self.registered_until = None;
            self.service_route.clear();
            self.old.extend(self.current.take());
            for set in &mut self.old {
                set.deadline = set.deadline.min(now + LINGER);
            }
            return self.event(UeEvent::Deregistered);
        }
        let routes = message.elements("Service-Route");
        if !routes.is_empty() {
            self.service_route = routes;
        }
        self.registered_until = Some(until);
        if let Some(set) = &mut self.current {
            // A life never shrinks (clause 7.4.1a).
            set.deadline = if authenticated {
                old_deadline.max(until + MARGIN)
            } else {
                set.deadline.max(until + MARGIN)
            };
            let set = set.token;
            self.event(UeEvent::Registered {
                set,
                expires,
                authenticated,
            });
        }
    }

    /// A message came through the current set after SM12: the old ones serve their
    /// pending transactions and go.
    pub(super) fn confirmed_by_use(&mut self, now: u64, token: SetToken) {
        if self.current.as_ref().is_some_and(|s| s.token == token) {
            for set in &mut self.old {
                set.deadline = set.deadline.min(now + LINGER);
            }
        }
    }

    /// The procedure is over without success; the new set goes, the old one stays.
    pub(super) fn abandon(&mut self, failure: UeFailure) {
        let Some(procedure) = self.procedure.take() else {
            return;
        };
        self.clients.remove_registration();
        if let Some(set) = procedure.set {
            self.drop_set(&set);
        }
        if failure == UeFailure::Timeout && procedure.over.is_some() {
            // No answer through the SAs: they count as dead, the next REGISTER goes in clear (clause 7.4.0).
            self.registered_until = None;
            if let Some(set) = self.current.take() {
                self.drop_set(&set);
            }
        }
        self.event(UeEvent::Failed(failure));
    }
}

/// Seconds granted to the contact with our server port, else the longest, else an hour.
fn granted(message: &Message, server_port: u16) -> u32 {
    let contacts = message.elements("Contact");
    let own = contacts
        .iter()
        .filter_map(|c| NameAddr::parse(c))
        .find_map(|c| {
            let same = c.parsed_uri().is_some_and(|u| u.port == Some(server_port));
            c.param("expires").filter(|_| same)?.parse().ok()
        });
    own.or_else(|| header::expires(message)).unwrap_or(3600)
}
