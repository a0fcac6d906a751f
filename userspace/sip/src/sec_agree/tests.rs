use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::message::Message;

const ENDS: &str = "spi-c=19500101;spi-s=69500202;port-c=31100;port-s=31800";

fn message(lines: &str) -> Message {
    Message::parse(format!("REGISTER sip:h SIP/2.0\r\n{lines}\r\n\r\n").as_bytes())
        .expect("a message")
}

/// Shapes of phones (values made up): what can be used of each.
#[rstest]
#[case::huawei(&format!("ipsec-3gpp;alg=hmac-sha-1-96;prot=esp;mod=trans;ealg=des-ede3-cbc;{ENDS},ipsec-3gpp;alg=hmac-sha-1-96;prot=esp;mod=trans;ealg=aes-cbc;{ENDS},ipsec-3gpp;alg=hmac-sha-1-96;prot=esp;mod=trans;ealg=null;{ENDS}"), &[Suite::HmacSha1DesEde3Cbc, Suite::HmacSha1AesCbc, Suite::HmacSha1Null])]
#[case::pixel("ipsec-3gpp;alg=hmac-md5-96;prot=esp;mod=trans;ealg=aes-cbc;spi-c=2400;spi-s=2401;port-c=49170;port-s=49171,ipsec-3gpp;alg=hmac-sha-1-96;prot=esp;mod=trans;ealg=aes-cbc;spi-c=2400;spi-s=2401;port-c=49170;port-s=49171", &[Suite::HmacMd5AesCbc, Suite::HmacSha1AesCbc])]
#[case::samsung("ipsec-3gpp;prot=esp;mod=trans;spi-c=35001;spi-s=35002;port-c=6101;port-s=6100;alg=hmac-sha-1-96;ealg=aes-cbc", &[Suite::HmacSha1AesCbc])]
#[case::blanks_no_prot_no_mod("ipsec-3gpp; alg=hmac-md5-96; ealg=des-ede3-cbc; spi-c=1028000003; spi-s=455000004; port-c=8034; port-s=8904,ipsec-3gpp; alg=HMAC-SHA-1-96; spi-c=1028000003; spi-s=455000004; port-c=8034; port-s=8904", &[Suite::HmacMd5DesEde3Cbc, Suite::HmacSha1Null])]
#[case::others_in_the_list(&format!("tls;q=0.2, ipsec-ike;q=0.1,ipsec-3gpp;prot=ah;alg=hmac-sha-1-96;{ENDS},ipsec-3gpp ; ALG=aes-gmac;x-new=\"a,b\";{ENDS}"), &[Suite::AesGmacNull])]
#[case::only_the_last_has_ports(&format!("ipsec-3gpp;alg=hmac-sha-1-96,ipsec-3gpp;alg=null;ealg=aes-gcm;{ENDS}"), &[Suite::HmacSha1Null, Suite::NullAesGcm])]
#[case::not_a_pair(&format!("ipsec-3gpp;alg=aes-gmac;ealg=aes-cbc;{ENDS},ipsec-3gpp;alg=null;{ENDS},ipsec-3gpp;alg=hmac-sha-1-96;{ENDS}"), &[Suite::HmacSha1Null])]
fn shapes(#[case] value: &str, #[case] suites: &[Suite]) {
    let list = SecList::parse(value);
    let got: Vec<_> = list
        .proposals()
        .expect("usable")
        .iter()
        .map(|p| p.suite)
        .collect();
    assert_eq!(got, suites);
    assert!(
        list.same(&SecList::parse(&list.to_string())),
        "what is kept is written"
    );
}

