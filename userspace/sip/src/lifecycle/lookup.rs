//! Finding sets and contacts, and what a REGISTER may not choose (clause 7.1 rules 3 and 4).

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::{Contact, ContactId, ContactKey, SaSet, SetState, Table};
use crate::sa_set::SetToken;
use crate::sec_agree::Ends;

impl Table {
    /// The set whose inbound SA has this flow (clause 7.1 rule 4).
    pub fn by_flow(&self, ue: SocketAddr, local: SocketAddr) -> Option<&SaSet> {
        let set = self
            .by_flow
            .get(&(ue.ip(), ue.port(), local.port()))
            .and_then(|t| self.sets.get(t))?;
        (set.params.pcscf == local.ip()).then_some(set)
    }

    /// A set by name.
    pub fn set(&self, token: SetToken) -> Option<&SaSet> {
        self.sets.get(&token)
    }

    /// A contact by name.
    pub fn contact(&self, id: ContactId) -> Option<&Contact> {
        self.contacts.get(&id)
    }

    /// A contact by user and instance.
    pub fn by_key(&self, key: &ContactKey) -> Option<ContactId> {
        self.by_key.get(key).copied()
    }

    /// All contacts of a private identity, oldest first.
    pub fn contacts_of(&self, impi: &str) -> Vec<ContactId> {
        self.by_impi.get(impi).cloned().unwrap_or_default()
    }

    /// All contacts, in no order.
    pub fn contacts(&self) -> impl Iterator<Item = (ContactId, &Contact)> {
        self.contacts.iter().map(|(id, contact)| (*id, contact))
    }

    /// A contact by the user part of our Path.
    pub fn by_path(&self, path: &str) -> Option<ContactId> {
        self.by_path.get(path).copied()
    }

    /// A contact by the address and server port in its Contact; the newest when a phone
    /// has started anew there.
    pub fn by_server_port(&self, ue: SocketAddr) -> Option<ContactId> {
        let tokens = self.by_server_port.get(&(ue.ip(), ue.port()))?;
        let sets = tokens.iter().rev().filter_map(|t| self.sets.get(t));
        let mut live = sets.filter(|s| s.state == SetState::Established);
        live.next().map(|s| s.contact)
    }

    /// Unfinished sets of a contact: one, or two where one came over an established set
    /// and another one in clear.
    pub fn pending_of(&self, id: ContactId) -> impl Iterator<Item = &SaSet> {
        self.sets_of(id)
            .filter(|s| s.state == SetState::Registration)
    }

    /// The set of the latest successful authentication of a contact (clause 6.1.5).
    pub fn latest(&self, id: ContactId) -> Option<SetToken> {
        let established = |s: &&SaSet| s.state == SetState::Established;
        let latest = self.sets_of(id).filter(established).last()?;
        Some(latest.token)
    }

    /// The sets of a contact, oldest first.
    pub(super) fn sets_of(&self, id: ContactId) -> impl Iterator<Item = &SaSet> {
        let contact = self.contacts.get(&id);
        let tokens = contact.map(|c| c.sets.as_slice()).unwrap_or_default();
        tokens.iter().filter_map(|t| self.sets.get(t))
    }

    /// A client port of ours that no set of this UE uses with its server port, looked
    /// for behind the one that the current set uses: it must change (clause 7.4.0). When
    /// there is none, one of the sets that end before the new one enters.
    pub fn free_client_port(
        &self,
        range: &RangeInclusive<u16>,
        ue: SocketAddr,
        id: Option<ContactId>,
        ended: &[SetToken],
    ) -> Option<u16> {
        let current = id
            .and_then(|id| self.contacts.get(&id)?.current)
            .and_then(|t| self.sets.get(&t));
        let last = current.map(|s| s.params.pcscf_ends.port_c);
        let free = |port: &u16| !self.by_flow.contains_key(&(ue.ip(), ue.port(), *port));
        let behind = range
            .clone()
            .filter(|port| last.is_some_and(|last| *port > last))
            .find(free);
        let given_up = |port: &u16| {
            let user = self.by_flow.get(&(ue.ip(), ue.port(), *port));
            user.is_some_and(|t| ended.contains(t))
        };
        behind
            .or_else(|| range.clone().find(free))
            .or_else(|| range.clone().find(given_up))
    }

    /// Clause 7.1 rule 3 and M.7.1 rule 3: whether ports or SPIs that a REGISTER
    /// offers are those of a set that stays. Unfinished and ended sets of the same
    /// contact do not count: they go when the new one comes (ARCHITECTURE, readings ).
    pub fn collides(&self, key: &ContactKey, ue: IpAddr, ends: &Ends, port_ps: u16) -> bool {
        let own = self.by_key(key);
        let stays = |t: &SetToken| {
            let set = self.sets.get(t);
            set.is_some_and(|s| Some(s.contact) != own || !s.gives_way())
        };
        let other_user = |t: &SetToken| {
            let contact = self.sets.get(t).and_then(|s| self.contacts.get(&s.contact));
            contact.is_some_and(|c| c.key.impi != key.impi)
        };
        let server = self.by_server_port.get(&(ue, ends.port_s));
        self.taken(ue, ends, port_ps).any(stays)
            || server.is_some_and(|all| all.iter().any(other_user))
    }

    /// Sets that have the client port or an SPI of these.
    pub(super) fn taken(
        &self,
        ue: IpAddr,
        ends: &Ends,
        port_ps: u16,
    ) -> impl Iterator<Item = &SetToken> {
        let flow = self.by_flow.get(&(ue, ends.port_c, port_ps));
        let spis = [ends.spi_c, ends.spi_s].map(|spi| self.by_spi.get(&(ue, spi)));
        flow.into_iter().chain(spis.into_iter().flatten())
    }

    /// Clause 7.1 rule 3: whether the contact has as many sets as it may, so that a new
    /// one could not enter; or the identity as many registered contacts.
    pub fn is_full_for(&self, key: &ContactKey) -> Option<super::TableError> {
        let id = self.by_key(key);
        let staying = id.map_or(0, |id| self.sets_of(id).filter(|s| !s.gives_way()).count());
        if staying >= self.max_sets {
            return Some(super::TableError::TooManySets);
        }
        let siblings = self.by_impi.get(&key.impi).map(Vec::as_slice);
        let others = siblings.unwrap_or_default().iter();
        let registered = |other: &&ContactId| Some(**other) != id && self.latest(**other).is_some();
        if others.filter(registered).count() >= self.max_siblings {
            return Some(super::TableError::TooManyContacts);
        }
        None
    }
}

impl SaSet {
    /// Whether a newer challenge of the same contact ends it.
    pub(super) fn gives_way(&self) -> bool {
        matches!(self.state, SetState::Registration | SetState::Lingering)
    }
}
