//! REGISTER of UEs: SM1 in clear, SM1 and SM7 through an SA (TS 33.203 clauses 7.1, 7.2, 7.4.2a, M.7.2).

use std::net::SocketAddr;

use gm_esp::Mode;

use super::tx::{RegisterTx, Reply, Source, Tx};
use super::{Edge, FlowEvent, Refusal, RemoveReason, top_via};
use crate::Packet;
use crate::aka::{self, Credentials};
use crate::header::{self, NameAddr, Uri};
use crate::lifecycle::{ContactKey, SetState};
use crate::message::Message;
use crate::sa_set::SetToken;
use crate::sec_agree::{SECURITY_CLIENT, SECURITY_VERIFY, SecList, choose_offer};

/// The longest private or public identity or instance, in bytes (a NAI has 253,
/// RFC 7542 clause 2.3).
const MAX_IDENTITY: usize = 512;

impl Edge {
    /// SM1 in clear.
    pub(super) fn register_clear(
        &mut self,
        now: u64,
        at: &Packet,
        reply: Reply,
        message: &Message,
    ) -> Result<(), Refusal> {
        let branch = self.branch(message, at.remote)?;
        if !aka::names_one_user(message) {
            return Err(Refusal::Headers);
        }
        if self.repeated(&branch, message, None)? {
            return Ok(());
        }
        let via = top_via(message).ok_or(Refusal::Headers)?;
        let nat = via.host.ip().ok_or(Refusal::ViaName)? != at.remote.ip();
        let offer =
            SecList::from_message(message, SECURITY_CLIENT).ok_or(Refusal::NoSecurityClient)?;
        let mode = if nat { Mode::UdpEncTun } else { Mode::Trans };
        let can = |mode| {
            offer
                .proposals()
                .is_ok_and(|all| all.iter().any(|p| p.mode == mode))
        };
        if nat && !(self.config.nat_traversal && can(Mode::UdpEncTun)) {
            return Err(Refusal::NatWithoutTunnel);
        }
        let chosen = choose_offer(&self.config.policy, &offer, mode).map_err(Refusal::Offer)?;
        let credentials = Credentials::from_message(message);
        let mut tx = self.register_tx(at, message, credentials.as_ref())?;
        // A failure report ends the attempt that it reports (7.3.1.2, 7.3.1.3); the nonce proves that it knows it.
        self.end_reported(&tx.key, credentials.as_ref());
        if self.table.collides(
            &tx.key,
            at.remote.ip(),
            &chosen.ends,
            self.config.server_port,
        ) {
            return Err(Refusal::Collision);
        }
        let source = Source::of(at.remote.ip());
        let sets = self.table.len().1 + self.pending.unchallenged();
        let room = sets < self.config.limits.sets_for_strangers
            && self.pending.has_room(source, &self.config.limits)
            && self.txs.has_room(None, &self.config.limits);
        if !room {
            return Err(Refusal::Overload);
        }
        tx.offer = Some(offer);
        tx.tunnel = nat;
        let forwarded = self.register_up(message, at.remote, &branch, &tx)?;
        self.event(FlowEvent::Sm1 {
            impi: tx.key.impi.clone(),
            ue: at.remote,
            over: None,
            nat,
        });
        self.pending.enter(source);
        let mut entry = Tx::new(reply);
        entry.register = Some(Box::new(tx));
        entry.source = Some(source);
        self.remember(now, &branch, entry);
        self.send(Reply::Up, forwarded);
        Ok(())
    }

