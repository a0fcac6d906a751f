//! Messages of the kernel as bytes, for whoever has recorded some.

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR};

use super::watch::Event;
use super::wire::Damaged;
use super::wire::event;
use super::wire::reply::{Replies, Reply};

/// A message of the kernel. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// An event, or a state, policy or numbers that were asked for: they look
    /// the same.
    Event(Event),
    /// An acknowledgement, or the end of a dump.
    Verdict {
        /// 0, or what went wrong as a positive errno.
        code: i32,
        /// The kernel's words about it.
        text: String,
    },
    /// Something that is nobody's business here, by its type.
    Other(u16),
}

/// Reads what came out of an XFRM netlink socket at once. It ends with the
/// first error from which there is no going on.
pub fn read(datagram: &[u8]) -> Vec<Result<Message, Damaged>> {
    Replies::of(datagram)
        .map(|reply| reply.and_then(|reply| message(&reply)))
        .collect()
}

fn message(reply: &Reply<'_>) -> Result<Message, Damaged> {
    match reply.kind {
        NLMSG_ERROR | NLMSG_DONE => {
            let (code, text) = reply.verdict()?;
            Ok(Message::Verdict { code, text })
        }
        kind => Ok(match event::parse(reply)? {
            Some(event) => Message::Event(event),
            None => Message::Other(kind),
        }),
    }
}
