//! A UDP ping-pong over a veth, everything on one CPU: how much longer it takes
//! with gmesp on its way.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use gm_benches::stats::Figure;
use gm_esp::Suite;
use gm_xsk::LinkSocket;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::phones::{Frames, PORT_UC, Phones, address, overhead, payload};
use crate::stat::quantile;
use crate::world::{FAR, Kind, Middle as Between, OURS, World};
use crate::{GENERATOR_CPU, PORT_PS, WORKER_CPU};

/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(1);
/// New worlds may lose so many.
const SETTLE: usize = 5;
/// Pings of a round that are not counted.
const WARM: usize = 50;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rounds of each world.
    pub rounds: usize,
    /// Pings of a round.
    pub pings: usize,
}

/// Round trips of a world, microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Trip {
    /// Medians of the rounds.
    pub p50: Figure,
    /// The 99th of 100, of the rounds.
    pub p99: Figure,
}

/// What was measured.
pub struct Latency {
    /// Of the datagrams.
    pub bytes: usize,
    /// Suite of the SAs.
    pub suite: Suite,
    /// Round trips without anything, with the forwarder, with gmesp whose worker
    /// sleeps, and with one that goes on looking.
    pub trips: [Trip; 4],
    /// Added by one pass through the forwarder, and through either gmesp: half of
    /// what a round trip is longer, round by round.
    pub added: [Trip; 3],
    /// One thread wakes another one on the same CPU and sleeps: what the least
    /// such pass would cost, had it nothing to do.
    pub wake: Trip,
}

/// A world with the two ends of a ping-pong.
struct Table {
    world: World,
    app: UdpSocket,
    wire: LinkSocket,
    phones: Option<Phones>,
}

impl Table {
    fn new(kind: Kind, suite: Suite) -> Result<Table> {
        let world = World::new(kind)?;
        let phones = world
            .plane()
            .map(|plane| Phones::install(plane, suite))
            .transpose()?;
        let app = world
            .p
            .run(|| UdpSocket::bind((OURS, PORT_PS)))
            .context("listen on port_ps")?;
        app.connect((address(suite, 0), PORT_UC))?;
        app.set_read_timeout(Some(PATIENCE))?;
        let wire = world
            .f
            .run(|| LinkSocket::bind(FAR))
            .context("bind to the far end")?;
        fcntl_setfl(&wire, OFlags::empty())?;
        set_socket_timeout(wire.as_fd(), Timeout::Recv, Some(PATIENCE))?;
        Ok(Table {
            world,
            app,
            wire,
            phones,
        })
    }

    /// Waits until a packet gets through: a new device takes none for a moment.
    fn settle(&self, suite: Suite, bytes: usize) -> Result<()> {
        for _ in 0..SETTLE {
            if self.round(suite, bytes, 1).is_ok() {
                return Ok(());
            }
        }
        self.round(suite, bytes, 1).map(drop)
    }

    /// Nanoseconds of each round trip.
    fn round(&self, suite: Suite, bytes: usize, pings: usize) -> Result<Vec<f64>> {
        let esp = overhead(suite, bytes);
        if let Between::Raw(forwarder) = &self.world.middle {
            forwarder.set_esp(esp);
        }
        let frames = match (&self.phones, &self.world.middle) {
            (Some(phones), _) => phones.seal_one(&self.world, bytes, pings)?,
            (None, between) => {
                let trailer = if matches!(between, Between::Raw(_)) {
                    esp
                } else {
                    0
                };
                Frames::plain_one((suite, bytes), self.world.head_in, (trailer, pings))
            }
        };
        let Table { app, wire, .. } = self;
        std::thread::scope(|scope| {
            let peer = scope.spawn(|| {
                gm_xsk::sys::pin_thread(WORKER_CPU)?;
                pong(wire, &frames)
            });
            let app = scope.spawn(|| {
                gm_xsk::sys::pin_thread(WORKER_CPU)?;
                ping(app, &payload(bytes), pings)
            });
            let died = |_| anyhow!("a thread of the ping-pong has died");
            let (times, answered) = (app.join().map_err(died)?, peer.join().map_err(died)?);
            let times = times.context("ping")?;
            answered.context("answer")?;
            Ok(times)
        })
    }
}

