//! What is known of a phone: SAs that are and that were, dropped packets,
//! counters, registrations.

use std::net::IpAddr;

use gm_api::control::{ApiError, FlowEvent, SaStatus};
use gm_api::drops::Weight;
use gm_api::sad::Dir;
use gm_dataplane::{DropSample, Reason, monotonic_ns};

use crate::config::PlaneKind;
use crate::control::App;

/// Samples that are looked at.
const SAMPLES: usize = 256;

/// Removed SAs that are looked at.
const GONE: usize = 64;

/// What happened longer ago than this explains nothing about now.
const FRESH_MS: u64 = 120_000;

/// What packets end for that this host has no room for.
pub const OVERLOAD: [Reason; 4] = [
    Reason::NoFrame,
    Reason::RingFull,
    Reason::NoWorker,
    Reason::HandoverFull,
];

/// What is known of one phone.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its address, as this host sees it.
    pub address: IpAddr,
    /// How long the daemon runs.
    pub uptime_ms: u64,
    /// UDP port of ESP in UDP; 0: none.
    pub encap_port: u16,
    /// The data plane shows no packets that it drops: that none is known says nothing.
    pub is_blind: bool,
    /// Its SAs, both directions.
    pub sas: Vec<SaStatus>,
    /// SAs that were removed: its own, and those with SPIs that it still uses.
    pub gone: Vec<Gone>,
    /// How far back they are remembered; `None`: to the start.
    pub remembered_ms: Option<u64>,
    /// Its dropped packets, the newest first.
    pub samples: Vec<Seen>,
    /// Counters of its prefix, without zeros.
    pub counts: Vec<(Reason, u64)>,
    /// What these counters are for: the address, or an IPv6 /64.
    pub prefix: String,
    /// Packets that this host had no room for, of all phones.
    pub host: Vec<(Reason, u64)>,
    /// Steps of its registrations, the oldest first.
    pub steps: Vec<Step>,
    /// How long the uplink has been gone.
    pub uplink_gone_ms: Option<u64>,
}

/// An SA that was removed.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Its SPI.
    pub spi: u32,
    /// Its direction.
    pub dir: Dir,
    /// Number of its set.
    pub set: Option<u64>,
    /// How long ago.
    pub ago_ms: u64,
    /// Why, where the SIP side did it.
    pub why: Option<String>,
    /// What it had carried.
    pub packets: u64,
}

/// A dropped packet.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How long ago.
    pub ago_ms: u64,
    /// What it was.
    pub sample: DropSample,
}

/// A step of a registration.
#[derive(Clone, Debug)]
pub struct Step {
    /// How long ago.
    pub ago_ms: u64,
    /// What it was.
    pub event: FlowEvent,
}

impl Facts {
    /// Collects them. Must not be called where async tasks run.
    pub fn collect(app: &App, address: IpAddr) -> Result<Facts, ApiError> {
        let plane = app.sets.plane();
        let now = monotonic_ns();
        let since = |at: u64| now.saturating_sub(at) / 1_000_000;
        let is_blind = plane.kind() == PlaneKind::Kernel;
        let recent = match is_blind {
            true => Vec::new(),
            false => plane.recent_drops(Some(address), SAMPLES)?,
        };
        let samples: Vec<Seen> = recent
            .into_iter()
            .map(|sample| Seen {
                ago_ms: since(sample.at),
                sample,
            })
            .collect();
        let wall = crate::events::now_ms();
        let steps: Vec<Step> = app
            .events
            .of(address)
            .into_iter()
            .map(|event| Step {
                ago_ms: wall.saturating_sub(event.time_ms),
                event,
            })
            .collect();
        let spis: Vec<u32> = samples.iter().filter_map(|s| s.sample.spi).collect();
        let gone = plane
            .gone(address, &spis)
            .into_iter()
            .take(GONE)
            .map(|gone| {
                let set = app.sets.number_of(gone.sa.set.0);
                let removed = |s: &&Step| s.event.step == "removed" && s.event.set == set;
                let why = set.and_then(|_| steps.iter().rev().find(removed));
                Gone {
                    spi: gone.sa.spec.spi,
                    dir: crate::live::direction(gone.sa.dir),
                    set,
                    ago_ms: since(gone.at),
                    why: why.and_then(|s| s.event.reason.clone()),
                    packets: gone.sa.packets,
                }
            });
        let gone = gone.collect();
        let counts = match is_blind {
            true => None,
            false => plane.prefix_drops_of(address)?,
        };
        let stats = plane.counters()?;
        let is_peer = |row: &SaStatus| {
            let (inner, outer) = match row.sa.dir {
                Some(Dir::Out) => (row.sa.dst, row.sa.outer_dst),
                _ => (row.sa.src, row.sa.outer_src),
            };
            inner == address || outer == Some(address)
        };
        let mut sas = app.sets.list()?;
        sas.retain(is_peer);
        Ok(Facts {
            address,
            uptime_ms: app.uptime_ms(),
            encap_port: app.config.gm.encap_port,
            is_blind,
            sas,
            gone,
            remembered_ms: plane.gone_since().map(since),
            samples,
            prefix: prefix(address),
            counts: counts.map(|c| c.drops).unwrap_or_default(),
            host: OVERLOAD
                .map(|reason| (reason, stats.get(reason)))
                .into_iter()
                .filter(|(_, n)| *n > 0)
                .collect(),
            steps,
            uplink_gone_ms: app.events.uplink_gone().map(|at| wall.saturating_sub(at)),
        })
    }

