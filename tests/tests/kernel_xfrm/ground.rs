//! SAs to try, and namespaces to try them in.

use std::net::IpAddr;

use gm_esp::{Ck, EspKeys, Ik, Mode, Outer, SaSpec, SelProto, Selector, Suite};
use gm_tests::netns::NetNs;
use gm_xfrm::kernel::Xfrm;
use gm_xfrm::kernel::plan::{self, Dir, Plan};

/// This host and a phone, outside and inside a tunnel alike in number.
pub const US: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub const PHONE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// The phone's address behind its NAT.
pub const PRIVATE: &str = "10.0.0.2";

/// port_pc, port_ps, port_uc, port_us.
pub const PORTS: [u16; 4] = [5062, 5060, 6100, 6200];

/// Modes and families of Gm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Trans4,
    Trans6,
    Tunnel,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Trans4, Way::Trans6, Way::Tunnel];
}

/// Keys that are nobody's.
pub fn keys(suite: Suite) -> EspKeys {
    let ik = Ik::from_bytes(*b"no one's IK 1234");
    EspKeys::expand(suite, &ik, &Ck::from_bytes(*b"no one's CK 5678"))
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// From port_uc to port_ps, or back.
pub fn spec(spi: u32, suite: Suite, way: Way, dir: Dir) -> SaSpec {
    let v6 = usize::from(way == Way::Trans6);
    let (us, phone) = (address(US[v6]), address(PHONE[v6]));
    let inner = match way {
        Way::Tunnel => address(PRIVATE),
        _ => phone,
    };
    let (ours, theirs) = ((us, PORTS[1]), (inner, PORTS[2]));
    let (from, to) = match dir {
        Dir::In => (theirs, ours),
        Dir::Out => (ours, theirs),
    };
    let outer = (way == Way::Tunnel).then_some(match dir {
        Dir::In => Outer {
            src: phone,
            dst: us,
            sport: None,
            dport: Some(4500),
        },
        Dir::Out => Outer {
            src: us,
            dst: phone,
            sport: Some(4500),
            dport: None,
        },
    });
    SaSpec {
        spi,
        mode: match way {
            Way::Tunnel => Mode::UdpEncTun,
            _ => Mode::Trans,
        },
        selector: Selector {
            src: from.0,
            dst: to.0,
            src_port: Some(from.1),
            dst_port: Some(to.1),
            proto: SelProto::UdpTcp,
        },
        suite,
        outer,
        esn: false,
        replay_window: 64,
    }
}

pub fn plan_of(spi: u32, suite: Suite, way: Way, dir: Dir) -> Plan {
    plan::sa(
        &spec(spi, suite, way, dir),
        &keys(suite),
        dir,
        plan::reqid(1),
    )
}

/// The four of a set: SPIs from `spi` on, reqid of `set`.
pub fn four(spi: u32, set: u64, way: Way) -> Vec<Plan> {
    let suite = Suite::NullAesGcm;
    let of = |n: u32, dir: Dir| {
        let mut spec = spec(spi + n, suite, way, dir);
        if n > 1 {
            // The other pair: port_us and port_pc.
            let (ours, theirs) = (Some(PORTS[0]), Some(PORTS[3]));
            (spec.selector.src_port, spec.selector.dst_port) = match dir {
                Dir::In => (theirs, ours),
                Dir::Out => (ours, theirs),
            };
        }
        plan::sa(&spec, &keys(suite), dir, plan::reqid(set))
    };
    vec![
        of(0, Dir::In),
        of(1, Dir::Out),
        of(2, Dir::In),
        of(3, Dir::Out),
    ]
}

/// In the namespace, with its tables.
pub fn tables<T: Send>(ns: &NetNs, f: impl FnOnce(&mut Xfrm) -> T + Send) -> T {
    ns.run(|| f(&mut Xfrm::open().expect("XFRM")))
}
