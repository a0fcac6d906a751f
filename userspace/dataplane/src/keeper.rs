//! The keeper: a thread that owns devices, programs and pins.
//!
//! It lives in the network namespace of the thread that started the data
//! plane, so everything that follows that namespace is done here: rtnetlink,
//! /proc/sys/net, attaching by interface index. While the data plane runs it
//! follows link events: a new interface gets the guard, for Linux accepts a
//! local address on any interface.

mod follow;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;

use aya::Ebpf;
use aya::programs::TcAttachType;
use futures_util::StreamExt;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;

use crate::attach::{self, Held};
use crate::devices::{self, Devices, Link};
use crate::lock::InstanceLock;
use crate::maps::{self, Maps};
use crate::pins::PinDir;
use crate::supervise::Notice;
use crate::{Config, Error};

/// What the data plane needs to know of what the keeper made.
pub(crate) struct Made {
    pub maps: Maps,
    pub devices: Devices,
    /// The uplink's MTU, which the keeper follows.
    pub uplink_mtu: Arc<AtomicU32>,
}

/// How the keeper ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything is removed.
    Remove,
    /// The start has failed: what was made is removed, but a policy that a
    /// killed predecessor left in force stays in force.
    Abandon,
}

/// The running keeper. Dropped without [`Keeper::stop`], it abandons.
pub(crate) struct Keeper {
    stop: mpsc::UnboundedSender<End>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Keeper {
    /// Makes devices, loads and attaches everything, in the caller's network
    /// namespace; returns when the policy is in force.
    pub(crate) fn start(
        cfg: Config,
        notices: crossbeam::channel::Sender<Notice>,
    ) -> Result<(Keeper, Made), Error> {
        let (stop, stopped) = mpsc::unbounded_channel();
        let (tell, told) = crossbeam::channel::bounded(1);
        let thread = std::thread::Builder::new()
            .name("gm-keeper".into())
            .spawn(move || run(&cfg, stopped, &tell, notices))
            .map_err(|e| Error::io("start the keeper thread", e))?;
        match told.recv() {
            Ok(made) => Ok((
                Keeper {
                    stop,
                    thread: Some(thread),
                },
                made,
            )),
            // The sender is gone: the thread has ended with the reason.
            Err(_) => match thread.join() {
                Ok(Err(e)) => Err(e),
                _ => Err(Error::WorkerGone),
            },
        }
    }

    /// Detaches everything and removes devices and pins.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        self.end(End::Remove)
    }

    fn end(&mut self, how: End) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let _ = self.stop.send(how);
        thread.join().unwrap_or(Err(Error::WorkerGone))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(e) = self.end(End::Abandon) {
            tracing::error!("clean-up: {e}");
        }
    }
}

fn run(
    cfg: &Config,
    stopped: mpsc::UnboundedReceiver<End>,
    tell: &crossbeam::channel::Sender<Made>,
    notices: crossbeam::channel::Sender<Notice>,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("start the keeper's runtime", e))?;
    runtime.block_on(keep(cfg, stopped, tell, notices))
}