    /// Nothing has ever been seen of it.
    pub fn is_empty(&self) -> bool {
        self.sas.is_empty()
            && self.gone.is_empty()
            && self.samples.is_empty()
            && self.counts.is_empty()
            && self.steps.is_empty()
            && self.uplink_gone_ms.is_none()
    }

    /// Its dropped packets for these reasons, the newest first.
    pub fn seen(&self, reasons: &[Reason]) -> impl Iterator<Item = &Seen> {
        let all = self.samples.iter();
        all.filter(|s| reasons.contains(&s.sample.reason))
    }

    /// The counter of its prefix for these reasons together.
    pub fn count(&self, reasons: &[Reason]) -> u64 {
        let all = self.counts.iter();
        all.filter(|(r, _)| reasons.contains(r))
            .map(|(_, n)| n)
            .sum()
    }

    /// Its SAs of one direction.
    pub fn sas(&self, dir: Dir) -> impl Iterator<Item = &SaStatus> {
        self.sas.iter().filter(move |row| row.sa.dir == Some(dir))
    }

    /// Milliseconds since its newest packet that verified.
    pub fn last_good(&self) -> Option<u64> {
        self.sas(Dir::In).filter_map(|row| row.idle_ms).min()
    }

    /// The inbound SAs of the set that this one is in: they have one key.
    pub fn with(&self, row: &SaStatus) -> impl Iterator<Item = &SaStatus> {
        let (set, spi) = (row.sa.set, row.sa.spi);
        self.sas(Dir::In)
            .filter(move |other| other.sa.spi == spi || set.is_some() && other.sa.set == set)
    }

    /// How much something matters that was last seen so long ago: what good
    /// packets have followed, or what is old, does not stop the phone now.
    pub fn weigh(&self, ago_ms: Option<u64>) -> Weight {
        weigh(ago_ms, self.last_good())
    }

    /// Lines that show packets and counters for some reasons.
    pub fn evidence(&self, reasons: &[Reason]) -> Vec<String> {
        let mut lines: Vec<String> = self.seen(reasons).take(3).map(super::words::seen).collect();
        for (reason, n) in self.counts.iter().filter(|(r, _)| reasons.contains(r)) {
            lines.push(format!(
                "{} counted for {}: {n}",
                reason.name(),
                self.prefix
            ));
        }
        for row in &self.sas {
            for (reason, n) in &row.drops {
                if reasons.iter().any(|r| r.name() == reason) {
                    lines.push(format!(
                        "{reason} counted for {}: {n}",
                        super::words::spi(row.sa.spi)
                    ));
                }
            }
        }
        lines
    }
}

/// By how long ago it was last seen, and how long ago a good packet was.
pub fn weigh(ago_ms: Option<u64>, good_ms: Option<u64>) -> Weight {
    let recovered = |ago| good_ms.is_some_and(|good| good < ago);
    match ago_ms {
        Some(ago) if ago < FRESH_MS && !recovered(ago) => Weight::Cause,
        _ => Weight::Hint,
    }
}

/// The drops of an SA for these reasons.
pub fn dropped(row: &SaStatus, reasons: &[Reason]) -> u64 {
    let of = |reason: &Reason| row.drops.get(reason.name()).copied().unwrap_or(0);
    reasons.iter().map(of).sum()
}

/// What an address is counted with: itself, or its IPv6 /64.
pub fn prefix(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            let first = std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
            format!("{first}/64")
        }
    }
}
