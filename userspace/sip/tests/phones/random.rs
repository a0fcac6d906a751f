//! The same with random values: what is written is read, what is the same compares
//! equal, and a stranger's text ends nothing but itself.

use gm_esp::{Mode, Suite};
use gm_sip::Message;
use gm_sip::aka::{self, AuthParams};
use gm_sip::framing::{self, Frame};
use gm_sip::sec_agree::{
    Ends, Policy, SECURITY_CLIENT, SecList, choose_offer, choose_server, offer_list, server_list,
};
use proptest::prelude::*;

fn ends() -> impl Strategy<Value = Ends> {
    let spis = (256u32.., 256u32..).prop_filter("two SPIs", |(c, s)| c != s);
    let ports = (1024u16..5060, 5062u16..);
    (spis, ports).prop_map(|((spi_c, spi_s), (port_c, port_s))| Ends {
        spi_c,
        spi_s,
        port_c,
        port_s,
    })
}

fn suites() -> impl Strategy<Value = Vec<Suite>> {
    let every: Vec<_> = Suite::every().collect();
    proptest::sample::subsequence(every, 1..=8).prop_shuffle()
}

/// A mechanism of any name, with any parameters.
fn mechanism() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("ipsec-3gpp".to_owned()), "[a-z][a-z0-9-]{0,9}"];
    let value = prop_oneof![
        "[A-Za-z0-9.-]{1,12}",
        "0{0,3}[0-9]{1,10}",
        "\"[a-z,; ]{0,8}\""
    ];
    let params = proptest::collection::vec(("[a-z][a-z-]{0,6}", proptest::option::of(value)), 0..6);
    (name, params).prop_map(|(name, params)| {
        let mut out = name;
        for (name, value) in params {
            out += &match value {
                Some(value) => format!(";{name}={value}"),
                None => format!(";{name}"),
            };
        }
        out
    })
}

/// A challenge's parameters in any order, quoted or not, with blanks and folds; the
/// keys among them in any case.
fn challenge() -> impl Strategy<Value = (Vec<String>, [u8; 16], [u8; 16])> {
    let quoted = |name: &'static str| {
        "[a-zA-Z0-9 ,=;]{0,12}".prop_map(move |value| format!("{name}=\"{value}\""))
    };
    let nonce = (any::<[u8; 16]>(), any::<[u8; 16]>())
        .prop_map(|(rand, autn)| format!("nonce=\"{}\"", aka::nonce(&rand, &autn)));
    let rest = (
        quoted("realm"),
        nonce,
        prop_oneof![Just("algorithm=AKAv1-MD5"), Just("Algorithm=\"akav1-md5\"")],
        proptest::option::of(quoted("opaque")),
        proptest::option::of(prop_oneof![Just("qop=\"auth,auth-int\""), Just("qop=auth")]),
    );
    (
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        any::<[bool; 4]>(),
        rest,
    )
        .prop_flat_map(
            |(ik, ck, [upper, quote, ik_name, ck_name], (realm, nonce, alg, opaque, qop))| {
                let key = |name: &str, bytes: &[u8; 16]| {
                    let mut text = hex::encode(bytes);
                    if upper {
                        text = text.to_ascii_uppercase();
                    }
                    match quote {
                        true => format!("{name}=\"{text}\""),
                        false => format!("{name}={text}"),
                    }
                };
                let mut params = vec![
                    key(if ik_name { "ik" } else { "IK" }, &ik),
                    key(if ck_name { "ck" } else { "Ck" }, &ck),
                    realm,
                    nonce,
                    alg.to_owned(),
                ];
                params.extend(opaque);
                params.extend(qop.map(str::to_owned));
                (Just(params).prop_shuffle(), Just(ik), Just(ck))
            },
        )
}

