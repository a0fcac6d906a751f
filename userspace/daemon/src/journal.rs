//! The last steps of each phone's registrations, for whoever asks later what
//! became of it. A bounded number of phones: those that have registered are
//! kept apart from strangers, whom anybody can make up.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use gm_api::control::FlowEvent;

/// Phones that have registered, and that have not.
const MOST: [usize; 2] = [16_384, 4096];

/// Steps that are kept of one phone, without what an SA of its set says too.
const STEPS: usize = 8;

/// What phones have done.
#[derive(Debug, Default)]
pub struct Journal {
    phones: HashMap<IpAddr, Phone>,
    /// By when they were last heard of: registered ones, strangers.
    order: [BTreeMap<u64, IpAddr>; 2],
    /// Whose the sets are.
    sets: HashMap<u64, IpAddr>,
    clock: u64,
    /// When the uplink went, until it is back.
    uplink_gone: Option<u64>,
}

#[derive(Debug)]
struct Phone {
    steps: VecDeque<FlowEvent>,
    sets: Vec<u64>,
    class: usize,
    heard: u64,
}

const REGISTERED: usize = 0;
const STRANGER: usize = 1;

impl Journal {
    /// Keeps a step, if it is some phone's.
    pub fn note(&mut self, event: &FlowEvent) {
        match event.step.as_str() {
            "uplink-gone" => self.uplink_gone = Some(event.time_ms),
            "uplink-back" => self.uplink_gone = None,
            _ => {}
        }
        let named = event.ue.as_ref().and_then(|ue| {
            let at: Option<SocketAddr> = ue.parse().ok();
            at.map(|at| at.ip()).or_else(|| ue.parse().ok())
        });
        let by_set = || event.set.and_then(|set| self.sets.get(&set).copied());
        let Some(address) = named.or_else(by_set) else {
            return;
        };
        self.clock += 1;
        let clock = self.clock;
        let phone = self.phones.entry(address).or_insert(Phone {
            steps: VecDeque::new(),
            sets: Vec::new(),
            class: STRANGER,
            heard: clock,
        });
        self.order[phone.class].remove(&phone.heard);
        if event.step == "SM12" {
            phone.class = REGISTERED;
        }
        phone.heard = clock;
        self.order[phone.class].insert(clock, address);
        if let Some(set) = event.set {
            if event.step == "removed" {
                phone.sets.retain(|s| *s != set);
                self.sets.remove(&set);
            } else if self.sets.insert(set, address) != Some(address) {
                phone.sets.push(set);
            }
        }
        if phone.steps.len() >= STEPS {
            phone.steps.pop_front();
        }
        phone.steps.push_back(FlowEvent {
            suite: None,
            mode: None,
            spis: BTreeMap::new(),
            ..event.clone()
        });
        let class = phone.class;
        if self.order[class].len() > MOST[class]
            && let Some((_, oldest)) = self.order[class].pop_first()
            && let Some(gone) = self.phones.remove(&oldest)
        {
            for set in gone.sets {
                self.sets.remove(&set);
            }
        }
    }

    /// Since when the uplink is gone, milliseconds since 1970; `None`: it is there.
    pub fn uplink_gone(&self) -> Option<u64> {
        self.uplink_gone
    }

    /// The steps of the phone with this address, the oldest first.
    pub fn of(&self, address: IpAddr) -> Vec<FlowEvent> {
        let steps = self.phones.get(&address).map(|phone| &phone.steps);
        steps.into_iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, ue: Option<String>, set: Option<u64>) -> FlowEvent {
        FlowEvent {
            step: name.into(),
            ue,
            set,
            ..FlowEvent::default()
        }
    }

    #[test]
    fn a_set_brings_its_phones_later_steps_home() {
        let mut journal = Journal::default();
        let ue = || Some("192.0.2.7:5060".to_owned());
        journal.note(&step("SM1", ue(), None));
        journal.note(&step("SM6", ue(), Some(3)));
        journal.note(&step("removed", None, Some(3)));
        journal.note(&step("refreshed", None, Some(3)));
        journal.note(&step("deregistered", None, None));
        let names = |at: &str| -> Vec<String> {
            let steps = journal.of(at.parse().unwrap());
            steps.into_iter().map(|s| s.step).collect()
        };
        assert_eq!(names("192.0.2.7"), ["SM1", "SM6", "removed"]);
        assert!(names("192.0.2.8").is_empty() && journal.sets.is_empty());
    }

    #[test]
    fn what_an_sa_says_too_is_not_kept() {
        let mut journal = Journal::default();
        let long = FlowEvent {
            suite: Some("hmac-sha-1-96/aes-cbc".into()),
            spis: [("uc".to_owned(), 1)].into(),
            reason: Some("kept".into()),
            ..step("SM6", Some("192.0.2.9:5060".into()), Some(1))
        };
        journal.note(&long);
        let kept = journal.of("192.0.2.9".parse().unwrap()).remove(0);
        assert_eq!((kept.suite, kept.spis.len()), (None, 0));
        assert_eq!((kept.set, kept.reason), (Some(1), Some("kept".into())));
    }

    #[test]
    fn strangers_do_not_push_out_who_has_registered() {
        let mut journal = Journal::default();
        journal.note(&step("SM12", Some("[2001:db8::7]:5060".into()), Some(1)));
        for n in 0..5000u32 {
            let ue = format!("{}:5060", std::net::Ipv4Addr::from(n));
            journal.note(&step("SM1", Some(ue), None));
        }
        for _ in 0..100 {
            journal.note(&step("refreshed", None, Some(1)));
        }
        let all = journal.of("2001:db8::7".parse().unwrap());
        assert_eq!(all.len(), STEPS);
        assert_eq!(journal.phones.len(), MOST[STRANGER] + 1);
        assert_eq!(journal.order[STRANGER].len(), MOST[STRANGER]);
    }
}
