//! Two Security-* lists and a policy: reading, writing, comparing and choosing.

use gm_esp::{Mode, Suite};
use gm_sip::header::list::closed;
use gm_sip::sec_agree::{
    Confidentiality, Ends, Mechanism, Policy, Proposal, SecList, choose_offer, choose_server,
    error_list, offer_list, server_list,
};

/// The first line chooses policy and mode, the second and third are lists.
pub fn check(data: &[u8]) {
    let mut lines = data.splitn(3, |&b| b == b'\n');
    let options = lines.next().unwrap_or(&[]);
    let mut list = || {
        let text = String::from_utf8_lossy(lines.next().unwrap_or(&[])).into_owned();
        SecList::parse(&text)
    };
    let (a, b) = (list(), list());
    for one in [&a, &b] {
        written(one);
        shuffled(one);
        chosen(options, one);
    }
    compared(&a, &b);
    ours(options);
}

/// What is written is read as the same.
fn written(list: &SecList) {
    assert!(list.same(list));
    let named = list.mechanisms().all(|m| !m.name().is_empty());
    if named {
        let again = SecList::parse(&list.to_string());
        assert_eq!(again, *list);
        assert!(list.same(&again));
    }
}

/// Order of parameters, case of names and zeros in front do not count; a value does.
fn shuffled(list: &SecList) {
    // What is open at its end swallows what is put behind it, and what has neither name nor
    // parameters is no entry.
    let whole = |m: Mechanism<'_>| !m.name().is_empty() && closed(m.text().as_bytes());
    if !list.mechanisms().all(whole) {
        return;
    }
    let texts: Vec<String> = list.mechanisms().map(shuffle).collect();
    let other = SecList::parse(&texts.join(","));
    assert!(list.same(&other) && other.same(list));
    // Of tls only the preference counts (Annex H).
    let tls = |text: &String| {
        SecList::parse(text)
            .mechanisms()
            .all(|m| m.name().eq_ignore_ascii_case("tls"))
    };
    let Some(first) = texts.first().filter(|text| !tls(text)) else {
        return;
    };
    let more = format!("{first};x-more=1");
    let longer = SecList::parse(&[&[more], &texts[1..]].concat().join(","));
    assert!(!list.same(&longer) && !longer.same(list));
    let fewer = SecList::parse(&texts[1..].join(","));
    assert!(!list.same(&fewer) && !fewer.same(list));
}

/// The entry with names in capitals, and its parameters from the last to the first where
/// none stands twice.
fn shuffle(entry: Mechanism<'_>) -> String {
    let mut params: Vec<String> = entry
        .params()
        .map(|(name, value)| match value {
            Some(value) => format!("{}={value}", name.to_ascii_uppercase()),
            None => name.to_ascii_uppercase(),
        })
        .collect();
    let mut names: Vec<_> = entry.params().map(|p| p.0.to_ascii_lowercase()).collect();
    names.sort();
    names.dedup();
    if names.len() == params.len() {
        params.reverse();
    }
    params.insert(0, entry.name().to_ascii_uppercase());
    params.join(";")
}

/// Two lists that say the same offer the same.
fn compared(a: &SecList, b: &SecList) {
    let q = |list: &SecList| list.mechanisms().any(|m| m.get("q").is_some());
    if !q(a) && !q(b) {
        assert_eq!(a.same(b), b.same(a), "same is symmetric");
    }
    if let (true, Ok(one), Ok(two)) = (a.same(b), a.proposals(), b.proposals()) {
        let what = |p: &Proposal| (p.suite, p.mode, p.ends);
        assert_eq!(
            one.iter().map(what).collect::<Vec<_>>(),
            two.iter().map(what).collect::<Vec<_>>()
        );
    }
}

/// A policy out of bytes: the first one for encryption, mode and the legacy
/// switch, the others are suites in order.
fn policy(options: &[u8]) -> (Policy, Mode) {
    let first = options.first().copied().unwrap_or(b'1');
    let all: Vec<Suite> = Suite::every().collect();
    let mut policy = Policy {
        confidentiality: match first % 3 {
            0 => Confidentiality::Never,
            1 => Confidentiality::WhenOffered,
            _ => Confidentiality::Required,
        },
        legacy: first / 6 % 2 == 1,
        ..Policy::default()
    };
    if options.len() > 1 {
        let suites = options[1..].iter().take(12);
        policy.preference = suites.map(|&n| all[usize::from(n) % all.len()]).collect();
    }
    let mode = if first / 3 % 2 == 0 {
        Mode::Trans
    } else {
        Mode::UdpEncTun
    };
    (policy, mode)
}

