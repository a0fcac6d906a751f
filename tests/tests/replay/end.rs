//! The end of the numbers (RFC 4303 3.3.3).

use gm_dataplane::{Event, Reason};
use gm_esp::Suite;

use crate::far::Far;
use crate::lab::{ByHand, Family, Lab, PORT_PS, PORT_UC};
use crate::sockets::{WAIT, grows, pass, silent, udp};

const LAST: u64 = u32::MAX as u64;

#[test]
#[ignore = "root: namespaces, BPF"]
fn inbound_the_window_does_not_wrap() {
    for (suite, window) in [(Suite::NullAesGcm, 64), (Suite::HmacSha1AesCbc, 4096)] {
        let far = Far::new();
        let sa = far.install(suite, window, false);
        let size = u64::from(window);
        assert_eq!(
            far.carry(&sa.packets([LAST - 1, LAST, LAST - size + 1])),
            [LAST - 1, LAST, LAST - size + 1]
        );
        // What would come next is far to the left; 0 is no number.
        let wrapped: Vec<_> = [0, 1, 2, 63, 1 << 16, 1 << 31, LAST - size]
            .into_iter()
            .map(|low| match low {
                0 => {
                    // Nobody seals it: a number of its own, and zeros in its place.
                    let mut packet = sa.packet(1);
                    packet[14 + 20 + 4..14 + 20 + 8].fill(0);
                    packet
                }
                low => sa.packet(low),
            })
            .collect();
        assert_eq!(far.carry(&wrapped), []);
        assert_eq!(far.drops(&sa, Reason::Replay), 1);
        assert_eq!(far.drops(&sa, Reason::Stale), 6);
        assert_eq!(far.row(&sa).top, LAST);
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn outbound_stops_at_the_last_number_and_says_so() {
    let lab = Lab::new(None);
    lab.install_hand(ByHand {
        suite: Suite::NullAesGcm,
        first_seq: LAST - 2,
        window: 64,
        ..ByHand::default()
    });
    let (p, u) = Family::V4.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    for len in [10, 20, 30] {
        pass(&uc, &ps, len);
    }
    for n in 1..=3 {
        uc.send_to(b"one too many", (p, PORT_PS)).unwrap();
        grows(&lab.u.plane, Reason::OutSeqExhausted, n - 1, 1);
    }
    silent(&ps);
    // In fragments it is no other.
    uc.send_to(&[7; 4000], (p, PORT_PS)).unwrap();
    grows(&lab.u.plane, Reason::OutSeqExhausted, 3, 1);
    let rows = lab.u.plane.list();
    let out = rows.iter().find(|r| r.spec.spi == 0x1001).unwrap();
    assert_eq!((out.seq, out.packets), (LAST, 3));
    // Each is said once.
    let events: Vec<Event> = lab.u.plane.events().try_iter().collect();
    assert!(
        matches!(
            events[..],
            [
                Event::SeqLow {
                    spi: 0x1001,
                    remaining: 2,
                    ..
                },
                Event::Exhausted { spi: 0x1001, .. }
            ]
        ),
        "{events:?}"
    );
    // The other direction has numbers of its own.
    pass(&ps, &uc, 10);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn the_end_is_announced_a_million_packets_before() {
    let lab = Lab::new(None);
    let low = LAST - (1 << 20);
    lab.install_hand(ByHand {
        first_seq: low - 1,
        ..ByHand::default()
    });
    let (p, u) = Family::V4.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    let events = lab.u.plane.events();
    for _ in 0..2 {
        pass(&uc, &ps, 10);
        assert!(events.is_empty(), "too early");
    }
    pass(&uc, &ps, 10);
    let said = events.recv_timeout(WAIT).unwrap();
    let remaining = (1 << 20) - 1;
    assert!(
        matches!(said, Event::SeqLow { spi: 0x1001, remaining: left, .. } if left == remaining),
        "{said:?}"
    );
    pass(&uc, &ps, 10);
    assert!(events.is_empty(), "said twice");
}
