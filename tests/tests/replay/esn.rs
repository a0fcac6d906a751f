//! Extended sequence numbers, for SAs that are set up by hand (RFC 4303 2.2.1, Appendix A).

use gm_dataplane::{Event, Reason};
use gm_esp::Suite;

use crate::far::Far;
use crate::lab::{ByHand, Family, Lab, PORT_PS, PORT_UC};
use crate::sockets::{grows, pass, silent, udp};

const EDGE: u64 = 1 << 32;

/// Where the IV has no room for the number, or none depends on it.
const LONG: [Suite; 2] = [Suite::HmacSha1AesCbc, Suite::HmacSha1Null];

#[test]
#[ignore = "root: namespaces, BPF"]
fn traffic_goes_on_both_ways_when_the_low_half_wraps() {
    for suite in LONG {
        for family in [Family::V4, Family::V6] {
            let lab = Lab::new(None);
            lab.install_hand(ByHand {
                suite,
                family,
                esn: true,
                window: 64,
                first_seq: EDGE - 4,
            });
            let (p, u) = family.addresses();
            let (ps, uc) = (
                lab.p.ns.run(|| udp(p, PORT_PS)),
                lab.u.ns.run(|| udp(u, PORT_UC)),
            );
            // The tenth and later ones are in fragments.
            for n in 1..=12 {
                pass(&uc, &ps, 10 + n * n * n);
                pass(&ps, &uc, 10 + n * n * n);
            }
            for (side, sent, heard) in [(&lab.p, 0x2002, 0x1001), (&lab.u, 0x1001, 0x2002)] {
                let rows = side.plane.list();
                let row = |spi| rows.iter().find(|r| r.spec.spi == spi).unwrap();
                assert_eq!(row(sent).seq, EDGE + 7, "{suite}");
                assert_eq!(row(heard).top, EDGE + 7, "{suite}");
                assert_eq!(row(heard).drops, []);
                let events: Vec<Event> = side.plane.events().try_iter().collect();
                assert_eq!(events, [], "2^32 is no end");
            }
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn the_window_reaches_over_the_boundary() {
    for suite in LONG {
        for window in [32, 64, 4096] {
            let far = Far::new();
            let sa = far.install(suite, window, true);
            let size = u64::from(window);
            // Up to the boundary, over it, and back behind it as far as the window reaches.
            let sent = [
                EDGE - 100,
                EDGE - 2,
                EDGE + 5,
                EDGE - 1,
                EDGE + 6 - size,
                EDGE,
                EDGE + 2,
            ];
            let came = far.carry_singly(&sa.packets(sent));
            assert_eq!(came, sent, "{suite} {window}");
            // None of both halves comes twice.
            let again = sent.into_iter().filter(|seq| *seq + size > EDGE + 5);
            let again: Vec<u64> = again.collect();
            assert_eq!(far.carry(&sa.packets(again.iter().copied())), []);
            assert_eq!(far.drops(&sa, Reason::Replay), again.len() as u64);
            // Left of the window is taken for the next turn of the low half, where the ICV does
            // not hold; and the low half alone does not make it new.
            let left = EDGE + 5 - size;
            let before = far.drops(&sa, Reason::BadIcv);
            assert_eq!(far.carry(&sa.packets([left, EDGE - 5000])), []);
            assert_eq!(far.drops(&sa, Reason::BadIcv), before + 2);
            assert_eq!(far.row(&sa).top, EDGE + 5);
            // A jump within the new half, and its own edge.
            let top = EDGE + 1_000_000;
            let jump = [top, top - size + 1];
            assert_eq!(far.carry(&sa.packets(jump)), jump);
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn where_the_nonce_has_no_room_for_it_2_to_the_32_is_the_end() {
    for suite in [Suite::NullAesGcm, Suite::AesGmacNull] {
        let lab = Lab::new(None);
        lab.install_hand(ByHand {
            suite,
            esn: true,
            window: 64,
            first_seq: EDGE - 2,
            ..ByHand::default()
        });
        let (p, u) = Family::V4.addresses();
        let (ps, uc) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.u.ns.run(|| udp(u, PORT_UC)),
        );
        pass(&uc, &ps, 100);
        pass(&uc, &ps, 101);
        uc.send_to(b"one too many", (p, PORT_PS)).unwrap();
        grows(&lab.u.plane, Reason::OutSeqExhausted, 0, 1);
        silent(&ps);
    }
}
