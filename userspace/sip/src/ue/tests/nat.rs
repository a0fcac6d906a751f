//! Annex M at the UE: where it is, in which mode, and what keeps the NAT open.

use super::*;

const TUNNEL: &str = "ipsec-3gpp;q=0.1;prot=esp;mod=UDP-enc-tun;spi-c=4096;spi-s=4097;port-c=5100;port-s=6100;alg=hmac-sha-1-96;ealg=null";
const TUNNEL_AGAIN: &str = "ipsec-3gpp;q=0.1;prot=esp;mod=UDP-enc-tun;spi-c=4098;spi-s=4099;port-c=5101;port-s=6100;alg=hmac-sha-1-96;ealg=null";
const PUBLIC: &str = "198.51.100.7";

impl Rig {
    /// SM1 went through a NAT; SM6 says so and what the P-CSCF has chosen.
    fn behind_a_nat(&mut self, server: &str) -> Option<SaSetRequest> {
        self.seen_at("198.51.100.7:40001", server)
    }

    fn seen_at(&mut self, public: &str, server: &str) -> Option<SaSetRequest> {
        self.ue.register(self.now).expect("starts");
        let (packet, sm1) = self.last();
        let mut sm6 = challenge(&sm1).with(SECURITY_SERVER, server);
        let via = sm6.first_element("Via").expect("Via");
        let marked = crate::header::via::mark_source(&via, addr(public), true);
        sm6.replace_first_element("Via", &marked.expect("marked"));
        self.give(packet.local, packet.remote, &sm6);
        let set = self.install()?;
        let token = set.token;
        self.ue.handle(
            self.now,
            UeInput::Installed {
                set: token,
                ok: true,
            },
        );
        Some(set)
    }
}

fn keepalives(out: &[UeOutput]) -> usize {
    let is_one = |o: &&UeOutput| match o {
        UeOutput::Send(p) => {
            p.bytes == [0xff]
                && p.local == addr("192.0.2.1:4500")
                && p.remote == addr("203.0.113.1:4500")
                && p.transport == Transport::Udp
        }
        _ => false,
    };
    out.iter().filter(is_one).count()
}

#[test]
fn the_public_address_is_in_via_contact_and_the_inner_header() {
    let mut rig = Rig::new();
    let set = rig.behind_a_nat(TUNNEL).expect("an Install");
    assert_eq!(set.params.ue.to_string(), PUBLIC);
    assert_eq!(set.params.mode(), Mode::UdpEncTun);
    let outer = set.outbound[0].outer.expect("a tunnel");
    assert_eq!(
        (outer.src, outer.dst),
        ([192, 0, 2, 1].into(), [203, 0, 113, 1].into())
    );
    assert_eq!((outer.sport, outer.dport), (Some(4500), Some(4500)));
    let (packet, sm7) = rig.last();
    assert_eq!(packet.local.ip().to_string(), PUBLIC);
    for header in ["Via", "Contact"] {
        let value = sm7.value(header).expect("it is there");
        assert!(value.contains("198.51.100.7:31800"), "{value}");
    }
    rig.granted(&set, 3600);
    assert!(rig.ue.is_registered());
    assert_eq!(rig.ue.public_address().to_string(), PUBLIC);
}

/// The host takes the public address for its own: what goes there does not leave it.
#[rstest]
#[case::the_p_cscfs("203.0.113.1:40001")]
#[case::none("0.0.0.0:40001")]
#[case::the_hosts_own("127.0.0.1:40001")]
#[case::nobodys("224.0.0.1:40001")]
#[case::of_another_ip_version("[2001:db8::7]:40001")]
fn an_address_that_cannot_be_a_phones_is_not_taken(#[case] public: &str) {
    let mut rig = Rig::new();
    assert!(rig.seen_at(public, TUNNEL).is_none());
    let failed = UeEvent::Failed(UeFailure::PublicAddress);
    assert_eq!(rig.events().last(), Some(&failed));
}

