//! Security-Verify: what phones make of Security-Server, and what is no echo of it.

use gm_sip::edge::Refusal;
use gm_sip::sec_agree::{SECURITY_SERVER, SECURITY_VERIFY, SecList};
use gm_sip::{Message, edge::Output};

use crate::messages::{Phone, nonce};
use crate::models::{self, HUAWEI, Model};
use crate::rig::*;

/// Registers with an echo made by `verify`.
fn registers_with(verify: fn(&str) -> String) {
    let phone = Phone::new(Model { verify, ..HUAWEI });
    let mut rig = Rig::new();
    rig.register(&phone, 1);
    assert!(rig.refusals().is_empty());
}

#[test]
fn huawei_and_samsung_echo_the_bytes() {
    registers_with(models::same_bytes);
}

#[test]
fn pixel_writes_the_parameters_in_another_order() {
    registers_with(models::other_order);
}

#[test]
fn q_may_be_dropped() {
    registers_with(models::without_q);
}

#[test]
fn case_and_blanks_do_not_matter() {
    registers_with(models::upper_case);
}

#[test]
fn defaults_are_made_explicit() {
    registers_with(|server| {
        server
            .replace(";prot=esp", "")
            .replace(";mod=trans", "")
            .replace(";ealg=null", "")
    });
}

#[test]
fn the_list_may_stand_on_several_lines() {
    registers_with(|server| server.replace(", ", "\r\nSecurity-Verify: "));
}

#[test]
fn the_list_may_be_folded() {
    registers_with(|server| server.replace(", ", ",\r\n "));
}

/// A core that lists other mechanisms gets them all back in one line.
#[test]
fn the_whole_list_in_one_line_with_unknown_mechanisms() {
    let ends = "spi-c=5000;spi-s=5001;port-c=5100;port-s=6100";
    let lines = format!(
        "SIP/2.0 401 x\r\nSecurity-Server: tls;q=0.9\r\nSecurity-Server: new-mech;q=0.8;par=1\r\n\
         Security-Server: ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;{ends}\r\n\r\n"
    );
    let message = Message::parse(lines.as_bytes()).expect("SIP");
    let sent = SecList::from_message(&message, SECURITY_SERVER).expect("a list");
    let echo = |line: &str| {
        let echo = format!("REGISTER sip:h SIP/2.0\r\n{SECURITY_VERIFY}: {line}\r\n\r\n");
        let echo = Message::parse(echo.as_bytes()).expect("SIP");
        sent.same(&SecList::from_message(&echo, SECURITY_VERIFY).expect("a list"))
    };
    let own = format!("ipsec-3gpp;alg=hmac-sha-1-96;{ends}");
    assert!(echo(&format!("tls;q=0.9,new-mech;q=0.8;par=1,{own}")));
    assert!(echo(&format!("TLS, new-mech;PAR=1,{own}")));
    // Of the parameters of tls only q counts (Annex H).
    assert!(echo(&format!("tls;q=0.9;x=y,new-mech;par=1,{own}")));
    assert!(!echo(&format!("tls;q=0.8,new-mech;par=1,{own}")));
    assert!(!echo(&format!("tls,new-mech;par=2,{own}")));
    assert!(!echo(&format!("tls,{own}")));
}

/// The procedure ends, and the failure goes where SM6 went, in clear (clause 7.3.2.3).
fn refused_with(verify: fn(&str) -> String) {
    let phone = Phone::new(Model { verify, ..HUAWEI });
    let mut rig = Rig::new();
    let up = to_core(&rig.clear(&phone, &phone.sm1()));
    let (set, sm6) = rig.challenged(&up, 1, &keys());
    let server = sm6.value(SECURITY_SERVER).expect("a list").into_owned();
    let changed = phone.text(&phone.sm7(&nonce(1), &server));
    let out = rig.protected(&phone, &changed);
    assert!(!out.iter().any(|o| matches!(o, Output::ToCore { .. })));
    assert!(out.contains(&Output::Remove { set }), "{out:?}");
    let answer = packets(&out).pop().expect("an answer");
    assert_eq!((answer.local, answer.remote), (addr(CLEAR), phone.source));
    assert_eq!(rig.refusals(), [Refusal::SecurityVerify]);
}

#[test]
fn a_lost_entry_is_refused() {
    refused_with(|server| server.split(", ").skip(1).collect::<Vec<_>>().join(", "));
}

#[test]
fn an_added_entry_is_refused() {
    refused_with(|server| format!("{server}, tls"));
}

#[test]
fn another_order_of_entries_is_refused() {
    refused_with(|server| server.rsplit(", ").collect::<Vec<_>>().join(", "));
}

/// Somebody between has made the list weaker.
#[test]
fn another_algorithm_is_refused() {
    refused_with(|server| server.replacen("ealg=aes-gcm", "ealg=null", 1));
}

#[test]
fn another_spi_or_port_is_refused() {
    refused_with(|server| server.replacen("spi-c=1", "spi-c=2", 1));
    refused_with(|server| server.replacen("port-s=5063", "port-s=5062", 1));
}

#[test]
fn another_mode_or_protocol_is_refused() {
    refused_with(|server| server.replacen("mod=trans", "mod=UDP-enc-tun", 1));
    refused_with(|server| server.replacen("prot=esp", "prot=ah", 1));
}

#[test]
fn an_unknown_parameter_is_refused() {
    refused_with(|server| server.replacen(";prot", ";x=y;prot", 1));
}

#[test]
fn another_q_is_refused() {
    refused_with(|server| server.replacen("q=0.1", "q=0.9", 1));
}

/// Annex H: Security-Client of SM7 is that of SM1, by value.
#[test]
fn security_client_is_compared_with_the_first_one() {
    let written_otherwise = |text: &str| {
        text.replace("prot=esp;", "")
            .replace(";spi-c=", "; SPI-C=0")
    };
    for (change, good) in [
        (written_otherwise as fn(&str) -> String, true),
        (|t| t.replacen("ealg=aes-cbc", "ealg=null", 1), false),
        (|t| t.replacen("spi-c=19500101", "spi-c=19500102", 1), false),
        (|t| t.replace("port-s=31800", "port-s=31801"), false),
        (|t| t.replace("Security-Client", "X-None"), false),
    ] {
        let phone = Phone::new(HUAWEI);
        let mut rig = Rig::new();
        let up = to_core(&rig.clear(&phone, &phone.sm1()));
        let (_, sm6) = rig.challenged(&up, 1, &keys());
        let server = sm6.value(SECURITY_SERVER).expect("a list").into_owned();
        let sm7 = phone.text(&phone.sm7(&nonce(1), &server));
        rig.protected(&phone, &change(&sm7));
        let expected: &[Refusal] = match good {
            true => &[],
            false => &[Refusal::SecurityClient],
        };
        assert_eq!(rig.refusals(), expected);
    }
}
