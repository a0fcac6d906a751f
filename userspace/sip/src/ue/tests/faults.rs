//! Each fault is the one deviation that its name says.

use super::*;

fn with(fault: Fault) -> Rig {
    Rig::set_up(|c| c.faults = vec![fault])
}

/// Up to SM7, which is given back.
fn sm7(rig: &mut Rig) -> (Packet, Message) {
    rig.challenged(&[KAMAILIO]);
    let set = rig.install().expect("an Install");
    let input = UeInput::Installed {
        set: set.token,
        ok: true,
    };
    rig.ue.handle(0, input);
    rig.last()
}

#[test]
fn names_are_read_as_they_are_written() {
    for fault in Fault::ALL {
        assert_eq!(fault.to_string().parse(), Ok(fault));
        assert!(!fault.about().is_empty());
    }
    let error = "wrong".parse::<Fault>().expect_err("no fault");
    assert!(error.contains("wrong-res"), "{error}");
}

#[test]
fn in_the_lists() {
    let (_, right) = sm7(&mut Rig::new());
    let list = |m: &Message, name: &str| m.value(name).map(|v| SecList::parse(&v));
    for (fault, name, there) in [
        (Fault::WrongVerify, SECURITY_VERIFY, true),
        (Fault::NoVerify, SECURITY_VERIFY, false),
        (Fault::WrongClient, "Security-Client", true),
        (Fault::NoClient, "Security-Client", false),
    ] {
        let (packet, wrong) = sm7(&mut with(fault));
        let got = list(&wrong, name);
        assert_eq!(got.is_some(), there, "{fault}");
        let same = got.is_some_and(|got| list(&right, name).expect("it").same(&got));
        assert!(!same, "{fault}");
        assert_eq!(
            packet.remote.port(),
            6100,
            "{fault}: protected as it should be"
        );
    }
    // SM1's offer is right, except where there is none.
    let mut rig = with(Fault::WrongClient);
    let (_, wrong) = sm7(&mut rig);
    let (_, sm1) = rig.sent().swap_remove(0);
    assert_ne!(sm1.value("Security-Client"), wrong.value("Security-Client"));
}

#[test]
fn in_the_authentication() {
    let response = |m: &Message| {
        let value = m.value("Authorization").expect("it").into_owned();
        let (_, rest) = value.split_once("response=\"").expect("a response");
        rest[..32].to_owned()
    };
    let (_, right) = sm7(&mut Rig::new());
    let mut rig = with(Fault::WrongRes);
    let (_, wrong) = sm7(&mut rig);
    assert_ne!(response(&right), response(&wrong));
    assert_eq!(
        rig.install().expect("it").ik.as_bytes(),
        &[1; 16],
        "the keys are right"
    );
    let mut rig = with(Fault::WrongKeys);
    let (_, sm7_) = sm7(&mut rig);
    assert_ne!(rig.install().expect("it").ik.as_bytes(), &[1; 16]);
    assert_eq!(response(&sm7_), response(&right), "the response is right");
    let (_, other) = sm7(&mut with(Fault::WrongUser));
    assert!(
        other
            .value("Authorization")
            .is_some_and(|a| a.contains("\"other.u@h.example\""))
    );
    let mut rig = with(Fault::WrongAutn);
    rig.challenged(&[KAMAILIO]);
    let failed = UeEvent::Failed(UeFailure::NetworkAuthentication);
    assert_eq!(rig.events().last(), Some(&failed));
    let mut rig = with(Fault::Replay);
    rig.ue.register(0).expect("starts");
    let old = crate::aka::Credentials::from_message(&rig.last().1).expect("credentials");
    assert!(old.answers());
}

#[test]
fn a_stale_sim_runs_ahead_once() {
    struct Ahead(bool);
    impl Aka for Ahead {
        fn answer(&mut self, r: &[u8; 16], a: &[u8; 16]) -> Result<AkaAnswer, AkaFailure> {
            let ahead = std::mem::take(&mut self.0);
            let auts = AkaFailure::Synchronisation([9; 14]);
            if ahead {
                Err(auts)
            } else {
                Sim(Ok(())).answer(r, a)
            }
        }
        fn run_ahead(&mut self) {
            self.0 = true;
        }
    }
    let mut rig = with(Fault::StaleSqn);
    rig.ue.aka = Box::new(Ahead(false));
    rig.challenged(&[KAMAILIO]);
    assert!(rig.events().contains(&UeEvent::Resynchronising));
    let (packet, report) = rig.last();
    rig.give(
        packet.local,
        packet.remote,
        &challenge(&report).with(SECURITY_SERVER, SECOND),
    );
    assert!(rig.install().is_some());
}

#[test]
fn in_the_way() {
    let (packet, _) = sm7(&mut with(Fault::ClearSm7));
    assert_eq!(packet.local, addr("192.0.2.1:5060"));
    assert_eq!(packet.remote, addr("203.0.113.1:5060"));
    let (packet, message) = sm7(&mut with(Fault::WrongVia));
    assert_eq!(packet.local.ip().to_string(), "192.0.2.1");
    assert!(
        message
            .first_element("Via")
            .is_some_and(|v| v.contains("192.0.2.254:31800"))
    );
    let mut rig = with(Fault::NoSm7);
    rig.challenged(&[KAMAILIO]);
    assert_eq!(rig.sent().len(), 1);
    assert!(rig.install().is_none());
    let mut rig = with(Fault::SamePort);
    let set = rig.registered();
    rig.ue.register(0).expect("starts");
    let list = SecList::from_message(&rig.last().1, "Security-Client").expect("an offer");
    let ends = list.proposals().expect("ours")[0].ends;
    assert_eq!(ends.port_c, set.params.ue_ends.port_c);
}

#[test]
fn in_what_is_heard() {
    let mut rig = with(Fault::DropSm12);
    sm7(&mut rig);
    let set = rig.install().expect("an Install");
    rig.granted(&set, 3600);
    assert!(!rig.ue.is_registered());
    let before = rig.sent().len();
    rig.pass(500);
    assert_eq!(rig.sent().len(), before + 1, "SM7 is sent again");
    let mut rig = with(Fault::Silent);
    rig.registered();
    let before = rig.sent().len();
    rig.give(
        addr("192.0.2.1:31800"),
        addr("203.0.113.1:5100"),
        &message(),
    );
    assert_eq!(rig.sent().len(), before);
}
