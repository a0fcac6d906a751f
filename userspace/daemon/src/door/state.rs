//! What the door knows, and each call on it: gm-sip's agent decides, the data plane
//! carries out, then the answer is made.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gm_api::control::ApiError;
use gm_api::register::{
    EndReply, Flow, FlowRequest, RegisterReply, RegisterRequest, Registration, ResponseReply,
    ResponseRequest, Way,
};
use gm_sip::Message;
use gm_sip::agent::{
    Agent, AttemptId, Command, FlowEvent, Granted, Kind, Refusal, Register, offered,
};
use gm_sip::aka;
use gm_sip::header::{self, NameAddr, Uri, Via};
use gm_sip::lifecycle::SetState;
use gm_sip::sa_set::SetToken;
use gm_sip::sec_agree::{SECURITY_CLIENT, SecList};

use super::{message, replies};
use crate::control::App;
use crate::hands::Hands;

/// Most addresses of a name in Via.
const MAX_VIA_ADDRESSES: usize = 16;

/// The engine, and what the answers need besides.
pub(super) struct State {
    agent: Agent,
    hands: Hands,
    /// Contact of the REGISTERs that are on their way.
    contacts: HashMap<AttemptId, String>,
    /// Of sets whose registration is not finished: from where to where SM6 went.
    asked: HashMap<SetToken, (SocketAddr, SocketAddr)>,
}

