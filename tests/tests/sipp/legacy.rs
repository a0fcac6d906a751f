//! Phones with nothing but suites of older releases, over real ESP: `[edge]
//! legacy_suites` decides.

use crate::lab::{Lab, Plan};

/// Phones of a run.
const PHONES: usize = 5;

fn load(lab: &Lab, suite: &str) -> (Option<i32>, serde_json::Value) {
    let count = PHONES.to_string();
    lab.load(&["--count", &count, "--suite", suite, "--deregister"])
}

#[test]
#[ignore = "needs root"]
fn with_the_switch_each_legacy_suite_carries_registrations() {
    let lab = Lab::new(&Plan {
        edge: "legacy_suites = true\n",
        ..Plan::many(PHONES, 1)
    });
    for (n, suite) in [
        "hmac-md5-96/null",
        "hmac-md5-96/aes-cbc",
        "hmac-md5-96/des-ede3-cbc",
        "hmac-sha-1-96/des-ede3-cbc",
    ]
    .into_iter()
    .enumerate()
    {
        let (code, summary) = load(&lab, suite);
        assert_eq!(code, Some(0), "{suite}: {summary}");
        assert_eq!(summary["deregistered"], PHONES, "{suite}: {summary}");
        lab.settles(0, 0);
        // SM7 and what followed came through the SAs.
        lab.counts("ok", ((n + 1) * 2 * PHONES) as u64);
    }
}

#[test]
#[ignore = "needs root"]
fn without_the_switch_they_are_refused_and_counted() {
    let lab = Lab::new(&Plan::many(PHONES, 1));
    let (code, summary) = load(&lab, "hmac-md5-96/null");
    assert_eq!(code, Some(3), "{summary}");
    let failures = summary["failures"].as_object().expect("failures");
    assert!(failures.keys().all(|why| why.contains("494")), "{summary}");
    lab.refuses("offer", PHONES as u64);
    lab.settles(0, 0);
}
