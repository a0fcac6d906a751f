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

#[path = "stacks/busy.rs"]
mod busy;
#[path = "stacks/fragments.rs"]
mod fragments;
#[path = "stacks/headers.rs"]
mod headers;
#[path = "stacks/icmp.rs"]
mod icmp;
#[path = "stacks/links.rs"]
mod links;
#[path = "stacks/middle.rs"]
mod middle;
#[path = "stacks/nat.rs"]
mod nat;
#[path = "stacks/sets.rs"]
mod sets;
#[path = "stacks/sizes.rs"]
mod sizes;
#[path = "stacks/traffic.rs"]
mod traffic;

use std::time::Duration;

use gm_tests::netns::{End, NetNs, veth_of};
use lab::{Family, Lab, NAMES};
use middle::Middle;

/// Both data planes, and a box between them.
fn through_a_box() -> (Lab, Middle) {
    through_a_box_of([1500; 2])
}

/// The same with other MTUs of P-CSCF and UE.
fn through_a_box_of(mtus: [usize; 2]) -> (Lab, Middle) {
    let [p, u, m] = [(); 3].map(|()| NetNs::new().unwrap());
    let ends: [(&NetNs, &str, &str, [&str; 2]); 2] = [
        (&p, NAMES[0], "m0", ["10.77.0.1/24", "fd77::1/64"]),
        (&u, NAMES[1], "m1", ["10.77.0.2/24", "fd77::2/64"]),
    ];
    for (ns, name, leg, addresses) in &ends {
        veth_of(
            lab::workers(),
            End {
                ns,
                name,
                addresses,
            },
            End {
                ns: &m,
                name: leg,
                addresses: &[],
            },
        );
    }
    // A box that forwards bytes knows nothing of checksums that a device still has to write.
    for ((ns, name, ..), mtu) in ends.iter().zip(mtus) {
        ns.ip(&format!("link set {name} mtu {mtu}"));
        ns.run(|| gm_xsk::nic::set_tx_checksum(name, false).unwrap());
    }
    let middle = Middle::new(m, &["m0", "m1"]);
    (Lab::on(p, u, None), middle)
}

/// Both IP versions.
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Now and then a moment, so that no source sends more fragments than one may: a thousand in a
/// tenth of a second.
fn pause(n: usize) {
    if n.is_multiple_of(64) {
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// What has most to lose when packets change hands.
#[test]
#[ignore = "root: namespaces, BPF"]
fn with_three_workers_the_same_holds() {
    lab::again_with_workers(&[
        "busy::many_threads_send_over_one_sa_and_each_packet_has_its_number",
        "fragments::an_icv_that_lies_across_two_fragments_is_verified_whole",
        "fragments::an_overlap_ends_the_datagram_and_no_other",
        "fragments::fragments_in_any_order_of_several_datagrams_come_together",
        "headers::options_and_extension_headers_before_esp_are_stepped_over",
        "links::many_short_connections_come_and_go",
        "nat::two_phones_behind_one_nat_each_get_what_is_theirs",
        "nat::when_the_nat_binds_another_port_the_next_verified_packet_moves_the_phone",
        "sets::a_new_set_takes_over_under_traffic_and_nothing_is_lost",
        "sets::all_suites_are_up_at_once_and_carry_side_by_side",
        "sets::sets_come_and_go_and_nothing_of_them_stays",
    ]);
}
