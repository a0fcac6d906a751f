//! Two phones behind one NAT, with one public address: a box that translates addresses and ports
//! (RFC 3948; TS 33.203 annex M). Inside, both use the public address, as annex M wants.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};

use gm_dataplane::{Dir, Event, NewSa, Reason, SetId, SetSpec};
use gm_esp::{Ck, EspKeys, Ik, Mode, Outer, SaSpec, SelProto, Selector, Suite};
use gm_tests::netns::{End, NetNs, veth_of};
use gm_xsk::nic;

use crate::lab::{self, NAMES, PORT_PC, PORT_PS, Side, config, start};
use crate::middle::{Middle, Out, P, ip_of};
use crate::sockets::{WAIT, count, fix_ipv4, grows, pass, silent, udp};

const P_CSCF: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// What the phones do not know of: MAC address of the NAT on both of its sides.
const NAT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// Both phones have chosen the same SPIs.
const SPIS: [u32; 2] = [0x1111, 0x2222];

/// A phone, its leg of the box (1 or 2), and what is behind its port_uc.
struct Phone {
    side: Side,
    leg: usize,
    uc: UdpSocket,
    /// Its set at the P-CSCF and at itself.
    sets: [SetId; 2],
}

impl Phone {
    fn ports(leg: usize) -> [u16; 2] {
        [21_000 + leg as u16, 22_000 + leg as u16]
    }
}

fn private(leg: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 0, 1 + leg as u8)
}

/// Public ports of the legs 1 and 2.
type Ports = Arc<Mutex<[u16; 3]>>;

struct Nat {
    p: Side,
    phones: Vec<Phone>,
    middle: Middle,
    ports: Ports,
    ps: UdpSocket,
    /// The last ESP frame towards the P-CSCF.
    last: Arc<Mutex<Vec<u8>>>,
}

fn join(a: &NetNs, name: &str, address: &str, m: &NetNs, leg: &str) -> [u8; 6] {
    let end = |ns, name, addresses| End {
        ns,
        name,
        addresses,
    };
    veth_of(lab::workers(), end(a, name, &[address]), end(m, leg, &[]));
    a.run(|| {
        nic::set_tx_checksum(name, false).unwrap();
        nic::mac(name).unwrap()
    })
}

/// The translation. Frames of the phones go out with the public address and their port, answers
/// to that port come in.
fn translate(
    macs: Vec<[u8; 6]>,
    ports: Ports,
    last: Arc<Mutex<Vec<u8>>>,
) -> impl FnMut(usize, Vec<u8>) -> Out {
    // Later fragments have no port: their datagram's first has said whose they are.
    let mut begun: HashMap<u16, usize> = HashMap::new();
    move |from, mut frame| {
        let Some(ip) = ip_of(&frame).filter(|ip| !ip.v6 && ip.proto == 17) else {
            return Out::new();
        };
        let first = !ip.is_later_fragment();
        let ident = u16::from_be_bytes([frame[18], frame[19]]);
        let ports = *ports.lock().unwrap();
        let to = if from == P {
            let port = u16::from_be_bytes([frame[36], frame[37]]);
            let leg = match first {
                true => (1..3).find(|leg| ports[*leg] == port),
                false => begun.get(&ident).copied(),
            };
            let Some(leg) = leg else {
                return Out::new();
            };
            begun.insert(ident, leg);
            frame[30..34].copy_from_slice(&private(leg).octets());
            if first {
                frame[36..38].copy_from_slice(&4500u16.to_be_bytes());
            }
            leg
        } else {
            frame[26..30].copy_from_slice(&PUBLIC.octets());
            if first {
                frame[34..36].copy_from_slice(&ports[from].to_be_bytes());
            }
            P
        };
        frame[..6].copy_from_slice(&macs[to]);
        frame[6..12].copy_from_slice(&NAT_MAC);
        fix_ipv4(&mut frame[14..]);
        if to == P && first {
            *last.lock().unwrap() = frame.clone();
        }
        vec![(to, frame)]
    }
}

