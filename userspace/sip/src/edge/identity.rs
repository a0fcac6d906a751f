//! Who speaks: what the network alone says is taken from a phone, its identity is asserted,
//! and what a phone must not learn is taken away (RFC 3323, RFC 3325, TS 24.229 clause 5.2).

use super::Edge;
use crate::header::{Host, NameAddr, Uri};
use crate::lifecycle::ContactId;
use crate::message::Message;
use crate::sec_agree::{SECURITY_CLIENT, SECURITY_SERVER, SECURITY_VERIFY};

/// What only the network says (RFC 3325, RFC 7315, TS 24.229 clause 5.2; Remote-Party-ID was
/// its draft, and some still believe it): out of a phone's mouth it is taken away.
const NETWORK_ONLY: [&str; 12] = [
    "P-Asserted-Identity",
    "P-Asserted-Service",
    "P-Associated-URI",
    "P-Charging-Function-Addresses",
    "P-Charging-Vector",
    "P-Private-Network-Indication",
    "P-Profile-Key",
    "P-Served-User",
    "P-User-Database",
    "P-Visited-Network-ID",
    "Path",
    "Remote-Party-ID",
];

const ACCESS: &str = "P-Access-Network-Info";

/// What the network says to itself (RFC 7315 clause 5, TS 24.229 clause 5.2.6.4), and the
/// security agreement of others: only ours is between the edge and a phone.
const NOT_FOR_PHONES: [&str; 8] = [
    SECURITY_CLIENT,
    SECURITY_SERVER,
    SECURITY_VERIFY,
    "P-Charging-Function-Addresses",
    "P-Charging-Vector",
    "P-Profile-Key",
    "P-Served-User",
    "P-User-Database",
];

/// The security agreement ends at the edge, and what only the network says begins there:
/// for requests and responses of phones.
pub(super) fn strip_up(up: &mut Message) {
    up.remove_all([SECURITY_CLIENT, SECURITY_VERIFY, SECURITY_SERVER]);
    up.remove_all(NETWORK_ONLY);
    for name in ["Require", "Proxy-Require"] {
        up.remove_element(name, "sec-agree");
    }
    // Where it is, a phone says; that the network says so, it does not (RFC 7315 clause 5.4).
    if up.any_element(ACCESS, claims) {
        up.remove(ACCESS);
    }
}

fn claims(access: &str) -> bool {
    let word = b"network-provided";
    let mut all = access.as_bytes().windows(word.len());
    all.any(|some| some.eq_ignore_ascii_case(word))
}

/// A phone is outside the trust domain: no charging, and no identity of somebody who
/// wants none shown (RFC 3325 clause 7).
pub(super) fn strip_down(down: &mut Message) {
    down.remove_all(NOT_FOR_PHONES);
    let values = down.lines("Privacy").map(|line| line.value().into_owned());
    let private = values
        .flat_map(|value| {
            value
                .split([';', ','])
                .map(|v| v.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .any(|value| value.eq_ignore_ascii_case("id"));
    if private {
        down.remove("P-Asserted-Identity");
    }
}

impl Edge {
    /// P-Asserted-Identity is of the registered identities, never the UE's word (clause
    /// 7.1 rule 4, RFC 3325): of the preferred ones those that are registered, one SIP
    /// and one tel URI at most (RFC 3325 clause 9.1); when there is none, the default.
    pub(super) fn assert_identity(&self, up: &mut Message, id: ContactId, message: &Message) {
        up.remove("P-Preferred-Identity");
        let Some(contact) = self.agent.table().contact(id) else {
            return;
        };
        let mut asserted: Vec<&str> = Vec::new();
        for preferred in message.elements("P-Preferred-Identity") {
            let uri = NameAddr::parse(&preferred).map(|p| p.uri);
            // As it is registered, not as the phone writes it.
            let Some(uri) = uri.and_then(|uri| contact.own(&uri)) else {
                continue;
            };
            let same = |other: &&str| is_tel(other) == is_tel(uri);
            if !asserted.iter().any(same) {
                asserted.push(uri);
            }
        }
        if asserted.is_empty() {
            asserted.extend(contact.impus.first().map(|uri| &**uri));
        }
        for uri in asserted {
            up.push("P-Asserted-Identity", &format!("<{uri}>"));
        }
    }
}

fn is_tel(uri: &str) -> bool {
    uri.get(..4)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("tel:"))
}

/// RFC 3323: a From that says who nobody is.
pub(super) fn anonymous(from: &NameAddr) -> bool {
    let host = from.parsed_uri().and_then(|uri: Uri| uri.host);
    host == Some(Host::Name("anonymous.invalid".into()))
}