impl State {
    /// Nobody is registered.
    pub(super) fn new(app: Arc<App>, agent: Agent) -> State {
        State {
            agent,
            hands: Hands::new(app),
            contacts: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    /// When [`State::keep_time`] is due.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        self.agent.next_timeout()
    }

    /// Does what is due, and keeps SPIs at hand.
    pub(super) fn keep_time(&mut self, now: u64) {
        if self.agent.next_timeout().is_some_and(|due| due <= now) {
            self.agent.handle_timeout(now);
            self.carry_out(now);
            self.forget();
        }
        self.refill();
    }

    pub(super) fn abort(&mut self, now: u64, id: AttemptId) -> EndReply {
        let ended = usize::from(self.agent.attempt(id).is_some());
        self.agent.abort(id);
        self.carry_out(now);
        EndReply { ended }
    }

    pub(super) fn deregister(&mut self, now: u64, impi: &str) -> EndReply {
        let ended = self.agent.deregister(impi, now);
        self.carry_out(now);
        EndReply { ended }
    }

    /// The way of requests to a contact.
    pub(super) fn way_of(
        &self,
        to: Option<SocketAddr>,
        impi: Option<&str>,
    ) -> Result<Way, ApiError> {
        let table = self.agent.table();
        let all = match (to, impi) {
            (Some(to), None) => table.by_server_port(to).into_iter().collect(),
            // One that somebody in clear has only begun has no way.
            (None, Some(impi)) => table.contacts_of(impi),
            _ => {
                let message = "either to or impi";
                return Err(ApiError::new("bad-request", message)
                    .hint("/v1/way?to=ADDRESS:PORT of the phone's Contact"));
            }
        };
        let way = all.into_iter().find_map(|id| self.agent.way_to(id));
        way.map(|way| self.way(way.set, way.local, way.remote))
            .ok_or_else(|| {
                ApiError::new("not-found", "no such contact is registered")
                    .hint("GET /v1/registrations lists them")
            })
    }

    pub(super) fn register(
        &mut self,
        now: u64,
        request: &RegisterRequest,
    ) -> Result<RegisterReply, ApiError> {
        let bad = |what: String| ApiError::new("bad-request", what);
        let source = request
            .source
            .ok_or_else(|| bad("source is missing".into()))?;
        let local = request
            .destination
            .ok_or_else(|| bad("destination is missing".into()))?;
        let local = self.own(local);
        if !self.hands.app().config.is_local(local.ip()) {
            let what = format!("destination {} is none of [gm] addresses", local.ip());
            return Err(bad(what).hint("tell the address that the REGISTER came to"));
        }
        let message = message::register(request)?;
        let over = self.agent.owner(source, local).map(|owner| owner.set);
        let done = self.try_register(now, request, &message, source, local);
        self.carry_out(now);
        Ok(match done {
            Ok(id) => self.forwarded(id),
            Err(why) => self.refused(now, &message, source, over, why),
        })
    }

    /// A proxy behind a static NAT may call itself what its phones call it.
    fn own(&self, destination: SocketAddr) -> SocketAddr {
        let own = self.hands.app().config.own(destination.ip());
        SocketAddr::new(own, destination.port())
    }

    fn try_register(
        &mut self,
        now: u64,
        request: &RegisterRequest,
        message: &Message,
        source: SocketAddr,
        local: SocketAddr,
    ) -> Result<AttemptId, Refusal> {
        let via = message.first_element("Via").ok_or(Refusal::Headers)?;
        let via = Via::parse(&via).ok_or(Refusal::Headers)?;
        let via: Vec<IpAddr> = match via.host.ip() {
            Some(ip) => vec![ip],
            None => {
                let all = request.via_addresses.iter().copied();
                all.take(MAX_VIA_ADDRESSES).collect()
            }
        };
        let register = Register::from_message(message, source, local, via)?;
        let id = self.agent.register(now, &register)?;
        let contact = register.contact.map(|c| c.uri).unwrap_or_default();
        self.contacts.insert(id, contact);
        Ok(id)
    }

    fn forwarded(&self, id: AttemptId) -> RegisterReply {
        let attempt = self.agent.attempt(id);
        let over = attempt.and_then(|a| self.agent.set(a.over?));
        replies::forward(
            id,
            attempt,
            over.map(|set| self.way(set.token, set.local(), set.remote())),
        )
    }

    /// The refusal, told and logged. It leaves through the SA that the REGISTER came
    /// through; an SM7 that has ended its procedure is answered as SM6 was (clause 7.4.2a).
    fn refused(
        &mut self,
        now: u64,
        message: &Message,
        source: SocketAddr,
        over: Option<SetToken>,
        why: Refusal,
    ) -> RegisterReply {
        let offer = SecList::from_message(message, SECURITY_CLIENT);
        let offered = match why {
            Refusal::Offer(_) | Refusal::NatWithoutTunnel => offer.as_ref().map(offered),
            _ => None,
        };
        let step = FlowEvent::Refused {
            from: source,
            why,
            offered,
        };
        self.hands.tell(&step, now);
        let way = over.and_then(|set| match self.agent.set(set) {
            Some(own) => Some(self.way(set, own.local(), own.remote())),
            None => self.asked.remove(&set).map(|(local, remote)| Way {
                set: None,
                local,
                remote,
            }),
        });
        replies::refuse(&why, &self.agent.config().policy, way)
    }

    pub(super) fn response(
        &mut self,
        now: u64,
        id: AttemptId,
        request: &ResponseRequest,
    ) -> Result<ResponseReply, ApiError> {
        let mut message = message::response(request)?;
        let Some(kind) = self.agent.attempt(id).map(|attempt| attempt.kind) else {
            let what = format!("there is no REGISTER {} under way", id.0);
            return Err(ApiError::new("not-found", what)
                .hint("its answer has been, or edge.timers have ended it"));
        };
        let done = match request.status {
            ..200 => Ok(replies::unchanged()),
            401 if kind != Kind::Answer => self.challenge(now, id, &mut message),
            status => self.answered(now, id, status, request, &message)?,
        };
        self.carry_out(now);
        Ok(done.unwrap_or_else(|why| replies::in_place(&why, &self.agent.config().policy)))
    }

    /// SM4. When this returns the SAs are installed.
    fn challenge(
        &mut self,
        now: u64,
        id: AttemptId,
        message: &mut Message,
    ) -> Result<ResponseReply, Refusal> {
        let nonce = aka::Challenge::from_message(message).map(|c| c.nonce);
        let keys = aka::take_keys(message);
        let nonce = nonce.map_err(Refusal::Challenge)?;
        let (ik, ck) = keys.map_err(Refusal::Challenge)?;
        let challenged = self.agent.challenge(now, id, &nonce, ik, ck);
        self.carry_out(now);
        let challenged = challenged?;
        let set = challenged.set;
        if !self.agent.is_installed(set) {
            return Err(Refusal::NotInstalled);
        }
        if let Some(attempt) = self.agent.attempt(id) {
            let step = FlowEvent::Sm6 {
                set,
                ue: attempt.ue,
            };
            let old = attempt.over.and_then(|old| self.agent.set(old));
            let went = old.map_or((attempt.local, attempt.ue), |o| (o.local(), o.remote()));
            self.asked.insert(set, went);
            self.hands.tell(&step, now);
        }
        let params = self.agent.set(set).ok_or(Refusal::NotInstalled)?.params;
        let over = self.agent.attempt(id).and_then(|a| self.agent.set(a.over?));
        let way = over.map(|set| self.way(set.token, set.local(), set.remote()));
        let number = self.hands.number(set);
        let mut reply = replies::challenge(challenged.security_server, number, &params);
        reply.www_authenticate = replies::without_keys(message.clone());
        reply.way = way;
        Ok(reply)
    }

    /// SM12, a refresh, a de-registration, or a failure.
    fn answered(
        &mut self,
        now: u64,
        id: AttemptId,
        status: u16,
        request: &ResponseRequest,
        message: &Message,
    ) -> Result<Result<ResponseReply, Refusal>, ApiError> {
        let good = (200..300).contains(&status);
        let leaves = self.agent.attempt(id).is_some_and(|a| a.leaves);
        let expires = match request.expires {
            Some(expires) => expires,
            None if !good || leaves => 0,
            None if request.sip.is_some() => {
                let own = self.contacts.get(&id).and_then(|uri| Uri::parse(uri));
                header::granted(message, |uri| {
                    own.as_ref().is_some_and(|own| own.same_identity(uri))
                })
            }
            None => {
                return Err(ApiError::new("bad-request", "expires is missing")
                    .hint("tell the seconds that the 200 grants to the phone's Contact"));
            }
        };
        let identities = message.elements("P-Associated-URI");
        let identities = identities.iter().filter_map(|a| NameAddr::parse(a));
        let granted = Granted {
            expires,
            identities: identities.map(|a| a.uri.into()).collect(),
        };
        let attempt = self.agent.attempt(id).cloned();
        let answered = match self.agent.answered(now, id, status, granted) {
            Ok(answered) => answered,
            Err(why) => return Ok(Err(why)),
        };
        let over = answered.over.and_then(|set| self.agent.set(set));
        let way = over.map(|set| self.way(set.token, set.local(), set.remote()));
        self.contacts.remove(&id);
        if let (Some(set), Some(attempt)) = (answered.confirmed, attempt) {
            self.asked.remove(&set);
            self.carry_out(now);
            let step = FlowEvent::Sm12 {
                set,
                ue: attempt.ue,
                expires,
            };
            self.hands.tell(&step, now);
        }
        let mut reply = replies::unchanged();
        reply.way = way;
        // The answer to SM7 may be a challenge again, with keys in it.
        reply.www_authenticate = replies::without_keys(message.clone());
        Ok(Ok(reply))
    }

    pub(super) fn flow(&mut self, now: u64, request: &FlowRequest) -> Result<Flow, ApiError> {
        let destination = self.own(request.destination);
        let owner = self.agent.owner(request.source, destination);
        let Some(owner) = owner else {
            let what = format!(
                "there is no SA from {} to {}",
                request.source, request.destination
            );
            return Err(ApiError::new("not-found", what)
                .hint("drop the message; the phone registers again when nobody answers"));
        };
        let (token, id, state) = (owner.set, owner.id, owner.state);
        let established = matches!(state, SetState::Established | SetState::Replaced);
        let impi = owner.contact.key.impi.to_string();
        let identities = owner.contact.impus.iter().map(|i| i.to_string()).collect();
        if established {
            self.agent.heard(token, now);
            self.carry_out(now);
        }
        let way = self.agent.way_to(id);
        let way = way.map(|way| self.way(way.set, way.local, way.remote));
        let own = self.agent.set(token);
        let way = way.or_else(|| own.map(|set| self.way(token, set.local(), set.remote())));
        Ok(Flow {
            set: self.hands.number(token).unwrap_or_default(),
            state: replies::state(state).into(),
            established,
            impi,
            identities,
            way: way.ok_or_else(|| ApiError::new("not-found", "the set is gone"))?,
        })
    }

    pub(super) fn registrations(&self, now: u64) -> Vec<Registration> {
        let agent = &self.agent;
        let number = |set| self.hands.number(set);
        let all = agent.table().contacts();
        let mut all: Vec<Registration> = all
            .map(|(_, contact)| replies::registration(agent, contact, now, number))
            .collect();
        all.sort_by(|a, b| (&a.impi, &a.instance).cmp(&(&b.impi, &b.instance)));
        all
    }

    fn way(&self, set: SetToken, local: SocketAddr, remote: SocketAddr) -> Way {
        Way {
            set: self.hands.number(set),
            local,
            remote,
        }
    }

    /// Everything that the agent wants, in order.
    fn carry_out(&mut self, now: u64) {
        while let Some(command) = self.agent.poll() {
            match command {
                Command::Install(request) => {
                    let ok = self.hands.install(&request);
                    let set = request.token;
                    // Wiped before anything else happens.
                    drop(request);
                    self.agent.installed(set, ok);
                }
                Command::Activate(set) => self.hands.activate(set),
                Command::Retire(set) => self.hands.retire(set),
                Command::Remove(set) => {
                    self.hands.remove(set);
                    self.hands.count();
                }
                Command::Event(step) => self.hands.tell(&step, now),
            }
        }
    }

    /// What belongs to attempts and sets that are over.
    fn forget(&mut self) {
        let agent = &self.agent;
        self.contacts.retain(|id, _| agent.attempt(*id).is_some());
        self.asked.retain(|set, _| agent.set(*set).is_some());
    }

    pub(super) fn refill(&mut self) {
        while self.agent.wants_spis() {
            let Some(pair) = self.hands.reserve_pair() else {
                return;
            };
            self.agent.add_spis(pair);
        }
    }
}