impl Nat {
    fn new(suite: Suite) -> Nat {
        let m = NetNs::new().unwrap();
        let p = NetNs::new().unwrap();
        let mut macs = vec![join(&p, NAMES[0], "10.77.0.1/24", &m, "m0")];
        let nat = NAT_MAC.map(|b| format!("{b:02x}")).join(":");
        p.ip(&format!(
            "neigh add {PUBLIC} lladdr {nat} dev {} nud permanent",
            NAMES[0]
        ));
        let plane = start(
            &p,
            config(NAMES[0], [P_CSCF.into(); 2], [PORT_PS, PORT_PC], None),
        );
        let p = Side { ns: p, plane };
        let phones: Vec<Phone> = (1..3)
            .map(|leg| {
                let ns = NetNs::new().unwrap();
                let name = NAMES[1];
                let address = format!("{}/24", private(leg));
                macs.push(join(&ns, name, &address, &m, &format!("m{leg}")));
                ns.ip(&format!("addr add {PUBLIC}/32 dev lo"));
                ns.ip(&format!(
                    "neigh add 192.168.0.1 lladdr {nat} dev {name} nud permanent"
                ));
                ns.ip("route add default via 192.168.0.1");
                let [uc, us] = Phone::ports(leg);
                let addresses = [private(leg).into(), PUBLIC.into()];
                let plane = start(&ns, config(name, addresses, [us, uc], None));
                let side = Side { ns, plane };
                let sets = install(&p, &side, leg, suite);
                let uc = side.ns.run(|| udp(PUBLIC.into(), uc));
                Phone {
                    side,
                    leg,
                    uc,
                    sets,
                }
            })
            .collect();
        let middle = Middle::new(m, &["m0", "m1", "m2"]);
        let ports: Ports = Arc::new(Mutex::new([0, 30_001, 30_002]));
        let last = Arc::default();
        middle.set(translate(macs, ports.clone(), Arc::clone(&last)));
        let ps = p.ns.run(|| udp(P_CSCF.into(), PORT_PS));
        Nat {
            p,
            phones,
            middle,
            ports,
            ps,
            last,
        }
    }

    /// Both phones speak, and each hears its own answer.
    fn all_talk(&self, len: usize) {
        for phone in &self.phones {
            pass(&phone.uc, &self.ps, len);
        }
        for phone in &self.phones {
            pass(&self.ps, &phone.uc, len);
        }
    }

    fn learnt(&self, phone: &Phone, port: u16) {
        let event = self.p.plane.events().recv_timeout(WAIT).unwrap();
        let set = phone.sets[0];
        assert_eq!(event, Event::EncapPortLearned { set, port });
    }
}

