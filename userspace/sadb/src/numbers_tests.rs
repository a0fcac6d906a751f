use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use gm_esp::{Ck, Ik, Mode, SelProto, Selector, Suite};
use proptest::prelude::*;

use super::*;
use crate::types::NewSa;

const SET: SetId = SetId(7);

/// An inbound and an outbound SA.
fn pair(suite: Suite, window: u32, esn: bool) -> Vec<NewSa> {
    let (us, phone) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 77]));
    [(phone, us, 300, Dir::In), (us, phone, 400, Dir::Out)]
        .map(|(src, dst, spi, dir)| NewSa {
            spec: SaSpec {
                spi,
                mode: Mode::Trans,
                selector: Selector {
                    src,
                    dst,
                    src_port: Some(5060),
                    dst_port: Some(5061),
                    proto: SelProto::UdpTcp,
                },
                suite,
                outer: None,
                esn,
                replay_window: window,
            },
            keys: EspKeys::expand(suite, &Ik::from_bytes([1; 16]), &Ck::from_bytes([2; 16])),
            dir,
            first_seq: None,
        })
        .to_vec()
}

fn closed(window: u32, esn: bool) -> Sadb {
    let suite = if esn {
        Suite::HmacSha1Null
    } else {
        Suite::NullAesGcm
    };
    let mut sadb = Sadb::create(2, 4096).unwrap();
    sadb.install(SET, &pair(suite, window, esn)).unwrap();
    sadb.close(SET).unwrap();
    sadb
}

fn numbers(last_in: u64, seen: Vec<u64>, last_out: u64) -> [Numbers; 2] {
    let out = Numbers {
        last: last_out,
        seen: Vec::new(),
    };
    [
        Numbers {
            last: last_in,
            seen,
        },
        out,
    ]
}

fn gone(sadb: &mut Sadb) {
    sadb.remove(SET);
    sadb.release(SET).unwrap();
}

fn window(sadb: &Sadb, size: u32) -> Window<'_> {
    let at = sadb.region().slot(0).unwrap();
    Window::new(&at.hot().top, at.window_bits(), size).unwrap()
}

#[test]
fn a_closed_set_accepts_no_number_and_has_none() {
    for esn in [false, true] {
        let sadb = closed(64, esn);
        let window = window(&sadb, 64);
        for low in [0, 1, 64, u32::MAX] {
            let seq = if esn {
                window.full_seq(low)
            } else {
                low.into()
            };
            assert!(window.check(seq).is_err(), "{low}");
        }
        let out = sadb.region().slot(1).unwrap().hot();
        let limit = if esn { u64::MAX } else { u64::from(u32::MAX) };
        assert!(gm_esp::Counter(&out.seq).next(limit).is_err());
        assert!(sadb.is_closed(0));
        assert_eq!(sadb.handover(SET).unwrap_err(), SadbError::Retired(SET));
    }
}

#[test]
fn spis_below_256_are_only_taken_over() {
    let mut sadb = Sadb::create(2, 64).unwrap();
    let mut low = pair(Suite::HmacSha1Null, 64, false);
    low[0].spec.spi = 100;
    let refused = gm_esp::SaError::ReservedSpi(100);
    let made = sadb.install(SET, &low).map(drop);
    assert_eq!(
        made,
        Err(SadbError::Sa {
            spi: 100,
            reason: refused
        })
    );
    sadb.install_closed(SET, &low).unwrap();
    assert_eq!(
        sadb.install_closed(SET, &low).map(drop),
        Err(SadbError::SetExists(SET))
    );
    sadb.open(SET, &numbers(9, vec![1], 9)).unwrap();
    // Who takes over from a predecessor finds it, too.
    let fd = rustix::io::dup(sadb.region().fd()).unwrap();
    let next = Sadb::recover(gm_region::Region::adopt(fd).unwrap());
    assert_eq!((next.rolled_back, next.sadb.list().count()), (0, 2));
    let mut zero = pair(Suite::HmacSha1Null, 64, false);
    zero[0].spec.spi = 0;
    assert!(sadb.install_closed(SetId(8), &zero).is_err());
}

#[test]
fn what_was_never_opened_leaves_no_trace() {
    let mut sadb = closed(64, false);
    gone(&mut sadb);
    sadb.install_closed(SET, &pair(Suite::NullAesGcm, 64, false))
        .unwrap();
    sadb.open(SET, &numbers(1, vec![1], 1)).unwrap();
}

