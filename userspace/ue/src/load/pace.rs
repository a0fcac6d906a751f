//! When which phone does what: a rate, a bound on what runs at one time, and how
//! long a phone stays. No I/O and no clock.

use std::collections::VecDeque;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Phones.
    pub count: usize,
    /// Registrations that begin in a second; 0: as many as `concurrent` allows.
    pub rate: f64,
    /// Registrations and de-registrations under way at one time, at most.
    pub concurrent: usize,
    /// Milliseconds that a phone stays registered.
    pub hold: u64,
    /// Whether it leaves afterwards.
    pub deregister: bool,
}

/// What a phone is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Phone of that number: register.
    Register(usize),
    /// Phone of that number: de-register.
    Leave(usize),
}

/// The whole run.
#[derive(Debug)]
pub struct Pace {
    goal: Goal,
    began: u64,
    /// The next phone that begins.
    next: usize,
    under_way: usize,
    /// Phones that stay, in the order in which their time ends.
    staying: VecDeque<(u64, usize)>,
    over: usize,
    stopped: bool,
}

impl Pace {
    /// A run that begins at `now`, in milliseconds.
    pub fn new(goal: Goal, now: u64) -> Pace {
        Pace {
            goal,
            began: now,
            next: 0,
            under_way: 0,
            staying: VecDeque::new(),
            over: 0,
            stopped: false,
        }
    }

    /// What is due at `now`; call until there is nothing.
    pub fn step(&mut self, now: u64) -> Option<Step> {
        if self.stopped {
            return None;
        }
        let room = self.under_way < self.goal.concurrent.max(1);
        if let Some((_, phone)) = self.staying.front().copied().filter(|(end, _)| *end <= now) {
            if !self.goal.deregister {
                self.staying.pop_front();
                self.over += 1;
                return self.step(now);
            }
            if room {
                self.staying.pop_front();
                self.under_way += 1;
                return Some(Step::Leave(phone));
            }
        }
        if room && self.next < self.goal.count && self.begins(self.next) <= now {
            self.next += 1;
            self.under_way += 1;
            return Some(Step::Register(self.next - 1));
        }
        None
    }

    /// When [`Pace::step`] may have something again; an end of what is under way may
    /// come first.
    pub fn next_due(&self) -> Option<u64> {
        let room = self.under_way < self.goal.concurrent.max(1);
        let begins = (room && self.next < self.goal.count).then(|| self.begins(self.next));
        let ends = self.staying.front().map(|(end, _)| *end);
        let ends = ends.filter(|_| room || !self.goal.deregister);
        begins.into_iter().chain(ends).min()
    }

    /// A registration is done.
    pub fn registered(&mut self, now: u64, phone: usize) {
        self.under_way -= 1;
        self.staying.push_back((now + self.goal.hold, phone));
    }

    /// A registration came to nothing, or a phone has left or could not.
    pub fn ended(&mut self) {
        self.under_way -= 1;
        self.over += 1;
    }

    /// No phone begins any more.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.stopped || self.over == self.goal.count
    }

    /// Under way now.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    fn begins(&self, phone: usize) -> u64 {
        if self.goal.rate > 0.0 {
            self.began + (phone as f64 * 1000.0 / self.goal.rate) as u64
        } else {
            self.began
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOAL: Goal = Goal {
        count: 5,
        rate: 10.0,
        concurrent: 2,
        hold: 1000,
        deregister: true,
    };

    fn steps(pace: &mut Pace, now: u64) -> Vec<Step> {
        std::iter::from_fn(|| pace.step(now)).collect()
    }

    #[test]
    fn phones_begin_at_the_rate_and_no_more_than_are_allowed_at_one_time() {
        let mut pace = Pace::new(GOAL, 500);
        assert_eq!(steps(&mut pace, 500), [Step::Register(0)]);
        assert_eq!(pace.next_due(), Some(600));
        assert_eq!(steps(&mut pace, 900), [Step::Register(1)]);
        assert_eq!(pace.next_due(), None, "both places are taken");
        pace.registered(950, 0);
        assert_eq!(steps(&mut pace, 950), [Step::Register(2)]);
        pace.ended();
        pace.ended();
        assert_eq!(
            steps(&mut pace, 950),
            [Step::Register(3), Step::Register(4)]
        );
    }

    #[test]
    fn phones_stay_for_their_time_and_leave() {
        let mut pace = Pace::new(Goal { count: 1, ..GOAL }, 0);
        assert_eq!(steps(&mut pace, 0), [Step::Register(0)]);
        pace.registered(100, 0);
        assert_eq!(
            (steps(&mut pace, 1099), pace.next_due()),
            (vec![], Some(1100))
        );
        assert_eq!(steps(&mut pace, 1100), [Step::Leave(0)]);
        assert!(!pace.is_over());
        pace.ended();
        assert!(pace.is_over());
    }

    #[test]
    fn without_leaving_the_run_ends_when_the_last_has_stayed() {
        let mut pace = Pace::new(
            Goal {
                count: 1,
                deregister: false,
                ..GOAL
            },
            0,
        );
        assert_eq!(steps(&mut pace, 0), [Step::Register(0)]);
        pace.registered(100, 0);
        assert!(steps(&mut pace, 1099).is_empty() && !pace.is_over());
        assert!(steps(&mut pace, 1100).is_empty() && pace.is_over());
    }

    proptest! {
        #[test]
        fn every_phone_comes_once_and_the_bound_holds(
            count in 0usize..40,
            concurrent in 0usize..6,
            rate in 0u32..50,
            hold in 0u64..500,
            deregister: bool,
            luck in proptest::collection::vec(0u8..4, 200),
        ) {
            let goal = Goal { count, rate: rate.into(), concurrent, hold, deregister };
            let mut pace = Pace::new(goal, 0);
            let (mut now, mut luck) = (0, luck.into_iter().cycle());
            let (mut begun, mut busy) = (Vec::new(), Vec::new());
            while !pace.is_over() {
                while let Some(step) = pace.step(now) {
                    if let Step::Register(phone) = step {
                        begun.push(phone);
                    }
                    busy.push(step);
                    prop_assert!(busy.len() <= concurrent.max(1));
                    prop_assert_eq!(busy.len(), pace.under_way());
                }
                match busy.pop() {
                    Some(Step::Register(phone)) if luck.next() != Some(0) => pace.registered(now, phone),
                    Some(_) => pace.ended(),
                    None => now = pace.next_due().unwrap_or(now).max(now),
                }
                now += 1;
                prop_assert!(now < 100_000, "it does not end");
            }
            prop_assert_eq!(begun, (0..count).collect::<Vec<_>>());
        }
    }
}
