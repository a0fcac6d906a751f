//! The rules of the database, one by one.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use gm_esp::{
    Ck, EspKeys, Ik, Mode, Outer, Reason, SaError, SaSpec, SelProto, Selector, Suite, Window,
};
use gm_region::Region;
use gm_sadb::{Change, Dir, NewSa, Recovered, Sadb, SadbError, SetId, SlotState};

const US: [u8; 4] = [192, 0, 2, 1];
const PHONE: [u8; 4] = [192, 0, 2, 77];

fn sa(dir: Dir, suite: Suite, spi: u32, key: u8) -> NewSa {
    let (us, phone) = (IpAddr::from(US), IpAddr::from(PHONE));
    let (src, dst) = if dir == Dir::In {
        (phone, us)
    } else {
        (us, phone)
    };
    let selector = Selector {
        src,
        dst,
        src_port: Some(5060),
        dst_port: Some(spi as u16),
        proto: SelProto::UdpTcp,
    };
    NewSa {
        spec: SaSpec {
            spi,
            mode: Mode::Trans,
            selector,
            suite,
            outer: None,
            esn: false,
            replay_window: 64,
        },
        keys: EspKeys::expand(
            suite,
            &Ik::from_bytes([key; 16]),
            &Ck::from_bytes([key ^ 0xff; 16]),
        ),
        dir,
        first_seq: None,
    }
}

/// The four SAs of a registration.
fn four(suite: Suite, spis: [u32; 4], key: u8) -> Vec<NewSa> {
    let dirs = [Dir::In, Dir::In, Dir::Out, Dir::Out];
    dirs.into_iter()
        .zip(spis)
        .map(|(dir, spi)| sa(dir, suite, spi, key))
        .collect()
}

fn successor(sadb: &Sadb) -> Recovered {
    let fd = rustix::io::dup(sadb.region().fd()).unwrap();
    Sadb::recover(Region::adopt(fd).unwrap())
}

fn gone(sadb: &mut Sadb, set: u64) {
    sadb.retire(SetId(set));
    sadb.remove(SetId(set));
    sadb.release(SetId(set)).unwrap();
}

