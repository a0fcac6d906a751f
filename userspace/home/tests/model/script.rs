//! A sequence: its setting and its steps, both out of one seed.

use std::fmt;

use crate::phone::{Kind, Phone};
use crate::sim::Steps;

/// One step. `who` and `which` are taken modulo what there is, so that a step still
/// means something when others are cut out.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Register {
        who: u32,
    },
    Deregister {
        who: u32,
    },
    /// A MESSAGE of the phone to the echo service or to another phone.
    Send {
        who: u32,
        to: u32,
    },
    /// A MESSAGE that the core never answers: its transaction holds the set.
    Unanswered {
        who: u32,
    },
    /// A MESSAGE of the network.
    Originate {
        who: u32,
    },
    /// The packet in flight that arrives; the oldest, or any.
    Deliver {
        which: u32,
    },
    /// All that is in flight arrives, oldest first.
    DeliverAll,
    Lose {
        which: u32,
    },
    /// In clear only: ESP's window takes copies away.
    Duplicate {
        which: u32,
    },
    /// Something in a REGISTER or its challenge is wrong.
    Falsify {
        which: u32,
        what: u32,
    },
    Wait {
        ms: u32,
    },
    Restart {
        who: u32,
        moves: bool,
    },
    /// The phone notices that it has another address.
    Move {
        who: u32,
    },
    Desynchronise {
        who: u32,
    },
    /// Whether the home network challenges each REGISTER.
    Challenge {
        always: bool,
    },
    /// The next installation fails, at the phone or at the edge.
    FailInstall {
        who: Option<u32>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A setting and its steps.
#[derive(Debug, Clone)]
pub struct Script {
    pub seed: u64,
    /// No faults, and everything arrives at once: the strict rules hold.
    pub calm: bool,
    pub steps: Vec<Step>,
}

impl Script {
    pub fn new(seed: u64) -> Script {
        let mut random = Steps(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let calm = random.below(5) == 0;
        let count = 15 + random.below(35);
        // Some phones do little but register while old sets are still needed.
        let crowded = !calm && random.below(8) == 0;
        let one = |n| match n {
            0 if crowded => Step::Challenge { always: true },
            _ if crowded && random.below(9) > 0 => crowd(n),
            _ => step(&mut random, calm),
        };
        let steps = (0..count).map(one).collect();
        Script { seed, calm, steps }
    }

    /// The phones of the setting.
    pub fn phones(&self) -> Vec<Phone> {
        let mut random = Steps(self.seed ^ 0x0f0e);
        let mut phones = Vec::new();
        for index in 0..1 + random.below(4) as usize {
            let kind = match random.below(12) {
                0 if !self.calm => Kind::NatWithoutTunnel,
                1 | 2 if !self.calm => Kind::Contested,
                3 if !self.calm && index > 0 => Kind::Stranger,
                _ => Kind::Good,
            };
            let owner = if kind == Kind::Stranger { 0 } else { index };
            phones.push(Phone::new(index, kind, owner, &mut random));
        }
        phones
    }

    pub fn setting(&self) -> String {
        let one = |p: &Phone| format!("{}: {:?} nat {:?}", p.index, p.kind, p.nat);
        let phones: Vec<_> = self.phones().iter().map(one).collect();
        format!("calm {}, {}", self.calm, phones.join(", "))
    }
}

/// Registers again and again while each set is still needed.
fn crowd(n: u64) -> Step {
    match n % 3 {
        0 => Step::Unanswered { who: 0 },
        1 => Step::Register { who: 0 },
        _ => Step::DeliverAll,
    }
}

fn step(random: &mut Steps, calm: bool) -> Step {
    let who = random.below(64) as u32;
    // Mostly the oldest: others are disorder.
    let which = if random.below(3) == 0 {
        random.below(64) as u32
    } else {
        0
    };
    let wait = [
        500, 4_000, 31_000, 33_000, 100_000, 241_000, 1_000_000, 3_700_000,
    ];
    if calm {
        return match random.below(10) {
            0..4 => Step::Register { who },
            4 => Step::Deregister { who },
            5 => Step::Send {
                who,
                to: random.below(6) as u32,
            },
            6 => Step::Originate { who },
            7 => Step::Challenge {
                always: random.below(2) == 0,
            },
            _ => Step::Wait {
                ms: wait[random.below(8) as usize],
            },
        };
    }
    match random.below(64) {
        0..10 => Step::Register { who },
        10..12 => Step::Deregister { who },
        12..15 => Step::Send {
            who,
            to: random.below(6) as u32,
        },
        15 => Step::Originate { who },
        16 => Step::Unanswered { who },
        17..36 => Step::Deliver { which },
        36..43 => Step::DeliverAll,
        43..46 => Step::Lose { which },
        46..48 => Step::Duplicate { which },
        48..51 => Step::Falsify {
            which,
            what: random.below(8) as u32,
        },
        51..56 => Step::Wait {
            ms: wait[random.below(6) as usize],
        },
        56 => Step::Wait {
            ms: wait[random.below(8) as usize],
        },
        57 => Step::Move { who },
        58 => Step::Restart {
            who,
            moves: random.below(2) == 0,
        },
        59 => Step::Desynchronise { who },
        60..62 => Step::Challenge {
            always: random.below(3) > 0,
        },
        _ => Step::FailInstall {
            who: (random.below(2) == 0).then_some(who),
        },
    }
}
