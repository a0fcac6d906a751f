//! Sets that come and go under traffic: gmespd and the kernel change over one after the other,
//! and nothing is lost.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gm_dataplane::Reason;
use gm_esp::Mode;
use gm_esp::Suite::{self, AesGmacNull, HmacSha1AesCbc, HmacSha1Null, NullAesGcm};

use crate::Pair;
use crate::gm::{PORT_PC, PORT_PS, WAIT};
use crate::lab::Family;
use crate::set::{End, Set};
use crate::sockets::{connect, pass, udp};
use crate::traffic::during_paced;

/// Ways, and the suites of the set that is there and of those that follow it.
const WAYS: [(Mode, Family, [Suite; 3]); 3] = [
    (
        Mode::Trans,
        Family::V4,
        [HmacSha1Null, HmacSha1AesCbc, NullAesGcm],
    ),
    (
        Mode::Trans,
        Family::V6,
        [NullAesGcm, AesGmacNull, HmacSha1AesCbc],
    ),
    (
        Mode::UdpEncTun,
        Family::V4,
        [HmacSha1AesCbc, NullAesGcm, HmacSha1AesCbc],
    ),
];

/// Datagrams each way between two steps.
const MEANWHILE: u64 = 5;

/// Between two datagrams, and two blocks on the connection.
const PAUSE: Duration = Duration::from_millis(20);

/// A connection on which both ends write what the other one expects, until it is stopped.
#[derive(Default)]
struct Stream {
    stop: AtomicBool,
    carried: AtomicU64,
}

impl Stream {
    /// Sends block after block and compares what comes back.
    fn asks(&self, mut at: &TcpStream) {
        let mut got = [0; 2000];
        for n in 0u64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let block = [n as u8; 2000];
            at.write_all(&block).expect("the connection takes it");
            at.read_exact(&mut got).expect("the connection carries on");
            assert_eq!(got, block, "block {n}");
            self.carried.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends back what comes, until the other end is gone.
    fn answers(mut at: &TcpStream) {
        let mut block = [0; 2000];
        while let Ok(n @ 1..) = at.read(&mut block) {
            at.write_all(&block[..n]).expect("the connection takes it");
        }
    }

    /// Waits until it has carried something more.
    fn moves(&self) {
        let (before, end) = (self.carried.load(Ordering::Relaxed), Instant::now() + WAIT);
        while self.carried.load(Ordering::Relaxed) < before + 2 {
            assert!(Instant::now() < end, "the connection stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Stops a stream, whatever happens: the threads of a scope are waited for.
struct Ends<'a>(&'a Stream);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Renews a set with these suites; datagrams on one pair of its SAs, a connection on the other.
fn renew(pair: &Pair, first: &Set, suites: &[Suite], gm: End) {
    pair.gm.add(std::slice::from_ref(first));
    pair.kernel.add(std::slice::from_ref(first));
    let [uc_port, us_port] = first.ports;
    let (p, ue) = (pair.at(End::PCscf), pair.at(End::Ue));
    let ps = p.run(|| udp(first.p, PORT_PS));
    let uc = ue.run(|| udp(first.ue, uc_port));
    // In a tunnel the P-CSCF sends when it has heard the phone.
    pass(&uc, &ps, 100);
    if first.mode == Mode::UdpEncTun {
        pair.gm.finds(first);
    }
    let listener = ue.run(|| TcpListener::bind((first.ue, us_port)).unwrap());
    let client = p.run(|| connect((first.p, PORT_PC), (first.ue, us_port)));
    let (server, _) = listener.accept().unwrap();
    let stream = Stream::default();
    let mut old = first.clone();
    server.set_read_timeout(Some(WAIT)).unwrap();
    std::thread::scope(|s| {
        let asks = s.spawn(|| stream.asks(&client));
        s.spawn(|| Stream::answers(&server));
        let end_of = Ends(&stream);
        during_paced(&uc, &ps, PAUSE, |wait| {
            let step = || {
                wait(MEANWHILE);
                stream.moves();
            };
            step();
            for (suite, n) in suites.iter().zip(1..) {
                let new = first.renewed(first.number + n, *suite);
                // The kernel accepts the new set, then gmespd does and sends over it.
                let end = gm.other();
                pair.kernel.ip(&new.states(end));
                step();
                pair.gm.add(std::slice::from_ref(&new));
                step();
                pair.kernel.ip(&new.policies(end, "update"));
                // What was under way on the old one has come when as much again has.
                step();
                pair.gm.retire(&old);
                step();
                pair.gm.remove(&old);
                pair.kernel.ip(&old.no_states(end));
                old = new;
                step();
            }
        });
        drop(end_of);
        asks.join().expect("the connection carries on");
        client.shutdown(std::net::Shutdown::Both).unwrap();
    });
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn a_renewal_under_traffic_loses_nothing() {
    gm_tests::needs_esp!();
    for gm in [End::PCscf, End::Ue] {
        let pair = Pair::new(gm);
        // Over IPv4 as the one, over IPv6 as the other, in UDP as both.
        let ways = WAYS.into_iter().zip([1, 11, 21]);
        let left_out = match gm {
            End::PCscf => Family::V6,
            End::Ue => Family::V4,
        };
        let here = |mode, family| mode == Mode::UdpEncTun || family != left_out;
        for ((mode, family, suites), n) in ways.filter(|((m, f, _), _)| here(*m, *f)) {
            let first = Set::new(n, suites[0], mode, family.addresses().into());
            renew(&pair, &first, &suites[1..], gm);
        }
        // A connection that began under a suite that takes less room is told of the new one's:
        // what is too long for the tunnel is the kernel's mode error, gmespd's out-too-big.
        let (mut errors, mut dropped) = (pair.kernel.errors(), pair.gm.dropped());
        errors.remove("XfrmOutStateModeError");
        dropped.remove(Reason::OutTooBig.name());
        assert_eq!(errors, [].into(), "gmespd is {gm:?}");
        assert_eq!(dropped, [].into(), "gmespd is {gm:?}");
    }
}
