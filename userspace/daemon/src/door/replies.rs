//! Answers of the door: what the agent has decided in the words of the interface.

use gm_api::register::{
    Action, RefusalBody, RegisterReply, Registration, RegistrationSet, ResponseReply, Step, Way,
};
use gm_esp::Mode;
use gm_sip::Message;
use gm_sip::agent::{Agent, Attempt, AttemptId, Kind, Refusal};
use gm_sip::aka;
use gm_sip::lifecycle::{Contact, SetState};
use gm_sip::sa_set::{SetParams, SetToken};
use gm_sip::sec_agree::Policy;

/// Header fields of the security agreement, which ends at the P-CSCF.
const AGREEMENT: [&str; 2] = ["Security-Client", "Security-Verify"];

/// The REGISTER goes on.
pub(super) fn forward(id: AttemptId, attempt: Option<&Attempt>, way: Option<Way>) -> RegisterReply {
    let integrity = attempt.is_some_and(|a| a.integrity);
    RegisterReply {
        action: Action::Forward,
        id: Some(id.0),
        step: attempt.map(|a| match a.kind {
            Kind::First => Step::First,
            Kind::Again => Step::Again,
            Kind::Answer => Step::Answer,
        }),
        integrity_protected: Some(if integrity { "yes" } else { "no" }.into()),
        remove: AGREEMENT.map(str::to_owned).to_vec(),
        remove_options: vec!["sec-agree".into()],
        impi: attempt.map(|a| a.key.impi.to_string()),
        way,
        refusal: None,
    }
}

/// The REGISTER does not.
pub(super) fn refuse(why: &Refusal, policy: &Policy, way: Option<Way>) -> RegisterReply {
    let body = refusal(why, policy);
    RegisterReply {
        action: match body.status {
            Some(_) => Action::Reply,
            None => Action::Drop,
        },
        id: None,
        step: None,
        integrity_protected: None,
        remove: Vec::new(),
        remove_options: Vec::new(),
        impi: None,
        way,
        refusal: Some(body),
    }
}

/// WWW-Authenticate as a phone may see it.
pub(super) fn without_keys(mut message: Message) -> Option<String> {
    aka::strip_keys(&mut message);
    let header = message.value("WWW-Authenticate");
    header.map(|header| header.into_owned())
}

/// The core's answer goes on as it is.
pub(super) fn unchanged() -> ResponseReply {
    ResponseReply {
        action: Action::Forward,
        www_authenticate: None,
        security_server: None,
        set: None,
        suite: None,
        mode: None,
        way: None,
        refusal: None,
    }
}

/// The challenge goes on, with Security-Server.
pub(super) fn challenge(server: String, number: Option<u64>, params: &SetParams) -> ResponseReply {
    ResponseReply {
        security_server: Some(server),
        set: number,
        suite: Some(params.suite.to_string()),
        mode: Some(mode(params.mode()).into()),
        ..unchanged()
    }
}

/// An error in the place of the core's answer: the phone is not left without one.
pub(super) fn in_place(why: &Refusal, policy: &Policy) -> ResponseReply {
    let mut body = refusal(why, policy);
    if body.status.is_none() {
        body.status = Some(500);
        body.phrase = Some("Server Internal Error".into());
    }
    ResponseReply {
        action: Action::Reply,
        refusal: Some(body),
        ..unchanged()
    }
}

fn refusal(why: &Refusal, policy: &Policy) -> RefusalBody {
    let headers = why.headers(policy).into_iter();
    RefusalBody {
        status: why.status().map(|(code, _)| code),
        phrase: why.status().map(|(_, phrase)| phrase.into()),
        headers: headers
            .map(|(name, value)| format!("{name}: {value}"))
            .collect(),
        reason: why.word(),
        explain: why.explain(),
    }
}

/// Where a set stands.
pub(super) fn state(state: SetState) -> &'static str {
    match state {
        SetState::Registration => "registration",
        SetState::Established => "established",
        SetState::Replaced => "replaced",
        SetState::Lingering => "lingering",
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Trans => "trans",
        Mode::UdpEncTun => "UDP-enc-tun",
    }
}

/// A contact with its sets.
pub(super) fn registration(
    agent: &Agent,
    contact: &Contact,
    now: u64,
    number: impl Fn(SetToken) -> Option<u64>,
) -> Registration {
    let sets = contact.sets.iter().filter_map(|token| agent.set(*token));
    Registration {
        impi: contact.key.impi.to_string(),
        instance: contact.key.instance.to_string(),
        identities: contact.impus.iter().map(|i| i.to_string()).collect(),
        sets: sets
            .map(|set| RegistrationSet {
                set: number(set.token),
                state: state(set.state).into(),
                current: contact.current == Some(set.token),
                ue: set.params.ue,
                suite: set.params.suite.to_string(),
                mode: mode(set.params.mode()).into(),
                left_s: set.deadline.saturating_sub(now) / 1000,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_sip::sec_agree::OfferError;

    #[test]
    fn words_are_in_kebab_case() {
        assert_eq!(Refusal::NoSecurityClient.word(), "no-security-client");
        assert_eq!(Refusal::Overload.word(), "overload");
        assert_eq!(Refusal::Offer(OfferError::Empty).word(), "offer");
    }

    #[test]
    fn silence_towards_the_phone_is_an_error_in_the_cores_place() {
        let reply = refuse(&Refusal::NatWithoutTunnel, &Policy::default(), None);
        assert_eq!(reply.action, Action::Drop);
        let reply = in_place(&Refusal::NoTransaction, &Policy::default());
        assert_eq!(reply.refusal.unwrap().status, Some(500));
        assert_eq!(reply.action, Action::Reply);
    }
}
