//! What the trait promises of batches, lengths and keys, for every transform.

use gm_engines::{Job, Key, KeyError, Transform, best, reference};
use proptest::prelude::*;

fn key(transform: Transform, byte: u8) -> Key {
    let integrity = vec![byte; transform.integrity_key_len()];
    let encryption = vec![!byte; transform.encryption_key_len()];
    Key::new(transform, &integrity, &encryption, [byte; 4]).unwrap()
}

fn packet(transform: Transform, body: usize, fill: u8) -> Vec<u8> {
    let body = body
        .next_multiple_of(transform.block())
        .max(transform.block());
    vec![fill; 8 + transform.iv_len() + body + transform.icv_len()]
}

proptest! {
    #[test]
    fn mixed_batches_come_back_and_bad_ones_stand_alone(
        shape in prop::collection::vec((0..Transform::ALL.len(), 0..1500_usize, any::<u8>(), any::<bool>(), any::<Option<u32>>()), 1..80),
    ) {
        let keys: Vec<Key> = shape.iter().map(|(t, .., fill, _, _)| key(Transform::ALL[*t], *fill)).collect();
        let plain: Vec<Vec<u8>> = shape.iter().map(|(t, body, fill, ..)| packet(Transform::ALL[*t], *body, *fill)).collect();
        let mut bytes = plain.clone();
        let jobs = |bytes: &mut Vec<Vec<u8>>, open: bool| -> Vec<bool> {
            let mut jobs: Vec<Job<'_>> = keys.iter().zip(bytes.iter_mut()).zip(&shape)
                .map(|((key, esp), (.., seq_hi))| Job { key, esp, seq_hi: *seq_hi, ok: false })
                .collect();
            if open { best().open(&mut jobs) } else { best().seal(&mut jobs) }
            jobs.iter().map(|job| job.ok).collect()
        };
        prop_assert!(jobs(&mut bytes, false).into_iter().all(|ok| ok));
        for (esp, (.., body, _, tamper, _)) in bytes.iter_mut().zip(&shape) {
            if *tamper {
                let at = body % esp.len();
                esp[at] ^= 1;
            }
        }
        let tampered = bytes.clone();
        let ok = jobs(&mut bytes, true);
        for i in 0..shape.len() {
            let (t, .., tamper, _) = shape[i];
            prop_assert_eq!(ok[i], !tamper);
            if tamper {
                prop_assert_eq!(&bytes[i], &tampered[i]);
            } else {
                let end = plain[i].len() - Transform::ALL[t].icv_len();
                prop_assert_eq!(&bytes[i][..end], &plain[i][..end]);
            }
        }
    }
}

#[test]
fn every_length_is_judged_and_none_panics() {
    for transform in Transform::ALL {
        let key = key(transform, 7);
        for len in 0..200 {
            for seq_hi in [None, Some(1)] {
                let mut bytes = vec![1; len];
                let mut job = [Job {
                    key: &key,
                    esp: &mut bytes,
                    seq_hi,
                    ok: true,
                }];
                reference().open(&mut job);
                assert!(!job[0].ok);
                reference().seal(&mut job);
                assert_eq!(job[0].ok, transform.fits(len), "{transform:?} {len}");
                reference().open(&mut job);
                assert_eq!(job[0].ok, transform.fits(len));
            }
        }
        assert!(!transform.fits(transform.min_len() - 1));
        assert!(transform.fits(transform.min_len()));
    }
}

#[test]
fn keys_of_another_length_are_refused_by_name() {
    for transform in Transform::ALL {
        for (integrity, encryption) in [
            (15, 16),
            (20, 15),
            (16, 17),
            (21, 0),
            (0, 0),
            (20, 20),
            (16, 23),
            (20, 25),
        ] {
            let error = Key::new(transform, &vec![1; integrity], &vec![2; encryption], [3; 4]);
            let Err(error) = error else {
                panic!("{transform:?} took {integrity} and {encryption} bytes")
            };
            match error {
                KeyError::IntegrityLength { expected, got } => {
                    assert_eq!((expected, got), (transform.integrity_key_len(), integrity));
                }
                KeyError::EncryptionLength { expected, got } => {
                    assert_eq!(
                        (expected, got),
                        (transform.encryption_key_len(), encryption)
                    );
                }
            }
            assert!(!error.to_string().is_empty());
        }
        assert_eq!(key(transform, 1).transform(), transform);
    }
}

#[test]
fn an_empty_batch_is_a_batch() {
    reference().seal(&mut []);
    reference().open(&mut []);
    assert_eq!(reference().name(), "rustcrypto");
}
