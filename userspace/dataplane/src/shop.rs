//! What a worker is made of: everything that all of one data plane share.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use crossbeam::channel::Sender;
use gm_region::Region;

use crate::divide::Hand;
use crate::drops::Sampler;
use crate::parcel::Desks;
use crate::process::{Advertised, Ctx, Process, Settings};
use crate::publish::Published;
use crate::routes::Routes;
use crate::stats::AllCounters;
use crate::table::Table;
use crate::{Config, Error, Event, devices};

/// See the module.
pub(crate) struct Shop {
    pub cfg: Config,
    pub region: Arc<Region>,
    pub published: Arc<Published>,
    pub counters: AllCounters,
    pub sampler: Sampler,
    pub events: Sender<Event>,
    pub uplink_mtu: Arc<AtomicU32>,
    pub begin: Instant,
}

impl Shop {
    /// The inside of worker `number`, without SAs. Its counters go on.
    pub(crate) fn process(
        &self,
        number: u8,
        routes: &Arc<Routes>,
        desks: &Arc<Desks>,
    ) -> Result<Process, Error> {
        let mut ident = [0; 4];
        getrandom::fill(&mut ident)
            .map_err(|e| Error::io("draw random bytes", std::io::Error::other(e)))?;
        let ctx = Ctx {
            engine: gm_engines::best(),
            region: self.region.clone(),
            published: self.published.clone(),
            counters: self.counters.of(number).clone(),
            sampler: self.sampler.clone(),
            events: self.events.clone(),
            settings: Settings {
                encap_port: self.cfg.encap_port,
                follow: self.cfg.follow_encap_port,
                uplink_mtu: self.uplink_mtu.clone(),
                // A veth takes one VLAN tag more than its MTU, a frame may have two.
                gm0_mtu: devices::GM0_MTU as usize - 4,
                ports: self.cfg.port_words(),
                advertised: Advertised::new(&self.cfg.advertised),
                kernel_sas: self.cfg.kernel_sas,
            },
            table: Table::new(self.cfg.slots()),
            forgeries: Default::default(),
            begin: self.begin,
            now: 0,
        };
        let mut hand = Hand::new(number, routes.clone(), desks.clone());
        hand.encap_port = self.cfg.encap_port;
        Ok(Process::new(ctx, u32::from_ne_bytes(ident)).with_hand(hand))
    }

    /// The CPU that a worker is pinned to.
    pub(crate) fn cpu(&self, number: u8) -> Option<usize> {
        self.cfg.cpus.get(usize::from(number)).copied()
    }
}
