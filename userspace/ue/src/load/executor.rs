//! Phones on one [`Host`], driven by [`Pace`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use gm_sip::ue::{Ue, UeConfig, UeEvent};
use tokio::sync::mpsc;

use super::pace::{Goal, Pace, Step};
use super::plan::{Places, Subscribers};
use super::summary::{Summary, Tally};
use crate::agent::{Sim, System};
use crate::host::{Arrival, Host};
use crate::phone::{Phone, Watch};
use crate::usim::Usim;

/// Arrivals that are taken before the clock is looked at again.
const AT_ONCE: usize = 64;

/// One phone of many.
struct Slot {
    phone: Phone,
    /// What is under way, and since when.
    doing: Option<(Doing, u64)>,
    /// When it stands in the queue of timers.
    timer: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Registering,
    Leaving,
}

/// A load that runs.
pub struct Load {
    /// What all phones have in common.
    common: UeConfig,
    places: Places,
    subscribers: Subscribers,
    host: Host,
    incoming: mpsc::Receiver<Arrival>,
    phones: HashMap<usize, Slot>,
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    tally: Tally,
    began: Instant,
}

impl Load {
    /// No phone yet.
    pub fn new(
        common: UeConfig,
        places: Places,
        subscribers: Subscribers,
        host: Host,
        incoming: mpsc::Receiver<Arrival>,
    ) -> Load {
        Load {
            common,
            places,
            subscribers,
            host,
            incoming,
            phones: HashMap::new(),
            timers: BinaryHeap::new(),
            tally: Tally::default(),
            began: Instant::now(),
        }
    }

    /// Runs until every phone has done what it was to do, or until `stop`. `show` hears
    /// of registrations, failures and what is under way as it goes.
    ///
    /// # Errors
    /// When the data plane fails; SIP that fails is counted.
    pub async fn run(
        &mut self,
        goal: Goal,
        stop: impl Future<Output = ()>,
        mut show: impl FnMut((usize, u64), usize),
    ) -> Result<()> {
        tokio::pin!(stop);
        let mut pace = Pace::new(goal, self.now());
        let mut arrivals = Vec::with_capacity(AT_ONCE);
        loop {
            while let Some(step) = pace.step(self.now()) {
                self.begin(step, &mut pace).await?;
            }
            self.wake(&mut pace).await?;
            show(self.tally.so_far(), pace.under_way());
            if pace.is_over() {
                return Ok(());
            }
            let timer = self.timers.peek().map(|Reverse((at, _))| *at);
            let due = timer.into_iter().chain(pace.next_due()).min();
            let wait = due.map_or(1000, |at| at.saturating_sub(self.now()));
            tokio::select! {
                () = &mut stop => {
                    self.tally.interrupted = true;
                    pace.stop();
                }
                _ = self.incoming.recv_many(&mut arrivals, AT_ONCE) => {}
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
            }
            for arrival in arrivals.drain(..) {
                let Some(index) = self.places.index(arrival.local()) else {
                    continue;
                };
                self.with(index, &mut pace, |phone, now, ear| {
                    phone.take_in(now, &arrival, ear);
                })
                .await?;
            }
        }
    }

    /// Takes everything apart again, and says what came of it.
    ///
    /// # Errors
    /// What the data plane could not remove.
    pub async fn stop(self, wanted: usize) -> Result<Summary> {
        self.host.stop().await?;
        Ok(self.tally.summary(wanted))
    }

    async fn begin(&mut self, step: Step, pace: &mut Pace) -> Result<()> {
        let (index, doing) = match step {
            Step::Register(index) => (index, Doing::Registering),
            Step::Leave(index) => (index, Doing::Leaving),
        };
        if doing == Doing::Registering {
            let Some(ue) = self.ue(index) else {
                self.tally.failed("no such subscriber".into());
                pace.ended();
                return Ok(());
            };
            let slot = Slot {
                phone: Phone::new(ue),
                doing: Some((doing, self.now())),
                timer: None,
            };
            self.phones.insert(index, slot);
            // It gets its first SPIs.
            self.with(index, pace, |_, _, _| ()).await?;
        }
        let now = self.now();
        if let Some(slot) = self.phones.get_mut(&index) {
            slot.doing = Some((doing, now));
        }
        self.with(index, pace, |phone, now, ear| {
            let begun = match doing {
                Doing::Registering => phone.ue().register(now),
                Doing::Leaving => phone.ue().deregister(now),
            };
            if let Err(failure) = begun {
                ear.events.push(UeEvent::Failed(failure));
            }
        })
        .await
    }

