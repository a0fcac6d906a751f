//! The engine against published packets: RFC 3602 4 (AES-CBC),
//! draft-mcgrew-gcm-test-01 4 (GCM and GMAC), RFC 2202 2 and 3 (HMAC-MD5,
//! HMAC-SHA-1), NIST's example of TDES-CBC for SP 800-67.

use gm_engines::{Job, Key, Transform, reference};

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    hex::decode(digits).unwrap()
}

fn seal(key: &Key, esp: &mut [u8], seq_hi: Option<u32>) -> bool {
    let mut jobs = [Job {
        key,
        esp,
        seq_hi,
        ok: false,
    }];
    reference().seal(&mut jobs);
    jobs[0].ok
}

fn open(key: &Key, esp: &mut [u8], seq_hi: Option<u32>) -> bool {
    let mut jobs = [Job {
        key,
        esp,
        seq_hi,
        ok: false,
    }];
    reference().open(&mut jobs);
    jobs[0].ok
}

/// What a published case says: the sequence number has 8 bytes with ESN.
struct Aead {
    key: &'static str,
    spi: &'static str,
    seq: &'static str,
    nonce: &'static str,
    plain: &'static str,
    sealed: &'static str,
}

/// The cases with keys of 128 bits; the transform knows no other.
const GCM: [Aead; 9] = [
    Aead {
        key: "4c80cdefbb5d10da906ac73c3613a634",
        spi: "00004321",
        seq: "8765432100000000",
        nonce: "2e443b684956ed7e3b244cfe",
        plain: "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000
            00000000045f736970045f756470037369700963796265726369747902646b00
            0021000101020201",
        sealed: "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34
            cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce
            61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
    },
    Aead {
        key: "feffe9928665731c6d6a8f9467308308",
        spi: "0000a5f8",
        seq: "0000000a",
        nonce: "cafebabefacedbaddecaf888",
        plain: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100
            0001000000000000037369700963796265726369747902646b00000100010001",
        sealed: "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c
            3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1
            83b70d3aa8bc6ee4c309e9d85a41ad4a",
    },
    Aead {
        key: "00000000000000000000000000000000",
        spi: "00000000",
        seq: "00000001",
        nonce: "000000000000000000000000",
        plain: "4500003c99c500008001cb7a40679318010101010800075c0200440061626364
            65666768696a6b6c6d6e6f707172737475767761626364656667686901020201",
        sealed: "4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284
            456476492719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3
            f821d496eeb096e98ad2b69e4799c71d",
    },
    Aead {
        key: "3de09874b388e6491988d0c3607eae1f",
        spi: "42f67e3f",
        seq: "1010101010101010",
        nonce: "57690e434e280000a2fca1a3",
        plain: "4500003c99c300008001cb7c40679318010101010800085c0200430061626364
            65666768696a6b6c6d6e6f707172737475767761626364656667686901020201",
        sealed: "fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c357917
            65acbd8701ad79845bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320a
            e0d731cc978ecafaeae88f00e80d6e48",
    },
    Aead {
        key: "3de09874b388e6491988d0c3607eae1f",
        spi: "42f67e3f",
        seq: "1010101010101010",
        nonce: "57690e434e280000a2fca1a3",
        plain: "4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
        sealed: "fba2ca845e5df9f0f22c3e6e86dd831e1fc65792cd1af9130e1379ed369f071f
            35e034be95f112e4e7d05d35",
    },
    Aead {
        key: "abbccddef00112233445566778899aab",
        spi: "00000100",
        seq: "0000000000000001",
        nonce: "decaf888cafedebaceface74",
        plain: "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d5
            00004e20001e8c18d75b81dc91baa0476b91b924b280389d92c963bac046ec95
            9b6266c04722b14923010101",
        sealed: "18a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f
            9190feebaf2cb01984e65863965d7472b79da345e0e780191f0d2f0e0f496c22
            6f2127b27db35724e7845d68651f57e65f354f75ff17015769623436",
    },
    Aead {
        key: "3de09874b388e6491988d0c3607eae1f",
        spi: "42f67e3f",
        seq: "1010101010101010",
        nonce: "57690e434e280000a2fca1a3",
        plain: "45000049333e00007f119182c3fb1d10c2b1d326c02831ce0035cb458003025b
            000001e0001e8c18d65759d52284a0352c71475c8880391c764d6e5ee0496b32
            5ae270c03899493915010101",
        sealed: "fba2cad12fc1f9f00d3cebf305410db83d7784b607323d220f24b0a97d541828
            00cadb0f68d99ef0e0c0c89ae9bea8884e52d65bc1afd0740f742444747b5b39
            ab533163aad4550ee5160975cdb608c5769189609763b8e18caa81e2",
    },
    Aead {
        key: "7d773d00c144c525ac619d18c84a3f47",
        spi: "335467ae",
        seq: "ffffffff",
        nonce: "d966426743457e9182443bc6",
        plain: "01020201",
        sealed: "437f866bcb3f699fe9b0822bac961c4504bef270",
    },
    Aead {
        key: "abbccddef00112233445566778899aab",
        spi: "00000100",
        seq: "0000000000000001",
        nonce: "decaf888cafedebaceface74",
        plain: "746f016265016f72016e6f7401746f0162650001",
        sealed: "29c9fc69a197d038ccdd14e2ddfcaa0543332164412503524303ed3c6c5f2838
            43af8c3e",
    },
];