/// Nobody picks what is not offered, what policy forbids, or a lesser one.
fn chosen(options: &[u8], list: &SecList) {
    let (policy, mode) = policy(options);
    let allowed = policy.suites();
    for suite in &allowed {
        assert!(
            policy.legacy || !suite.is_legacy(),
            "a legacy suite without the switch"
        );
        assert!(suite.is_legacy() || policy.preference.contains(suite));
        match policy.confidentiality {
            Confidentiality::Never => assert_eq!(suite.ealg(), "null"),
            Confidentiality::WhenOffered => {}
            Confidentiality::Required => assert_ne!(suite.ealg(), "null"),
        }
    }
    let proposals = list.proposals();
    if let Ok(all) = &proposals {
        assert!(!all.is_empty());
        for p in all {
            let e = p.ends;
            assert!(e.spi_c > 255 && e.spi_s > 255 && e.spi_c != e.spi_s && e.port_c != e.port_s);
            for port in [e.port_c, e.port_s] {
                assert!(![0, 5060, 5061].contains(&port));
            }
            assert!(offered(list, p.suite), "{} is not in the list", p.suite);
        }
    }
    let all = proposals.clone().unwrap_or_default();
    match choose_offer(&policy, list, mode) {
        Ok(choice) => {
            assert!(all.contains(&choice) && choice.mode == mode);
            let best = allowed
                .iter()
                .find(|s| all.iter().any(|p| p.suite == **s && p.mode == mode));
            assert_eq!(best, Some(&choice.suite));
        }
        Err(_) => assert!(
            !all.iter()
                .any(|p| p.mode == mode && allowed.contains(&p.suite))
        ),
    }
    match choose_server(&allowed, &[mode], list) {
        Ok(choice) => {
            assert!(
                all.contains(&choice) && choice.mode == mode && allowed.contains(&choice.suite)
            );
            let better = |p: &&Proposal| p.q.unwrap_or(0) > choice.q.unwrap_or(0);
            let eligible = |p: &&Proposal| p.mode == mode && allowed.contains(&p.suite);
            assert!(!all.iter().filter(eligible).any(|p| better(&p)));
        }
        Err(_) => assert!(
            !all.iter()
                .any(|p| p.mode == mode && allowed.contains(&p.suite))
        ),
    }
}

/// Whether the names of the suite stand together in one entry.
fn offered(list: &SecList, suite: Suite) -> bool {
    list.mechanisms().any(|m| {
        let is = |name: &str, value: &str, absent: bool| match m.get(name) {
            Some(v) => v.trim().eq_ignore_ascii_case(value),
            None => absent,
        };
        is("alg", suite.alg(), false) && is("ealg", suite.ealg(), suite.ealg() == "null")
    })
}

/// What we write ourselves can be chosen from by the other side.
fn ours(options: &[u8]) {
    let (policy, mode) = policy(options);
    let ends = Ends {
        spi_c: 1_000_000_001,
        spi_s: 4_000_000_002,
        port_c: 5064,
        port_s: 5063,
    };
    let suites = policy.suites();
    let server = SecList::parse(&server_list(&policy, mode, &ends));
    let error = SecList::parse(&error_list(&policy));
    assert!(error.proposals().is_err(), "a refusal is no offer");
    let offer = SecList::parse(&offer_list(&suites, &[mode], &ends));
    if suites.is_empty() {
        return;
    }
    for list in [&server, &offer] {
        let proposals = list.proposals().expect("our own list");
        assert!(proposals.iter().all(|p| p.ends == ends && p.mode == mode));
    }
    let choice = choose_server(&suites, &[mode], &server).expect("our own list");
    assert_eq!(choice.suite, suites[0], "the best comes first");
    assert_eq!(
        choose_offer(&policy, &offer, mode).map(|p| p.suite),
        Ok(suites[0])
    );
}