#[test]
fn a_registration_from_install_to_release() {
    let mut sadb = Sadb::create(8, 64).unwrap();
    let reserved = [
        sadb.reserve(&[400, 401]).unwrap(),
        sadb.reserve(&[400, 401]).unwrap(),
    ];
    let set = four(
        Suite::NullAesGcm,
        [reserved[0].spi, reserved[1].spi, 400, 401],
        1,
    );
    let installed = sadb.install(SetId(1), &set).unwrap();
    assert_eq!(installed.slots, [0, 1, 4, 5]);
    let shown = |changes: &[Change]| {
        changes
            .iter()
            .map(|c| format!("{c:?}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        shown(&installed.changes),
        "Add(0) Add(1) Add(4) Add(5) Publish(0) Publish(1)"
    );
    assert!(
        installed
            .changes
            .iter()
            .all(|c| !matches!(c, Change::Publish { foreign: true, .. }))
    );
    assert_eq!(
        shown(&sadb.activate(SetId(1)).unwrap()),
        "Select(4) Select(5)"
    );
    assert_eq!(shown(&sadb.retire(SetId(1))), "Deselect(4) Deselect(5)");
    assert_eq!(
        shown(&sadb.remove(SetId(1))),
        "Deselect(4) Deselect(5) Unpublish(0) Unpublish(1) Forget(0) Forget(1) Forget(4) Forget(5)"
    );
    sadb.release(SetId(1)).unwrap();
    assert_eq!(sadb.free(), 8);
    assert_eq!(
        sadb.reserve(&[]).unwrap().slot,
        2,
        "slots go round before one is used again"
    );
}

#[test]
fn a_new_set_takes_over_the_selectors_and_an_old_one_can_take_them_back() {
    let mut sadb = Sadb::create(4, 64).unwrap();
    for (set, spi) in [(1, 400), (2, 500)] {
        let mut new = sa(Dir::Out, Suite::NullAesGcm, spi, set as u8);
        new.spec.selector.dst_port = None;
        sadb.install(SetId(set), &[new]).unwrap();
    }
    let states = |sadb: &Sadb| sadb.list().map(|row| row.state).collect::<Vec<_>>();
    assert_eq!(states(&sadb), [SlotState::Standby, SlotState::Standby]);
    for set in [1, 2, 1] {
        let changes = sadb.activate(SetId(set)).unwrap();
        assert!(matches!(changes[0], Change::Select { slot, .. } if u64::from(slot) == set + 1));
    }
    assert_eq!(states(&sadb), [SlotState::Live, SlotState::Standby]);
    // The successor knows which one was the last.
    let after = successor(&sadb);
    assert_eq!(states(&after.sadb), [SlotState::Live, SlotState::Standby]);
    // Also where the crash came between the two steps of the switch.
    sadb.region()
        .slot(3)
        .unwrap()
        .hot()
        .set_state(SlotState::Live);
    let after = successor(&sadb);
    assert_eq!(states(&after.sadb), [SlotState::Live, SlotState::Standby]);
}

/// What a worker that starts anew is given.
#[test]
fn what_a_worker_has_is_said_again_as_it_is_now() {
    let mut sadb = Sadb::create(16, 64).unwrap();
    let suite = Suite::HmacSha1Null;
    for (set, first) in [(1, 400), (2, 500), (3, 600)] {
        let spis = [first, first + 1, first + 2, first + 3];
        sadb.install(SetId(set), &four(suite, spis, set as u8))
            .unwrap();
        sadb.activate(SetId(set)).unwrap();
    }
    sadb.activate(SetId(1)).unwrap();
    sadb.retire(SetId(2));
    sadb.remove(SetId(3));
    let all: Vec<_> = sadb.loaded().collect();
    // What is being removed is not among them.
    let of = |set| all.iter().filter(move |sa| sa.set == SetId(set));
    assert_eq!([of(1).count(), of(2).count(), of(3).count()], [4, 4, 0]);
    for sa in &all {
        // Only what sends, sends; a retired set accepts and no more.
        let sends = sa.set == SetId(1) && sa.dir == Dir::Out;
        assert_eq!(sa.active.is_some(), sends, "slot {}", sa.slot);
        let partners = of(sa.set.0).filter(|p| p.dir == Dir::Out).map(|p| p.slot);
        assert_eq!(*sa.partners, partners.collect::<Vec<_>>());
    }
}

#[test]
fn gcm_and_gmac_want_four_distinct_spis() {
    for suite in [Suite::NullAesGcm, Suite::AesGmacNull] {
        let mut sadb = Sadb::create(8, 64).unwrap();
        let error = sadb
            .install(SetId(1), &four(suite, [300, 301, 302, 300], 1))
            .unwrap_err();
        assert_eq!(error, SadbError::KeyInUse { spi: 300, suite });
        assert_eq!((sadb.free(), sadb.list().count()), (8, 0));
        // Also across sets, in either direction.
        sadb.install(SetId(1), &four(suite, [300, 301, 302, 303], 1))
            .unwrap();
        let error = sadb
            .install(SetId(2), &[sa(Dir::Out, suite, 301, 1)])
            .unwrap_err();
        assert_eq!(error, SadbError::KeyInUse { spi: 301, suite });
        sadb.install(SetId(2), &[sa(Dir::Out, suite, 301, 2)])
            .unwrap();
    }
}

#[test]
fn one_destination_and_spi_is_one_sa() {
    let mut sadb = Sadb::create(8, 64).unwrap();
    for dir in [Dir::In, Dir::Out] {
        let one = sa(dir, Suite::HmacSha1AesCbc, 300, 1);
        let dst = one.spec.selector.dst;
        sadb.install(sadb.new_set(), std::slice::from_ref(&one))
            .unwrap();
        let mut other = sa(dir, Suite::HmacSha1Null, 300, 2);
        let set = sadb.new_set();
        let error = sadb.install(set, std::slice::from_ref(&other)).unwrap_err();
        assert_eq!(error, SadbError::Duplicate { spi: 300, dst });
        other.spec.selector.dst = [192, 0, 2, 200].into();
        sadb.install(set, &[other]).unwrap();
    }
}

#[test]
fn phones_behind_one_nat_may_choose_one_spi() {
    let mut sadb = Sadb::create(16, 64).unwrap();
    let behind_nat = |key: u8, port: Option<u16>| {
        let mut new = sa(Dir::Out, Suite::HmacSha1AesCbc, 300, key);
        new.spec.mode = Mode::UdpEncTun;
        new.spec.outer = Some(Outer {
            src: US.into(),
            dst: [203, 0, 113, 9].into(),
            sport: Some(4500),
            dport: port,
        });
        new
    };
    for (set, port) in [(1, Some(40_000)), (2, Some(40_001)), (3, None), (4, None)] {
        sadb.install(SetId(set), &[behind_nat(set as u8, port)])
            .unwrap();
    }
    let same_port = sadb.install(SetId(5), &[behind_nat(5, Some(40_000))]);
    assert!(matches!(same_port, Err(SadbError::Duplicate { .. })));
    let ports: Vec<_> = sadb.list().map(|row| row.encap_port).collect();
    assert_eq!(ports, [Some(40_000), Some(40_001), None, None]);
}

#[test]
fn numbers_go_on_where_the_same_key_and_spi_stopped() {
    let mut sadb = Sadb::create(4, 64).unwrap();
    let out = |first| NewSa {
        first_seq: first,
        ..sa(Dir::Out, Suite::NullAesGcm, 400, 1)
    };
    sadb.install(SetId(1), &[out(Some(10))]).unwrap();
    let seq = |sadb: &Sadb| sadb.list().next().unwrap().seq;
    assert_eq!(seq(&sadb), 9);
    sadb.region().slot(2).unwrap().hot().seq.store(500, Relaxed);
    gone(&mut sadb, 1);
    for first in [None, Some(1), Some(501)] {
        sadb.install(SetId(2), &[out(first)]).unwrap();
        assert_eq!(seq(&sadb), 500);
        gone(&mut sadb, 2);
    }
    // After a crash, too.
    let mut sadb = successor(&sadb).sadb;
    sadb.install(SetId(3), &[out(None)]).unwrap();
    assert_eq!(seq(&sadb), 500);
    gone(&mut sadb, 3);
    sadb.install(SetId(4), &[out(Some(900))]).unwrap();
    assert_eq!(seq(&sadb), 899);
    // Another key begins anew; a used up one is refused.
    sadb.install(SetId(5), &[sa(Dir::Out, Suite::NullAesGcm, 401, 2)])
        .unwrap();
    sadb.region()
        .slot(sadb.list_set(SetId(4)).next().unwrap().slot)
        .unwrap()
        .hot()
        .seq
        .store(u32::MAX.into(), Relaxed);
    gone(&mut sadb, 4);
    assert_eq!(
        sadb.install(SetId(6), &[out(None)]).unwrap_err(),
        SadbError::UsedUp { spi: 400 }
    );
}

#[test]
fn what_an_inbound_sa_has_accepted_it_does_not_accept_again() {
    let mut sadb = Sadb::create(4, 64).unwrap();
    let new = NewSa {
        first_seq: Some(1000),
        ..sa(Dir::In, Suite::HmacSha1AesCbc, 300, 1)
    };
    sadb.install(SetId(1), &[new]).unwrap();
    let slot = sadb.region().slot(0).unwrap();
    let window = Window::new(&slot.hot().top, slot.window_bits(), 64).unwrap();
    for old in 936..1000 {
        assert_eq!(
            window.check(old),
            Err(if old < 936 {
                Reason::Stale
            } else {
                Reason::Replay
            }),
            "{old}"
        );
    }
    for fresh in (1000..1100).rev() {
        if 1099 - fresh < 64 {
            assert_eq!(window.commit(fresh), Ok(()), "{fresh}");
        }
    }
}

#[test]
fn a_set_is_installed_whole_or_not() {
    let mut sadb = Sadb::create(8, 64).unwrap();
    let reserved = sadb.reserve(&[]).unwrap();
    let good = four(Suite::NullAesGcm, [reserved.spi, 301, 302, 303], 1);
    for place in 0..4 {
        let mut bad = good.clone();
        bad[place].spec.spi = 255;
        let error = sadb.install(SetId(1), &bad).unwrap_err();
        assert_eq!(
            error,
            SadbError::Sa {
                spi: 255,
                reason: SaError::ReservedSpi(255)
            }
        );
        let mut bad = good.clone();
        bad[place].first_seq = Some(0);
        assert!(matches!(
            sadb.install(SetId(1), &bad),
            Err(SadbError::FirstSeq { first: 0, .. })
        ));
        let mut bad = good.clone();
        bad[place].first_seq = Some(1 << 32);
        assert!(matches!(
            sadb.install(SetId(1), &bad),
            Err(SadbError::FirstSeq { .. })
        ));
        let mut bad = good.clone();
        bad[place].spec.replay_window = 128;
        assert!(matches!(
            sadb.install(SetId(1), &bad),
            Err(SadbError::Window {
                size: 128,
                max: 64,
                ..
            })
        ));
        assert_eq!((sadb.free(), sadb.list().count()), (7, 0));
    }
    // Not enough room for outbound SAs: 4 slots for 5.
    let mut many = good.clone();
    many.extend((310..313).map(|spi| sa(Dir::Out, Suite::NullAesGcm, spi, 1)));
    assert_eq!(
        sadb.install(SetId(1), &many).unwrap_err(),
        SadbError::Full {
            wanted: 7,
            slots: 8
        }
    );
    assert_eq!(sadb.free(), 7);
    many.pop();
    assert_eq!(
        sadb.install(SetId(1), &many).unwrap().slots,
        [0, 1, 4, 5, 6, 7]
    );
}

#[test]
fn a_set_number_means_one_set() {
    let mut sadb = Sadb::create(8, 64).unwrap();
    let set = [sa(Dir::In, Suite::NullAesGcm, 300, 1)];
    assert_eq!(
        sadb.install(SetId(0), &set).unwrap_err(),
        SadbError::SetZero
    );
    assert_eq!(
        sadb.install(SetId(7), &[]).unwrap_err(),
        SadbError::Count(SetId(7))
    );
    sadb.install(SetId(1), &set).unwrap();
    assert!(sadb.install(SetId(1), &set).unwrap().changes.is_empty());
    for other in [
        sa(Dir::In, Suite::NullAesGcm, 300, 2),
        sa(Dir::In, Suite::NullAesGcm, 301, 1),
    ] {
        assert_eq!(
            sadb.install(SetId(1), &[other]).unwrap_err(),
            SadbError::SetExists(SetId(1))
        );
    }
    let chosen: Vec<SetId> = (0..5).map(|_| sadb.new_set()).collect();
    assert!(chosen.iter().all(|s| *s != SetId(1)) && chosen.is_sorted());
    assert_eq!(sadb.find(300, US.into()), Some(SetId(1)));
    assert_eq!(sadb.find(300, PHONE.into()), None);
}

/// GMAC is GCM without a plaintext: with one key their nonces meet.
#[test]
fn one_key_in_gcm_and_gmac_is_one_key() {
    let key = [7; 16];
    let mut gcm = sa(Dir::Out, Suite::NullAesGcm, 300, 1);
    gcm.keys = EspKeys::explicit(Suite::NullAesGcm, None, Some(&key), Some(&[1; 4])).unwrap();
    let mut gmac = sa(Dir::In, Suite::AesGmacNull, 300, 1);
    gmac.keys = EspKeys::explicit(Suite::AesGmacNull, Some(&key), None, Some(&[1; 4])).unwrap();
    let in_use = SadbError::KeyInUse {
        spi: 300,
        suite: Suite::AesGmacNull,
    };

    let mut sadb = Sadb::create(8, 64).unwrap();
    sadb.install(SetId(1), std::slice::from_ref(&gcm)).unwrap();
    let refused = sadb.install(SetId(2), std::slice::from_ref(&gmac));
    assert_eq!(refused.unwrap_err(), in_use);
    gmac.keys = EspKeys::explicit(Suite::AesGmacNull, Some(&key), None, Some(&[2; 4])).unwrap();
    sadb.install(SetId(2), &[gmac]).unwrap();
}

/// A worker that did not hear of a step must hear of it when the command is
/// repeated: it would send with numbers that the release has wiped.
#[test]
fn what_did_not_get_through_is_said_again() {
    let mut sadb = Sadb::create(8, 64).unwrap();
    let set = four(Suite::NullAesGcm, [300, 301, 302, 303], 1);
    sadb.install(SetId(1), &set).unwrap();
    let steps = |changes: Vec<Change>| -> Vec<String> {
        changes.iter().map(|c| format!("{c:?}")).collect()
    };

    let first = steps(sadb.activate(SetId(1)).unwrap());
    assert_eq!(first, ["Select(4)", "Select(5)"]);
    assert_eq!(steps(sadb.activate(SetId(1)).unwrap()), first);

    let first = steps(sadb.retire(SetId(1)));
    assert_eq!(first, ["Deselect(4)", "Deselect(5)"]);
    assert_eq!(steps(sadb.retire(SetId(1))), first);
    // It is on its way out, not installed.
    assert_eq!(
        sadb.install(SetId(1), &set).unwrap_err(),
        SadbError::Retired(SetId(1))
    );

    let first = steps(sadb.remove(SetId(1)));
    for step in ["Unpublish(0)", "Unpublish(1)", "Forget(4)", "Forget(5)"] {
        assert!(first.iter().any(|s| s == step), "{first:?}");
    }
    assert_eq!(steps(sadb.remove(SetId(1))), first);
    sadb.release(SetId(1)).unwrap();
    assert!(sadb.remove(SetId(1)).is_empty());
}

#[test]
fn what_was_half_done_is_rolled_back() {
    for (at, state) in [
        (1, SlotState::Installing),
        (4, SlotState::Removing),
        (5, SlotState::Free),
    ] {
        let mut sadb = Sadb::create(8, 64).unwrap();
        sadb.reserve(&[]).unwrap();
        sadb.install(SetId(1), &four(Suite::NullAesGcm, [300, 301, 302, 303], 1))
            .unwrap();
        sadb.install(SetId(2), &[sa(Dir::In, Suite::HmacSha1Null, 310, 2)])
            .unwrap();
        let used = sadb.region().slot(4).unwrap();
        used.hot().seq.store(44, Relaxed);
        sadb.region().slot(at).unwrap().hot().set_state(state);
        let Recovered {
            mut sadb,
            changes,
            rolled_back,
        } = successor(&sadb);
        // The reservation and the set that is not whole.
        let free = u32::from(state == SlotState::Free);
        assert_eq!(rolled_back, 5 - free, "{state:?}");
        assert_eq!(
            sadb.list().map(|row| row.set).collect::<Vec<_>>(),
            [SetId(2)]
        );
        assert_eq!(changes.len(), 2);
        assert_eq!(sadb.free(), 7);
        assert_eq!(
            sadb.region().common(0).unwrap().key_material().encryption,
            [0; 24]
        );
        // Its numbers are not forgotten with it.
        sadb.install(SetId(3), &four(Suite::NullAesGcm, [300, 301, 302, 303], 1))
            .unwrap();
        assert_eq!(sadb.list_set(SetId(3)).nth(2).unwrap().seq, 44);
    }
}

#[test]
fn a_retire_that_was_under_way_is_finished() {
    let mut sadb = Sadb::create(4, 64).unwrap();
    sadb.install(SetId(1), &four(Suite::NullAesGcm, [300, 301, 302, 303], 1))
        .unwrap();
    sadb.activate(SetId(1)).unwrap();
    sadb.region()
        .slot(0)
        .unwrap()
        .hot()
        .set_state(SlotState::Retiring);
    let Recovered {
        mut sadb, changes, ..
    } = successor(&sadb);
    assert!(sadb.list().all(|row| row.state == SlotState::Retiring));
    assert!(!changes.iter().any(|c| matches!(c, Change::Select { .. })));
    assert_eq!(
        sadb.activate(SetId(1)).unwrap_err(),
        SadbError::Retired(SetId(1))
    );
}

#[test]
fn a_successor_opens_and_seals_with_the_same_keys() {
    for suite in Suite::every() {
        let mut sadb = Sadb::create(4, 64).unwrap();
        let set = four(suite, [300, 301, 302, 303], 7);
        sadb.install(SetId(1), &set).unwrap();
        let mut after = successor(&sadb).sadb;
        // The same SAs again are the same set: specification and keys agree.
        assert!(
            after.install(SetId(1), &set).unwrap().changes.is_empty(),
            "{suite}"
        );
        assert_eq!(
            after.list().collect::<Vec<_>>(),
            sadb.list().collect::<Vec<_>>()
        );
    }
}

#[test]
fn spis_of_one_slot_differ_and_wrap_within_their_range() {
    let mut sadb = Sadb::create(1 << 20, 64).unwrap();
    let first = sadb.reserve(&[]).unwrap();
    assert_eq!(first.spi, 1_000_000_000);
    let hot = sadb.region().slot(1).unwrap().hot();
    let last_generation = ((1u64 << 32) - 1_000_000_000) as u32 / (1 << 19) - 1;
    // One more than the generation: 0 is a slot that has had no SPI.
    hot.generation.store(last_generation + 1, Relaxed);
    let last = sadb.reserve(&[]).unwrap();
    assert_eq!(last.spi, 1_000_000_001 + last_generation * (1 << 19));
    assert_eq!(
        sadb.region()
            .slot(1)
            .unwrap()
            .hot()
            .generation
            .load(Relaxed),
        1
    );
    // One that somebody else uses is left out.
    let foreign = sa(Dir::Out, Suite::NullAesGcm, 1_000_000_002, 1);
    sadb.install(SetId(1), &[foreign]).unwrap();
    assert_eq!(sadb.reserve(&[]).unwrap().spi, 1_000_000_002 + (1 << 19));
    assert_eq!(
        sadb.reserve(&[1_000_000_003]).unwrap().spi,
        1_000_000_003 + (1 << 19)
    );
}

#[test]
fn no_debug_output_and_no_error_shows_a_key() {
    let mut sadb = Sadb::create(4, 64).unwrap();
    let set = four(Suite::HmacSha1AesCbc, [300, 301, 302, 303], 0xa5);
    let installed = sadb.install(SetId(1), &set).unwrap();
    let error = sadb.install(SetId(2), &set).unwrap_err();
    let rows: Vec<_> = sadb.list().collect();
    let shown = format!("{set:?} {installed:?} {rows:?} {error} {error:?}");
    for secret in ["a5a5", "165, 165", "5a5a", "90, 90"] {
        assert!(!shown.to_lowercase().contains(secret), "{shown}");
    }
}

#[test]
fn scattered_spis_stay_in_their_range_and_begin_apart() {
    let begin = |seed| {
        let mut sadb = Sadb::create(64, 64).unwrap();
        sadb.scatter_spis(seed);
        let spis: Vec<u32> = (0..32).map(|_| sadb.reserve(&[]).unwrap().spi).collect();
        for spi in &spis {
            assert!(*spi >= gm_abi::maps::SPI_BASE);
        }
        let slots: std::collections::BTreeSet<u32> = spis
            .iter()
            .map(|spi| (spi - gm_abi::maps::SPI_BASE) % 32)
            .collect();
        assert_eq!(slots.len(), 32, "an SPI still names its slot");
        spis
    };
    let (one, other) = (begin(1), begin(0xffff_fff0));
    assert!(one.iter().all(|spi| !other.contains(spi)));
    let far = |w: &[u32]| w[0].abs_diff(w[1]) > 1_000_000;
    assert!(
        one.windows(2).filter(|w| far(w)).count() > 24,
        "neighbours begin far apart"
    );
}
