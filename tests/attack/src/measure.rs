//! Goodput: what the phones offer and what of it arrives, without a flood and
//! with one of each kind, in turns.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gm_dataplane::Reason;
use serde::Serialize;

use crate::floods::Kind;
use crate::lab::{self, Lab};
use crate::machine;
use crate::packet::{Frames, ethernet};
use crate::phones::{self, Phone};
use crate::sink::{Mark, Sink};
use crate::wire::{self, Flow};

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Registered phones.
    pub phones: u32,
    /// Bytes of a UDP payload.
    pub payload: usize,
    /// Length of one measurement.
    pub time: Duration,
    /// Measurements of each kind.
    pub rounds: u32,
    /// Packets a second of all phones together; `None`: half of what the
    /// machine can do.
    pub rate: Option<u64>,
    /// Flood as a multiple of the phones' rate.
    pub factor: u64,
    /// CPU of the generator.
    pub generator: Option<usize>,
    /// CPU of gmesp and of the application behind it.
    pub gmesp: Option<usize>,
    /// Phones and attacker have a namespace each, behind a bridge.
    pub bridge: bool,
    /// Both send with AF_XDP, which costs less for each frame.
    pub xdp: bool,
    /// What to measure.
    pub kinds: Vec<Kind>,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    /// The phones' packets that were to be sent.
    pub offered: u64,
    /// Of these, what the phones' device refused.
    pub refused: u64,
    /// What has arrived, whole, once.
    pub verified: u64,
    /// `verified` of `offered`.
    pub goodput: f64,
    /// The flood's packets a second that were wanted, and sent.
    pub flood: (u64, u64),
    /// Packets of both that were sent and XDP has not seen.
    pub lost_before: u64,
    /// All counters of gmesp, what they grew by.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Bytes of this process before and after.
    pub rss: (u64, u64),
    /// Bytes of datagrams that were not whole, before and after.
    pub reassembly: (u64, u64),
}

/// All measurements of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// What.
    pub kind: String,
    /// Ratio to no flood that is asked for.
    pub target: Option<f64>,
    /// Each with the measurement without a flood before it.
    pub rounds: Vec<(Measured, Measured)>,
}

impl Series {
    /// Ratios of goodput to no flood, in order of size.
    pub fn ratios(&self) -> Vec<f64> {
        let ratio = |(quiet, flood): &(Measured, Measured)| flood.goodput / quiet.goodput;
        let mut ratios: Vec<f64> = self.rounds.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What the machine can do, packets a second; `None`: not looked for.
    pub most: Option<u64>,
    /// What was offered, packets a second.
    pub rate: u64,
    /// Of each kind.
    pub series: Vec<Series>,
    /// Payloads that nobody sent and that have arrived.
    pub forged: u64,
    /// Payloads that have arrived twice.
    pub replayed: u64,
    /// Frames that the workers have lost.
    pub leaked: u64,
}

/// The phones and where they are.
pub struct Bench {
    /// The namespaces.
    pub lab: Lab,
    /// The registered phones.
    pub phones: Vec<Phone>,
    /// The application.
    pub sink: Sink,
    mark: Mark,
    iv: phones::Iv,
    payload: usize,
    next: u64,
}

impl Bench {
    /// Registers the phones.
    ///
    /// # Errors
    /// What could not be made; needs root.
    pub fn new(o: &Options) -> Result<Bench> {
        let lab = Lab::new(&lab::Options {
            max_sas: (4 * o.phones).max(4),
            pins: None,
            cpu: o.gmesp,
            bridge: o.bridge,
            xdp: o.xdp,
        })?;
        let phones = phones::register(&lab.plane, o.phones)?;
        let mark = Mark::default();
        let sink = Sink::start(&lab, mark.clone(), o.gmesp, 0)?;
        if let Some(cpu) = o.generator {
            gm_xsk::sys::pin_thread(cpu).context("pin the generator")?;
        }
        Ok(Bench {
            lab,
            phones,
            sink,
            mark,
            iv: phones::iv(),
            payload: o.payload,
            next: 0,
        })
    }

    /// Seals packets, the phones in turns.
    ///
    /// # Errors
    /// Never with a payload that fits.
    pub fn seal(&mut self, count: u64) -> Result<Frames> {
        let mut frames = Frames::default();
        for n in 0..count {
            let phone = &self.phones[n as usize % self.phones.len()];
            let payload = self
                .mark
                .payload(phone.number, self.next, false, self.payload);
            self.next += 1;
            let packet = phone.seal(&mut self.iv, &payload)?;
            frames.push(&ethernet(self.lab.mac, self.lab.from[0], &packet));
        }
        Ok(frames)
    }

