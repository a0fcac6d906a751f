//! A registration's life over UDP: each suite, over IPv4, over IPv6 and behind a NAT.

use gm_esp::Suite;
use gm_sip::SaSetRequest;

use crate::in_every_suite;
use crate::net::{NAT, Net, V4, V6};
use crate::phone::Phone;
use crate::wire::Wire;

/// Longer than two packets.
const LONG: usize = 3200;

/// SM1 to SM12, messages, new keys, the end; and what each end has counted.
fn lives(net: &Net, wire: &mut Wire, suite: Suite) {
    let mut phone = Phone::new(net, suite, wire);
    phone.register();
    let first = phone.registered(suite, false);
    phone.talks("from a kernel's ESP");
    phone.talks(&"long ".repeat(LONG / 5));

    // The first set protects SM1; what answers the challenge goes through the next one.
    phone.register();
    let second = phone.registered(suite, true);
    phone.talks("with new keys");
    assert_ne!(first.ck, second.ck);
    assert!(spis(&first).iter().all(|spi| !spis(&second).contains(spi)));
    has_carried(&phone, &second);

    phone.deregister();
    phone.deregistered();
    phone.forgets();
    assert_eq!(phone.kernel.drops(), Vec::<String>::new());
}

/// Over UDP one SA each way carries all (clause 7.1): the kernel has counted on them.
fn has_carried(phone: &Phone, set: &SaSetRequest) {
    let [from_pc, from_ps] = &set.inbound;
    let [to_ps, to_pc] = &set.outbound;
    assert!(phone.kernel.packets(from_pc) >= 3);
    assert!(phone.kernel.packets(to_ps) >= 3);
    assert_eq!(phone.kernel.packets(from_ps), 0);
    assert_eq!(phone.kernel.packets(to_pc), 0);
}

/// The SPIs of a set.
fn spis(set: &SaSetRequest) -> Vec<u32> {
    let all = set.inbound.iter().chain(&set.outbound);
    all.map(|spec| spec.spi).collect()
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn over_udp_and_ipv4_in_every_suite() {
    gm_tests::needs_esp!();
    in_every_suite(&V4, "udp-v4", lives);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn over_udp_and_ipv6_in_every_suite() {
    gm_tests::needs_esp!();
    in_every_suite(&V6, "udp-v6", lives);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn behind_a_nat_in_every_suite() {
    gm_tests::needs_esp!();
    in_every_suite(&NAT, "udp-nat", lives);
}
