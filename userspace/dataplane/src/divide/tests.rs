//! Hands in memory: who gets what, in which order, and nothing is lost.

use gm_abi::maps::META_MAGIC;

use super::*;

/// Slots: the SA of slot s has bucket s.
const SLOTS: u32 = 256;

struct World {
    routes: Arc<Routes>,
    desks: Arc<Desks>,
    hands: Vec<Hand>,
    umem: Umem,
    counters: Counters,
}

fn world(workers: u8) -> World {
    let routes = Arc::new(Routes::new(SLOTS));
    (0..SLOTS).for_each(|s| routes.set_slot(s, Some(s as u8)));
    (0..=255u8).for_each(|b| routes.give(b, b % workers));
    routes.set_shared(workers > 1);
    let desks = Arc::new(Desks::new(workers.into()).unwrap());
    desks.pool.add(workers.into());
    let hand = |me| Hand::new(me, routes.clone(), desks.clone());
    World {
        hands: (0..workers).map(hand).collect(),
        routes,
        desks,
        umem: Umem::new(64).unwrap(),
        counters: Counters::default(),
    }
}

fn meta(slot: u32) -> [u8; METADATA] {
    let mut words = [0; METADATA];
    words[..4].copy_from_slice(&slot.to_ne_bytes());
    words[7] = META_ESP;
    words[8..12].copy_from_slice(&META_MAGIC.to_ne_bytes());
    words
}

impl World {
    /// Worker `at` receives a packet for the SA in `slot`; whether it is to be
    /// processed there and now.
    fn receive(&mut self, at: usize, slot: u32, n: u8) -> bool {
        let mut frame = self.umem.alloc().unwrap();
        assert!(frame.write(&[n; 60]));
        let (chunk, start, _) = frame.chunk_mut();
        chunk[start - METADATA..start].copy_from_slice(&meta(slot));
        let mut batch = vec![frame];
        self.hands[at].divide(Side::Wire, &mut self.umem, &mut batch, &self.counters);
        let stays = !batch.is_empty();
        batch.into_iter().for_each(|f| self.umem.free(f));
        assert_eq!((self.umem.outstanding(), self.umem.leaked()), (0, 0));
        stays
    }

    /// What worker `at` finds in its letter box: slot and first byte.
    fn mail(&mut self, at: usize) -> Vec<(u32, u8)> {
        let counters = &self.counters;
        let hand = &mut self.hands[at];
        std::iter::from_fn(|| {
            let parcel = hand.next(counters)?;
            let c = parcel.contents()?;
            let slot = u32::from_ne_bytes(*c.meta.first_chunk::<4>()?);
            Some((slot, c.bytes[0]))
        })
        .collect()
    }

    fn lost(&self) -> u64 {
        self.counters.snapshot().iter().sum()
    }
}

#[test]
fn a_packet_goes_to_the_worker_of_its_sa() {
    let mut w = world(3);
    assert!(w.receive(1, 1, 7));
    assert!(!w.receive(1, 2, 8));
    assert!(!w.receive(0, 2, 9));
    assert_eq!(w.mail(2), [(2, 8), (2, 9)]);
    assert!(w.mail(0).is_empty() && w.mail(1).is_empty());
    // Nobody's SA is judged where it has come in.
    w.routes.set_slot(5, None);
    assert!(w.receive(0, 5, 1));
    assert_eq!((w.hands[0].handed_out, w.hands[2].handed_in), (1, 2));
    assert_eq!(w.lost(), 0);
}

#[test]
fn a_worker_alone_looks_at_nothing() {
    let mut w = world(1);
    // Even a route that leads elsewhere.
    w.routes.give(3, 9);
    assert!(w.receive(0, 3, 1));
    assert_eq!(w.hands[0].handed_out, 0);
}

#[test]
fn what_a_queue_has_no_room_for_is_counted_and_leaves_no_buffer_behind() {
    let mut w = world(2);
    let before = w.desks.pool.len();
    for _ in 0..WAITING + 10 {
        assert!(!w.receive(0, 1, 1));
    }
    assert_eq!(w.counters.snapshot()[Reason::HandoverFull.index()], 10);
    assert_eq!(w.mail(1).len(), WAITING);
    assert_eq!(w.desks.pool.len(), before);
}

#[test]
fn parked_packets_wait_in_order_and_within_bounds() {
    let mut w = world(2);
    let moved: Buckets = [0].into_iter().collect();
    w.hands[1].park(&moved);
    w.routes.give(0, 1);
    // By hand-over, and directly.
    assert!(!w.receive(0, 0, 1));
    assert!(w.mail(1).is_empty());
    assert!(!w.receive(1, 0, 2));
    // Others go on.
    assert!(w.receive(1, 1, 3));
    assert_eq!(w.hands[1].times_parked, 2);
    w.hands[1].unpark(&moved);
    assert!(w.hands[1].has_mail());
    assert_eq!(w.mail(1), [(0, 1), (0, 2)]);
    assert!(w.receive(1, 0, 4));
    assert_eq!(w.lost(), 0);

    w.hands[1].park(&moved);
    let before = w.desks.pool.len();
    for _ in 0..WAITING + 5 {
        assert!(!w.receive(1, 0, 1));
    }
    assert_eq!(w.lost(), 5);
    w.hands[1].unpark(&moved);
    assert_eq!(w.mail(1).len(), WAITING);
    assert_eq!(w.desks.pool.len(), before);
}