async fn keep(
    cfg: &Config,
    mut stopped: mpsc::UnboundedReceiver<End>,
    tell: &crossbeam::channel::Sender<Made>,
    notices: crossbeam::channel::Sender<Notice>,
) -> Result<(), Error> {
    let mut lock = InstanceLock::take(cfg)?;
    let pins = cfg.pin_dir.as_deref().map(PinDir::open).transpose()?;
    if let Some(p) = &pins {
        lock.take_pins(p.dir())?;
    }
    let (connection, handle, mut events) = new_multicast_connection(&[MulticastGroup::Link])
        .map_err(|e| Error::io("open a netlink socket", e))?;
    tokio::spawn(connection);

    let devices = match devices::make(&handle, cfg).await {
        Ok(devices) => devices,
        Err(e) => {
            if let Some(pins) = pins.filter(|p| p.links().is_empty()) {
                pins.clear()?;
            }
            return Err(e);
        }
    };
    let mtu = Arc::new(AtomicU32::new(devices.uplink_mtu));
    let mut kept = Kept {
        cfg,
        devices,
        pins,
        ebpf: None,
        fixed: Vec::new(),
        guards: HashMap::new(),
        exits: HashMap::new(),
        xdp: None,
        mtu: mtu.clone(),
        notices,
    };
    match kept.attach(&handle).await {
        Ok(maps) => {
            // The other end is gone only if the caller is.
            let _ = tell.send(Made {
                maps,
                devices,
                uplink_mtu: mtu,
            });
        }
        Err(e) => {
            // The reason of the failure is what the caller has to know.
            let _ = kept.end(End::Abandon, &handle).await;
            return Err(e);
        }
    }
    let mut looks = tokio::time::interval(follow::LOOK);
    let mut told = true;
    let how = loop {
        tokio::select! {
            how = stopped.recv() => break how,
            event = events.next(), if told => match event {
                Some((message, _)) => kept.event(message.payload, &handle).await,
                None => {
                    told = false;
                    tracing::error!("netlink events have ended: interfaces are looked at instead");
                }
            },
            _ = looks.tick() => kept.look(&handle).await,
        }
    };
    kept.end(how.unwrap_or(End::Abandon), &handle).await
}

/// Everything that has to be undone.
struct Kept<'c> {
    cfg: &'c Config,
    devices: Devices,
    pins: Option<PinDir>,
    ebpf: Option<Ebpf>,
    /// What gm0 and gm0x have.
    fixed: Vec<Held>,
    /// XDP on the uplink; none while that is gone.
    xdp: Option<Held>,
    /// The guard of each interface, by index.
    guards: HashMap<u32, Held>,
    /// The egress program of each interface that packets leave through, by
    /// index. On the uplink, which CONFIG names, it takes what it drops on the
    /// others.
    exits: HashMap<u32, Held>,
    mtu: Arc<AtomicU32>,
    /// To the supervisor.
    notices: crossbeam::channel::Sender<Notice>,
}

/// Whether the name is no longer this interface's.
fn is_other(link: &Link) -> bool {
    nix::net::if_::if_nametoindex(link.name.as_str()) != Ok(link.index)
}

