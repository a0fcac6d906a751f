//! `gm-ue load`: many phones of one process against gmespd's edge.

use serde_json::Value;

use crate::lab::{Lab, Plan};

/// Phones of a run: enough that their registrations overlap.
/// An emulated machine, where the kernel's data plane is tested, has enough with fewer.
fn phones() -> usize {
    if gm_tests::plane::is_kernel() { 8 } else { 40 }
}

#[test]
#[ignore = "needs root"]
fn a_load_registers_every_phone_with_sas_of_its_own() {
    let lab = Lab::new(&Plan::many(phones(), 1));
    let count = phones().to_string();
    let (code, summary) = lab.load(&["--count", &count, "--rate", "100", "--concurrent", "20"]);
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["registered"], phones());
    assert_eq!(summary["failures"], serde_json::json!({}));
    assert!(summary["per_second"].as_f64() > Some(0.0), "{summary}");
    let (p50, p99) = (
        &summary["register_ms"]["p50"],
        &summary["register_ms"]["p99"],
    );
    assert!(
        p50.as_u64() <= p99.as_u64() && p99.as_u64() > Some(0),
        "{summary}"
    );
    // They have not left: four SAs each, and SM7 of each came through one.
    lab.settles(phones(), 4 * phones());
    assert!(lab.count("ok") >= phones() as u64);
}

#[test]
#[ignore = "needs root"]
fn a_load_stays_for_its_time_and_leaves() {
    let lab = Lab::new(&Plan::many(phones(), 1));
    let count = phones().to_string();
    let (code, summary) = lab.load(&[
        "--count",
        &count,
        "--rate",
        "0",
        "--concurrent",
        "20",
        "--deregister",
        "--hold",
        "1",
    ]);
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["registered"], phones());
    assert_eq!(summary["deregistered"], phones());
    lab.settles(0, 0);
}

#[test]
#[ignore = "needs root"]
fn a_load_over_tcp_and_from_two_addresses_registers_every_phone() {
    let lab = Lab::new(&Plan::many(phones(), 2));
    let count = phones().to_string();
    let (code, summary) = lab.load(&[
        "--count",
        &count,
        "--rate",
        "100",
        "--transport",
        "tcp",
        "--suite",
        "null/aes-gcm",
        "--address",
        "192.0.2.10",
        "--address",
        "192.0.2.11",
        "--deregister",
    ]);
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["deregistered"], phones());
    lab.settles(0, 0);
}

#[test]
#[ignore = "needs root"]
fn a_load_counts_failures_by_their_reason() {
    let lab = Lab::new(&Plan::many(phones(), 1));
    let count = (phones() + 3).to_string();
    let (code, summary) = lab.load(&["--count", &count, "--rate", "0", "--concurrent", "10"]);
    assert_eq!(code, Some(3), "{summary}");
    assert_eq!(summary["registered"], phones());
    let failures: Vec<(&String, &Value)> =
        summary["failures"].as_object().unwrap().iter().collect();
    assert_eq!(failures.len(), 1, "{summary}");
    assert!(
        failures[0].0.contains("403") && *failures[0].1 == 3,
        "{summary}"
    );
}
