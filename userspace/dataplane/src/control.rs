//! The control side behind the handle: the SA database, the BPF maps and the
//! workers, in the order that keeps them consistent.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam::channel::Sender;
use gm_abi::maps::ForeignKey;
use gm_abi::verdict::Reason;
use gm_esp::{Mode, Sa};
use gm_sadb::{Dir, Row, Sadb, SetId, inbound};

use crate::config::map_addr;
use crate::crew::Crew;
use crate::drops::Watch;
use crate::gone::Past;
use crate::handoff::Command;
use crate::keeper::{Keeper, Made};
use crate::lane::{Lane, Place};
use crate::maps::Maps;
use crate::parcel::Desks;
use crate::publish::Published;
use crate::routes::Routes;
use crate::shop::Shop;
use crate::stats::{AllCounters, Stats};
use crate::supervise::{Fault, Notice};
use crate::tap::TapPacket;
use crate::transfer::Transfer;
use crate::unended::Unended;
use crate::{Config, Error, Event, SaStatus};

/// Everything that commands need.
pub(crate) struct Control {
    pub(crate) sadb: Sadb,
    pub(crate) maps: Maps,
    pub(crate) published: Arc<Published>,
    counters: AllCounters,
    pub(crate) crew: Crew,
    /// Where the lanes are bound; without an index while the uplink is gone.
    pub(crate) uplink: Place,
    pub(crate) gm0x: Place,
    events: Sender<Event>,
    pub(crate) past: Past,
    pub(crate) watch: Watch,
    /// [`Config::kernel_sas`].
    pub(crate) kernel_sas: bool,
    /// SAs are on their way to or from another data plane.
    pub(crate) transfer: Transfer,
    /// Sets that wait for a worker to answer.
    pub(crate) unended: Unended,
    keeper: Keeper,
}

impl Control {
    /// Puts the policy in force and starts the workers, who tell the supervisor
    /// by `notices` what happens to them.
    pub(crate) fn start(
        cfg: &Config,
        sadb: Sadb,
        (events, begin): (Sender<Event>, Instant),
        notices: Sender<Notice>,
    ) -> Result<Control, Error> {
        let (keeper, made) = Keeper::start(cfg.clone(), notices.clone())?;
        let Made {
            mut maps,
            devices,
            uplink_mtu,
        } = made;
        let uplink = Place::of(devices.uplink, &cfg.uplink)?;
        let gm0x = Place::of(devices.gm0x, &cfg.gm0x())?;
        let count = uplink.lanes()?;
        let bind = |number| Lane::bind(number, count, &uplink, &gm0x);
        let lanes: Vec<Lane> = (0..count).map(bind).collect::<Result<_, _>>()?;
        for lane in &lanes {
            show(&mut maps, lane)?;
        }

        let published = Arc::new(maps.published(inbound(cfg.slots()))?);
        let counters = AllCounters::new(count);
        let (sampler, watch) = Watch::of(&mut maps, &published, &counters)?;
        let shop = Shop {
            cfg: cfg.clone(),
            region: sadb.region().clone(),
            published: published.clone(),
            counters: counters.clone(),
            sampler,
            events: events.clone(),
            uplink_mtu,
            begin,
        };
        let desks = Arc::new(Desks::new(count as usize)?);
        let shared = (Arc::new(Routes::new(cfg.slots())), desks);
        let crew = Crew::start(shop, shared, cfg.workers, lanes, notices)?;
        Ok(Control {
            sadb,
            maps,
            published,
            counters,
            crew,
            uplink,
            gm0x,
            events,
            past: Past::default(),
            watch,
            kernel_sas: cfg.kernel_sas,
            transfer: Transfer::None,
            unended: Unended::default(),
            keeper,
        })
    }

    pub(crate) fn publish(&mut self, slot: u32, foreign: bool, sa: &Sa) -> Result<(), Error> {
        let top = self
            .sadb
            .region()
            .slot(slot)
            .map_or(0, |s| s.hot().top.load(Ordering::Relaxed));
        let known = !sa.esn() && !self.sadb.is_closed(slot);
        let window = known.then_some((sa.replay_window(), top));
        // In UDP-enc-tun the port is not known before a packet has verified.
        let from = (sa.mode() == Mode::Trans).then(|| map_addr(sa.selector().src));
        self.published.install(
            slot,
            sa.spi(),
            &map_addr(sa.destination()),
            sa.mode(),
            window,
            from.as_ref(),
        );
        if foreign {
            self.maps.add_foreign(&foreign_key(sa), slot)?;
        }
        Ok(())
    }

