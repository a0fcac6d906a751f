//! Values of the headers that the Gm link needs: Via, addresses, CSeq, Expires.

pub mod addr;
pub mod list;
pub mod via;

pub use addr::{NameAddr, Uri};
pub use via::{Host, Via};

pub(crate) use addr::{AddrParts, UriParts};
pub(crate) use via::ViaParts;

use crate::message::Message;

/// CSeq (RFC 3261 clause 20.16): number and method.
pub fn cseq(message: &Message) -> Option<(u32, String)> {
    let value = message.value("CSeq")?;
    cseq_of(&value).map(|(number, method)| (number, method.to_owned()))
}

pub(crate) fn cseq_of(value: &str) -> Option<(u32, &str)> {
    let mut words = value.split_ascii_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?))
}

/// What a registration's 200 or REGISTER says about its lifetime in seconds: the
/// longest `expires` of its contacts, else Expires. `None`: neither is there.
pub fn expires(message: &Message) -> Option<u32> {
    let mut contact = None;
    message.any_element("Contact", |c| {
        contact = contact.max(AddrParts::parse(c).and_then(|c| expires_of(&c)));
        false
    });
    contact.or_else(|| expires_header(message))
}

pub(crate) fn expires_header(message: &Message) -> Option<u32> {
    message.value("Expires").and_then(|e| seconds(&e))
}

/// Seconds that a 200 to REGISTER grants to the contact that `own` knows; else the
/// longest of all contacts; else an hour.
pub fn granted(message: &Message, own: impl Fn(&Uri) -> bool) -> u32 {
    granted_to(message, |uri| Uri::parse(uri).is_some_and(|uri| own(&uri)))
}

/// The same, of a URI as text.
pub(crate) fn granted_to(message: &Message, own: impl Fn(&str) -> bool) -> u32 {
    let mut found = None;
    message.any_element("Contact", |c| {
        let contact = AddrParts::parse(c).filter(|c| own(c.uri));
        found = contact.and_then(|c| expires_of(&c));
        found.is_some()
    });
    found.or_else(|| expires(message)).unwrap_or(3600)
}

pub(crate) fn expires_of(contact: &AddrParts<'_>) -> Option<u32> {
    contact.param("expires").and_then(|e| seconds(&e))
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
    let value = message.value(name)?;
    let tag = AddrParts::parse(&value)?.param("tag")?;
    Some(tag.into_owned())
}
