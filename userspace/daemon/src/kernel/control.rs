//! The control side: the database decides, the kernel's tables follow, and the book
//! knows what is there.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::channel::Sender;
use gm_dataplane::{Event, NewSa, Past, SaStatus, SetId};
use gm_sadb::{Change, Sadb};
use gm_xfrm::kernel::plan::{self, Plan};
use gm_xfrm::kernel::sets::{self, With};
use gm_xfrm::kernel::{PolicyDir, PolicyId, State, StateId, Subject, Xfrm, XfrmError};

use super::book::{Book, Entry};
use super::report::{self, Totals};
use super::{KernelError, Settings, base};

/// SPIs that are tried when the kernel has one already.
const TRIES: usize = 16;

/// Everything that commands need. What happens in the kernel happens in here alone, but
/// for what others do to it.
pub struct Control {
    pub(super) settings: Settings,
    pub(super) sadb: Sadb,
    pub(super) xfrm: Xfrm,
    pub(super) book: Book,
    pub(super) past: Past,
    /// What sets had counted that are gone.
    pub(super) totals: Totals,
    pub(super) events: Sender<Event>,
    /// They are open as long as the data plane is.
    pub(super) encap: Vec<UdpSocket>,
}

impl Control {
    /// An SPI for an inbound SA that nobody has: not here, and not in the kernel.
    pub fn reserve(&mut self, avoid: &[u32]) -> Result<u32, KernelError> {
        let mut avoid = avoid.to_vec();
        loop {
            let spi = self.sadb.reserve(&avoid)?.spi;
            let mut taken = false;
            for address in &self.settings.addresses {
                match self.xfrm.state(StateId::esp(*address, spi)) {
                    Ok(_) => taken = true,
                    Err(error) if error.is_missing() => {}
                    Err(error) => {
                        self.sadb.unreserve(spi);
                        return Err(error.into());
                    }
                }
            }
            if !taken {
                return Ok(spi);
            }
            self.sadb.unreserve(spi);
            avoid.push(spi);
            if avoid.len() > TRIES {
                let slots = self.sadb.region().slots();
                return Err(gm_dataplane::SadbError::Full { wanted: 1, slots }.into());
            }
        }
    }

    /// All SAs of a set or none.
    pub fn install(&mut self, sas: Vec<NewSa>) -> Result<SetId, KernelError> {
        let set = self.sadb.new_set();
        let slots = self.sadb.install(set, &sas)?.slots;
        let plans: Vec<Plan> = sas
            .iter()
            .zip(&slots)
            .map(|(sa, slot)| self.plan(set, sa, *slot))
            .collect();
        let made = self.are_free(&plans).and_then(|()| {
            sets::install(&mut self.xfrm, &plans, With::InboundPolicies)?;
            Ok(())
        });
        if let Err(error) = made {
            // What the kernel had is taken back; so is what the database has.
            self.sadb.remove(set);
            self.sadb.release(set)?;
            return Err(error);
        }
        self.book.enter(set, slots.into_iter().zip(plans));
        self.past.installed(set);
        Ok(set)
    }

    /// The kernel's side of an SA, with the numbers that the database has found for it.
    fn plan(&self, set: SetId, sa: &NewSa, slot: u32) -> Plan {
        let last = self.sadb.region().slot(slot).map_or(0, |slot| {
            let hot = slot.hot();
            hot.seq.load(Relaxed).max(hot.top.load(Relaxed))
        });
        let dir = crate::live::direction(sa.dir);
        let numbers = plan::numbers(&sa.spec, dir, Some(last + 1));
        plan::sa_with(&sa.spec, &sa.keys, dir, plan::reqid(set.0), numbers)
    }

