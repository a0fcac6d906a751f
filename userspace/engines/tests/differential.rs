//! Every engine against the reference engine, byte for byte: batches of any size
//! and mix, any length and alignment, with ESN and without, damaged and not.

use gm_engines::{Engine, Job, Key, Level, Transform};
use proptest::prelude::*;

/// One packet of a batch.
#[derive(Clone, Debug)]
struct Packet {
    transform: Transform,
    secret: [u8; 44],
    body: Vec<u8>,
    /// Bytes before the packet in its buffer.
    offset: usize,
    seq_hi: Option<u32>,
    /// The bit that is turned over between sealing and opening.
    damage: Option<usize>,
}

impl Packet {
    fn key(&self, level: Level) -> Key {
        let (integrity, rest) = self.secret.split_at(self.transform.integrity_key_len());
        let encryption = &rest[..self.transform.encryption_key_len()];
        let salt = [1, 2, 3, self.secret[0]];
        Key::made_for(level, self.transform, integrity, encryption, salt).unwrap()
    }

    fn plain(&self) -> Vec<u8> {
        let block = self.transform.block();
        let body = self.body.len().max(1).next_multiple_of(block);
        let mut bytes = vec![0x5a; self.offset];
        bytes.extend_from_slice(&self.secret[..8 + self.transform.iv_len()]);
        bytes.extend_from_slice(&self.body);
        let end = self.offset + 8 + self.transform.iv_len() + body + self.transform.icv_len();
        bytes.resize(end, 0xa5);
        bytes
    }
}

fn packet(longest: usize) -> impl Strategy<Value = Packet> {
    let transform = prop_oneof![
        4 => prop::sample::select(&[
            Transform::HmacSha1Null,
            Transform::HmacSha1AesCbc,
            Transform::NullAesGcm,
            Transform::AesGmacNull,
        ][..]),
        1 => prop::sample::select(&Transform::ALL[..]),
    ];
    let body = prop::collection::vec(any::<u8>(), 0..longest);
    let damage = prop::option::weighted(0.2, any::<usize>());
    (
        transform,
        prop::array::uniform32(any::<u8>()),
        body,
        0..64_usize,
        any::<Option<u32>>(),
        damage,
    )
        .prop_map(|(transform, secret, body, offset, seq_hi, damage)| {
            let mut long = [0; 44];
            long[..32].copy_from_slice(&secret);
            long[32..].copy_from_slice(&secret[..12]);
            Packet {
                transform,
                secret: long,
                body,
                offset,
                seq_hi,
                damage,
            }
        })
}

/// Runs a batch and returns what the engine says of each packet.
fn run(
    engine: &dyn Engine,
    level: Level,
    packets: &[Packet],
    buffers: &mut [Vec<u8>],
    open: bool,
) -> Vec<bool> {
    let keys: Vec<Key> = packets.iter().map(|packet| packet.key(level)).collect();
    let mut jobs: Vec<Job<'_>> = packets
        .iter()
        .zip(&keys)
        .zip(buffers)
        .map(|((packet, key), buffer)| Job {
            key,
            esp: &mut buffer[packet.offset..],
            seq_hi: packet.seq_hi,
            ok: false,
        })
        .collect();
    if open {
        engine.open(&mut jobs);
    } else {
        engine.seal(&mut jobs);
    }
    jobs.iter().map(|job| job.ok).collect()
}

