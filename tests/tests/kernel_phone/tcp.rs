//! A registration's life over TCP, with SIPp for a phone above the kernel's SAs.

use gm_esp::Suite;
use gm_sip::SaSetRequest;

use crate::in_every_suite;
use crate::net::{NAT, Net, V4, V6};
use crate::phone::Phone;
use crate::sipp::Sipp;
use crate::wire::Wire;

/// SM1 and SM6 go over UDP in clear; SM7 and all that follows over TCP, by SIPp.
fn lives(net: &Net, wire: &mut Wire, suite: Suite) {
    let mut phone = Phone::new(net, suite, wire);
    phone.leaves_esp_to_others();
    phone.register();
    let first = talks(net, &mut phone, suite, false);
    phone.register();
    challenged(net, &mut phone);
    let second = talks(net, &mut phone, suite, true);
    assert_ne!(first.ck, second.ck);

    phone.deregister();
    challenged(net, &mut phone);
    let leave = phone.next_request();
    let received = Sipp::sends(net, "phone_leave.xml", &leave).received();
    phone.answered(&leave, &received[0]);
    phone.deregistered();
    phone.forgets();
    assert_eq!(phone.kernel.drops(), Vec::<String>::new());
}

/// A REGISTER through the SAs in use, whose challenge the phone answers.
fn challenged(net: &Net, phone: &mut Phone<'_>) {
    let again = phone.next_request();
    let received = Sipp::sends(net, "phone_again.xml", &again).received();
    phone.answered(&again, &received[0]);
}

/// SM7 to SM12, then a MESSAGE each way; all four SAs carry something (clause 7.1).
fn talks(net: &Net, phone: &mut Phone<'_>, suite: Suite, protected: bool) -> SaSetRequest {
    let sm7 = phone.next_request();
    let answers = Sipp::answers(net, phone.newest());
    let received = Sipp::sends(net, "phone_register.xml", &sm7).received();
    phone.answered(&sm7, &received[0]);
    assert_eq!(answers.received().len(), 1);
    let set = phone.registered(suite, protected);
    for spec in set.inbound.iter().chain(&set.outbound) {
        assert!(phone.kernel.packets(spec) >= 3, "SPI {}", spec.spi);
    }
    set
}

#[test]
#[ignore = "needs a kernel with ESP and sipp"]
fn sipp_over_tcp_and_ipv4_in_every_suite() {
    gm_tests::needs_esp!();
    in_every_suite(&V4, "tcp-v4", lives);
}

#[test]
#[ignore = "needs a kernel with ESP and sipp"]
fn sipp_over_tcp_and_ipv6_in_every_suite() {
    gm_tests::needs_esp!();
    in_every_suite(&V6, "tcp-v6", lives);
}

#[test]
#[ignore = "needs a kernel with ESP and sipp"]
fn sipp_over_tcp_behind_a_nat_in_every_suite() {
    gm_tests::needs_esp!();
    in_every_suite(&NAT, "tcp-nat", lives);
}
