//! Packets a second through one worker, in and out, and through the raw
//! forwarder in its place.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gm_benches::stats::Figure;
use gm_dataplane::Reason;
use gm_esp::Suite;

use crate::cable::Cable;
use crate::forwarder;
use crate::phones::{Frames, Phones, overhead};
use crate::programs::Redirect;
use crate::sink::Sink;
use crate::stat::Busy;
use crate::world::{FAR, GM0, Kind, Middle as Between, World};
use crate::{GENERATOR_CPU, WORKER_CPU};

/// Packets under way at most: half of what a ring has.
const WINDOW: usize = 512;
/// Packets that go out at a time.
const BURST: usize = 64;
/// Bursts that a new world may lose.
const SETTLE: usize = 20;
/// After so long without one, those under way are lost.
const LOST: Duration = Duration::from_millis(50);

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// From the phones, or to them.
    pub inbound: bool,
    /// Of the SAs.
    pub suite: Suite,
    /// Length of the SIP datagrams.
    pub bytes: usize,
}

impl Case {
    /// What a filter is compared with.
    pub fn name(&self) -> String {
        let way = if self.inbound { "inbound" } else { "outbound" };
        format!("throughput/{way}/{}/{}", self.suite, self.bytes)
    }
}

/// What a round has shown.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Packets that arrived in a second.
    delivered: f64,
    /// Packets in a second of the worker's time on its CPU, in thousands.
    rate: f64,
    lost: usize,
}

/// A row with its figures, gmesp's first, then the forwarder's.
pub struct Row {
    /// Which one.
    pub case: Case,
    /// Thousands of packets in a second of the worker's CPU.
    pub rates: [Figure; 2],
    /// One over the other, round by round.
    pub ratio: Figure,
    /// The same of what arrived in a second, whoever else used the CPU.
    pub delivered: Figure,
    /// Part of the time that the CPU worked for it: less than 0.9 and it was the
    /// generator that was measured.
    pub busy: [Figure; 2],
    /// Packets that did not arrive.
    pub lost: [usize; 2],
}

/// A world, with what sends and counts at its ends.
struct Line {
    world: World,
    far: Cable,
    inside: Cable,
    sink: Sink,
    busy: Busy,
    _to_far: Redirect,
}

impl Line {
    fn new(kind: Kind) -> Result<Line> {
        let world = World::new(kind)?;
        let far = Cable::bind(&world.f, FAR).context("bind to the cable's far end")?;
        let inside = Cable::bind(&world.p, GM0).context("bind to gm0")?;
        let socket = far.socket.as_fd();
        let to_far = world.f.run(|| Redirect::attach(FAR, socket))?;
        let sink = Sink::bind(&world.p)?;
        let thread = match kind {
            Kind::Gmesp | Kind::Busy => "gm-worker-0",
            Kind::Raw | Kind::Plain => forwarder::THREAD,
        };
        let busy = Busy::of(thread, WORKER_CPU).context("the worker's clocks")?;
        Ok(Line {
            world,
            far,
            inside,
            sink,
            busy,
            _to_far: to_far,
        })
    }

    /// Waits until packets get through: a new device takes none for a moment.
    fn settle(&mut self, inbound: bool, frames: impl Fn(&World) -> Result<Frames>) -> Result<()> {
        for _ in 0..SETTLE {
            let frames = frames(&self.world)?;
            if self.round(inbound, &frames, frames.len())?.lost == 0 {
                return Ok(());
            }
        }
        bail!("packets get lost on an idle machine");
    }

    /// Sends all frames, never more than [`WINDOW`] ahead of what has arrived.
    /// The first tenth is for warming up.
    fn round(&mut self, inbound: bool, frames: &Frames, count: usize) -> Result<Round> {
        let Line {
            far,
            inside,
            sink,
            busy,
            ..
        } = self;
        let (mut sent, mut arrived, mut lost) = (0, 0, 0);
        let warm = count / 10;
        let mut begin = None;
        let mut last = Instant::now();
        while arrived + lost < count {
            let free = WINDOW.saturating_sub(sent - arrived - lost);
            if free >= BURST && sent < count {
                let burst = BURST.min(count - sent);
                let next = (sent..sent + burst).map(|i| frames.get(i));
                sent += if inbound {
                    far.send(next)?
                } else {
                    inside.send(next)?
                };
            }
            let came = if inbound { sink.take()? } else { far.take() };
            arrived += came;
            ensure!(arrived <= sent, "more has arrived than was sent");
            if came > 0 {
                last = Instant::now();
            } else if last.elapsed() > LOST {
                lost = sent - arrived;
                last = Instant::now();
            }
            if begin.is_none() && arrived + lost >= warm {
                begin = Some((Instant::now(), arrived, busy.time()));
            }
        }
        let (since, before, worked) = begin.context("nothing was sent")?;
        let (time, worked) = (since.elapsed(), busy.time().saturating_sub(worked));
        let packets = (arrived - before) as f64;
        Ok(Round {
            delivered: packets / time.as_secs_f64(),
            rate: packets / 1e3 / worked.as_secs_f64().max(1e-9),
            lost,
        })
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rounds of each world.
    pub rounds: usize,
    /// Packets of a round.
    pub packets: usize,
}

/// Both lines, alternating.
pub struct Lines {
    gmesp: Line,
    raw: Line,
    phones: Vec<Phones>,
}

impl Lines {
    /// Makes both worlds, and phones of the suites of these rows.
    ///
    /// # Errors
    /// What could not be made.
    pub fn new(cases: &[Case]) -> Result<Lines> {
        gm_xsk::sys::pin_thread(GENERATOR_CPU)?;
        let (gmesp, raw) = (Line::new(Kind::Gmesp)?, Line::new(Kind::Raw)?);
        let plane = gmesp.world.plane().context("a world without gmesp")?;
        let wanted = |s: &Suite| cases.iter().any(|case| case.suite == *s);
        let install = |s| Phones::install(plane, s);
        let phones = Suite::ALL.into_iter().filter(wanted).map(install);
        let phones = phones.collect::<Result<_>>()?;
        Ok(Lines { gmesp, raw, phones })
    }

