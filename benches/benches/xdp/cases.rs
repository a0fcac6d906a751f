//! The packets, what is known beforehand, and what is to become of them.

use gm_abi::maps::{Addr, SPI_BASE, mapped};

/// The Gm link's addresses here.
pub const OURS_V4: Addr = mapped([203, 0, 113, 5]);
pub const OURS_V6: Addr = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const THEIRS_V4: Addr = mapped([198, 51, 100, 1]);
const THEIRS_V6: Addr = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const OTHER_V4: Addr = mapped([203, 0, 113, 6]);
/// UDP port of ESP in UDP, and the only protected port.
pub const ENCAP_PORT: u16 = 4500;
pub const PROTECTED: u16 = 5104;
/// Window of every SA: its top, and the one number below that was seen.
pub const TOP: u32 = 1000;
pub const SEEN: u32 = 980;
const NEW: u32 = 990;

const DROP: u32 = 1;
/// XDP_PASS.
pub const PASS: u32 = 2;
const REDIRECT: u32 = 4;
const NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;
const TAKEN: u32 = 7;

const ESP: u8 = 50;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// Which program is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    Uplink,
    Egress,
    Guard,
    /// The wrapper's own, which reads one line of a table.
    Read,
}

impl Under {
    pub fn is_xdp(self) -> bool {
        matches!(self, Under::Uplink | Under::Read)
    }

    pub fn name(self) -> &'static str {
        match self {
            Under::Uplink => "gm_xdp_uplink",
            Under::Egress => "gm_tc_egress",
            Under::Guard => "gm_tc_guard",
            Under::Read => "gm_bench_read",
        }
    }
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub under: Under,
    pub frame: Vec<u8>,
    /// SAs that are installed, in the first slots.
    pub sas: u32,
    /// They are IPv6's, else IPv4's; ESP is in UDP, else raw.
    pub v6: bool,
    pub in_udp: bool,
    /// First SPI and number of those that are drawn, and where they go.
    pub spis: (u32, u32),
    pub spi_at: u32,
    /// Interface index of the uplink; test runs are on `lo`, which has 1.
    pub uplink: u32,
    /// Whether a worker listens.
    pub socket: bool,
    /// What the program must say.
    pub action: u32,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            name: String::new(),
            under: Under::Uplink,
            frame: v4(THEIRS_V4, OURS_V4, ESP, &esp(NEW)),
            sas: 1,
            v6: false,
            in_udp: false,
            spis: (0, 0),
            spi_at: 34,
            uplink: 1,
            socket: true,
            action: REDIRECT,
        }
    }
}

/// ESP for a random one of `sas` live SAs.
pub fn known(name: &str, sas: u32) -> Case {
    Case {
        name: name.into(),
        sas,
        spis: (SPI_BASE, sas),
        ..Case::default()
    }
}

/// What the uplink meets.
pub fn uplink() -> Vec<Case> {
    let udp_esp = udp(4500, ENCAP_PORT, &esp(NEW));
    let plain = |name: &str, frame, action| Case {
        name: name.into(),
        frame,
        action,
        ..Case::default()
    };
    vec![
        Case {
            frame: v4(THEIRS_V4, OURS_V4, UDP, &udp_esp),
            in_udp: true,
            spi_at: 42,
            ..known("own SPI of 1000, in UDP", 1000)
        },
        Case {
            frame: v6(THEIRS_V6, OURS_V6, ESP, &esp(NEW)),
            v6: true,
            spi_at: 54,
            ..known("own SPI of 1000, IPv6", 1000)
        },
        Case {
            spis: (256, 1_000_000),
            action: DROP,
            ..known("unknown SPI", 1000)
        },
        Case {
            frame: v4(THEIRS_V4, OURS_V4, ESP, &esp(SEEN)),
            action: DROP,
            ..known("replay", 1000)
        },
        Case {
            socket: false,
            action: DROP,
            ..known("no worker", 1000)
        },
        plain(
            "clear to a protected port",
            v4(THEIRS_V4, OURS_V4, UDP, &udp(5060, PROTECTED, &[0; 100])),
            DROP,
        ),
        plain(
            "clear to another port",
            v4(THEIRS_V4, OURS_V4, UDP, &udp(5060, 5060, &[0; 100])),
            PASS,
        ),
        plain(
            "ESP not for us",
            v4(THEIRS_V4, OTHER_V4, ESP, &esp(NEW)),
            PASS,
        ),
        plain(
            "TCP not for us",
            v4(THEIRS_V4, OTHER_V4, TCP, &tcp(443, 40_000)),
            PASS,
        ),
        plain(
            "IPv6 not for us",
            v6(THEIRS_V6, THEIRS_V6, TCP, &tcp(443, 40_000)),
            PASS,
        ),
        plain("ARP", arp(), PASS),
    ]
}