proptest! {
    /// The keys come out, and of the rest nothing changes, its order neither.
    #[test]
    fn keys_come_out_of_any_challenge(
        (params, ik, ck) in challenge(), comma in prop_oneof![Just(","), Just(", "), Just(" ,\r\n\t")]
    ) {
        let text = format!("SIP/2.0 401 x\r\nWWW-Authenticate: Digest {}\r\nl: 0\r\n\r\n", params.join(comma));
        let mut message = Message::parse(text.as_bytes()).expect("SIP");
        let (got_ik, got_ck) = aka::take_keys(&mut message).expect("keys");
        prop_assert_eq!((got_ik.as_bytes(), got_ck.as_bytes()), (&ik, &ck));
        let left = String::from_utf8(message.to_bytes()).expect("text");
        let shown = left.to_ascii_lowercase();
        prop_assert!(!shown.contains(&hex::encode(ik)) && !shown.contains(&hex::encode(ck)), "{}", left);
        let value = message.value("WWW-Authenticate").expect("a challenge").into_owned();
        let read = AuthParams::parse(&value).expect("Digest");
        prop_assert_eq!((read.get("ik"), read.get("ck")), (None, None));
        let is_key = |p: &&String| p.to_ascii_lowercase().starts_with("ik=") || p.to_ascii_lowercase().starts_with("ck=");
        let mut at = 0;
        for param in params.iter().filter(|p| !is_key(p)) {
            let found = left[at..].find(param.as_str());
            prop_assert!(found.is_some(), "{param} in {left}");
            at += found.unwrap_or(0) + param.len();
        }
        prop_assert!(aka::Challenge::from_message(&message).is_ok());
    }

    /// Whatever a phone writes into its Authorization, the core reads our mark alone.
    #[test]
    fn integrity_protected_is_ours(
        before in proptest::collection::vec("[a-z-]{1,8}=(\"[a-z, ]{0,6}\"|[a-z0-9]{1,6})", 0..4),
        theirs in "(?i)integrity-protected", yes: bool
    ) {
        let mut params = before.clone();
        params.insert(before.len() / 2, format!("{theirs}=\"yes\""));
        let value = format!("Digest {}", params.join(", "));
        let mut message = Message::request("REGISTER", "sip:h").with("Authorization", &value);
        aka::set_integrity_protected(&mut message, yes);
        let got = message.value("Authorization").expect("credentials").to_ascii_lowercase();
        prop_assert_eq!(got.matches("integrity-protected").count(), 1);
        let mark = if yes { "integrity-protected=\"yes\"" } else { "integrity-protected=\"no\"" };
        prop_assert!(got.ends_with(mark), "{}", got);
    }

    #[test]
    fn an_offer_is_read_as_it_was_written(suites in suites(), ends in ends()) {
        let text = offer_list(&suites, &[Mode::Trans, Mode::UdpEncTun], &ends);
        let read = SecList::parse(&text).proposals().expect("usable");
        prop_assert_eq!(read.len(), suites.len() * 2);
        for (n, proposal) in read.iter().enumerate() {
            prop_assert_eq!(proposal.suite, suites[n % suites.len()]);
            prop_assert_eq!(proposal.ends, ends);
        }
    }

    /// Both ends come to the same suite, whatever one offers and the other prefers.
    #[test]
    fn both_ends_choose_the_same(
        offered in suites(), preference in suites(), legacy: bool, ue in ends(), pcscf in ends()
    ) {
        let policy = Policy { preference, legacy, ..Policy::default() };
        let offer = SecList::parse(&offer_list(&offered, &[Mode::Trans], &ue));
        let server = SecList::parse(&server_list(&policy, Mode::Trans, &pcscf));
        let found = choose_server(&offered, &[Mode::Trans], &server);
        match choose_offer(&policy, &offer, Mode::Trans) {
            Ok(chosen) => {
                prop_assert!(legacy || !chosen.suite.is_legacy());
                prop_assert_eq!(found.expect("found").suite, chosen.suite);
            }
            Err(_) => prop_assert!(found.is_err()),
        }
    }

    /// Shown and read again, spaced, folded, in capitals, in another order of
    /// parameters: the same. An entry more or less: not.
    #[test]
    fn lists_are_compared_by_value(entries in proptest::collection::vec(mechanism(), 1..6), turn in 0usize..6) {
        let list = SecList::parse(&entries.join(","));
        prop_assert_eq!(list.len(), entries.len());
        prop_assert!(list.same(&SecList::parse(&list.to_string())));
        let folded = format!("REGISTER sip:h SIP/2.0\r\n{SECURITY_CLIENT}: {}\r\n\r\n", entries.join(" ,\r\n\t "));
        let folded = Message::parse(folded.as_bytes()).expect("SIP");
        prop_assert!(list.same(&SecList::from_message(&folded, SECURITY_CLIENT).expect("a list")));
        let turned = list.mechanisms().map(|entry| {
            let whole = |(name, value): (&str, Option<&str>)| match value {
                Some(value) => format!("{name}={value}"),
                None => name.to_owned(),
            };
            let mut params: Vec<_> = entry.params().map(whole).collect();
            if !params.is_empty() {
                let by = turn % params.len();
                params.rotate_left(by);
            }
            params.insert(0, entry.name().to_owned());
            params.join(";")
        });
        let turned = SecList::parse(&turned.collect::<Vec<_>>().join(","));
        // Twice the same name may mean something in its order: q only is looked up.
        let doubled = list.mechanisms().any(|m| m.params().filter(|(n, _)| *n == "q").count() > 1);
        prop_assert!(doubled || list.same(&turned));
        let less = SecList::parse(&entries[1..].join(","));
        prop_assert!(!list.same(&less) && !less.same(&list));
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = framing::next(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let list = SecList::parse(&text);
        let _ = list.proposals();
        prop_assert!(list.same(&list));
        let _ = AuthParams::parse(&text);
        let mut message = Message::request("REGISTER", "sip:h")
            .with("WWW-Authenticate", &text)
            .with("Authorization", &text);
        aka::strip_keys(&mut message);
        aka::set_integrity_protected(&mut message, true);
        let _ = aka::names_one_user(&message);
        prop_assert!(Message::parse(&message.to_bytes()).is_ok());
    }

    /// Messages one behind the other come out of a stream one by one, however it is cut.
    #[test]
    fn a_stream_gives_its_messages(bodies in proptest::collection::vec("[ -~\r\n]{0,60}", 1..5)) {
        let one = |body: &String| {
            format!("MESSAGE sip:a SIP/2.0\r\nl: {}\r\n\r\n{body}", body.len())
        };
        let stream: String = bodies.iter().map(one).collect();
        let mut rest = stream.as_bytes();
        for body in &bodies {
            let Ok(Frame::Message(len)) = framing::next(rest) else {
                return Err(TestCaseError::fail("no message"));
            };
            prop_assert_eq!(framing::next(&rest[..len - 1]), Ok(Frame::Incomplete));
            let message = Message::parse(&rest[..len]).expect("SIP");
            prop_assert_eq!(message.body(), body.as_bytes());
            rest = &rest[len..];
        }
        prop_assert!(rest.is_empty());
    }
}
