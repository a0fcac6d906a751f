//! The SA of an input.

use std::sync::OnceLock;

use gm_abi::wire;
use gm_engines::Key;
use gm_esp::*;

use super::SPI;
use crate::packets::{ENCAP_PORT, FAR_PORT, NEAR_PORT, address, ip, udp};

/// An SA with its key once more, for packets that are authentic nonsense.
pub struct Link {
    pub sa: Sa,
    pub key: Key,
    /// IP version inside and outside.
    pub v6: (bool, bool),
}

impl Link {
    fn new(kind: usize) -> Link {
        let suite = Suite::every().nth(kind % 8).expect("one of eight");
        let bit = |n: usize| kind >> n & 1 == 1;
        let mode = if bit(3) { Mode::UdpEncTun } else { Mode::Trans };
        let v6 = (bit(4), if bit(3) { bit(5) } else { bit(4) });
        let (ports, proto) = match bit(7) {
            true => ((None, None), SelProto::Any),
            false => ((Some(FAR_PORT), Some(NEAR_PORT)), SelProto::UdpTcp),
        };
        let spec = SaSpec {
            spi: SPI,
            mode,
            selector: Selector {
                src: address(v6.0, false, false),
                dst: address(v6.0, true, false),
                src_port: ports.0,
                dst_port: ports.1,
                proto,
            },
            suite,
            outer: bit(3).then(|| Outer {
                src: address(v6.1, false, true),
                dst: address(v6.1, true, true),
                sport: Some(40_123),
                dport: Some(ENCAP_PORT),
            }),
            esn: bit(6),
            replay_window: 64,
        };
        let keys = EspKeys::expand(
            suite,
            &Ik::from_bytes([0x11; 16]),
            &Ck::from_bytes([0x22; 16]),
        );
        let key = Key::new(
            suite.transform(),
            keys.integrity().unwrap_or_default(),
            keys.encryption().unwrap_or_default(),
            keys.salt().unwrap_or_default(),
        );
        Link {
            sa: Sa::new(spec, &keys).expect("an SA"),
            key: key.expect("a key"),
            v6,
        }
    }

    /// All 256 kinds, each made when it is first asked for.
    pub fn of(kind: u8) -> &'static Link {
        static LINKS: [OnceLock<Link>; 256] = [const { OnceLock::new() }; 256];
        LINKS[usize::from(kind)].get_or_init(|| Link::new(usize::from(kind)))
    }

    /// ESP in the headers of this SA.
    pub fn wrap(&self, esp: &[u8]) -> Vec<u8> {
        let ends = |outside| {
            (
                address(self.v6.1, false, outside),
                address(self.v6.1, true, outside),
            )
        };
        match self.sa.mode() {
            Mode::Trans => ip(ends(false).0, ends(false).1, wire::ESP, &[], esp),
            Mode::UdpEncTun => {
                let udp = udp(40_123, ENCAP_PORT, esp);
                ip(ends(true).0, ends(true).1, wire::UDP, &[], &udp)
            }
        }
    }
}
