//! How sets enter, change and leave the table.

use super::{
    Change, Contact, ContactId, ContactKey, RemoveReason, SaSet, SetState, Table, TableError,
};
use crate::sa_set::SetToken;

impl Table {
    /// Enters a registration set (SM4). An unfinished set of the same contact goes
    /// first (clause 7.3.1.4), and ended ones whose ports it takes.
    pub fn add(
        &mut self,
        key: &ContactKey,
        path: &str,
        mut set: SaSet,
    ) -> Result<ContactId, TableError> {
        let known = self.by_key(key);
        if known.is_none() && self.contacts.len() >= self.max_contacts {
            return Err(TableError::Full);
        }
        let own = known
            .and_then(|id| self.contacts.get(&id))
            .map(|c| c.sets.clone())
            .unwrap_or_default();
        let state = |t: &SetToken| self.sets.get(t).map(|s| s.state);
        let staying = own
            .iter()
            .filter(|t| matches!(state(t), Some(SetState::Established | SetState::Replaced)));
        if staying.count() >= self.max_sets {
            return Err(TableError::TooManySets);
        }
        if self.collides(
            key,
            set.params.ue,
            &set.params.ue_ends,
            set.params.pcscf_ends.port_s,
        ) {
            return Err(TableError::Collision);
        }
        for token in own {
            if matches!(
                self.sets.get(&token).map(|s| s.state),
                Some(SetState::Registration | SetState::Lingering)
            ) {
                self.remove_set(token, RemoveReason::Aborted);
            }
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
        let (ue, ends) = (set.params.ue, set.params.ue_ends);
        self.by_server_port
            .entry((ue, ends.port_s))
            .or_default()
            .push(set.token);
        for spi in [ends.spi_c, ends.spi_s] {
            self.by_spi.insert((ue, spi), set.token);
        }
        if let Some(contact) = self.contacts.get_mut(&id) {
            contact.sets.push(set.token);
        }
        self.sets.insert(set.token, set);
        Ok(id)
    }

    fn new_contact(&mut self, key: &ContactKey, path: &str) -> ContactId {
        self.next_contact += 1;
        let id = self.next_contact;
        let contact = Contact {
            key: key.clone(),
            path: path.to_owned(),
            sets: Vec::new(),
            current: None,
            impus: Vec::new(),
            aors: Vec::new(),
        };
        self.by_key.insert(key.clone(), id);
        let siblings = self.by_impi.entry(key.impi.clone()).or_default();
        siblings.push(id);
        self.by_path.insert(path.to_owned(), id);
        self.contacts.insert(id, contact);
        id
    }

    /// SM12 is about to leave through this set: it is established, for `granted`
    /// milliseconds or as long as the old ones, whatever is longer (clause 7.4.2a).
    /// Called again for a repeated SM12 it changes nothing.
    pub fn confirm(&mut self, token: SetToken, now: u64, granted: u64) {
        let Some(set) = self.sets.get(&token) else {
            return;
        };
        if set.state != SetState::Registration {
            return;
        }
        let (id, over) = (set.contact, set.over);
        let others: Vec<_> = self.others(id, token);
        let old_end = over
            .and_then(|t| self.sets.get(&t))
            .map_or(0, |s| s.deadline);
        self.changes.push(Change::Activate(token));
        self.update(token, |set| {
            set.state = SetState::Established;
            set.deadline = old_end.max(now.saturating_add(granted));
            set.reason = RemoveReason::Expired;
        });
        let keep = over.filter(|t| {
            self.sets
                .get(t)
                .is_some_and(|s| s.state == SetState::Established)
        });
        for other in others {
            // SM1 in clear: the UE has lost its old sets, so all go. Else the one that
            // protected SM1 stays in use until the new one is heard of.
            if Some(other) != keep {
                self.remove_set(other, RemoveReason::Replaced);
            }
        }
        if let Some(contact) = self.contacts.get_mut(&id) {
            contact.current = keep.or(Some(token));
        }
        if let Some(old) = keep {
            self.arm(old);
        }
    }

    /// A message came over this set. When it is newer than the current one it takes
    /// over for requests to the UE.
    pub fn heard(&mut self, token: SetToken, now: u64) {
        let Some(set) = self
            .sets
            .get(&token)
            .filter(|s| s.state == SetState::Established)
        else {
            return;
        };
        let Some(from) = self.contacts.get(&set.contact).and_then(|c| c.current) else {
            return;
        };
        if from < token {
            self.switch(from, token, now);
        }
    }

    fn switch(&mut self, from: SetToken, to: SetToken, now: u64) {
        let Some(id) = self.sets.get(&to).map(|s| s.contact) else {
            return;
        };
        if let Some(contact) = self.contacts.get_mut(&id) {
            contact.current = Some(to);
        }
        self.changes.push(Change::Switched { from, to });
        let until = now.saturating_add(self.timers.transaction);
        self.update(from, |set| {
            set.state = SetState::Replaced;
            set.deadline = set.deadline.min(until);
            set.reason = RemoveReason::Replaced;
        });
    }

    /// A registration without authentication was refreshed: the life of the latest
    /// established set never shrinks. Gives that set.
    pub fn refresh(&mut self, id: ContactId, now: u64, granted: u64) -> Option<SetToken> {
        let contact = self.contacts.get(&id)?;
        let established = |t: &&SetToken| {
            self.sets
                .get(t)
                .is_some_and(|s| s.state == SetState::Established)
        };
        let token = contact.sets.iter().rev().find(established).copied()?;
        let until = now.saturating_add(granted);
        self.update(token, |set| set.deadline = set.deadline.max(until));
        Some(token)
    }

    /// Notes what a registration's 200 says of identities. The default one is the
    /// first of `associated`.
    pub fn registered(&mut self, id: ContactId, aor: &str, associated: Vec<String>) {
        let Some(contact) = self.contacts.get_mut(&id) else {
            return;
        };
        if !contact.aors.iter().any(|a| a == aor) {
            contact.aors.push(aor.to_owned());
        }
        if !associated.is_empty() {
            contact.impus = associated;
        } else if !contact.impus.iter().any(|a| a == aor) {
            contact.impus.push(aor.to_owned());
        }
    }

    /// An address of record is de-registered. When it was the last one, all sets of
    /// the contact go after a while, so that the 200 still leaves through one. Says whether it was.
    pub fn deregister(&mut self, id: ContactId, aor: &str, now: u64) -> bool {
        let Some(contact) = self.contacts.get_mut(&id) else {
            return false;
        };
        contact.aors.retain(|a| a != aor);
        if !contact.aors.is_empty() {
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
        contact.aors.clear();
        contact.current = None;
        for token in contact.sets.clone() {
            self.linger(token, now, RemoveReason::Deregistered);
        }
    }

    /// The set carries one more answer and then goes.
    pub fn linger(&mut self, token: SetToken, now: u64, why: RemoveReason) {
        let until = now.saturating_add(self.timers.linger);
        self.update(token, |set| {
            set.state = SetState::Lingering;
            set.deadline = set.deadline.min(until);
            set.reason = why;
        });
    }

    /// A failure answer leaves through a registration set: its outbound goes live
    /// for that, and it goes soon (clause 7.4.2a, last but two).
    pub fn fail(&mut self, token: SetToken, now: u64) {
        if self
            .sets
            .get(&token)
            .is_some_and(|s| s.state == SetState::Registration)
        {
            self.changes.push(Change::Activate(token));
            self.linger(token, now, RemoveReason::Aborted);
        }
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
        if set.state != SetState::Registration {
            self.changes.push(Change::Retire(token));
        }
        self.changes.push(Change::Remove(token, why));
        self.forget(set.contact, token);
    }

    /// Takes a set out of its contact; a contact without sets goes.
    fn forget(&mut self, id: ContactId, token: SetToken) {
        let Some(contact) = self.contacts.get_mut(&id) else {
            return;
        };
        contact.sets.retain(|t| *t != token);
        if contact.current == Some(token) {
            let established = |t: &&SetToken| {
                self.sets
                    .get(t)
                    .is_some_and(|s| s.state == SetState::Established)
            };
            contact.current = contact.sets.iter().rev().find(established).copied();
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

    /// When something is due, in milliseconds.
    pub fn next_timeout(&self) -> Option<u64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: u64) {
        while let Some((at, token)) = self.wakes.first().copied() {
            if at > now {
                return;
            }
            self.wakes.remove(&(at, token));
            let Some(set) = self.sets.get(&token) else {
                continue;
            };
            if set.deadline <= now {
                let (id, why) = (set.contact, set.reason);
                let next = self.newer(id, token);
                if let Some(to) = next.filter(|_| {
                    self.contacts
                        .get(&id)
                        .is_some_and(|c| c.current == Some(token))
                }) {
                    self.changes.push(Change::Switched { from: token, to });
                }
                self.remove_set(token, why);
            } else if let Some(to) = self.newer(set.contact, token) {
                self.switch(token, to, now);
            } else {
                self.arm(token);
            }
        }
    }

    /// A newer established set of the contact.
    fn newer(&self, id: ContactId, token: SetToken) -> Option<SetToken> {
        let sets = &self.contacts.get(&id)?.sets;
        let newer = |t: &&SetToken| {
            **t > token
                && self
                    .sets
                    .get(t)
                    .is_some_and(|s| s.state == SetState::Established)
        };
        sets.iter().rev().find(newer).copied()
    }

    fn others(&self, id: ContactId, token: SetToken) -> Vec<SetToken> {
        let sets = self
            .contacts
            .get(&id)
            .map(|c| c.sets.as_slice())
            .unwrap_or_default();
        sets.iter().copied().filter(|t| *t != token).collect()
    }

    fn update(&mut self, token: SetToken, change: impl FnOnce(&mut SaSet)) {
        if let Some(set) = self.sets.get_mut(&token) {
            change(set);
            self.arm(token);
        }
    }

    /// Sets the one wake of a set: its deadline, or before it the moment at which a
    /// newer set takes over unheard.
    fn arm(&mut self, token: SetToken) {
        let Some(set) = self.sets.get(&token) else {
            return;
        };
        let waits = set.state == SetState::Established && self.newer(set.contact, token).is_some();
        let early = if waits { self.timers.short_left } else { 0 };
        let (old, new) = (set.wake, set.deadline.saturating_sub(early));
        self.wakes.remove(&(old, token));
        self.wakes.insert((new, token));
        if let Some(set) = self.sets.get_mut(&token) {
            set.wake = new;
        }
    }
}