#[rstest]
#[case("", OfferError::Empty)]
#[case("tls;q=0.2", OfferError::NotIpsec)]
#[case("ipsec-3gpp ; q=0.1", OfferError::Algorithms)]
#[case(&format!("ipsec-3gpp;alg=hmac-md5-96;ealg=aes-gcm;{ENDS}"), OfferError::Algorithms)]
#[case(&format!("ipsec-3gpp;alg=hmac-sha-1-96;prot=ah;{ENDS}"), OfferError::Protocol)]
#[case(&format!("ipsec-3gpp;alg=hmac-sha-1-96;{ENDS};SPI-C=19500109"), OfferError::Twice)]
#[case(&format!("ipsec-3gpp;alg=hmac-sha-1-96;alg=null;{ENDS}"), OfferError::Twice)]
#[case(&format!("ipsec-3gpp;alg=hmac-sha-1-96;mod=tun;{ENDS}"), OfferError::Mode)]
#[case(
    "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1;spi-s=69500202;port-c=31100;port-s=31800",
    OfferError::Spi
)]
#[case(
    "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=4294967296;spi-s=69500202;port-c=31100;port-s=31800",
    OfferError::Spi
)]
#[case(
    "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=00000004096;spi-s=69500202;port-c=31100;port-s=31800",
    OfferError::Spi
)]
#[case(
    "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=4096;spi-s=4096;port-c=31100;port-s=31800",
    OfferError::Spi
)]
#[case(
    "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=4096;spi-s=4097;port-c=31100;port-s=5060",
    OfferError::Port
)]
#[case(
    "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=4096;spi-s=4097;port-c=31100;port-s=70000",
    OfferError::Port
)]
#[case(
    "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=4096;spi-s=4097;port-c=31100",
    OfferError::Port
)]
fn unusable(#[case] value: &str, #[case] error: OfferError) {
    assert_eq!(SecList::parse(value).proposals(), Err(error));
}

#[test]
fn largest_spi_and_padded_ones() {
    let list = SecList::parse(
        "ipsec-3gpp;alg=aes-gmac;spi-c=4294967295;spi-s=0000004096;port-c=65528;port-s=65529",
    );
    let ends = list.proposals().expect("usable")[0].ends;
    assert_eq!((ends.spi_c, ends.spi_s), (u32::MAX, 4096));
}

#[test]
fn several_lines_and_folds_are_one_list() {
    let message = message(&format!(
        "Security-Client: tls;q=0.2,\r\n ipsec-3gpp;alg=hmac-sha-1-96\r\n\t;{ENDS}\r\nX: y\r\nsecurity-client: ipsec-3gpp;alg=aes-gmac;{ENDS}"
    ));
    let list = SecList::from_message(&message, SECURITY_CLIENT).expect("a list");
    assert_eq!(list.len(), 3);
    assert_eq!(list.proposals().map(|p| p.len()), Ok(2));
    assert_eq!(SecList::from_message(&message, SECURITY_VERIFY), None);
}

#[rstest]
#[case::other_order_and_case(&format!("IPSEC-3GPP;port-s=31800; {}", "PORT-C=31100;spi-s=0069500202;spi-c=19500101;q=0.10;alg=HMAC-SHA-1-96;mod=trans;prot=esp, tls;q=0.2"), true)]
#[case::no_q(&format!("ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;{ENDS},tls"), true)]
#[case::other_q(&format!("ipsec-3gpp;q=0.2;alg=hmac-sha-1-96;{ENDS},tls;q=0.2"), false)]
#[case::lost(&format!("ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;{ENDS}"), false)]
#[case::reordered(&format!("tls;q=0.2,ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;{ENDS}"), false)]
#[case::added_parameter(&format!("ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;x=y;{ENDS},tls;q=0.2"), false)]
#[case::other_algorithm(&format!("ipsec-3gpp;q=0.1;alg=aes-gmac;{ENDS},tls;q=0.2"), false)]
#[case::other_mode(&format!("ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;mod=UDP-enc-tun;{ENDS},tls;q=0.2"), false)]
#[case::other_spi(&format!("ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;{},tls;q=0.2", ENDS.replace("101;", "102;")), false)]
fn comparison_by_value(#[case] echo: &str, #[case] same: bool) {
    let sent = SecList::parse(&format!(
        "ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;{ENDS},tls;q=0.2"
    ));
    assert_eq!(sent.same(&SecList::parse(echo)), same);
}

