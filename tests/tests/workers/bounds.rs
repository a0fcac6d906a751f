//! What is full: rings, frames, a map, a socket. It is counted, it leaks
//! nothing, and afterwards everything goes on.

use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{Dir, Fault, NewSa, Reason, SetSpec};
use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Selector, Suite};

use super::net::{
    Net, PORT_PC, PORT_PS, PORT_UC, PORT_US, WAIT, count, leaks, named, pcscf, phone, udp,
};

/// Waits until `reason` was counted at least `n` times.
fn reaches(net: &Net, reason: Reason, n: u64) {
    let end = Instant::now() + WAIT;
    while count(&net.p.plane, reason) < n {
        let stats = net.p.plane.stats().unwrap();
        assert!(
            Instant::now() < end,
            "{}: {:?}",
            reason.name(),
            named(&stats)
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_full_ring_is_counted_and_empties_again() {
    let net = Net::new(2, [2, 1], 2);
    for worker in 0..2 {
        net.p.plane.fault(Fault::HoldSends(worker, true)).unwrap();
    }
    let ps = net.p.ns.run(|| udp(pcscf(false), PORT_PS));
    let end = Instant::now() + WAIT;
    while count(&net.p.plane, Reason::RingFull) < 100 {
        assert!(Instant::now() < end, "no ring gets full");
        for _ in 0..64 {
            ps.send_to(&[1; 200], (phone(2), PORT_UC)).unwrap();
        }
        thread::sleep(Duration::from_millis(2));
    }
    let uc = net.u.ns.run(|| udp(phone(2), PORT_UC));
    uc.set_read_timeout(Some(WAIT)).unwrap();
    for worker in 0..2 {
        net.p.plane.fault(Fault::HoldSends(worker, false)).unwrap();
    }
    // What the rings held comes now, and then what is new.
    let late = uc.recv(&mut [0; 1000]);
    uc.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    while uc.recv(&mut [0; 1000]).is_ok() {}
    let [p, u] = [&net.p, &net.u].map(|side| side.plane.stats().unwrap());
    assert!(late.is_ok(), "{:?} {:?}", named(&p), named(&u));
    drop((ps, uc));
    net.all_pass();
    leaks(&net.p.plane.stats().unwrap());
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn without_frames_packets_are_counted_and_come_through_again_afterwards() {
    let net = Net::new(1, [1, 1], 2);
    net.all_pass();
    net.p.plane.fault(Fault::HoldFrames(0)).unwrap();
    let ps = net.p.ns.run(|| udp(pcscf(false), PORT_PS));
    // Two pieces on the wire: more frames than it came in.
    for _ in 0..10 {
        ps.send_to(&[1; 1472], (phone(2), PORT_UC)).unwrap();
    }
    reaches(&net, Reason::NoFrame, 1);
    net.p.plane.fault(Fault::FreeFrames(0)).unwrap();
    drop(ps);
    net.all_pass();
    let stats = net.p.plane.stats().unwrap();
    leaks(&stats);
    let w = &stats.workers[0];
    assert!(
        w.frames_free > w.frames / 4,
        "{} of {}",
        w.frames_free,
        w.frames
    );
}

/// SAs set up by hand, whose SPIs need the map FOREIGN: the second has no room.
#[test]
#[ignore = "root: namespaces, BPF"]
fn a_full_map_refuses_the_whole_set_and_says_so() {
    let net = Net::new(2, [2, 1], 2);
    let keys = EspKeys::expand(
        Suite::HmacSha1Null,
        &Ik::from_bytes([7; 16]),
        &Ck::from_bytes([8; 16]),
    );
    let sa = |spi, dir, port| NewSa {
        spec: SaSpec {
            spi,
            mode: Mode::Trans,
            selector: Selector {
                src: if dir == Dir::In {
                    phone(2)
                } else {
                    pcscf(false)
                },
                dst: if dir == Dir::In {
                    pcscf(false)
                } else {
                    phone(2)
                },
                src_port: Some(port),
                dst_port: Some(port),
                proto: SelProto::UdpTcp,
            },
            suite: Suite::HmacSha1Null,
            outer: None,
            esn: false,
            replay_window: 64,
        },
        keys: keys.clone(),
        dir,
        first_seq: Some(1),
    };
    let set = SetSpec {
        set: None,
        sas: vec![
            sa(4001, Dir::In, PORT_PS),
            sa(4002, Dir::Out, PORT_US),
            sa(4003, Dir::Out, PORT_UC),
            sa(4004, Dir::In, PORT_PC),
        ],
    };
    let before = net.p.plane.list();
    net.p.plane.fault(Fault::FillForeign).unwrap();
    let refused = net.p.plane.install(set.clone()).unwrap_err().to_string();
    assert!(refused.contains("FOREIGN"), "{refused}");
    let after = net.p.plane.list();
    assert_eq!(before.len(), after.len(), "something is half installed");
    net.all_pass();
    // With room it is taken, so nothing of the first try is in its way.
    net.p.plane.fault(Fault::EmptyForeign).unwrap();
    let id = net.p.plane.install(set).unwrap();
    assert_eq!(net.p.plane.list().len(), before.len() + 4);
    net.p.plane.remove(id).unwrap();
    net.all_pass();
}

/// All slots are taken: the same.
#[test]
#[ignore = "root: namespaces, BPF"]
fn more_sas_than_slots_are_refused_and_the_others_go_on() {
    let net = Net::new(1, [1, 1], 2);
    let mut reserved = Vec::new();
    let full = loop {
        match net.p.plane.reserve(&[]) {
            Ok(r) => reserved.push(r.spi),
            Err(e) => break e,
        }
    };
    assert!(full.to_string().contains("slot"), "{full}");
    net.all_pass();
    for spi in reserved {
        net.p.plane.unreserve(spi).unwrap();
    }
    assert!(net.p.plane.reserve(&[]).is_ok());
}

/// An application that does not read loses its own packets and nobody else's.
#[test]
#[ignore = "root: namespaces, BPF"]
fn a_slow_local_stack_does_not_hold_up_the_worker() {
    let net = Net::new(2, [2, 1], 2);
    let uc = net.u.ns.run(|| udp(phone(2), PORT_UC));
    let ps = net.p.ns.run(|| udp(pcscf(false), PORT_PS));
    const N: u64 = 4000;
    for i in 1..=N {
        uc.send_to(&[1; 500], (pcscf(false), PORT_PS)).unwrap();
        // Everything is opened and given to the stack, whose socket is full soon.
        if i % 32 == 0 {
            reaches(&net, Reason::Ok, i);
        }
    }
    ps.set_nonblocking(true).unwrap();
    let mut read = 0;
    while ps.recv(&mut [0; 1000]).is_ok() {
        read += 1;
    }
    assert!(read < N, "the socket took everything");
    drop((ps, uc));
    net.all_pass();
    net.nothing_lost();
}
