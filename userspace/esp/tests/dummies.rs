//! Dummy packets (RFC 4303 2.6, next header 59): TS 33.203 clause 6.2 wants none sent.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use gm_engines::reference;
use gm_esp::{
    BufferedIv, Ck, Counter, EncapPorts, EspKeys, Ik, MAX_BACK, MAX_FRONT, Mode, Outer, PacketBuf,
    Reason, Sa, SaSpec, SelProto, Selected, Selector, Suite, outbound,
};

const SRC: [u8; 4] = [192, 0, 2, 1];
const DST: [u8; 4] = [192, 0, 2, 2];

fn sa(suite: Suite, mode: Mode, proto: SelProto) -> Sa {
    let keys = EspKeys::expand(suite, &Ik::from_bytes([7; 16]), &Ck::from_bytes([8; 16]));
    let address = |bytes: [u8; 4]| IpAddr::from(bytes);
    let spec = SaSpec {
        spi: 1_000_000_001,
        mode,
        selector: Selector {
            src: address(SRC),
            dst: address(DST),
            src_port: None,
            dst_port: None,
            proto,
        },
        suite,
        outer: (mode == Mode::UdpEncTun).then(|| Outer {
            src: address(SRC),
            dst: address(DST),
            sport: Some(4500),
            dport: Some(4500),
        }),
        esn: false,
        replay_window: 64,
    };
    Sa::new(spec, &keys).unwrap()
}

/// Seals an IPv4 packet of this protocol.
fn seal(sa: &Sa, proto: u8, body: usize, sent: &AtomicU64) -> Result<usize, Reason> {
    let len = 20 + body;
    let mut ip = vec![0x45, 0, 0, len as u8, 0, 0, 0, 0, 64, proto, 0, 0];
    ip.extend(SRC.iter().chain(&DST));
    // For UDP: from 9 to 9, and its length.
    ip.extend([0, 9, 0, 9, 0, body as u8, 0, 0]);
    ip.resize(len, 0x3c);
    let mut buffer = vec![0; MAX_FRONT + len + MAX_BACK];
    buffer[MAX_FRONT..MAX_FRONT + len].copy_from_slice(&ip);
    let packet = PacketBuf::new(&mut buffer, MAX_FRONT, MAX_FRONT + len);
    let mut iv = BufferedIv::new(|bytes: &mut [u8]| bytes.fill(0x3c));
    let numbered =
        Selected::new(packet, sa)?.number(&Counter(sent), EncapPorts::default(), &mut iv)?;
    Ok(outbound::seal_one(reference(), numbered)?.packet().len())
}

#[test]
fn what_has_next_header_59_is_not_sealed_and_takes_no_number() {
    for suite in Suite::every() {
        for mode in [Mode::Trans, Mode::UdpEncTun] {
            for proto in [SelProto::UdpTcp, SelProto::Any] {
                let (sa, sent) = (sa(suite, mode, proto), AtomicU64::new(0));
                for body in [0, 8, 100] {
                    assert_eq!(
                        seal(&sa, 59, body, &sent),
                        Err(Reason::OutNoSa),
                        "{suite} {mode:?} {proto:?} {body}"
                    );
                }
                assert_eq!(sent.load(Ordering::Relaxed), 0);
                seal(&sa, 17, 100, &sent).expect("UDP is sealed");
                assert_eq!(sent.load(Ordering::Relaxed), 1);
            }
        }
    }
}
