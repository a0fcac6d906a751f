//! The legacy transforms against themselves put together from smaller parts:
//! HMAC from plain MD5 (RFC 2104 2), 3DES from three DES keys (RFC 2451 2), CBC
//! block by block.

use des::Des;
use des::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use gm_engines::{Job, Key, Transform, reference};
use md5::{Digest, Md5};
use proptest::prelude::*;

fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Md5::new().chain_update(block.map(|b| b ^ 0x36));
    let inner = parts.iter().fold(inner, Md5::chain_update).finalize();
    let outer = Md5::new().chain_update(block.map(|b| b ^ 0x5c));
    outer.chain_update(inner).finalize().into()
}

fn three_des_cbc(key: &[u8], iv: &[u8], body: &mut [u8]) {
    let des = |n: usize| Des::new_from_slice(&key[8 * n..8 * n + 8]).unwrap();
    let (first, second, third) = (des(0), des(1), des(2));
    let mut last: [u8; 8] = iv.try_into().unwrap();
    for block in body.as_chunks_mut::<8>().0 {
        let mut mixed = std::array::from_fn::<u8, 8, _>(|i| block[i] ^ last[i]).into();
        first.encrypt_block(&mut mixed);
        second.decrypt_block(&mut mixed);
        third.encrypt_block(&mut mixed);
        last = mixed.into();
        *block = last;
    }
}

fn run(key: &Key, esp: &mut [u8], seq_hi: Option<u32>, open: bool) -> bool {
    let mut jobs = [Job {
        key,
        esp,
        seq_hi,
        ok: false,
    }];
    match open {
        true => reference().open(&mut jobs),
        false => reference().seal(&mut jobs),
    }
    jobs[0].ok
}

proptest! {
    #[test]
    fn md5_and_three_des_are_what_their_parts_make(
        integrity: [u8; 16],
        encryption: [u8; 24],
        head: [u8; 16],
        blocks in 1..190_usize,
        fill: [u8; 7],
        seq_hi: Option<u32>,
    ) {
        let transform = Transform::HmacMd5DesEde3Cbc;
        let key = Key::new(transform, &integrity, &encryption, [0; 4]).unwrap();
        let body: Vec<u8> = fill.iter().copied().cycle().take(8 * blocks).collect();
        let mut esp = [&head[..], &body, &[0; 12]].concat();
        prop_assert!(run(&key, &mut esp, seq_hi, false));

        let mut wanted = [&head[..], &body].concat();
        three_des_cbc(&encryption, &head[8..], &mut wanted[16..]);
        let hi = seq_hi.map(u32::to_be_bytes);
        let hi = hi.as_ref().map_or(&[][..], |hi| hi);
        let tag = hmac_md5(&integrity, &[&wanted, hi]);
        wanted.extend_from_slice(&tag[..12]);
        prop_assert_eq!(&esp, &wanted);

        prop_assert!(run(&key, &mut esp, seq_hi, true));
        prop_assert_eq!(&esp[16..esp.len() - 12], &body[..]);
    }
}

#[test]
fn the_parity_of_a_three_des_key_means_nothing() {
    let encryption: [u8; 24] = std::array::from_fn(|i| (i * 37) as u8);
    let sealed = |encryption: [u8; 24]| {
        let transform = Transform::HmacSha1DesEde3Cbc;
        let key = Key::new(transform, &[1; 20], &encryption, [0; 4]).unwrap();
        let mut esp = vec![7; 8 + 8 + 64 + 12];
        assert!(run(&key, &mut esp, None, false));
        esp
    };
    assert_eq!(sealed(encryption), sealed(encryption.map(|byte| byte ^ 1)));
    assert_ne!(sealed(encryption), sealed(encryption.map(|byte| byte ^ 2)));
}

#[test]
fn weak_three_des_keys_are_taken() {
    // Both halves of CK alike: one DES, and nobody can tell the other end.
    let key = Key::new(Transform::HmacMd5DesEde3Cbc, &[1; 16], &[2; 24], [0; 4]).unwrap();
    let mut esp = vec![7; 8 + 8 + 8 + 12];
    assert!(run(&key, &mut esp, None, false));
    assert!(run(&key, &mut esp, None, true));
    assert_eq!(esp[16..24], [7; 8]);
}
