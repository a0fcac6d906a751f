//! What the daemon asks, and what the kernel has of it.

use std::net::IpAddr;

use crossbeam::channel::{Receiver, Sender};
use gm_api::control::{ApiError, SaStatus, Stats};
use gm_dataplane::{DropNews, DropSample, GoneSa, NewSa, PrefixCounts, Reason, SetId, TapPacket};
use gm_xfrm::kernel::StateId;

use super::lost::{LOST, unsupported};
use super::report::{self, XfrmStat};
use super::{KernelError, KernelPlane};
use crate::config::PlaneKind;
use crate::live;
use crate::plane::Plane;

/// There are none to be counted.
pub fn no_workers() -> ApiError {
    unsupported(
        "workers",
        "the kernel opens and seals on the CPU that a packet comes to: spread the interface's \
         queues over CPUs",
    )
}

fn no_samples() -> ApiError {
    unsupported(
        "samples of dropped packets",
        "gmespctl drops shows the counters that there are; /proc/net/xfrm_stat has the kernel's own",
    )
}

fn no_prefixes() -> ApiError {
    unsupported(
        "drops by phone",
        "gmespctl sa list shows what each SA has dropped",
    )
}

impl Plane for KernelPlane {
    fn kind(&self) -> PlaneKind {
        PlaneKind::Kernel
    }

    fn lost(&self) -> &'static [&'static str] {
        &LOST
    }

    fn reserve(&self, avoid: &[u32]) -> Result<u32, ApiError> {
        Ok(self.shared.with(|control| control.reserve(avoid))?)
    }

    fn unreserve(&self, spi: u32) -> Result<(), ApiError> {
        Ok(self.shared.with(|control| {
            control.sadb.unreserve(spi);
            Ok(())
        })?)
    }

    fn install(&self, sas: Vec<NewSa>) -> Result<u64, ApiError> {
        Ok(self.shared.with(|control| control.install(sas))?.0)
    }

    fn activate(&self, id: u64) -> Result<(), ApiError> {
        Ok(self.shared.with(|control| control.activate(SetId(id)))?)
    }

    fn retire(&self, id: u64) -> Result<(), ApiError> {
        Ok(self.shared.with(|control| control.retire(SetId(id)))?)
    }

    fn remove(&self, id: u64) -> Result<(), ApiError> {
        Ok(self.shared.with(|control| control.remove(SetId(id)))?)
    }

    fn list(&self) -> Result<Vec<SaStatus>, ApiError> {
        let (rows, missing) = match self.shared.with(|control| control.list()) {
            Err(KernelError::Down) => return Ok(Vec::new()),
            listed => listed?,
        };
        let row = |status: gm_dataplane::SaStatus| {
            let id = StateId::esp(status.spec.destination(), status.spec.spi);
            let mut row = live::row(status);
            if missing.contains(&id) {
                row.state = "gone".into();
            }
            row
        };
        Ok(rows.into_iter().map(row).collect())
    }

    fn stats(&self) -> Result<Stats, ApiError> {
        let reasons = self.reasons()?.into_iter();
        Ok(Stats {
            reasons: reasons.map(|(r, n)| (r.name().to_owned(), n)).collect(),
            refusals: std::collections::BTreeMap::new(),
            workers: Vec::new(),
        })
    }

    fn tap(&self, to: Option<Sender<TapPacket>>) -> Result<(), ApiError> {
        match to {
            None => Ok(()),
            Some(_) => Err(unsupported(
                "a capture",
                "tcpdump on the interface shows ESP as it is on the wire; gm-xfrm export \
                 --format wireshark has the keys for it",
            )),
        }
    }

    fn counters(&self) -> Result<gm_dataplane::Stats, ApiError> {
        let mut stats = gm_dataplane::Stats {
            reasons: [0; Reason::COUNT],
            sampled: [0; Reason::COUNT],
            workers: Vec::new(),
        };
        for (reason, n) in self.reasons()? {
            if let Some(counter) = stats.reasons.get_mut(reason.index()) {
                *counter = n;
            }
        }
        Ok(stats)
    }

    fn drop_samples(&self) -> Result<Receiver<DropNews>, ApiError> {
        Err(no_samples())
    }

    fn recent_drops(
        &self,
        _phone: Option<IpAddr>,
        _limit: usize,
    ) -> Result<Vec<DropSample>, ApiError> {
        Err(no_samples())
    }

    fn gone(&self, phone: IpAddr, spis: &[u32]) -> Vec<GoneSa> {
        let wanted = |gone: &GoneSa| gone.is_peer(phone) || spis.contains(&gone.sa.spec.spi);
        let gone = self.shared.with(|control| Ok(control.past.gone(wanted)));
        gone.unwrap_or_default()
    }

    fn gone_since(&self) -> Option<u64> {
        let since = self.shared.with(|control| Ok(control.past.since()));
        since.ok().flatten()
    }

    fn prefix_drops(&self, _limit: usize) -> Result<Vec<PrefixCounts>, ApiError> {
        Err(no_prefixes())
    }

    fn prefix_drops_of(&self, _phone: IpAddr) -> Result<Option<PrefixCounts>, ApiError> {
        Err(no_prefixes())
    }

    fn set_workers(&self, _workers: u32) -> Result<(), ApiError> {
        Err(no_workers())
    }
}

impl KernelPlane {
    /// All counters that there are.
    fn reasons(&self) -> Result<std::collections::BTreeMap<Reason, u64>, KernelError> {
        let totals = self.shared.with(|control| {
            let (rows, _) = control.list()?;
            let mut totals = control.totals;
            totals.add(&rows);
            Ok(totals)
        })?;
        let guard = self.shared.guard();
        let counts = guard.as_ref().ok_or(KernelError::Down)?.counts()?;
        let now = XfrmStat::read();
        Ok(report::reasons(
            &totals,
            &counts,
            (&self.shared.before, &now),
        ))
    }
}