    /// REGISTER through an SA: SM7 over a registration set, else SM1 or a refresh.
    pub(super) fn register_protected(
        &mut self,
        now: u64,
        at: &Packet,
        token: SetToken,
        reply: Reply,
        message: &Message,
    ) -> Result<(), Refusal> {
        let branch = self.branch(message, at.remote)?;
        if !aka::names_one_user(message) {
            return Err(Refusal::Headers);
        }
        if self.repeated(&branch, message, Some(token))? {
            return Ok(());
        }
        // Rule 2 of clause 7.1.
        let via = top_via(message).ok_or(Refusal::Headers)?;
        if via.host.ip().ok_or(Refusal::ViaName)? != at.remote.ip() {
            return Err(Refusal::ViaMismatch);
        }
        let set = self.table.set(token).ok_or(Refusal::NoSa)?;
        let (state, id, tunnel) = (set.state, set.contact, set.params.tunnel.is_some());
        let credentials = Credentials::from_message(message);
        self.check_user(id, message, credentials.as_ref())?;
        let mut tx = self.register_tx(at, message, credentials.as_ref())?;
        tx.over = Some(token);
        tx.print = self.print(message, tx.over);
        tx.tunnel = tunnel;
        if let Some(contact) = self.table.contact(id) {
            tx.key = contact.key.clone();
            tx.path = contact.path.clone();
        }
        if !self.txs.has_room(Some(id), &self.config.limits) {
            return Err(Refusal::Overload);
        }
        match state {
            SetState::Registration => self.check_answer(token, message, credentials.as_ref())?,
            SetState::Established => {
                self.check_again(now, token, message, credentials.as_ref(), &mut tx)?
            }
            SetState::Replaced | SetState::Lingering => return Err(Refusal::WrongSa),
        }
        let answer = state == SetState::Registration;
        if answer {
            tx.answer = true;
            tx.integrity = true;
            if let Some(held) = self.held.get_mut(&token) {
                held.sm6 = None;
            }
        }
        let forwarded = self.register_up(message, at.remote, &branch, &tx)?;
        if answer {
            self.event(FlowEvent::Sm7 {
                set: token,
                ue: at.remote,
            });
            self.event(FlowEvent::Sm8 { set: token });
        } else {
            self.event(FlowEvent::Sm1 {
                impi: tx.key.impi.clone(),
                ue: at.remote,
                over: Some(token),
                nat: tunnel,
            });
        }
        let mut entry = Tx::of(reply, id);
        entry.register = Some(Box::new(tx));
        self.remember(now, &branch, entry);
        self.send(Reply::Up, forwarded);
        Ok(())
    }

    /// SM7 (clause 7.2): it answers this challenge, and both lists are what they were.
    fn check_answer(
        &mut self,
        token: SetToken,
        message: &Message,
        credentials: Option<&Credentials>,
    ) -> Result<(), Refusal> {
        let set = self.table.set(token).ok_or(Refusal::NoSa)?;
        let ue = set.remote();
        // A synchronisation failure does not belong on the unconfirmed SA (ARCHITECTURE, reading A-31).
        let credentials = credentials.ok_or(Refusal::NotAnAnswer)?;
        if credentials.auts.is_some() {
            return Err(Refusal::WrongSa);
        }
        if !credentials.answers() || credentials.nonce != set.nonce {
            return Err(Refusal::NotAnAnswer);
        }
        let verify = SecList::from_message(message, SECURITY_VERIFY);
        let client = SecList::from_message(message, SECURITY_CLIENT);
        let why = if !verify.is_some_and(|list| set.server_list.same(&list)) {
            Refusal::SecurityVerify
        } else if !client.is_some_and(|list| set.client_list.same(&list)) {
            Refusal::SecurityClient
        } else {
            return Ok(());
        };
        // The procedure is aborted; the failure travels as SM6 did (clause 7.4.2a).
        // The answer through the set itself comes to nothing, because the set is gone.
        let way = self.held.get(&token).map(|h| h.reply);
        let answer = self.refusal(message, ue, why);
        self.table.remove_set(token, RemoveReason::Aborted);
        self.carry_out();
        if let (Some(way), Some(bytes)) = (way, answer) {
            self.send(way, bytes);
        }
        Err(why)
    }

    /// A REGISTER over an established set: clause 6.1.5 for the mark, 7.1 rule 3 for the offer.
    fn check_again(
        &mut self,
        now: u64,
        token: SetToken,
        message: &Message,
        credentials: Option<&Credentials>,
        tx: &mut RegisterTx,
    ) -> Result<(), Refusal> {
        let set = self.table.set(token).ok_or(Refusal::NoSa)?;
        let mode = set.params.mode();
        let ue = set.params.ue;
        let verify = SecList::from_message(message, SECURITY_VERIFY);
        if verify.is_some_and(|list| !set.server_list.same(&list)) {
            return Err(Refusal::SecurityVerify);
        }
        let other_answer = credentials.is_some_and(|c| c.answers() && c.nonce != set.nonce);
        let pending = self.table.pending_of(set.contact);
        if other_answer && pending.is_some_and(|p| credentials.is_some_and(|c| c.nonce == p.nonce))
        {
            // SM7 belongs on the new set.
            return Err(Refusal::WrongSa);
        }
        tx.integrity = !other_answer && self.table.latest(set.contact) == Some(token);
        tx.offer = SecList::from_message(message, SECURITY_CLIENT);
        if let Some(offer) = &tx.offer {
            let chosen = choose_offer(&self.config.policy, offer, mode).map_err(Refusal::Offer)?;
            if self
                .table
                .collides(&tx.key, ue, &chosen.ends, self.config.server_port)
            {
                return Err(Refusal::Collision);
            }
        }
        self.end_reported(&tx.key, credentials);
        self.table.heard(token, now);
        self.carry_out();
        Ok(())
    }

