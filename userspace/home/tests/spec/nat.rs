//! Behind a NAT (clause M.7).

use gm_esp::Mode;
use gm_sip::edge::{EdgeConfig, Refusal};
use gm_sip::ue::UeFailure;

use crate::world::*;

#[test]
fn via_and_contact_of_sm7_have_the_public_address_and_the_server_port() {
    let mut world = World::behind_nat();
    world.register();
    let registers = world.sent(true, "REGISTER");
    let (sm1, sm7) = (registers[0].text(), registers[1].text());
    let private = format!("{}", world.phones[0].local);
    assert!(
        sm1.contains(&format!("Via: SIP/2.0/UDP {private}:5060")),
        "{sm1}"
    );
    let public = format!("{PUBLIC}:31800");
    assert!(
        sm7.contains(&format!("Via: SIP/2.0/UDP {public};")),
        "{sm7}"
    );
    assert!(sm7.contains(&format!("@{public}>")), "{sm7}");
    assert!(!sm7.contains(&private), "{sm7}");
}

#[test]
fn no_header_of_a_tunnelled_message_is_rewritten_for_the_nat() {
    let mut world = World::behind_nat();
    world.register();
    world.message();
    let line = |text: &str, name: &str| {
        let of = |l: &&str| l.starts_with(name);
        text.split("\r\n")
            .filter(of)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for (begin, nth) in [("REGISTER", 1), ("MESSAGE", 0)] {
        let sent = world.sent(true, begin)[nth].text();
        let core: Vec<_> = world
            .to_core
            .iter()
            .filter(|t| t.starts_with(begin))
            .collect();
        let core = core[nth];
        for name in ["Contact:", "From:", "To:", "Call-ID:", "CSeq:"] {
            assert_eq!(line(&sent, name), line(core, name), "{begin}");
        }
        let via = line(&sent, "Via:").remove(0);
        assert_eq!(line(core, "Via:").last(), Some(&via), "{begin}");
        let body = |text: &str| text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned());
        assert_eq!(body(&sent), body(core));
    }
    // And down: the Request-URI is what the phone registered.
    let down = world.last(false, "MESSAGE").text();
    assert!(
        down.starts_with(&format!("MESSAGE sip:user0@{PUBLIC}:31800")),
        "{down}"
    );
}

#[test]
fn an_edge_without_nat_traversal_drops_who_is_behind_one() {
    let config = EdgeConfig {
        nat_traversal: false,
        ..edge_config()
    };
    let mut world = World::with(ue_config(0), config);
    world.phones[0].nat = PUBLIC.parse().ok();
    world.register();
    assert_eq!(world.refusals(), [Refusal::NatWithoutTunnel]);
    assert!(world.to_core.is_empty() && world.sent(false, "").is_empty());
    world.pass(40_000);
    assert_eq!(world.failure(), Some(UeFailure::Timeout));
    // Without a NAT it registers the same phone.
    world.phones[0].nat = None;
    if !world.phones[0].ue.is_registered() {
        world.register();
    }
    assert!(world.phones[0].ue.is_registered());
}

#[test]
fn over_a_tunnel_an_offer_without_the_tunnel_is_refused_and_the_old_set_stays() {
    let mut world = World::behind_nat();
    world.register();
    world.up = Box::new(|text| {
        let line = |l: &str| {
            let offer = l.starts_with("Security-Client:");
            if offer {
                l.replace("mod=UDP-enc-tun", "mod=trans")
            } else {
                l.to_owned()
            }
        };
        Some(
            text.split("\r\n")
                .map(line)
                .collect::<Vec<_>>()
                .join("\r\n"),
        )
    });
    world.authenticate_again();
    assert!(
        matches!(world.refusals()[..], [Refusal::Offer(_)]),
        "{:?}",
        world.refusals()
    );
    assert!(world.last(false, "SIP/2.0 494").over.is_some());
    assert_eq!(world.sets(), (1, 1));
    world.up = pass_all();
    world.message();
    assert_eq!(world.answers(), [200]);
    world.authenticate_again();
    let modes: Vec<_> = world.installs.iter().map(|s| s.params.mode()).collect();
    assert_eq!(modes, [Mode::UdpEncTun, Mode::UdpEncTun]);
}

/// RFC 3948 clause 4: one octet from 4500 to 4500, as long as there is a tunnel.
#[test]
fn a_registered_phone_keeps_the_binding_of_its_nat_alive() {
    let mut world = World::behind_nat();
    world.register();
    world.pass(600_000);
    let local = world.phones[0].local;
    for (_, packet) in &world.keepalives {
        assert_eq!(
            (packet.local, packet.remote.port()),
            ((local, 4500).into(), 4500)
        );
        assert_eq!(packet.remote.ip(), addr(EDGE).ip());
    }
    let mut times: Vec<_> = world.keepalives.iter().map(|(at, _)| *at).collect();
    times.insert(0, 1_000_000);
    times.push(world.now);
    let longest = times.windows(2).map(|w| w[1] - w[0]).max();
    assert!(longest <= Some(30_000), "{longest:?}");
    // They end with the registration, and without a NAT there are none.
    world.top_up();
    let now = world.now;
    world.phones[0].ue.deregister(now).expect("starts");
    world.run();
    world.pass(60_000);
    let ended = world.keepalives.len();
    world.pass(600_000);
    assert_eq!(world.keepalives.len(), ended);
    let mut direct = World::new();
    direct.register();
    direct.pass(600_000);
    assert!(direct.keepalives.is_empty());
}