impl Kept<'_> {
    async fn attach(&mut self, handle: &Handle) -> Result<Maps, Error> {
        let mut ebpf = attach::load(self.cfg)?;
        if let Some(pins) = &self.pins {
            attach::pin_maps(&ebpf, pins)?;
        }
        attach::verify(&mut ebpf)?;
        let mut maps = Maps::take(&mut ebpf)?;
        maps.write_policy(self.cfg, &self.devices, maps::cookie()?)?;
        self.ebpf = Some(ebpf);

        // The guard stands before anything can be injected behind it.
        for link in devices::all(handle).await? {
            self.close(&link)?;
        }
        let gm0x = self.cfg.gm0x();
        let (uplink, gm0) = (self.cfg.uplink.as_str(), self.cfg.gm0.as_str());
        let tcx = attach::use_tcx(self.cfg.tc);
        let (d, pins) = (self.devices, self.pins.as_ref());
        if let Some(e) = &mut self.ebpf {
            let at = (d.gm0x, gm0x.as_str());
            let held = attach::attach_xdp(e, attach::XDP_GM0X, at, pins)?;
            self.fixed.push(held);
            let at = (d.uplink, uplink);
            self.xdp = Some(attach::attach_xdp(e, attach::XDP_UPLINK, at, pins)?);
            let pin = attach::pin_of(attach::TC_GM0, d.gm0);
            let (ingress, how) = (TcAttachType::Ingress, (tcx, pins, pin.as_str()));
            let held = attach::attach_tc(e, attach::TC_GM0, gm0, ingress, how)?;
            self.fixed.push(held);
        }
        self.way_out(d.uplink, uplink)?;
        if let Some(pins) = &self.pins {
            self.drop_stale(pins)?;
        }
        Ok(maps)
    }

    /// Lets go of what a predecessor has pinned and this one has not taken over:
    /// guards of interfaces that went while nobody looked, programs on an
    /// uplink that no longer is the uplink.
    fn drop_stale(&self, pins: &PinDir) -> Result<(), Error> {
        let held = self.fixed.iter().chain(&self.xdp);
        let held = held.chain(self.guards.values());
        let held = held.chain(self.exits.values());
        let held: Vec<_> = held.filter_map(Held::pin).collect();
        for name in pins.links() {
            let path = pins.link(&name);
            if !held.contains(&path.as_path()) {
                crate::pins::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Puts the guard on an interface's ingress.
    fn guard(&mut self, link: &Link) -> Result<(), Error> {
        let ours = [self.devices.gm0, self.devices.gm0x];
        let done = ours.contains(&link.index) || self.guards.contains_key(&link.index);
        let Some(ebpf) = self.ebpf.as_mut().filter(|_| !done) else {
            return Ok(());
        };
        let tcx = attach::use_tcx(self.cfg.tc);
        let pin = attach::pin_of("guard", link.index);
        let how = (tcx, self.pins.as_ref(), pin.as_str());
        let ingress = TcAttachType::Ingress;
        match attach::attach_tc(ebpf, attach::TC_GUARD, &link.name, ingress, how) {
            Ok(held) => {
                self.guards.insert(link.index, held);
                Ok(())
            }
            // Gone again, or renamed: an event tells.
            Err(_) if is_other(link) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Puts the egress program on an interface that is not the uplink: a route
    /// may lead there, or the uplink was unplugged and is back under its name.
    /// What is protected is dropped there.
    fn no_way_out(&mut self, link: &Link) -> Result<(), Error> {
        let ours = [self.devices.uplink, self.devices.gm0, self.devices.gm0x];
        if ours.contains(&link.index) || !link.is_exit {
            return Ok(());
        }
        match self.way_out(link.index, &link.name) {
            // Gone again, or renamed: an event tells.
            Err(_) if is_other(link) => Ok(()),
            end => end,
        }
    }

    /// Puts the egress program on an interface, once.
    fn way_out(&mut self, index: u32, name: &str) -> Result<(), Error> {
        let done = self.exits.contains_key(&index);
        let Some(ebpf) = self.ebpf.as_mut().filter(|_| !done) else {
            return Ok(());
        };
        let tcx = attach::use_tcx(self.cfg.tc);
        let pin = attach::pin_of(attach::TC_EGRESS, index);
        let how = (tcx, self.pins.as_ref(), pin.as_str());
        let egress = TcAttachType::Egress;
        let held = attach::attach_tc(ebpf, attach::TC_EGRESS, name, egress, how)?;
        self.exits.insert(index, held);
        Ok(())
    }

    /// Everything that an interface gets, each once.
    fn close(&mut self, link: &Link) -> Result<(), Error> {
        let egress = self.no_way_out(link);
        self.guard(link).and(egress)
    }

    async fn end(&mut self, how: End, handle: &Handle) -> Result<(), Error> {
        if how == End::Abandon && self.devices.adopted {
            let guards = std::mem::take(&mut self.guards).into_values();
            guards
                .chain(std::mem::take(&mut self.exits).into_values())
                .chain(std::mem::take(&mut self.fixed))
                .chain(self.xdp.take())
                .for_each(Held::leave);
            return Ok(());
        }
        self.remove(handle).await
    }

    /// The reverse of `attach`: what injects goes before what guards.
    async fn remove(&mut self, handle: &Handle) -> Result<(), Error> {
        let mut first = Ok(());
        let fixed = std::mem::take(&mut self.fixed).into_iter().rev();
        let fixed = fixed.chain(self.xdp.take());
        let egress = std::mem::take(&mut self.exits).into_values();
        let guards = std::mem::take(&mut self.guards).into_values();
        for held in fixed.chain(egress).chain(guards) {
            first = first.and(held.detach());
        }
        self.ebpf = None;
        first = first.and(devices::remove(handle, self.devices.gm0).await);
        if self.devices.stripped {
            devices::take_tags(&self.cfg.uplink);
        }
        if let Some(pins) = &self.pins {
            first = first.and(pins.clear());
        }
        first
    }
}
