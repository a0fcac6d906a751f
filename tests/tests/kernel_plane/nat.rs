//! A phone behind a NAT: its port is learnt from what verifies, for the whole set.

use std::net::UdpSocket;

use gm_tests::needs_esp;
use gm_xfrm::kernel::{StateId, Xfrm};

use crate::four::Four;
use crate::lab::{Lab, PC, PCSCF, PS, UC, UE, US, crosses, is_dropped, until};

/// The phone's side of a NAT that has given it this port: ESP in UDP comes to it there.
fn open(lab: &Lab, port: u16) -> UdpSocket {
    let socket = Lab::udp(&lab.ue, UE, port);
    gm_xsk::esp_in_udp(&socket).expect("UDP_ENCAP");
    socket
}

/// The port of the P-CSCF's two outbound SAs.
fn ports(lab: &Lab) -> Vec<Option<u16>> {
    let rows = lab.sas();
    let out = rows
        .iter()
        .filter(|row| row.sa.dir == Some(gm_api::sad::Dir::Out));
    out.map(|row| row.sa.encap_dport).collect()
}

fn play(follow: bool) {
    let lab = Lab::new();
    let daemon = lab.start_with(&format!("follow_encap_port = {follow}\n"));
    let four = Four {
        encap: Some(40_001),
        ..Four::new(1, 80_000)
    };
    lab.add(&four.pcscf());
    lab.peer("install", &four.ue());
    let _first = open(&lab, 40_001);
    let here = [PS, PC].map(|port| Lab::udp(&lab.pcscf, PCSCF, port));
    let phone = [UC, US].map(|port| Lab::udp(&lab.ue, UE, port));
    // Nobody knows where to send yet: nothing leaves, not even to port 0.
    assert_eq!(ports(&lab), [None, None]);
    is_dropped(&here[1], &phone[1]);
    crosses(&phone[0], &here[0], b"SM7");
    until("the port is learnt", || ports(&lab) == [Some(40_001); 2]);
    for (here, phone) in here.iter().zip(&phone) {
        crosses(here, phone, b"learnt");
        crosses(phone, here, b"and back");
    }
    // The NAT gives it another one.
    let _second = open(&lab, 40_002);
    lab.ue.run(|| {
        let mut xfrm = Xfrm::open().expect("XFRM");
        let pcscf = PCSCF.parse().expect("an address");
        for spi in [80_000, 80_001] {
            let mut state = xfrm.state(StateId::esp(pcscf, spi)).expect("a state");
            state.encap.as_mut().expect("in UDP").sport = 40_002;
            xfrm.update_state(&state).expect("changed");
        }
    });
    crosses(&phone[1], &here[1], b"from elsewhere");
    if follow {
        until("it is followed", || ports(&lab) == [Some(40_002); 2]);
        crosses(&here[0], &phone[0], b"there");
    } else {
        std::thread::sleep(crate::lab::SILENCE);
        assert_eq!(ports(&lab), [Some(40_001); 2]);
    }
    daemon.stop();
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn the_phones_port_is_learnt_from_what_verifies_and_followed() {
    needs_esp!();
    play(true);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn the_first_port_stays_where_it_is_not_to_be_followed() {
    needs_esp!();
    play(false);
}
