//! What changes in a message between the clear side and the Gm side: Via,
//! Contact, Request-URI, and the headers of the security agreement (RFC 3329).
//! All other lines keep their bytes and their order.

use std::net::SocketAddr;

use gm_sip::header::{Host, NameAddr, Uri, list};
use gm_sip::message::Message;
use gm_sip::sec_agree::{SECURITY_CLIENT, SECURITY_SERVER, SECURITY_VERIFY};

const SEC_AGREE: &str = "sec-agree";
/// Where the option tag stands in a request (RFC 3329 clause 2.3.1, TS 24.229 clause 5.1.1.2).
const OPTION_TAGS: [&str; 3] = ["Supported", "Require", "Proxy-Require"];

/// Puts `to` in the place of host and port of a SIP URI; user and parameters keep
/// their bytes. `None` for a URI of another scheme.
pub fn move_uri(uri: &str, to: SocketAddr) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    let sip = ["sip", "sips"]
        .iter()
        .any(|s| scheme.trim().eq_ignore_ascii_case(s));
    if !sip {
        return None;
    }
    // Headers behind a question mark may hold an at sign, a user part may hold anything.
    let end = rest.find('?').unwrap_or(rest.len());
    let host_at = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let host_end = rest[host_at..]
        .find([';', '?'])
        .map_or(rest.len(), |n| host_at + n);
    Some(format!(
        "{scheme}:{}{to}{}",
        &rest[..host_at],
        &rest[host_end..]
    ))
}

/// Moves every SIP URI of the Contact lines to `to`, where `wanted` says yes to it.
pub fn move_contacts(message: &mut Message, to: SocketAddr, wanted: impl Fn(&Uri) -> bool) {
    message.rewrite("Contact", |value| {
        let moved: Vec<_> = list::split(value, ',')
            .map(|element| move_element(element, to, &wanted))
            .collect();
        Some(moved.join(", "))
    });
}

fn move_element(element: &str, to: SocketAddr, wanted: &impl Fn(&Uri) -> bool) -> String {
    let moved = NameAddr::parse(element)
        .filter(|contact| contact.parsed_uri().is_some_and(|uri| wanted(&uri)))
        .and_then(|contact| Some((move_uri(&contact.uri, to)?, contact.uri)));
    match moved {
        // A display name cannot hold the URI's text before the bracket unless it is
        // quoted; so the last place is the URI.
        Some((new, old)) => match element.rfind(&old) {
            Some(at) => format!("{}{new}{}", &element[..at], &element[at + old.len()..]),
            None => element.to_owned(),
        },
        None => element.to_owned(),
    }
}

/// Whether a URI names this address and port.
pub fn is_at(uri: &Uri, at: SocketAddr) -> bool {
    uri.host.as_ref().and_then(Host::ip) == Some(at.ip()) && uri.port.unwrap_or(5060) == at.port()
}

/// Takes Routes off that name `own`: the UE uses us as its outbound proxy.
pub fn drop_own_routes(message: &mut Message, own: SocketAddr) {
    while let Some(route) = message.first_element("Route") {
        let uri = NameAddr::parse(&route).and_then(|r| r.parsed_uri());
        if !uri.is_some_and(|uri| is_at(&uri, own)) {
            return;
        }
        message.remove_first_element("Route");
    }
}

/// The security agreement's part of a request to the P-CSCF: option tags,
/// Security-Client in a REGISTER, Security-Verify through SAs. What the UE itself
/// wrote there is taken away: it does not know our SPIs.
pub fn agree(message: &mut Message, client: Option<&str>, verify: Option<&str>) {
    for name in [SECURITY_CLIENT, SECURITY_SERVER, SECURITY_VERIFY] {
        message.remove(name);
    }
    // Neither may ask for an extension (RFC 3261 clauses 8.2.2.3 and 9.1).
    if !matches!(message.method(), Some("ACK" | "CANCEL")) {
        for name in OPTION_TAGS {
            add_option(message, name);
        }
    }
    for (name, value) in [(SECURITY_CLIENT, client), (SECURITY_VERIFY, verify)] {
        if let Some(value) = value {
            message.push(name, value);
        }
    }
}

fn add_option(message: &mut Message, name: &str) {
    let mut tags = message.elements(name);
    if tags.iter().any(|tag| tag.eq_ignore_ascii_case(SEC_AGREE)) {
        return;
    }
    tags.push(SEC_AGREE.to_owned());
    message.set(name, &tags.join(", "));
}

