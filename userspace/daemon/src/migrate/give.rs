//! From here to the kernel: states and policies as they were when they were
//! taken over, with the numbers and NAT ports of now.
//!
//! ```text
//! our data plane holds the phones' packets back; its numbers stand still
//! the kernel gets the states: inbound ones with these numbers, outbound ones
//!    some numbers ahead
//! what we have opened before is at its socket: the kernel gets the policies, the
//!    outbound ones last
//! our data plane seals what has waited, hands the kernel what has come in, and
//!    behind all that lets through what the kernel has sealed meanwhile; it ends
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use gm_api::control::ApiError;
use gm_api::sad::Dir;
use gm_api::transfer::{TransferReply, TransferRequest, TransferSet};
use gm_dataplane::{DataPlane, Error, Handover, Numbers, ROOM, Release, SetId};
use gm_xfrm::group::Set;
use gm_xfrm::kernel::State;

use super::numbers::{from_kernel, to_kernel};
use super::pause::until_others_had_a_turn;
use super::tables::Work;
use super::{AT_A_TIME, Waited, after, is_wanted, told};
use crate::control::App;
use crate::live;

/// What was on its way through the host has arrived after this, and after a turn for
/// programs and the kernel's own threads that had to wait for a processor.
const ON_ITS_WAY: Duration = Duration::from_millis(60);

/// A set on its way: its number, the data plane's, and as it was.
type Going = (u64, SetId, Set);

/// Gives back what was asked for.
pub fn give_back(
    app: &App,
    plane: &DataPlane,
    request: &TransferRequest,
    taken: &mut BTreeMap<u64, Set>,
) -> Result<TransferReply, ApiError> {
    // Somebody may have removed a set, or a new registration.
    taken.retain(|number, _| app.sets.plane_id(*number).is_some());
    let wanted = taken.iter().filter(|(_, set)| is_wanted(set, request));
    let mut going: Vec<Going> = wanted
        .filter_map(|(number, set)| {
            let id = app.sets.plane_id(*number)?;
            Some((*number, SetId(id), set.clone()))
        })
        .collect();
    let limit = request.limit.unwrap_or(usize::MAX).min(going.len());
    let mut reply = TransferReply {
        remaining: going.len() - limit,
        ..TransferReply::default()
    };
    going.truncate(limit);
    if request.dry_run {
        let rows = plane.list();
        let last = |set: &Set| -> Vec<u64> {
            let row = |spi: u32| rows.iter().find(|row| row.spec.spi == spi);
            let spis = set.sas.iter().map(|sa| sa.found.spec.spi);
            spis.map(|spi| row(spi).map_or(0, |row| row.seq.max(row.top)))
                .collect()
        };
        let all = going.iter();
        reply.sets = all
            .map(|(number, _, set)| told(set, Some(*number), last(set)))
            .collect();
        return Ok(reply);
    }
    let mut work = Work::begin()?;
    while !going.is_empty() {
        let some: Vec<Going> = going.drain(..going.len().min(AT_A_TIME)).collect();
        match step(app, plane, &mut work, &some, taken) {
            Ok(moved) => reply.sets.extend(moved),
            Err(error) => return Err(after(reply.sets.len(), error)),
        }
    }
    Ok(reply)
}

/// Gives all back that can be, before this gmespd ends. An error names the
/// others: they are here still.
pub fn give_all(
    app: &App,
    plane: &DataPlane,
    taken: &mut BTreeMap<u64, Set>,
) -> Result<usize, ApiError> {
    let all: Vec<Going> = taken
        .iter()
        .filter_map(|(number, set)| {
            let id = app.sets.plane_id(*number)?;
            Some((*number, SetId(id), set.clone()))
        })
        .collect();
    if all.is_empty() {
        return Ok(0);
    }
    let mut work = Work::begin()?;
    let mut left = Vec::new();
    for going in all.chunks(1) {
        if let (Err(error), [(number, _, set)]) = (step(app, plane, &mut work, going, taken), going)
        {
            left.push(format!("set {number} of {}: {error}", set.remote));
        }
    }
    match left.is_empty() {
        true => Ok(all.len()),
        false => Err(ApiError::new("kernel", left.join("; "))),
    }
}

