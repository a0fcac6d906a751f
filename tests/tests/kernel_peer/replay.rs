//! Anti-replay, seen from both sides: ESP that was captured on the wire is sent again by a raw
//! socket, to the kernel and to gmespd, in the same order. Both count the same.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gm_dataplane::Reason;
use gm_esp::{Mode, Suite};
use gm_tests::netns::{End as Leg, NetNs, veth};

use crate::Pair;
use crate::gm::WAIT;
use crate::lab::{Family, NAMES};
use crate::middle::{Middle, Out, P, U, ip_of};
use crate::set::{End, Set};
use crate::sockets::{silent, udp};
use crate::xfrm::Refused;

/// gmespd, a box that catches ESP, the kernel.
fn through_a_box(gm: End) -> (Pair, Middle) {
    let [p, ue, m] = [(); 3].map(|()| NetNs::new().unwrap());
    let ends = [
        (&p, NAMES[0], "m0", ["10.77.0.1/24", "fd77::1/64"]),
        (&ue, NAMES[1], "m1", ["10.77.0.2/24", "fd77::2/64"]),
    ];
    for (ns, name, leg, addresses) in &ends {
        let end = |ns, name, addresses| Leg {
            ns,
            name,
            addresses,
        };
        veth(end(ns, name, addresses), end(&m, leg, &[]));
        // A box that forwards bytes knows nothing of checksums that a device still has to write.
        ns.run(|| gm_xsk::nic::set_tx_checksum(name, false).unwrap());
    }
    (Pair::on(gm, p, ue), Middle::new(m, &["m0", "m1"]))
}

/// Why packets are refused.
#[derive(Clone, Copy)]
enum Why {
    Replay,
    Stale,
    Icv,
}

/// The end that receives, and how it counts.
struct Receiver<'a> {
    pair: &'a Pair,
    middle: &'a Middle,
    end: End,
    spi: u32,
    socket: UdpSocket,
    /// Frames by sequence number.
    caught: BTreeMap<u64, Vec<u8>>,
    /// What it should have refused by now.
    refused: Refused,
}

impl Receiver<'_> {
    /// What it says.
    fn says(&self) -> Refused {
        if self.end == self.pair.kernel.end {
            return self.pair.kernel.refused(self.spi);
        }
        let drops = self.pair.gm.sa(self.spi).drops;
        let of = |reason: Reason| drops.get(reason.name()).copied().unwrap_or_default();
        Refused {
            replay: of(Reason::Replay),
            stale: of(Reason::Stale),
            icv: of(Reason::BadIcv),
        }
    }

    fn send(&self, seq: u64) {
        let leg = if self.end == End::PCscf { P } else { U };
        self.middle.inject(leg, &self.caught[&seq]);
    }

    /// These arrive, in this order.
    #[track_caller]
    fn takes(&self, numbers: impl IntoIterator<Item = u64>) {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        for some in numbers.chunks(32) {
            some.iter().for_each(|seq| self.send(*seq));
            for seq in some {
                let mut got = [0; 64];
                let n = self.socket.recv(&mut got);
                let n = n.unwrap_or_else(|e| panic!("number {seq} does not arrive: {e}"));
                assert_eq!(got[..n], seq.to_be_bytes(), "number {seq}");
            }
        }
    }

    /// These are refused, and counted one by one.
    #[track_caller]
    fn refuses(&mut self, numbers: impl IntoIterator<Item = u64>, why: Why) {
        let mut n = 0;
        for seq in numbers {
            self.send(seq);
            n += 1;
            // No queue on the way shall be too small.
            if n % 32 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        *match why {
            Why::Replay => &mut self.refused.replay,
            Why::Stale => &mut self.refused.stale,
            Why::Icv => &mut self.refused.icv,
        } += n;
        let end = Instant::now() + WAIT;
        let total = |r: Refused| r.replay + r.stale + r.icv;
        while total(self.says()) < total(self.refused) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(
            self.says(),
            self.refused,
            "{:?}, SPI {}",
            self.end,
            self.spi
        );
    }
}

