//! Packets of some phones wait, both ways, while their SAs come from another
//! data plane or go to one.

use super::Crew;
use crate::Error;
use crate::handoff::Command;
use crate::routes::Buckets;

impl Crew {
    /// From the next batch on packets of these buckets wait at their workers.
    /// One hold at a time.
    pub(crate) fn hold(&mut self, buckets: &Buckets) -> Result<(), Error> {
        if !self.routes.is_shared() {
            // Nobody to hand over to, but a worker has to look.
            self.desks.pool.add(1);
            self.routes.set_shared(true);
        }
        let parked = self.each(|_| Command::Park(*buckets));
        if parked.is_err() {
            self.let_go(buckets)?;
        }
        parked
    }

    /// They go on, what has waited first.
    pub(crate) fn let_go(&mut self, buckets: &Buckets) -> Result<(), Error> {
        let end = self.each(|_| Command::Unpark(*buckets, None));
        end.and(self.end_hold())
    }

    /// Of what waits the kernel's ESP goes first: it has the lower numbers.
    pub(crate) fn take_back(&self, buckets: &Buckets) -> Result<(), Error> {
        self.each(|_| Command::SealedFirst(*buckets))
    }

    /// They go on, and these SAs end, the inbound ones before what has waited
    /// and the outbound ones behind it.
    pub(crate) fn let_out(
        &mut self,
        buckets: &Buckets,
        (inbound, outbound): (&[u32], &[u32]),
    ) -> Result<(), Error> {
        let of = |worker: u8, slots: &[u32]| -> Vec<u32> {
            let mine = slots.iter().copied();
            mine.filter(|slot| self.of_slot(*slot) == worker).collect()
        };
        let end = self.each(|worker| Command::GoOut {
            buckets: *buckets,
            inbound: of(worker, inbound),
            outbound: of(worker, outbound),
        });
        for slot in inbound.iter().chain(outbound) {
            self.routes.set_slot(*slot, None);
        }
        end
    }

    /// Every worker has looked at its rings.
    pub(crate) fn looked(&self) -> Result<(), Error> {
        self.each(|_| Command::Report)
    }

    /// Nothing waits any more, and where one worker is alone it need not look.
    pub(crate) fn end_hold(&mut self) -> Result<(), Error> {
        // A command later all that had waited has been processed.
        let end = self.looked();
        if self.working().len() <= 1 {
            self.routes.set_shared(false);
            self.desks.pool.shrink(1);
        }
        end
    }

    /// Commands all workers, also when one of them does not answer.
    fn each(&self, command: impl Fn(u8) -> Command) -> Result<(), Error> {
        let mut end = Ok(());
        for worker in self.working() {
            end = end.and(self.call(worker, command(worker)).map(drop));
        }
        end
    }
}
