//! REGISTER of UEs: SM1 in clear, SM1 and SM7 through an SA (TS 33.203 clauses 6.1.5,
//! 7.1, 7.2, 7.4.2a, M.7.2).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gm_esp::Mode;

use super::pending::{Attempt, AttemptId, Kind, Source};
use super::{Agent, FlowEvent, Refusal, RemoveReason};
use crate::aka::Credentials;
use crate::header::{self, AddrParts, NameAddr, Uri, UriParts};
use crate::lifecycle::{ContactId, ContactKey, SaSet, SetState};
use crate::message::Message;
use crate::sa_set::SetToken;
use crate::sec_agree::{Ends, SECURITY_CLIENT, SECURITY_VERIFY, SecList, choose_offer};

/// The longest private or public identity or instance, in bytes (a NAI has 253,
/// RFC 7542 clause 2.3).
const MAX_IDENTITY: usize = 512;

/// What a REGISTER says, as far as the security of the registration goes.
#[derive(Debug, Clone)]
pub struct Register {
    /// Where it came from: of the inner header where there is a tunnel.
    pub ue: SocketAddr,
    /// Our address and port: tells whether it came through an SA, and through which.
    pub local: SocketAddr,
    /// The address of the topmost Via's host, or those of a name (clause 7.1 rule 2).
    pub via: Vec<IpAddr>,
    /// To.
    pub to: NameAddr,
    /// The first Contact.
    pub contact: Option<NameAddr>,
    /// Contact is `*`.
    pub everywhere: bool,
    /// Seconds asked for.
    pub expires: Option<u32>,
    /// Authorization.
    pub credentials: Option<Credentials>,
    /// Security-Client.
    pub client: Option<SecList>,
    /// Security-Verify.
    pub verify: Option<SecList>,
}

impl Register {
    /// Reads a message. `via`: see [`Register::via`].
    ///
    /// # Errors
    /// [`Refusal::Headers`] when To or Authorization can be read in two ways.
    pub fn from_message(
        message: &Message,
        ue: SocketAddr,
        local: SocketAddr,
        via: Vec<IpAddr>,
    ) -> Result<Register, Refusal> {
        let credentials = Credentials::of_one_user(message).map_err(|()| Refusal::Headers)?;
        let to = NameAddr::parse(&message.value("To").ok_or(Refusal::Headers)?);
        let (mut first, mut contact, mut everywhere, mut expires) = (true, None, false, None);
        message.any_element("Contact", |element| {
            let parts = AddrParts::parse(element);
            expires = expires.max(parts.as_ref().and_then(header::expires_of));
            if std::mem::take(&mut first) {
                contact = parts.map(|parts| parts.to_owned());
                everywhere = element == "*";
            }
            false
        });
        Ok(Register {
            ue,
            local,
            via,
            to: to.ok_or(Refusal::Headers)?,
            contact,
            everywhere,
            expires: expires.or_else(|| header::expires_header(message)),
            credentials,
            client: SecList::from_message(message, SECURITY_CLIENT),
            verify: SecList::from_message(message, SECURITY_VERIFY),
        })
    }

    /// The private identity: of the credentials, or made from the public one (TS 23.003 clause 13.3).
    fn impi(&self) -> Arc<str> {
        if let Some(credentials) = self.credentials.as_ref().filter(|c| !c.username.is_empty()) {
            return credentials.username.as_str().into();
        }
        let uri = self.to.parsed_uri();
        let part = |uri: Uri| Some(format!("{}@{}", uri.user?, uri.host?));
        uri.and_then(part)
            .unwrap_or_else(|| self.to.uri.clone())
            .into()
    }

    /// Instance id, reg-id and emergency mark of the Contact.
    fn instance(&self) -> Arc<str> {
        let Some(contact) = &self.contact else {
            return "".into();
        };
        let param = |name| contact.params.find(name).unwrap_or_default();
        // Few have a parameter at all.
        let sos = contact.uri.contains(';')
            && contact
                .parsed_uri()
                .is_some_and(|uri| uri.params.find("sos").is_some());
        let (instance, reg) = (param("+sip.instance"), param("reg-id"));
        if instance.is_empty() && reg.is_empty() && !sos {
            return "".into();
        }
        let sos = if sos { "true" } else { "false" };
        [&*instance, ";", &*reg, ";", sos].concat().into()
    }

    /// The nonce, where it answers a challenge.
    fn answers(&self) -> Option<&str> {
        let credentials = self.credentials.as_ref().filter(|c| c.answers())?;
        Some(&credentials.nonce)
    }

    /// The nonce, where it reports a failure: AUTS, or an empty response to a challenge.
    fn reports(&self) -> Option<&str> {
        let credentials = self.credentials.as_ref().filter(|c| !c.answers())?;
        Some(&*credentials.nonce).filter(|nonce| !nonce.is_empty())
    }
}

