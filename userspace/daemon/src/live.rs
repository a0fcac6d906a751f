//! The real data plane behind the daemon's narrow view of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crossbeam::channel::{Receiver, Sender};
use gm_api::control::{ApiError, SaStatus, SocketRow, Stats, WorkerRow};
use gm_api::sad::{self, SaRow};
use gm_dataplane::{
    DataPlane, Dir, DropNews, DropSample, Error, GoneSa, NewSa, PrefixCounts, Reason, SadbError,
    SetId, SetSpec, SlotState, TapPacket,
};

use crate::plane::Plane;

impl Plane for DataPlane {
    fn xdp(&self) -> Option<&DataPlane> {
        Some(self)
    }

    fn reserve(&self, avoid: &[u32]) -> Result<u32, ApiError> {
        DataPlane::reserve(self, avoid)
            .map(|reserved| reserved.spi)
            .map_err(error)
    }

    fn unreserve(&self, spi: u32) -> Result<(), ApiError> {
        DataPlane::unreserve(self, spi).map_err(error)
    }

    fn install(&self, sas: Vec<NewSa>) -> Result<u64, ApiError> {
        DataPlane::install(self, SetSpec { set: None, sas })
            .map(|id| id.0)
            .map_err(error)
    }

    fn install_many(&self, sets: Vec<Vec<NewSa>>) -> Vec<Result<u64, ApiError>> {
        let specs = sets.into_iter().map(|sas| SetSpec { set: None, sas });
        let done = DataPlane::install_many(self, specs.collect()).into_iter();
        done.map(|set| set.map(|id| id.0).map_err(error)).collect()
    }

    fn activate_many(&self, ids: &[u64]) -> Vec<Result<(), ApiError>> {
        let ids: Vec<SetId> = ids.iter().copied().map(SetId).collect();
        let done = DataPlane::activate_many(self, &ids).into_iter();
        done.map(|answer| answer.map_err(error)).collect()
    }

    fn remove_many(&self, ids: &[u64]) -> Vec<Result<(), ApiError>> {
        let ids: Vec<SetId> = ids.iter().copied().map(SetId).collect();
        let done = DataPlane::remove_many(self, &ids).into_iter();
        done.map(|answer| answer.map_err(error)).collect()
    }

    fn list_set(&self, id: u64) -> Result<Vec<SaStatus>, ApiError> {
        let rows = DataPlane::list_set(self, SetId(id)).into_iter();
        Ok(rows.map(row).collect())
    }

    fn count(&self) -> Result<usize, ApiError> {
        DataPlane::count(self).map(|(_, sas)| sas).map_err(error)
    }

    fn activate(&self, id: u64) -> Result<(), ApiError> {
        DataPlane::activate(self, SetId(id)).map_err(error)
    }

    fn retire(&self, id: u64) -> Result<(), ApiError> {
        DataPlane::retire(self, SetId(id)).map_err(error)
    }

    fn remove(&self, id: u64) -> Result<(), ApiError> {
        DataPlane::remove(self, SetId(id)).map_err(error)
    }

    fn list(&self) -> Result<Vec<SaStatus>, ApiError> {
        Ok(DataPlane::list(self).into_iter().map(row).collect())
    }

    fn stats(&self) -> Result<Stats, ApiError> {
        DataPlane::stats(self).map(stats).map_err(error)
    }

    fn tap(&self, to: Option<Sender<TapPacket>>) -> Result<(), ApiError> {
        DataPlane::tap(self, to).map_err(error)
    }

    fn counters(&self) -> Result<gm_dataplane::Stats, ApiError> {
        DataPlane::stats(self).map_err(error)
    }

    fn drop_samples(&self) -> Result<Receiver<DropNews>, ApiError> {
        DataPlane::drop_samples(self).map_err(error)
    }

    fn recent_drops(
        &self,
        phone: Option<IpAddr>,
        limit: usize,
    ) -> Result<Vec<DropSample>, ApiError> {
        let wanted = |sample: &DropSample| phone.is_none_or(|phone| sample.peer() == phone);
        Ok(DataPlane::recent_drops(self, wanted, limit))
    }

    fn gone(&self, phone: IpAddr, spis: &[u32]) -> Vec<GoneSa> {
        DataPlane::gone(self, |gone| {
            gone.is_peer(phone) || spis.contains(&gone.sa.spec.spi)
        })
    }

    fn gone_since(&self) -> Option<u64> {
        DataPlane::gone_since(self)
    }

