//! AF_XDP sockets, link-layer sockets and NIC settings: the fence around Linux.
//!
//! What needs `unsafe` to talk to the kernel's network devices is here and
//! nowhere else; what this crate exports is safe to use.
//!
//! ```text
//!            alloc                       send                flush: kernel has sent
//!   Umem ------------> Frame (yours) ----------> TX ring ------------> Umem
//!     |                  ^    |
//!     | refill           |    | free
//!     v                  |    v
//!   fill ring --------> recv  Umem
//!          kernel has received
//! ```
//!
//! A [`Umem`] is one piece of memory cut into frames. Every frame is at any
//! time in exactly one place: free in the [`Umem`], in the hands of the program
//! as a [`Frame`], or with the kernel on the rings of one [`Socket`]. A byte
//! per frame says where, and what the kernel returns is checked against it, so
//! a frame is never lost, owned twice or given back twice.
//!
//! One worker thread owns a [`Umem`] and its sockets; they are [`Send`], not
//! shared. Waiting is the caller's: [`Socket`] and [`LinkSocket`] implement
//! [`AsFd`](std::os::fd::AsFd) for `poll`.

mod frame;
mod link;
pub mod nic;
mod patience;
mod ring;
mod setup;
mod socket;
mod sockopt;
pub mod sys;
mod umem;

pub use frame::{FRAME_SIZE, Frame, HEADROOM, METADATA};
pub use link::LinkSocket;
pub use setup::{Mode, RingSizes};
pub use socket::{Flushed, Socket, Statistics};
pub use sockopt::esp_in_udp;
pub use umem::Umem;
