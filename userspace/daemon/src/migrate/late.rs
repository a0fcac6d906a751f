//! What leaves late: a datagram that was routed while the policy was there, and
//! whose program then had to wait for a processor, or holds it back itself
//! (`UDP_CORK`), comes to the kernel's SA when the policy has long gone.
//!
//! So the state outlives its policies for [`KEPT`], with [`RESERVED`] numbers of
//! its own: a limit in packets, which the kernel keeps under the lock that it
//! takes numbers under. Our data plane begins above them, near enough that
//! they are in the phone's window.
//!
//! Nothing else finds a state whose policies have gone. Should this process
//! die, the state ends by itself, and nobody takes it over: its last numbers are
//! nobody's last numbers.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::thread;
use std::time::{Duration, Instant};

use gm_api::control::ApiError;
use gm_xfrm::group::Set;
use gm_xfrm::kernel::{State, StateId};

use super::kernel;
use super::tables::{MARGIN, Step, Work, state_again};

/// Numbers of the kernel's for what is late. A phone's window has 32 at least.
const RESERVED: u64 = 8;
/// How late it may be.
const KEPT: Duration = Duration::from_secs(1);
/// After so many seconds the kernel ends the state by itself. It counts in whole ones.
const BY_ITSELF: u64 = 5;

/// A state that is there for what is late.
pub struct Late {
    state: State,
    /// When it has been there for long enough.
    until: Instant,
}

impl Late {
    /// Of a state that was limited, with its last number.
    pub fn new(state: State) -> Late {
        Late {
            state,
            until: Instant::now() + KEPT,
        }
    }
}

impl Work {
    /// Leaves an outbound state, whose policies have gone, to what is late. What it
    /// was, with the last number that the kernel may use; where it cannot stay, it
    /// is removed.
    pub fn leave_state(&mut self, id: StateId) -> Result<State, ApiError> {
        let mut was = self.xfrm.state(id).map_err(kernel)?;
        let limited = limited(&was, crate::events::now_ms() / 1000);
        let Some(limited) = limited.filter(|_| !self.counts_bursts) else {
            return self.remove_state(id);
        };
        self.xfrm.update_state(&limited).map_err(kernel)?;
        // Whatever has left between the two: more than the limit there cannot be.
        let mut undo = was.clone();
        undo.numbers.seq = undo.numbers.seq.saturating_add(RESERVED + MARGIN);
        self.done.push(Step::LimitedState(Box::new(undo)));
        let now = self.xfrm.state(id).map_err(kernel)?;
        was.numbers.seq = last_number(&now);
        if let Some(Step::LimitedState(undo)) = self.done.last_mut() {
            undo.numbers.seq = was.numbers.seq;
        }
        Ok(was)
    }

    /// Takes the limits away again.
    pub(super) fn unlimit(&mut self, state: &State) -> Result<(), ApiError> {
        match self.xfrm.update_state(state) {
            // It has come to its limit.
            Err(error) if error.is_missing() => self.xfrm.add_state(&state_again(state.clone())),
            done => done,
        }
        .map_err(kernel)
    }

    /// Removes the states whose time is over; with `wait` all, each at its time.
    pub fn end_late(&mut self, wait: bool) {
        while let Some(late) = self.late.first() {
            let left = late.until.saturating_duration_since(Instant::now());
            if !wait && !left.is_zero() {
                return;
            }
            thread::sleep(left);
            let Late { state: was, .. } = self.late.remove(0);
            let (id, last) = (was.id, was.numbers.seq);
            // Of the same name there may be another one by now, a new phone's.
            if let Ok(now) = self.xfrm.state(id)
                && !now.is_same_sa(&was)
            {
                continue;
            }
            match self.end_state(id) {
                Ok(state) => {
                    let left = last.saturating_sub(state.numbers.seq);
                    tracing::debug!(%id, left, "of the numbers for what is late");
                }
                // As a rule it has come to its end by itself.
                Err(error) => tracing::debug!(%id, %error, "ending what was left for late packets"),
            }
        }
    }
}

/// The state with its limits; `None` where they would not hold.
fn limited(state: &State, now: u64) -> Option<State> {
    let mut state = state.clone();
    if state.counters.added == 0 {
        return None;
    }
    let [_, packets] = &mut state.limits.packets;
    *packets = (*packets).min(state.counters.packets.checked_add(RESERVED)?);
    let age = now.saturating_sub(state.counters.added);
    let [_, added] = &mut state.limits.added;
    let end = age + BY_ITSELF;
    *added = match *added {
        0 => end,
        sooner => sooner.min(end),
    };
    Some(state)
}

/// The last number that the kernel can use of a state that is limited, as it is now.
fn last_number(state: &State) -> u64 {
    let [_, packets] = state.limits.packets;
    let left = packets.saturating_sub(state.counters.packets);
    state.numbers.seq.saturating_add(left)
}

