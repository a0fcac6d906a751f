//! When a UE begins again: after failures, before the registration ends, when its
//! SAs are dead, when it has moved (TS 33.203 clauses 6.1.4, 7.3.1.4, 7.4.0, 7.5).

use std::net::IpAddr;

use super::{Ue, UeEvent, UeFailure};

/// Protected requests without an answer after which the SAs count as dead.
const SILENT: u8 = 2;
/// Most doublings of the wait before a retry.
const DOUBLINGS: u32 = 6;

impl Ue {
    /// The UE has another address: the SAs are deleted, and a registration in clear
    /// begins from there if there was one (clause 7.5). The caller receives on the
    /// new address already.
    ///
    /// # Errors
    /// Those of [`Ue::register`].
    pub fn change_address(&mut self, now: u64, local: IpAddr) -> Result<(), UeFailure> {
        if local == self.config.local {
            return Ok(());
        }
        let wanted = self.current.is_some() || self.procedure.is_some();
        self.again_at = None;
        if self.procedure.is_some() {
            self.abandon(now, UeFailure::Moved, 0);
        }
        for client in self.clients.take_all() {
            self.not_sent(now, client);
        }
        self.end_registration(now);
        self.drop_all();
        self.answered.clear();
        (self.keepalive_at, self.flow) = (None, None);
        self.config.local = local;
        if wanted { self.register(now) } else { Ok(()) }
    }

    /// After a failure: whether, and when, to begin again by ourselves.
    pub(super) fn plan_again(&mut self, now: u64, failure: UeFailure, at_least: u64) {
        let Some(retry) = self.config.retry else {
            return;
        };
        let passes = match failure {
            UeFailure::Timeout | UeFailure::Unreachable => true,
            UeFailure::Status(code) => matches!(code, 408 | 421 | 480 | 494 | 500..600),
            _ => false,
        };
        if !passes || self.attempts >= retry.times {
            return;
        }
        let doubled = retry.wait << self.attempts.min(DOUBLINGS);
        let wait = doubled.max(at_least);
        self.attempts += 1;
        self.again_at = Some(now + wait);
        self.event(UeEvent::Again { wait });
    }

    /// Registered: failures are forgotten, and the next registration is planned.
    pub(super) fn plan_renewal(&mut self, now: u64, expires: u32) {
        self.attempts = 0;
        let seconds = if expires > 1200 {
            expires - 600
        } else {
            expires / 2
        };
        self.renew_at = self
            .config
            .renew
            .then(|| now + u64::from(seconds.max(1)) * 1000);
    }

    /// Begins what is due.
    pub(super) fn begin_again(&mut self, now: u64) {
        let due = |at: &mut Option<u64>| at.take_if(|at| *at <= now).is_some();
        let (again, renew) = (due(&mut self.again_at), due(&mut self.renew_at));
        if (again || renew) && self.procedure.is_none() {
            self.register_or_tell(now);
        }
    }

    /// The network asks for it, or time does: nobody waits for an error.
    pub(super) fn register_or_tell(&mut self, now: u64) {
        if let Err(failure) = self.begin(now, true)
            && failure != UeFailure::Busy
        {
            self.event(UeEvent::Failed(failure));
        }
    }

    /// A protected request of the user got no answer.
    pub(super) fn no_answer(&mut self, now: u64) {
        self.silent = self.silent.saturating_add(1);
        if self.silent >= SILENT && self.procedure.is_none() {
            self.lose_sas();
            if self.config.retry.is_some() {
                self.register_or_tell(now);
            }
        }
    }

    /// The SAs in use count as dead: what comes next goes in clear.
    pub(super) fn lose_sas(&mut self) {
        self.silent = 0;
        if self.current.is_some() {
            self.registered_until = None;
            self.renew_at = None;
            self.drop_all();
            self.event(UeEvent::Lost);
        }
    }
}
