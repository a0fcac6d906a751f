//! SAs that come and go under traffic, for as long as one likes: nothing may
//! leak, and nothing may arrive through an SA that is gone.

mod maps;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use crate::lab::{self, Lab};
use crate::machine;
use crate::packet::{Random, ethernet};
use crate::phones::{self, Phone};
use crate::sink::{Mark, Sink};
use crate::wire;
use maps::Pinned;

/// How to soak.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long.
    pub time: Duration,
    /// SAs that are installed at a time, four a phone.
    pub sas: u32,
    /// Phones a second that go, and as many that come.
    pub churn: u32,
    /// Packets a second to SAs that live.
    pub rate: u64,
    /// Packets a second to SAs that are gone.
    pub late: u64,
    /// Bytes of a UDP payload.
    pub payload: usize,
    /// Seconds between two looks.
    pub every: Duration,
}

/// What the machine looked like at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Look {
    /// Seconds since the beginning.
    pub at: f64,
    /// SAs that should be there, and are.
    pub sas: (usize, usize),
    /// Inbound SAs that XDP should see, and sees.
    pub slots: (usize, usize),
    /// SPIs that are not gmesp's and should be in the map, and are.
    pub foreign: (usize, usize),
    /// Bytes of this process.
    pub rss: u64,
    /// Its open files.
    pub descriptors: usize,
    /// Frames of the workers, of these free, and lost.
    pub frames: (u64, u64, u64),
    /// Phones that have come and gone.
    pub churned: u64,
    /// Packets that were sent to living SAs, and have arrived.
    pub delivered: (u64, u64),
    /// Packets that were sent to SAs that were gone.
    pub late: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// From the first to the last.
    pub looks: Vec<Look>,
    /// After everything has been removed.
    pub end: Look,
    /// Payloads that were sealed after their SA had been removed, and arrived.
    pub accepted_removed: u64,
    /// Payloads that nobody sent, and those that arrived twice.
    pub accepted_forged: u64,
    /// See above.
    pub accepted_replayed: u64,
    /// All counters.
    pub reasons: BTreeMap<&'static str, u64>,
    /// What is wrong; empty: nothing.
    pub wrong: Vec<String>,
}

/// Phones that are there and phones that have gone.
#[derive(Default)]
struct Crowd {
    here: Vec<Arc<Phone>>,
    gone: VecDeque<Arc<Phone>>,
}

/// Phones that have gone, whose packets still come.
const REMEMBERED: usize = 512;

/// Every so many phones have SPIs that the control side chose.
const FOREIGN: u32 = 8;

struct Shared {
    crowd: Mutex<Crowd>,
    stop: AtomicBool,
    sent: AtomicU64,
    late: AtomicU64,
}

