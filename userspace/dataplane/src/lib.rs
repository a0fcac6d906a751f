//! The data plane: XDP and AF_XDP around ESP, with worker threads.
//!
//! ```text
//!             uplink                                        gm0x | gm0
//! phone --> XDP: classify, --> AF_XDP --> worker: open, --> AF_XDP --> tc: mark,
//!           precheck, steer               commit, admit               redirect to the
//!              | shed                                                 uplink's ingress
//!              v                                                          |
//!          tc ingress, all interfaces: the guard  <-----------------------+
//!              |  only marked packets reach protected ports
//!              v
//!          local sockets
//!              |
//!          tc egress of the uplink: what is protected --> gm0 --> gm0x: XDP --> AF_XDP
//!                                                                               |
//! phone <------------------------- AF_XDP of the uplink <-- worker: select, number, seal
//! ```
//!
//! [`DataPlane::start`] puts the policy in force before there is any SA; what
//! it protects and no SA matches is dropped, in both directions. SA sets come
//! and go through the handle. Everything is removed by
//! [`DataPlane::shutdown`]; after a SIGKILL the pinned policy stays.
//!
//! Who does what: `config` is the policy; `keeper` owns `devices`, `attach`ed
//! programs, `pins` and the `lock`; `handoff` carries `control`'s commands to a `worker`,
//! whose packets come by its `lane`s and go through `process`. `crew` is all workers, and
//! `divide` gives each packet to the one that `routes` names. `publish` shows XDP the
//! inbound SAs, `tables` is what BPF and workers share by source and by reason.
#![forbid(unsafe_code)]

mod attach;
mod bulk;
mod checksum;
mod config;
mod control;
mod crew;
mod devices;
mod divide;
mod drops;
mod error;
mod event;
mod flows;
mod gone;
mod handoff;
mod icmp;
mod keeper;
mod lane;
mod limit;
mod lock;
mod maps;
mod parcel;
mod pins;
mod plane;
mod prefixes;
mod process;
mod publish;
mod repair;
mod routes;
mod shop;
mod stats;
mod supervise;
mod table;
mod tables;
mod tap;
mod tcp;
mod transfer;
mod unended;
mod worker;

pub use config::{Config, MAX_BUSY_POLL_US, TcMode};
pub use drops::{DropNews, DropSample, MAX_FOLLOWERS, Station, monotonic_ns};
pub use error::Error;
pub use event::Event;
pub use gm_abi::verdict::{Action, Reason};
pub use gm_sadb::{Dir, Handover, NewSa, Numbers, Reserved, SadbError, SetId, SlotState};
pub use gone::{GoneSa, Past};
pub use plane::{DataPlane, SaStatus, SetSpec};
pub use prefixes::PrefixCounts;
#[cfg(fuzzing)]
pub use process::fuzz;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use process::line;
pub use stats::{SocketStats, Stats, WorkerStats};
#[doc(hidden)]
pub use supervise::Fault;
pub use tap::{Direction, TapPacket};
pub use transfer::{Adoption, ROOM, Release};