    fn ue(&self, index: usize) -> Option<Ue> {
        let subscriber = self.subscribers.get(index)?;
        let place = self.places.of(index);
        let config = UeConfig {
            impi: subscriber.impi,
            impu: subscriber.impu,
            local: place.address,
            clear_port: place.clear,
            server_port: place.server,
            client_ports: place.clients,
            ..self.common.clone()
        };
        let usim = Usim::new(*subscriber.k, *subscriber.opc);
        Some(Ue::new(config, Box::new(Sim(usim)), Box::new(System)))
    }

    /// Phones whose time has come.
    async fn wake(&mut self, pace: &mut Pace) -> Result<()> {
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > self.now() {
                return Ok(());
            }
            self.timers.pop();
            if let Some(slot) = self.phones.get_mut(&index) {
                slot.timer = slot.timer.filter(|timer| *timer != at);
                self.with(index, pace, |phone, now, _| {
                    phone.ue().handle_timeout(now);
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Does something with a phone, carries out what follows, and counts.
    async fn with(
        &mut self,
        index: usize,
        pace: &mut Pace,
        act: impl FnOnce(&mut Phone, u64, &mut Ear),
    ) -> Result<()> {
        let began = self.began;
        let now = || began.elapsed().as_millis() as u64;
        let Some(slot) = self.phones.get_mut(&index) else {
            return Ok(());
        };
        let mut ear = Ear { events: Vec::new() };
        act(&mut slot.phone, now(), &mut ear);
        slot.phone.carry_out(&mut self.host, now, &mut ear).await?;
        for event in ear.events {
            self.tally_up(index, event, pace);
        }
        self.set_timer(index);
        Ok(())
    }

    fn tally_up(&mut self, index: usize, event: UeEvent, pace: &mut Pace) {
        let now = self.now();
        let Some(slot) = self.phones.get_mut(&index) else {
            return;
        };
        let Some((doing, began)) = slot.doing else {
            if let UeEvent::Failed(failure) = event {
                self.tally.failed(format!("while registered: {failure}"));
            }
            return;
        };
        match event {
            UeEvent::Resynchronising => return self.tally.resynchronised(),
            UeEvent::Registered { .. } if doing == Doing::Registering => {
                self.tally.registered(began, now);
                pace.registered(now, index);
            }
            UeEvent::Deregistered if doing == Doing::Leaving => {
                self.tally.left(began, now);
                pace.ended();
            }
            UeEvent::Failed(failure) => {
                let what = match doing {
                    Doing::Registering => "",
                    Doing::Leaving => "de-registration: ",
                };
                self.tally.failed(format!("{what}{failure}"));
                pace.ended();
            }
            _ => return,
        }
        slot.doing = None;
        // From here on it speaks through its SAs, or not at all.
        let place = self.places.of(index);
        self.host.close(SocketAddr::new(place.address, place.clear));
    }

    /// A phone with nothing more to wait for is let go.
    fn set_timer(&mut self, index: usize) {
        let Some(slot) = self.phones.get_mut(&index) else {
            return;
        };
        match slot.phone.next_timeout() {
            None if slot.doing.is_none() => {
                self.phones.remove(&index);
            }
            Some(at) if slot.timer.is_none_or(|timer| at < timer) => {
                slot.timer = Some(at);
                self.timers.push(Reverse((at, index)));
            }
            _ => {}
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// Listens to one phone while it is driven.
struct Ear {
    events: Vec<UeEvent>,
}

impl Watch for Ear {
    fn event(&mut self, event: UeEvent) {
        self.events.push(event);
    }
}
