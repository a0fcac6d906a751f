//! Two namespaces with the kernel's ESP in both: this host and a phone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use gm_esp::{SaSpec, Suite};
use gm_tests::netns::{End, NetNs, veth};
use gm_xfrm::kernel::plan::{self, Dir, Plan};
use gm_xfrm::kernel::sets::{self, With};

use crate::ground::{PHONE, PRIVATE, US, Way, address, keys, spec, tables};

/// This host and a phone.
pub struct Two {
    pub us: NetNs,
    pub phone: NetNs,
}

pub const PATIENCE: Duration = Duration::from_secs(20);

impl Two {
    pub fn new() -> Two {
        let [us, phone] = [(); 2].map(|()| NetNs::new().expect("root"));
        let addresses = |v4: &str, v6: &str| [format!("{v4}/24"), format!("{v6}/64")];
        let (ours, theirs) = (addresses(US[0], US[1]), addresses(PHONE[0], PHONE[1]));
        veth(
            End {
                ns: &us,
                name: "gm0",
                addresses: &[&ours[0], &ours[1]],
            },
            End {
                ns: &phone,
                name: "ue0",
                addresses: &[&theirs[0], &theirs[1]],
            },
        );
        phone.ip(&format!("addr add {PRIVATE}/32 dev lo"));
        us.ip(&format!("route add {PRIVATE}/32 dev gm0"));
        Two { us, phone }
    }

    /// Both ends of two SAs, there and back.
    pub fn install(&self, spi: u32, set: u64, suite: Suite, way: Way) -> [Vec<Plan>; 2] {
        let (to_us, to_phone) = (
            spec(spi, suite, way, Dir::In),
            spec(spi + 1, suite, way, Dir::Out),
        );
        let plans = |ours: Dir, theirs: Dir| {
            vec![
                of(&to_us, ours, suite, set),
                of(&to_phone, theirs, suite, set),
            ]
        };
        let (us, phone) = (plans(Dir::In, Dir::Out), plans(Dir::Out, Dir::In));
        for (ns, plans) in [(&self.us, &us), (&self.phone, &phone)] {
            tables(ns, |xfrm| sets::install(xfrm, plans, With::AllPolicies)).expect("a set");
        }
        [us, phone]
    }

    /// Numbers that the two ends of the SA to us have used.
    pub fn sent(&self, plans: &[Vec<Plan>; 2]) -> (u64, u64) {
        let [us, phone] = plans;
        (
            tables(&self.us, |xfrm| xfrm.numbers(us[0].state.id))
                .expect("numbers")
                .top,
            tables(&self.phone, |xfrm| xfrm.numbers(phone[0].state.id))
                .expect("numbers")
                .seq,
        )
    }
}

/// As `dir` at whoever has it: what comes to one leaves the other.
pub fn of(spec: &SaSpec, dir: Dir, suite: Suite, set: u64) -> Plan {
    let mut spec = *spec;
    if let Some(outer) = &mut spec.outer {
        // There is no NAT: both ports are known.
        (outer.sport, outer.dport) = (Some(4500), Some(4500));
    }
    plan::sa(&spec, &keys(suite), dir, plan::reqid(set))
}

/// The kernel's reasons for drops in a namespace, those that are not 0.
pub fn drops(ns: &NetNs) -> BTreeMap<String, u64> {
    let text = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/xfrm_stat"));
    let text = text.expect("the kernel's counters");
    let lines = text.lines().filter_map(|line| {
        let (name, count) = line.split_once(char::is_whitespace)?;
        Some((name.to_string(), count.trim().parse().ok()?))
    });
    lines.filter(|(_, count)| *count > 0).collect()
}

pub fn waits(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn socket(ns: &NetNs, addr: IpAddr, port: u16) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind((addr, port))).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a setting");
    socket
}

pub fn hears(socket: &UdpSocket, words: &[u8]) -> SocketAddr {
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
    assert_eq!(&buffer[..length], words);
    from
}

pub fn ends(way: Way) -> (IpAddr, IpAddr) {
    match way {
        Way::Trans4 => (address(US[0]), address(PHONE[0])),
        Way::Trans6 => (address(US[1]), address(PHONE[1])),
        Way::Tunnel => (address(US[0]), address(PRIVATE)),
    }
}

/// The sockets that take ESP in UDP.
pub fn encap(two: &Two) -> [UdpSocket; 2] {
    let at = |ns: &NetNs, addr: &str, port: u16| {
        let socket = socket(ns, address(addr), port);
        gm_xsk::esp_in_udp(&socket).expect("ESP in UDP");
        socket
    };
    [at(&two.us, US[0], 4500), at(&two.phone, PHONE[0], 4500)]
}
