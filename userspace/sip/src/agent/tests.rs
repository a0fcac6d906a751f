//! The engine without SIP: a rig that plays phones and the core, and the rules of
//! TS 33.203 clauses 6.1, 7 and M.7 for the P-CSCF, one test each.

use super::*;
use crate::aka::Credentials;
use crate::header::NameAddr;
use crate::lifecycle::SetState;
use crate::message::Message;
use crate::rand::testing::Steps;
use crate::sa_set::SaSetRequest;
use crate::sec_agree::{Ends, SecList};
use gm_esp::{Ck, Ik};
use std::collections::BTreeMap;
use std::net::IpAddr;

#[path = "tests/again.rs"]
mod again;
#[path = "tests/contacts.rs"]
mod contacts;
#[path = "tests/failures.rs"]
mod failures;
#[path = "tests/first.rs"]
mod first;
#[path = "tests/nat.rs"]
mod nat;
#[path = "tests/random.rs"]
mod random;
#[path = "tests/words.rs"]
mod words;

const HOUR: u32 = 3600;

/// One phone: who and where it is, and what it offers next.
#[derive(Clone)]
struct Phone {
    user: &'static str,
    contact: String,
    ip: IpAddr,
    ends: Ends,
    /// Other entries or modes than transport.
    offer: Option<String>,
}

fn phone(user: &'static str) -> Phone {
    let ends = Ends {
        spi_c: 4000,
        spi_s: 4001,
        port_c: 31000,
        port_s: 32000,
    };
    Phone {
        user,
        contact: String::new(),
        ip: [192, 0, 2, 1].into(),
        ends,
        offer: None,
    }
}

impl Phone {
    /// Another one at another address.
    fn at(mut self, last: u8) -> Phone {
        self.ip = [192, 0, 2, last].into();
        self
    }

    /// Parameters of its Contact: instance, reg-id.
    fn contact(mut self, params: &str) -> Phone {
        self.contact = params.to_owned();
        self
    }

    /// New SPIs and a new client port, as for each registration; port-s stays.
    fn anew(&self, n: u16) -> Phone {
        let spi = 4000 + 2 * u32::from(n);
        let ends = Ends {
            spi_c: spi,
            spi_s: spi + 1,
            port_c: 31000 + n,
            ..self.ends
        };
        Phone {
            ends,
            ..self.clone()
        }
    }

    fn offer(&self) -> String {
        let e = &self.ends;
        let ends = format!(
            "spi-c={};spi-s={};port-c={};port-s={}",
            e.spi_c, e.spi_s, e.port_c, e.port_s
        );
        match &self.offer {
            Some(offer) => offer.replace("ENDS", &ends),
            None => format!("ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;{ends}"),
        }
    }

    fn register(&self, answer: &str) -> Register {
        let user = self.user;
        let text = format!("Digest username=\"{user}@h\",realm=\"h\",uri=\"sip:h\",{answer}");
        let message = Message::request("REGISTER", "sip:h").with("Authorization", &text);
        let contact = format!(
            "<sip:{user}@{}:{}>{}",
            self.ip, self.ends.port_s, self.contact
        );
        Register {
            ue: SocketAddr::new(self.ip, 5060),
            local: clear(),
            via: vec![self.ip],
            to: NameAddr::parse(&format!("<sip:{user}@h>")).expect("an address"),
            contact: NameAddr::parse(&contact),
            everywhere: false,
            expires: Some(HOUR),
            credentials: Credentials::from_message(&message),
            client: Some(SecList::parse(&self.offer())),
            verify: None,
        }
    }

    /// SM1 in clear.
    fn sm1(&self) -> Register {
        self.register("nonce=\"\",response=\"\"")
    }
}

fn clear() -> SocketAddr {
    "203.0.113.1:5060".parse().expect("an address")
}

fn server() -> SocketAddr {
    "203.0.113.1:5063".parse().expect("an address")
}

