//! The one registration procedure that runs: SM1, and its end.

use std::net::{IpAddr, SocketAddr};

use super::client::Purpose;
use super::{Carrier, Fault, Ue, UeEvent, UeFailure, UeSet};
use crate::aka::{Challenge, Res, nonce};
use crate::header::Uri;
use crate::message::Message;
use crate::sa_set::SetToken;
use crate::sec_agree::{self, Ends, SECURITY_CLIENT, SECURITY_VERIFY};

/// From the challenge to SM12 (await timer, 4 min).
pub(super) const AWAIT: u64 = 240_000;

/// The one that runs (clause 7.4.1a: one at a time).
pub(super) struct Procedure {
    pub(super) ends: Ends,
    pub(super) client_text: String,
    pub(super) expires: u32,
    /// The set that protects SM1, 401s and failures.
    pub(super) over: Option<SetToken>,
    /// The new set.
    pub(super) set: Option<UeSet>,
    pub(super) answer: Option<Answer>,
    pub(super) challenges: u8,
    pub(super) deadline: u64,
}

/// What answers the challenge once the set is installed.
pub(super) struct Answer {
    pub(super) challenge: Challenge,
    pub(super) res: Res,
}

impl Procedure {
    pub(super) fn deadline(&self) -> u64 {
        self.deadline
    }
}

impl Ue {
    /// SM1, through the current set when there is one and it is wanted.
    pub(super) fn start(&mut self, now: u64, expires: u32, protect: bool) -> Result<(), UeFailure> {
        if self.procedure.is_some() {
            return Err(UeFailure::Busy);
        }
        let ends = self.new_ends()?;
        self.procedure = Some(Procedure {
            client_text: sec_agree::offer_list(&self.config.suites, &self.config.modes, &ends),
            ends,
            expires,
            over: self.current.as_ref().filter(|_| protect).map(|s| s.token),
            set: None,
            answer: None,
            challenges: 0,
            deadline: now + AWAIT,
        });
        let first = self.first_authorization();
        self.send_register(now, &first, false);
        let protected = self.over().is_some();
        self.event(UeEvent::Sm1 { protected });
        Ok(())
    }

    /// The set that protects SM1 of the running procedure.
    pub(super) fn over(&self) -> Option<&UeSet> {
        let over = self.procedure.as_ref()?.over;
        self.current.as_ref().filter(|set| Some(set.token) == over)
    }

    /// Credentials that answer nothing yet.
    fn first_authorization(&mut self) -> String {
        let (realm, impi) = (&self.config.domain, &self.config.impi);
        if self.does(Fault::Replay) {
            let mut old = [[0; 16]; 2];
            old.iter_mut().for_each(|half| self.random.fill(half));
            let (nonce, response) = (nonce(&old[0], &old[1]), self.random.token(16));
            let made_up = format!(
                "Digest username=\"{impi}\",realm=\"{realm}\",nonce=\"{nonce}\",uri=\"sip:{realm}\",response=\"{response}\",algorithm=AKAv1-MD5"
            );
            return self.last_answer.clone().unwrap_or(made_up);
        }
        format!(
            "Digest username=\"{impi}\",realm=\"{realm}\",nonce=\"\",uri=\"sip:{realm}\",response=\"\""
        )
    }

    /// A REGISTER of the running procedure, through the new set or as SM1.
    pub(super) fn send_register(&mut self, now: u64, authorization: &str, answers: bool) {
        self.send_register_as(now, authorization, answers, Purpose::Register);
    }

    pub(super) fn send_register_as(
        &mut self,
        now: u64,
        authorization: &str,
        answers: bool,
        purpose: Purpose,
    ) {
        let Some(procedure) = &self.procedure else {
            return;
        };
        let set = if answers {
            procedure.set.clone()
        } else {
            self.over().cloned()
        };
        let set = set.filter(|_| !(answers && self.does(Fault::ClearSm7)));
        let (expires, client) = (procedure.expires, procedure.client_text.clone());
        let server_port = procedure.ends.port_s;
        let at = set.as_ref().map_or(self.config.local, |s| s.params.ue);
        let sent_by = match &set {
            Some(_) if answers && self.does(Fault::WrongVia) => elsewhere(at, server_port),
            Some(_) => SocketAddr::new(at, server_port),
            None => self.clear(),
        };
        let contact = SocketAddr::new(at, server_port);
        let over = match self.config.transport {
            Carrier::Tcp => ";transport=tcp",
            Carrier::Udp | Carrier::Auto => "",
        };
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
                &format!("<sip:{user}@{contact}{over}>;expires={expires}"),
            )
            .with("Expires", &expires.to_string())
            .with("Supported", "path")
            .with("Require", "sec-agree")
            .with("Proxy-Require", "sec-agree")
            .with("Authorization", authorization);
        if !self.does(Fault::NoClient) {
            let wrong = answers && self.does(Fault::WrongClient);
            message.push(SECURITY_CLIENT, &falsified(&client, wrong));
        }
        for line in set.iter().flat_map(|set| &set.server_lines) {
            if !(answers && self.does(Fault::NoVerify)) {
                let wrong = answers && self.does(Fault::WrongVerify);
                message.push(SECURITY_VERIFY, &falsified(line, wrong));
            }
        }
        message.push("User-Agent", &self.config.user_agent);
        message.push("Content-Length", "0");
        self.clients.remove_registration();
        self.request(now, &branch, purpose, set.as_ref(), message);
    }

    /// The procedure is over without success; the new set goes, the old one stays.
    /// A new attempt of ours begins `at_least` so many milliseconds later.
    pub(super) fn abandon(&mut self, now: u64, failure: UeFailure, at_least: u64) {
        let Some(procedure) = self.procedure.take() else {
            return;
        };
        self.clients.remove_registration();
        let answered = procedure.set.is_some();
        match procedure.set {
            Some(set) => self.drop_set(&set),
            None => self.give_back(procedure.ends),
        }
        self.event(UeEvent::Failed(failure));
        if failure == UeFailure::Timeout && procedure.over.is_some() && !answered {
            // No answer through the SAs; one to SM7 would have come through the new ones.
            self.lose_sas();
        }
        if procedure.expires > 0 {
            self.plan_again(now, failure, at_least);
        }
    }
}

/// One digit more in the first port: another list.
fn falsified(list: &str, wrong: bool) -> String {
    if wrong {
        list.replacen("port-c=", "port-c=1", 1)
    } else {
        list.to_owned()
    }
}

/// An address that is nobody's here.
fn elsewhere(like: IpAddr, port: u16) -> SocketAddr {
    let ip = match like {
        IpAddr::V4(_) => IpAddr::from([192, 0, 2, 254]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfffe]),
    };
    SocketAddr::new(ip, port)
}
