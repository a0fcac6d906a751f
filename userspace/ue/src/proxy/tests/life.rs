//! Sets of SAs through several registrations.

use super::*;

#[test]
fn a_new_registration_takes_new_spis_and_a_new_port_and_the_old_set_goes() {
    let mut rig = Rig::new();
    let old = rig.registered(1, 3600);
    rig.now += 60_000;
    let new = rig.registered(2, 3600);
    let (a, b) = (old.params.ue_ends, new.params.ue_ends);
    assert_ne!((a.spi_c, a.spi_s, a.port_c), (b.spi_c, b.spi_s, b.port_c));
    assert_eq!(a.port_s, b.port_s);
    rig.now += 32_000;
    rig.proxy.handle_timeout(rig.now);
    assert_eq!(rig.drain().removed, [old.token]);
    assert!(rig.proxy.is_registered());
}

#[test]
fn a_200_without_a_challenge_keeps_the_set_and_gives_the_offer_back() {
    let mut rig = Rig::new();
    let set = rig.registered(1, 600);
    rig.now += 300_000;
    let again = rig.first(600);
    let out = rig.ue_sends(&again);
    let ok = granted(&out.to_network().1, 600);
    let out = rig.sealed(&set, &ok);
    assert_eq!(out.unreserved.len(), 1);
    assert_eq!(
        out.events,
        [ProxyEvent::Registered {
            expires: 600,
            authenticated: false
        }]
    );
    assert_eq!(rig.proxy.next_timeout(), Some(rig.now + 630_000));
}

#[test]
fn after_a_de_register_the_sets_serve_the_last_answers_and_go() {
    let mut rig = Rig::new();
    let set = rig.registered(1, 3600);
    let bye = rig.first(0);
    let out = rig.ue_sends(&bye);
    let out = rig.sealed(
        &set,
        &Message::response(&out.to_network().1, 200, "OK", "net"),
    );
    assert_eq!(out.events, [ProxyEvent::Deregistered]);
    assert!(!rig.proxy.is_registered());
    let late = message_to(
        "sip:a@192.0.2.10:31800",
        "SIP/2.0/UDP 192.0.2.1:5066;branch=z9hG4bKx",
    );
    assert_eq!(rig.sealed(&set, &late).ue.len(), 1);
    rig.now += 32_000;
    rig.proxy.handle_timeout(rig.now);
    assert_eq!(rig.drain().removed, [set.token]);
    assert_eq!(rig.proxy.next_timeout(), None);
    let request = message_to(
        "sip:echo@home.test",
        "SIP/2.0/UDP 127.0.0.1:5071;branch=z9hG4bK-m",
    );
    assert_eq!(rig.ue_sends(&request).to_ue().status(), Some(403));
}

#[test]
fn a_resynchronisation_begins_anew_with_another_offer() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let sm1 = rig.ue_sends(&first).to_network().1.clone();
    let set = rig.in_clear(&challenged(&sm1, 1)).installs[0].clone();
    rig.installed(set.token, true);
    let auts = format!(
        "Digest username=\"a@home.test\",realm=\"home.test\",nonce=\"{}\",uri=\"sip:home.test\",response=\"{}\",auts=\"AAAAAAAAAAAAAAAAAAA=\"",
        nonce(1),
        "0".repeat(32)
    );
    let request = rig.register(&auts, 3600);
    let out = rig.ue_sends(&request);
    assert_eq!(out.removed, [set.token]);
    let (packet, again) = out.to_network();
    assert_eq!(packet.local, at(CLEAR));
    assert_ne!(again.value("Security-Client"), sm1.value("Security-Client"));
    assert_eq!(again.value("Security-Verify"), None);
}

#[test]
fn silence_through_the_sas_sends_the_next_register_in_clear() {
    let mut rig = Rig::new();
    let set = rig.registered(1, 3600);
    let again = rig.first(3600);
    assert_ne!(rig.ue_sends(&again).to_network().0.local, at(CLEAR));
    rig.now += 32_000;
    rig.proxy.handle_timeout(rig.now);
    let out = rig.drain();
    assert_eq!(out.removed, [set.token]);
    assert!(matches!(out.events.as_slice(), [ProxyEvent::Failed { .. }]));
    let next = rig.first(3600);
    assert_eq!(rig.ue_sends(&next).to_network().0.local, at(CLEAR));
}

#[test]
fn a_ue_that_never_answers_leaves_nothing_behind() {
    let mut rig = Rig::new();
    for n in 0..40 {
        let first = rig.first(3600);
        let sm1 = rig.ue_sends(&first).to_network().1.clone();
        let set = rig.in_clear(&challenged(&sm1, n + 1)).installs[0].clone();
        rig.installed(set.token, true);
        rig.now += 240_000;
        rig.proxy.handle_timeout(rig.now);
        assert_eq!(rig.drain().removed, [set.token]);
    }
    assert_eq!(rig.proxy.next_timeout(), None);
}

#[test]
fn sets_with_the_same_ports_at_both_ends_are_told_apart_by_what_is_answered() {
    let mut rig = Rig::new();
    rig.one_port = true;
    let old = rig.registered(1, 3600);
    let new = rig.registered(2, 3600);
    assert_eq!(
        old.params.pcscf_ends.port_c, new.params.pcscf_ends.port_c,
        "the rig's P-CSCF keeps its port"
    );
    assert!(rig.proxy.is_registered());
}

#[test]
fn random_and_damaged_messages_from_both_sides_do_no_harm() {
    let mut rig = Rig::new();
    let set = rig.registered(1, 3600);
    let mut random = Count(7);
    let first = rig.first(3600);
    let seeds = [
        first.to_bytes(),
        challenged(&first_up(&mut rig, &first), 3).to_bytes(),
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKgdu1.x\r\n\r\n".to_vec(),
    ];
    for n in 0..4000 {
        let mut bytes = seeds[n % seeds.len()].clone();
        for _ in 0..1 + random.u32() % 4 {
            let at = random.u32() as usize % bytes.len();
            match random.u32() % 3 {
                0 => bytes[at] = random.u32() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b"\r\n:;,<>\"@ "[random.u32() as usize % 10]),
            }
        }
        let (local, remote) = match random.u32() % 2 {
            0 => (at(CLEAR), at(PCSCF)),
            _ => (at("192.0.2.10:31800"), at("192.0.2.1:5067")),
        };
        let transport = Transport::Udp;
        let input = match random.u32() % 2 {
            0 => ProxyInput::FromUe {
                remote: at(UE),
                bytes: &bytes,
            },
            _ => ProxyInput::FromNetwork {
                local,
                remote,
                transport,
                bytes: &bytes,
            },
        };
        rig.proxy.handle(rig.now, input);
        for set in rig.drain().installs {
            rig.installed(set.token, n % 5 > 0);
        }
        rig.now += u64::from(random.u32() % 2000);
        rig.proxy.handle_timeout(rig.now);
        rig.drain();
    }
    // The set that was there has not outlived its registration.
    rig.now += 4_000_000;
    rig.proxy.handle_timeout(rig.now);
    rig.drain();
    assert!(rig.proxy.sets.get(set.token).is_none());
    assert_eq!(rig.proxy.next_timeout(), None);
}

fn first_up(rig: &mut Rig, first: &Message) -> Message {
    rig.ue_sends(first).to_network().1.clone()
}