/// Seals, damages and opens with a level and with the reference, key forms crossed
/// where `crossed` says so.
fn agree(level: Level, packets: &[Packet], crossed: bool) {
    let Some(engine) = level.engine() else {
        return;
    };
    let form = if crossed { Level::Portable } else { level };
    let reference = gm_engines::reference();
    let plain: Vec<Vec<u8>> = packets.iter().map(Packet::plain).collect();
    let (mut ours, mut theirs) = (plain.clone(), plain.clone());
    let said = run(engine, form, packets, &mut ours, false);
    assert_eq!(
        said,
        run(reference, Level::Portable, packets, &mut theirs, false)
    );
    assert!(said.iter().all(|ok| *ok));
    assert!(ours == theirs, "sealed otherwise");
    for (packet, sealed) in packets.iter().zip(&mut ours) {
        if let Some(bit) = packet.damage {
            let bits = (sealed.len() - packet.offset) * 8;
            sealed[packet.offset + bit % bits / 8] ^= 1 << (bit % 8);
        }
    }
    theirs.clone_from(&ours);
    let sealed = ours.clone();
    let said = run(engine, form, packets, &mut ours, true);
    assert_eq!(
        said,
        run(reference, Level::Portable, packets, &mut theirs, true)
    );
    assert!(ours == theirs, "opened otherwise");
    for (i, packet) in packets.iter().enumerate() {
        assert_eq!(said[i], packet.damage.is_none());
        let (got, want) = (&ours[i], if said[i] { &plain[i] } else { &sealed[i] });
        let end = got.len()
            - if said[i] {
                packet.transform.icv_len()
            } else {
                0
            };
        assert!(got[..end] == want[..end]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn mixed_batches_agree(
        packets in prop::collection::vec(packet(700), 1..150),
        crossed in prop::bool::weighted(0.1),
    ) {
        for level in Level::ALL {
            agree(level, &packets, crossed);
        }
    }

    #[test]
    fn long_packets_agree(packets in prop::collection::vec(packet(5000), 1..20)) {
        for level in Level::ALL {
            agree(level, &packets, false);
        }
    }
}

/// An engine does its work with a key that was made for another one, whichever
/// is this process's own; here it is the portable one.
#[test]
fn engines_take_each_others_keys() {
    let packets: Vec<Packet> = Transform::ALL
        .into_iter()
        .map(|transform| Packet {
            transform,
            secret: [7; 44],
            body: vec![1; 100],
            offset: 0,
            seq_hi: None,
            damage: None,
        })
        .collect();
    assert!(gm_engines::force(Level::Portable));
    let mut want: Vec<Vec<u8>> = packets.iter().map(Packet::plain).collect();
    run(
        gm_engines::reference(),
        Level::Portable,
        &packets,
        &mut want,
        false,
    );
    for form in Level::ALL {
        for level in Level::ALL {
            let Some(engine) = level.engine() else {
                continue;
            };
            let mut bytes: Vec<Vec<u8>> = packets.iter().map(Packet::plain).collect();
            assert!(
                run(engine, form, &packets, &mut bytes, false)
                    .iter()
                    .all(|ok| *ok)
            );
            assert!(bytes == want, "{level} with keys of {form}");
            assert!(
                run(engine, form, &packets, &mut bytes, true)
                    .iter()
                    .all(|ok| *ok)
            );
        }
    }
}

/// Each length once, alone and among seventeen of its kind.
#[test]
fn every_length_agrees() {
    for transform in Transform::ALL {
        for len in 0..600 {
            let packet = |i: usize| Packet {
                transform,
                secret: std::array::from_fn(|at| (at * 7 + i + len) as u8),
                body: (0..len).map(|at| (at * 31 + i) as u8).collect(),
                offset: i,
                seq_hi: (i % 2 == 1).then_some(len as u32 + 1),
                damage: (i % 5 == 4).then_some(len * 8 + i),
            };
            for level in [Level::Avx512, Level::Avx2] {
                agree(level, &[packet(0)], false);
                agree(level, &[packet(1)], false);
                agree(level, &(0..17).map(packet).collect::<Vec<_>>(), false);
            }
        }
    }
}

/// Batches of every size up to more than one whole one, of the suites that work in
/// lanes: alike and mixed, with and without ESN, some of them damaged.
#[test]
fn every_batch_size_agrees() {
    for transform in [Transform::HmacSha1Null, Transform::HmacSha1AesCbc] {
        for count in 1..70 {
            for mixed in [false, true] {
                let packet = |i: usize| {
                    let len = if mixed {
                        i * 211 % 1500
                    } else {
                        count * 37 % 700
                    };
                    Packet {
                        transform,
                        secret: std::array::from_fn(|at| (at * 5 + i * 3 + count) as u8),
                        body: (0..len).map(|at| (at * 13 + i) as u8).collect(),
                        offset: i % 64,
                        seq_hi: (mixed && i % 3 == 1).then_some(i as u32),
                        damage: (i % 7 == 3).then_some(len * 5 + i),
                    }
                };
                let packets: Vec<Packet> = (0..count).map(packet).collect();
                for level in [Level::Avx512, Level::Avx2] {
                    agree(level, &packets, false);
                }
            }
        }
    }
}
