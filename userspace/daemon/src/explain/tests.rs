//! Each finding from facts alone. Over real packets: `tests/tests/drops.rs`.

mod given;
mod now;

use gm_api::drops::{Explanation, Verdict, Weight};
use gm_api::sad::Dir;
use gm_dataplane::Reason;

use super::facts::{Facts, Gone, prefix};
use super::{Found, explain};
use given::{UE, carried, clear, facts, outbound, sas, seen, step};

/// The explanation, whose first finding has to be this cause.
#[track_caller]
fn cause(facts: &Facts, want: &str) -> Explanation {
    let said = explain(facts);
    let first = &said.findings[0];
    assert_eq!(first.cause, want, "{said:#?}");
    assert_eq!(first.weight, Weight::Cause, "{said:#?}");
    assert_eq!(said.verdict, Verdict::Trouble);
    assert!(
        first.advice.is_some() && !first.evidence.is_empty(),
        "{first:#?}"
    );
    said
}

#[track_caller]
fn says(said: &Explanation, words: &[&str]) {
    let first = &said.findings[0];
    let all = format!("{}\n{}", first.text, first.evidence.join("\n"));
    for word in words {
        assert!(all.contains(word), "{word:?} is not in:\n{all}");
    }
}

#[test]
fn explain_names_an_spi_that_was_deleted_when_and_why() {
    let mut f = facts(UE);
    f.samples = vec![seen(Reason::UnknownSpi, 1000)];
    f.gone = vec![Gone {
        spi: 1_000_000_001,
        dir: Dir::In,
        set: Some(3),
        ago_ms: 12_300,
        why: Some("expired".into()),
        packets: 41,
    }];
    f.counts = vec![(Reason::UnknownSpi, 5)];
    let said = cause(&f, "deleted-spi");
    says(
        &said,
        &[
            "SPI 1000000001 (0x3b9aca01) that was deleted 12 s ago, set 3: its life had ended",
            "41 packets",
            "sequence number 8",
            "unknown-spi counted for 198.51.100.7: 5",
        ],
    );
}

#[test]
fn explain_names_an_spi_that_was_never_here() {
    let mut f = facts(UE);
    f.samples = vec![seen(Reason::UnknownSpi, 1000)];
    says(
        &cause(&f, "unknown-spi"),
        &["started 60 min ago", "another P-CSCF"],
    );
    f.samples[0].sample.spi = Some(4711);
    says(
        &cause(&f, "unknown-spi"),
        &["SPI 4711 (0x1267)", "does not look like"],
    );
}

#[test]
fn explain_tells_which_way_udp_4500_is_blocked() {
    let mut f = facts(UE);
    f.sas = sas(true);
    says(
        &cause(&f, "udp-blocked-outbound"),
        &["UDP 4500 is blocked outbound"],
    );
    f.sas[1].packets = 3;
    says(
        &cause(&f, "udp-blocked"),
        &["nothing comes back", "sent to the phone: 3 packets"],
    );
    let mut keepalive = seen(Reason::Keepalive, 5000);
    keepalive.sample.proto = 17;
    f.samples = vec![keepalive];
    says(
        &cause(&f, "no-esp-in-udp"),
        &[
            "keepalives arrive",
            "keepalive of the phone on UDP 4500: 5.0 s ago",
        ],
    );
    // It has worked, the phone keeps its NAT open, and nothing answers.
    f.sas = carried(sas(true), 100_000, 10_000);
    says(
        &cause(&f, "udp-blocked-inbound"),
        &["verified: 100 s ago", "sent: 10 s ago"],
    );
    f.samples.clear();
    cause(&f, "no-answer");
}

#[test]
fn explain_says_that_raw_esp_is_blocked_when_nothing_arrives() {
    let mut f = facts(UE);
    f.sas = sas(false);
    let said = cause(&f, "esp-blocked");
    says(&said, &["IP protocol 50", "since 60 s"]);
    // Just installed: nothing is late yet.
    f.sas.iter_mut().for_each(|row| row.age_ms = Some(900));
    assert_eq!(explain(&f).verdict, Verdict::Fine);
    // What does arrive explains itself.
    f.sas = sas(false);
    f.samples = vec![seen(Reason::BadIcv, 1000)];
    let said = cause(&f, "keys-differ");
    assert!(said.findings.iter().all(|f| f.cause != "esp-blocked"));
}

#[test]
fn explain_tells_the_modes_apart() {
    for (udp, words) in [(true, "Raw ESP arrives"), (false, "ESP in UDP arrives")] {
        let mut f = facts(UE);
        f.sas = sas(udp);
        f.samples = vec![seen(Reason::ModeMismatch, 1000)];
        says(&cause(&f, "mode-mismatch"), &[words]);
    }
}

