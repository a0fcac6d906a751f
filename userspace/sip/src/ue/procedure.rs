//! The one registration procedure that runs: SM1, and its end.

use std::net::SocketAddr;

use super::client::Purpose;
use super::{Ue, UeEvent, UeFailure, UeSet};
use crate::aka::{Challenge, Res};
use crate::header::Uri;
use crate::message::Message;
use crate::sa_set::SetToken;
use crate::sec_agree::{self, Ends, SECURITY_CLIENT, SECURITY_VERIFY};

/// From the challenge to SM12 (await timer, 4 min).
pub(super) const AWAIT: u64 = 240_000;
/// How long replaced and de-registered sets serve: 64 * T1.
pub(super) const LINGER: u64 = 32_000;

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
    pub(super) fn send_register(&mut self, now: u64, authorization: &str, answers: bool) {
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
        match procedure.set {
            Some(set) => self.drop_set(&set),
            None => self.give_back(procedure.ends),
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