/// The four SAs of a phone, at both ends. Keys differ between phones.
fn install(p: &Side, phone: &Side, leg: usize, suite: Suite) -> [SetId; 2] {
    let keys = EspKeys::expand(
        suite,
        &Ik::from_bytes([leg as u8; 16]),
        &Ck::from_bytes([0x22; 16]),
    );
    let [pc, ps] = [(); 2].map(|()| p.plane.reserve(&SPIS).unwrap().spi);
    let [port_uc, port_us] = Phone::ports(leg);
    let four = [
        (port_uc, PORT_PS, ps, true),
        (PORT_PS, port_uc, SPIS[0], false),
        (PORT_PC, port_us, SPIS[1], false),
        (port_us, PORT_PC, pc, true),
    ];
    [(p, true), (phone, false)].map(|(side, at_p)| {
        // What each end takes for the phone's address outside.
        let outside: IpAddr = if at_p { PUBLIC } else { private(leg) }.into();
        let sas = four.iter().map(|(from, to, spi, to_p)| {
            let ends = |phone: IpAddr| match to_p {
                true => (phone, P_CSCF.into()),
                false => (P_CSCF.into(), phone),
            };
            let ((src, dst), (outer_src, outer_dst)) = (ends(PUBLIC.into()), ends(outside));
            let spec = SaSpec {
                spi: *spi,
                mode: Mode::UdpEncTun,
                selector: Selector {
                    src,
                    dst,
                    src_port: Some(*from),
                    dst_port: Some(*to),
                    proto: SelProto::UdpTcp,
                },
                suite,
                outer: Some(Outer {
                    src: outer_src,
                    dst: outer_dst,
                    sport: None,
                    dport: to_p.then_some(4500),
                }),
                esn: false,
                replay_window: 64,
            };
            NewSa {
                spec,
                keys: keys.clone(),
                dir: if *to_p == at_p { Dir::In } else { Dir::Out },
                first_seq: None,
            }
        });
        let set = SetSpec {
            set: None,
            sas: sas.collect(),
        };
        let id = side.plane.install(set).unwrap();
        side.plane.activate(id).unwrap();
        id
    })
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn two_phones_behind_one_nat_each_get_what_is_theirs() {
    for suite in [Suite::HmacSha1AesCbc, Suite::NullAesGcm] {
        let nat = Nat::new(suite);
        // Nobody has spoken: the P-CSCF does not know where to.
        let [first, second] = &nat.phones[..] else {
            panic!()
        };
        nat.ps
            .send_to(b"too early", first.uc.local_addr().unwrap())
            .unwrap();
        grows(&nat.p.plane, Reason::OutNoEncapPort, 0, 1);
        pass(&first.uc, &nat.ps, 100);
        nat.learnt(first, 30_001);
        pass(&second.uc, &nat.ps, 100);
        nat.learnt(second, 30_002);
        for len in [1, 100, 1400, 3000, 20_000] {
            nat.all_talk(len);
        }
        for phone in &nat.phones {
            silent(&phone.uc);
            let stats = phone.side.plane.stats().unwrap();
            let strange = [Reason::BadIcv, Reason::UnknownSpi, Reason::SelectorMismatch];
            assert_eq!(strange.map(|r| stats.get(r)), [0; 3], "leg {}", phone.leg);
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn when_the_nat_binds_another_port_the_next_verified_packet_moves_the_phone() {
    let nat = Nat::new(Suite::NullAesGcm);
    let [first, second] = &nat.phones[..] else {
        panic!()
    };
    nat.all_talk(100);
    nat.learnt(first, 30_001);
    nat.learnt(second, 30_002);
    // An old packet and a forged one, from elsewhere, say nothing.
    let old = nat.last.lock().unwrap().clone();
    pass(&second.uc, &nat.ps, 50);
    let from = |frame: &[u8], port: u16| {
        let mut frame = frame.to_vec();
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame
    };
    nat.middle.inject(P, &from(&old, 40_000));
    grows(&nat.p.plane, Reason::Replay, 0, 1);
    let mut forged = from(&old, 40_001);
    // A number that would be the newest.
    forged[46..50].copy_from_slice(&1000u32.to_be_bytes());
    nat.middle.inject(P, &forged);
    grows(&nat.p.plane, Reason::BadIcv, 0, 1);
    nat.all_talk(60);

    // Another port for one of them.
    nat.ports.lock().unwrap()[1] = 31_001;
    nat.ps
        .send_to(b"lost", first.uc.local_addr().unwrap())
        .unwrap();
    silent(&first.uc);
    pass(&first.uc, &nat.ps, 70);
    nat.learnt(first, 31_001);
    nat.all_talk(1000);

    // They change places: until each has spoken, what is sent reaches the other, and does not
    // verify there, though SPI and ports would do.
    *nat.ports.lock().unwrap() = [0, 30_002, 31_001];
    let before = count(&second.side.plane, Reason::BadIcv);
    nat.ps
        .send_to(b"not yours", first.uc.local_addr().unwrap())
        .unwrap();
    grows(&second.side.plane, Reason::BadIcv, before, 1);
    silent(&second.uc);
    nat.all_talk(80);
    nat.learnt(first, 30_002);
    nat.learnt(second, 31_001);
    nat.all_talk(3000);
    assert_eq!(nat.p.plane.events().try_iter().count(), 0);
}