/// A packet from the stack to a phone, its protocol and its last byte.
fn to_phone(proto: u8, n: u8) -> Vec<u8> {
    let ip = [0x45, 0, 0, 40, 0, 7, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1];
    let mut frame = [&[2; 12][..], &[8, 0], &ip, &PHONE, &[0; 20]].concat();
    frame[53] = n;
    frame
}

const PHONE: [u8; 4] = [10, 9, 8, 7];

#[test]
fn what_the_kernel_has_sealed_goes_before_or_behind_what_waits_to_be_sealed() {
    let mut w = world(2);
    let at = bucket(&gm_abi::maps::mapped(PHONE));
    let (me, waits): (usize, Buckets) = (usize::from(at % 2), [at].into_iter().collect());
    for (last, order) in [(true, [2, 4, 1, 3]), (false, [1, 3, 2, 4])] {
        w.hands[me].park(&waits);
        for n in 1..=4 {
            let mut frame = w.umem.alloc().unwrap();
            assert!(frame.write(&to_phone(if n % 2 == 1 { 50 } else { 17 }, n)));
            let mut batch = vec![frame];
            w.hands[me].divide(Side::Stack, &mut w.umem, &mut batch, &w.counters);
            assert!(batch.is_empty(), "{n}");
        }
        match last {
            true => w.hands[me].unpark_sealed_last(&waits),
            false => w.hands[me].unpark_sealed_first(&waits),
        }
        let next = || {
            let parcel = w.hands[me].next(&w.counters)?;
            Some(parcel.contents()?.bytes[53])
        };
        let came: Vec<u8> = std::iter::from_fn(next).collect();
        assert_eq!(came, order, "{last}");
    }
}

#[test]
fn two_moves_at_once_keep_apart() {
    let mut w = world(2);
    let (a, b): (Buckets, Buckets) = ([1].into_iter().collect(), [3].into_iter().collect());
    w.hands[1].park(&a);
    w.hands[1].park(&b);
    assert!(!w.receive(1, 1, 10) && !w.receive(1, 3, 30) && !w.receive(1, 1, 11));
    w.hands[1].unpark(&b);
    assert_eq!(w.mail(1), [(3, 30)]);
    w.hands[1].unpark(&a);
    assert_eq!(w.mail(1), [(1, 10), (1, 11)]);
    assert_eq!(w.lost(), 0);
}

#[test]
fn a_worker_that_goes_sends_on_what_it_still_has() {
    let mut w = world(3);
    assert!(!w.receive(0, 2, 1) && !w.receive(0, 5, 2));
    // Its buckets have gone to the others, the packets came before.
    (0..=255u8)
        .filter(|b| b % 3 == 2)
        .for_each(|b| w.routes.give(b, b / 3 % 2));
    w.hands[2].forward_all(&w.counters);
    assert_eq!(w.mail(0), [(2, 1)]);
    assert_eq!(w.mail(1), [(5, 2)]);
    assert_eq!(w.lost(), 0);
}

#[test]
fn a_whole_datagram_follows_its_slot() {
    let mut w = world(2);
    let packet = vec![3; 40_000];
    w.hands[0].pass_on(1, &[9; 14], &packet, &w.counters);
    let parcel = w.hands[1].next(&w.counters).unwrap();
    let contents = parcel.contents().unwrap();
    assert_eq!(contents.side, Side::Whole(14));
    assert_eq!(contents.bytes.len(), 14 + packet.len());
    assert_eq!(w.hands[0].slot_of_spi(SPI_BASE + SLOTS * 7 + 3), Some(3));
    assert_eq!(w.hands[0].slot_of_spi(4096), None);
}