#[test]
fn explain_says_that_keys_differ_when_no_icv_ever_verified() {
    let mut f = facts(UE);
    f.sas = sas(false);
    f.sas[0].drops = [("bad-icv".to_owned(), 7)].into();
    let said = cause(&f, "keys-differ");
    says(
        &said,
        &[
            "null/aes-gcm",
            "bad-icv counted for SPI 1000000001 (0x3b9aca01): 7",
        ],
    );
    f.samples = vec![seen(Reason::IcvLimited, 100), seen(Reason::BadIcv, 1000)];
    says(&cause(&f, "keys-differ"), &["still tried", "icv-limited"]);
    // With packets that do verify they are forged, and do not stop the phone.
    f.sas = carried(f.sas, 50, 60);
    let said = explain(&f);
    assert_eq!(said.verdict, Verdict::Fine);
    let forged = said.findings.iter().find(|f| f.cause == "forged").unwrap();
    assert_eq!(forged.weight, Weight::Hint);
}

#[test]
fn explain_tells_copies_late_packets_and_a_counter_that_began_anew_apart() {
    let mut f = facts(UE);
    f.sas = carried(sas(false), 5000, 5000);
    f.samples = vec![seen(Reason::Stale, 1000)];
    says(
        &cause(&f, "counter-restarted"),
        &["now 8, the highest was 500"],
    );
    f.samples[0].sample.seq = Some(420);
    f.sas[0].drops = [("stale".to_owned(), 9), ("replay".to_owned(), 1)].into();
    says(
        &cause(&f, "stale"),
        &["window of 64 numbers", "highest number accepted"],
    );
    f.samples = vec![seen(Reason::Replay, 1000)];
    f.samples[0].sample.seq = Some(499);
    f.sas[0].drops = [("replay".to_owned(), 9)].into();
    cause(&f, "replay");
}

#[test]
fn explain_tells_cleartext_of_a_phone_with_sas_from_one_without() {
    let mut f = facts(UE);
    f.samples = vec![clear(1000, 5064)];
    says(
        &cause(&f, "cleartext-without-sas"),
        &["port 5064", "has no SAs"],
    );
    f.sas = carried(sas(false), 20_000, 20_000);
    says(
        &cause(&f, "cleartext-with-sas"),
        &[
            "Cleartext arrives on port 5064 from a phone that has SAs",
            "198.51.100.7:5060",
        ],
    );
}

#[test]
fn explain_says_what_the_sa_is_for_when_the_inside_is_not() {
    let mut f = facts(UE);
    f.sas = sas(false);
    f.samples = vec![seen(Reason::SelectorMismatch, 1000)];
    let s = &mut f.samples[0].sample;
    (s.proto, s.src_port, s.dst_port) = (17, Some(6064), Some(5064));
    says(
        &cause(&f, "selector-mismatch"),
        &[
            "from port 6064 to port 5064",
            "198.51.100.7:6064 to 192.0.2.1:5063 only",
        ],
    );
}

#[test]
fn explain_tells_lost_fragments_from_too_many() {
    for (reason, want) in [
        (Reason::FragmentTimeout, "fragments-lost"),
        (Reason::FragmentOverlap, "fragments-lost"),
        (Reason::FragmentLimit, "fragments-limited"),
        (Reason::FragmentRate, "fragments-limited"),
    ] {
        let mut f = facts(UE);
        f.sas = sas(false);
        f.samples = vec![seen(reason, 1000)];
        cause(&f, want);
    }
}

#[test]
fn explain_says_why_answers_go_nowhere() {
    for (reason, want) in [
        (Reason::OutNoSa, "out-no-sa"),
        (Reason::OutNoEncapPort, "out-no-nat-port"),
        (Reason::OutSeqExhausted, "out-seq-exhausted"),
        (Reason::OutTooBig, "out-too-big"),
        (Reason::OutMalformed, "out-malformed"),
        (Reason::PeerUnreachable, "icmp-unreachable"),
    ] {
        let mut f = facts(UE);
        f.samples = vec![outbound(reason, 1000)];
        cause(&f, want);
        // Good packets of the phone do not mend what does not reach it.
        f.sas = carried(sas(false), 50, 50);
        if reason != Reason::PeerUnreachable {
            cause(&f, want);
        }
    }
    let mut f = facts(UE);
    f.samples = vec![outbound(Reason::OutNoSa, 1000)];
    says(
        &cause(&f, "out-no-sa"),
        &["from port 5063 to port 6064", "has no SA"],
    );
    f.sas = carried(sas(false), 50, 50);
    says(
        &cause(&f, "out-no-sa"),
        &[
            "none of its active SAs",
            "192.0.2.1:5063 to 198.51.100.7:6064",
        ],
    );
}