/// What leaves.
pub fn egress() -> Vec<Case> {
    let case = |name: &str, frame, action| Case {
        name: name.into(),
        under: Under::Egress,
        frame,
        action,
        ..Case::default()
    };
    vec![
        case(
            "UDP of another address",
            v4(OTHER_V4, THEIRS_V4, UDP, &udp(5060, 5060, &[0; 100])),
            NEXT,
        ),
        case(
            "UDP of another port",
            v4(OURS_V4, THEIRS_V4, UDP, &udp(5060, 5060, &[0; 100])),
            NEXT,
        ),
        case(
            "TCP of another address",
            v4(OTHER_V4, THEIRS_V4, TCP, &tcp(443, 40_000)),
            NEXT,
        ),
        case(
            "TCP of another port",
            v4(OURS_V4, THEIRS_V4, TCP, &tcp(443, 40_000)),
            NEXT,
        ),
        case("ICMP echo", v4(OURS_V4, THEIRS_V4, 1, &icmp()), NEXT),
        case(
            "UDP of another port, IPv6",
            v6(OURS_V6, THEIRS_V6, UDP, &udp(5060, 5060, &[0; 100])),
            NEXT,
        ),
        case(
            "TCP of another address, IPv6",
            v6(THEIRS_V6, THEIRS_V6, TCP, &tcp(443, 40_000)),
            NEXT,
        ),
        case("ARP", arp(), NEXT),
        case(
            "protected, taken",
            v4(OURS_V4, THEIRS_V4, UDP, &udp(PROTECTED, 5060, &[0; 100])),
            TAKEN,
        ),
    ]
}

/// What the guard meets.
pub fn guard() -> Vec<Case> {
    let case = |name: &str, frame, action| Case {
        name: name.into(),
        under: Under::Guard,
        frame,
        action,
        ..Case::default()
    };
    vec![
        case(
            "TCP not for us",
            v4(THEIRS_V4, OTHER_V4, TCP, &tcp(443, 40_000)),
            NEXT,
        ),
        case(
            "TCP to another port",
            v4(THEIRS_V4, OURS_V4, TCP, &tcp(443, 40_000)),
            NEXT,
        ),
        case(
            "UDP to a protected port",
            v4(THEIRS_V4, OURS_V4, UDP, &udp(5060, PROTECTED, &[0; 100])),
            SHOT,
        ),
    ]
}

/// 128 bytes of ESP.
fn esp(seq: u32) -> Vec<u8> {
    let mut b = SPI_BASE.to_be_bytes().to_vec();
    b.extend(seq.to_be_bytes());
    b.resize(128, 0xa5);
    b
}

fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = Vec::new();
    for half in [src, dst, 8 + payload.len() as u16, 0] {
        b.extend(half.to_be_bytes());
    }
    b.extend(payload);
    b
}

fn tcp(src: u16, dst: u16) -> Vec<u8> {
    let mut b = vec![0; 120];
    b[..2].copy_from_slice(&src.to_be_bytes());
    b[2..4].copy_from_slice(&dst.to_be_bytes());
    b[12] = 5 << 4;
    b
}

fn icmp() -> Vec<u8> {
    let mut b = vec![0; 64];
    b[0] = 8;
    b
}

fn ethernet(kind: u16) -> Vec<u8> {
    let mut b = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    b.extend(kind.to_be_bytes());
    b
}

fn arp() -> Vec<u8> {
    let mut b = ethernet(0x0806);
    b.resize(60, 0);
    b
}

fn v4(src: Addr, dst: Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut b = ethernet(0x0800);
    b.extend([0x45, 0]);
    b.extend((20 + payload.len() as u16).to_be_bytes());
    b.extend([0, 1, 0x40, 0, 64, proto, 0, 0]);
    b.extend(&src[12..]);
    b.extend(&dst[12..]);
    b.extend(payload);
    b
}

fn v6(src: Addr, dst: Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut b = ethernet(0x86dd);
    b.extend([0x60, 0, 0, 0]);
    b.extend((payload.len() as u16).to_be_bytes());
    b.extend([proto, 64]);
    b.extend(src);
    b.extend(dst);
    b.extend(payload);
    b
}
