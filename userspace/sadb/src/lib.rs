//! The security association database: control SAs apart from hot halves.
//!
//! No I/O and no clock. A [`Sadb`] decides what SAs there are; what the data
//! plane has to do about it comes back as a list of [`Change`]s, to be carried
//! out in order. What changes with every packet (numbers, windows, counters)
//! lives in the [`Region`](gm_region::Region), which a successor adopts with
//! [`Sadb::recover`].
//!
//! A set of SAs lives as a whole (TS 33.203 7.4):
//!
//! ```text
//! install ----> inbound live, outbound standing by
//! activate ---> outbound takes over its selectors, an older set's stand by
//! retire -----> outbound off, inbound still accepts
//! remove -----> inbound off; the workers forget the SAs
//! release ----> keys wiped, slots free: after the workers have forgotten
//! ```
//!
//! Sets of another data plane are taken over and given back with their numbers:
//! [`Sadb::install_closed`], [`Sadb::open`], [`Sadb::handover`].
//!
//! Each command names the set and may be repeated: what is done already
//! succeeds and changes nothing here; the [`Change`]s come again, because they
//! may have got stuck on their way to the data plane. Slots are reused in the order in which they
//! became free, with another SPI each time.
#![forbid(unsafe_code)]

mod commons;
mod error;
mod finder;
mod index;
mod install;
mod list;
mod loaded;
mod numbers;
mod record;
mod recover;
mod sadb;
mod slot_list;
mod slots;
mod traces;
mod types;

pub use error::SadbError;
pub use finder::Finder;
pub use gm_region::SlotState;
pub use list::Row;
pub use loaded::Loaded;
pub use numbers::{Handover, Numbers};
pub use recover::Recovered;
pub use sadb::Sadb;
pub use slot_list::SlotList;
pub use slots::inbound;
pub use types::{Change, Dir, Installed, NewSa, Reserved, SetId};