/// Takes the security agreement out of what goes to the UE: it does not know it,
/// and some stacks refuse what they do not know.
pub fn disagree(message: &mut Message) {
    for name in [SECURITY_CLIENT, SECURITY_SERVER, SECURITY_VERIFY] {
        message.remove(name);
    }
    for name in OPTION_TAGS {
        message.remove_element(name, SEC_AGREE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_uri_moves_and_keeps_user_and_parameters() {
        let to = at("192.0.2.10:31800");
        for (from, want) in [
            (
                "sip:a@127.0.0.1:5071;transport=udp",
                "sip:a@192.0.2.10:31800;transport=udp",
            ),
            ("sip:127.0.0.1", "sip:192.0.2.10:31800"),
            (
                "sip:+1;phone-context=x@[::1]:9?a=b@c",
                "sip:+1;phone-context=x@192.0.2.10:31800?a=b@c",
            ),
        ] {
            assert_eq!(move_uri(from, to).as_deref(), Some(want));
        }
        assert_eq!(move_uri("tel:+1555", to), None);
        assert_eq!(
            move_uri("sip:a@h", at("[2001:db8::1]:5")).as_deref(),
            Some("sip:a@[2001:db8::1]:5")
        );
    }

    #[test]
    fn contacts_move_where_they_are_wanted_and_nothing_else_changes() {
        let bytes = b"SIP/2.0 200 OK\r\nm: \"sip:a@10.0.0.1:1\" <sip:a@10.0.0.1:1>;expires=60 , <sip:b@10.0.0.2>\r\nX-Y:  z\r\n\r\n";
        let mut message = Message::parse(bytes).expect("SIP");
        let old = at("10.0.0.1:1");
        move_contacts(&mut message, at("127.0.0.1:7"), |uri| is_at(uri, old));
        assert_eq!(
            message.to_bytes(),
            b"SIP/2.0 200 OK\r\nm: \"sip:a@10.0.0.1:1\" <sip:a@127.0.0.1:7>;expires=60, <sip:b@10.0.0.2>\r\nX-Y:  z\r\n\r\n"
        );
        let mut star = Message::request("REGISTER", "sip:h").with("Contact", "*");
        move_contacts(&mut star, at("127.0.0.1:7"), |_| true);
        assert_eq!(star.value("Contact").as_deref(), Some("*"));
    }

    #[test]
    fn the_agreement_is_written_once_and_comes_off_again() {
        let plain = Message::request("REGISTER", "sip:h")
            .with("Supported", "path, sec-agree")
            .with("Security-Client", "ipsec-3gpp;alg=forged")
            .with("X-Other", "stays");
        let mut message = plain.clone();
        agree(&mut message, Some("client"), Some("verify"));
        assert_eq!(
            message.value("Supported").as_deref(),
            Some("path, sec-agree")
        );
        assert_eq!(message.value("Require").as_deref(), Some("sec-agree"));
        assert_eq!(message.value("Proxy-Require").as_deref(), Some("sec-agree"));
        assert_eq!(message.elements("Security-Client"), ["client"]);
        assert_eq!(message.elements("Security-Verify"), ["verify"]);
        disagree(&mut message);
        let text = String::from_utf8(message.to_bytes()).expect("text");
        assert_eq!(
            text,
            "REGISTER sip:h SIP/2.0\r\nSupported: path\r\nX-Other: stays\r\n\r\n"
        );
    }

    #[test]
    fn ack_and_cancel_ask_for_no_extension() {
        let mut ack = Message::request("ACK", "sip:h");
        agree(&mut ack, None, Some("verify"));
        assert_eq!(
            (
                ack.value("Require"),
                ack.value("Security-Verify").as_deref()
            ),
            (None, Some("verify"))
        );
    }

    #[test]
    fn only_routes_to_the_proxy_come_off() {
        let mut message = Message::request("MESSAGE", "sip:h")
            .with("Route", "<sip:127.0.0.1:5070;lr>, <sip:127.0.0.1:5070>")
            .with("Route", "<sip:192.0.2.1:5066;lr>");
        drop_own_routes(&mut message, at("127.0.0.1:5070"));
        assert_eq!(message.elements("Route"), ["<sip:192.0.2.1:5066;lr>"]);
    }
}
