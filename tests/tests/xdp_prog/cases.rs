//! What comes in on the uplink, and what has to become of it.

use gm_abi::maps::mapped;
use gm_abi::verdict::Reason;

use super::frames::*;
use super::lab::*;
use super::{FOREIGN, FOREIGN_HIGH, LIMITED, TRANS, TUN, WINDOWED};

pub fn uplink_cases() -> Vec<(&'static str, Vec<u8>, Reason)> {
    use Reason::*;
    let marker = [&[0u8; 4][..], &[0xab; 60]].concat();
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    vec![
        ("ESP", v4(ESP, &esp(TRANS, 1)), SteerEsp),
        (
            "ESP in VLAN",
            tagged(&v4(ESP, &esp(TRANS, 1)), &[0x8100]),
            SteerEsp,
        ),
        (
            "ESP in QinQ",
            tagged(&v4(ESP, &esp(TRANS, 1)), &[0x88a8, 0x8100]),
            SteerEsp,
        ),
        ("ESP, foreign", v4(ESP, &esp(FOREIGN, 1)), SteerEsp),
        (
            "ESP, foreign, our range",
            v6(ESP, &esp(FOREIGN_HIGH, 1)),
            SteerEsp,
        ),
        (
            "ESP in UDP",
            v6(UDP, &udp(33333, 4500, &esp(TUN, 1))),
            SteerUdpEsp,
        ),
        (
            "ESP in UDP behind extension headers",
            v6(
                0,
                &extension(DESTINATION, &extension(UDP, &udp(1, 4500, &esp(TUN, 1)))),
            ),
            SteerUdpEsp,
        ),
        (
            "unknown SPI of ours",
            v4(ESP, &esp(TRANS + 1, 1)),
            UnknownSpi,
        ),
        (
            "older generation",
            v6(UDP, &udp(1, 4500, &esp(TUN - SLOTS, 1))),
            UnknownSpi,
        ),
        (
            "unknown foreign SPI",
            v4(ESP, &esp(FOREIGN + 1, 1)),
            UnknownSpi,
        ),
        ("SPI zero", v4(ESP, &esp(0, 1)), UnknownSpi),
        (
            "the other address's SPI",
            v6(ESP, &esp(TRANS, 1)),
            UnknownSpi,
        ),
        (
            "the other address's foreign SPI",
            v6(ESP, &esp(FOREIGN, 1)),
            UnknownSpi,
        ),
        ("raw ESP on a tunnel", v6(ESP, &esp(TUN, 1)), ModeMismatch),
        (
            "ESP in UDP on transport",
            v4(UDP, &udp(1, 4500, &esp(TRANS, 1))),
            ModeMismatch,
        ),
        ("new number", v4(ESP, &esp(WINDOWED, 1001)), SteerEsp),
        ("far ahead", v4(ESP, &esp(WINDOWED, u32::MAX)), SteerEsp),
        (
            "in the window, not seen",
            v4(ESP, &esp(WINDOWED, 991)),
            SteerEsp,
        ),
        ("seen", v4(ESP, &esp(WINDOWED, 990)), Replay),
        ("seen, the top", v4(ESP, &esp(WINDOWED, 1000)), Replay),
        (
            "left end of the window",
            v4(ESP, &esp(WINDOWED, 937)),
            SteerEsp,
        ),
        ("left of the window", v4(ESP, &esp(WINDOWED, 936)), Stale),
        ("number zero", v4(ESP, &esp(WINDOWED, 0)), Replay),
        (
            "number zero, nothing published",
            v4(ESP, &esp(TRANS, 0)),
            SteerEsp,
        ),
        ("keepalive", v4(UDP, &udp(1, 4500, &[0xff])), Keepalive),
        ("marker", v4(UDP, &udp(1, 4500, &marker)), PassNonEspMarker),
        (
            "UDP 4500, nonsense",
            v4(UDP, &udp(1, 4500, &[1, 2, 3])),
            Malformed,
        ),
        ("short ESP", v4(ESP, &esp(TRANS, 1)[..19]), Malformed),
        (
            "IPv4 first fragment",
            frame(THEIRS_V4, OURS_V4, UDP, 0x2000, &udp(1, 2, b"ab")),
            SteerFragment,
        ),
        (
            "IPv4 later fragment",
            frame(THEIRS_V4, OURS_V4, UDP, 185, b"abc"),
            SteerFragment,
        ),
        (
            "IPv6 fragment",
            v6(FRAGMENT, &fragment(ESP, 1, &esp(TUN, 1))),
            SteerFragment,
        ),
        (
            "clear, protected port, UDP",
            v4(UDP, &udp(5060, PROTECTED, b"REGISTER")),
            CleartextProtected,
        ),
        (
            "clear, protected port, TCP",
            v6(TCP, &tcp(5060, PROTECTED)),
            CleartextProtected,
        ),
        (
            "clear, last protected port",
            v4(TCP, &tcp(1, 5107)),
            CleartextProtected,
        ),
        ("clear, port above", v4(TCP, &tcp(1, 5108)), PassOther),
        ("clear, port below", v4(TCP, &tcp(1, 5099)), PassOther),
        (
            "clear, protected source port only",
            v4(UDP, &udp(PROTECTED, 5060, b"x")),
            PassOther,
        ),
        ("UDP without ports", v4(UDP, &[0x13, 0xf0]), Malformed),
        ("ICMP", v4(1, &[8, 0, 0, 0, 0, 0, 0, 0]), PassOther),
        (
            "ICMP error about ESP",
            icmp_error(3, &from_us(OURS_V4, ESP, &esp(1, 1))),
            SteerIcmp,
        ),
        (
            "ICMPv6 error about ESP in UDP",
            icmp_error(2, &from_us(OURS_V6, UDP, &udp(ENCAP_PORT, 1, &esp(1, 1)))),
            SteerIcmp,
        ),
        (
            "ICMP error about a protected port",
            icmp_error(3, &from_us(OURS_V4, UDP, &udp(PROTECTED, 5060, b"x"))),
            ClearIcmp,
        ),
        (
            "ICMPv6 error about a clear port",
            icmp_error(1, &from_us(OURS_V6, TCP, &tcp(5060, PROTECTED))),
            PassOther,
        ),
        (
            "limited, its source",
            v4(ESP, &esp(LIMITED, 1001)),
            SteerEsp,
        ),
        (
            "limited, another source",
            frame(
                mapped([198, 51, 100, 2]),
                OURS_V4,
                ESP,
                0,
                &esp(LIMITED, 1001),
            ),
            IcvLimited,
        ),
        (
            "limited, far ahead",
            v4(ESP, &esp(LIMITED, 2025)),
            IcvLimited,
        ),
        (
            "for somebody else",
            frame(THEIRS_V4, THEIRS_V4, ESP, 0, &esp(TRANS, 1)),
            PassOther,
        ),
        ("ARP", arp, PassOther),
        (
            "three tags",
            tagged(&v4(ESP, &esp(TRANS, 1)), &[0x8100; 3]),
            PassOther,
        ),
    ]
}