    fn prefix_drops(&self, limit: usize) -> Result<Vec<PrefixCounts>, ApiError> {
        DataPlane::prefix_drops(self, limit).map_err(error)
    }

    fn prefix_drops_of(&self, phone: IpAddr) -> Result<Option<PrefixCounts>, ApiError> {
        DataPlane::prefix_drops_of(self, phone).map_err(error)
    }

    fn set_workers(&self, workers: u32) -> Result<(), ApiError> {
        DataPlane::set_workers(self, workers).map_err(error)
    }
}

/// The direction as the data plane writes it.
pub fn dir(dir: sad::Dir) -> Dir {
    match dir {
        sad::Dir::In => Dir::In,
        sad::Dir::Out => Dir::Out,
    }
}

/// The direction as people read it.
pub fn direction(dir: Dir) -> sad::Dir {
    match dir {
        Dir::In => sad::Dir::In,
        Dir::Out => sad::Dir::Out,
    }
}

/// A row for people.
pub fn row(status: gm_dataplane::SaStatus) -> SaStatus {
    let mut sa = SaRow::from_spec(&status.spec);
    sa.set = Some(status.set.0);
    sa.seq = Some(status.seq);
    match status.dir {
        Dir::In => sa.dir = Some(sad::Dir::In),
        Dir::Out => {
            sa.dir = Some(sad::Dir::Out);
            if status.spec.outer.is_some() {
                sa.encap_dport = status.encap_port;
            }
        }
    }
    SaStatus {
        idle_ms: status.idle_ms,
        age_ms: status.age_ms,
        sa,
        state: state(status.state).into(),
        top: status.top,
        packets: status.packets,
        bytes: status.bytes,
        drops: status
            .drops
            .into_iter()
            .map(|(reason, n)| (reason.name().to_owned(), n))
            .collect(),
    }
}

fn state(state: SlotState) -> &'static str {
    match state {
        SlotState::Free => "free",
        SlotState::Installing => "installing",
        SlotState::Live => "live",
        SlotState::Standby => "standby",
        SlotState::Retiring => "retiring",
        SlotState::Removing => "removing",
    }
}

fn stats(stats: gm_dataplane::Stats) -> Stats {
    Stats {
        reasons: by_name(&stats.reasons).collect(),
        refusals: std::collections::BTreeMap::new(),
        workers: stats.workers.into_iter().map(worker).collect(),
    }
}

fn by_name(counters: &[u64]) -> impl Iterator<Item = (String, u64)> {
    Reason::ALL
        .iter()
        .zip(counters)
        .map(|(reason, n)| (reason.name().to_owned(), *n))
}

fn worker(worker: gm_dataplane::WorkerStats) -> WorkerRow {
    let socket = |socket: gm_dataplane::SocketStats| SocketRow {
        interface: socket.interface,
        queue: socket.queue,
        rx_dropped: socket.rx_dropped,
        rx_ring_full: socket.rx_ring_full,
        fill_ring_empty: socket.fill_ring_empty,
        tx_invalid: socket.tx_invalid,
    };
    let reasons: BTreeMap<String, u64> = by_name(&worker.reasons).filter(|(_, n)| *n > 0).collect();
    WorkerRow {
        worker: worker.worker,
        cpu: worker.cpu,
        batches: worker.batches,
        packets: worker.packets,
        frames: worker.frames,
        frames_free: worker.frames_free,
        frames_leaked: worker.frames_leaked,
        tap_missed: worker.tap_missed,
        reasons,
        sockets: worker.sockets.into_iter().map(socket).collect(),
        lanes: worker.lanes,
        handed_out: worker.handed_out,
        handed_in: worker.handed_in,
        parked: worker.parked,
        restarts: worker.restarts,
    }
}

/// An error for people.
pub fn error(error: Error) -> ApiError {
    let code = match &error {
        Error::Sadb(SadbError::Full { .. }) | Error::Full(_) => "full",
        Error::Sadb(SadbError::UnknownSet(_)) => "not-found",
        Error::Sadb(SadbError::SetExists(_) | SadbError::Duplicate { .. }) => "exists",
        Error::Sadb(_) => "refused",
        Error::Transfer => "busy",
        Error::WorkerGone | Error::Down => "stopped",
        Error::Followers(_) => "full",
        Error::Config(_) => "refused",
        _ => "internal",
    };
    ApiError::new(code, error.to_string())
}
