//! Wycheproof's vectors against the primitives of every level: what is computed
//! is compared with a valid test's output, and must differ from an invalid one's.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, KeyInit, Nonce};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha1::Sha1;

use super::{ICV_LEN, hmac as lanes};
use crate::simd::avx2::Avx2;
use crate::simd::avx512::Avx512;
use crate::simd::gcm::{CHECK, Gcm, MAC, OPEN, Packet, SEAL, Work};
use crate::simd::{AES_BLOCK, Level, MacStates, Message, Messages, Tag};
use crate::{Engine, Job, Key, Transform};

/// A test's values.
struct Test(Value);

impl Test {
    fn bytes(&self, name: &str) -> Vec<u8> {
        hex::decode(self.0[name].as_str().unwrap_or_default()).unwrap()
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap()
    }

    fn valid(&self) -> bool {
        self.0["result"] == "valid"
    }

    fn name(&self) -> String {
        format!("test {} ({})", self.0["tcId"], self.0["comment"])
    }
}

/// The tests of a file, so many valid and invalid ones.
fn tests(json: &str, valid: usize, invalid: usize) -> Vec<Test> {
    let tests: Vec<Value> = serde_json::from_str(json).unwrap();
    let tests: Vec<Test> = tests.into_iter().map(Test).collect();
    let good = tests.iter().filter(|test| test.valid()).count();
    assert_eq!((good, tests.len() - good), (valid, invalid));
    tests
}

/// Takes additional data and a message and gives ciphertext and tag.
type Seal<'a> = &'a dyn Fn(&[u8; 16], &[u8; 12], &[u8], &[u8]) -> Sealed;

/// Ciphertext and tag.
type Sealed = (Vec<u8>, Vec<u8>);