impl Shared {
    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Soaks; `say` hears a line at every look.
///
/// # Errors
/// What could not be made; needs root. What is wrong with gmesp is in the
/// outcome.
pub fn run(o: &Options, mut say: impl FnMut(&Look)) -> Result<Outcome> {
    let pins = tempfile::tempdir().context("make a pin directory")?;
    let lab = Lab::new(&lab::Options {
        // A quarter more, so that slots come back late.
        max_sas: (o.sas + o.sas / 4).next_power_of_two(),
        pins: Some(pins.path().join("bpf")),
        ..lab::Options::default()
    })?;
    let pinned = Pinned::open(&pins.path().join("bpf"))?;
    let mark = Mark::default();
    let sink = Sink::start(&lab, mark.clone(), None, 8)?;
    let shared = Shared {
        crowd: Mutex::default(),
        stop: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        late: AtomicU64::new(0),
    };
    let mut soak = Soak {
        o,
        lab: &lab,
        pinned: &pinned,
        sink: &sink,
        shared: &shared,
        begin: Instant::now(),
        next: 0,
        random: Random::new(7),
    };
    let before = soak.look(false)?;
    for _ in 0..o.sas / 4 {
        soak.come()?;
    }
    let mut looks = Vec::new();
    let done = std::thread::scope(|s| {
        let traffic = s.spawn(|| traffic(o, &lab, &mark, &shared));
        let done = soak.churn(&mut looks, &mut say);
        shared.stop.store(true, Relaxed);
        let sent = traffic
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the traffic's thread panicked")));
        done.and(sent)
    });
    done?;
    // What is on its way.
    std::thread::sleep(Duration::from_millis(500));
    let reasons = machine::counters(&lab.plane);
    soak.remove_all()?;
    let end = soak.look(true)?;
    let mut wrong = soak.wrong(&before, &looks, &end);
    wrong.extend(soak.slots_are_free()?);
    let a = &sink.arrived;
    let (removed, forged, replayed) = (
        a.removed.load(Relaxed),
        a.forged.load(Relaxed),
        a.replayed.load(Relaxed),
    );
    for (n, what) in [
        (removed, "packets were accepted on SAs that were gone"),
        (forged, "forged packets were accepted"),
        (replayed, "packets were accepted twice"),
    ] {
        if n > 0 {
            wrong.push(format!("{n} {what}"));
        }
    }
    Ok(Outcome {
        looks,
        end,
        accepted_removed: removed,
        accepted_forged: forged,
        accepted_replayed: replayed,
        reasons,
        wrong,
    })
}

/// The phones' packets, of those that are there and those that have gone.
fn traffic(o: &Options, lab: &Lab, mark: &Mark, shared: &Shared) -> Result<()> {
    let (mut iv, mut random, begin) = (phones::iv(), Random::new(11), Instant::now());
    let mut number = 0;
    let due = |rate: u64| (begin.elapsed().as_secs_f64() * rate as f64) as u64;
    while !shared.stop.load(Relaxed) {
        let (here, gone) = {
            let crowd = shared.crowd();
            let here = crowd.here.get(random.below(crowd.here.len())).cloned();
            let gone = crowd.gone.get(random.below(crowd.gone.len())).cloned();
            (here, gone)
        };
        let mut idle = true;
        for (phone, sent, rate, late) in [
            (here, &shared.sent, o.rate, false),
            (gone, &shared.late, o.late, true),
        ] {
            let Some(phone) = phone.filter(|_| sent.load(Relaxed) < due(rate)) else {
                continue;
            };
            let payload = mark.payload(phone.number, number, late, o.payload);
            number += 1;
            let packet = phone.seal(&mut iv, &payload)?;
            wire::send_one(&lab.phones, &ethernet(lab.mac, lab.from[0], &packet))?;
            sent.fetch_add(1, Relaxed);
            idle = false;
        }
        if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}

struct Soak<'a> {
    o: &'a Options,
    lab: &'a Lab,
    pinned: &'a Pinned,
    sink: &'a Sink,
    shared: &'a Shared,
    begin: Instant,
    /// Number of the next phone.
    next: u32,
    random: Random,
}

impl Soak<'_> {
    fn come(&mut self) -> Result<()> {
        let foreign = self.next.is_multiple_of(FOREIGN);
        let phone = Phone::install(&self.lab.plane, self.next, foreign)?;
        self.next += 1;
        self.shared.crowd().here.push(Arc::new(phone));
        Ok(())
    }

    fn go(&mut self) -> Result<()> {
        let phone = {
            let mut crowd = self.shared.crowd();
            if crowd.here.is_empty() {
                return Ok(());
            }
            let at = self.random.below(crowd.here.len());
            crowd.here.swap_remove(at)
        };
        // Half of them retire first, as after a new registration.
        if self.random.below(2) == 0 {
            self.lab.plane.retire(phone.set)?;
        }
        self.lab.plane.remove(phone.set)?;
        // From here on nothing of it may arrive.
        let mut crowd = self.shared.crowd();
        crowd.gone.push_back(phone);
        if crowd.gone.len() > REMEMBERED {
            crowd.gone.pop_front();
        }
        Ok(())
    }