/// Whether an outbound state without policies is one that was left for what is
/// late, by a gmespd that has ended: what it has sent since nobody knows.
pub fn is_left(set: &Set) -> bool {
    set.sas.iter().any(|sa| {
        let left = sa.state.limits.packets[1].saturating_sub(sa.state.counters.packets);
        sa.policies.is_empty() && left <= RESERVED
    })
}

/// Whether ESP hands segments of TCP on in one piece: a piece is one packet and
/// takes many numbers. By what `esp4_offload` and `esp6_offload` register, as
/// modules or built in; where the kernel does not tell, they are there.
pub fn counts_bursts() -> bool {
    let Ok(symbols) = File::open("/proc/kallsyms") else {
        return true;
    };
    hands_bursts_on(BufReader::new(symbols))
}

fn hands_bursts_on(symbols: impl BufRead) -> bool {
    let segment = [b"esp4_gso_segment", b"esp6_gso_segment"];
    let mut told = false;
    for line in symbols.split(b'\n') {
        let Ok(line) = line else { return true };
        if segment.iter().any(|name| holds(&line, *name)) {
            return true;
        }
        told = true;
    }
    !told
}

fn holds(line: &[u8], name: &[u8]) -> bool {
    line.windows(name.len()).any(|part| part == name)
}

#[cfg(test)]
mod tests {
    use gm_api::sad::Dir;
    use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Selector, Suite};
    use gm_xfrm::group::group;
    use gm_xfrm::kernel::{Numbers, plan};

    use super::*;

    /// Made 100 s before now, 70 numbers used.
    fn state() -> State {
        let [src, dst] = ["192.0.2.1", "192.0.2.9"].map(|a| a.parse().unwrap());
        let keys = EspKeys::expand(
            Suite::NullAesGcm,
            &Ik::from_bytes([1; 16]),
            &Ck::from_bytes([2; 16]),
        );
        let spec = SaSpec {
            spi: 0x1000,
            mode: Mode::Trans,
            selector: Selector {
                src,
                dst,
                src_port: Some(5063),
                dst_port: Some(5066),
                proto: SelProto::UdpTcp,
            },
            suite: Suite::NullAesGcm,
            outer: None,
            esn: false,
            replay_window: 32,
        };
        let numbers = Numbers::fresh(32, false).after(70);
        let mut state = plan::sa_with(&spec, &keys, Dir::Out, 1, numbers).state;
        (state.counters.added, state.counters.packets) = (NOW - 100, 50);
        state
    }

    const NOW: u64 = 1_000_000;

    #[test]
    fn what_is_late_has_few_numbers_and_little_time() {
        let mut limited = limited(&state(), NOW).unwrap();
        assert_eq!(limited.limits.packets[1], 50 + RESERVED);
        assert_eq!(limited.limits.added[1], 100 + BY_ITSELF);
        // However many have been used since, the last one is the same.
        for used in 0..=RESERVED {
            assert_eq!(last_number(&limited), 70 + RESERVED, "{used}");
            limited.counters.packets += 1;
            limited.numbers.seq += 1;
        }
    }

    #[test]
    fn limits_of_others_stay_where_they_are_nearer() {
        let mut its = state();
        its.limits.packets[1] = 53;
        its.limits.added[1] = 101;
        let limited = limited(&its, NOW).unwrap();
        assert_eq!(limited.limits, its.limits);
        assert_eq!(last_number(&limited), 73);
    }

    #[test]
    fn a_state_of_unknown_age_would_not_end_by_itself() {
        let mut its = state();
        its.counters.added = 0;
        assert_eq!(limited(&its, NOW), None);
    }

    #[test]
    fn bursts_are_known_by_who_cuts_them() {
        let told = |symbols: &str| hands_bursts_on(symbols.as_bytes());
        let none = "0000000000000000 T esp_init\n0000000000000000 t esp_output\t[esp4]\n";
        assert!(!told(none));
        assert!(told(&format!(
            "{none}0000000000000000 t esp4_gso_segment\n"
        )));
        assert!(told(&format!(
            "0000000000000000 t esp6_gso_segment\t[esp6_offload]\n{none}"
        )));
        assert!(told(""), "who tells nothing may have them");
    }

    #[test]
    fn what_was_left_is_known_by_its_limit_and_its_lack_of_policies() {
        let is_local = |a: std::net::IpAddr| a.to_string() == "192.0.2.1";
        let of = |state: State| group(&[state], &[], is_local).sets.remove(0);
        assert!(!is_left(&of(state())));
        let mut limited = state();
        limited.limits.packets[1] = limited.counters.packets + RESERVED;
        let mut set = of(limited.clone());
        assert!(is_left(&set));
        // The other P-CSCF's own limit, in use.
        let keys = &set.sas[0].found.keys;
        set.sas[0].policies = plan::sa(&set.sas[0].found.spec, keys, Dir::Out, 1).policies;
        assert!(!is_left(&set));
    }
}