    /// Sends `frames` once at a rate, with a flood or without.
    pub fn measure(&self, frames: &Frames, rate: u64, flood: Option<(&Frames, u64)>) -> Measured {
        let arrived = || self.sink.arrived.verified.load(Relaxed);
        let (verified, before) = (arrived(), machine::counters(&self.lab.plane));
        let rss = machine::rss();
        let reassembly = machine::reassembly(&self.lab.plane);
        let time = Duration::from_secs_f64(frames.len() as f64 / rate as f64);
        let phones = Flow {
            link: &self.lab.phones,
            frames,
            rate,
        };
        let attacker = flood.map(|(frames, rate)| Flow {
            link: &self.lab.attacker,
            frames,
            rate,
        });
        let (p, f) = wire::run(&phones, attacker.as_ref(), time);
        self.settle();
        let reasons = machine::between(&before, &machine::counters(&self.lab.plane));
        let verified = arrived() - verified;
        let per_second = |n: u64| (n as f64 / time.as_secs_f64()) as u64;
        Measured {
            offered: p.wanted,
            refused: p.refused,
            verified,
            goodput: verified as f64 / p.wanted.max(1) as f64,
            flood: (per_second(f.wanted), per_second(f.sent)),
            lost_before: (p.sent + f.sent).saturating_sub(seen(&reasons)),
            reasons,
            rss: (rss, machine::rss()),
            reassembly: (reassembly, machine::reassembly(&self.lab.plane)),
        }
    }

    /// Waits until nothing arrives any more.
    fn settle(&self) {
        let mut last = u64::MAX;
        for _ in 0..40 {
            let now = self.sink.arrived.verified.load(Relaxed);
            if now == last {
                return;
            }
            last = now;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The highest rate of which nearly all arrives, packets a second.
    ///
    /// # Errors
    /// When even a thousand are too many.
    pub fn most(&mut self) -> Result<u64> {
        let (mut good, mut bad) = (0, None);
        let mut rate = 20_000;
        for _ in 0..12 {
            let frames = self.seal(rate / 2)?;
            let m = self.measure(&frames, rate, None);
            if m.goodput >= 0.99 {
                good = rate;
            } else {
                bad = Some(rate);
            }
            rate = match bad {
                None => good * 2,
                Some(bad) if bad - good <= bad / 16 => break,
                Some(bad) => (good + bad) / 2,
            };
            if rate < 1000 {
                break;
            }
        }
        ensure!(
            good > 0,
            "this machine delivers not even a thousand packets a second"
        );
        Ok(good)
    }
}

/// Packets that XDP on the uplink has decided about. What it steers a worker
/// ends, and outbound there is nothing, so the good ends are not counted twice.
fn seen(reasons: &BTreeMap<&'static str, u64>) -> u64 {
    let steered = [
        Reason::SteerEsp,
        Reason::SteerUdpEsp,
        Reason::SteerFragment,
        Reason::SteerIcmp,
    ];
    let at_worker = [
        Reason::BadIcv,
        Reason::Dummy,
        Reason::SelectorMismatch,
        Reason::FragmentLimit,
        Reason::FragmentOverlap,
        Reason::FragmentTimeout,
    ];
    let get = |r: &Reason| reasons.get(r.name()).copied().unwrap_or(0);
    let dropped = Reason::ALL
        .iter()
        .filter(|r| r.action() == gm_dataplane::Action::Drop && !at_worker.contains(r));
    steered.iter().map(get).sum::<u64>() + dropped.map(get).sum::<u64>() + get(&Reason::PassOther)
}

/// Measures everything; `say` hears how it goes.
///
/// # Errors
/// What could not be made; needs root.
pub fn run(o: &Options, mut say: impl FnMut(String)) -> Result<Outcome> {
    let mut b = Bench::new(o)?;
    say(format!("{} phones, {} SAs", o.phones, 4 * o.phones));
    let (most, rate) = match o.rate {
        Some(rate) => (None, rate),
        None => {
            let most = b.most()?;
            (Some(most), most / 2)
        }
    };
    say(format!("most {most:?} packets a second, offered {rate}"));
    let count = (rate as f64 * o.time.as_secs_f64()) as u64;
    let mut series: Vec<Series> = o
        .kinds
        .iter()
        .map(|kind| Series {
            kind: kind.name(),
            target: kind.target().0,
            rounds: Vec::new(),
        })
        .collect();
    for round in 0..o.rounds {
        for (kind, series) in o.kinds.iter().zip(&mut series) {
            let sent = b.seal(count)?;
            let quiet = b.measure(&sent, rate, None);
            let flood = kind.frames(&b.lab, &b.phones, &sent, u64::from(round) + 1);
            let frames = b.seal(count)?;
            let loud = b.measure(&frames, rate, Some((&flood, rate * o.factor)));
            say(format!(
                "{} {:>18}: {:.3} quiet, {:.3} under {} a second",
                round + 1,
                series.kind,
                quiet.goodput,
                loud.goodput,
                loud.flood.1
            ));
            series.rounds.push((quiet, loud));
            // So that no limit lasts until the next one.
            std::thread::sleep(Duration::from_millis(2200));
        }
    }
    let a = &b.sink.arrived;
    let stats = b.lab.plane.stats()?;
    Ok(Outcome {
        most,
        rate,
        series,
        forged: a.forged.load(Relaxed),
        replayed: a.replayed.load(Relaxed),
        leaked: stats.workers.iter().map(|w| w.frames_leaked).sum(),
    })
}