/// Lets one end send `count` datagrams over an SA and keeps all of them.
fn catch(pair: &Pair, middle: &Middle, set: &Set, from: End, count: u64) -> BTreeMap<u64, Vec<u8>> {
    let [to_ps, from_ps, ..] = set.four();
    let sa = if from == End::Ue { to_ps } else { from_ps };
    let caught: Arc<Mutex<BTreeMap<u64, Vec<u8>>>> = Arc::default();
    let (keep, first) = (caught.clone(), set.first);
    middle.set(move |leg, frame| match number(&frame, sa.spi) {
        Some(low) => {
            // The high half is not on the wire.
            let seq = first + u64::from(low.wrapping_sub(first as u32));
            keep.lock().unwrap().insert(seq, frame);
            Out::new()
        }
        None => vec![(1 - leg, frame)],
    });
    let socket = pair.at(from).run(|| udp(sa.src.0, sa.src.1));
    let end = Instant::now() + WAIT;
    for n in 0..count {
        let seq = set.first + n;
        socket.send_to(&seq.to_be_bytes(), sa.dst).unwrap();
        while n % 32 == 31 && caught.lock().unwrap().len() as u64 <= n {
            assert!(Instant::now() < end, "number {seq} is not on the wire");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while (caught.lock().unwrap().len() as u64) < count {
        assert!(Instant::now() < end, "not all are on the wire");
        std::thread::sleep(Duration::from_millis(1));
    }
    middle.clear();
    std::mem::take(&mut *caught.lock().unwrap())
}

/// The sequence number of a frame that is ESP with this SPI.
fn number(frame: &[u8], spi: u32) -> Option<u32> {
    let ip = ip_of(frame)?;
    let esp = match ip.proto {
        50 => ip.l4,
        17 => ip.l4 + 8,
        _ => return None,
    };
    let word = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    (word(esp)? == spi).then(|| word(esp + 4))?
}

/// One SA towards `to`: late packets, packets that come twice, packets that come too late.
fn judge(pair: &Pair, middle: &Middle, set: &Set, to: End) {
    let (w, first) = (u64::from(set.window), set.first);
    let top = first + w + 9;
    let [to_ps, from_ps, ..] = set.four();
    let sa = if to == End::PCscf { to_ps } else { from_ps };
    let mut receiver = Receiver {
        pair,
        middle,
        end: to,
        spi: sa.spi,
        socket: pair.at(to).run(|| udp(sa.dst.0, sa.dst.1)),
        caught: catch(pair, middle, set, to.other(), w + 10),
        refused: Refused::default(),
    };
    let r = &mut receiver;
    // With extended numbers what is left of the window is taken for what is far right of it, under
    // the next high half, and does not verify (RFC 4303 A2.2).
    let late = if set.esn { Why::Icv } else { Why::Stale };
    r.takes(first..first + 3);
    r.refuses(first..first + 3, Why::Replay);
    // Far ahead; then the oldest number that the window still holds, and the one before it.
    r.takes([top]);
    let oldest = top - (w - 1);
    r.takes([oldest]);
    r.refuses([oldest - 1], late);
    r.refuses([oldest, top], Why::Replay);
    // Left of the window it does not matter what was seen.
    r.refuses([first, first + 3], late);
    // All that is missing comes late, the last first, and then everything again.
    r.takes((oldest + 1..top).rev());
    r.refuses(oldest..=top, Why::Replay);
    silent(&r.socket);
}

/// The sets: every window in transport mode, every way with one window, ESN across 2^32.
fn sets() -> Vec<Set> {
    let v4: [_; 2] = Family::V4.addresses().into();
    let v6 = Family::V6.addresses().into();
    let windows = [
        (32, Suite::HmacSha1Null),
        (64, Suite::HmacSha1AesCbc),
        (128, Suite::NullAesGcm),
        (256, Suite::AesGmacNull),
    ];
    let set = |n, suite, mode, addresses| Set::new(n, suite, mode, addresses);
    let mut sets: Vec<Set> = windows
        .into_iter()
        .zip(1..)
        .map(|((window, suite), n)| Set {
            window,
            ..set(n, suite, Mode::Trans, v4)
        })
        .collect();
    sets.push(set(5, Suite::NullAesGcm, Mode::Trans, v6));
    sets.push(set(6, Suite::HmacSha1AesCbc, Mode::UdpEncTun, v4));
    sets
}

fn with_esn() -> Vec<Set> {
    let v4 = Family::V4.addresses().into();
    [Suite::HmacSha1Null, Suite::HmacSha1AesCbc]
        .into_iter()
        .zip([7, 8])
        .map(|(suite, n)| Set {
            esn: true,
            // The window that begins here reaches over the end of the low half.
            first: (1 << 32) - 70,
            ..Set::new(n, suite, Mode::Trans, v4)
        })
        .collect()
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn both_ends_refuse_the_same_replays() {
    gm_tests::needs_esp!();
    let sets: Vec<Set> = sets().into_iter().chain(with_esn()).collect();
    for gm in [End::PCscf, End::Ue] {
        let (pair, middle) = through_a_box(gm);
        pair.gm.add(&sets);
        pair.kernel.add(&sets);
        let (mut numbers, mut icvs) = (0, 0);
        for set in &sets {
            // In a tunnel the P-CSCF sends when it has heard the phone.
            judge(&pair, &middle, set, End::PCscf);
            judge(&pair, &middle, set, End::Ue);
            numbers += 3 + 2 + u64::from(set.window);
            *if set.esn { &mut icvs } else { &mut numbers } += 3;
        }
        // Nothing else went wrong, here or there.
        let named = |name: &str, n: u64| (name.to_owned(), n);
        let kernel = [
            named("XfrmInStateSeqError", numbers),
            named("XfrmInStateProtoError", icvs),
        ];
        assert_eq!(pair.kernel.errors(), kernel.into());
        let mut dropped = pair.gm.dropped();
        let mut of = |reason: Reason| dropped.remove(reason.name()).unwrap_or_default();
        assert_eq!(of(Reason::Replay) + of(Reason::Stale), numbers);
        assert_eq!(of(Reason::BadIcv), icvs);
        assert_eq!(dropped, [].into());
    }
}