fn ping(app: &UdpSocket, payload: &[u8], pings: usize) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(pings);
    let mut buffer = [0; 2048];
    for _ in 0..pings {
        let begin = Instant::now();
        app.send(payload)?;
        let got = app.recv(&mut buffer)?;
        times.push(begin.elapsed().as_nanos() as f64);
        ensure!(buffer[..got] == *payload, "an answer is not what was sent");
    }
    Ok(times)
}

/// Answers each packet with the next frame.
fn pong(wire: &LinkSocket, frames: &Frames) -> io::Result<()> {
    let mut buffer = [0; 2048];
    for i in 0..frames.len() {
        wire.recv(&mut buffer)?;
        wire.send(frames.get(i))?;
    }
    Ok(())
}

/// The same between two threads with nothing but a socket pair.
fn wake(pings: usize) -> Result<Vec<f64>> {
    let (here, there) = UnixDatagram::pair()?;
    for socket in [&here, &there] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    std::thread::scope(|scope| {
        let peer = scope.spawn(move || {
            gm_xsk::sys::pin_thread(WORKER_CPU)?;
            for _ in 0..pings {
                there.recv(&mut [0])?;
                there.send(&[0])?;
            }
            io::Result::Ok(())
        });
        let times = scope.spawn(move || {
            gm_xsk::sys::pin_thread(WORKER_CPU)?;
            let mut times = Vec::with_capacity(pings);
            for _ in 0..pings {
                let begin = Instant::now();
                here.send(&[0])?;
                here.recv(&mut [0])?;
                times.push(begin.elapsed().as_nanos() as f64);
            }
            io::Result::Ok(times)
        });
        let died = |_| anyhow!("a thread of the ping-pong has died");
        let times = times.join().map_err(died)?;
        peer.join().map_err(died)??;
        Ok(times?)
    })
}

/// Microseconds of half a round trip: median, and the 99th of 100.
fn halves(mut times: Vec<f64>) -> [f64; 2] {
    let mut times = times.split_off(WARM);
    times.sort_by(f64::total_cmp);
    [0.5, 0.99].map(|part| quantile(&times, part) / 2e3)
}

fn figure(values: impl Iterator<Item = f64>) -> Figure {
    Figure::of(&values.collect::<Vec<_>>())
}

/// Measures the four worlds in turn.
///
/// # Errors
/// What could not be made, or a packet that did not come.
pub fn measure((suite, bytes): (Suite, usize), size: Size) -> Result<Latency> {
    gm_xsk::sys::pin_thread(GENERATOR_CPU)?;
    let tables =
        [Kind::Plain, Kind::Raw, Kind::Gmesp, Kind::Busy].map(|kind| Table::new(kind, suite));
    let tables = tables.into_iter().collect::<Result<Vec<_>>>()?;
    for table in &tables {
        table.settle(suite, bytes)?;
    }
    let mut rounds: [Vec<[f64; 2]>; 4] = Default::default();
    for _ in 0..size.rounds {
        for (table, rounds) in tables.iter().zip(&mut rounds) {
            let mut times = table
                .round(suite, bytes, WARM + size.pings)?
                .split_off(WARM);
            times.sort_by(f64::total_cmp);
            rounds.push([0.5, 0.99].map(|part| quantile(&times, part) / 1e3));
        }
    }
    let wake = (0..size.rounds).map(|_| wake(WARM + size.pings).map(halves));
    let wake = wake.collect::<Result<Vec<_>>>()?;
    let trip = |rounds: &mut dyn Iterator<Item = [f64; 2]>| {
        let rounds: Vec<_> = rounds.collect();
        Trip {
            p50: figure(rounds.iter().map(|r| r[0])),
            p99: figure(rounds.iter().map(|r| r[1])),
        }
    };
    let [plain, raw, sleeps, looks] = &rounds;
    let half = |(longer, shorter): (&[f64; 2], &[f64; 2])| {
        [0, 1].map(|at| (longer[at] - shorter[at]) / 2.0)
    };
    Ok(Latency {
        bytes,
        suite,
        trips: [plain, raw, sleeps, looks].map(|rounds| trip(&mut rounds.iter().copied())),
        wake: trip(&mut wake.iter().copied()),
        added: [raw, sleeps, looks].map(|rounds| trip(&mut rounds.iter().zip(plain).map(half))),
    })
}
