//! What the supervisor does: lanes and workers after a panic, lanes after the
//! uplink has gone or come back. Until it is done everything protected is
//! dropped there, which costs packets, never protection.

use crate::control::{Control, show};
use crate::lane::{Lane, Place};
use crate::supervise::Notice;
use crate::transfer::Transfer;
use crate::{Error, Event};

impl Control {
    /// Puts right what a notice tells of.
    pub(crate) fn heard(&mut self, notice: Notice) {
        match notice {
            Notice::Died {
                worker,
                why,
                mut lanes,
            } => {
                if let Err(e) = self.mend(worker, &mut lanes) {
                    tracing::error!(worker, "its lanes: {e}");
                }
                let event = self.crew.died(worker, why, lanes, &self.sadb);
                if self.transfer == Transfer::Running {
                    self.transfer = Transfer::Broken;
                }
                self.announce(event);
            }
            Notice::UplinkGone => {
                if let Err(e) = self.uplink_gone() {
                    tracing::error!("{e}");
                }
                self.announce(Event::UplinkGone);
            }
            Notice::UplinkBack { index } => match self.uplink_back(index) {
                Ok(()) => {
                    tracing::info!("the uplink {} is back", self.uplink.name);
                    self.announce(Event::UplinkBack);
                }
                Err(e) => tracing::error!("the uplink {} is back: {e}", self.uplink.name),
            },
        }
    }

    /// Makes a dead worker's lanes whole: those that died with it are made
    /// anew, those whose uplink has changed meanwhile are bound again.
    fn mend(&mut self, worker: u8, lanes: &mut Vec<Lane>) -> Result<(), Error> {
        let count = self.crew.lanes();
        let mut end = Ok(());
        for lane in lanes.iter_mut() {
            if lane.uplink_index != self.uplink.index {
                end = end.and(lane.bind_uplink(count, &self.uplink));
                end = end.and(show(&mut self.maps, lane));
            }
        }
        for number in self.crew.lanes_of(worker) {
            if lanes.iter().any(|lane| lane.number == number) {
                continue;
            }
            match Lane::bind(number, count, &self.uplink, &self.gm0x) {
                Ok(lane) => {
                    end = end.and(show(&mut self.maps, &lane));
                    lanes.push(lane);
                }
                Err(e) => end = end.and(Err(e)),
            }
        }
        end
    }

    /// Nothing is injected as come in on a device that is gone, and every other
    /// one is closed to what is protected.
    fn uplink_gone(&mut self) -> Result<(), Error> {
        let end = self.maps.set_uplink(0);
        self.uplink = Place {
            index: 0,
            rx: 0,
            tx: 0,
            name: std::mem::take(&mut self.uplink.name),
        };
        let left = self.crew.with_lanes(|lane| {
            lane.leave_uplink();
            Ok(())
        });
        end.and(left)
    }

    /// The sockets first, then the way in and out.
    fn uplink_back(&mut self, index: u32) -> Result<(), Error> {
        let uplink = Place::of(index, &self.uplink.name)?;
        let count = self.crew.lanes();
        if uplink.lanes()? != count {
            tracing::error!(
                "{} has queues for {} lanes now, gmesp was started with {count}: start it again",
                uplink.name,
                uplink.lanes()?,
            );
        }
        let maps = &mut self.maps;
        let bound = self.crew.with_lanes(|lane| {
            lane.bind_uplink(count, &uplink)?;
            show(maps, lane)
        });
        self.uplink = uplink;
        bound.and(self.maps.set_uplink(index))
    }
}
