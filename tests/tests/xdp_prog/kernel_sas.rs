//! Where SAs of another P-CSCF in the kernel are tolerated: their ESP passes,
//! ours goes to workers as before, and nothing else is let in.

use gm_abi::maps::{MODE_TRANS, STATE_TRANSIT};
use gm_abi::verdict::Reason;

use super::frames::*;
use super::lab::*;
use super::{FOREIGN, FOREIGN_HIGH, TRANS};

fn lab() -> Lab {
    let mut lab = Lab::beside_kernel_sas();
    lab.install(7, Sa::of_slot(7, 0, OURS_V4, MODE_TRANS));
    lab.install_foreign(
        11,
        Sa {
            spi: FOREIGN,
            ..Sa::of_slot(11, 0, OURS_V4, MODE_TRANS)
        },
    );
    lab
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn esp_of_spis_that_are_not_ours_is_left_to_the_kernel() {
    let mut lab = lab();
    let in_udp = |spi| udp(5555, ENCAP_PORT, &esp(spi, 1));
    let passed = (XDP_PASS, vec![(Reason::PassKernelSa, 1)]);
    for (name, frame) in [
        ("raw", v4(ESP, &esp(0x9999, 1))),
        ("IPv6", v6(ESP, &esp(0x9999, 1))),
        ("in UDP", v4(UDP, &in_udp(0x9999))),
        ("in our range", v4(ESP, &esp(FOREIGN_HIGH, 1))),
        ("another destination", v6(ESP, &esp(TRANS, 1))),
        ("VLAN", tagged(&v4(ESP, &esp(0x9999, 1)), &[0x8100])),
    ] {
        let ran = lab.uplink(&frame);
        assert_eq!((ran.action, ran.counted), passed, "{name}");
        // It is not counted twice.
        let ran = lab.tc("gm_tc_guard", &frame, 0);
        assert_eq!((ran.action, ran.counted), (TC_NEXT, vec![]), "{name}");
    }
    for (spi, reason) in [(TRANS, Reason::SteerEsp), (FOREIGN, Reason::SteerEsp)] {
        let ran = lab.uplink(&v4(ESP, &esp(spi, 1)));
        assert_eq!(
            (ran.action, ran.counted),
            (XDP_REDIRECT, vec![(reason, 1)]),
            "{spi:#x}"
        );
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn nothing_but_esp_is_let_in() {
    let mut lab = lab();
    let clear = v4(UDP, &udp(5060, PROTECTED, b"REGISTER"));
    let short = v4(ESP, &[0, 0, 0x99, 0x99, 0, 0]);
    let quoting = |sport| icmp_error(3, &from_us(OURS_V4, UDP, &udp(sport, 5060, b"x")));
    for (name, frame, reason) in [
        ("cleartext", clear.clone(), Reason::CleartextProtected),
        ("damaged ESP", short, Reason::Malformed),
        (
            "keepalive",
            v4(UDP, &udp(1, ENCAP_PORT, &[0xff])),
            Reason::Keepalive,
        ),
        ("forged ICMP", quoting(PROTECTED), Reason::ClearIcmp),
    ] {
        let ran = lab.uplink(&frame);
        assert_eq!(
            (ran.action, ran.counted),
            (XDP_DROP, vec![(reason, 1)]),
            "{name}"
        );
        // On lo, where the test is, ICMP errors are the host's own.
        if reason != Reason::ClearIcmp {
            let ran = lab.tc("gm_tc_guard", &frame, 0);
            assert_eq!(
                (ran.action, ran.counted),
                (TC_DROP, vec![(reason, 1)]),
                "{name}, elsewhere"
            );
        }
    }
    // A fragment may be of either's: a worker puts it together.
    let part = frame(THEIRS_V4, OURS_V4, ESP, 0x2000, &esp(0x9999, 1));
    assert_eq!(
        lab.uplink(&part).counted,
        [(Reason::SteerFragment, 1)],
        "a fragment"
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn the_kernels_esp_goes_behind_the_workers_only_while_sas_go_back() {
    let taken = (TC_REDIRECT, vec![(Reason::SteerOutbound, 1)]);
    let passed = (TC_NEXT, vec![]);
    let from = |proto, place, payload: &[u8]| frame(OURS_V4, THEIRS_V4, proto, place, payload);
    let raw = from(ESP, 0, &esp(1, 1));
    let in_udp = from(UDP, 0, &udp(ENCAP_PORT, 5555, &esp(1, 1)));
    let others = frame(THEIRS_V4, OURS_V4, ESP, 0, &esp(1, 1));
    let clear = from(UDP, 0, &udp(5060, 5060, b"x"));
    let part = from(ESP, 0x2000, &esp(1, 1));
    for (transit, beside) in [(0, true), (1, true), (1, false)] {
        let mut lab = if beside { lab() } else { Lab::new() };
        lab.set_word("STATE", STATE_TRANSIT, transit);
        let want = if transit == 1 && beside {
            &taken
        } else {
            &passed
        };
        let mut egress = |frame: &[u8]| {
            let ran = lab.tc("gm_tc_egress", frame, 0);
            (ran.action, ran.counted)
        };
        assert_eq!(&egress(&raw), want, "raw, {transit}, {beside}");
        assert_eq!(&egress(&in_udp), want, "in UDP, {transit}, {beside}");
        for frame in [&others, &clear, &part] {
            assert_eq!(egress(frame), passed, "{transit}, {beside}");
        }
    }
    // Out of another interface it goes as it likes.
    let mut lab = lab();
    lab.configure(2, 1, &[OURS_V4]);
    lab.set_word("STATE", STATE_TRANSIT, 1);
    assert_eq!(lab.tc("gm_tc_egress", &raw, 0).action, TC_NEXT);
}
