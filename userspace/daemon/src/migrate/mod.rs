//! SAs that another P-CSCF has put into the kernel come to our data plane and
//! go back, under traffic, with their numbers and windows.
//!
//! * [`pick`]: which sets may move, and why others may not.
//! * [`take`]: from the kernel here, a few sets at a time.
//! * [`give`]: from here to the kernel, as they were made.
//! * [`numbers`]: one side's numbers in the other's terms.
//! * [`late`]: what was routed before, and leaves when all is over.
//! * [`pause`]: until what is on its way has arrived.
//! * [`tables`]: steps in the kernel, and back again after a failure.
//!
//! Whatever fails, and whenever this process dies, no number is used twice and
//! nothing goes in clear: the side that has SAs loses them before the other one
//! sends with them. What can be lost is said where it can.

mod give;
mod late;
mod numbers;
mod pause;
mod pick;
mod tables;
mod take;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gm_api::control::ApiError;
use gm_api::transfer::{TransferReply, TransferRequest, TransferSa, TransferSet};
use gm_dataplane::DataPlane;
use gm_esp::Mode;
use gm_xfrm::group::Set;
use gm_xfrm::kernel::XfrmError;

use crate::control::App;

/// Sets that move at a time: packets wait meanwhile, and there is room for so many.
const AT_A_TIME: usize = 1;

/// What was taken over, as it was in the kernel; by the number of the set. The
/// keys in it are wiped when it goes.
#[derive(Default)]
pub struct Migration {
    taken: Mutex<BTreeMap<u64, Set>>,
}

impl Migration {
    /// Takes SAs over from the kernel.
    ///
    /// # Errors
    /// `unsupported` and `refused` where it cannot be; `kernel` when the kernel
    /// refuses a step: then the sets of that step are as they were.
    pub fn adopt(&self, app: &App, request: &TransferRequest) -> Result<TransferReply, ApiError> {
        let plane = ready(app)?;
        take::adopt(app, plane, request, &mut self.taken())
    }

    /// Gives SAs back that were taken over.
    ///
    /// # Errors
    /// As [`Migration::adopt`].
    pub fn give_back(
        &self,
        app: &App,
        request: &TransferRequest,
    ) -> Result<TransferReply, ApiError> {
        let plane = ready(app)?;
        give::give_back(app, plane, request, &mut self.taken())
    }

    /// Before an orderly end: the kernel goes on with what was taken over.
    ///
    /// # Errors
    /// Names the sets that could not be given back. The policy has to stay then.
    pub fn give_all_back(&self, app: &App) -> Result<(), ApiError> {
        let mut taken = self.taken();
        let Some(plane) = app.sets.plane().xdp().filter(|_| !taken.is_empty()) else {
            return Ok(());
        };
        let sets = give::give_all(app, plane, &mut taken)?;
        if sets > 0 {
            tracing::info!(sets, "given back to the kernel before the end");
        }
        Ok(())
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, Set>> {
        // Every change is whole before anything can panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The data plane, where it can do this.
fn ready(app: &App) -> Result<&DataPlane, ApiError> {
    let plane = app.sets.plane().xdp().ok_or_else(|| {
        let what = "only the data plane xdp takes SAs over from the kernel";
        ApiError::new("unsupported", what).hint("[gm] data_plane = \"xdp\"")
    })?;
    if !app.config.gm.kernel_sas {
        let what = "SAs go over from and to the kernel only with [gm] kernel_sas = true";
        return Err(ApiError::new("refused", what)
            .hint("without it the ESP of other P-CSCFs' SAs is dropped here anyway"));
    }
    Ok(plane)
}

/// How long a phone's packets wait: too long, and there are more than have room.
struct Waited(Instant);

impl Waited {
    /// As a rule the tenth part of this.
    const LONG: Duration = Duration::from_secs(1);

    fn begin() -> Waited {
        Waited(Instant::now())
    }

    fn end(self, what: &str) {
        let time = self.0.elapsed();
        match time > Waited::LONG {
            true => tracing::warn!(?time, "{what}; packets have waited for long"),
            false => tracing::debug!(?time, "{what}"),
        }
    }
}

fn kernel(error: XfrmError) -> ApiError {
    ApiError::new("kernel", error.to_string())
}

/// The same error, where some sets have moved before.
fn after(moved: usize, error: ApiError) -> ApiError {
    if moved == 0 {
        return error;
    }
    let message = format!(
        "{}; {moved} sets have moved before, and stay so",
        error.message
    );
    ApiError { message, ..error }
}

/// A set as answers tell it. `last` is of each SA, in order.
fn told(set: &Set, number: Option<u64>, last: impl IntoIterator<Item = u64>) -> TransferSet {
    let spec = set.sas.first().map(|sa| &sa.found.spec);
    let sas = set.sas.iter().zip(last).filter_map(|(sa, last)| {
        Some(TransferSa {
            spi: sa.found.spec.spi,
            dst: sa.found.spec.destination(),
            dir: sa.dir?,
            last,
        })
    });
    TransferSet {
        set: number,
        phone: set.remote,
        suite: spec.map_or_else(String::new, |spec| spec.suite.to_string()),
        mode: match spec.map(|spec| spec.mode) {
            Some(Mode::UdpEncTun) => "udp-enc-tun".into(),
            _ => "trans".into(),
        },
        sas: sas.collect(),
    }
}

/// Whether a set is one of those that were asked for.
fn is_wanted(set: &Set, request: &TransferRequest) -> bool {
    let all = request.phones.is_empty() && request.spis.is_empty();
    let spi = |spi: &u32| set.sas.iter().any(|sa| sa.found.spec.spi == *spi);
    all || request.phones.contains(&set.remote) || request.spis.iter().any(spi)
}
