//! What this daemon has in the kernel's tables: the sets' states and policies, and who
//! has a policy that several sets want. No keys, no I/O.

use std::collections::{BTreeMap, HashMap};

use gm_dataplane::SetId;
use gm_xfrm::kernel::plan::{Dir, Plan};
use gm_xfrm::kernel::{Algorithms, Policy, PolicyDir, PolicyId, StateId};

/// One SA.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its slot in the database.
    pub slot: u32,
    /// Its state, without keys, and its policies.
    pub plan: Plan,
    /// Outbound: it is to have the traffic, as soon as the phone's port is known.
    pub wanted: bool,
}

impl Entry {
    /// The phone's UDP port behind its NAT as the state has it, 0: not known; `None`:
    /// there is no UDP around ESP.
    pub fn phone_port(&self) -> Option<u16> {
        let encap = self.plan.state.encap?;
        Some(match self.plan.dir {
            Dir::In => encap.sport,
            Dir::Out => encap.dport,
        })
    }

    /// Outbound to a phone whose port behind its NAT is not known yet.
    pub fn is_unaddressed(&self) -> bool {
        self.plan.dir == Dir::Out && self.phone_port() == Some(0)
    }
}

/// All sets.
#[derive(Debug, Default)]
pub struct Book {
    sets: BTreeMap<SetId, Vec<Entry>>,
    states: HashMap<StateId, SetId>,
    /// Whose SA an outbound policy leads to.
    out: HashMap<PolicyId, StateId>,
    /// The sets that an inbound policy is for, each with its own of this name: that of
    /// the last one is in the kernel.
    inbound: HashMap<PolicyId, Vec<(SetId, Policy)>>,
    base: HashMap<PolicyId, Policy>,
}

impl Book {
    /// Holds the base policies only.
    pub fn new(base: &[Policy]) -> Book {
        Book {
            base: base.iter().map(|p| (p.id, p.clone())).collect(),
            ..Book::default()
        }
    }

    /// The base policies.
    pub fn base(&self) -> impl Iterator<Item = &Policy> {
        self.base.values()
    }

    /// A set is in the kernel, its outbound SAs without policies.
    pub fn enter(&mut self, set: SetId, entries: impl IntoIterator<Item = (u32, Plan)>) {
        let entries = entries.into_iter().map(|(slot, mut plan)| {
            plan.state.algorithms = Algorithms::default();
            self.states.insert(plan.state.id, set);
            if plan.dir == Dir::In {
                for policy in &plan.policies {
                    let users = self.inbound.entry(policy.id).or_default();
                    users.push((set, policy.clone()));
                }
            }
            Entry {
                slot,
                plan,
                wanted: false,
            }
        });
        let entries = entries.collect();
        self.sets.insert(set, entries);
    }

    /// The SAs of a set; none where there is no such set.
    pub fn entries(&self, set: SetId) -> &[Entry] {
        self.sets.get(&set).map(Vec::as_slice).unwrap_or_default()
    }

    /// The same, to be changed.
    pub fn entries_mut(&mut self, set: SetId) -> &mut [Entry] {
        self.sets
            .get_mut(&set)
            .map(Vec::as_mut_slice)
            .unwrap_or_default()
    }

    /// All SAs.
    pub fn all(&self) -> impl Iterator<Item = (SetId, &Entry)> {
        let sets = self.sets.iter();
        sets.flat_map(|(set, entries)| entries.iter().map(|entry| (*set, entry)))
    }

    /// The numbers of all sets.
    pub fn sets(&self) -> Vec<SetId> {
        self.sets.keys().copied().collect()
    }

    /// The set that a state belongs to.
    pub fn set_of(&self, state: &StateId) -> Option<SetId> {
        self.states.get(state).copied()
    }

    /// The outbound policies of these SAs lead to them from now on.
    pub fn leads(&mut self, plans: &[Plan]) {
        for plan in plans {
            for policy in &plan.policies {
                self.out.insert(policy.id, plan.state.id);
            }
        }
    }

    /// Those of these SAs that led to them lead nowhere from now on.
    pub fn leads_no_more(&mut self, plans: &[Plan]) {
        for plan in plans {
            for policy in &plan.policies {
                if self.out.get(&policy.id) == Some(&plan.state.id) {
                    self.out.remove(&policy.id);
                }
            }
        }
    }

    /// Another set than this one needs an inbound policy.
    pub fn is_needed(&self, policy: &Policy, but: SetId) -> bool {
        let users = self.inbound.get(&policy.id);
        policy.id.dir == PolicyDir::In
            && users.is_some_and(|users| users.iter().any(|(user, _)| *user != but))
    }

    /// A set is in the kernel no more.
    pub fn leave(&mut self, set: SetId) {
        let entries = self.sets.remove(&set).unwrap_or_default();
        for Entry { plan, .. } in &entries {
            self.states.remove(&plan.state.id);
            for policy in &plan.policies {
                if let Some(users) = self.inbound.get_mut(&policy.id) {
                    users.retain(|(user, _)| *user != set);
                }
                if self.out.get(&policy.id) == Some(&plan.state.id) {
                    self.out.remove(&policy.id);
                }
            }
        }
        self.inbound.retain(|_, users| !users.is_empty());
    }