    /// Changes the addresses that are protected.
    pub(crate) fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        self.maps.write_addresses(addresses)
    }

    /// Begins or ends the capture.
    pub(crate) fn tap(&mut self, to: Option<Sender<TapPacket>>) -> Result<(), Error> {
        self.crew.tap(to)
    }

    /// Changes the number of workers.
    pub(crate) fn set_workers(&mut self, workers: u32) -> Result<(), Error> {
        self.no_transfer()?;
        self.crew.set_workers(workers, &self.sadb)
    }

    /// Breaks something.
    pub(crate) fn fault(&mut self, fault: Fault) -> Result<(), Error> {
        match (fault, fault.worker()) {
            (_, Some(worker)) => self.crew.call(worker, Command::Fault(fault)).map(drop),
            (Fault::FillForeign, _) => self.maps.fill_foreign(),
            (..) => self.maps.empty_foreign(),
        }
    }

    /// The SAs of `sets` sets at most, from number `first` on, as of `now`.
    pub(crate) fn list(&self, first: SetId, sets: usize, now: u64) -> Vec<SaStatus> {
        let (mut last, mut seen) = (SetId(0), 0);
        let within = |row: &Row| {
            seen += usize::from(row.set != last);
            last = row.set;
            seen <= sets
        };
        let rows = self.sadb.list_from(first).take_while(within);
        rows.map(|row| self.status(row, now)).collect()
    }

    /// The SAs of one set, as of `now`.
    pub(crate) fn list_set(&self, set: SetId, now: u64) -> Vec<SaStatus> {
        let rows = self.sadb.list_set(set);
        rows.map(|row| self.status(row, now)).collect()
    }

    pub(crate) fn status(&self, row: Row, now: u64) -> SaStatus {
        let shed = self.published.shed(row.slot);
        let drops = row.drops.into_iter().map(|(reason, n)| {
            let early = match reason {
                Reason::Replay => shed.replay,
                Reason::Stale => shed.stale,
                Reason::ModeMismatch => shed.mode_mismatch,
                Reason::IcvLimited => shed.icv_limited,
                _ => 0,
            };
            (reason, n + if row.dir == Dir::In { early } else { 0 })
        });
        let given = row
            .spec
            .outer
            .and_then(|o| o.dport)
            .filter(|_| row.dir == Dir::Out);
        SaStatus {
            age_ms: self.past.age_ms(row.set),
            set: row.set,
            slot: row.slot,
            dir: row.dir,
            spec: row.spec,
            state: row.state,
            seq: row.seq,
            top: row.top,
            packets: row.packets,
            bytes: row.bytes,
            drops: drops.filter(|(_, n)| *n > 0).collect(),
            encap_port: row.encap_port.or(given),
            idle_ms: (row.last_used > 0).then(|| now.saturating_sub(row.last_used)),
        }
    }

    /// All counters.
    pub(crate) fn stats(&self) -> Result<Stats, Error> {
        let mut reasons = self.maps.counters()?;
        for (sum, n) in reasons.iter_mut().zip(self.counters.snapshot()) {
            *sum += n;
        }
        Ok(Stats {
            reasons,
            sampled: self.watch.shared().sampled(),
            workers: self.crew.stats(),
        })
    }

    /// Tells whoever listens.
    pub(crate) fn announce(&self, event: Event) {
        let _ = self.events.try_send(event);
    }

    /// Stops the workers and removes everything.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        self.crew.stop();
        self.keeper.stop()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(e) = self.stop() {
            tracing::error!("shut down: {e}");
        }
    }
}

pub(crate) fn foreign_key(sa: &Sa) -> ForeignKey {
    ForeignKey {
        dst: map_addr(sa.destination()),
        spi: sa.spi().to_be_bytes(),
    }
}

/// Lets XDP find a lane's sockets.
pub(crate) fn show(maps: &mut Maps, lane: &Lane) -> Result<(), Error> {
    for (queue, fd) in lane.uplink_fds() {
        maps.set_uplink_socket(queue, fd)?;
    }
    for (queue, fd) in lane.gm0x_fds() {
        maps.set_gm0x_socket(queue, fd)?;
    }
    Ok(())
}