    /// The user of the SA is the user of the message (clause 7.1 rule 4).
    fn check_user(
        &self,
        id: u64,
        message: &Message,
        credentials: Option<&Credentials>,
    ) -> Result<(), Refusal> {
        let contact = self.table.contact(id).ok_or(Refusal::NoSa)?;
        let own = match credentials {
            Some(credentials) => credentials.username == contact.key.impi,
            None => {
                let to = NameAddr::parse(&message.value("To").ok_or(Refusal::Headers)?);
                to.is_some_and(|to| contact.owns(&to.uri))
            }
        };
        if own {
            Ok(())
        } else {
            Err(Refusal::ForeignUser)
        }
    }

    /// AUTS, or an empty response to a challenge: the unfinished set of that challenge goes.
    fn end_reported(&mut self, key: &ContactKey, credentials: Option<&Credentials>) {
        let Some(credentials) = credentials.filter(|c| !c.nonce.is_empty() && !c.answers()) else {
            return;
        };
        let pending = self
            .table
            .by_key(key)
            .and_then(|id| self.table.pending_of(id));
        if let Some(token) = pending
            .filter(|p| p.nonce == credentials.nonce)
            .map(|p| p.token)
        {
            self.table.remove_set(token, RemoveReason::Aborted);
            self.carry_out();
        }
    }

    /// What every REGISTER leaves behind.
    fn register_tx(
        &self,
        at: &Packet,
        message: &Message,
        credentials: Option<&Credentials>,
    ) -> Result<RegisterTx, Refusal> {
        let to = NameAddr::parse(&message.value("To").ok_or(Refusal::Headers)?)
            .filter(|to| to.parsed_uri().is_some())
            .ok_or(Refusal::Headers)?;
        let contacts = message.elements("Contact");
        let contact = contacts.first().and_then(|c| NameAddr::parse(c));
        let key = ContactKey {
            impi: private_identity(&to, credentials),
            instance: instance(contact.as_ref()),
        };
        // They are kept for as long as the stranger may take, and logged.
        if [&key.impi, &key.instance, &to.uri]
            .iter()
            .any(|s| s.len() > MAX_IDENTITY)
        {
            return Err(Refusal::Headers);
        }
        let path = self.token(&["path", &key.impi, &key.instance]);
        Ok(RegisterTx {
            path: path[..24].to_owned(),
            key,
            aor: to.uri,
            contact_uri: contact.map(|c| c.uri).unwrap_or_default(),
            offer: None,
            tunnel: false,
            local: at.local,
            ue: at.remote,
            over: None,
            answer: false,
            integrity: false,
            leaves: header::expires(message) == Some(0),
            challenged: None,
            print: self.print(message, None),
        })
    }

    /// SM2 or SM8: what goes to the core. Without the security agreement, which ends
    /// here; with Path, so that requests come back through us.
    pub(super) fn register_up(
        &self,
        message: &Message,
        ue: SocketAddr,
        branch: &str,
        tx: &RegisterTx,
    ) -> Result<Vec<u8>, Refusal> {
        let mut up = message.clone();
        self.prepare_up(&mut up, ue)?;
        aka::set_integrity_protected(&mut up, tx.integrity);
        up.insert_top("Path", &self.route_at_core(&tx.path));
        if !up
            .elements("Require")
            .iter()
            .any(|e| e.eq_ignore_ascii_case("path"))
        {
            up.push("Require", "path");
        }
        self.push_via_up(&mut up, branch);
        Ok(up.to_bytes())
    }
}

/// The private identity: of the credentials, or made from the public one (TS 23.003 clause 13.3).
fn private_identity(to: &NameAddr, credentials: Option<&Credentials>) -> String {
    if let Some(credentials) = credentials.filter(|c| !c.username.is_empty()) {
        return credentials.username.clone();
    }
    let uri = to.parsed_uri();
    let part = |uri: Uri| Some(format!("{}@{}", uri.user?, uri.host?));
    uri.and_then(part).unwrap_or_else(|| to.uri.clone())
}

/// Instance id, reg-id and emergency mark of a Contact.
fn instance(contact: Option<&NameAddr>) -> String {
    let Some(contact) = contact else {
        return String::new();
    };
    let param = |name| contact.param(name).unwrap_or_default();
    let sos = contact
        .parsed_uri()
        .is_some_and(|uri| uri.params.get("sos").is_some());
    let (instance, reg) = (param("+sip.instance"), param("reg-id"));
    if instance.is_empty() && reg.is_empty() && !sos {
        return String::new();
    }
    format!("{instance};{reg};{sos}")
}