/// An agent with its clock, and the data plane as its commands make it.
struct Rig {
    agent: Agent,
    now: u64,
    nonces: u8,
    /// Installed sets, and whether outbound is live.
    sets: BTreeMap<SetToken, bool>,
    requests: BTreeMap<SetToken, SaSetRequest>,
    events: Vec<FlowEvent>,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(AgentConfig::default())
    }

    fn with(config: AgentConfig) -> Rig {
        let mut agent = Agent::new(config, &mut Steps(1)).expect("a configuration");
        (0..40).for_each(|n| agent.add_spis([1_000_000_000 + 2 * n, 1_000_000_001 + 2 * n]));
        Rig {
            agent,
            now: 1_000,
            nonces: 0,
            sets: BTreeMap::new(),
            requests: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Carries commands out; gives the events.
    fn drain(&mut self) -> Vec<FlowEvent> {
        let mut events = Vec::new();
        while let Some(command) = self.agent.poll() {
            match command {
                Command::Install(request) => {
                    let set = request.token;
                    assert!(self.sets.insert(set, false).is_none(), "installed twice");
                    self.requests.insert(set, *request);
                }
                Command::Activate(set) => {
                    let live = self.sets.get_mut(&set).expect("activated, not installed");
                    assert!(!std::mem::replace(live, true), "activated twice");
                }
                Command::Retire(set) => {
                    let live = self.sets.get_mut(&set).expect("retired, not installed");
                    assert!(std::mem::replace(live, false), "retired, not active");
                }
                Command::Remove(set) => {
                    assert!(self.sets.remove(&set).is_some(), "removed, not installed");
                }
                Command::Event(event) => events.push(event),
            }
        }
        self.events.extend(events.iter().cloned());
        events
    }

    fn send(&mut self, register: &Register) -> Result<AttemptId, Refusal> {
        let done = self.agent.register(self.now, register);
        self.drain();
        done
    }

    /// A REGISTER that is let through, and how.
    fn attempt(&mut self, register: &Register) -> (AttemptId, Attempt) {
        let id = self.send(register).expect("let through");
        (id, self.agent.attempt(id).expect("remembered").clone())
    }

    fn try_challenge(&mut self, id: AttemptId) -> Result<(SetToken, String, String), Refusal> {
        self.nonces += 1;
        let nonce = crate::aka::nonce(&[self.nonces; 16], &[2; 16]);
        let keys = (Ik::from_bytes([1; 16]), Ck::from_bytes([2; 16]));
        let done = self.agent.challenge(self.now, id, &nonce, keys.0, keys.1);
        self.drain();
        let challenged = done?;
        assert!(self.agent.installed(challenged.set, true));
        self.drain();
        Ok((challenged.set, nonce, challenged.security_server))
    }

    fn challenge(&mut self, id: AttemptId) -> (SetToken, String, String) {
        self.try_challenge(id).expect("challenged")
    }

    /// SM7 of a phone whose SM1 was challenged so.
    fn sm7(&self, phone: &Phone, (_, nonce, verify): &(SetToken, String, String)) -> Register {
        let mut register = phone.register(&format!("nonce=\"{nonce}\",response=\"01\""));
        register.verify = Some(SecList::parse(verify));
        self.over(phone, register)
    }

    /// The same message through the phone's SA from port_uc to port_ps.
    fn over(&self, phone: &Phone, mut register: Register) -> Register {
        register.ue = SocketAddr::new(phone.ip, phone.ends.port_c);
        register.local = server();
        register
    }

    fn answered(&mut self, id: AttemptId, status: u16, expires: u32) -> Answered {
        let granted = Granted {
            expires,
            identities: Vec::new(),
        };
        let answered = self.agent.answered(self.now, id, status, granted);
        self.drain();
        answered.expect("on its way")
    }

    /// SM7 to SM12 after a challenge.
    fn finish(&mut self, phone: &Phone, challenged: &(SetToken, String, String)) -> SetToken {
        let (id, attempt) = self.attempt(&self.sm7(phone, challenged));
        assert!(attempt.integrity && attempt.kind == Kind::Answer);
        let answered = self.answered(id, 200, HOUR);
        assert_eq!(answered.over, Some(challenged.0));
        assert_eq!(answered.confirmed, Some(challenged.0));
        challenged.0
    }

    /// A whole registration in clear.
    fn establish(&mut self, phone: &Phone) -> SetToken {
        let (id, _) = self.attempt(&phone.sm1());
        let challenged = self.challenge(id);
        self.finish(phone, &challenged)
    }

    /// SM1 over the set of `old` with the offer of `new`, challenged.
    fn again(&mut self, old: &Phone, new: &Phone) -> (SetToken, String, String) {
        let (id, attempt) = self.attempt(&self.over(old, new.sm1()));
        assert!(attempt.kind == Kind::Again && attempt.over.is_some());
        self.challenge(id)
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(due) = self.agent.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.agent.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn state(&self, set: SetToken) -> Option<SetState> {
        self.agent.set(set).map(|s| s.state)
    }

    /// The set for requests to the phone of this set.
    fn current(&self, set: SetToken) -> Option<SetToken> {
        let id = self.agent.set(set)?.contact;
        self.agent.way_to(id).map(|way| way.set)
    }

    /// The data plane has the sets of the table and no other.
    fn agrees(&self) {
        let table = self.agent.table();
        let all = table.contacts().flat_map(|(_, c)| c.sets.clone());
        let mut all: Vec<_> = all.collect();
        all.sort();
        assert_eq!(all, self.sets.keys().copied().collect::<Vec<_>>());
    }
}
