//! After a sequence: no more faults, and all comes to rest.

use crate::phone::Kind;
use crate::plane::State;
use crate::world::World;

impl World {
    /// Everybody registers, both ends agree, half leave, time ends the rest, and
    /// nothing is left.
    pub fn quiet(&mut self) -> Result<(), String> {
        self.end_faults();
        self.deliver_all()?;
        // Strangers have done their worst; what they began ends by itself.
        self.wait_quietly(300_000)?;
        let good: Vec<_> = (0..self.phones.len())
            .filter(|n| self.phones[*n].kind == Kind::Good)
            .collect();
        for n in &good {
            // A phone that was cut off finds out by time-outs and tries again.
            for _ in 0..3 {
                self.register(*n);
                self.deliver_all()?;
                if self.phones[*n].ue.is_registered() {
                    break;
                }
                self.wait_quietly(260_000)?;
            }
        }
        self.wait_quietly(40_000)?;
        for n in &good {
            self.register(*n);
            self.deliver_all()?;
            let phone = &self.phones[*n];
            if !phone.ue.is_registered() {
                return Err(format!("phone {n} cannot register in the quiet"));
            }
            let (answered, served) = (phone.answered, phone.served);
            self.send_echo(*n);
            self.deliver_all()?;
            let phone = &self.phones[*n];
            if phone.answered == answered || phone.served == served {
                return Err(format!("phone {n} and the network do not reach each other"));
            }
        }
        self.wait_quietly(45_000)?;
        self.agree(&good)?;
        for n in good.iter().filter(|n| *n % 2 == 0) {
            self.phones[*n].top_up();
            self.phones[*n]
                .ue
                .deregister(self.now)
                .map_err(|e| format!("de-registration: {e}"))?;
            self.deliver_all()?;
        }
        self.wait_quietly(40_000)?;
        for n in good.iter().filter(|n| *n % 2 == 0) {
            let left = self.sets_of(*n);
            if left > 0 || !self.phones[*n].plane.sets.is_empty() {
                return Err(format!("phone {n} has left and {left} sets of it stay"));
            }
        }
        self.wait_quietly(8_000_000)?;
        let (contacts, sets) = self.edge.len();
        let next = self.edge.next_timeout();
        if (contacts, sets, next) != (0, 0, None) || !self.plane.sets.is_empty() {
            let here = self.plane.sets.len();
            return Err(format!(
                "left at the end: {contacts} contacts, {sets} sets, {here} in the data plane, due {next:?}"
            ));
        }
        match self
            .phones
            .iter()
            .find(|p| !p.plane.sets.is_empty() || p.ue.next_timeout().is_some())
        {
            Some(phone) => Err(format!("phone {} keeps something for ever", phone.index)),
            None => Ok(()),
        }
    }

    /// Time passes and everything arrives at once.
    fn wait_quietly(&mut self, ms: u64) -> Result<(), String> {
        let calm = std::mem::replace(&mut self.calm, false);
        let end = self.now + ms;
        while self.now < end {
            // Short enough that no retransmission waits for its answer.
            let ues = self.phones.iter().filter_map(|p| p.ue.next_timeout());
            let next = ues.chain(self.edge.next_timeout()).min().unwrap_or(end);
            let step = next.clamp(self.now, end) - self.now;
            self.wait(step.max(1))?;
            self.deliver_all()?;
        }
        self.calm = calm;
        Ok(())
    }

    fn sets_of(&self, phone: usize) -> usize {
        let of = |s: &&crate::plane::Set| {
            let spi = s.request.params.ue_ends.spi_c;
            self.phones[crate::phone::Phone::of_spi(spi)].owner == self.phones[phone].owner
        };
        self.plane.sets.values().filter(of).count()
    }

    /// A registered phone and the edge have one set, the same, and both use it.
    fn agree(&self, good: &[usize]) -> Result<(), String> {
        for n in good {
            let phone = &self.phones[*n];
            let mine: Vec<_> = phone.plane.sets.values().collect();
            let theirs = self.sets_of(*n);
            let [one] = mine.as_slice() else {
                return Err(format!("phone {n} has {} sets in the quiet", mine.len()));
            };
            if theirs != 1 {
                return Err(format!(
                    "the edge has {theirs} sets of phone {n} in the quiet"
                ));
            }
            let same = |s: &&crate::plane::Set| {
                (s.request.params.ue_ends, s.request.params.pcscf_ends)
                    == (one.request.params.ue_ends, one.request.params.pcscf_ends)
            };
            let Some(other) = self.plane.sets.values().find(same) else {
                return Err(format!("phone {n} and the edge have different sets"));
            };
            let keys = (
                other.request.ik == one.request.ik,
                other.request.ck == one.request.ck,
            );
            let states = (other.state, one.state);
            if keys != (true, true) || states != (State::Active, State::Active) {
                return Err(format!(
                    "phone {n} and the edge disagree: keys {keys:?}, states {states:?}"
                ));
            }
        }
        if !self.is_silent() {
            return Err("something is still under way".into());
        }
        Ok(())
    }
}
