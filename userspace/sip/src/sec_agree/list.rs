//! A whole list: what can be used of it, and whether another one says the same.

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::mechanism::{Mechanism, Read, Shared};
use super::{MAX_MECHANISMS, MAX_PARAMETERS, OfferError, Proposal};
use crate::header::list;
use crate::message::Message;

/// A whole list, over all lines of the header. Copies share it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecList(Arc<Entries>);

/// Text, and where each entry ends in it.
#[derive(Default, PartialEq, Eq)]
struct Entries {
    text: String,
    ends: Vec<u32>,
}

impl Entries {
    fn add(&mut self, value: &str) {
        self.text.reserve_exact(value.len());
        let entries = 1 + memchr::memchr_iter(b',', value.as_bytes()).count();
        // Of a stranger's commas not all are believed.
        self.ends.reserve_exact(entries.min(MAX_MECHANISMS));
        for entry in list::split(value, ',') {
            self.text.push_str(entry);
            self.ends.push(self.text.len() as u32);
        }
    }
}

impl Default for SecList {
    fn default() -> SecList {
        static NONE: LazyLock<Arc<Entries>> = LazyLock::new(Arc::default);
        SecList(Arc::clone(&NONE))
    }
}

impl SecList {
    /// The list of that header; `None` when the header is not there at all.
    pub fn from_message(message: &Message, name: &str) -> Option<SecList> {
        let mut lines = message.lines(name).peekable();
        lines.peek()?;
        let mut entries = Entries::default();
        lines.for_each(|line| entries.add(&line.value()));
        Some(SecList(Arc::new(entries)))
    }

    /// Parses a header value.
    pub fn parse(value: &str) -> SecList {
        let mut entries = Entries::default();
        entries.add(value);
        SecList(Arc::new(entries))
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.0.ends.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.ends.is_empty()
    }

    /// The entries in order.
    pub fn mechanisms(&self) -> impl Iterator<Item = Mechanism<'_>> {
        let mut from = 0;
        self.0.ends.iter().map(move |&end| {
            let text = &self.0.text[from..end as usize];
            from = end as usize;
            Mechanism::new(text)
        })
    }

    /// The entries that can be used, in order, legacy ones among them, or why
    /// there is none. What cannot be used is stepped over.
    pub fn proposals(&self) -> Result<Vec<Proposal>, OfferError> {
        if self.is_empty() {
            return Err(OfferError::Empty);
        }
        if self.len() > MAX_MECHANISMS {
            return Err(OfferError::TooMany);
        }
        let read: Vec<_> = self.mechanisms().map(Read::new).collect();
        if read.iter().map(|one| one.parameters).sum::<usize>() > MAX_PARAMETERS {
            return Err(OfferError::TooMany);
        }
        let shared = Shared::of(&read);
        let mut usable = Vec::with_capacity(read.len());
        let mut reason = OfferError::NotIpsec;
        for entry in &read {
            match entry.proposal(&shared) {
                Ok(proposal) => usable.push(proposal),
                // The last reason that is more than "another mechanism" is the telling one.
                Err(OfferError::NotIpsec) => {}
                Err(error) => reason = error,
            }
        }
        if usable.is_empty() {
            Err(reason)
        } else {
            Ok(usable)
        }
    }

    /// Whether `echo` says the same as this list (ARCHITECTURE, reading A-22). An absent q in
    /// the echo is accepted, another q is not.
    pub fn same(&self, echo: &SecList) -> bool {
        let both = self.mechanisms().zip(echo.mechanisms());
        self.len() == echo.len() && both.into_iter().all(|(ours, theirs)| ours.same(theirs))
    }
}

impl fmt::Debug for SecList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecList({self})")
    }
}

impl fmt::Display for SecList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, entry) in self.mechanisms().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, entry.text())?;
        }
        Ok(())
    }
}
