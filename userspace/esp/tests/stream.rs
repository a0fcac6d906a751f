//! 100 000 packets through one SA, out of order and more than once: none is
//! accepted twice, none is lost that the window allows.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;

use gm_engines::reference;
use gm_esp::{
    BufferedIv, Ck, Counter, EncapPort, EncapPorts, EspKeys, Ik, MAX_BACK, MAX_FRONT, Mode,
    OwnedWindow, PacketBuf, Reason, Received, Sa, SaSpec, SelProto, Selected, Selector, Suite,
    inbound, outbound,
};

const PACKETS: u64 = 100_000;
/// Packets that a worker has at once.
const BATCH: usize = 32;

/// xorshift64*: a fixed seed, so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }
}

fn sa(suite: Suite, window: u32) -> Sa {
    let keys = EspKeys::expand(suite, &Ik::from_bytes([7; 16]), &Ck::from_bytes([8; 16]));
    let spec = SaSpec {
        spi: 1_000_000_001,
        mode: Mode::Trans,
        selector: Selector {
            src: [192, 0, 2, 1].into(),
            dst: [192, 0, 2, 2].into(),
            src_port: None,
            dst_port: None,
            proto: SelProto::UdpTcp,
        },
        suite,
        outer: None,
        esn: false,
        replay_window: window,
    };
    Sa::new(spec, &keys).unwrap()
}

/// The sealed packets 1 to [`PACKETS`]; each carries its number.
fn sealed(sa: &Sa) -> Vec<Vec<u8>> {
    let sent = AtomicU64::new(0);
    let mut iv = BufferedIv::new(|bytes: &mut [u8]| bytes.fill(0x3c));
    (1..=PACKETS)
        .map(|number| {
            let mut buffer = vec![0; MAX_FRONT + 36 + MAX_BACK];
            let mut ip = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0];
            ip.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2, 0, 9, 0, 9, 0, 16, 0, 0]);
            ip.extend_from_slice(&number.to_be_bytes());
            buffer[MAX_FRONT..MAX_FRONT + 36].copy_from_slice(&ip);
            let packet = PacketBuf::new(&mut buffer, MAX_FRONT, MAX_FRONT + 36);
            let numbered = Selected::new(packet, sa)
                .unwrap()
                .number(&Counter(&sent), EncapPorts::default(), &mut iv)
                .unwrap();
            let sealed = outbound::seal_one(reference(), numbered).unwrap();
            sealed.packet().data().to_vec()
        })
        .collect()
}

/// The order of arrival: mostly forward, some late, some lost, some again.
fn arrivals(window: u64, dice: &mut Dice) -> Vec<u64> {
    let mut order: Vec<(u64, u64)> = vec![];
    for number in 1..=PACKETS {
        let late = match dice.roll(10) {
            0..6 => 0,
            6..9 => dice.roll(window * 3 / 2),
            _ => dice.roll(window * 4),
        };
        if dice.roll(50) > 0 {
            order.push((number + late, number));
        }
        for _ in 0..dice.roll(4) / 2 {
            order.push((number + dice.roll(window * 3), number));
        }
    }
    order.sort_by_key(|(when, _)| *when);
    order.into_iter().map(|(_, number)| number).collect()
}

/// What RFC 4303 3.4.3 says of a number, with a set instead of a window.
fn judge(number: u64, top: u64, window: u32, accepted: &HashSet<u64>) -> Option<Reason> {
    if number + u64::from(window) <= top {
        Some(Reason::Stale)
    } else {
        accepted.contains(&number).then_some(Reason::Replay)
    }
}

fn run(suite: Suite, window: u32) {
    let sa = sa(suite, window);
    let packets = sealed(&sa);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ u64::from(window));
    let order = arrivals(window.into(), &mut dice);
    assert!(order.len() as u64 > PACKETS);

    let owned = OwnedWindow::new(window).unwrap();
    let window_now = owned.window();
    let mut accepted = HashSet::new();
    let mut top = 0;
    let (mut replays, mut stale) = (0, 0);
    for numbers in order.chunks(BATCH) {
        let mut buffers: Vec<_> = numbers
            .iter()
            .map(|n| packets[*n as usize - 1].clone())
            .collect();
        let mut early = vec![];
        let mut batch: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| {
                let end = buffer.len();
                let packet = PacketBuf::new(buffer, 0, end);
                let received = Received::parse(packet, EncapPort::Dst(4500)).ok().unwrap();
                let checked = received.check(&sa, &window_now);
                early.push(checked.as_ref().err().copied());
                checked.ok()
            })
            .collect();
        let mut verdicts = early;
        inbound::open(reference(), &mut batch, |i, opened| {
            let admitted = opened
                .and_then(|opened| opened.commit(&window_now))
                .and_then(|committed| committed.admit());
            match admitted {
                Ok(admitted) => {
                    let data = admitted.packet().data();
                    assert_eq!(data[28..36], numbers[i].to_be_bytes());
                    verdicts[i] = None;
                }
                Err(reason) => verdicts[i] = Some(reason),
            }
        });
        // The window allows what is new and not left of it: when the batch
        // begins, and again when the packet's turn comes.
        let first: Vec<_> = numbers
            .iter()
            .map(|n| judge(*n, top, window, &accepted))
            .collect();
        for ((number, verdict), first) in numbers.iter().zip(verdicts).zip(first) {
            let expected = first.or_else(|| judge(*number, top, window, &accepted));
            assert_eq!(verdict, expected, "{suite} number {number} at top {top}");
            match expected {
                None => {
                    assert!(accepted.insert(*number), "accepted twice");
                    top = top.max(*number);
                }
                Some(Reason::Stale) => stale += 1,
                Some(_) => replays += 1,
            }
        }
    }
    assert_eq!(window_now.top(), top);
    assert!(
        replays > 1000 && stale > 1000,
        "{replays} replays, {stale} stale: a real test"
    );
    assert!(accepted.len() as u64 > PACKETS * 3 / 4);
}

#[test]
fn gcm_with_the_default_window() {
    run(Suite::NullAesGcm, 64);
}

#[test]
fn cbc_with_the_widest_window() {
    run(Suite::HmacSha1AesCbc, 4096);
}

#[test]
fn gmac_with_an_odd_window() {
    run(Suite::AesGmacNull, 1000);
}

#[test]
fn three_des_with_the_default_window() {
    run(Suite::HmacMd5DesEde3Cbc, 64);
}
