//! The control side behind the handle: the SA database, the BPF maps and the
//! worker, in the order that keeps them consistent.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam::channel::Sender;
use gm_abi::maps::ForeignKey;
use gm_abi::verdict::Reason;
use gm_esp::{Mode, Sa};
use gm_sadb::{Change, Dir, Row, Sadb, SetId};

use crate::config::map_addr;
use crate::drops::{Sampler, Watch};
use crate::gone::Past;
use crate::handoff::{self, Command, Handoff};
use crate::keeper::{Keeper, Made};
use crate::maps::Maps;
use crate::process::{Advertised, Ctx, Process, Settings};
use crate::publish::Published;
use crate::stats::{Counters, Stats, WorkerStats};
use crate::table::{Entry, Table};
use crate::tap::TapPacket;
use crate::worker::{self, Place, Rings};
use crate::{Config, Error, Event, SaStatus, SetSpec, devices};

/// Everything that commands need.
pub(crate) struct Control {
    pub(crate) sadb: Sadb,
    maps: Maps,
    pub(crate) published: Arc<Published>,
    counters: Arc<Counters>,
    handoff: Handoff,
    worker: Option<JoinHandle<()>>,
    pub(crate) past: Past,
    pub(crate) watch: Watch,
    keeper: Keeper,
    cpu: Option<usize>,
}

impl Control {
    /// Puts the policy in force and starts the worker.
    pub(crate) fn start(
        cfg: &Config,
        sadb: Sadb,
        (tell, begin): (Sender<Event>, Instant),
    ) -> Result<Control, Error> {
        let (keeper, made) = Keeper::start(cfg.clone())?;
        let Made {
            mut maps,
            devices,
            uplink_mtu,
        } = made;
        let place = |index: u32, name: &str| {
            let queues = gm_xsk::nic::rx_queues(name)
                .map_err(|e| Error::io(format!("count the queues of {name}"), e))?;
            Ok::<Place, Error>(Place {
                index,
                name: name.to_owned(),
                queues,
            })
        };
        let rings = Rings::bind(
            place(devices.uplink, &cfg.uplink)?,
            place(devices.gm0x, &cfg.gm0x())?,
        )?;
        for (queue, fd) in rings.uplink_fds() {
            maps.set_uplink_socket(queue, fd)?;
        }
        for (queue, fd) in rings.gm0x_fds() {
            maps.set_gm0x_socket(queue, fd)?;
        }

        let published = Arc::new(maps.published(cfg.slots())?);
        let counters = Arc::new(Counters::default());
        let (sampler, watch) = Watch::of(&mut maps, &published, &counters)?;
        let shared = (&published, &counters, sampler);
        let process = process(cfg, &sadb, shared, (tell, uplink_mtu, begin))?;
        let (handoff, inbox) = handoff::pair()?;
        let worker = worker::start(0, cfg.cpu, rings, process, inbox)?;
        Ok(Control {
            sadb,
            maps,
            published,
            counters,
            handoff,
            worker: Some(worker),
            past: Past::default(),
            watch,
            keeper,
            cpu: cfg.cpu,
        })
    }

    /// Installs all SAs of a set or none.
    pub(crate) fn install(&mut self, spec: SetSpec) -> Result<SetId, Error> {
        let set = spec.set.unwrap_or_else(|| self.sadb.new_set());
        let dirs: Vec<Dir> = spec.sas.iter().map(|sa| sa.dir).collect();
        let installed = self.sadb.install(set, &spec.sas)?;
        let out = |(slot, dir): (&u32, &Dir)| (*dir == Dir::Out).then_some(*slot);
        let partners: Vec<u32> = installed.slots.iter().zip(&dirs).filter_map(out).collect();
        if let Err(e) = self.apply(set, &installed.changes, &partners) {
            // All or none: what did get through is taken back.
            let undo = self.sadb.remove(set);
            if self.apply(set, &undo, &[]).is_ok() {
                self.sadb.release(set)?;
            }
            return Err(e);
        }
        self.past.installed(set);
        Ok(set)
    }

    /// Carries out what the database has decided, in its order.
    fn apply(&mut self, set: SetId, changes: &[Change], partners: &[u32]) -> Result<(), Error> {
        for change in changes {
            match change {
                Change::Add { slot, sa, dir } => {
                    let (slot, dir, sa) = (*slot, *dir, sa.clone());
                    let entry = Entry::new(slot, set, dir, sa, partners.to_vec());
                    self.handoff.call(Command::Load(Box::new(entry)))?;
                }
                Change::Publish { slot, foreign, sa } => self.publish(*slot, *foreign, sa)?,
                Change::Select { slot, .. } => drop(self.handoff.call(Command::Activate(*slot))?),
                Change::Deselect { slot, .. } => {
                    drop(self.handoff.call(Command::Deactivate(*slot))?)
                }
                Change::Unpublish { slot, foreign, sa } => {
                    self.published.withdraw(*slot);
                    if *foreign {
                        self.maps.remove_foreign(&foreign_key(sa))?;
                    }
                }
                Change::Forget { slot, .. } => drop(self.handoff.call(Command::Unload(*slot))?),
            }
        }
        Ok(())
    }

