//! From the kernel here.
//!
//! ```text
//! our data plane holds the phones' packets back; ESP that comes in is ours now
//! the kernel's outbound policies go: what is sent waits here from now on
//! the kernel has worked off what was on its way: its numbers stand still
//! its inbound states go, each with its last numbers; the outbound ones get the last
//!    numbers that they may use, for what is late; then its other policies
//! our data plane goes on behind these numbers
//! a second later the outbound states go
//! ```
//!
//! Until the states go the kernel can go on at once, and after that it is given
//! them again with the numbers that they had; only what the host has sent in
//! these milliseconds is lost then. If this process dies in between, what is in
//! neither place has to be negotiated anew: its phones register again.

use std::collections::BTreeMap;

use gm_api::control::ApiError;
use gm_api::sad::Dir;
use gm_api::transfer::{TransferReply, TransferRequest};
use gm_dataplane::{Adoption, DataPlane, Numbers, SetSpec};
use gm_xfrm::group::{Set, group};

use super::numbers::from_kernel;
use super::pick::{Picked, pick, sas};
use super::tables::Work;
use super::{AT_A_TIME, Waited, after, kernel, told};
use crate::control::App;
use crate::live;
use crate::running::largest_window;

/// Takes over what was asked for.
pub fn adopt(
    app: &App,
    plane: &DataPlane,
    request: &TransferRequest,
    taken: &mut BTreeMap<u64, Set>,
) -> Result<TransferReply, ApiError> {
    // Keys of what somebody has removed meanwhile are not kept.
    taken.retain(|number, _| app.sets.plane_id(*number).is_some());
    let mut work = Work::begin()?;
    let states = work.xfrm().states().map_err(kernel)?;
    let policies = work.xfrm().policies().map_err(kernel)?;
    let grouped = group(&states, &policies, |address| app.config.is_local(address));
    drop(states);
    let Picked {
        mut sets,
        left_out,
        warnings,
    } = pick(&app.config, grouped, request);
    let limit = request.limit.unwrap_or(usize::MAX).min(sets.len());
    let mut reply = TransferReply {
        remaining: sets.len() - limit,
        left_out,
        warnings,
        ..TransferReply::default()
    };
    sets.truncate(limit);
    if request.dry_run {
        let last = |set: &Set| -> Vec<u64> {
            let numbers = set.sas.iter().map(|sa| &sa.found.numbers);
            numbers.map(|n| n.seq.max(n.top)).collect()
        };
        reply.sets = sets.iter().map(|set| told(set, None, last(set))).collect();
        return Ok(reply);
    }
    let mut end = Ok(());
    while !sets.is_empty() && end.is_ok() {
        work.end_late(false);
        let some: Vec<Set> = sets.drain(..sets.len().min(AT_A_TIME)).collect();
        end = step(app, plane, &mut work, some, taken).map(|moved| reply.sets.extend(moved));
    }
    work.end_late(true);
    match end {
        Ok(()) => Ok(reply),
        Err(error) => Err(after(reply.sets.len(), error)),
    }
}

/// Takes over a few sets, all of them or none.
fn step(
    app: &App,
    plane: &DataPlane,
    work: &mut Work,
    mut sets: Vec<Set>,
    taken: &mut BTreeMap<u64, Set>,
) -> Result<Vec<gm_api::transfer::TransferSet>, ApiError> {
    work.are_there(&sets)?;
    let window = largest_window(&app.config);
    let spec = |set: &Set| SetSpec {
        set: None,
        sas: sas(set, window),
    };
    let specs = sets.iter().map(spec).collect();
    let waited = Waited::begin();
    let mut adoption = plane.adopt(specs).map_err(live::error)?;
    let ids: Vec<u64> = adoption.sets().iter().map(|id| id.0).collect();
    let numbers = match over(work, &mut adoption, &mut sets) {
        Ok(numbers) => numbers,
        Err(mut error) => {
            // The kernel first: what has waited goes there.
            if let (_, Some(what)) = work.undo() {
                error.message = format!(
                    "{}; and the kernel could not be put back: {what}",
                    error.message
                );
            }
            drop(adoption);
            return Err(error);
        }
    };
    work.keep();
    waited.end("taken over");
    let mut moved = Vec::new();
    for ((set, id), numbers) in sets.into_iter().zip(ids).zip(numbers) {
        let number = app.sets.enroll(id);
        moved.push(told(&set, Some(number), numbers.iter().map(|n| n.last)));
        taken.insert(number, set);
    }
    Ok(moved)
}

fn over(
    work: &mut Work,
    adoption: &mut Adoption,
    sets: &mut [Set],
) -> Result<Vec<Vec<Numbers>>, ApiError> {
    work.remove_policies(sets, true)?;
    work.settle(sets)?;
    let mut all = Vec::new();
    for set in sets.iter_mut() {
        let mut numbers = Vec::new();
        for sa in &mut set.sas {
            let dir = sa
                .dir
                .ok_or_else(|| ApiError::new("internal", "no direction"))?;
            sa.state = match dir {
                Dir::In => work.remove_state(sa.state.id)?,
                Dir::Out => work.leave_state(sa.state.id)?,
            };
            numbers.push(from_kernel(dir, &sa.state.numbers));
        }
        all.push(numbers);
    }
    work.remove_policies(sets, false)?;
    adoption.finish(&all).map_err(live::error)?;
    Ok(all)
}
