//! What others have in the kernel's tables is not touched.

use gm_tests::needs_esp;

use crate::four::Four;
use crate::lab::{Lab, PCSCF, UE, until};

const KEY: &str = "0x000102030405060708090a0b0c0d0e0f10111213";

#[test]
#[ignore = "needs a kernel with ESP"]
fn a_start_that_finds_somebody_elses_policy_in_its_place_fails_and_leaves_it() {
    needs_esp!();
    let lab = Lab::new();
    let selector = format!("src 0.0.0.0/0 dst {PCSCF}/32 proto udp dport 5074 dir in");
    lab.pcscf.ip(&format!(
        "xfrm policy add {selector} priority 2080 action block"
    ));
    let before = lab.tables();
    assert!(before.contains("dport 5074"), "{before}");
    let failed = lab.spawn("").wait_with_output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(lab.tables(), before, "theirs is there, and nothing else");
    lab.pcscf.ip(&format!("xfrm policy delete {selector}"));
    let daemon = lab.start();
    // It comes while we run: ours is put back, and then it is ours that goes.
    lab.pcscf.ip(&format!(
        "xfrm policy update {selector} priority 2080 action allow"
    ));
    let theirs = || lab.pcscf.ip("xfrm policy").contains("priority 2080");
    until("ours is put back", || !theirs());
    daemon.stop();
    assert_eq!(lab.tables(), "");
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn another_p_cscfs_states_policies_and_tables_stay_as_they_are() {
    needs_esp!();
    let lab = Lab::new();
    for (src, dst, spi, dir) in [(UE, PCSCF, "4096", "in"), (PCSCF, UE, "4097", "out")] {
        lab.pcscf.sh(
            "ip",
            &[
                "xfrm",
                "state",
                "add",
                "src",
                src,
                "dst",
                dst,
                "proto",
                "esp",
                "spi",
                spi,
                "reqid",
                spi,
                "mode",
                "transport",
                "replay-window",
                "32",
                "enc",
                "ecb(cipher_null)",
                "",
                "auth-trunc",
                "hmac(sha1)",
                KEY,
                "96",
            ],
        );
        lab.pcscf.sh(
            "ip",
            &[
                "xfrm",
                "policy",
                "add",
                "src",
                src,
                "dst",
                dst,
                "proto",
                "udp",
                "sport",
                "8000",
                "dport",
                "8001",
                "dir",
                dir,
                "priority",
                "2080",
                "tmpl",
                "proto",
                "esp",
                "reqid",
                spi,
                "mode",
                "transport",
            ],
        );
    }
    lab.pcscf.sh("nft", &["add", "table", "inet", "theirs"]);
    let before = lab.tables();
    let four = Four::new(1, 70_000);
    // A whole life: start, SAs, kill, take-over, SAs that go, stop.
    let daemon = lab.start();
    lab.add(&four.pcscf());
    daemon.kill();
    let daemon = lab.start();
    lab.add(&four.pcscf());
    lab.ask(async |c| c.remove_set(1).await).expect("removed");
    daemon.stop();
    assert_eq!(lab.tables(), before);
}
