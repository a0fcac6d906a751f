//! The Linux kernel's own ESP: its states (SAs) and policies over netlink.
//!
//! * [`Xfrm`]: reads, makes, changes and removes them, acknowledged one by one.
//! * [`State`], [`Policy`], [`Numbers`]: what they are.
//! * [`Watch`]: what happens to them.
//! * [`plan`]: from an SA of ours to the kernel's state and policies, and back.
//! * [`sets`]: several SAs, all or nothing; [`diff`]: what is otherwise.
//!
//! No key is in an error or in `Debug`; buffers that held one are wiped. SPIs
//! and ports are numbers in host byte order throughout.

pub mod diff;
mod error;
mod numbers;
pub mod plan;
mod policy;
mod read;
mod select;
pub mod sets;
mod socket;
mod state;
mod watch;
mod wire;
mod xfrm;

pub use error::{Subject, XfrmError};
pub use numbers::{MAX_WINDOW, Numbers, kernel_window};
pub use policy::{Action, Policy, PolicyDir, PolicyId, Template};
pub use read::{Message, read};
pub use select::{Net, Ports, Selector, Wrap, unspecified};
pub use state::{
    Algorithm, Algorithms, Counters, ESP, ESP_IN_UDP, Encap, Limits, Mark, Secret, State, StateId,
};
pub use watch::{Event, Topic, Watch};
pub use wire::Damaged;
pub use xfrm::{MAX_ENTRIES, Xfrm};