/// Frames without an SA: fragments by who sent them, ICMP errors by whose
/// packet they quote, the local stack's packets by whom they are for.
#[test]
fn what_has_no_slot_goes_by_the_phones_address() {
    use gm_abi::maps::mapped;
    let w = world(3);
    let (us, phone, router) = ([10, 0, 0, 1], [10, 9, 8, 7], [192, 0, 2, 1]);
    let ip = |src: [u8; 4], dst: [u8; 4], proto: u8, payload: &[u8]| {
        let mut p = vec![
            0x45,
            0,
            0,
            20 + payload.len() as u8,
            0,
            7,
            0,
            0,
            64,
            proto,
            0,
            0,
        ];
        p.extend(src.iter().chain(&dst).chain(payload));
        p
    };
    let frame = |packet: Vec<u8>| [&[2; 12][..], &[8, 0], &packet].concat();
    let kind = |kind: u8, esp: u16| {
        let mut m = meta(0);
        m[4..6].copy_from_slice(&esp.to_ne_bytes());
        m[7] = kind;
        m
    };
    let want = w.hands[0].place_of(bucket(&mapped(phone)));
    let fragment = frame(ip(phone, us, 50, &[0; 16]));
    let quoted = ip(us, phone, 50, &[0; 8]);
    let icmp = frame(ip(
        router,
        us,
        1,
        &[&[3, 4, 0, 0, 0, 0, 5, 120][..], &quoted].concat(),
    ));
    let plain = frame(ip(us, phone, 17, &[0; 16]));
    // A tunnel to a NAT: whose phone is behind it says the SPI.
    let udp = [
        &[17, 148, 17, 148, 0, 24, 0, 0][..],
        &77u32.to_be_bytes(),
        &[0; 4],
    ]
    .concat();
    let quoted = ip(us, [192, 0, 2, 9], 17, &udp);
    let about_nat = frame(ip(
        router,
        us,
        1,
        &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat(),
    ));
    let other = (0..=255u8)
        .find(|b| w.hands[0].place_of(*b) != w.hands[0].place_of(bucket(&mapped([192, 0, 2, 9]))))
        .unwrap();
    w.routes.set_tunnel(&mapped([192, 0, 2, 9]), 77, other);
    let hand = &w.hands[0];
    assert_eq!(
        hand.place(Side::Wire, &kind(META_ICMP, 34), &about_nat),
        hand.place_of(other)
    );
    assert_eq!(
        hand.place(Side::Wire, &kind(META_FRAGMENT, 34), &fragment),
        want
    );
    assert_eq!(hand.place(Side::Wire, &kind(META_ICMP, 34), &icmp), want);
    assert_eq!(hand.place(Side::Stack, &meta(0), &plain), want);
    // What cannot be read ends where it has come in.
    assert_eq!(hand.place(Side::Stack, &meta(0), &[0; 20]), Place::Here);
    assert_eq!(hand.place(Side::Wire, &[0; METADATA], &plain), Place::Here);
}

/// What happens in a world.
#[derive(Clone, Debug)]
enum Step {
    Receive(usize, u32),
    Mail(usize),
    /// A bucket goes to a worker, in the steps of `Crew::move_buckets`, the
    /// others' steps in between.
    Move(u8, u8),
    Release,
}

mod any {
    use super::*;
    use proptest::prelude::*;

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0usize..3, 0u32..6).prop_map(|(at, slot)| Step::Receive(at, slot)),
            3 => (0usize..3).prop_map(Step::Mail),
            1 => (0u8..6, 0u8..3).prop_map(|(bucket, to)| Step::Move(bucket, to)),
            2 => Just(Step::Release),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        /// Whatever is received while buckets change hands: each packet is
        /// processed once, by the only worker that has its SA at that time.
        #[test]
        fn nothing_is_lost_or_seen_by_two(steps in steps()) {
            let mut w = world(3);
            // Who may touch an SA: the one that has its bucket loaded.
            let mut holder: Vec<u8> = (0..6).map(|b| b % 3).collect();
            // Under way: bucket, from, to.
            let mut moving: Vec<(u8, u8, u8)> = Vec::new();
            let (mut given, mut done) = (0u64, 0u64);
            let finish = |w: &mut World, holder: &mut Vec<u8>, (bucket, _, to): (u8, u8, u8)| {
                holder[usize::from(bucket)] = to;
                w.hands[usize::from(to)].unpark(&[bucket].into_iter().collect());
            };
            for step in steps {
                match step {
                    Step::Receive(at, slot) => {
                        given += 1;
                        if w.receive(at, slot, 0) {
                            prop_assert_eq!(usize::from(holder[slot as usize]), at);
                            done += 1;
                        }
                    }
                    Step::Mail(at) => for (slot, _) in w.mail(at) {
                        prop_assert_eq!(usize::from(holder[slot as usize]), at);
                        done += 1;
                    },
                    Step::Move(bucket, to) => {
                        let from = w.routes.owner(bucket);
                        if from != to && moving.iter().all(|m| m.0 != bucket) {
                            w.hands[usize::from(to)].park(&[bucket].into_iter().collect());
                            w.routes.give(bucket, to);
                            moving.push((bucket, from, to));
                        }
                    }
                    Step::Release => if let Some(m) = moving.pop() {
                        finish(&mut w, &mut holder, m);
                    },
                }
            }
            for m in moving.drain(..) {
                finish(&mut w, &mut holder, m);
            }
            for _ in 0..4 {
                for at in 0..3 {
                    for (slot, _) in w.mail(at) {
                        prop_assert_eq!(usize::from(holder[slot as usize]), at);
                        done += 1;
                    }
                }
            }
            prop_assert_eq!((given, w.lost()), (done, 0));
        }
    }
}