    /// A state that is there already is somebody else's: with its keys, ours would be
    /// taken for installed.
    fn are_free(&mut self, plans: &[Plan]) -> Result<(), KernelError> {
        for plan in plans {
            match self.xfrm.state(plan.state.id) {
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    let subject = Subject::State(plan.state.id);
                    return Err(XfrmError::Exists(subject).into());
                }
            }
        }
        Ok(())
    }

    /// The set's outbound SAs take over.
    pub fn activate(&mut self, set: SetId) -> Result<(), KernelError> {
        let changes = self.sadb.activate(set)?;
        let slots = |select: bool| -> Vec<u32> {
            let slot = |change: &Change| match change {
                Change::Select { slot, .. } if select => Some(*slot),
                Change::Deselect { slot, .. } if !select => Some(*slot),
                _ => None,
            };
            changes.iter().filter_map(slot).collect()
        };
        let (selected, deselected) = (slots(true), slots(false));
        for entry in self.book.entries_mut(set) {
            entry.wanted |= selected.contains(&entry.slot);
        }
        self.lead(set)?;
        // What still leads to an SA that stands by now: its successor is not addressed yet.
        let old: Vec<(SetId, Plan)> = self
            .book
            .all()
            .filter(|(_, entry)| deselected.contains(&entry.slot))
            .map(|(set, entry)| (set, entry.plan.clone()))
            .collect();
        for (set, plan) in old {
            for entry in self.book.entries_mut(set) {
                entry.wanted &= entry.plan.state.id != plan.state.id;
            }
            self.lead_no_more(&[plan])?;
        }
        Ok(())
    }

    /// Gives the traffic to the set's SAs that want it and have an address to send to.
    fn lead(&mut self, set: SetId) -> Result<(), KernelError> {
        let ready = |entry: &&Entry| entry.wanted && !entry.is_unaddressed();
        let entries = self.book.entries(set).iter();
        let plans: Vec<Plan> = entries.filter(ready).map(|e| e.plan.clone()).collect();
        sets::activate(&mut self.xfrm, &plans)?;
        self.book.leads(&plans);
        Ok(())
    }

    fn lead_no_more(&mut self, plans: &[Plan]) -> Result<(), KernelError> {
        // The book first: what the kernel then says of it is no surprise.
        self.book.leads_no_more(plans);
        sets::retire(&mut self.xfrm, plans)?;
        Ok(())
    }

    /// Outbound off.
    pub fn retire(&mut self, set: SetId) -> Result<(), KernelError> {
        self.sadb.retire(set);
        for entry in self.book.entries_mut(set) {
            entry.wanted = false;
        }
        let plans = self.plans(set);
        self.lead_no_more(&plans)
    }

    /// The set goes: first what sends, then what receives.
    pub fn remove(&mut self, set: SetId) -> Result<(), KernelError> {
        let plans = self.plans(set);
        let rows = self.list_set(set)?;
        self.sadb.remove(set);
        self.lead_no_more(&plans)?;
        self.keep_numbers(&plans, set)?;
        let book = &self.book;
        match sets::remove(&mut self.xfrm, &plans, |policy| book.is_needed(policy, set)) {
            // Somebody has put a state of his own in the place of ours.
            Err(error) if matches!(*error.why, sets::Reason::NotOurs) => {
                tracing::warn!(set = set.0, "{error}");
            }
            done => drop(done?),
        }
        self.book.leave(set);
        // Where sets want different things of one inbound policy, it is what the last one
        // that is there wants.
        for is in plans.iter().flat_map(|plan| &plan.policies) {
            if let Some(wanted) = self.book.policy(&is.id)
                && is.id.dir == PolicyDir::In
                && !wanted.is_same(is)
            {
                self.xfrm.update_policy(wanted)?;
            }
        }
        self.sadb.release(set)?;
        self.totals.add(&rows);
        self.past.removed(set, rows);
        Ok(())
    }

    fn plans(&self, set: SetId) -> Vec<Plan> {
        let entries = self.book.entries(set).iter();
        entries.map(|entry| entry.plan.clone()).collect()
    }

    /// Notes how far the numbers went, for key and SPI coming again.
    fn keep_numbers(&mut self, plans: &[Plan], set: SetId) -> Result<(), KernelError> {
        for (plan, entry) in plans.iter().zip(self.book.entries(set)) {
            match self.xfrm.state(plan.state.id) {
                Ok(state) => {
                    if let Some(slot) = self.sadb.region().slot(entry.slot) {
                        slot.hot().seq.store(state.numbers.seq, Relaxed);
                        slot.hot().top.store(state.numbers.top, Relaxed);
                    }
                }
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// An authentic packet of an inbound state has come from another UDP port than the
    /// state knows. The first one counts; later ones where they are to be followed. From
    /// another address none counts: what is sent goes to the one that was negotiated.
    pub fn mapped(&mut self, id: &StateId, from: (IpAddr, u16)) -> Result<(), KernelError> {
        let (address, port) = from;
        let Some(set) = self.book.set_of(id) else {
            return Ok(());
        };
        let entries = self.book.entries(set);
        let state = entries.iter().find(|e| e.plan.state.id == *id);
        if state.is_none_or(|entry| entry.plan.state.src != address) {
            return Ok(());
        }
        let sends = entries.iter().filter(|e| e.plan.dir == plan::Dir::Out);
        let sends: Vec<u16> = sends.filter_map(Entry::phone_port).collect();
        let is_settled = entries
            .iter()
            .filter_map(Entry::phone_port)
            .all(|p| p == port);
        let moves = sends.iter().any(|p| *p != 0 && *p != port);
        if port == 0 || is_settled || (moves && !self.settings.follow_encap_port) {
            return Ok(());
        }
        let is_news = sends.iter().any(|p| *p != port);
        let mut slots: Vec<(usize, u32)> = entries.iter().map(|e| e.slot).enumerate().collect();
        // What sends comes first: an answer may be on its way.
        slots.sort_by_key(|(at, _)| entries.get(*at).map(|e| e.plan.dir == plan::Dir::In));
        for (at, slot) in slots {
            let Some(entry) = self.book.entries_mut(set).get_mut(at) else {
                continue;
            };
            let (dir, name) = (entry.plan.dir, entry.plan.state.id);
            let Some(mut encap) = entry.plan.state.encap else {
                continue;
            };
            match dir {
                plan::Dir::In => encap.sport = port,
                plan::Dir::Out => encap.dport = port,
            }
            // The kernel's own, with its keys. One that somebody has removed does not
            // keep the others from it.
            let updated = self.xfrm.state(name).and_then(|mut state| {
                state.encap = Some(encap);
                self.xfrm.update_state(&state)
            });
            base::gone(updated)?;
            if let Some(entry) = self.book.entries_mut(set).get_mut(at) {
                entry.plan.state.encap = Some(encap);
            }
            if dir == plan::Dir::Out
                && let Some(slot) = self.sadb.region().slot(slot)
            {
                slot.hot().encap_port.store(u32::from(port), Relaxed);
            }
        }
        self.lead(set)?;
        if is_news {
            self.announce(Event::EncapPortLearned { set, port });
        }
        Ok(())
    }

    /// The set of a state that is in the book and not in the kernel.
    pub fn is_lost(&mut self, id: &StateId) -> Result<Option<SetId>, KernelError> {
        let Some(set) = self.book.set_of(id) else {
            return Ok(None);
        };
        match self.xfrm.state(*id) {
            Ok(_) => Ok(None),
            Err(error) if error.is_missing() => Ok(Some(set)),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts back what somebody else has taken away or changed of the policies that have to
    /// be there. How many those were.
    pub fn mend_policies(&mut self) -> Result<usize, KernelError> {
        let there = self.xfrm.policies()?;
        let there: HashMap<PolicyId, _> = there
            .into_iter()
            .map(|policy| (policy.id, policy))
            .collect();
        let mut mended = 0;
        for policy in self.book.policies() {
            if there.get(&policy.id).is_none_or(|is| !is.is_same(policy)) {
                self.xfrm.update_policy(policy)?;
                mended += 1;
            }
        }
        Ok(mended)
    }

    /// All SAs, and those of them that somebody else has taken out of the kernel.
    pub fn list(&mut self) -> Result<(Vec<SaStatus>, HashSet<StateId>), KernelError> {
        let states = match self.book.all().next() {
            Some(_) => self.xfrm.states()?,
            None => Vec::new(),
        };
        let missing = report::missing(self, &states);
        Ok((report::rows(self, states, None), missing))
    }

    /// An outbound SA may be at the end of its numbers: it is that old, or did not begin
    /// at 1.
    pub fn may_be_low(&self, young_ms: u64) -> bool {
        self.book.all().any(|(set, entry)| {
            entry.plan.dir == plan::Dir::Out
                && (entry.plan.state.numbers.seq > 0
                    || self.past.age_ms(set).is_some_and(|ms| ms >= young_ms))
        })
    }

    fn list_set(&mut self, set: SetId) -> Result<Vec<SaStatus>, KernelError> {
        let mut states: Vec<State> = Vec::new();
        for plan in self.plans(set) {
            match self.xfrm.state(plan.state.id) {
                Ok(state) => states.push(state),
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(report::rows(self, states, Some(set)))
    }

    /// Takes everything out of the kernel's tables: the sets, then what blocks. What
    /// cannot be removed stays, and the first error is the one to tell.
    pub fn stop(&mut self) -> Result<(), KernelError> {
        let mut first = Ok(());
        for set in self.book.sets() {
            let done = self.remove(set);
            first = first.and(done);
        }
        for policy in self.book.base() {
            let done = base::take_away(&mut self.xfrm, policy);
            first = first.and(done.map_err(KernelError::from));
        }
        self.encap.clear();
        first
    }

    /// Tells whoever listens.
    pub fn announce(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}