/// GMAC: the payload stays as it is and the ICV follows it.
const GMAC: Aead = Aead {
    key: "4c80cdefbb5d10da906ac73c3613a634",
    spi: "00004321",
    seq: "00000007",
    nonce: "22433c640000000000000000",
    plain: "45000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364
        65666768696a6b6c6d6e6f707172737401020201",
    sealed: "45000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364
        65666768696a6b6c6d6e6f707172737401020201
        f2a9a836e155106aa8dcd618e4099aaa",
};

fn check(transform: Transform, case: &Aead) {
    let (nonce, seq) = (hex(case.nonce), hex(case.seq));
    let secret = hex(case.key);
    let salt = nonce[..4].try_into().unwrap();
    let key = match transform {
        Transform::AesGmacNull => Key::new(transform, &secret, &[], salt),
        _ => Key::new(transform, &[], &secret, salt),
    };
    let key = key.unwrap();
    let seq_hi = (seq.len() == 8).then(|| u32::from_be_bytes(seq[..4].try_into().unwrap()));
    let mut head = hex(case.spi);
    head.extend_from_slice(&seq[seq.len() - 4..]);
    head.extend_from_slice(&nonce[4..]);

    let published = [head.clone(), hex(case.sealed)].concat();
    let plain = [head, hex(case.plain), vec![0; 16]].concat();
    let mut esp = plain.clone();
    assert!(seal(&key, &mut esp, seq_hi));
    assert_eq!(esp, published);

    assert!(open(&key, &mut esp, seq_hi));
    let end = esp.len() - 16;
    assert_eq!(esp[..end], plain[..end]);

    // Every byte counts, and what fails is left alone.
    for at in 0..published.len() {
        let mut forged = published.clone();
        forged[at] ^= 0x10;
        let before = forged.clone();
        assert!(!open(&key, &mut forged, seq_hi), "byte {at}");
        assert_eq!(forged, before);
    }
    let mut esp = published;
    assert!(!open(&key, &mut esp, Some(77)), "the high half counts");
}

#[test]
fn gcm_of_draft_mcgrew() {
    for case in &GCM {
        check(Transform::NullAesGcm, case);
    }
}

#[test]
fn gmac_of_draft_mcgrew() {
    check(Transform::AesGmacNull, &GMAC);
}

/// No GMAC case with ESN is published with 128 bits, but GMAC is GCM without
/// plaintext: the cipher itself, over the bytes in the order of RFC 4543 3.3.
#[test]
fn gmac_with_esn_is_gcm_over_spi_high_low_iv_payload() {
    use aes_gcm::aead::AeadInOut;
    use aes_gcm::{Aes128Gcm, KeyInit, Nonce};

    let (secret, nonce, hi) = (hex(GMAC.key), hex(GMAC.nonce), 0x8765_4321_u32);
    let payload = hex(GMAC.plain);
    let aad = [
        &hex(GMAC.spi),
        &hi.to_be_bytes()[..],
        &hex(GMAC.seq),
        &nonce[4..],
        &payload,
    ];
    let tag = Aes128Gcm::new_from_slice(&secret)
        .unwrap()
        .encrypt_inout_detached(
            &Nonce::try_from(&nonce[..]).unwrap(),
            &aad.concat(),
            (&mut [][..]).into(),
        )
        .unwrap();
    let plain = [
        &hex(GMAC.spi),
        &hex(GMAC.seq),
        &nonce[4..],
        &payload,
        &[0; 16],
    ]
    .concat();
    let salt = nonce[..4].try_into().unwrap();
    let key = Key::new(Transform::AesGmacNull, &secret, &[], salt).unwrap();
    let mut esp = plain.clone();
    assert!(seal(&key, &mut esp, Some(hi)));
    let end = esp.len() - 16;
    assert_eq!(esp[end..], tag[..]);
    assert_eq!(esp[..end], plain[..end]);
    assert!(open(&key, &mut esp, Some(hi)));
    assert!(!open(&key, &mut esp, None));
    assert_eq!(esp[end..], tag[..], "the ICV is back in its place");
}

