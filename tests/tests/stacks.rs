//! What real stacks and networks do to packets: all sizes, fragments in any order, options,
//! extension headers, tags, NATs, sets that come and go. Real sockets, with a box in the middle of
//! the wire where the network has a part in it.

// Each of the programs that share the laboratory uses a part of it.
#[allow(dead_code)]
#[path = "dataplane/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "dataplane/sockets.rs"]
mod sockets;

#[path = "stacks/fragments.rs"]
mod fragments;
#[path = "stacks/middle.rs"]
mod middle;
#[path = "stacks/sizes.rs"]
mod sizes;

use gm_tests::netns::{End, NetNs, veth};
use lab::{Family, Lab, NAMES};
use middle::Middle;

/// Both data planes, and a box between them.
fn through_a_box() -> (Lab, Middle) {
    let [p, u, m] = [(); 3].map(|()| NetNs::new().unwrap());
    let ends = [
        (&p, NAMES[0], "m0", ["10.77.0.1/24", "fd77::1/64"]),
        (&u, NAMES[1], "m1", ["10.77.0.2/24", "fd77::2/64"]),
    ];
    for (ns, name, leg, addresses) in ends {
        veth(
            End {
                ns,
                name,
                addresses: &addresses,
            },
            End {
                ns: &m,
                name: leg,
                addresses: &[],
            },
        );
    }
    let middle = Middle::new(m, &["m0", "m1"]);
    (Lab::on(p, u, None), middle)
}

/// Both IP versions.
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
