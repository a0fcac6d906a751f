//! The demo's P-CSCF: a gmespd process in a namespace of its own, driven
//! over its control socket as any operator would.

use std::fmt::Write as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gm_api::control::{SaStatus, Stats};
use gm_api::sad::Dir;
use gmespctl::client::{Client, ClientError};

use super::child::Child;
use super::netns::Netns;
use super::phone::write_private;
use super::{DOMAIN, PCSCF, interrupt};
use crate::config::PlaneKind;

const START: Duration = Duration::from_secs(15);

/// A subscriber of the demo's home network.
pub struct User {
    /// User part of the identities.
    pub name: String,
    /// K in hex.
    pub k: String,
    /// OPc in hex.
    pub opc: String,
}

/// The demo's subscriber with this number. The keys are no secrets: they
/// protect nobody.
pub fn user(number: usize) -> User {
    let key = |seed: u8| {
        (0..16u8).fold(String::new(), |mut hex, i| {
            let _ = write!(
                hex,
                "{:02x}",
                seed.wrapping_mul(31).wrapping_add(i.wrapping_mul(7))
            );
            hex
        })
    };
    let n = number as u8;
    User {
        name: format!("ue{}", number + 1),
        k: key(0x40 + n),
        opc: key(0x80 + n),
    }
}

/// Number of subscribers.
const USERS: usize = 6;

/// A running gmespd.
pub struct Daemon {
    process: Child,
    plane: PlaneKind,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Daemon {
    /// Starts gmespd and waits until it is well.
    pub fn start(netns: &Netns, dir: &Path, plane: PlaneKind) -> Result<Daemon> {
        let (config, socket) = configure(dir, plane)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["run", "--until-stdin-closes", "--config"])
            .arg(&config);
        // Its log goes to stderr, so that --json leaves stdout to the report.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        command.env(
            "GMESP_LOG",
            std::env::var("GMESP_LOG").unwrap_or_else(|_| "warn".into()),
        );
        let process = Child::new("gmespd", netns.spawn(&mut command)?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut daemon = Daemon {
            process,
            plane,
            client: Client::new(socket),
            runtime,
        };
        let deadline = Instant::now() + START;
        loop {
            interrupt::check()?;
            match daemon.runtime.block_on(daemon.client.health()) {
                Ok(_) => return Ok(daemon),
                Err(_) if !daemon.process.alive() => {
                    bail!("gmespd could not start; its message is above")
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("gmespd did not start in time");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// What carries its packets.
    pub fn plane(&self) -> PlaneKind {
        self.plane
    }

    /// Its SAs.
    pub fn sas(&self) -> Result<Vec<SaStatus>> {
        self.ask(self.client.list())
    }

    /// Its counters.
    pub fn stats(&self) -> Result<Stats> {
        self.ask(self.client.stats())
    }

    /// One counter.
    pub fn count(&self, reason: &str) -> Result<u64> {
        let stats = self.stats()?;
        stats
            .reasons
            .get(reason)
            .copied()
            .with_context(|| format!("gmespd counts nothing named {reason}"))
    }

    /// The NAT port to which it sends (port_Uenc), once it knows one.
    pub fn encap_port(&self) -> Result<Option<u16>> {
        let rows = self.sas()?;
        let mut out = rows.iter().filter(|row| row.sa.dir == Some(Dir::Out));
        Ok(out.find_map(|row| row.sa.encap_dport))
    }

    /// SAs as a table for people.
    pub fn table(&self, rows: &[SaStatus]) -> String {
        gmespctl::table::sas(rows)
    }

    fn ask<T>(&self, request: impl Future<Output = Result<T, ClientError>>) -> Result<T> {
        self.runtime
            .block_on(request)
            .context("gmespd does not answer on its control socket")
    }
}

fn configure(dir: &Path, plane: PlaneKind) -> Result<(PathBuf, PathBuf)> {
    let socket = dir.join("control.sock");
    let subscribers = (0..USERS).map(user).fold(String::new(), |mut text, user| {
        let _ = writeln!(
            text,
            "[[subscriber]]\nimpi = \"{0}@{DOMAIN}\"\nimpu = [\"sip:{0}@{DOMAIN}\"]\nk = \"{1}\"\nopc = \"{2}\"\n",
            user.name, user.k, user.opc
        );
        text
    });
    let subscribers = write_private(&dir.join("subscribers.toml"), &subscribers)?;
    let config = format!(
        "[gm]\ndata_plane = \"{}\"\nuplinks = [\"pc0\"]\naddresses = [\"{PCSCF}\"]\nserver_ports = [5066]\n\
         client_ports = [\"5067-5074\"]\nmax_sas = 64\npin_dir = \"off\"\n\n\
         [control]\nsocket = \"{}\"\n\n\
         [edge]\nsip_port = 5060\nport_ps = 5066\nport_pc = \"5067-5074\"\nhome = \"embedded\"\n\
         \n[edge.timers]\nlinger_s = 1\n\n[home]\ndomain = \"{DOMAIN}\"\nsubscribers = \"{}\"\n",
        plane.name(),
        socket.display(),
        subscribers.display()
    );
    Ok((write_private(&dir.join("gmespd.toml"), &config)?, socket))
}
