//! The data plane that the configuration has chosen, started and stopped.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use crossbeam::channel::Receiver;
use gm_dataplane::{DataPlane, Event};

use crate::config::{Config, PlaneKind};
use crate::kernel::{KernelPlane, Settings};
use crate::plane::Plane;

/// Replay windows up to this size can be asked for per SA; where there are
/// very many SAs, only up to the configured size, for memory's sake.
const LARGEST_WINDOW: u32 = 4096;
const MANY_SAS: u32 = 1 << 16;

/// What runs.
pub enum Running {
    /// XDP and workers.
    Xdp(DataPlane),
    /// The kernel's ESP.
    Kernel(KernelPlane),
}

impl Running {
    /// Puts the policy in force. When it returns there is no SA, and nothing that is
    /// protected goes without one.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn start(config: &Config) -> Result<Running> {
        Ok(match config.gm.data_plane {
            PlaneKind::Xdp => Running::Xdp(DataPlane::start(plane_config(config))?),
            PlaneKind::Kernel => Running::Kernel(KernelPlane::start(settings(config))?),
        })
    }

    /// For commands.
    pub fn plane(&self) -> Arc<dyn Plane> {
        match self {
            Running::Xdp(plane) => Arc::new(plane.clone()),
            Running::Kernel(plane) => Arc::new(plane.clone()),
        }
    }

    /// What it tells without being asked.
    pub fn events(&self) -> Receiver<Event> {
        match self {
            Running::Xdp(plane) => plane.events(),
            Running::Kernel(plane) => plane.events(),
        }
    }

    /// Takes everything away: this host sends in clear again.
    ///
    /// # Errors
    /// What could not be removed; the rest is.
    pub fn shutdown(&self) -> Result<()> {
        match self {
            Running::Xdp(plane) => plane.shutdown()?,
            Running::Kernel(plane) => plane.shutdown()?,
        }
        Ok(())
    }

    /// Lets go and leaves the policy in force, for a process that has failed.
    pub fn leave_in_force(&self) {
        match self {
            Running::Xdp(plane) => plane.leave_in_force(),
            Running::Kernel(plane) => plane.leave_in_force(),
        }
    }
}

/// Where BPF objects are pinned; `None`: nowhere.
pub fn pin_dir(config: &Config) -> Option<&Path> {
    let dir = config.gm.pin_dir.as_path();
    (dir.as_os_str() != "off").then_some(dir)
}

/// The window that can be asked for per SA.
pub fn largest_window(config: &Config) -> u32 {
    match config.gm.max_sas > MANY_SAS {
        true => config.gm.replay_window,
        false => LARGEST_WINDOW,
    }
}

fn settings(config: &Config) -> Settings {
    let gm = &config.gm;
    let ports = gm.server_ports.iter().chain(&gm.client_ports);
    Settings {
        addresses: gm.addresses.clone(),
        ports: ports.map(|range| range.0.clone()).collect(),
        max_sas: gm.max_sas,
        replay_window: largest_window(config),
        encap_port: gm.encap_port,
        follow_encap_port: gm.follow_encap_port,
    }
}

fn plane_config(config: &Config) -> gm_dataplane::Config {
    let gm = &config.gm;
    let ranges = |ports: &[crate::config::PortRange]| ports.iter().map(|p| p.0.clone()).collect();
    gm_dataplane::Config {
        uplink: gm.uplinks.first().cloned().unwrap_or_default(),
        addresses: gm.addresses.clone(),
        advertised: config.advertised(),
        server_ports: ranges(&gm.server_ports),
        client_ports: ranges(&gm.client_ports),
        max_sas: gm.max_sas,
        replay_window: largest_window(config),
        encap_port: gm.encap_port,
        workers: gm.workers,
        cpus: gm.cpu.map_or_else(|| gm.cpus.clone(), |cpu| vec![cpu]),
        busy_poll_us: gm.busy_poll.0,
        pin_dir: pin_dir(config).map(Path::to_owned),
        gm0: gm.gm0.clone(),
        follow_encap_port: gm.follow_encap_port,
        kernel_sas: gm.kernel_sas,
        ..gm_dataplane::Config::default()
    }
}
