//! gmespd against the Linux kernel's own ESP: gmespd's process at one end of the link, iproute2's
//! states and policies at the other, in either role.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the table is shown by the step vm")]

// Programs and files are those of the tests with SIPp; links, sockets and traffic those of the
// data plane's tests. Each of the programs that share them uses a part.
#[allow(dead_code)]
#[path = "sipp/lab.rs"]
mod common;
#[allow(dead_code)]
#[path = "dataplane/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "dataplane/sockets.rs"]
mod sockets;
#[allow(dead_code)]
#[path = "stacks/traffic.rs"]
mod traffic;

#[allow(dead_code)]
#[path = "stacks/middle.rs"]
mod middle;

#[path = "kernel_peer/gm.rs"]
mod gm;
#[path = "kernel_peer/masquerade.rs"]
mod masquerade;
#[path = "kernel_peer/matrix.rs"]
mod matrix;
#[path = "kernel_peer/nat.rs"]
mod nat;
#[path = "kernel_peer/nat_ue.rs"]
mod nat_ue;
#[path = "kernel_peer/renew.rs"]
mod renew;
#[path = "kernel_peer/replay.rs"]
mod replay;
#[path = "kernel_peer/set.rs"]
mod set;
#[path = "kernel_peer/sizes.rs"]
mod sizes;
#[path = "kernel_peer/xfrm.rs"]
mod xfrm;

use std::net::IpAddr;

use gm::Gmespd;
use gm_tests::netns::NetNs;
use lab::{Family, NAMES};
use set::End;
use xfrm::Kernel;

/// gmespd and the kernel, joined by a wire.
struct Pair {
    // It ends before its namespace.
    gm: Gmespd,
    kernel: Kernel,
    /// gmespd's side.
    ns: NetNs,
}

impl Pair {
    /// gmespd is this end.
    fn new(gm: End) -> Pair {
        let (p, ue) = lab::joined();
        Pair::on(gm, p, ue)
    }

    /// The same in namespaces that have their interfaces.
    fn on(gm: End, p: NetNs, ue: NetNs) -> Pair {
        let (ns, other, name) = match gm {
            End::PCscf => (p, ue, NAMES[0]),
            End::Ue => (ue, p, NAMES[1]),
        };
        let of = |family: Family| match gm {
            End::PCscf => family.addresses().0,
            End::Ue => family.addresses().1,
        };
        let addresses: [IpAddr; 2] = [of(Family::V4), of(Family::V6)];
        // Who cannot be reached is not waited for.
        for end in [&ns, &other] {
            end.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "3"))
                .expect("a setting of TCP");
        }
        Pair {
            gm: Gmespd::start(&ns, gm, name, &addresses),
            kernel: Kernel::new(other, gm.other()),
            ns,
        }
    }

    /// The namespace of an end.
    fn at(&self, end: End) -> &NetNs {
        match end == self.kernel.end {
            true => &self.kernel.ns,
            false => &self.ns,
        }
    }
}