#[test]
fn numbers_that_were_used_here_do_not_come_back() {
    let mut sadb = closed(64, false);
    sadb.open(SET, &numbers(500, vec![!0], 900)).unwrap();
    gone(&mut sadb);
    sadb.install_closed(SET, &pair(Suite::NullAesGcm, 64, false))
        .unwrap();
    for (back, spi) in [
        (numbers(499, vec![!0], 900), 300),
        (numbers(500, vec![!0], 899), 400),
    ] {
        assert_eq!(sadb.open(SET, &back), Err(SadbError::NumbersBack { spi }));
        assert!(sadb.is_closed(0), "nothing has changed");
    }
    sadb.open(SET, &numbers(500, vec![!0], 900)).unwrap();
}

#[test]
fn numbers_that_are_used_up_are_refused() {
    let mut sadb = closed(64, false);
    let used = numbers(5, vec![], u32::MAX.into());
    assert_eq!(sadb.open(SET, &used), Err(SadbError::UsedUp { spi: 400 }));
    assert_eq!(
        sadb.open(SET, &used[..1]),
        Err(SadbError::Count(SET)),
        "one SA has no numbers"
    );
    let unknown = SetId(8);
    assert_eq!(
        sadb.open(unknown, &used),
        Err(SadbError::UnknownSet(unknown))
    );
}

#[test]
fn the_next_number_is_the_one_after_the_last() {
    let mut sadb = closed(64, false);
    sadb.open(SET, &numbers(0, vec![], 4711)).unwrap();
    let hot = sadb.region().slot(1).unwrap().hot();
    assert_eq!(gm_esp::Counter(&hot.seq).next(u32::MAX.into()), Ok(4712));
    // Nothing has come in yet: the first number is welcome.
    assert_eq!(window(&sadb, 64).check(1), Ok(()));
    hot.encap_port.store(40_000, Relaxed);
    let handed = sadb.handover(SET).unwrap();
    assert_eq!(handed[1].numbers.last, 4712);
    assert_eq!(handed[1].encap_port, Some(40_000));
    assert_eq!(
        handed[0].numbers,
        Numbers {
            last: 0,
            seen: vec![0]
        }
    );
    let shown = format!("{handed:?}");
    assert!(
        !shown.contains("[1, 1") && !shown.contains("0101"),
        "{shown}"
    );
}

#[test]
fn a_larger_window_refuses_what_nobody_knows_of() {
    let mut sadb = closed(256, false);
    // Of 1000, 999 .. 969 the other one knows: 32 bits in a word of 64.
    let mut word = !0u64;
    word &= !(1 << 3);
    sadb.open(SET, &numbers(1000, vec![word], 1)).unwrap();
    let window = window(&sadb, 256);
    assert_eq!(window.check(997), Ok(()));
    for back in (0..256).filter(|back| *back != 3) {
        assert_eq!(window.check(1000 - back), Err(Reason::Replay), "{back}");
    }
    assert_eq!(window.check(744), Err(Reason::Stale));
    assert_eq!(window.check(1001), Ok(()));
}

proptest! {
    /// Whatever was accepted there is accepted or refused here as it was there,
    /// and the same comes back.
    #[test]
    fn windows_go_over_to_the_bit(
        size in prop::sample::select(vec![32u32, 64, 100, 128, 4096]),
        last in prop_oneof![0..10_000u64, (1u64 << 32) - 5000..(1u64 << 32) - 2],
        words in prop::collection::vec(any::<u64>(), 64),
        esn in any::<bool>(),
    ) {
        let last = if esn { last + (7 << 32) } else { last };
        let mut sadb = closed(size, esn);
        let mut given = numbers(last, words, 3);
        given[0].seen.truncate((size as usize).div_ceil(64));
        sadb.open(SET, &given).unwrap();
        let window = window(&sadb, size);
        for back in 0..u64::from(size).min(last) {
            let want = if given[0].has_seen(back) { Err(Reason::Replay) } else { Ok(()) };
            prop_assert_eq!(window.check(last - back), want);
        }
        prop_assert_eq!(window.top(), last);
        let back = sadb.handover(SET).unwrap().swap_remove(0).numbers;
        prop_assert_eq!(back.last, last);
        for i in 0..u64::from(size).min(last) {
            prop_assert_eq!(back.has_seen(i), given[0].has_seen(i));
        }
    }
}
