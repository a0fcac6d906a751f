//! gmespd with `data_plane = "kernel"`: what is protected is dropped before there is an SA,
//! after a kill and while a successor takes over; sets come and go without a packet lost;
//! what others have in the kernel's tables stays. The peer is the kernel, too, in another
//! network namespace.
#![forbid(unsafe_code)]

#[path = "kernel_plane/answers.rs"]
mod answers;
#[path = "kernel_plane/closed.rs"]
mod closed;
#[path = "kernel_plane/four.rs"]
mod four;
#[path = "kernel_plane/lab.rs"]
mod lab;
#[path = "kernel_plane/life.rs"]
mod life;
#[path = "kernel_plane/nat.rs"]
mod nat;
#[path = "kernel_plane/others.rs"]
mod others;
#[path = "kernel_plane/sets.rs"]
mod sets;
