//! What goes in and out of the database.

use std::fmt;

use gm_esp::{EspKeys, Sa, SaSpec};

/// Names a set of SAs. Chosen by the caller or by
/// [`Sadb::new_set`](crate::Sadb::new_set); never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u64);

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which way an SA's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dir {
    /// To this host.
    In,
    /// From this host.
    Out,
}

/// A slot and the SPI that belongs to it, set aside for an inbound SA. Given
/// back by [`Sadb::unreserve`](crate::Sadb::unreserve) or used by an install
/// with this SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reserved {
    /// The slot.
    pub slot: u32,
    /// The SPI, host byte order.
    pub spi: u32,
}

/// An SA to be installed. `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct NewSa {
    /// What it is. An inbound SA has a reserved SPI or, set up by hand, any
    /// other from 256 on.
    pub spec: SaSpec,
    /// Its keys.
    pub keys: EspKeys,
    /// Its direction.
    pub dir: Dir,
    /// The first sequence number that it sends or accepts; `None`: 1. What the
    /// same key and SPI have used before is never used again, whatever this
    /// says.
    pub first_seq: Option<u64>,
}

/// What the data plane has to do, one step. Steps already done may be repeated.
#[derive(Clone)]
pub enum Change {
    /// The owner worker learns the SA. It does not send with it yet.
    Add {
        /// The slot.
        slot: u32,
        /// The SA.
        sa: Sa,
        /// Its direction.
        dir: Dir,
    },
    /// XDP learns the inbound SA: the slot's entry in the map, and one in the
    /// map of foreign SPIs where the SPI is not the slot's.
    Publish {
        /// The slot.
        slot: u32,
        /// Whether the SPI was chosen by somebody else.
        foreign: bool,
        /// The SA.
        sa: Sa,
    },
    /// Outbound traffic of the SA's selectors uses this slot from now on,
    /// whatever it used before.
    Select {
        /// The slot.
        slot: u32,
        /// The SA.
        sa: Sa,
    },
    /// Outbound traffic no longer uses this slot; what another slot has been
    /// selected for stays with that.
    Deselect {
        /// The slot.
        slot: u32,
        /// The SA.
        sa: Sa,
    },
    /// XDP forgets the inbound SA.
    Unpublish {
        /// The slot.
        slot: u32,
        /// Whether it is in the map of foreign SPIs.
        foreign: bool,
        /// The SA.
        sa: Sa,
    },
    /// The owner worker forgets the SA; when it has, the set may be released.
    Forget {
        /// The slot.
        slot: u32,
        /// The SA's direction.
        dir: Dir,
    },
}

impl Change {
    /// The slot that the step is about.
    pub fn slot(&self) -> u32 {
        match self {
            Change::Add { slot, .. }
            | Change::Publish { slot, .. }
            | Change::Select { slot, .. }
            | Change::Deselect { slot, .. }
            | Change::Unpublish { slot, .. }
            | Change::Forget { slot, .. } => *slot,
        }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Change::Add { .. } => "Add",
            Change::Publish { .. } => "Publish",
            Change::Select { .. } => "Select",
            Change::Deselect { .. } => "Deselect",
            Change::Unpublish { .. } => "Unpublish",
            Change::Forget { .. } => "Forget",
        };
        write!(f, "{name}({})", self.slot())
    }
}

/// What an install has done.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The set.
    pub set: SetId,
    /// The slots, in the order of the SAs given.
    pub slots: Vec<u32>,
    /// What is to be done now; empty when the set was there already.
    pub changes: Vec<Change>,
}
