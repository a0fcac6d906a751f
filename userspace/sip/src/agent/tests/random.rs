//! Whatever phones, strangers, core and clock do in whatever order: the table keeps its rules
//! and the data plane has what the table says. [`Rig::drain`] checks each command.

use proptest::prelude::*;

use super::*;

/// One thing that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Clear {
        who: usize,
        host: u8,
    },
    Over {
        who: usize,
        nth: usize,
        leaves: bool,
    },
    Challenge {
        nth: usize,
    },
    Answer {
        nth: usize,
        wrong: bool,
    },
    Core {
        nth: usize,
        status: u16,
    },
    Heard {
        nth: usize,
    },
    Hold {
        nth: usize,
    },
    LetGo {
        nth: usize,
    },
    Abort {
        nth: usize,
    },
    Network {
        who: usize,
    },
    Pass {
        ms: u64,
    },
}

/// Mostly the newest, and mostly what leads on.
fn step() -> impl Strategy<Value = Step> {
    let who = || 0..3usize;
    let nth = || prop_oneof![6 => Just(0usize), 2 => 1..3usize, 1 => 3..6usize];
    prop_oneof![
        4 => (who(), 1..3u8).prop_map(|(who, host)| Step::Clear { who, host }),
        8 => (who(), nth(), prop::bool::weighted(0.1))
            .prop_map(|(who, nth, leaves)| Step::Over { who, nth, leaves }),
        12 => nth().prop_map(|nth| Step::Challenge { nth }),
        12 => (nth(), prop::bool::weighted(0.05))
            .prop_map(|(nth, wrong)| Step::Answer { nth, wrong }),
        12 => (nth(), prop_oneof![6 => Just(200), 1 => Just(403)])
            .prop_map(|(nth, status)| Step::Core { nth, status }),
        4 => nth().prop_map(|nth| Step::Heard { nth }),
        3 => nth().prop_map(|nth| Step::Hold { nth }),
        2 => nth().prop_map(|nth| Step::LetGo { nth }),
        1 => nth().prop_map(|nth| Step::Abort { nth }),
        1 => who().prop_map(|who| Step::Network { who }),
        3 => prop_oneof![
            4 => Just(500),
            4 => Just(5_000),
            3 => Just(40_000),
            1 => Just(300_000),
            1 => Just(3_700_000),
        ]
        .prop_map(|ms| Step::Pass { ms }),
    ]
}

/// The rig, and what phones and core remember.
struct World {
    rig: Rig,
    offers: u16,
    attempts: Vec<(AttemptId, Phone)>,
    challenges: Vec<(Phone, (SetToken, String, String))>,
    /// Phones by the sets that they have.
    sets: Vec<(Phone, SetToken)>,
    held: Vec<SetToken>,
}

/// From the newest on.
fn nth<T: Clone>(all: &[T], nth: usize) -> Option<T> {
    all.iter().rev().nth(nth).cloned()
}

impl World {
    fn new() -> World {
        let mut rig = Rig::new();
        (100..2_000).for_each(|n| {
            rig.agent
                .add_spis([1_000_000_000 + 2 * n, 1_000_000_001 + 2 * n])
        });
        World {
            rig,
            offers: 0,
            attempts: Vec::new(),
            challenges: Vec::new(),
            sets: Vec::new(),
            held: Vec::new(),
        }
    }

    fn phone(&mut self, who: usize, host: u8) -> Phone {
        self.offers += 1;
        let mut one = phone(["a", "b", "c"][who]).at(host).anew(self.offers);
        one.ends.port_s = 32_000 + who as u16;
        one
    }

    fn send(&mut self, register: &Register, phone: Phone) {
        if let Ok(id) = self.rig.send(register) {
            self.attempts.push((id, phone));
        }
    }

