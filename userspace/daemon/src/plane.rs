//! What the daemon asks of a data plane. Narrow, so that the control socket
//! and the edge are tested without a kernel; the real one is in `live.rs`.

use crossbeam::channel::Sender;
use std::net::IpAddr;

use crate::config::PlaneKind;
use crossbeam::channel::Receiver;
use gm_api::control::{ApiError, SaStatus, Stats};
use gm_dataplane::{DataPlane, DropNews, DropSample, GoneSa, NewSa, PrefixCounts, TapPacket};

/// A data plane. Every call returns when its worker has carried it out; none
/// may be made on a thread that drives async tasks.
pub trait Plane: Send + Sync + 'static {
    /// Which one it is.
    fn kind(&self) -> PlaneKind {
        PlaneKind::Xdp
    }
    /// What it lacks of what [`PlaneKind::Xdp`] has, for people. What is asked for all the
    /// same is answered with the error `unsupported`.
    fn lost(&self) -> &'static [&'static str] {
        &[]
    }
    /// XDP and workers, which alone can take SAs over from the kernel.
    fn xdp(&self) -> Option<&DataPlane> {
        None
    }
    /// Sets an SPI aside for an inbound SA; none of `avoid`.
    fn reserve(&self, avoid: &[u32]) -> Result<u32, ApiError>;
    /// Gives a reserved SPI back.
    fn unreserve(&self, spi: u32) -> Result<(), ApiError>;
    /// Installs a set, all of it or nothing: inbound live, outbound standing
    /// by. Returns the data plane's own number for it.
    fn install(&self, sas: Vec<NewSa>) -> Result<u64, ApiError>;
    /// Installs sets, each whole or not at all; an answer for each.
    fn install_many(&self, sets: Vec<Vec<NewSa>>) -> Vec<Result<u64, ApiError>> {
        sets.into_iter().map(|sas| self.install(sas)).collect()
    }
    /// Switches outbound traffic over to sets; an answer for each.
    fn activate_many(&self, ids: &[u64]) -> Vec<Result<(), ApiError>> {
        ids.iter().map(|id| self.activate(*id)).collect()
    }
    /// Takes sets out; an answer for each.
    fn remove_many(&self, ids: &[u64]) -> Vec<Result<(), ApiError>> {
        ids.iter().map(|id| self.remove(*id)).collect()
    }
    /// The SAs of one set.
    fn list_set(&self, id: u64) -> Result<Vec<SaStatus>, ApiError> {
        let mut rows = self.list()?;
        rows.retain(|row| row.sa.set == Some(id));
        Ok(rows)
    }
    /// How many SAs there are.
    fn count(&self) -> Result<usize, ApiError> {
        Ok(self.list()?.len())
    }
    /// Switches outbound traffic over to the set.
    fn activate(&self, id: u64) -> Result<(), ApiError>;
    /// Outbound off, inbound still accepts.
    fn retire(&self, id: u64) -> Result<(), ApiError>;
    /// Takes the set out, after a drain.
    fn remove(&self, id: u64) -> Result<(), ApiError>;
    /// All SAs; `sa.set` is the data plane's own number.
    fn list(&self) -> Result<Vec<SaStatus>, ApiError>;
    /// Counters.
    fn stats(&self) -> Result<Stats, ApiError>;
    /// Sends a copy of what crosses the uplink to the channel, or stops doing so.
    fn tap(&self, to: Option<Sender<TapPacket>>) -> Result<(), ApiError>;
    /// All counters, as the data plane has them.
    fn counters(&self) -> Result<gm_dataplane::Stats, ApiError>;
    /// Samples of dropped packets from now on.
    fn drop_samples(&self) -> Result<Receiver<DropNews>, ApiError>;
    /// The newest samples, of one phone or of all, the newest first.
    fn recent_drops(
        &self,
        phone: Option<IpAddr>,
        limit: usize,
    ) -> Result<Vec<DropSample>, ApiError>;
    /// SAs that were removed: this phone's, and those with these SPIs; the
    /// newest first.
    fn gone(&self, phone: IpAddr, spis: &[u32]) -> Vec<GoneSa>;
    /// Since when all that were removed are remembered, nanoseconds of
    /// CLOCK_MONOTONIC; `None`: since the start.
    fn gone_since(&self) -> Option<u64>;
    /// The phones with the most drops.
    fn prefix_drops(&self, limit: usize) -> Result<Vec<PrefixCounts>, ApiError>;
    /// The drops of one phone.
    fn prefix_drops_of(&self, phone: IpAddr) -> Result<Option<PrefixCounts>, ApiError>;
    /// Changes the number of workers.
    fn set_workers(&self, workers: u32) -> Result<(), ApiError>;
}
