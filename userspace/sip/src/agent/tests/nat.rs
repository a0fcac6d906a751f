//! Behind a NAT (Annex M.7): found by SM1 in clear, inherited by later ones; phones that
//! share an address.

use super::*;
use crate::sec_agree::OfferError;
use gm_esp::Mode;

const TUNNEL: &str = "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;mod=trans;ENDS, \
                      ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;mod=UDP-enc-tun;ENDS";

/// A phone that can both modes, behind the address 192.0.2.1.
fn natted(user: &'static str, n: u16, port_s: u16) -> Phone {
    let mut one = phone(user).anew(n);
    one.ends.port_s = port_s;
    one.offer = Some(TUNNEL.to_owned());
    one
}

/// Its SM1: Via has the private address.
fn sm1(phone: &Phone) -> Register {
    let mut register = phone.sm1();
    register.via = vec![[10, 0, 0, 2].into()];
    register.ue.set_port(20_001);
    register
}

fn establish(rig: &mut Rig, phone: &Phone) -> SetToken {
    let (id, attempt) = rig.attempt(&sm1(phone));
    assert!(attempt.tunnel);
    let challenged = rig.challenge(id);
    rig.finish(phone, &challenged)
}

#[test]
fn via_that_is_not_the_source_means_a_nat_and_encapsulation() {
    let mut rig = Rig::new();
    let set = establish(&mut rig, &natted("a", 1, 32000));
    let params = rig.requests[&set].params;
    assert_eq!(params.mode(), Mode::UdpEncTun);
    assert_eq!(
        params.tunnel.map(|t| (t.local, t.remote, t.port)),
        Some((clear().ip(), phone("a").ip, 4500))
    );
    let set = rig.establish(&natted("b", 1, 32000).at(9));
    assert_eq!(rig.requests[&set].params.mode(), Mode::Trans);
}

#[test]
fn a_re_registration_keeps_the_mode_though_its_via_is_public() {
    let mut rig = Rig::new();
    let (old, new) = (natted("a", 1, 32000), natted("a", 2, 32000));
    establish(&mut rig, &old);
    let challenged = rig.again(&old, &new);
    assert_eq!(rig.requests[&challenged.0].params.mode(), Mode::UdpEncTun);
    rig.finish(&new, &challenged);
    // It cannot do without.
    let mut only_transport = natted("a", 3, 32000);
    only_transport.offer = None;
    let refused = rig.over(&new, only_transport.sm1());
    assert_eq!(rig.send(&refused), Err(Refusal::Offer(OfferError::Mode)));
}

#[test]
fn without_encapsulation_at_either_end_there_is_silence() {
    let mut rig = Rig::new();
    let why = Refusal::NatWithoutTunnel;
    assert_eq!(rig.send(&sm1(&phone("a"))), Err(why));
    assert_eq!(why.status(), None);
    let config = AgentConfig {
        nat_traversal: false,
        ..AgentConfig::default()
    };
    let mut rig = Rig::with(config);
    assert_eq!(rig.send(&sm1(&natted("a", 1, 32000))), Err(why));
    assert!(rig.agent.next_timeout().is_none(), "nothing is kept");
}

#[test]
fn two_phones_behind_one_nat_with_ports_of_their_own() {
    let mut rig = Rig::new();
    let sets = [natted("a", 1, 32000), natted("b", 2, 32001)].map(|p| establish(&mut rig, &p));
    for set in sets {
        assert_eq!(rig.current(set), Some(set));
    }
}

/// What the second phone has in common with the first.
fn in_common() -> [(&'static str, Phone); 4] {
    let base = natted("b", 2, 32001);
    let with = |change: fn(&mut Ends)| {
        let mut phone = base.clone();
        change(&mut phone.ends);
        phone
    };
    [
        ("client port", with(|e| e.port_c = 31001)),
        ("server port", with(|e| e.port_s = 32000)),
        ("spi-c", with(|e| e.spi_c = 4002)),
        ("spi-s", with(|e| e.spi_s = 4003)),
    ]
}

#[test]
fn the_second_phone_with_a_port_or_spi_of_the_first_is_told_to_choose_others() {
    for (what, second) in in_common() {
        let mut rig = Rig::new();
        let first = natted("a", 1, 32000);
        let set = establish(&mut rig, &first);
        let why = rig.send(&sm1(&second)).expect_err(what);
        assert_eq!(why, Refusal::Collision, "{what}");
        assert_eq!(why.status().map(|s| s.0), Some(400));
        let lines = why.headers(&rig.agent.config().policy);
        assert!(
            lines
                .iter()
                .any(|(name, text)| *name == "Warning" && text.contains("choose others"))
        );
        // The first one is as it was.
        assert_eq!(rig.current(set), Some(set), "{what}");
        let challenged = rig.again(&first, &natted("a", 5, 32000));
        rig.finish(&natted("a", 5, 32000), &challenged);
        // With others it gets in.
        establish(&mut rig, &natted("b", 9, 32009));
        rig.agrees();
    }
}

#[test]
fn who_is_challenged_first_has_the_port_when_both_asked_at_once() {
    for (what, second) in in_common() {
        for swap in [false, true] {
            let mut rig = Rig::new();
            let mut phones = [natted("a", 1, 32000), second.clone()];
            if swap {
                phones.reverse();
            }
            let ids = [0, 1].map(|n| rig.attempt(&sm1(&phones[n])).0);
            let challenged = rig.challenge(ids[0]);
            assert_eq!(rig.try_challenge(ids[1]), Err(Refusal::Collision), "{what}");
            let set = rig.finish(&phones[0], &challenged);
            assert_eq!(rig.current(set), Some(set));
            assert_eq!(rig.sets.len(), 1, "nothing half installed");
        }
    }
}

#[test]
fn a_protected_register_does_not_take_a_neighbours_server_port() {
    let mut rig = Rig::new();
    let (a, b) = (natted("a", 1, 32000), natted("b", 2, 32001));
    establish(&mut rig, &a);
    let set = establish(&mut rig, &b);
    let greedy = rig.over(&b, natted("b", 3, 32000).sm1());
    assert_eq!(rig.send(&greedy), Err(Refusal::Collision));
    assert_eq!(rig.current(set), Some(set));
}

#[test]
fn another_address_never_collides() {
    let mut rig = Rig::new();
    establish(&mut rig, &natted("a", 1, 32000));
    establish(&mut rig, &natted("b", 1, 32000).at(2));
}
