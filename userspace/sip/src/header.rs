//! Values of the headers that the Gm link needs: Via, addresses, CSeq, Expires.

pub mod addr;
pub mod list;
pub mod via;

pub use addr::{NameAddr, Uri};
pub use via::{Host, Via};

use crate::message::Message;

/// CSeq (RFC 3261 clause 20.16): number and method.
pub fn cseq(message: &Message) -> Option<(u32, String)> {
    let value = message.value("CSeq")?;
    let mut words = value.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    Some((number, words.next()?.to_owned()))
}

/// What a registration's 200 or REGISTER says about its lifetime in seconds: the
/// longest `expires` of its contacts, else Expires. `None`: neither is there.
pub fn expires(message: &Message) -> Option<u32> {
    let contact = message
        .elements("Contact")
        .iter()
        .filter_map(|c| NameAddr::parse(c))
        .filter_map(|c| c.param("expires").and_then(|e| seconds(&e)))
        .max();
    contact.or_else(|| message.value("Expires").and_then(|e| seconds(&e)))
}

/// Seconds that a 200 to REGISTER grants to the contact that `own` knows; else the
/// longest of all contacts; else an hour.
pub fn granted(message: &Message, own: impl Fn(&Uri) -> bool) -> u32 {
    let contacts = message.elements("Contact");
    let found = contacts
        .iter()
        .filter_map(|c| NameAddr::parse(c))
        .find_map(|c| {
            let same = c.parsed_uri().is_some_and(|uri| own(&uri));
            c.param("expires")
                .filter(|_| same)
                .and_then(|e| seconds(&e))
        });
    found.or_else(|| expires(message)).unwrap_or(3600)
}

/// delta-seconds; more than 32 bits count as the most.
fn seconds(text: &str) -> Option<u32> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u32::MAX))
}

/// The value of the `tag` parameter of From or To.
pub fn tag(message: &Message, name: &str) -> Option<String> {
    NameAddr::parse(&message.value(name)?)?.param("tag")
}