    fn churn(&mut self, looks: &mut Vec<Look>, say: &mut impl FnMut(&Look)) -> Result<()> {
        let (begin, first) = (Instant::now(), self.next);
        let mut looked = begin;
        while begin.elapsed() < self.o.time {
            let due = (begin.elapsed().as_secs_f64() * f64::from(self.o.churn)) as u32;
            if self.next - first < due {
                self.go()?;
                self.come()?;
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
            if looked.elapsed() >= self.o.every {
                looked = Instant::now();
                let look = self.look(true)?;
                say(&look);
                looks.push(look);
            }
        }
        Ok(())
    }

    fn remove_all(&mut self) -> Result<()> {
        while !self.shared.crowd().here.is_empty() {
            self.go()?;
        }
        Ok(())
    }

    fn look(&self, maps: bool) -> Result<Look> {
        let here = {
            let crowd = self.shared.crowd();
            let foreign = |p: &&Arc<Phone>| p.number.is_multiple_of(FOREIGN);
            (crowd.here.len(), crowd.here.iter().filter(foreign).count())
        };
        let stats = self.lab.plane.stats()?;
        let sum = |get: fn(&gm_dataplane::WorkerStats) -> u64| stats.workers.iter().map(get).sum();
        let (slots, foreign) = match maps {
            true => (self.pinned.slots()?, self.pinned.foreign()?),
            false => (0, 0),
        };
        Ok(Look {
            at: self.begin.elapsed().as_secs_f64(),
            sas: (4 * here.0, self.lab.plane.list().len()),
            slots: (2 * here.0, slots),
            foreign: (2 * here.1, foreign),
            rss: machine::rss(),
            descriptors: machine::descriptors(),
            frames: (
                sum(|w| w.frames),
                sum(|w| w.frames_free),
                sum(|w| w.frames_leaked),
            ),
            churned: u64::from(self.next).saturating_sub(u64::from(self.o.sas / 4)),
            delivered: (
                self.shared.sent.load(Relaxed),
                self.sink.arrived.verified.load(Relaxed),
            ),
            late: self.shared.late.load(Relaxed),
        })
    }

    fn wrong(&self, before: &Look, looks: &[Look], end: &Look) -> Vec<String> {
        let mut wrong = Vec::new();
        for l in looks.iter().chain([end]) {
            for (what, (want, have)) in [
                ("SAs", l.sas),
                ("slots that XDP sees", l.slots),
                ("foreign SPIs in the map", l.foreign),
            ] {
                if want != have {
                    wrong.push(format!("{:.0} s: {have} {what}, not {want}", l.at));
                }
            }
            if l.frames.2 > 0 {
                wrong.push(format!("{:.0} s: {} frames are lost", l.at, l.frames.2));
            }
        }
        // Some are on a ring or in a batch at any time.
        if end.frames.1 + 256 < before.frames.1 {
            wrong.push(format!(
                "{} frames are free at the end, {} were",
                end.frames.1, before.frames.1
            ));
        }
        if let Some(first) = looks.get(looks.len() / 4) {
            for l in looks.iter().chain([end]).filter(|l| l.at > first.at) {
                if l.descriptors > first.descriptors {
                    wrong.push(format!(
                        "{:.0} s: {} open files, {} before",
                        l.at, l.descriptors, first.descriptors
                    ));
                }
            }
            // What is remembered of SAs and drops is full by then.
            let last = looks.last().map_or(0, |l| l.rss);
            if self.o.time >= Duration::from_secs(600) && last > first.rss + (8 << 20) {
                wrong.push(format!(
                    "memory grew from {} to {} bytes after the first quarter",
                    first.rss, last
                ));
            }
        }
        let (sent, arrived) = end.delivered;
        if arrived * 2 < sent {
            wrong.push(format!("of {sent} packets only {arrived} have arrived"));
        }
        wrong
    }

    /// Every slot for inbound SAs, half of all, can be had again.
    fn slots_are_free(&self) -> Result<Option<String>> {
        let all = (self.o.sas + self.o.sas / 4).next_power_of_two() / 2;
        let mut reserved = Vec::new();
        for n in 0..all {
            match self.lab.plane.reserve(&[]) {
                Ok(r) => reserved.push(r.spi),
                Err(e) => return Ok(Some(format!("only {n} of {all} slots are free: {e}"))),
            }
        }
        for spi in reserved {
            self.lab.plane.unreserve(spi)?;
        }
        Ok(None)
    }
}
