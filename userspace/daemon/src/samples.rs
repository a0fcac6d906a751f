//! Samples of dropped packets on their way to people: names for numbers, the
//! time of day for a clock that only counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::channel::Receiver;
use gm_api::control::ApiError;
use gm_api::drops::{DropLine, DropSample, LeftOut};
use gm_dataplane::{DropNews, monotonic_ns};
use tokio::sync::broadcast::{Receiver as Follower, Sender, channel};

use crate::events::now_ms;
use crate::plane::Plane;

/// Lines that a slow client may lag behind before it misses some.
const BACKLOG: usize = 1024;

/// Hands lines to all clients. The data plane is followed as long as there
/// are any.
#[derive(Debug)]
pub struct Samples {
    to: Mutex<Option<Sender<DropLine>>>,
}

impl Samples {
    /// Nobody follows yet.
    pub fn new() -> Samples {
        Samples {
            to: Mutex::new(None),
        }
    }

    /// Follows from now on.
    pub fn subscribe(self: &Arc<Self>, plane: &dyn Plane) -> Result<Follower<DropLine>, ApiError> {
        let mut place = self.place();
        if let Some(to) = &*place {
            return Ok(to.subscribe());
        }
        let news = plane.drop_samples()?;
        let (to, from) = channel(BACKLOG);
        let (mine, all) = (Arc::clone(self), to.clone());
        // It waits for the place before it tells anybody anything.
        std::thread::Builder::new()
            .name("gm-drops".into())
            .spawn(move || mine.pass_on(&news, &all))
            .map_err(|e| ApiError::new("internal", format!("a thread does not start: {e}")))?;
        *place = Some(to);
        Ok(from)
    }

    /// Until nobody listens, or the data plane has shut down.
    fn pass_on(&self, news: &Receiver<DropNews>, to: &Sender<DropLine>) {
        let mut names = Names::default();
        for news in news {
            let mut place = self.place();
            if to.send(line(news, &mut names)).is_err() {
                *place = None;
                return;
            }
        }
        *self.place() = None;
    }

    fn place(&self) -> MutexGuard<'_, Option<Sender<DropLine>>> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client that was too slow is told.
pub fn missed(n: u64) -> DropLine {
    DropLine::LeftOut(LeftOut {
        time_ms: now_ms(),
        missed: n,
        ..LeftOut::default()
    })
}

fn line(news: DropNews, names: &mut Names) -> DropLine {
    match news {
        DropNews::Sample(sample) => DropLine::Sample(names.sample(&sample)),
        DropNews::LeftOut { by_reason, missed } => DropLine::LeftOut(LeftOut {
            time_ms: now_ms(),
            left_out: by_reason
                .into_iter()
                .map(|(reason, n)| (reason.name().to_owned(), n))
                .collect(),
            missed,
        }),
    }
}

/// Names of interfaces that were looked up.
#[derive(Debug, Default)]
pub struct Names(HashMap<u32, Option<String>>);

/// Names that are kept; interfaces come and go.
const NAMES: usize = 256;

impl Names {
    /// A sample for people.
    pub fn sample(&mut self, sample: &gm_dataplane::DropSample) -> DropSample {
        let past_ms = monotonic_ns().saturating_sub(sample.at) / 1_000_000;
        DropSample {
            time_ms: now_ms().saturating_sub(past_ms),
            reason: sample.reason.name().into(),
            direction: if sample.outbound { "out" } else { "in" }.into(),
            station: sample.station.name().into(),
            interface: self.interface(sample.interface),
            proto: match sample.proto {
                1 => "icmp".into(),
                6 => "tcp".into(),
                17 => "udp".into(),
                50 => "esp".into(),
                58 => "icmpv6".into(),
                other => other.to_string(),
            },
            src: sample.src,
            src_port: sample.src_port,
            dst: sample.dst,
            dst_port: sample.dst_port,
            spi: sample.spi,
            seq: sample.seq,
            length: sample.len,
        }
    }

    fn interface(&mut self, index: u32) -> Option<String> {
        if self.0.len() >= NAMES {
            self.0.clear();
        }
        let look = || interface_name(index);
        self.0.entry(index).or_insert_with(look).clone()
    }
}

/// The name of an interface of this namespace; any socket may ask.
fn interface_name(index: u32) -> Option<String> {
    if index == 0 {
        return None;
    }
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .ok()?;
    rustix::net::netdevice::index_to_name(&socket, index).ok()
}
