//! Many sets in one call: each whole or not there, whatever becomes of the others.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{DataPlane, Dir, Error, Fault, NewSa, SetId, SetSpec};
use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Selector, Suite};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

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

#[track_caller]
fn all_good(answers: Vec<Result<SetId, Error>>) -> Vec<SetId> {
    let refused: Vec<_> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    good(answers)
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
    let more = all_good(more);
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

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_worker_that_hangs_takes_only_its_own_sets_along() {
    let net = Net::new(2, [2, 1], 2);
    let plane = &net.p.plane;
    let before = plane.list().len();
    let specs = |first: u32| {
        let spec = |n| four(n, [5000 + 2 * n, 5001 + 2 * n]);
        (first..first + 40).map(spec).collect::<Vec<SetSpec>>()
    };
    // Longer than anybody waits for an answer.
    let long = Duration::from_secs(12);
    plane.fault(Fault::Hang(0, long)).unwrap();
    let answers = plane.install_many(specs(1));
    let gone = |answer: &&Result<SetId, Error>| matches!(answer, Err(Error::WorkerGone));
    let lost = answers.iter().filter(gone).count();
    let sets = good(answers);
    assert!(lost > 0 && !sets.is_empty() && lost + sets.len() == 40);
    assert!(sets.iter().all(|set| rows(plane, *set) == 4));

    // It does what it was told, and is as good as before.
    let end = Instant::now() + WAIT;
    while plane.activate_many(&sets).iter().any(Result::is_err) || plane.stats().is_err() {
        assert!(Instant::now() < end, "the worker is not back");
    }
    net.all_pass();
    assert!(plane.remove_many(&sets).iter().all(Result::is_ok));
    let more = plane.install_many(specs(101));
    let more = all_good(more);
    assert!(plane.remove_many(&more).iter().all(Result::is_ok));
    assert_eq!(plane.list().len(), before, "something is half installed");
    net.all_pass();
}

/// What is asked of a data plane, of several sets at a time.
#[derive(Clone, Debug)]
enum Ask {
    /// By set: phone and inbound SPIs.
    Install(BTreeMap<u64, (u32, [u32; 2])>),
    Activate(BTreeSet<u64>),
    Retire(BTreeSet<u64>),
    Remove(BTreeSet<u64>),
}

fn ask() -> impl Strategy<Value = Ask> {
    let sets = || btree_set(1..12_u64, 1..6);
    // Few SPIs, so that many are taken already, and some twice in a set.
    let spi = || 5000..5020_u32;
    let spec = (1..8_u32, spi(), spi()).prop_map(|(phone, a, b)| (phone, [a, b]));
    prop_oneof![
        3 => btree_map(1..12_u64, spec, 1..6).prop_map(Ask::Install),
        1 => sets().prop_map(Ask::Activate),
        1 => sets().prop_map(Ask::Retire),
        2 => sets().prop_map(Ask::Remove),
    ]
}

fn id(set: u64) -> SetId {
    SetId(1 << 40 | set)
}

fn specs(sets: &BTreeMap<u64, (u32, [u32; 2])>) -> Vec<SetSpec> {
    let spec = |(set, (phone, ours)): (&u64, &(u32, [u32; 2]))| SetSpec {
        set: Some(id(*set)),
        ..four(*phone, *ours)
    };
    sets.iter().map(spec).collect()
}

/// Every answer as its words, for errors are told to people.
fn said<T>(answers: impl IntoIterator<Item = Result<T, Error>>) -> Vec<String> {
    let words = |answer: Result<T, Error>| answer.map_or_else(|e| e.to_string(), |_| "ok".into());
    answers.into_iter().map(words).collect()
}

fn together(plane: &DataPlane, ask: &Ask) -> Vec<String> {
    let ids = |sets: &BTreeSet<u64>| sets.iter().map(|set| id(*set)).collect::<Vec<_>>();
    match ask {
        Ask::Install(sets) => said(plane.install_many(specs(sets))),
        Ask::Activate(sets) => said(plane.activate_many(&ids(sets))),
        Ask::Retire(sets) => said(plane.retire_many(&ids(sets))),
        Ask::Remove(sets) => said(plane.remove_many(&ids(sets))),
    }
}

fn in_turn(plane: &DataPlane, ask: &Ask) -> Vec<String> {
    let ids = |sets: &BTreeSet<u64>| sets.iter().map(|set| id(*set)).collect::<Vec<_>>();
    match ask {
        Ask::Install(sets) => said(specs(sets).into_iter().map(|spec| plane.install(spec))),
        Ask::Activate(sets) => said(ids(sets).into_iter().map(|set| plane.activate(set))),
        Ask::Retire(sets) => said(ids(sets).into_iter().map(|set| plane.retire(set))),
        Ask::Remove(sets) => said(ids(sets).into_iter().map(|set| plane.remove(set))),
    }
}

/// What is there of these sets, but for where it is.
fn there(plane: &DataPlane) -> Vec<String> {
    let row = |sa: gm_dataplane::SaStatus| {
        format!("{} {:?} {:?} {:?}", sa.set.0, sa.dir, sa.spec, sa.state)
    };
    let rows = plane.list().into_iter().filter(|sa| sa.set >= id(0));
    let mut rows: Vec<String> = rows.map(row).collect();
    rows.sort_unstable();
    rows
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn many_at_a_time_end_where_one_after_the_other_does() {
    let nets = [Net::new(1, [1, 1], 1), Net::new(1, [1, 1], 1)];
    let [many, one] = nets.each_ref().map(|net| &net.p.plane);
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(60)
    };
    let asked = proptest::collection::vec(ask(), 1..12);
    let words = RefCell::new(BTreeSet::new());
    let found = TestRunner::new(config).run(&asked, |asked| {
        for ask in &asked {
            let answers = together(many, ask);
            prop_assert_eq!(&answers, &in_turn(one, ask), "{:?}", ask);
            words.borrow_mut().extend(answers);
            prop_assert_eq!(there(many), there(one), "{:?}", ask);
        }
        let all: Vec<SetId> = (1..12).map(id).collect();
        for plane in [many, one] {
            prop_assert!(plane.remove_many(&all).iter().all(Result::is_ok));
            prop_assert!(there(plane).is_empty());
        }
        Ok(())
    });
    found.unwrap_or_else(|e| panic!("{e}"));
    let words = words.into_inner();
    assert!(words.contains("ok") && words.len() > 10, "{words:?}");
}