fn ends() -> Ends {
    Ends {
        spi_c: 1_000_000_000,
        spi_s: 1_000_000_001,
        port_c: 5064,
        port_s: 5063,
    }
}

#[test]
fn own_order_decides_and_the_ue_finds_the_same() {
    let policy = Policy::default();
    for offered in [
        &[Suite::HmacSha1Null, Suite::NullAesGcm][..],
        &[Suite::HmacSha1Null, Suite::AesGmacNull],
        &[Suite::HmacSha1AesCbc],
    ] {
        let offer = SecList::parse(&offer_list(offered, &[Mode::Trans], &ends()));
        let chosen = choose_offer(&policy, &offer, Mode::Trans).expect("chosen");
        let server = SecList::parse(&server_list(&policy, Mode::Trans, &ends()));
        let found = choose_server(offered, &[Mode::Trans], &server).expect("found");
        assert_eq!(chosen.suite, found.suite);
        assert_eq!(
            Some(&chosen.suite),
            policy.preference.iter().find(|s| offered.contains(s))
        );
    }
}

#[test]
fn policies_and_what_they_announce() {
    let null = SecList::parse(&offer_list(&[Suite::HmacSha1Null], &[Mode::Trans], &ends()));
    let policy = |confidentiality| Policy {
        confidentiality,
        ..Policy::default()
    };
    let never = policy(Confidentiality::Never);
    assert!(!server_list(&never, Mode::Trans, &ends()).contains("ealg"));
    assert!(
        server_list(&policy(Confidentiality::WhenOffered), Mode::Trans, &ends())
            .contains("aes-gcm")
    );
    let required = policy(Confidentiality::Required);
    assert_eq!(
        choose_offer(&required, &null, Mode::Trans),
        Err(OfferError::Confidentiality)
    );
    assert_eq!(
        choose_offer(&policy(Confidentiality::default()), &null, Mode::UdpEncTun),
        Err(OfferError::Mode)
    );
}

#[test]
fn what_we_write_has_ten_digits_and_a_mode() {
    let text = server_list(&Policy::default(), Mode::UdpEncTun, &ends());
    assert!(
        text.contains("mod=UDP-enc-tun;spi-c=1000000000;spi-s=1000000001;port-c=5064;port-s=5063"),
        "{text}"
    );
}

// Lists of cores that the UE role meets: higher q first in meaning, not in place.
#[test]
fn the_highest_q_that_is_supported() {
    let list = SecList::parse(&format!(
        "tls;q=0.9,ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;{ENDS},ipsec-3gpp;q=0.5;alg=null;ealg=aes-gcm;{ENDS}"
    ));
    let pick = |suites: &[Suite]| choose_server(suites, &[Mode::Trans], &list).map(|p| p.suite);
    assert_eq!(pick(&Suite::ALL), Ok(Suite::NullAesGcm));
    assert_eq!(pick(&[Suite::HmacSha1Null]), Ok(Suite::HmacSha1Null));
    assert_eq!(pick(&[Suite::AesGmacNull]), Err(OfferError::Algorithms));
}

#[rstest]
#[case("1.000", Some(1000))]
#[case("0.1", Some(100))]
#[case("0", Some(0))]
#[case("1.1", None)]
#[case("0.1234", None)]
#[case("x", None)]
fn q_values(#[case] text: &str, #[case] q: Option<u16>) {
    assert_eq!(mechanism::thousandths(text), q);
}

proptest! {
    #[test]
    fn any_text_is_survived_and_equals_itself(text in "[ -~]{0,200}") {
        let list = SecList::parse(&text);
        let _ = list.proposals();
        prop_assert!(list.same(&list));
    }
}