impl Agent {
    /// A REGISTER of a UE: SM1 in clear on an unprotected port; else by the SA that
    /// carried it SM7, or SM1, refresh and de-registration of a registered UE. It
    /// goes on to the core with the attempt's integrity mark, and without the
    /// security agreement.
    ///
    /// # Errors
    /// Why it does not go on; [`Refusal::status`] says whether the UE gets an answer.
    /// After [`Refusal::SecurityVerify`] and [`Refusal::SecurityClient`] of an SM7 the
    /// answer travels as SM6 did (clause 7.4.2a): the set is gone.
    pub fn register(&mut self, now: u64, register: &Register) -> Result<AttemptId, Refusal> {
        let done = if self.config.is_protected(register.local.port()) {
            self.register_protected(now, register)
        } else {
            self.register_clear(now, register)
        };
        self.carry_out();
        done
    }

    /// SM1 in clear.
    fn register_clear(&mut self, now: u64, register: &Register) -> Result<AttemptId, Refusal> {
        let ue = register.ue;
        if register.via.is_empty() {
            return Err(Refusal::ViaName);
        }
        let nat = !register.via.contains(&ue.ip());
        let offer = register.client.as_ref().ok_or(Refusal::NoSecurityClient)?;
        let mode = if nat { Mode::UdpEncTun } else { Mode::Trans };
        if nat && !(self.config.nat_traversal && offers(offer, mode)) {
            return Err(Refusal::NatWithoutTunnel);
        }
        let chosen = choose_offer(&self.config.policy, offer, mode).map_err(Refusal::Offer)?;
        let mut attempt = self.attempt_of(now, register)?;
        // A failure report ends the attempt that it reports (7.3.1.2, 7.3.1.3); the nonce proves that it knows it.
        self.end_reported(&attempt.key, register);
        if register
            .answers()
            .is_some_and(|nonce| self.pending_with(&attempt.key, nonce).is_some())
        {
            // SM7 belongs on the new set (clause 7.4.2a).
            return Err(Refusal::WrongSa);
        }
        self.check_room(&attempt.key, ue.ip(), &chosen.ends)?;
        let source = Source::of(ue.ip());
        let limits = &self.config.limits;
        let sets = self.table.len().1 + self.strangers.unchallenged();
        let room = sets < limits.sets_for_strangers
            && self.strangers.has_room(source, limits)
            && self.attempts.has_room(None, limits);
        if !room {
            return Err(Refusal::Overload);
        }
        attempt.offer = Some((offer.clone(), chosen));
        attempt.tunnel = nat;
        attempt.source = Some(source);
        self.strangers.enter(source);
        self.event(FlowEvent::Sm1 {
            impi: attempt.key.impi.clone(),
            ue,
            over: None,
            nat,
        });
        Ok(self.attempts.insert(attempt))
    }

    /// REGISTER through an SA: SM7 over a registration set, else SM1 or a refresh.
    fn register_protected(&mut self, now: u64, register: &Register) -> Result<AttemptId, Refusal> {
        let set = self.table.by_flow(register.ue, register.local);
        let set = set.ok_or(Refusal::NoSa)?;
        let (token, state, id) = (set.token, set.state, set.contact);
        let tunnel = set.params.tunnel.is_some();
        // Rule 2 of clause 7.1.
        if register.via.is_empty() {
            return Err(Refusal::ViaName);
        }
        if !register.via.contains(&register.ue.ip()) {
            return Err(Refusal::ViaMismatch);
        }
        self.check_user(id, register)?;
        let mut attempt = self.attempt_of(now, register)?;
        attempt.over = Some(token);
        attempt.tunnel = tunnel;
        attempt.contact = Some(id);
        if let Some(contact) = self.table.contact(id) {
            attempt.key = contact.key.clone();
            attempt.path = contact.path.clone();
        }
        if !self.attempts.has_room(Some(id), &self.config.limits) {
            return Err(Refusal::Overload);
        }
        match state {
            SetState::Registration => {
                self.check_answer(token, register)?;
                self.table.answered(token);
                attempt.kind = Kind::Answer;
                attempt.integrity = true;
                self.event(FlowEvent::Sm7 {
                    set: token,
                    ue: register.ue,
                });
                self.event(FlowEvent::Sm8 { set: token });
            }
            SetState::Established => {
                attempt.kind = Kind::Again;
                self.check_again(now, token, register, &mut attempt)?;
                self.event(FlowEvent::Sm1 {
                    impi: attempt.key.impi.clone(),
                    ue: register.ue,
                    over: Some(token),
                    nat: tunnel,
                });
            }
            SetState::Replaced | SetState::Lingering => return Err(Refusal::WrongSa),
        }
        Ok(self.attempts.insert(attempt))
    }

    /// SM7 (clause 7.2): it answers this challenge, and both lists are what they were.
    fn check_answer(&mut self, token: SetToken, register: &Register) -> Result<(), Refusal> {
        let set = self.table.set(token).ok_or(Refusal::NoSa)?;
        // A synchronisation failure does not belong on the unconfirmed SA (ARCHITECTURE, reading A-31).
        let credentials = register.credentials.as_ref().ok_or(Refusal::NotAnAnswer)?;
        if credentials.auts.is_some() {
            return Err(Refusal::WrongSa);
        }
        if register.answers() != Some(&*set.nonce) {
            return Err(Refusal::NotAnAnswer);
        }
        let same = |ours: &SecList, theirs: &Option<SecList>| {
            theirs.as_ref().is_some_and(|list| ours.same(list))
        };
        let why = if !same(&set.server_list, &register.verify) {
            Refusal::SecurityVerify
        } else if !same(&set.client_list, &register.client) {
            Refusal::SecurityClient
        } else {
            return Ok(());
        };
        // The procedure is aborted (clause 7.3.2.3).
        self.table.remove_set(token, RemoveReason::Aborted);
        Err(why)
    }

