//! How sets and contacts enter and leave the table.

use std::net::IpAddr;
use std::sync::Arc;

use super::{
    Change, Contact, ContactId, ContactKey, RemoveReason, SaSet, SetState, Table, TableError,
};
use crate::sa_set::SetToken;
use crate::sec_agree::Ends;

impl Table {
    /// Enters a registration set (SM4). Unfinished sets of the same contact go first
    /// (clause 7.3.1.4), and ended ones whose ports it may take. One exception: what
    /// began over an established set is not ended by what began in clear, where anybody
    /// can write any name, until that is answered; except when both have a port or an
    /// SPI in common, or there is no room for both.
    pub fn add(
        &mut self,
        key: &ContactKey,
        path: &Arc<str>,
        mut set: SaSet,
    ) -> Result<ContactId, TableError> {
        let known = self.by_key(key);
        if known.is_none() && self.contacts.len() >= self.max_contacts {
            return Err(TableError::Full);
        }
        if let Some(error) = self.is_full_for(key) {
            return Err(error);
        }
        let (ue, ends) = (set.params.ue, set.params.ue_ends);
        let port_ps = set.params.pcscf_ends.port_s;
        if self.collides(key, ue, &ends, port_ps) {
            return Err(TableError::Collision);
        }
        for token in self.ended_by(known, set.over, ue, &ends, port_ps) {
            self.remove_set(token, RemoveReason::Aborted);
        }
        // Looked up again: with its last set the contact may have gone.
        let id = match self.by_key(key) {
            Some(id) => id,
            None => self.new_contact(key, path),
        };
        set.contact = id;
        set.wake = set.deadline;
        self.wakes.insert((set.wake, set.token));
        for flow in set.flows() {
            self.by_flow.insert(flow, set.token);
        }
        let tokens = self.by_server_port.entry((ue, ends.port_s)).or_default();
        tokens.push(set.token);
        for spi in [ends.spi_c, ends.spi_s] {
            self.by_spi.insert((ue, spi), set.token);
        }
        if let Some(contact) = self.contacts.get_mut(&id) {
            contact.sets.push(set.token);
        }
        self.sets.insert(set.token, set);
        Ok(id)
    }

    /// The sets of a contact that end when one with these ends enters, whose SM1 came
    /// over `over`.
    pub fn ended_by(
        &self,
        known: Option<ContactId>,
        over: Option<SetToken>,
        ue: IpAddr,
        ends: &Ends,
        port_ps: u16,
    ) -> Vec<SetToken> {
        let Some(id) = known else {
            return Vec::new();
        };
        let staying = self.sets_of(id).filter(|s| !s.gives_way()).count();
        let proven = |s: &SaSet| {
            s.state == SetState::Registration
                && s.over.is_some_and(|over| self.sets.contains_key(&over))
        };
        let kept = |s: &SaSet| {
            over.is_none()
                && proven(s)
                && staying + 1 < self.max_sets
                && !self.taken(ue, ends, port_ps).any(|t| *t == s.token)
        };
        let ended = self.sets_of(id).filter(|s| s.gives_way() && !kept(s));
        ended.map(|s| s.token).collect()
    }

    fn new_contact(&mut self, key: &ContactKey, path: &Arc<str>) -> ContactId {
        self.next_contact += 1;
        let id = self.next_contact;
        let contact = Contact {
            key: key.clone(),
            path: Arc::clone(path),
            sets: Vec::new(),
            current: None,
            impus: Vec::new(),
            registrations: Vec::new(),
        };
        self.by_key.insert(key.clone(), id);
        let siblings = self.by_impi.entry(key.impi.clone()).or_default();
        siblings.push(id);
        self.by_path.insert(Arc::clone(path), id);
        self.contacts.insert(id, contact);
        id
    }

    /// Takes a set away now.
    pub fn remove_set(&mut self, token: SetToken, why: RemoveReason) {
        let Some(set) = self.sets.remove(&token) else {
            return;
        };
        self.wakes.remove(&(set.wake, token));
        for flow in set.flows() {
            if self.by_flow.get(&flow) == Some(&token) {
                self.by_flow.remove(&flow);
            }
        }
        let server = (set.params.ue, set.params.ue_ends.port_s);
        if let Some(tokens) = self.by_server_port.get_mut(&server) {
            tokens.retain(|t| *t != token);
            if tokens.is_empty() {
                self.by_server_port.remove(&server);
            }
        }
        for spi in [set.params.ue_ends.spi_c, set.params.ue_ends.spi_s] {
            if self.by_spi.get(&(set.params.ue, spi)) == Some(&token) {
                self.by_spi.remove(&(set.params.ue, spi));
            }
        }
        if set.active {
            self.changes.push(Change::Retire(token));
        }
        self.changes.push(Change::Remove(token, why));
        self.forget(set.contact, token);
    }

    /// Takes a set out of its contact; a contact without sets goes.
    fn forget(&mut self, id: ContactId, token: SetToken) {
        let latest = self.contacts.get(&id).and_then(|_| self.latest(id));
        let Some(contact) = self.contacts.get_mut(&id) else {
            return;
        };
        contact.sets.retain(|t| *t != token);
        if contact.current == Some(token) {
            contact.current = latest;
        }
        if contact.sets.is_empty()
            && let Some(contact) = self.contacts.remove(&id)
        {
            self.by_key.remove(&contact.key);
            if let Some(siblings) = self.by_impi.get_mut(&contact.key.impi) {
                siblings.retain(|other| *other != id);
                if siblings.is_empty() {
                    self.by_impi.remove(&contact.key.impi);
                }
            }
            self.by_path.remove(&contact.path);
        }
    }
}