    fn go(&mut self, step: &Step) {
        match *step {
            Step::Clear { who, host } => {
                let phone = self.phone(who, host);
                self.send(&phone.sm1(), phone);
            }
            Step::Over {
                who,
                nth: n,
                leaves,
            } => {
                if let Some((old, _)) = nth(&self.sets, n) {
                    let mut new = self.phone(who, 1);
                    (new.user, new.ip) = (old.user, old.ip);
                    new.ends.port_s = old.ends.port_s;
                    let mut register = self.rig.over(&old, new.sm1());
                    register.expires = Some(if leaves { 0 } else { HOUR });
                    self.send(&register, new);
                }
            }
            Step::Challenge { nth: n } => {
                if let Some((id, phone)) = nth(&self.attempts, n)
                    && let Ok(challenged) = self.rig.try_challenge(id)
                {
                    self.sets.push((phone.clone(), challenged.0));
                    self.challenges.push((phone, challenged));
                }
            }
            Step::Answer { nth: n, wrong } => {
                if let Some((phone, challenged)) = nth(&self.challenges, n) {
                    let mut sm7 = self.rig.sm7(&phone, &challenged);
                    if wrong {
                        sm7.verify = None;
                    }
                    self.send(&sm7, phone);
                }
            }
            Step::Core { nth: n, status } => {
                if let Some((id, _)) = nth(&self.attempts, n) {
                    let granted = Granted {
                        expires: HOUR,
                        identities: Vec::new(),
                    };
                    let _ = self.rig.agent.answered(self.rig.now, id, status, granted);
                }
            }
            Step::Heard { nth: n } => {
                if let Some((_, set)) = nth(&self.sets, n) {
                    self.rig.agent.heard(set, self.rig.now);
                }
            }
            Step::Hold { nth: n } => {
                if let Some((_, set)) = nth(&self.sets, n)
                    && self.rig.agent.hold(set)
                {
                    self.held.push(set);
                }
            }
            Step::LetGo { nth: n } => {
                if let Some(set) = nth(&self.held, n) {
                    self.held.retain(|held| *held != set);
                    self.rig.agent.let_go(set, self.rig.now);
                }
            }
            Step::Abort { nth: n } => {
                if let Some((id, _)) = nth(&self.attempts, n) {
                    self.rig.agent.abort(id);
                }
            }
            Step::Network { who } => {
                let impi = ["a@h", "b@h", "c@h"][who];
                self.rig.agent.deregister(impi, self.rig.now);
            }
            Step::Pass { ms } => self.rig.pass(ms),
        }
        self.rig.drain();
    }

    fn check(&self) {
        let rig = &self.rig;
        rig.agrees();
        let table = rig.agent.table();
        for (id, contact) in table.contacts() {
            let sets: Vec<_> = contact.sets.iter().filter_map(|t| table.set(*t)).collect();
            assert!(!sets.is_empty(), "a contact without sets");
            let staying = |s: &&&SaSet| s.state != SetState::Lingering;
            assert!(
                sets.iter().filter(staying).count() <= 3,
                "six SAs: {sets:?}"
            );
            for set in &sets {
                assert_eq!(set.contact, id);
                assert!(set.deadline <= set.life, "longer than its life");
                let live = rig.sets[&set.token];
                assert!(live, "an answer could not leave: {set:?}");
            }
            let current = contact.current.and_then(|t| table.set(t));
            let established = sets.iter().any(|s| s.state == SetState::Established);
            assert_eq!(
                current.is_some(),
                established && !contact.registrations.is_empty()
            );
            assert!(current.is_none_or(|s| s.state == SetState::Established));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_rules_hold_in_any_order(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.go(step);
            world.check();
        }
        // Left alone everything ends, and nothing stays behind.
        world.rig.pass(20_000_000);
        let agent = &world.rig.agent;
        assert!(agent.table().is_empty() && world.rig.sets.is_empty());
        assert!(agent.held.is_empty() && agent.next_timeout().is_none());
        assert_eq!(agent.strangers.unchallenged(), 0);
    }
}
