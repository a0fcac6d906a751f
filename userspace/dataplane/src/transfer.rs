//! SA sets change hands between this data plane and another one that is on the
//! same host, as a rule the kernel's XFRM, with their numbers and windows.
//!
//! ```text
//! take_over: packets of the phones wait; the SAs are installed, closed, and
//!            XDP finds the inbound ones: the other one gets no more of them
//!   (the caller ends the other one's SAs and learns their last numbers)
//! finish:    the numbers are written, outbound is switched on, packets go on
//!
//! hand_over: packets of the phones wait; the numbers stand still
//!   (the caller starts the other one's SAs: inbound with the same numbers,
//!    outbound ROOM numbers ahead)
//! finish:    what has come in goes to the other one, what was to go out is
//!            sealed here, in front of what the other one has sealed meanwhile
//! ```
//!
//! So none is lost, none is seen twice and no number is used twice, as long as
//! not more packets wait than there is room for. Whoever drops a transfer ends
//! it as if it had not been begun.

mod steps;

use gm_sadb::{Handover, Numbers, SetId};

use crate::parcel::WAITING;
use crate::routes::Buckets;
use crate::{DataPlane, Error, SetSpec};

/// Numbers between the last one used here and the first one of whoever takes
/// an outbound SA: what has waited uses some of them, and the rest is left out.
/// Receivers take that for lost packets.
pub const ROOM: u64 = WAITING as u64;

/// SA sets on their way from another data plane.
#[must_use = "dropped, it gives them up"]
pub struct Adoption {
    plane: DataPlane,
    held: Option<Held>,
}

/// SA sets on their way to another data plane.
#[must_use = "dropped, they stay here"]
pub struct Release {
    plane: DataPlane,
    held: Option<Held>,
    sas: Sas,
}

impl DataPlane {
    /// Begins to take over SAs that another data plane on this host has. From
    /// now on their packets wait here, at most [`ROOM`] of them for each worker;
    /// the other one's work must end, and [`Adoption::finish`] follow, within
    /// milliseconds. One transfer at a time.
    ///
    /// # Errors
    /// [`Error::Config`] without [`Config::kernel_sas`](crate::Config::kernel_sas),
    /// [`Error::Transfer`] while another one is under way, [`Error::Sadb`] names
    /// the SA that does not fit. Nothing has changed then.
    pub fn adopt(&self, specs: Vec<SetSpec>) -> Result<Adoption, Error> {
        let held = self.with(|c| c.take_over(specs))?;
        Ok(Adoption {
            plane: self.clone(),
            held: Some(held),
        })
    }

    /// Begins to give SA sets to another data plane on this host: their packets
    /// wait, their numbers stand still. [`Release::finish`] has to follow within
    /// milliseconds. One transfer at a time.
    ///
    /// # Errors
    /// As [`DataPlane::adopt`]; [`Error::Sadb`] for a set that is not there or
    /// retired.
    pub fn release(&self, sets: &[SetId]) -> Result<Release, Error> {
        let (held, sas) = self.with(|c| c.hand_over(sets))?;
        Ok(Release {
            plane: self.clone(),
            held: Some(held),
            sas,
        })
    }
}

impl Adoption {
    /// The sets, in the order given.
    pub fn sets(&self) -> &[SetId] {
        self.held.as_ref().map_or(&[], |(sets, _)| sets)
    }

    /// Goes on where the other one has ended: `numbers` has for each set what
    /// its SAs have used, in their order. What has waited is worked on.
    ///
    /// # Errors
    /// [`Error::Sadb`] names the SA whose numbers cannot be. Then no number was
    /// used here and packets still wait, so that the caller can start the other
    /// one's SAs again before this is dropped. What goes wrong later is logged.
    pub fn finish(&mut self, numbers: &[Vec<Numbers>]) -> Result<(), Error> {
        let Some((sets, buckets)) = &self.held else {
            return Err(Error::Transfer);
        };
        self.plane.with(|c| c.taken_over(sets, buckets, numbers))?;
        self.held = None;
        Ok(())
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        let Some((sets, buckets)) = self.held.take() else {
            return;
        };
        if let Err(e) = self.plane.with(|c| c.gave_up(&sets, &buckets)) {
            tracing::error!("ending a take-over: {e}");
        }
    }
}

impl Release {
    /// What the other one needs to know, by set, the SAs in the order of their
    /// install. No number of an outbound one may be used there that is not more
    /// than [`ROOM`] above the last one.
    pub fn sas(&self) -> &[(SetId, Vec<Handover>)] {
        &self.sas
    }

    /// The other one has the SAs, and outbound traffic goes there: what has
    /// waited ends here, and the sets are removed.
    ///
    /// # Errors
    /// [`Error::Transfer`]: a worker has died meanwhile, so that numbers may have
    /// gone on here. Packets still wait, and [`Release::take_back`] has to follow.
    /// [`Error::WorkerGone`]: the sets have ended here all the same.
    pub fn finish(&mut self) -> Result<(), Error> {
        let Some((sets, buckets)) = &self.held else {
            return Err(Error::Transfer);
        };
        let ended = self.plane.with(|c| c.handed_over(sets, buckets));
        if !matches!(ended, Err(Error::Transfer)) {
            self.held = None;
        }
        ended
    }

    /// The other one has given the SAs up again, after it has used these
    /// numbers: this one goes on behind them. In the order of [`Release::sas`].
    ///
    /// # Errors
    /// [`Error::Transfer`] for another number of sets, [`Error::Sadb`] for another
    /// number of SAs and for a set that was removed meanwhile; the transfer has
    /// ended all the same.
    pub fn take_back(mut self, numbers: &[Vec<Numbers>]) -> Result<(), Error> {
        let Some((sets, buckets)) = self.held.take() else {
            return Err(Error::Transfer);
        };
        self.plane.with(|c| c.taken_back(&sets, &buckets, numbers))
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let Some((_, buckets)) = self.held.take() else {
            return;
        };
        if let Err(e) = self.plane.with(|c| c.kept(&buckets)) {
            tracing::error!("ending a hand-over: {e}");
        }
    }
}

/// Sets whose packets wait, and the buckets that they are in.
type Held = (Vec<SetId>, Buckets);
/// What another data plane needs, by set.
type Sas = Vec<(SetId, Vec<Handover>)>;

/// Whether SAs are changing hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// They are not.
    None,
    /// Packets wait.
    Running,
    /// A worker was started again, and its packets do not wait any more.
    Broken,
}