/// Gives a few sets back, all of them or none.
fn step(
    app: &App,
    plane: &DataPlane,
    work: &mut Work,
    going: &[Going],
    taken: &mut BTreeMap<u64, Set>,
) -> Result<Vec<TransferSet>, ApiError> {
    let ids: Vec<SetId> = going.iter().map(|(_, id, _)| *id).collect();
    let waited = Waited::begin();
    let mut release = plane.release(&ids).map_err(live::error)?;
    match over(work, &mut release, going) {
        Ok(moved) => {
            work.keep();
            waited.end("given back");
            for (number, ..) in going {
                app.sets.forget(*number);
                taken.remove(number);
            }
            Ok(moved)
        }
        Err(mut error) => {
            let (used, failed) = work.undo();
            let numbers = used_up_to(&release, &used.into_values().collect::<Vec<_>>());
            let back = release.take_back(&numbers).map_err(live::error);
            for what in [failed, back.err().map(|e| e.message)]
                .into_iter()
                .flatten()
            {
                error.message = format!("{}; and taking back: {what}", error.message);
            }
            Err(error)
        }
    }
}

fn over(
    work: &mut Work,
    release: &mut Release,
    going: &[Going],
) -> Result<Vec<TransferSet>, ApiError> {
    let mut moved = Vec::new();
    let mut sets = Vec::new();
    for (number, id, set) in going {
        let sas = release.sas().iter().find(|(of, _)| of == id);
        let sas = sas.map_or(&[][..], |(_, sas)| sas);
        let mut set = set.clone();
        back_to(&mut set, sas)?;
        let last = sas.iter().map(|sa| sa.numbers.last);
        moved.push(told(&set, Some(*number), last));
        sets.push(set);
    }
    for dir in [Dir::In, Dir::Out] {
        let states = sets.iter().flat_map(|set| &set.sas);
        for sa in states.filter(|sa| sa.dir == Some(dir)) {
            work.add_state(&sa.state)?;
        }
    }
    // What we have opened has to be at its socket before the kernel's policies ask
    // who has opened it.
    until_others_had_a_turn(ON_ITS_WAY);
    work.add_policies(&sets, false)?;
    work.add_policies(&sets, true)?;
    until_others_had_a_turn(ON_ITS_WAY);
    match release.finish() {
        Err(Error::Transfer) => Err(live::error(Error::Transfer)),
        // The sets have ended here all the same, and the kernel goes on.
        Err(error) => {
            tracing::error!(%error, "given back, and what has waited may be lost");
            Ok(moved)
        }
        Ok(()) => Ok(moved),
    }
}

/// The states as they go back.
fn back_to(set: &mut Set, sas: &[Handover]) -> Result<(), ApiError> {
    if set.sas.len() != sas.len() {
        return Err(ApiError::new(
            "internal",
            "the set has other SAs than it had",
        ));
    }
    // The phone's port behind its NAT, as it is now.
    let port = sas.iter().find_map(|sa| sa.encap_port);
    for (member, now) in set.sas.iter_mut().zip(sas) {
        let Some(dir) = member.dir else { continue };
        let numbers = to_kernel(dir, &member.state.numbers, &now.numbers, ROOM);
        member.state.numbers = numbers.ok_or_else(|| {
            let spi = now.spec.spi;
            ApiError::new(
                "refused",
                format!("SPI {spi} has too few sequence numbers left"),
            )
            .hint("let the phone register again")
        })?;
        if let (Some(encap), Some(port)) = (&mut member.state.encap, port) {
            match dir {
                Dir::In => encap.sport = port,
                Dir::Out => encap.dport = port,
            }
        }
    }
    Ok(())
}

/// For each SA what the kernel has used of it; what it never had is as it was.
fn used_up_to(release: &Release, used: &[State]) -> Vec<Vec<Numbers>> {
    let one = |sa: &Handover| {
        let (spi, dst) = (sa.spec.spi, sa.spec.destination());
        let state = used.iter().find(|s| s.id.spi == spi && s.id.dst == dst);
        state.map_or_else(
            || sa.numbers.clone(),
            |state| from_kernel(live::direction(sa.dir), &state.numbers),
        )
    };
    let set = |(_, sas): &(SetId, Vec<Handover>)| sas.iter().map(one).collect();
    release.sas().iter().map(set).collect()
}
