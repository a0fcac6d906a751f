//! A registration's life over UDP: each suite, over IPv4, over IPv6 and behind a NAT.

use gm_esp::Suite;
use gm_sip::SaSetRequest;

use crate::net::{Map, NAT, Net, V4, V6};
use crate::phone::Phone;
use crate::wire::{self, Wire};

/// Longer than two packets.
const LONG: usize = 3200;

/// SM1 to SM12, messages, new keys, the end; and what each end has counted.
fn lives(net: &Net, suite: Suite, name: &str) {
    let place = wire::place(
        net,
        &format!("{name}-{}", suite.to_string().replace('/', "-")),
    );
    let wire = Wire::new(net);
    let mut phone = Phone::new(net, suite, &place.join("sad.toml"));

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

    let frames = wire.frames();
    wire::write(&place.join("capture.pcap"), &frames);
    let esp = wire::is_all_esp(&frames, &protected(&[first, second]));
    // SM7, three MESSAGEs, three answers, SM1, SM7, the de-REGISTER; the long MESSAGE in
    // three pieces at least. As many the other way.
    assert!(esp.iter().all(|n| *n >= 10), "{esp:?}");
    println!("{suite}: ESP of the kernel and of gmesp: {esp:?}");
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

/// The protected ports of the sets.
pub fn protected(sets: &[SaSetRequest]) -> Vec<u16> {
    let ends = sets.iter().map(|s| s.params);
    ends.flat_map(|p| [p.ue_ends, p.pcscf_ends])
        .flat_map(|e| [e.port_c, e.port_s])
        .collect()
}

/// Every suite on one gmespd; it has lost nothing and refused nothing.
fn all_suites(map: &'static Map, name: &str) {
    let net = Net::new(map);
    for suite in Suite::ALL {
        lives(&net, suite, name);
    }
    net.lab.settles(0, 0);
    for reason in ["bad-icv", "replay", "selector-mismatch", "unknown-spi"] {
        assert_eq!(net.lab.count(reason), 0, "{reason}");
    }
    net.lab.counts("ok", 4 * 10);
    net.lab.counts("sealed", 4 * 10);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn over_udp_and_ipv4_in_every_suite() {
    gm_tests::needs_esp!();
    all_suites(&V4, "udp-v4");
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn over_udp_and_ipv6_in_every_suite() {
    gm_tests::needs_esp!();
    all_suites(&V6, "udp-v6");
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn behind_a_nat_in_every_suite() {
    gm_tests::needs_esp!();
    all_suites(&NAT, "udp-nat");
}
