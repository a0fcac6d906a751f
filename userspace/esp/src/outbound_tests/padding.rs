//! Padding (RFC 4303 2.4): as short as block and trailer allow, and 1, 2, 3.

use gm_abi::wire::UDP;

use crate::testing::{Link, Plain};
use crate::{Mode, Suite};

#[test]
fn padding_is_as_short_as_can_be_for_every_length_and_suite() {
    for mut link in Link::all() {
        let (name, v6) = (link.name(), link.v6());
        let t = link.sa.suite().transform();
        // The trailer ends on a multiple of four bytes, and of the cipher's block.
        let block = t.block().max(4);
        let is_open = matches!(
            link.sa.suite(),
            Suite::HmacSha1Null | Suite::HmacMd5Null | Suite::AesGmacNull
        );
        for payload in 0..=4 * block {
            let plain = Plain::udp(v6, payload).bytes();
            let inside = match link.sa.mode() {
                Mode::Trans => 8 + payload,
                Mode::UdpEncTun => plain.len(),
            };
            let sealed = link.seal(&plain).unwrap();
            let body = sealed.len() - link.esp_at() - 8 - t.iv_len() - t.icv_len();
            let pad = body - inside - 2;
            assert_eq!(body % block, 0, "{name} {payload}");
            assert!(pad < block, "{name} {payload}: {pad} bytes of padding");
            if is_open {
                // Padding and trailer are there to be read.
                let end = sealed.len() - t.icv_len();
                let numbers: Vec<u8> = (1..=pad as u8).collect();
                assert_eq!(sealed[end - 2 - pad..end - 2], numbers, "{name} {payload}");
                assert_eq!(usize::from(sealed[end - 2]), pad);
                if link.sa.mode() == Mode::Trans {
                    assert_eq!(sealed[end - 1], UDP);
                }
            }
            assert_eq!(link.open(&sealed), Ok(plain), "{name} {payload}");
        }
    }
}
