//! A whole list: what can be used of it, and whether another one says the same.

use std::fmt;

use super::mechanism::{Mechanism, Shared};
use super::{MAX_MECHANISMS, MAX_PARAMETERS, OfferError, Proposal};
use crate::header::list;
use crate::message::Message;

/// A whole list, over all lines of the header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecList(pub Vec<Mechanism>);

impl SecList {
    /// The list of that header; `None` when the header is not there at all.
    pub fn from_message(message: &Message, name: &str) -> Option<SecList> {
        message.value(name)?;
        let entries = message.elements(name);
        Some(SecList(
            entries.iter().map(|e| Mechanism::parse(e)).collect(),
        ))
    }

    /// Parses a header value.
    pub fn parse(value: &str) -> SecList {
        SecList(list::split(value, ',').map(Mechanism::parse).collect())
    }

    /// The entries that can be used, in order, legacy ones among them, or why
    /// there is none. What cannot be used is stepped over.
    pub fn proposals(&self) -> Result<Vec<Proposal>, OfferError> {
        if self.0.is_empty() {
            return Err(OfferError::Empty);
        }
        let parameters: usize = self.0.iter().map(|m| m.params.0.len()).sum();
        if self.0.len() > MAX_MECHANISMS || parameters > MAX_PARAMETERS {
            return Err(OfferError::TooMany);
        }
        let shared = Shared::of(self);
        let mut usable = Vec::new();
        let mut reason = OfferError::NotIpsec;
        for entry in &self.0 {
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
        let same_q = |ours: &Mechanism, theirs: &Mechanism| {
            theirs.params.get("q").is_none() || ours.q() == theirs.q()
        };
        self.0.len() == echo.0.len()
            && self
                .0
                .iter()
                .zip(&echo.0)
                .all(|(a, b)| a.canonical() == b.canonical() && same_q(a, b))
    }
}

impl fmt::Display for SecList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, entry) in self.0.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, entry.name)?;
            for (name, value) in &entry.params.0 {
                match value {
                    Some(value) => write!(f, ";{name}={value}")?,
                    None => write!(f, ";{name}")?,
                }
            }
        }
        Ok(())
    }
}