    /// Measures one row.
    ///
    /// # Errors
    /// A device that fails, or packets that gmesp counts otherwise than they
    /// arrived.
    pub fn measure(&mut self, case: Case, size: Size) -> Result<Row> {
        let Lines { gmesp, raw, phones } = self;
        let Case {
            inbound,
            suite,
            bytes,
        } = case;
        let phones = phones
            .iter()
            .find(|p| p.suite == suite)
            .context("no phones of this suite")?;
        let esp = overhead(suite, bytes);
        let Between::Raw(forwarder) = &raw.world.middle else {
            bail!("no forwarder")
        };
        forwarder.set_esp(esp);
        let plain = |world: &World, trailer, count| {
            let head = if inbound {
                world.head_in
            } else {
                world.head_out
            };
            Frames::plain((suite, bytes), head, inbound, (trailer, count))
        };
        let trailer = if inbound { esp } else { 0 };
        let raw_frames = plain(&raw.world, trailer, size.packets);
        let out_frames = (!inbound).then(|| plain(&gmesp.world, 0, size.packets));
        gmesp.settle(inbound, |world| match inbound {
            true => phones.seal(world, bytes, BURST),
            false => Ok(plain(world, 0, BURST)),
        })?;
        raw.settle(inbound, |world| Ok(plain(world, trailer, BURST)))?;
        let before = count(&gmesp.world, inbound)?;
        let mut both: [Vec<Round>; 2] = Default::default();
        for round in 0..size.rounds {
            let of_gmesp = |line: &mut Line| match &out_frames {
                Some(frames) => line.round(inbound, frames, size.packets),
                None => {
                    let frames = phones.seal(&line.world, bytes, size.packets)?;
                    line.round(inbound, &frames, size.packets)
                }
            };
            // Whoever is first finds other caches than the second.
            if round % 2 == 0 {
                both[0].push(of_gmesp(gmesp)?);
            }
            both[1].push(raw.round(inbound, &raw_frames, size.packets)?);
            if round % 2 == 1 {
                both[0].push(of_gmesp(gmesp)?);
            }
        }
        let lost = each(&both, |rounds| rounds.iter().map(|r| r.lost).sum::<usize>());
        let counted = count(&gmesp.world, inbound)? - before;
        let arrived = (size.rounds * size.packets - lost[0]) as u64;
        ensure!(
            counted >= arrived,
            "gmesp has counted {counted}, {arrived} have arrived"
        );
        let rates = each(&both, |rounds| {
            rounds.iter().map(|r| r.rate).collect::<Vec<_>>()
        });
        let delivered = each(&both, |rounds| {
            rounds.iter().map(|r| r.delivered).collect::<Vec<_>>()
        });
        let busy = |i: usize| -> Figure {
            let parts: Vec<f64> = both[i]
                .iter()
                .map(|r| r.delivered / (r.rate * 1e3))
                .collect();
            Figure::of(&parts)
        };
        Ok(Row {
            case,
            ratio: Figure::ratio(&rates[0], &rates[1]),
            delivered: Figure::ratio(&delivered[0], &delivered[1]),
            rates: rates.each_ref().map(|r| Figure::of(r)),
            busy: [busy(0), busy(1)],
            lost,
        })
    }
}

fn each<T>(both: &[Vec<Round>; 2], f: impl Fn(&[Round]) -> T) -> [T; 2] {
    both.each_ref().map(|rounds| f(rounds))
}

/// Packets that gmesp says it has carried.
fn count(world: &World, inbound: bool) -> Result<u64> {
    let plane = world.plane().context("a world without gmesp")?;
    let reason = if inbound { Reason::Ok } else { Reason::Sealed };
    Ok(plane.stats()?.get(reason))
}
