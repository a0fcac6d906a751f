//! SIPp registers as an independent SIP UE through `gm-ue proxy`.

use crate::lab::{K, Lab, Plan, line_with};

/// Another subscriber's key, of test set 2.
const OTHER_K: &str = "0396eb317b6d1c36f19c1c84cd6ffd16";

#[test]
#[ignore = "needs root and sipp"]
fn sipp_registers_refreshes_passes_messages_both_ways_and_leaves() {
    let lab = Lab::new(&Plan::one());
    let (proxy, lines) = lab.proxy(K);
    // One SIPp is the UE, another answers at the port of its Contact.
    let answers = lab.sipp("answer.xml", 5072, K);
    lab.sipp("register.xml", 5071, K).succeeds();
    answers.succeeds();

    let first = line_with(&lines, "\"registered\"");
    assert!(first.contains("\"authenticated\":true"), "{first}");
    let second = line_with(&lines, "\"registered\"");
    assert!(second.contains("\"authenticated\":true"), "{second}");
    let third = line_with(&lines, "\"registered\"");
    assert!(third.contains("\"authenticated\":false"), "{third}");

    // gmespd's own view: one registration, the set of the second challenge beside
    // the one that it replaced, and both have carried packets.
    assert_eq!(lab.health().registrations, 1);
    let sas = lab.sas();
    assert_eq!(sas.len(), 8, "{sas:?}");
    let mut carried: Vec<u64> = Vec::new();
    for set in sas.iter().filter_map(|sa| sa.sa.set) {
        if !carried.contains(&set)
            && sas
                .iter()
                .any(|sa| sa.sa.set == Some(set) && sa.packets > 0)
        {
            carried.push(set);
        }
    }
    assert_eq!(carried.len(), 2, "{sas:?}");
    // Up: SM7 twice, two REGISTERs through SAs, MESSAGE, the answer to one. Down: their
    // answers and the MESSAGE.
    lab.counts("ok", 6);
    lab.counts("sealed", 6);
    // The kernel has no counter for packets that are not for their SA.
    let more = (!gm_tests::plane::is_kernel()).then_some("selector-mismatch");
    for reason in ["bad-icv", "replay", "cleartext-protected"]
        .into_iter()
        .chain(more)
    {
        assert_eq!(lab.count(reason), 0, "{reason}");
    }

    lab.sipp("deregister.xml", 5071, K).succeeds();
    line_with(&lines, "\"deregistered\"");
    lab.settles(0, 0);
    proxy.end();
}

#[test]
#[ignore = "needs root and sipp"]
fn sipp_with_a_wrong_response_is_refused_and_no_set_stays() {
    let lab = Lab::new(&Plan::one());
    let (proxy, lines) = lab.proxy(K);
    lab.sipp("wrong.xml", 5071, K).succeeds();
    let failed = line_with(&lines, "\"failed\"");
    assert!(failed.contains("403"), "{failed}");
    // The wrong answer came through ESP, and its set is gone.
    lab.counts("ok", 1);
    lab.settles(0, 0);
    proxy.end();
}

#[test]
#[ignore = "needs root and sipp"]
fn sipp_with_another_key_stops_at_the_challenge_and_nothing_is_registered() {
    let lab = Lab::new(&Plan::one());
    let (proxy, lines) = lab.proxy(K);
    let (code, story) = lab.sipp("register.xml", 5071, OTHER_K).ends();
    assert_ne!(code, Some(0), "{story}");
    // Challenged it was, but its USIM does not know this network.
    line_with(&lines, "\"challenged\"");
    assert!(story.contains("401 Unauthorized"), "{story}");
    assert!(!story.contains("CSeq: 2 REGISTER"), "{story}");
    assert_eq!((lab.health().registrations, lab.count("ok")), (0, 0));
    proxy.end();
}

#[test]
#[ignore = "needs root and sipp"]
fn a_proxy_with_another_key_installs_nothing_and_says_why() {
    let lab = Lab::new(&Plan::one());
    let (proxy, lines) = lab.proxy(OTHER_K);
    lab.sipp("refused.xml", 5071, K).succeeds();
    let failed = line_with(&lines, "\"failed\"");
    assert!(failed.contains("K and OP"), "{failed}");
    assert_eq!((lab.health().registrations, lab.count("ok")), (0, 0));
    proxy.end();
}