#[test]
fn explain_says_first_that_the_uplink_is_gone() {
    let mut f = facts(UE);
    f.sas = sas(false);
    f.samples = vec![seen(Reason::BadIcv, 1000)];
    f.uplink_gone_ms = Some(14_000);
    says(&cause(&f, "uplink-gone"), &["since 14 s"]);
}

#[test]
fn explain_knows_where_the_registration_stands() {
    let mut f = facts(UE);
    f.steps = vec![step("SM1", 31_000), step("SM6", 30_000)];
    says(
        &cause(&f, "challenge-unanswered"),
        &["alice@ims was challenged 30 s ago"],
    );
    f.steps = vec![step("SM1", 30_000)];
    cause(&f, "no-challenge");
    f.steps = vec![step("SM12", 5000)];
    f.sas = carried(sas(false), 50, 50);
    let said = explain(&f);
    assert_eq!(said.verdict, Verdict::Fine);
    assert!(said.findings.iter().any(|f| f.cause == "registered"));
    f.sas.clear();
    f.steps = vec![step("removed", 5000)];
    f.steps[0].event.reason = Some("expired".into());
    let said = explain(&f);
    assert_eq!(
        (said.verdict, said.findings[0].cause.as_str()),
        (Verdict::Trouble, "sas-removed")
    );
    f.steps = vec![step("refused", 5000)];
    f.steps[0].event.explain = Some("the offer has no suite of ours".into());
    says(&cause(&f, "refused"), &["no suite of ours"]);
}

#[test]
fn explain_says_that_nothing_is_wrong_or_nothing_is_known() {
    let said = explain(&facts("2001:db8::7"));
    assert_eq!(said.verdict, Verdict::Unknown);
    assert_eq!(said.findings.len(), 1);
    assert_eq!(said.findings[0].cause, "never-seen");

    let mut f = facts(UE);
    f.sas = carried(sas(false), 2000, 2000);
    let said = explain(&f);
    assert_eq!(
        (said.verdict, said.findings[0].cause.as_str()),
        (Verdict::Fine, "healthy")
    );
    says(
        &said,
        &[
            "Nothing is wrong here",
            "verified 2.0 s ago",
            "highest number 500",
        ],
    );
    f.sas = carried(sas(false), 700_000, 700_000);
    assert_eq!(explain(&f).findings[0].cause, "idle");
}

#[test]
fn what_good_packets_have_followed_or_is_old_is_a_hint() {
    let mut f = facts(UE);
    f.sas = carried(sas(false), 2000, 2000);
    f.samples = vec![seen(Reason::UnknownSpi, 10_000), clear(20_000, 5064)];
    let said = explain(&f);
    assert_eq!(said.verdict, Verdict::Fine);
    let hints: Vec<_> = said
        .findings
        .iter()
        .filter(|f| f.weight == Weight::Hint)
        .collect();
    assert_eq!(hints.len(), 2, "{said:#?}");
    // Without SAs even an old trace is a trace.
    let mut f = facts(UE);
    f.samples = vec![clear(600_000, 5064)];
    let said = explain(&f);
    assert_eq!(
        (said.verdict, said.findings[0].weight),
        (Verdict::Trouble, Weight::Hint)
    );
}

#[test]
fn a_v6_phone_is_counted_with_its_64() {
    assert_eq!(
        prefix("2001:db8:1:2:3::4".parse().unwrap()),
        "2001:db8:1:2::/64"
    );
    assert_eq!(prefix(UE.parse().unwrap()), UE);
}

#[test]
fn more_spis_than_a_person_reads_are_not_told() {
    let mut f = facts(UE);
    for n in 0..50 {
        let mut one = seen(Reason::UnknownSpi, 1000 + u64::from(n));
        one.sample.spi = Some(5000 + n);
        f.samples.push(one);
    }
    let found: Vec<Found> = super::inbound::findings(&f);
    assert_eq!(found.len(), 4);
}

#[test]
fn explain_blames_no_silence_where_the_data_plane_shows_no_drops() {
    let mut f = facts(UE);
    f.sas = sas(true);
    f.is_blind = true;
    let said = super::explain(&f);
    let found = |cause: &str| said.findings.iter().find(|f| f.cause == cause).unwrap();
    let silence = found("udp-blocked-outbound");
    assert_eq!(silence.weight, gm_api::drops::Weight::Hint);
    assert!(
        !silence
            .evidence
            .iter()
            .any(|line| line.contains("nothing at all"))
    );
    assert!(
        found("kernel-data-plane")
            .text
            .contains("does not show which packets it drops")
    );
}