/// Key, plaintext with trailer, and the whole ESP packet. The RFC's packets
/// have no ICV: ours stands behind them.
const CBC: [(&str, &str, &str); 4] = [
    (
        // Case 5.
        "90d382b410eeba7ad938c46cec1a82bf",
        "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f1011121314151617
         18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637
         0102030405060708090a0b0c0d0e0e01",
        "0000432100000001e96e8c08ab465763fd098d45dd3ff893
         f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856
         a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a
         a269add047ad2d5913ac19b7cfbad4a6",
    ),
    (
        // Case 6.
        "90d382b410eeba7ad938c46cec1a82bf",
        "0800b5e8a80a0500a69c083d0b660e0077777777777777777777777701020201",
        "000043210000000869d08df7d203329db093fc4924e5bd80
         f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75",
    ),
    (
        // Case 7.
        "0123456789abcdef0123456789abcdef",
        "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d
         02a2040008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
         2425262728292a2b2c2d2e2f30313233343536370102030405060708090a0a04",
        "0000876500000002f4e765244f6407adf13dc1380f673f37
         773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8
         e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5
         c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d",
    ),
    (
        // Case 8.
        "0123456789abcdef0123456789abcdef",
        "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083d
         a3de0300ffffffffffffffffffffffffffffffffffffffffffffffffffffffff
         ffffffff0102030405060708090a0a04",
        "000087650000000585d47224b5f3dd5d2101d4ea8dffab22
         15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb5
         0f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3
         d2726d9b5ef6affc6d17a0decbb13892",
    ),
];

#[test]
fn cbc_packets_of_rfc_3602() {
    for (transform, integrity) in [
        (Transform::HmacSha1AesCbc, &[0x5a; 20][..]),
        (Transform::HmacMd5AesCbc, &[0x5a; 16]),
    ] {
        for (secret, plain, published) in CBC {
            let published = hex(published);
            let plain = [&published[..24], &hex(plain), &[0; 12]].concat();
            let key = Key::new(transform, integrity, &hex(secret), [0; 4]).unwrap();
            cbc_packet(&key, &plain, &published);
        }
    }
}

/// A packet is sealed to what is published, does not open with a byte damaged,
/// and opens.
fn cbc_packet(key: &Key, plain: &[u8], published: &[u8]) {
    let mut esp = plain.to_vec();
    assert!(seal(key, &mut esp, None));
    let end = esp.len() - 12;
    assert_eq!(esp[..end], published[..]);
    let mut tampered = esp.clone();
    tampered[30] ^= 1;
    assert!(!open(key, &mut tampered, None));
    assert!(open(key, &mut esp, None));
    assert_eq!(esp[..end], plain[..end]);
}

#[test]
fn three_des_cbc_of_nist() {
    let secret = hex("0123456789abcdef 23456789abcdef01 456789abcdef0123");
    let head = hex("00001234 00000001 f69f2445df4f9b17");
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let sealed = hex("2079c3d53aa763e193b79e2569ab5262516570481f25b50f73c0bda85c8e0da7");
    for (transform, integrity) in [
        (Transform::HmacSha1DesEde3Cbc, &[0x5a; 20][..]),
        (Transform::HmacMd5DesEde3Cbc, &[0x5a; 16]),
    ] {
        let key = Key::new(transform, integrity, &secret, [0; 4]).unwrap();
        let plain = [&head[..], &plain, &[0; 12]].concat();
        cbc_packet(&key, &plain, &[&head[..], &sealed].concat());
    }
}

#[test]
fn hmac_md5_of_rfc_2202() {
    // Cases 3 and 5, those with a key of 16 bytes and enough data for a packet.
    for (byte, data, tag) in [
        (0xaa, &[0xdd; 50][..], "56be34521d144c88dbb8c733"),
        (0x0c, b"Test With Truncation", "56461ef2342edc00f9bab995"),
    ] {
        let key = Key::new(Transform::HmacMd5Null, &[byte; 16], &[], [0; 4]).unwrap();
        let mut esp = [data, &[0; 12]].concat();
        assert!(seal(&key, &mut esp, None));
        assert_eq!(esp[data.len()..], hex(tag));
        assert!(open(&key, &mut esp, None));

        // The high half of ESN is covered as if it followed.
        let (data, hi) = data.split_at(data.len() - 4);
        let hi = u32::from_be_bytes(hi.try_into().unwrap());
        let mut esp = [data, &[0; 12]].concat();
        assert!(seal(&key, &mut esp, Some(hi)));
        assert_eq!(esp[data.len()..], hex(tag));
        assert!(open(&key, &mut esp, Some(hi)));
        assert!(!open(&key, &mut esp, None));
    }
}

#[test]
fn hmac_of_rfc_2202() {
    // Case 3, the one with a key of 20 bytes and enough data for a packet.
    let key = Key::new(Transform::HmacSha1Null, &[0xaa; 20], &[], [0; 4]).unwrap();
    let mut esp = [vec![0xdd; 50], vec![0; 12]].concat();
    assert!(seal(&key, &mut esp, None));
    assert_eq!(esp[50..], hex("125d7342b9ac11cd91a39af4"));
    assert!(open(&key, &mut esp, None));

    // The high half of ESN is covered as if it followed: the same 50 bytes.
    let mut esp = [vec![0xdd; 46], vec![0; 12]].concat();
    assert!(seal(&key, &mut esp, Some(0xdddd_dddd)));
    assert_eq!(esp[46..], hex("125d7342b9ac11cd91a39af4"));
    assert!(open(&key, &mut esp, Some(0xdddd_dddd)));
    assert!(!open(&key, &mut esp, None));
}
