//! What lies between the two ends of the Gm link: routers whose next link is narrower, a
//! static NAT in front of the P-CSCF, and stacks that leave segmentation and checksums to
//! their network cards. Real sockets in network namespaces.
#![forbid(unsafe_code)]

// Each of the programs that share these uses a part of them.
#[allow(dead_code)]
#[path = "sipp/lab.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "dataplane/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "dataplane/sockets.rs"]
mod sockets;

#[path = "paths/narrow.rs"]
mod narrow;
#[path = "paths/nat.rs"]
mod nat;
#[path = "paths/pieces.rs"]
mod pieces;
#[path = "paths/tcp.rs"]
mod tcp;

use std::net::TcpListener;

use gm_dataplane::Reason;
use lab::{Family, Lab, PORT_PC, PORT_PS, PORT_UC, PORT_US};
use sockets::{WAIT, connect, megabyte};

/// Both IP versions.
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A megabyte each way at once over a connection that the UE opens, and over one that the
/// P-CSCF opens.
fn bulk_both_ways(lab: &Lab, family: Family) {
    let (p, u) = family.addresses();
    let listener = lab.p.ns.run(|| TcpListener::bind((p, PORT_PS)).unwrap());
    let client = lab.u.ns.run(|| connect((u, PORT_UC), (p, PORT_PS)));
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(WAIT)).unwrap();
    megabyte(client, server);
    let listener = lab.u.ns.run(|| TcpListener::bind((u, PORT_US)).unwrap());
    let client = lab.p.ns.run(|| connect((p, PORT_PC), (u, PORT_US)));
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(WAIT)).unwrap();
    megabyte(server, client);
}

/// Nothing was dropped that the other end had sent as it should.
fn is_clean(lab: &Lab) {
    for side in [&lab.p, &lab.u] {
        let stats = side.plane.stats().unwrap();
        let bad = [
            Reason::BadIcv,
            Reason::Malformed,
            Reason::SelectorMismatch,
            Reason::OutNoSa,
            Reason::OutMalformed,
            Reason::Replay,
        ];
        let bad: u64 = bad.map(|r| stats.get(r)).iter().sum();
        assert_eq!(bad, 0, "{:?}", lab::named(&stats));
        assert_eq!(stats.workers[0].frames_leaked, 0);
    }
}
