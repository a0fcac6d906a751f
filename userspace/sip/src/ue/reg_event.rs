//! What the network says of our registration in a NOTIFY of the reg event package
//! (RFC 3680): the way in which it asks for an authentication (TS 33.203 clause
//! 6.1.4) and in which it de-registers.

use crate::message::Message;

/// What becomes of our contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Shortened: register again, to be authenticated.
    Again,
    /// Deactivated or on probation: register anew.
    Anew,
    /// Ended for good.
    Ended,
}

/// Reads a NOTIFY. Contacts are told apart by their port, our port_us.
pub(super) fn asked(message: &Message, port: u16) -> Option<Asked> {
    let event = message.value("Event")?;
    let package = event.split(';').next().unwrap_or_default().trim();
    if !package.eq_ignore_ascii_case("reg") {
        return None;
    }
    let body = String::from_utf8_lossy(message.body());
    let ours = format!(":{port}");
    let mut contacts = body.split("<contact").skip(1);
    let contact = contacts.find(|c| {
        let uri = c.split("<uri>").nth(1).unwrap_or_default();
        let uri = uri.split("</uri>").next().unwrap_or_default();
        // Not a longer number that begins like it.
        uri.split_once(&ours)
            .is_some_and(|(_, rest)| !rest.starts_with(|c: char| c.is_ascii_digit()))
    })?;
    let tag = contact.split('>').next().unwrap_or_default();
    match (attribute(tag, "state")?, attribute(tag, "event")?) {
        ("active", "shortened") => Some(Asked::Again),
        ("terminated", "deactivated" | "probation") => Some(Asked::Anew),
        ("terminated", _) => Some(Asked::Ended),
        _ => None,
    }
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}="))?;
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    rest[1..].split(quote).next()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::shortened(
        "state=\"active\" event=\"shortened\" expires=\"60\"",
        Some(Asked::Again)
    )]
    #[case::deactivated("state='terminated' event='deactivated'", Some(Asked::Anew))]
    #[case::rejected("event=\"rejected\" state=\"terminated\"", Some(Asked::Ended))]
    #[case::refreshed("state=\"active\" event=\"refreshed\"", None)]
    #[case::nothing("", None)]
    #[case::torn("state=\"", None)]
    fn the_state_of_our_contact(#[case] attributes: &str, #[case] want: Option<Asked>) {
        let body = format!(
            "<reginfo><registration aor=\"sip:u@h\" state=\"active\">\
             <contact id=\"1\" state=\"active\" event=\"registered\"><uri>sip:u@192.0.2.9:318001</uri></contact>\
             <contact id=\"2\" {attributes}><uri>sip:u@192.0.2.1:31800</uri></contact>\
             </registration></reginfo>"
        );
        let notify = Message::request("NOTIFY", "sip:u@192.0.2.1:31800")
            .with("Event", "reg;id=4")
            .with_body(body.as_bytes());
        assert_eq!(asked(&notify, 31800), want);
    }

    #[test]
    fn another_package_says_nothing_of_it() {
        let body = b"<contact state=\"terminated\" event=\"rejected\"><uri>sip:u@h:31800</uri>";
        let notify = Message::request("NOTIFY", "sip:u@h").with("Event", "presence");
        assert_eq!(asked(&notify.with_body(body), 31800), None);
    }
}
