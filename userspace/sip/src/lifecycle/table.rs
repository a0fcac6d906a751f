//! The life of sets that are there (TS 33.203 clause 7.4.2a).

use super::{Change, ContactId, RemoveReason, SaSet, SetState, Table};
use crate::sa_set::SetToken;

impl Table {
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
        let old = |s: &&SaSet| matches!(s.state, SetState::Established | SetState::Replaced);
        let old_life = self.sets_of(id).filter(old).map(|s| s.life).max();
        let life = now.saturating_add(granted).max(old_life.unwrap_or(0));
        self.update(token, |set| {
            set.state = SetState::Established;
            set.life = life;
            set.deadline = life;
            set.reason = RemoveReason::Expired;
        });
        let established = |t: &SetToken| {
            let set = self.sets.get(t);
            set.is_some_and(|s| s.state == SetState::Established)
        };
        let keep = over.filter(established);
        let others: Vec<_> = self.sets_of(id).map(|s| s.token).collect();
        for other in others {
            // SM1 in clear: the UE has lost its old sets, so all go. Else the one that
            // protected SM1 stays in use until the new one is heard of.
            if other != token && Some(other) != keep {
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

    /// SM7 came over this registration set: its UE has proven who it is, so what else
    /// is unfinished of the contact goes now at the latest (clause 7.3.1.4).
    pub fn answered(&mut self, token: SetToken) {
        let Some(set) = self.sets.get(&token) else {
            return;
        };
        let others = self.pending_of(set.contact).map(|s| s.token);
        let others: Vec<_> = others.filter(|t| *t != token).collect();
        for other in others {
            self.remove_set(other, RemoveReason::Aborted);
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

    /// The old set serves what is pending: transactions that are held, and for their
    /// longest time those that the UE has begun and we have not seen yet.
    fn switch(&mut self, from: SetToken, to: SetToken, now: u64) {
        let Some(id) = self.sets.get(&to).map(|s| s.contact) else {
            return;
        };
        if let Some(contact) = self.contacts.get_mut(&id) {
            contact.current = Some(to);
        }
        self.changes.push(Change::Switched { from, to });
        let grace = now.saturating_add(self.timers.transaction);
        self.update(from, |set| {
            set.state = SetState::Replaced;
            set.grace = grace;
            set.reason = RemoveReason::Replaced;
            set.serve(now);
        });
    }

    /// A transaction begins over this set: it is pending until [`Table::let_go`], and
    /// the set stays that long when a newer one replaces it, but not past its lifetime.
    /// False, and nothing is to let go: a newer one has done so already. What begins on
    /// an old set all the same does not keep it.
    pub fn hold(&mut self, token: SetToken) -> bool {
        let set = self.sets.get_mut(&token);
        let Some(set) = set.filter(|s| s.state != SetState::Replaced) else {
            return false;
        };
        set.pending += 1;
        true
    }

    /// A transaction over this set is completed or has timed out.
    pub fn let_go(&mut self, token: SetToken, now: u64) {
        self.update(token, |set| {
            set.pending = set.pending.saturating_sub(1);
            set.serve(now);
        });
    }

    /// A registration without authentication was refreshed: the life of the latest
    /// established set never shrinks. Gives that set.
    pub fn refresh(&mut self, id: ContactId, now: u64, granted: u64) -> Option<SetToken> {
        let token = self.latest(id)?;
        let until = now.saturating_add(granted);
        self.update(token, |set| {
            set.life = set.life.max(until);
            set.deadline = set.life;
        });
        Some(token)
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

    /// The registration of this set has failed, and it goes soon. Gives the set through
    /// which the failure leaves: the old one that protected SM1, else this one (clause
    /// 7.4.2a, last but two; ARCHITECTURE, reading A-09).
    pub fn fail(&mut self, token: SetToken, now: u64) -> SetToken {
        let Some(set) = self.sets.get(&token) else {
            return token;
        };
        let carries = |t: &SetToken| {
            let set = self.sets.get(t);
            set.is_some_and(|s| matches!(s.state, SetState::Established | SetState::Replaced))
        };
        let (old, state) = (set.over.filter(carries), set.state);
        if state == SetState::Registration {
            self.linger(token, now, RemoveReason::Aborted);
        }
        old.unwrap_or(token)
    }

    /// The set is installed: its outbound goes live at once. SM7 may come over TCP, and
    /// then the answers of the handshake leave through it. Nothing else does before SM12,
    /// and no other set has its addresses and ports.
    pub fn activate(&mut self, token: SetToken) {
        if let Some(set) = self.sets.get_mut(&token).filter(|set| !set.active) {
            set.active = true;
            self.changes.push(Change::Activate(token));
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
            let (id, why) = (set.contact, set.reason);
            let next = self.newer(id, token);
            if set.deadline <= now {
                let current = self.contacts.get(&id).and_then(|c| c.current);
                if let Some(to) = next.filter(|_| current == Some(token)) {
                    self.changes.push(Change::Switched { from: token, to });
                }
                self.remove_set(token, why);
            } else if let Some(to) = next {
                self.switch(token, to, now);
            } else {
                self.arm(token);
            }
        }
    }

    /// A newer established set of the contact.
    fn newer(&self, id: ContactId, token: SetToken) -> Option<SetToken> {
        self.latest(id).filter(|latest| *latest > token)
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

impl SaSet {
    /// When a replaced set goes: with its last pending transaction, but not before the
    /// UE's own can have timed out, and not after its lifetime.
    fn serve(&mut self, now: u64) {
        if self.state == SetState::Replaced {
            let idle = if self.pending == 0 {
                self.grace.max(now)
            } else {
                self.life
            };
            self.deadline = idle.min(self.life);
        }
    }
}