fn number(bytes: &[u8]) -> u128 {
    let mut block = [0; AES_BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    u128::from_le_bytes(block)
}

/// GCM of a level; GMAC where there is no message. It opens what it has sealed.
fn gcm_of<L: Gcm>(level: L) -> impl Fn(&[u8; 16], &[u8; 12], &[u8], &[u8]) -> Sealed {
    move |key, nonce, aad, message| {
        let key = level.gcm_key(key);
        let (head, rest) = aad.split_at(aad.len().min(AES_BLOCK));
        let packet = Packet {
            nonce: number(nonce),
            head: number(head),
            lengths: (aad.len(), message.len()),
        };
        assert!(
            message.is_empty() || rest.is_empty(),
            "additional data of one block at most"
        );
        let covered = if message.is_empty() { rest } else { message };
        let mut data = [covered, &[0x5a; 16]].concat();
        let mut run = |way: fn(L, Work<'_, L::Key>) -> u64| {
            let data = &mut data;
            let bad = way(
                level,
                Work {
                    key: &key,
                    packet,
                    data,
                },
            );
            assert_eq!(bad, 0, "an ICV that it has written itself");
            data.clone()
        };
        let sealed = if message.is_empty() {
            let sealed = run(|level, work| level.gcm::<MAC>(&mut [work].into_iter()));
            assert_eq!(
                run(|level, work| level.gcm::<CHECK>(&mut [work].into_iter())),
                sealed
            );
            sealed
        } else {
            let sealed = run(|level, work| level.gcm::<SEAL>(&mut [work].into_iter()));
            let opened = run(|level, work| level.gcm::<OPEN>(&mut [work].into_iter()));
            assert_eq!(opened[..message.len()], *message);
            sealed
        };
        let (sealed, tag) = sealed.split_at(covered.len());
        let sealed = if message.is_empty() {
            vec![]
        } else {
            sealed.to_vec()
        };
        (sealed, tag.to_vec())
    }
}

fn portable(key: &[u8; 16], nonce: &[u8; 12], aad: &[u8], message: &[u8]) -> Sealed {
    let gcm = Aes128Gcm::new_from_slice(key).unwrap();
    let mut data = message.to_vec();
    let tag = gcm.encrypt_inout_detached(&Nonce::from(*nonce), aad, data.as_mut_slice().into());
    (data, tag.unwrap().to_vec())
}

/// Runs `check` with each level's GCM, of which there are as many as engines.
fn each_gcm(check: impl Fn(Seal<'_>)) {
    let mut levels = 1;
    check(&portable);
    if let Some(level) = Avx512::detect() {
        check(&gcm_of(level));
        levels += 1;
    }
    if let Some(level) = Avx2::detect() {
        check(&gcm_of(level));
        levels += 1;
    }
    let engines = crate::Level::ALL
        .into_iter()
        .filter_map(crate::Level::engine);
    assert_eq!(levels, engines.count());
}

#[test]
fn gcm() {
    let json = include_str!("../../../../tests/vectors/wycheproof/aes_gcm.json");
    let tests = tests(json, 40, 27);
    // ESP's additional data has 8 or 12 bytes, and the levels take one block.
    let (ours, long): (Vec<_>, Vec<_>) = tests
        .iter()
        .partition(|test| test.bytes("aad").len() <= AES_BLOCK);
    assert_eq!((ours.len(), long.len()), (54, 13));
    let check = |test: &Test, seal: Seal<'_>| {
        let (message, aad) = (test.bytes("msg"), test.bytes("aad"));
        let (sealed, tag) = seal(&test.array("key"), &test.array("iv"), &aad, &message);
        let same = sealed == test.bytes("ct") && tag == test.bytes("tag");
        assert_eq!(same, test.valid(), "{}", test.name());
    };
    each_gcm(|seal| ours.iter().for_each(|test| check(test, seal)));
    long.iter().for_each(|test| check(test, &portable));
}

#[test]
fn gmac() {
    let json = include_str!("../../../../tests/vectors/wycheproof/aes_gmac.json");
    let tests = tests(json, 15, 54);
    each_gcm(|seal| {
        for test in &tests {
            let (_, tag) = seal(
                &test.array("key"),
                &test.array("iv"),
                &test.bytes("msg"),
                &[],
            );
            assert_eq!(tag == test.bytes("tag"), test.valid(), "{}", test.name());
        }
    });
}

/// The reference computes all 160 bits, the levels the 96 that ESP sends: of the
/// invalid tags some are wrong behind those only.
#[test]
fn hmac_sha1() {
    let json = include_str!("../../../../tests/vectors/wycheproof/hmac_sha1.json");
    let tests = tests(json, 27, 54);
    let mut levels = 1;
    let good: Vec<bool> = tests
        .iter()
        .map(|test| {
            let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(&test.bytes("key")).unwrap();
            mac.update(&test.bytes("msg"));
            let tag = mac.finalize().into_bytes().to_vec();
            let wanted = test.bytes("tag");
            assert_eq!(tag == wanted, test.valid(), "{}", test.name());
            tag[..ICV_LEN] == wanted[..ICV_LEN]
        })
        .collect();
    let behind = good.iter().filter(|good| **good).count() - 27;
    assert_eq!(behind, 14);
    if let Some(level) = Avx512::detect() {
        in_lanes(level, &tests, &good);
        levels += 1;
    }
    if let Some(level) = Avx2::detect() {
        in_lanes(level, &tests, &good);
        levels += 1;
    }
    let engines = crate::Level::ALL
        .into_iter()
        .filter_map(crate::Level::engine);
    assert_eq!(levels, engines.count());
}

/// Messages with their keys, and their tags.
struct Bytes<'a>(&'a [(MacStates, Vec<u8>)], Vec<Tag>);

impl<'a> Messages<'a> for Bytes<'a> {
    fn message(&self, place: usize) -> Message<'a> {
        let (key, covered) = &self.0[place];
        Message {
            key,
            covered,
            seq_hi: None,
        }
    }

    fn tagged(&mut self, place: usize, tag: Tag) {
        self.1[place] = tag;
    }
}

