//! The public identities of a contact: who may speak over its SAs, and when the last
//! one is gone (TS 33.203 clauses 6.1.1, 7.1 rule 1, 7.4.2a).

use std::sync::Arc;

use super::{Contact, ContactId, Registration, RemoveReason, Table};
use crate::header::UriParts;

/// Addresses of record of a contact, and identities of each, that are kept.
const MOST: usize = 64;

impl Contact {
    /// Whether a URI is one of its public identities.
    pub fn owns(&self, uri: &str) -> bool {
        self.own(uri).is_some()
    }

    /// The public identity that a URI is, as it was registered.
    pub fn own(&self, uri: &str) -> Option<&str> {
        let aors = self.registrations.iter().map(|r| &r.aor);
        let mut all = self.impus.iter().chain(aors);
        let uri = UriParts::parse(uri)?;
        all.find(|own| is(own, &uri)).map(|own| &**own)
    }

    /// The default identity of the oldest registration first, each once.
    fn collect(&mut self) {
        self.impus.clear();
        let most = self.registrations.iter().map(|r| r.identities.len().max(1));
        self.impus.reserve_exact(most.sum());
        for registration in &self.registrations {
            let own = std::slice::from_ref(&registration.aor);
            let all = if registration.identities.is_empty() {
                own
            } else {
                &registration.identities
            };
            for identity in all {
                if !self.impus.contains(identity) {
                    self.impus.push(identity.clone());
                }
            }
        }
    }
}

fn same(one: &str, other: &str) -> bool {
    UriParts::parse(other).is_some_and(|other| is(one, &other))
}

fn is(one: &str, other: &UriParts<'_>) -> bool {
    UriParts::parse(one).is_some_and(|one| one.same_identity(other))
}

impl Table {
    /// Notes what a registration's 200 says of identities. The default one is the
    /// first of `associated`; without any it is the address of record itself.
    pub fn registered(&mut self, id: ContactId, aor: &Arc<str>, mut associated: Vec<Arc<str>>) {
        let Some(contact) = self.contacts.get_mut(&id) else {
            return;
        };
        associated.truncate(MOST);
        let all = &mut contact.registrations;
        let room = all.len() < MOST;
        match all.iter_mut().find(|r| same(&r.aor, aor)) {
            Some(_) if associated.is_empty() => {}
            Some(known) => known.identities = associated,
            None if room => {
                all.reserve_exact(1);
                all.push(Registration {
                    aor: Arc::clone(aor),
                    identities: associated,
                });
            }
            None => {}
        }
        contact.collect();
    }

    /// An address of record is de-registered, and with it what was registered implicitly
    /// with it. When nothing is left all sets of the contact go after a while, so that
    /// the 200 still leaves through one. Says whether that is so.
    pub fn deregister(&mut self, id: ContactId, aor: &str, now: u64) -> bool {
        let Some(contact) = self.contacts.get_mut(&id) else {
            return false;
        };
        let of_it = |r: &Registration| {
            same(&r.aor, aor) || r.identities.iter().any(|identity| same(identity, aor))
        };
        contact.registrations.retain(|r| !of_it(r));
        if !contact.registrations.is_empty() {
            contact.collect();
            return false;
        }
        self.end(id, now);
        true
    }

    /// A contact is registered no longer: its sets carry the last answer and then go.
    pub fn end(&mut self, id: ContactId, now: u64) {
        let Some(contact) = self.contacts.get_mut(&id) else {
            return;
        };
        contact.registrations.clear();
        contact.current = None;
        for token in contact.sets.clone() {
            self.linger(token, now, RemoveReason::Deregistered);
        }
    }
}
