//! What comes out of the socket: messages one after the other.

use super::attrs::{Attrs, u16_at, u32_at};
use super::{Damaged, HEADER};

/// Flags of a message's header.
const CAPPED: u16 = 0x100;
const HAS_ATTRS: u16 = 0x200;
/// The dump met changes and has to be made again.
const INTERRUPTED: u16 = 0x10;
/// Attribute of an acknowledgement: words of the kernel.
const WORDS: u16 = 1;

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    /// Its type.
    pub(crate) kind: u16,
    /// Flags.
    pub(crate) flags: u16,
    /// Number of the request that it answers; 0: none.
    pub(crate) number: u32,
    /// What is behind the header.
    pub(crate) payload: &'a [u8],
}

impl Reply<'_> {
    /// Whether the tables changed while they were read.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }

    /// Error number and words of an acknowledgement, or of a dump's end; 0 is
    /// success.
    pub(crate) fn verdict(&self) -> Result<(i32, String), Damaged> {
        let code = u32_at(self.payload, 0).ok_or(Damaged("half an acknowledgement"))?;
        let code = (code as i32).checked_neg().unwrap_or(i32::MAX);
        let mut text = String::new();
        if self.flags & HAS_ATTRS != 0 {
            // Between them is the request's header, or all of it.
            let request = match self.kind {
                netlink_packet_core::NLMSG_DONE => 0,
                _ if self.flags & CAPPED != 0 => HEADER,
                _ => u32_at(self.payload, 4).unwrap_or(0) as usize,
            };
            for attr in Attrs::after(self.payload, 4usize.saturating_add(request)) {
                if let (WORDS, value) = attr? {
                    text = words(value);
                }
            }
        }
        Ok((code, text))
    }
}

/// The kernel's words, as far as they can be shown.
fn words(value: &[u8]) -> String {
    let value = value.split(|b| *b == 0).next().unwrap_or_default();
    let shown = value.iter().take(200);
    shown
        .map(|b| match b {
            b' '..=b'~' => char::from(*b),
            _ => '?',
        })
        .collect()
}

/// The messages of what was received at once.
pub(crate) struct Replies<'a> {
    rest: &'a [u8],
}

impl<'a> Replies<'a> {
    pub(crate) fn of(received: &'a [u8]) -> Replies<'a> {
        Replies { rest: received }
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut self.rest);
        let read = || {
            let length = u32_at(whole, 0)? as usize;
            let reply = Reply {
                kind: u16_at(whole, 4)?,
                flags: u16_at(whole, 6)?,
                number: u32_at(whole, 8)?,
                payload: whole.get(HEADER..length)?,
            };
            Some((reply, length))
        };
        let Some((reply, length)) = read() else {
            return Some(Err(Damaged("half a message")));
        };
        self.rest = whole.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(reply))
    }
}
