//! For tests: a data plane that is a fake, everything that is logged, and keys
//! that must not show up anywhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use crossbeam::channel::{Receiver, Sender};
use gm_api::control::{ApiError, SaStatus, Stats, WorkerRow};
use gm_api::sad::{self, SaRow};
use gm_dataplane::{Dir, DropNews, DropSample, GoneSa, NewSa, PrefixCounts, Reason, TapPacket};
use tracing_subscriber::fmt::MakeWriter;

use crate::plane::Plane;

/// IK of all tests.
pub const IK: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
/// CK of all tests.
pub const CK: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A data plane that keeps a list.
#[derive(Default)]
pub struct Fake {
    /// What it holds.
    pub state: Mutex<FakeState>,
    /// Every activate fails.
    pub refuse_activate: AtomicBool,
}

/// What a [`Fake`] holds.
#[derive(Default)]
pub struct FakeState {
    /// The SAs.
    pub rows: Vec<SaStatus>,
    next: u64,
    spi: u32,
    /// Samples, the newest first; each stands for ten packets.
    pub samples: Vec<DropSample>,
    /// SAs that were removed, the newest first.
    pub gone: Vec<GoneSa>,
    /// The worst phones.
    pub prefixes: Vec<PrefixCounts>,
    /// Who follows the samples.
    pub followers: Vec<Sender<DropNews>>,
    /// What was asked for last.
    pub workers: u32,
    /// Who captures.
    pub tap: Option<Sender<TapPacket>>,
}

impl Fake {
    fn set_state(&self, id: u64, from: &str, to: &str) {
        let mut state = self.state.lock().unwrap();
        for row in state
            .rows
            .iter_mut()
            .filter(|row| row.sa.set == Some(id) && row.state == from)
        {
            row.state = to.into();
        }
    }
}

impl Plane for Fake {
    fn reserve(&self, avoid: &[u32]) -> Result<u32, ApiError> {
        let mut state = self.state.lock().unwrap();
        loop {
            state.spi += 1;
            let spi = 1_000_000_000 + state.spi;
            if !avoid.contains(&spi) {
                return Ok(spi);
            }
        }
    }

    fn unreserve(&self, _spi: u32) -> Result<(), ApiError> {
        Ok(())
    }

    fn install(&self, sas: Vec<NewSa>) -> Result<u64, ApiError> {
        let mut state = self.state.lock().unwrap();
        for sa in &sas {
            if state.rows.iter().any(|row| row.sa.spi == sa.spec.spi) {
                return Err(ApiError::new(
                    "exists",
                    format!("SPI {} is taken", sa.spec.spi),
                ));
            }
        }
        state.next += 7;
        let id = state.next;
        for sa in sas {
            let mut row = SaRow::from_spec(&sa.spec);
            row.set = Some(id);
            row.dir = Some(if sa.dir == Dir::In {
                sad::Dir::In
            } else {
                sad::Dir::Out
            });
            row.seq = Some(sa.first_seq.map_or(0, |first| first - 1));
            state.rows.push(SaStatus {
                sa: row,
                state: "standby".into(),
                top: 0,
                packets: 0,
                bytes: 0,
                drops: BTreeMap::from([("replay".to_owned(), 2)]),
                idle_ms: None,
                age_ms: Some(1000),
            });
        }
        Ok(id)
    }

    fn activate(&self, id: u64) -> Result<(), ApiError> {
        if self.refuse_activate.load(Ordering::Relaxed) {
            return Err(ApiError::new("refused", "not today"));
        }
        self.set_state(id, "standby", "live");
        Ok(())
    }

    fn retire(&self, id: u64) -> Result<(), ApiError> {
        self.set_state(id, "live", "retiring");
        Ok(())
    }

    fn remove(&self, id: u64) -> Result<(), ApiError> {
        self.state
            .lock()
            .unwrap()
            .rows
            .retain(|row| row.sa.set != Some(id));
        Ok(())
    }

    fn list(&self) -> Result<Vec<SaStatus>, ApiError> {
        Ok(self.state.lock().unwrap().rows.clone())
    }

    fn stats(&self) -> Result<Stats, ApiError> {
        Ok(Stats {
            reasons: BTreeMap::from([("ok".to_owned(), 5), ("replay".to_owned(), 0)]),
            refusals: std::collections::BTreeMap::new(),
            workers: vec![WorkerRow {
                packets: 9,
                ..WorkerRow::default()
            }],
        })
    }

    fn tap(&self, to: Option<Sender<TapPacket>>) -> Result<(), ApiError> {
        self.state.lock().unwrap().tap = to;
        Ok(())
    }

    fn counters(&self) -> Result<gm_dataplane::Stats, ApiError> {
        let state = self.state.lock().unwrap();
        let mut stats = gm_dataplane::Stats {
            reasons: [0; Reason::COUNT],
            sampled: [0; Reason::COUNT],
            workers: Vec::new(),
        };
        for sample in &state.samples {
            stats.sampled[sample.reason.index()] += 1;
            stats.reasons[sample.reason.index()] += 10;
        }
        Ok(stats)
    }

    fn drop_samples(&self) -> Result<Receiver<DropNews>, ApiError> {
        let (to, from) = crossbeam::channel::bounded(16);
        self.state.lock().unwrap().followers.push(to);
        Ok(from)
    }

    fn recent_drops(
        &self,
        phone: Option<IpAddr>,
        limit: usize,
    ) -> Result<Vec<DropSample>, ApiError> {
        let state = self.state.lock().unwrap();
        let all = state.samples.iter().copied();
        let phones = all.filter(|s| phone.is_none_or(|phone| s.peer() == phone));
        Ok(phones.take(limit).collect())
    }

    fn gone(&self, phone: IpAddr, spis: &[u32]) -> Vec<GoneSa> {
        let state = self.state.lock().unwrap();
        let wanted = |gone: &&GoneSa| gone.is_peer(phone) || spis.contains(&gone.sa.spec.spi);
        state.gone.iter().filter(wanted).cloned().collect()
    }

    fn gone_since(&self) -> Option<u64> {
        None
    }

    fn prefix_drops(&self, limit: usize) -> Result<Vec<PrefixCounts>, ApiError> {
        let state = self.state.lock().unwrap();
        Ok(state.prefixes.iter().take(limit).cloned().collect())
    }

    fn prefix_drops_of(&self, phone: IpAddr) -> Result<Option<PrefixCounts>, ApiError> {
        let state = self.state.lock().unwrap();
        Ok(state.prefixes.iter().find(|p| p.prefix == phone).cloned())
    }

    fn set_workers(&self, workers: u32) -> Result<(), ApiError> {
        if workers > 4 {
            return Err(ApiError::new("refused", "the uplink has 4 queues"));
        }
        self.state.lock().unwrap().workers = workers;
        Ok(())
    }
}

/// Everything that any test has logged.
#[derive(Clone, Copy)]
pub struct Log;
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;
    fn make_writer(&self) -> Log {
        Log
    }
}

/// Collects what is logged from here on, down to the last trace.
pub fn log_everything() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(Log)
            .init();
    });
}

/// What has been logged so far, by all tests.
pub fn logged() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned()
}

/// No part of the keys is in the text.
pub fn assert_no_keys(text: &str) {
    let text = text.to_ascii_lowercase();
    for key in [IK, CK] {
        // Any eight digits in a row give a key away.
        for at in 0..key.len() - 8 {
            let part = &key[at..at + 8];
            assert!(!text.contains(part), "{part} is in: {text}");
        }
    }
}
