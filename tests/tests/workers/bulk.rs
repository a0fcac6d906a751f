//! Many sets in one call: each whole or not there, whatever becomes of the others.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{DataPlane, Dir, Error, Fault, NewSa, SetId, SetSpec};
use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Selector, Suite};

use super::net::{Net, PORT_PC, PORT_PS, PORT_UC, PORT_US, WAIT, pcscf};

/// The four SAs of a phone that is not there; `ours` are the inbound SPIs.
fn four(n: u32, ours: [u32; 2]) -> SetSpec {
    let phone: IpAddr = Ipv4Addr::from_bits(0x0a4d_8000 + n).into();
    let (ik, ck) = ([n as u8; 16], [n as u8 ^ 0x55; 16]);
    let keys = EspKeys::expand(Suite::NullAesGcm, &Ik::from_bytes(ik), &Ck::from_bytes(ck));
    let one = |dir: Dir, spi: u32, here: u16, there: u16| {
        let (src, dst, src_port, dst_port) = match dir {
            Dir::In => (phone, pcscf(false), there, here),
            Dir::Out => (pcscf(false), phone, here, there),
        };
        NewSa {
            spec: SaSpec {
                spi,
                mode: Mode::Trans,
                selector: Selector {
                    src,
                    dst,
                    src_port: Some(src_port),
                    dst_port: Some(dst_port),
                    proto: SelProto::UdpTcp,
                },
                suite: Suite::NullAesGcm,
                outer: None,
                esn: false,
                replay_window: 64,
            },
            keys: keys.clone(),
            dir,
            first_seq: None,
        }
    };
    SetSpec {
        set: None,
        sas: vec![
            one(Dir::In, ours[0], PORT_PS, PORT_UC),
            one(Dir::In, ours[1], PORT_PC, PORT_US),
            one(Dir::Out, 70_001, PORT_PC, PORT_US),
            one(Dir::Out, 70_002, PORT_PS, PORT_UC),
        ],
    }
}

fn good(answers: Vec<Result<SetId, Error>>) -> Vec<SetId> {
    answers.into_iter().filter_map(Result::ok).collect()
}

fn rows(plane: &DataPlane, set: SetId) -> usize {
    plane.list_set(set).len()
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn one_of_many_sets_that_is_refused_leaves_nothing_and_the_others_stand() {
    let net = Net::new(2, [2, 1], 2);
    let plane = &net.p.plane;
    let before = plane.list().len();
    // The second one's SPI is the first one's; the fourth has the third one's number.
    let mut specs: Vec<SetSpec> = [
        four(1, [5001, 5002]),
        four(2, [5003, 5001]),
        four(3, [5004, 5005]),
        four(4, [5006, 5007]),
    ]
    .into();
    specs[2].set = Some(SetId(1 << 40));
    specs[3].set = Some(SetId(1 << 40));
    let answers = plane.install_many(specs);
    let fine: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, false, true, false]);
    let sets = good(answers);
    assert_eq!(sets[1], SetId(1 << 40));
    assert_eq!(
        plane.list().len(),
        before + 8,
        "something is half installed"
    );
    assert!(plane.activate_many(&sets).iter().all(Result::is_ok));

    // What was refused is in nobody's way; a worker that dies meanwhile gets all of it.
    net.p.plane.fault(Fault::PanicInRings(0)).unwrap();
    let more = plane.install_many(
        (5..20)
            .map(|n| four(n, [6000 + 2 * n, 6001 + 2 * n]))
            .collect(),
    );
    let refused: Vec<_> = more.iter().filter_map(|a| a.as_ref().err()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let more = good(more);
    assert!(more.iter().all(|set| rows(plane, *set) == 4));
    let end = Instant::now() + WAIT;
    while plane
        .stats()
        .unwrap()
        .workers
        .iter()
        .all(|w| w.restarts == 0)
    {
        assert!(Instant::now() < end, "the worker is not back");
        thread::sleep(Duration::from_millis(10));
    }
    net.all_pass();

    // A set that is named twice goes once; one that is not there is no error.
    let gone = [&sets[..], &sets[..1], &[SetId(9 << 40)]].concat();
    assert!(plane.remove_many(&gone).iter().all(Result::is_ok));
    assert!(plane.remove_many(&more).iter().all(Result::is_ok));
    assert_eq!(plane.list().len(), before);
    assert_eq!(plane.gone(|sa| sets.contains(&sa.sa.set)).len(), 8);
    net.all_pass();
}
