//! Annex I against its vectors, the KDF against a published one.

use super::*;

/// RFC 9048 Appendix D case 1: CK' and IK' are the same KDF under CK || IK,
/// with FC 0x20, the network's name, and SQN xor AK (TS 33.402 A.2).
#[test]
fn kdf_gives_the_keys_of_rfc_9048() {
    let key = hex::decode("5349fbe098649f948f5d2e973a81c00f9744871ad32bf9bbd1dd5ce54e3e2e5a");
    let key: [u8; 32] = key.unwrap().try_into().unwrap();
    let sqn_xor_ak = hex::decode("bb52e91c747a").unwrap();
    let out = kdf(&key, 0x20, &[b"WLAN", &sqn_xor_ak]);
    assert_eq!(
        hex::encode(*out),
        "0093962d0dd84aa5684b045c9edffa04ccfc230ca74fcc96c0a5d61164f5a76c"
    );
}

#[test]
fn annex_i_agrees_with_an_independent_implementation() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/annex-i.jsonl"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let mut cases = 0;
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| case[key].as_str().unwrap();
        let suite = Suite::from_names(text("alg"), text("ealg")).unwrap();
        let ik = Ik::from_hex(text("ik")).unwrap();
        let ck = Ck::from_hex(text("ck")).unwrap();
        let keys = EspKeys::expand(suite, &ik, &ck);
        let hex = |bytes: Option<&[u8]>| bytes.map(hex::encode);
        let expect = |key: &str| case[key].as_str().map(str::to_owned);
        assert_eq!(hex(keys.integrity()), expect("integrity_key"), "{line}");
        assert_eq!(hex(keys.encryption()), expect("encryption_key"), "{line}");
        let salt = keys.salt();
        assert_eq!(hex(salt.as_ref().map(|s| &s[..])), expect("salt"), "{line}");

        let again = EspKeys::explicit(
            suite,
            keys.integrity(),
            keys.encryption(),
            salt.as_ref().map(|salt| &salt[..]),
        );
        assert_eq!(again.unwrap(), keys);
        cases += 1;
    }
    assert!(cases >= 8);
}

/// The expansion of the releases that had these suites, written out.
#[test]
fn legacy_keys_are_ik_as_it_is_and_ck_with_its_first_half_again() {
    const IK: &str = "00112233445566778899aabbccddeeff";
    const CK: &str = "0123456789abcdeffedcba9876543210";
    let (ik, ck) = (Ik::from_hex(IK).unwrap(), Ck::from_hex(CK).unwrap());
    let twice = format!("{CK}{}", &CK[..16]);
    let longer = format!("{IK}00000000");
    for (suite, integrity, encryption) in [
        (Suite::HmacMd5Null, IK, None),
        (Suite::HmacMd5AesCbc, IK, Some(CK)),
        (Suite::HmacMd5DesEde3Cbc, IK, Some(&*twice)),
        (Suite::HmacSha1DesEde3Cbc, &*longer, Some(&*twice)),
    ] {
        let keys = EspKeys::expand(suite, &ik, &ck);
        let hex = |bytes: Option<&[u8]>| bytes.map(hex::encode);
        assert_eq!(hex(keys.integrity()).as_deref(), Some(integrity), "{suite}");
        assert_eq!(hex(keys.encryption()).as_deref(), encryption, "{suite}");
        assert_eq!(keys.salt(), None);
        let again = EspKeys::explicit(suite, keys.integrity(), keys.encryption(), None);
        assert_eq!(again.unwrap(), keys);
    }
}

#[test]
fn explicit_keys_have_the_suites_parts_and_no_others() {
    let explicit = |suite, integrity: usize, encryption: usize, salt: usize| {
        let bytes = [1; 32];
        let part = |len: usize| (len > 0).then(|| &bytes[..len]);
        EspKeys::explicit(suite, part(integrity), part(encryption), part(salt)).map(|_| ())
    };
    let suite = Suite::HmacSha1AesCbc;
    assert_eq!(explicit(suite, 20, 16, 0), Ok(()));
    assert_eq!(
        explicit(suite, 16, 16, 0),
        Err(KeysError::Integrity {
            suite,
            expected: 20,
            got: 16
        })
    );
    assert_eq!(
        explicit(suite, 20, 0, 0),
        Err(KeysError::Encryption {
            suite,
            expected: 16,
            got: 0
        })
    );
    assert_eq!(
        explicit(suite, 20, 16, 4),
        Err(KeysError::Salt {
            suite,
            expected: 0,
            got: 4
        })
    );
    let suite = Suite::NullAesGcm;
    assert_eq!(
        explicit(suite, 20, 16, 4),
        Err(KeysError::Integrity {
            suite,
            expected: 0,
            got: 20
        })
    );
    assert_eq!(explicit(suite, 0, 16, 4), Ok(()));
    assert_eq!(explicit(Suite::AesGmacNull, 16, 0, 4), Ok(()));
    assert!(explicit(Suite::AesGmacNull, 16, 16, 4).is_err());
    assert_eq!(explicit(Suite::HmacMd5DesEde3Cbc, 16, 24, 0), Ok(()));
    assert!(explicit(Suite::HmacMd5DesEde3Cbc, 16, 16, 0).is_err());
    assert!(explicit(Suite::HmacMd5AesCbc, 20, 16, 0).is_err());
}

#[test]
fn hex_is_read_or_refused_by_place() {
    let good = "00112233445566778899aAbBcCdDeEfF";
    assert_eq!(
        Ik::from_hex(good).unwrap().as_bytes()[10..],
        [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]
    );
    assert_eq!(
        Ck::from_hex(&good[1..]),
        Err(KeysError::HexLength { digits: 31 })
    );
    let bad = good.replace('c', "x");
    assert_eq!(Ck::from_hex(&bad), Err(KeysError::HexDigit { at: 24 }));
    // 32 characters, more bytes.
    assert!(Ck::from_hex(&good.replace('0', "é")).is_err());
}

#[test]
fn debug_shows_no_content() {
    let (ik, ck) = (Ik::from_bytes([0xab; 16]), Ck::from_bytes([0xcd; 16]));
    let keys = EspKeys::expand(Suite::NullAesGcm, &ik, &ck);
    let shown = format!("{ik:?} {ck:?} {keys:?}");
    assert_eq!(shown, "Ik(..) Ck(..) EspKeys(null/aes-gcm, ..)");
}

#[test]
fn keys_compare_by_content() {
    let expand = |suite, ik: u8, ck: u8| {
        EspKeys::expand(suite, &Ik::from_bytes([ik; 16]), &Ck::from_bytes([ck; 16]))
    };
    assert_eq!(
        expand(Suite::NullAesGcm, 1, 2),
        expand(Suite::NullAesGcm, 1, 2)
    );
    assert_ne!(
        expand(Suite::NullAesGcm, 1, 2),
        expand(Suite::NullAesGcm, 1, 3)
    );
    // The salt alone differs.
    assert_ne!(
        expand(Suite::NullAesGcm, 1, 2),
        expand(Suite::NullAesGcm, 3, 2)
    );
    assert_ne!(
        expand(Suite::AesGmacNull, 1, 2),
        expand(Suite::HmacSha1Null, 1, 2)
    );
}
