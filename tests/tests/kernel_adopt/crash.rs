//! gmespd is killed in the middle of a migration: nothing goes in clear, no number is used twice,
//! what had not moved goes on in the kernel, and the next gmespd takes it over. Phones whose SAs
//! had moved have to register again.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use gm_abi::wire::{self, L3};
use gm_esp::{Mode, Suite};
use gm_tests::needs_esp;
use gm_xfrm::kernel::{State, Xfrm};
use gm_xsk::LinkSocket;

use crate::gm::{PORT_PS, WAIT};
use crate::lab::{Family, NAMES};
use crate::set::Set;
use crate::{Pair, ends};

/// How many phones there are.
const PHONES: u32 = 12;
/// For what may be lost.
const SHORT: Duration = Duration::from_secs(2);

struct Apps {
    ps: UdpSocket,
    phones: Vec<UdpSocket>,
}

impl Apps {
    fn new(pair: &Pair, sets: &[Set]) -> Apps {
        let bind = |ns: &gm_tests::netns::NetNs, at: SocketAddr| {
            let socket = ns.run(|| UdpSocket::bind(at).unwrap());
            socket.set_read_timeout(Some(SHORT)).unwrap();
            socket
        };
        let phone = |set: &Set| bind(&pair.ue.ns, (set.ue, set.ports[0]).into());
        Apps {
            ps: bind(&pair.p.ns, (sets[0].p, PORT_PS).into()),
            phones: sets.iter().map(phone).collect(),
        }
    }

    /// Whether a phone's datagram comes, and an answer to it.
    fn lives(&self, i: usize, word: &[u8]) -> bool {
        let (phone, mut b) = (&self.phones[i], [0; 64]);
        let ps = self.ps.local_addr().unwrap();
        phone.send_to(word, ps).unwrap();
        let end = Instant::now() + SHORT;
        while Instant::now() < end {
            // Of others there may be late ones.
            let Ok((n, from)) = self.ps.recv_from(&mut b) else {
                return false;
            };
            if from == phone.local_addr().unwrap() && b[..n] == *word {
                self.ps.send_to(word, from).unwrap();
                while let Ok(n) = phone.recv(&mut b) {
                    if b[..n] == *word {
                        return true;
                    }
                }
                return false;
            }
        }
        false
    }
}

/// What the kernel was left for late packets alone ends by itself.
fn nothing_late(pair: &Pair) {
    let deadline = Instant::now() + WAIT;
    let is_limited = |state: &State| state.limits.packets[1] < u64::MAX;
    while (pair.p.ns).run(|| {
        Xfrm::open()
            .unwrap()
            .states()
            .unwrap()
            .iter()
            .any(is_limited)
    }) {
        assert!(Instant::now() < deadline, "they stay");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Nothing from port_ps is on the wire as it is.
fn assert_no_clear(wire: &LinkSocket) {
    let mut b = [0; 4096];
    while let Ok(n) = wire.recv(&mut b) {
        if let L3::Ip(ip) = wire::parse_frame(&b[..n]) {
            assert!(
                ip.ports.is_none_or(|(from, _)| from != PORT_PS),
                "in clear: {ip:?}"
            );
        }
    }
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn gmespd_killed_in_the_middle_leaves_nothing_in_clear_and_its_successor_takes_the_rest() {
    needs_esp!();
    let v4 = ends(Family::V4);
    let new = |n| Set::new(n, Suite::NullAesGcm, Mode::Trans, v4);
    let sets: Vec<Set> = (1..=PHONES).map(new).collect();
    let pair = Pair::new(&sets);
    let apps = Apps::new(&pair, &sets);
    assert!((0..sets.len()).all(|i| apps.lives(i, b"before")));
    let wire = pair.ue.ns.run(|| LinkSocket::bind(NAMES[1]).unwrap());
    let pins = tempfile::tempdir().unwrap();
    let pins = pins.path().join("pins");

    let gmespd = pair.gmespd(Some(&pins));
    let mut adopt = gmespd.begin("adopt");
    let deadline = Instant::now() + WAIT;
    while pair.in_kernel().0 > 4 * sets.len() - 14 {
        assert!(Instant::now() < deadline, "nothing moves");
    }
    gmespd.kill();
    assert!(!adopt.wait().unwrap().success());
    nothing_late(&pair);
    let left = pair.in_kernel().0;
    println!("{left} of {} states are left in the kernel", 4 * sets.len());
    assert!(left > 0, "it was too quick");

    // Nobody is there, and nothing goes in clear.
    let alone: Vec<bool> = (0..sets.len()).map(|i| apps.lives(i, b"alone")).collect();
    let whole = left / 4;
    let living = alone.iter().filter(|lives| **lives).count();
    // The one that was moving may have lost its policies.
    assert!(living <= whole && living + 1 >= whole, "{living} {whole}");
    for phone in &apps.phones {
        let to = phone.local_addr().unwrap();
        let _ = apps.ps.send_to(b"to nobody", to);
    }
    thread::sleep(Duration::from_millis(300));
    assert_no_clear(&wire);

    // What is left moves to the next one.
    let gmespd = pair.gmespd(Some(&pins));
    let reply = gmespd.xfrm("adopt");
    assert_eq!(pair.in_kernel().0, 0);
    assert_eq!(reply.sets.len(), left.div_ceil(4), "{reply:?}");
    let again: Vec<bool> = (0..sets.len()).map(|i| apps.lives(i, b"again")).collect();
    let living = again.iter().filter(|lives| **lives).count();
    assert!(living <= reply.sets.len() && living >= whole, "{again:?}");
    // Who lived meanwhile lives on.
    assert!(alone.iter().zip(&again).all(|(a, b)| *b || !*a));
    assert_no_clear(&wire);
    // No number was used twice: the phones' kernel would have refused it.
    let errors = pair.ue.errors();
    assert!(!errors.contains_key("XfrmInStateSeqError"), "{errors:?}");
}
