//! Fragments: made after sealing, put together before opening, whatever the network does to them.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

use gm_dataplane::{Direction, Reason};
use gm_esp::{Mode, Suite};

use crate::lab::{Family, Lab, PORT_PS, PORT_UC};
use crate::middle::{Dice, Middle, Out, P, U, fragment, ip_of, is_esp};
use crate::sockets::{WAIT, count, fix_ipv4, grows, pass, silent, udp};
use crate::{FAMILIES, pause, through_a_box};

/// The sockets behind port_ps and port_uc.
fn sockets(lab: &Lab, family: Family) -> (UdpSocket, UdpSocket) {
    let (p, u) = family.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    (ps, uc)
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_register_of_any_usual_size_is_sealed_once_and_then_cut() {
    let lab = Lab::new(None);
    for family in FAMILIES {
        let sets = lab.install(Suite::HmacSha1AesCbc, family);
        let (ps, uc) = sockets(&lab, family);
        let (tap, captured) = crossbeam::channel::unbounded();
        lab.u.plane.tap(Some(tap)).unwrap();
        let mut cut = 0;
        for len in 1400..=2100 {
            pass(&uc, &ps, len);
            pause(len);
            let frames: Vec<_> = captured
                .try_iter()
                .filter(|seen| seen.direction == Direction::Out)
                .collect();
            let parts: Vec<_> = frames.iter().map(|f| ip_of(&f.frame).unwrap()).collect();
            assert!(parts.iter().all(|ip| ip.end - ip.l3 <= 1500), "{len}");
            assert!(parts.iter().all(|ip| ip.proto == 50), "{len}: not ESP");
            match parts[..] {
                [one] => assert!(one.frag.is_none()),
                [first, last] => {
                    cut += 1;
                    assert!(first.frag.is_some_and(|f| f.offset == 0 && f.more));
                    assert!(last.frag.is_some_and(|f| f.offset > 0 && !f.more));
                }
                _ => panic!("{len}: {} frames", parts.len()),
            }
        }
        // From where 1500 bytes do not hold it, sealed.
        let fits = if family == Family::V4 { 31 } else { 15 };
        assert_eq!(cut, 701 - fits);
        // One number for each.
        let rows = lab.u.plane.list();
        let sent = rows
            .iter()
            .find(|r| r.set == sets[1] && r.spec.selector.src_port == Some(PORT_UC))
            .unwrap();
        assert_eq!((sent.seq, sent.packets), (701, 701));
        // And back.
        for len in (1400..=2100).step_by(7) {
            pass(&ps, &uc, len);
        }
        lab.u.plane.tap(None).unwrap();
    }
}

/// Holds fragments back until `datagrams` are there whole, then lets `change` have them. What is
/// no fragment goes through.
fn gather(
    middle: &Middle,
    datagrams: usize,
    mut change: impl FnMut(Vec<Vec<u8>>) -> Vec<Vec<u8>> + Send + 'static,
) {
    let mut held: [Vec<Vec<u8>>; 2] = Default::default();
    middle.set(move |leg, frame| {
        if fragment(&frame).is_none() {
            return vec![(1 - leg, frame)];
        }
        let held = &mut held[leg];
        held.push(frame);
        // They come in order: the last of each says that it is whole.
        if held.iter().filter(|f| fragment(f) == Some(true)).count() < datagrams {
            return Out::new();
        }
        let changed = change(std::mem::take(held));
        changed.into_iter().map(|f| (1 - leg, f)).collect()
    });
}

/// Sends datagrams of these sizes and expects all of them, in any order.
fn pass_mixed(from: &UdpSocket, to: &UdpSocket, sizes: &[usize]) {
    let bytes = |len: &usize| -> Vec<u8> { (0..*len).map(|i| (i * 7 + len) as u8).collect() };
    for len in sizes {
        from.send_to(&bytes(len), to.local_addr().unwrap()).unwrap();
    }
    let mut came: Vec<Vec<u8>> = sizes
        .iter()
        .map(|_| {
            let mut got = vec![0; 65_536];
            let n = to.recv(&mut got).unwrap();
            got.truncate(n);
            got
        })
        .collect();
    let mut want: Vec<Vec<u8>> = sizes.iter().map(bytes).collect();
    came.sort();
    want.sort();
    assert!(came == want, "other bytes");
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn fragments_in_any_order_of_several_datagrams_come_together() {
    let (lab, middle) = through_a_box();
    let sizes = [1500, 3000, 9000, 20_000, 1473, 40_000];
    for (family, mode) in [
        (Family::V4, Mode::Trans),
        (Family::V6, Mode::Trans),
        (Family::V4, Mode::UdpEncTun),
        (Family::V6, Mode::UdpEncTun),
    ] {
        let sets = lab.install_as(Suite::HmacSha1AesCbc, family, mode);
        let (ps, uc) = sockets(&lab, family);
        pass(&uc, &ps, 1);
        let mut dice = Dice(0x4711);
        gather(&middle, sizes.len(), move |mut frames| {
            dice.shuffle(&mut frames);
            frames
        });
        for _ in 0..20 {
            pass_mixed(&uc, &ps, &sizes);
            pass_mixed(&ps, &uc, &sizes);
            pause(0);
        }
        // Backwards.
        gather(&middle, 1, |frames| frames.into_iter().rev().collect());
        for len in [1500, 65_000] {
            pass(&uc, &ps, len);
            pass(&ps, &uc, len);
        }
        middle.clear();
        for (side, set) in [&lab.p, &lab.u].into_iter().zip(sets) {
            side.plane.remove(set).unwrap();
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn fragments_that_come_twice_change_nothing() {
    let (lab, middle) = through_a_box();
    for family in FAMILIES {
        lab.install(Suite::NullAesGcm, family);
        let (ps, uc) = sockets(&lab, family);
        // Each one at once again.
        gather(&middle, 1, |frames| {
            frames.into_iter().flat_map(|f| [f.clone(), f]).collect()
        });
        for len in [1500, 3000, 20_000] {
            pass(&uc, &ps, len);
            silent(&ps);
        }
        // All of them again when the datagram has been delivered: it is whole once more, and a
        // replay.
        let before = count(&lab.p.plane, Reason::Replay);
        gather(&middle, 1, |frames| [&frames[..], &frames[..]].concat());
        pass(&uc, &ps, 5000);
        grows(&lab.p.plane, Reason::Replay, before, 1);
        silent(&ps);
        middle.clear();
    }
}

/// Moves a fragment to an offset eight bytes before its own.
fn eight_earlier(frame: &[u8]) -> Vec<u8> {
    let ip = ip_of(frame).unwrap();
    let mut lie = frame.to_vec();
    let at = if ip.v6 { ip.l3 + 40 + 2 } else { ip.l3 + 6 };
    let word = u16::from_be_bytes([lie[at], lie[at + 1]]);
    // IPv4 counts in units of eight bytes, IPv6 keeps three bits for flags.
    let word = if ip.v6 { word - 8 } else { word - 1 };
    lie[at..at + 2].copy_from_slice(&word.to_be_bytes());
    if !ip.v6 {
        fix_ipv4(&mut lie[ip.l3..]);
    }
    lie
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn an_overlap_ends_the_datagram_and_no_other() {
    let (lab, middle) = through_a_box();
    for family in FAMILIES {
        lab.install(Suite::HmacSha1Null, family);
        let (ps, uc) = sockets(&lab, family);
        for (n, to) in [(1, 1), (2, 2), (3, 1)] {
            let before = count(&lab.p.plane, Reason::FragmentOverlap);
            // One more fragment, in front of the last, that reaches into another.
            gather(&middle, 1, move |mut frames| {
                let lie = eight_earlier(&frames[to.min(frames.len() - 1)]);
                let last = frames.len() - 1;
                frames.insert(last, lie);
                frames
            });
            uc.send_to(&[n; 5000], ps.local_addr().unwrap()).unwrap();
            grows(&lab.p.plane, Reason::FragmentOverlap, before, 1);
            silent(&ps);
            middle.clear();
            pass(&uc, &ps, 5000);
        }
        // Behind the end that there is.
        gather(&middle, 1, |mut frames| {
            let tail = frames.pop().unwrap();
            let lie = eight_earlier(&tail);
            frames.insert(0, lie);
            frames.push(tail);
            frames
        });
        let before = count(&lab.p.plane, Reason::FragmentOverlap);
        uc.send_to(&[9; 3000], ps.local_addr().unwrap()).unwrap();
        grows(&lab.p.plane, Reason::FragmentOverlap, before, 1);
        silent(&ps);
        middle.clear();
        pass(&uc, &ps, 3000);
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn what_never_becomes_whole_ends_in_time() {
    let (lab, middle) = through_a_box();
    lab.install(Suite::NullAesGcm, Family::V4);
    let (ps, uc) = sockets(&lab, Family::V4);
    middle.set(|leg, frame| match fragment(&frame) {
        Some(true) => Out::new(),
        _ => vec![(1 - leg, frame)],
    });
    for len in [2000, 3000, 20_000] {
        uc.send_to(&vec![1; len], ps.local_addr().unwrap()).unwrap();
    }
    let end = std::time::Instant::now() + 3 * WAIT;
    while count(&lab.p.plane, Reason::FragmentTimeout) < 3 {
        assert!(std::time::Instant::now() < end, "they stay for ever");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    silent(&ps);
    middle.clear();
    pass(&uc, &ps, 20_000);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn an_icv_that_lies_across_two_fragments_is_verified_whole() {
    let (lab, middle) = through_a_box();
    for family in FAMILIES {
        for suite in Suite::every() {
            let sets = lab.install(suite, family);
            let (ps, uc) = sockets(&lab, family);
            let icv = suite.transform().icv_len();
            let cuts = Arc::new(Mutex::new(0));
            let made = cuts.clone();
            middle.set(move |leg, frame| {
                if leg == P || !is_esp(&frame) {
                    return vec![(1 - leg, frame)];
                }
                let pieces = cut_within(&frame, icv);
                *made.lock().unwrap() += 1;
                pieces.into_iter().map(|f| (1 - leg, f)).collect()
            });
            for len in 40..72 {
                pass(&uc, &ps, len);
            }
            assert_eq!(*cuts.lock().unwrap(), 32, "{suite}");
            middle.clear();
            for (side, set) in [&lab.p, &lab.u].into_iter().zip(sets) {
                side.plane.remove(set).unwrap();
            }
        }
    }
}

/// Cuts an ESP packet in two, within its ICV.
fn cut_within(frame: &[u8], icv: usize) -> [Vec<u8>; 2] {
    let ip = ip_of(frame).unwrap();
    let (head, esp) = (&frame[..ip.l4], &frame[ip.l4..ip.end]);
    // The last multiple of eight bytes in front of the end of ESP, which is less than eight from
    // it and so within the ICV.
    let first = (esp.len() - 1) / 8 * 8;
    assert!(esp.len() - icv < first && first < esp.len());
    [(0, first, 1), (first, esp.len(), 0)].map(|(from, to, more)| {
        let mut piece = head.to_vec();
        if ip.v6 {
            let payload = (8 + to - from) as u16;
            piece[ip.l3 + 4..ip.l3 + 6].copy_from_slice(&payload.to_be_bytes());
            piece[ip.l3 + 6] = 44;
            piece.extend([50, 0]);
            piece.extend((from as u16 | more).to_be_bytes());
            piece.extend(77u32.to_be_bytes());
        } else {
            let total = (20 + to - from) as u16;
            piece[ip.l3 + 2..ip.l3 + 4].copy_from_slice(&total.to_be_bytes());
            let place = (from / 8) as u16 | more << 13;
            piece[ip.l3 + 6..ip.l3 + 8].copy_from_slice(&place.to_be_bytes());
            fix_ipv4(&mut piece[ip.l3..]);
        }
        piece.extend_from_slice(&esp[from..to]);
        piece
    })
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_source_that_floods_with_beginnings_hinders_nobody_else() {
    let (lab, middle) = through_a_box();
    lab.install(Suite::NullAesGcm, Family::V4);
    let (ps, uc) = sockets(&lab, Family::V4);
    // A beginning of the phone's own kind, which somebody else sends under many names.
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    middle.set(move |leg, frame| {
        if leg == U && fragment(&frame) == Some(false) {
            keep.lock().unwrap().get_or_insert(frame.clone());
        }
        vec![(1 - leg, frame)]
    });
    pass(&uc, &ps, 3000);
    let mut flood = kept.lock().unwrap().take().unwrap();
    flood[14 + 15] = 66;
    let sent = 2000;
    for round in 0..10 {
        for n in 0..sent / 10 {
            let id = (round * 1000 + n) as u16;
            flood[14 + 4..14 + 6].copy_from_slice(&id.to_be_bytes());
            fix_ipv4(&mut flood[14..]);
            middle.inject(P, &flood);
        }
        pass(&uc, &ps, 3000);
        pass(&ps, &uc, 20_000);
    }
    // 512 KiB of it are kept, and the rest is not: XDP stops a source that sends too many at a
    // time, the worker one of whom it has enough.
    let refused: u64 = [Reason::FragmentLimit, Reason::FragmentRate]
        .map(|r| count(&lab.p.plane, r))
        .iter()
        .sum();
    let kept = sent as u64 - refused;
    assert!(kept * 1480 <= 512 << 10, "{kept} of them are kept");
}
