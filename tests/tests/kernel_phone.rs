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

use gm_esp::Suite;

use net::{Map, Net};
use wire::Wire;

/// The fewest ESP packets of a life, each way.
const FEWEST: usize = 10;

/// A life in every suite on one gmespd, which has refused nothing; what a router sees of
/// them is ESP.
fn in_every_suite(map: &'static Map, name: &str, lives: fn(&Net, &mut Wire, Suite)) {
    let net = Net::new(map);
    let mut wire = Wire::new(&net, name);
    for suite in Suite::ALL {
        lives(&net, &mut wire, suite);
    }
    net.lab.settles(0, 0);
    let esp = wire.ends();
    println!("{name}: ESP of the kernel and of gmesp: {esp:?}");
    let fewest = FEWEST * Suite::ALL.len();
    assert!(esp.iter().all(|n| *n >= fewest), "{esp:?}");
    for reason in ["bad-icv", "replay", "stale", "unknown-spi"] {
        assert_eq!(net.lab.count(reason), 0, "{reason}");
    }
    // The kernel has no counter for it.
    if !gm_tests::plane::is_kernel() {
        assert_eq!(net.lab.count("selector-mismatch"), 0);
    }
    net.lab.counts("ok", fewest as u64);
    net.lab.counts("sealed", fewest as u64);
}