    fn publish(&mut self, slot: u32, foreign: bool, sa: &Sa) -> Result<(), Error> {
        let top = self
            .sadb
            .region()
            .slot(slot)
            .map_or(0, |s| s.hot().top.load(Ordering::Relaxed));
        let window = (!sa.spec.esn).then_some((sa.spec.replay_window, top));
        // In UDP-enc-tun the port is not known before a packet has verified.
        let from = (sa.spec.mode == Mode::Trans).then(|| map_addr(sa.spec.selector.src));
        self.published.install(
            slot,
            sa.spec.spi,
            &map_addr(sa.destination()),
            sa.spec.mode,
            window,
            from.as_ref(),
        );
        if foreign {
            self.maps.add_foreign(&foreign_key(sa), slot)?;
        }
        Ok(())
    }

    /// Lets a set's outbound SAs take over.
    pub(crate) fn activate(&mut self, set: SetId) -> Result<(), Error> {
        let changes = self.sadb.activate(set)?;
        self.apply(set, &changes, &[])
    }

    /// Stops sending with a set.
    pub(crate) fn retire(&mut self, set: SetId) -> Result<(), Error> {
        let changes = self.sadb.retire(set);
        self.apply(set, &changes, &[])
    }

    /// Ends a set and frees its slots.
    pub(crate) fn remove(&mut self, set: SetId) -> Result<(), Error> {
        let changes = self.sadb.remove(set);
        self.apply(set, &changes, &[])?;
        let rows = self.sadb.list_set(set);
        let sas: Vec<SaStatus> = rows.map(|row| self.status(row, 0)).collect();
        self.past.removed(set, sas);
        Ok(self.sadb.release(set)?)
    }

    /// Changes the addresses that are protected.
    pub(crate) fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        self.maps.write_addresses(addresses)
    }

    /// Begins or ends the capture.
    pub(crate) fn tap(&self, to: Option<Sender<TapPacket>>) -> Result<(), Error> {
        self.handoff.call(Command::Tap(to)).map(drop)
    }

    /// All SAs, as of `now`.
    pub(crate) fn list(&self, now: u64) -> Vec<SaStatus> {
        self.sadb.list().map(|row| self.status(row, now)).collect()
    }

    fn status(&self, row: Row, now: u64) -> SaStatus {
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
        let own = self.counters.snapshot();
        for (sum, n) in reasons.iter_mut().zip(own) {
            *sum += n;
        }
        let report = self.handoff.call(Command::Report).unwrap_or_default();
        let worker = WorkerStats {
            worker: 0,
            cpu: self.cpu,
            reasons: own.to_vec(),
            batches: report.batches,
            packets: report.packets,
            frames: report.frames,
            frames_free: report.frames_free,
            frames_leaked: report.frames_leaked,
            tap_missed: report.tap_missed,
            sockets: report.sockets,
        };
        Ok(Stats {
            reasons,
            sampled: self.watch.shared().sampled(),
            workers: vec![worker],
        })
    }

    /// Stops the worker and removes everything.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        if let Some(worker) = self.worker.take() {
            // One that has ended by itself does not answer; one that hangs
            // must not hang this thread too.
            match self.handoff.call(Command::Stop) {
                Err(e) if !worker.is_finished() => tracing::error!("worker: {e}"),
                _ => drop(worker.join()),
            }
        }
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

fn foreign_key(sa: &Sa) -> ForeignKey {
    ForeignKey {
        dst: map_addr(sa.destination()),
        spi: sa.spec.spi.to_be_bytes(),
    }
}

fn process(
    cfg: &Config,
    sadb: &Sadb,
    (published, counters, sampler): (&Arc<Published>, &Arc<Counters>, Sampler),
    (events, uplink_mtu, begin): (Sender<Event>, Arc<AtomicU32>, Instant),
) -> Result<Process, Error> {
    let mut ident = [0; 4];
    getrandom::fill(&mut ident).map_err(|e| Error::Io {
        what: "random bytes".into(),
        source: std::io::Error::other(e),
    })?;
    let ctx = Ctx {
        engine: gm_engines::best(),
        region: sadb.region().clone(),
        published: published.clone(),
        counters: counters.clone(),
        sampler,
        events,
        settings: Settings {
            encap_port: cfg.encap_port,
            follow: cfg.follow_encap_port,
            uplink_mtu,
            // A veth takes one VLAN tag more than its MTU, a frame may have two.
            gm0_mtu: devices::GM0_MTU as usize - 4,
            ports: cfg.port_words(),
            advertised: Advertised::new(&cfg.advertised),
        },
        table: Table::new(cfg.slots()),
        forgeries: Default::default(),
        begin,
        now: 0,
    };
    Ok(Process::new(ctx, u32::from_ne_bytes(ident)))
}