    /// The policy of this name as it has to be in the kernel; `None`: ours or not, we
    /// want none.
    pub fn policy(&self, id: &PolicyId) -> Option<&Policy> {
        if let Some((_, policy)) = self.inbound.get(id).and_then(|users| users.last()) {
            return Some(policy);
        }
        if let Some(state) = self.out.get(id) {
            let set = self.states.get(state)?;
            let entry = self
                .entries(*set)
                .iter()
                .find(|e| e.plan.state.id == *state)?;
            return entry.plan.policies.iter().find(|policy| policy.id == *id);
        }
        self.base.get(id)
    }

    /// All policies that have to be in the kernel: what blocks comes first.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        let inbound = self.inbound.values().filter_map(|users| users.last());
        let inbound = inbound.map(|(_, policy)| policy);
        let out = self.out.keys().filter_map(|id| self.policy(id));
        self.base.values().chain(inbound).chain(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Selector, Suite};
    use gm_xfrm::kernel::plan;

    fn sa(spi: u32, dir: Dir, set: u64) -> Plan {
        let (ue, pcscf) = ("192.0.2.10".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let (src, dst) = match dir {
            Dir::In => (ue, pcscf),
            Dir::Out => (pcscf, ue),
        };
        let keys = EspKeys::expand(
            Suite::NullAesGcm,
            &Ik::from_bytes([1; 16]),
            &Ck::from_bytes([2; 16]),
        );
        let spec = SaSpec {
            spi,
            mode: Mode::Trans,
            selector: Selector {
                src,
                dst,
                src_port: Some(5001),
                dst_port: Some(5066),
                proto: SelProto::UdpTcp,
            },
            suite: Suite::NullAesGcm,
            outer: None,
            esn: false,
            replay_window: 64,
        };
        plan::sa(&spec, &keys, dir, plan::reqid(set))
    }

    fn spis<'a>(policies: impl Iterator<Item = &'a Policy>) -> Vec<u32> {
        let mut spis: Vec<u32> = policies
            .filter(|p| p.id.dir == PolicyDir::Out)
            .flat_map(|p| p.templates.iter().map(|t| t.spi))
            .collect();
        spis.sort_unstable();
        spis
    }

    #[test]
    fn an_inbound_policy_stays_while_the_other_set_of_a_renewal_needs_it() {
        let (old, new) = (SetId(1), SetId(2));
        let mut book = Book::default();
        book.enter(old, [(0, sa(1000, Dir::In, 1)), (1, sa(2000, Dir::Out, 1))]);
        book.enter(new, [(2, sa(1001, Dir::In, 2)), (3, sa(2001, Dir::Out, 2))]);
        let policy = sa(1000, Dir::In, 1).policies.remove(0);
        assert!(book.is_needed(&policy, old) && book.is_needed(&policy, new));
        assert_eq!(book.policies().count(), 2, "UDP and TCP, shared");
        book.leave(old);
        assert!(!book.is_needed(&policy, new));
        assert!(book.policy(&policy.id).is_some());
        assert_eq!(book.set_of(&sa(1000, Dir::In, 1).state.id), None);
        book.leave(new);
        assert_eq!(book.policies().count(), 0);
    }

    #[test]
    fn an_inbound_policy_is_the_last_sets_own() {
        let mut book = Book::default();
        let (old, mut new) = (sa(1000, Dir::In, 1), sa(1001, Dir::In, 2));
        for policy in &mut new.policies {
            policy.templates[0].wrap = gm_xfrm::kernel::Wrap::Tunnel;
        }
        book.enter(SetId(1), [(0, old.clone())]);
        book.enter(SetId(2), [(1, new.clone())]);
        let (was, is) = (&old.policies[0], &new.policies[0]);
        assert_eq!(was.id, is.id);
        assert_eq!(book.policy(&is.id), Some(is));
        book.leave(SetId(2));
        assert_eq!(book.policy(&is.id), Some(was));
    }

    #[test]
    fn an_outbound_policy_is_the_newest_sets_until_that_gives_it_up() {
        let (old, new) = (sa(2000, Dir::Out, 1), sa(2001, Dir::Out, 2));
        let mut book = Book::default();
        book.enter(SetId(1), [(0, old.clone())]);
        book.enter(SetId(2), [(1, new.clone())]);
        assert_eq!(book.policies().count(), 0, "installed is not activated");
        book.leads(std::slice::from_ref(&old));
        assert_eq!(spis(book.policies()), [2000, 2000]);
        book.leads(std::slice::from_ref(&new));
        // The old set's end changes nothing any more.
        book.leads_no_more(std::slice::from_ref(&old));
        book.leave(SetId(1));
        assert_eq!(spis(book.policies()), [2001, 2001]);
        book.leads_no_more(std::slice::from_ref(&new));
        assert_eq!(book.policies().count(), 0);
    }

    #[test]
    fn the_book_holds_no_keys() {
        let mut book = Book::default();
        book.enter(SetId(1), [(0, sa(1000, Dir::In, 1))]);
        let [entry] = book.entries(SetId(1)) else {
            panic!("one");
        };
        assert_eq!(entry.plan.state.algorithms, Algorithms::default());
    }
}
