//! `gmespd demo`: a phone registers through the fast path, in namespaces of
//! the demo's own, and an attacker in between gets nowhere.
//!
//! ```text
//!   gmesp-demo-ue            gmesp-demo-wire             gmesp-demo-pcscf
//!   gm-ue, XDP on ue0 ── ue0  (plain wire or NAT,   pc0 ── gmespd, XDP on pc0,
//!   10.45.0.2              \   capture, attacker)  /       edge, home network
//!   192.0.2.10              ── wue ········ wpc ──         192.0.2.1
//! ```
//!
//! Everything is real but the home network's users: the daemon and the phone
//! are processes of this very program, with the same data path at both ends.

mod capture;
mod child;
mod daemon;
mod frame;
mod interrupt;
mod keys;
mod links;
mod nat;
mod needs;
mod netns;
mod phone;
mod report;
mod scenes;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use self::daemon::Daemon;
use self::keys::Keys;
use self::netns::Netns;
use self::report::Stage;
use self::wire::{NatSpec, Wire};
use crate::config::PlaneKind;

/// Domain of the demo's home network.
pub const DOMAIN: &str = "home.test";
/// The P-CSCF's address (RFC 5737).
pub const PCSCF: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The phone's address where there is no NAT.
pub const UE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The phone's address behind the NAT.
pub const UE_PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 45, 0, 2);
/// The phone's side of the NAT.
pub const NAT_PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 45, 0, 1);
/// The P-CSCF's side of the NAT.
pub const NAT_PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// Arguments of `gmespd demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object at the end instead of the story.
    #[arg(long)]
    pub json: bool,
    /// What carries the packets at the P-CSCF; the phone's are carried by XDP.
    #[arg(long, value_name = "PLANE", value_enum, default_value_t = PlaneKind::Xdp)]
    pub data_plane: PlaneKind,
    /// Keep the capture, and the keys to open it with, in this directory.
    #[arg(long, value_name = "DIR")]
    pub pcap: Option<PathBuf>,
}

/// Runs the demo. Exit code 0 only if all of it happened.
pub fn run(args: &Args) -> ExitCode {
    let mut stage = Stage::new(args.json);
    if let Some(missing) = needs::missing() {
        stage.cannot(&missing);
        return ExitCode::FAILURE;
    }
    interrupt::watch();
    let error = play(args, &mut stage).err().map(|e| format!("{e:#}"));
    if stage.close(error) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn play(args: &Args, stage: &mut Stage) -> Result<()> {
    netns::remove_stale();
    let scratch = Scratch::create()?;
    let keys = Keys::create(args.pcap.as_deref(), &scratch.0)?;

    stage.scene("A wire between a phone and a P-CSCF, in namespaces of their own");
    let set = Set::build(args, stage)?;
    let daemon = Daemon::start(&set.pcscf, &scratch.0, args.data_plane)?;
    stage.say(&format!(
        "   gmespd runs in {} on pc0, {PCSCF}{}",
        set.pcscf.name(),
        match args.data_plane {
            PlaneKind::Xdp => "",
            PlaneKind::Kernel => "; its ESP is the kernel's",
        }
    ));

    let played = scenes::play(&set, &daemon, &keys, &scratch.0, stage);
    // The capture is whole only when the wire has stopped.
    drop(daemon);
    let Set { wire, .. } = set;
    let stopped = wire.stop();
    played.and(stopped)?;
    keys.finish(stage)
}

/// The scenery: namespaces, links and the wire.
pub struct Set {
    // The wire goes first: its links live in the namespaces.
    wire: Wire,
    ue: Netns,
    pcscf: Netns,
    _between: Netns,
    nat: NatSpec,
}

impl Set {
    fn build(args: &Args, stage: &Stage) -> Result<Set> {
        let ue = Netns::create("ue")?;
        let pcscf = Netns::create("pcscf")?;
        let between = Netns::create("wire")?;
        for (netns, role) in [
            (&ue, "the phone"),
            (&between, "the wire"),
            (&pcscf, "the P-CSCF"),
        ] {
            links::up(netns, "lo")?;
            stage.say(&format!("   {:<24} {role}", netns.name()));
        }
        let (ue0, _) = links::veth(&ue, "ue0", &between, "wue")?;
        let (pc0, _) = links::veth(&pcscf, "pc0", &between, "wpc")?;
        links::address(&pcscf, pc0, IpAddr::V4(PCSCF), 24)?;
        links::address(&ue, ue0, IpAddr::V4(UE), 24)?;
        // Behind the NAT the phone has another address and a default route;
        // nobody answers ARP for the NAT, so both sides know its MAC address.
        links::address(&ue, ue0, IpAddr::V4(UE_PRIVATE), 24)?;
        links::neighbour(&ue, ue0, IpAddr::V4(NAT_PRIVATE), nat::NAT_MAC)?;
        links::neighbour(&pcscf, pc0, IpAddr::V4(NAT_PUBLIC), nat::NAT_MAC)?;
        let capture = match &args.pcap {
            Some(dir) => {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("cannot make {}", dir.display()))?;
                Some(dir.join("capture.pcapng"))
            }
            None => None,
        };
        let wire = Wire::start(&between, "wue", "wpc", capture.as_deref())?;
        let nat = NatSpec {
            public: NAT_PUBLIC,
            private: UE_PRIVATE,
            ue_mac: ue0.mac,
            pcscf_mac: pc0.mac,
        };
        Ok(Set {
            wire,
            ue,
            pcscf,
            _between: between,
            nat,
        })
    }
}

/// A directory for configuration files, removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("gmesp-demo-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
