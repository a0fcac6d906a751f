//! A real phone's role, played by the Linux kernel. The phone's namespace has no gmesp
//! in it: `gm_sip::ue` negotiates over plain sockets, what it agreed on becomes states
//! and policies of iproute2, and SIP goes through them over UDP from two sockets and over
//! TCP from SIPp. gmespd, with its edge and home network, is the P-CSCF; a router is
//! between them, or a NAT.
//!
//! What the router saw, and the keys, come out of the VM for tests/oracle (`GM_VM_OUT`).
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "what was counted is shown by the step vm"
)]

#[path = "kernel_phone/ip_xfrm.rs"]
mod ip_xfrm;
#[path = "sipp/lab.rs"]
#[allow(
    dead_code,
    reason = "the laboratory of SIPp has more than is wanted here"
)]
mod lab;
#[path = "kernel_phone/net.rs"]
mod net;
#[path = "kernel_phone/phone.rs"]
mod phone;
#[path = "kernel_phone/sipp.rs"]
mod sipp;
#[path = "kernel_phone/tcp.rs"]
mod tcp;
#[path = "kernel_phone/udp.rs"]
mod udp;
#[path = "kernel_phone/wire.rs"]
mod wire;
