//! The published packets of RFC 3602.

use std::sync::atomic::Ordering;

use super::super::*;
use crate::testing::{Link, spec};
use crate::{EspKeys, Mode, SelProto, Selector, Suite};

/// RFC 3602 4, cases 5 and 6 (transport) and 7 and 8 (tunnel): a ping between
/// two hosts. The RFC's packets carry no ICV; ours follows them.
#[test]
fn seals_and_opens_the_packets_of_rfc_3602() {
    struct Case {
        spi: u32,
        seq: u64,
        dst: [u8; 4],
        key: &'static str,
        iv: &'static str,
        plain: &'static str,
        cipher: &'static str,
        mode: Mode,
    }
    const CASES: [Case; 4] = [
        Case {
            spi: 0x4321,
            seq: 1,
            dst: [192, 168, 123, 100],
            key: "90d382b410eeba7ad938c46cec1a82bf",
            iv: "e96e8c08ab465763fd098d45dd3ff893",
            plain: "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f1011121314151617\
                    18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637",
            cipher: "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856\
                     a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a\
                     a269add047ad2d5913ac19b7cfbad4a6",
            mode: Mode::Trans,
        },
        Case {
            spi: 0x4321,
            seq: 8,
            dst: [192, 168, 123, 100],
            key: "90d382b410eeba7ad938c46cec1a82bf",
            iv: "69d08df7d203329db093fc4924e5bd80",
            plain: "0800b5e8a80a0500a69c083d0b660e00777777777777777777777777",
            cipher: "f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75",
            mode: Mode::Trans,
        },
        Case {
            spi: 0x8765,
            seq: 2,
            dst: [192, 168, 123, 200],
            key: "0123456789abcdef0123456789abcdef",
            iv: "f4e765244f6407adf13dc1380f673f37",
            plain: "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d\
                    02a2040008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223\
                    2425262728292a2b2c2d2e2f3031323334353637",
            cipher: "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8\
                     e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5\
                     c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d",
            mode: Mode::UdpEncTun,
        },
        Case {
            spi: 0x8765,
            seq: 5,
            dst: [192, 168, 123, 200],
            key: "0123456789abcdef0123456789abcdef",
            iv: "85d47224b5f3dd5d2101d4ea8dffab22",
            plain: "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083d\
                    a3de0300ffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
                    ffffffff",
            cipher: "15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb5\
                     0f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3\
                     d2726d9b5ef6affc6d17a0decbb13892",
            mode: Mode::UdpEncTun,
        },
    ];
    struct Iv([u8; 16]);
    impl IvSource for Iv {
        fn fill(&mut self, iv: &mut [u8; 16]) {
            *iv = self.0;
        }
    }
    for case in CASES {
        let suite = Suite::HmacSha1AesCbc;
        let mut sa = spec(suite, case.mode, false);
        sa.spi = case.spi;
        sa.selector = Selector {
            src: [192, 168, 123, 3].into(),
            dst: case.dst.into(),
            src_port: None,
            dst_port: None,
            proto: SelProto::Any,
        };
        let secret = hex::decode(case.key).unwrap();
        let keys = EspKeys::explicit(suite, Some(&[9; 20]), Some(&secret), None).unwrap();
        let mut link = Link::of(sa);
        link.sa = Sa::new(sa, &keys).unwrap();
        link.sent.store(case.seq - 1, Ordering::Relaxed);

        let mut plain = hex::decode(case.plain).unwrap();
        if case.mode == Mode::Trans {
            let mut ip = vec![0x45, 0, 0, 0, 9, 4, 0, 0, 64, 1, 0, 0, 192, 168, 123, 3];
            ip.extend_from_slice(&case.dst);
            ip.extend_from_slice(&plain);
            headers::set_length(&mut ip, false);
            plain = ip;
        }
        let mut buffer = vec![0; 400];
        let end = 100 + plain.len();
        buffer[100..end].copy_from_slice(&plain);
        let mut iv = Iv(hex::decode(case.iv).unwrap().try_into().unwrap());
        let numbered = Selected::new(PacketBuf::new(&mut buffer, 100, end), &link.sa)
            .unwrap()
            .number(&Counter(&link.sent), EncapPorts::default(), &mut iv)
            .unwrap();
        let sealed = seal_one(gm_engines::reference(), numbered).unwrap();
        let sealed = sealed.packet().data();
        let header = if case.mode == Mode::Trans { 20 } else { 28 };
        let published = format!("{:08x}{:08x}{}{}", case.spi, case.seq, case.iv, case.cipher);
        assert_eq!(hex::encode(&sealed[header..sealed.len() - 12]), published);
        assert_eq!(link.open(sealed), Ok(plain));
    }
}