#[rstest]
#[case::transport_mode(KAMAILIO, UeFailure::Nat)]
#[case::no_mode(
    "ipsec-3gpp;spi-c=4096;spi-s=4097;port-c=5100;port-s=6100;alg=hmac-sha-1-96",
    UeFailure::Nat
)]
fn behind_a_nat_only_a_written_tunnel_will_do(#[case] server: &str, #[case] want: UeFailure) {
    let mut rig = Rig::new();
    assert!(rig.behind_a_nat(server).is_none());
    assert_eq!(rig.events().last(), Some(&UeEvent::Failed(want)));
}

#[test]
fn without_a_nat_an_absent_mode_is_transport() {
    let mut rig = Rig::new();
    rig.challenged(&["ipsec-3gpp;spi-c=4096;spi-s=4097;port-c=5100;port-s=6100;alg=hmac-sha-1-96"]);
    assert_eq!(
        rig.install().expect("an Install").params.mode(),
        Mode::Trans
    );
}

#[test]
fn keepalives_begin_with_sm7_and_fill_the_silence_only() {
    let mut rig = Rig::new();
    let set = rig.behind_a_nat(TUNNEL).expect("an Install");
    rig.granted(&set, 3600);
    rig.news();
    rig.pass(19_999);
    assert_eq!(keepalives(&rig.news()), 0);
    rig.pass(1);
    assert_eq!(keepalives(&rig.news()), 1);
    // A packet through the tunnel is as good.
    rig.pass(15_000);
    rig.ue
        .send(rig.now, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (_, request) = rig.last();
    rig.answer_through(&set, &Message::response(&request, 200, "OK", "s"));
    rig.pass(19_000);
    assert_eq!(keepalives(&rig.news()), 0);
    rig.pass(41_000);
    assert_eq!(keepalives(&rig.news()), 3);
}

#[test]
fn keepalives_end_with_the_registration_and_are_none_without_a_nat() {
    let mut rig = Rig::new();
    let set = rig.behind_a_nat(TUNNEL).expect("an Install");
    rig.granted(&set, 3600);
    rig.ue.deregister(rig.now).expect("starts");
    rig.granted(&set, 0);
    rig.pass(10_000);
    rig.news();
    rig.pass(100_000);
    assert_eq!(keepalives(&rig.news()), 0);
    let mut rig = Rig::new();
    rig.registered();
    rig.pass(100_000);
    assert_eq!(keepalives(&rig.news()), 0);
}

#[rstest]
#[case::written(TUNNEL_AGAIN, true)]
#[case::not_written(&SECOND.replace("mod=trans;", ""), true)]
#[case::transport(SECOND, false)]
fn over_a_tunnel_the_next_set_is_one_too(#[case] server: &str, #[case] taken: bool) {
    let mut rig = Rig::new();
    let old = rig.behind_a_nat(TUNNEL).expect("an Install");
    rig.granted(&old, 3600);
    rig.news();
    rig.ue.register(rig.now).expect("starts");
    let (_, sm1) = rig.last();
    // No received: over the set the public address is in Via already.
    rig.answer_through(&old, &challenge(&sm1).with(SECURITY_SERVER, server));
    let new = rig.install();
    assert_eq!(new.is_some(), taken);
    if let Some(new) = new {
        assert_eq!(new.params.mode(), Mode::UdpEncTun);
        assert_eq!(new.params.ue.to_string(), PUBLIC);
    }
    assert!(rig.ue.is_registered());
}

#[test]
fn ports_that_collide_behind_a_nat_are_drawn_anew() {
    let mut rig = Rig::set_up(|c| c.spare_ports = vec![33000]);
    rig.ue.register(0).expect("starts");
    for port_s in [33000, 33000] {
        let (packet, sm1) = rig.last();
        rig.give(
            packet.local,
            packet.remote,
            &Message::response(&sm1, 400, "Bad Request", "s"),
        );
        let (_, sm1) = rig.last();
        let list = SecList::from_message(&sm1, "Security-Client").expect("an offer");
        assert_eq!(list.proposals().expect("ours")[0].ends.port_s, port_s);
    }
    // No port is left: that was all.
    let sent = rig.sent();
    assert_eq!(sent.len(), 2);
}