/// Alone, and side by side.
fn in_lanes<L: Level>(level: L, tests: &[Test], good: &[bool]) {
    let mut tests: Vec<_> = tests.iter().zip(good).collect();
    // The longest first.
    tests.sort_by_key(|(test, _)| std::cmp::Reverse(test.bytes("msg").len()));
    for many in [1, super::BATCH] {
        for tests in tests.chunks(many) {
            let of =
                |(test, _): &(&Test, &bool)| (MacStates::of(&test.bytes("key")), test.bytes("msg"));
            let kept: Vec<_> = tests.iter().map(of).collect();
            let count = kept.len();
            let mut messages = Bytes(&kept, vec![[0; ICV_LEN]; count]);
            lanes::tags(level, &mut messages, count);
            let tags = messages.1;
            for ((test, good), tag) in tests.iter().zip(tags) {
                let same = tag[..] == test.bytes("tag")[..ICV_LEN];
                assert_eq!(same, **good, "{}", test.name());
            }
        }
    }
}

/// PKCS #5 padding, where it is right.
fn unpadded(plain: &[u8]) -> Option<&[u8]> {
    let last = usize::from(*plain.last()?);
    let (message, padding) = plain.split_at(plain.len().checked_sub(last)?);
    let good = (1..=AES_BLOCK).contains(&last) && padding.iter().all(|b| usize::from(*b) == last);
    good.then_some(message)
}

/// Through whole packets: what CBC makes of them is their body.
#[test]
fn cbc() {
    let json = include_str!("../../../../tests/vectors/wycheproof/aes_cbc_pkcs5.json");
    let tests = tests(json, 24, 48);
    let integrity = [7; 20];
    let key = |level, transform, encryption: &[u8]| {
        Key::made_for(level, transform, &integrity, encryption, [0; 4]).unwrap()
    };
    let run = |engine: &dyn Engine, key: &Key, esp: &mut Vec<u8>, open: bool| {
        let job = |esp| Job {
            key,
            esp,
            seq_hi: None,
            ok: false,
        };
        let mut jobs = [job(esp)];
        if open {
            engine.open(&mut jobs);
        } else {
            engine.seal(&mut jobs);
        }
        jobs[0].ok
    };
    for level in crate::Level::ALL {
        let Some(engine) = level.engine() else {
            continue;
        };
        let mac = key(level, Transform::HmacSha1Null, &[]);
        let (mut opened, mut no_packet) = (0, 0);
        for test in &tests {
            let cbc = key(level, Transform::HmacSha1AesCbc, &test.bytes("key"));
            let front = [&[1, 2, 3, 4, 5, 6, 7, 8][..], &test.bytes("iv")].concat();
            let sealed = test.bytes("ct");
            let mut esp = [&front[..], &sealed, &[0; 12]].concat();
            if !Transform::HmacSha1AesCbc.fits(esp.len()) {
                // Nothing, or no whole blocks: refused.
                assert!(!test.valid() && !run(engine, &cbc, &mut esp, true));
                no_packet += 1;
                continue;
            }
            // The ICV covers the same bytes without encryption.
            assert!(run(engine, &mac, &mut esp, false));
            let whole = esp.clone();
            assert!(run(engine, &cbc, &mut esp, true), "{}", test.name());
            let plain = &esp[front.len()..esp.len() - 12];
            let message = test.bytes("msg");
            let same = unpadded(plain).is_some_and(|got| got == message);
            assert_eq!(same, test.valid(), "{}", test.name());
            assert!(run(engine, &cbc, &mut esp, false));
            assert_eq!(esp, whole, "{}", test.name());
            opened += 1;
        }
        assert_eq!((opened, opened + no_packet), (opened, tests.len()));
        assert!(opened >= 24 && no_packet > 0);
    }
}