    /// A REGISTER over an established set: clause 6.1.5 for the mark, 7.1 rule 3 for the offer.
    fn check_again(
        &mut self,
        now: u64,
        token: SetToken,
        register: &Register,
        attempt: &mut Attempt,
    ) -> Result<(), Refusal> {
        let set = self.table.set(token).ok_or(Refusal::NoSa)?;
        let mode = set.params.mode();
        let other_answer = register.answers().filter(|nonce| *nonce != set.nonce);
        if other_answer.is_some_and(|nonce| self.pending_with(&attempt.key, nonce).is_some()) {
            // SM7 belongs on the new set.
            return Err(Refusal::WrongSa);
        }
        let verify = register.verify.as_ref();
        if verify.is_some_and(|list| !set.server_list.same(list)) {
            return Err(Refusal::SecurityVerify);
        }
        attempt.integrity = other_answer.is_none() && self.table.latest(set.contact) == Some(token);
        // The offer and the answer of its own SM7 again open no procedure (ARCHITECTURE, reading A-04).
        let offer = register.client.as_ref();
        let old = offer.is_some_and(|offer| set.client_list.same(offer));
        let sm7_again = old && register.answers() == Some(&*set.nonce);
        if let Some(offer) = offer.filter(|_| !old) {
            let chosen = choose_offer(&self.config.policy, offer, mode).map_err(Refusal::Offer)?;
            self.check_room(&attempt.key, register.ue.ip(), &chosen.ends)?;
            attempt.offer = Some((offer.clone(), chosen));
        }
        self.end_reported(&attempt.key, register);
        if !sm7_again {
            self.table.heard(token, now);
        }
        Ok(())
    }

    /// Clause 7.1 rule 3: ports and SPIs are free, and the contact may have one more set.
    fn check_room(&self, key: &ContactKey, ue: IpAddr, ends: &Ends) -> Result<(), Refusal> {
        if self.table.collides(key, ue, ends, self.config.server_port) {
            return Err(Refusal::Collision);
        }
        self.table
            .is_full_for(key)
            .map_or(Ok(()), |error| Err(error.into()))
    }

    /// The user of the SA is the user of the message (clause 7.1 rule 4).
    fn check_user(&self, id: ContactId, register: &Register) -> Result<(), Refusal> {
        let contact = self.table.contact(id).ok_or(Refusal::NoSa)?;
        let own = match &register.credentials {
            Some(credentials) => *credentials.username == *contact.key.impi,
            None => contact.owns(&register.to.uri),
        };
        if own {
            Ok(())
        } else {
            Err(Refusal::ForeignUser)
        }
    }

    /// The unfinished set of a failure that is reported goes.
    fn end_reported(&mut self, key: &ContactKey, register: &Register) {
        let pending = register
            .reports()
            .and_then(|nonce| self.pending_with(key, nonce))
            .map(|set| set.token);
        if let Some(token) = pending {
            self.table.remove_set(token, RemoveReason::Aborted);
        }
    }

    /// The unfinished set of a contact whose challenge has this nonce.
    fn pending_with(&self, key: &ContactKey, nonce: &str) -> Option<&SaSet> {
        let id = self.table.by_key(key)?;
        self.table.pending_of(id).find(|set| set.nonce == nonce)
    }

    /// What every REGISTER leaves behind.
    fn attempt_of(&self, now: u64, register: &Register) -> Result<Attempt, Refusal> {
        if UriParts::parse(&register.to.uri).is_none() {
            return Err(Refusal::Headers);
        }
        let key = ContactKey {
            impi: register.impi(),
            instance: register.instance(),
        };
        let aor: Arc<str> = register.to.uri.as_str().into();
        // They are kept for as long as the stranger may take, and logged.
        if [&key.impi, &key.instance, &aor]
            .iter()
            .any(|s| s.len() > MAX_IDENTITY)
        {
            return Err(Refusal::Headers);
        }
        Ok(Attempt {
            path: self.path(&key),
            key,
            aor,
            kind: Kind::First,
            integrity: false,
            leaves: register.expires == Some(0),
            over: None,
            challenged: None,
            tunnel: false,
            local: register.local,
            ue: register.ue,
            everywhere: register.everywhere,
            offer: None,
            source: None,
            contact: None,
            deadline: now.saturating_add(self.config.timers.transaction),
        })
    }
}

/// Whether an offer has an entry of that mode.
fn offers(offer: &SecList, mode: Mode) -> bool {
    offer
        .proposals()
        .is_ok_and(|all| all.iter().any(|p| p.mode == mode))
}
