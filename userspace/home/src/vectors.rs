//! Authentication vectors and resynchronisation (TS 33.102 clauses 6.3.2 and 6.3.5,
//! Annex C; functions of TS 35.206).

use std::fmt;

use gm_sip::aka::Res;
use milenage::Milenage;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// OP, the operator's constant, or OPc, which is made of it and K.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub enum Operator {
    /// OP.
    Op([u8; 16]),
    /// OPc.
    Opc([u8; 16]),
}

/// The bits of SQN that are IND, the index of Annex C.1.1.1: consecutive vectors
/// take consecutive indices, so that a SIM that keeps an array accepts them out of order.
pub const IND_BITS: u32 = 5;

/// A subscriber as the HSS keeps it. Debug shows the identities only.
#[derive(Clone)]
pub struct Subscriber {
    /// Private identity.
    pub impi: String,
    /// Public identities, SIP or tel URIs, the default one first.
    pub impus: Vec<String>,
    /// AMF of the vectors, two bytes.
    pub amf: [u8; 2],
    /// The last SQN that was used, 48 bits: SEQ and, below it, IND.
    pub sqn: u64,
    secret: Secret,
}

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Secret {
    k: [u8; 16],
    operator: Operator,
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscriber({}, {:?})", self.impi, self.impus)
    }
}

/// One authentication vector. Wiped on drop by its parts; Debug shows nothing of it.
#[derive(Clone)]
pub struct Vector {
    /// RAND.
    pub rand: [u8; 16],
    /// AUTN = (SQN xor AK) || AMF || MAC.
    pub autn: [u8; 16],
    /// XRES.
    pub xres: Res,
    /// CK and IK.
    pub keys: Keys,
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vector(..)")
    }
}

/// CK and IK of a vector.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    /// CK.
    pub ck: [u8; 16],
    /// IK.
    pub ik: [u8; 16],
}

impl Subscriber {
    /// A subscriber whose next SQN follows `sqn` (48 bits).
    pub fn new(
        impi: &str,
        impus: &[&str],
        k: [u8; 16],
        operator: Operator,
        sqn: u64,
    ) -> Subscriber {
        Subscriber {
            impi: impi.to_owned(),
            impus: impus.iter().map(|i| (*i).to_owned()).collect(),
            amf: [0x80, 0x00],
            sqn: sqn & SQN_MASK,
            secret: Secret { k, operator },
        }
    }

    /// A new vector on `rand`; SQN steps: SEQ by one, IND by one around.
    pub fn vector(&mut self, rand: [u8; 16]) -> Vector {
        let ind_mask = (1 << IND_BITS) - 1;
        let (seq, ind) = (self.sqn >> IND_BITS, self.sqn & ind_mask);
        self.sqn = ((seq + 1) << IND_BITS | (ind + 1) & ind_mask) & SQN_MASK;
        self.vector_at(rand, self.sqn)
    }

    /// The vector on `rand` with this SQN.
    pub fn vector_at(&self, rand: [u8; 16], sqn: u64) -> Vector {
        let sqn = sqn_bytes(sqn);
        let mut functions = self.functions();
        let mac = functions.f1(&rand, &sqn, &self.amf);
        let (res, ck, ik, ak) = functions.f2345(&rand);
        let mut autn = [0; 16];
        for (at, byte) in autn[..6].iter_mut().enumerate() {
            *byte = sqn[at] ^ ak[at];
        }
        autn[6..8].copy_from_slice(&self.amf);
        autn[8..].copy_from_slice(&mac);
        let xres = Res::new(&res).unwrap_or_else(|| unreachable!("RES of Milenage has 8 bytes"));
        Vector {
            rand,
            autn,
            xres,
            keys: Keys { ck, ik },
        }
    }

    /// Checks AUTS for a challenge of ours and takes the SIM's SQN over (clause 6.3.5).
    /// False when its MAC-S is wrong.
    pub fn resynchronise(&mut self, rand: &[u8; 16], auts: &[u8; 14]) -> bool {
        let mut functions = self.functions();
        let ak = functions.f5star(rand);
        let mut sqn = [0; 6];
        for (at, byte) in sqn.iter_mut().enumerate() {
            *byte = auts[at] ^ ak[at];
        }
        // The AMF of AUTS is all zero.
        let mac = functions.f1star(rand, &sqn, &[0, 0]);
        if !bool::from(mac[..].ct_eq(&auts[6..])) {
            return false;
        }
        self.sqn = sqn.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        true
    }

    /// The functions with this subscriber's key. Kept for no longer than a call: the
    /// crate's type neither hides nor wipes the key.
    fn functions(&self) -> Milenage {
        match &self.secret.operator {
            Operator::Op(op) => Milenage::new_with_op(self.secret.k, *op),
            Operator::Opc(opc) => Milenage::new_with_opc(self.secret.k, *opc),
        }
    }
}

const SQN_MASK: u64 = (1 << 48) - 1;

fn sqn_bytes(sqn: u64) -> [u8; 6] {
    let bytes = sqn.to_be_bytes();
    [bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_sip::aka::DigestInput;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).expect("hex").try_into().expect("length")
    }

    /// Test sets of TS 35.207/35.208: K, RAND, SQN, AMF, OP, OPc, f1, f2, f5, f3, f4.
    const SETS: [[&str; 11]; 2] = [
        [
            "465b5ce8b199b49faa5f0a2ee238a6bc",
            "23553cbe9637a89d218ae64dae47bf35",
            "ff9bb4d0b607",
            "b9b9",
            "cdc202d5123e20f62b6d676ac72cb318",
            "cd63cb71954a9f4e48a5994e37a02baf",
            "4a9ffac354dfafb3",
            "a54211d5e3ba50bf",
            "aa689c648370",
            "b40ba9a3c58b2a05bbf0d987b21bf8cb",
            "f769bcd751044604127672711c6d3441",
        ],
        [
            "fec86ba6eb707ed08905757b1bb44b8f",
            "9f7c8d021accf4db213ccff0c7f71a6a",
            "9d0277595ffc",
            "725c",
            "dbc59adcb6f9a0ef735477b7fadf8374",
            "1006020f0a478bf6b699f15c062e42b3",
            "9cabc3e99baf7281",
            "8011c48c0c214ed2",
            "33484dc2136b",
            "5dbdbb2954e8f3cde665b046179a5098",
            "59a92d3b476a0443487055cf88b2307b",
        ],
    ];

    #[test]
    fn test_sets_of_ts_35_208() {
        for [k, rand, sqn, amf, op, opc, f1, f2, f5, f3, f4] in SETS {
            let number = bytes::<6>(sqn)
                .iter()
                .fold(0u64, |n, b| n << 8 | u64::from(*b));
            for operator in [Operator::Op(bytes(op)), Operator::Opc(bytes(opc))] {
                let mut subscriber = Subscriber::new("u", &[], bytes(k), operator, 0);
                subscriber.amf = bytes(amf);
                let vector = subscriber.vector_at(bytes(rand), number);
                let mut autn = bytes::<6>(sqn).to_vec();
                autn.iter_mut()
                    .zip(bytes::<6>(f5))
                    .for_each(|(s, a)| *s ^= a);
                autn.extend(bytes::<2>(amf));
                autn.extend(bytes::<8>(f1));
                assert_eq!(vector.autn[..], autn);
                assert_eq!((vector.keys.ck, vector.keys.ik), (bytes(f3), bytes(f4)));
                assert_eq!(
                    digest(&vector.xres),
                    digest(&Res::new(&bytes::<8>(f2)).expect("RES"))
                );
            }
        }
    }

    /// RES shows itself only through the digest that it makes.
    fn digest(res: &Res) -> String {
        let input = DigestInput {
            username: "u",
            realm: "r",
            nonce: "n",
            uri: "sip:r",
            method: "REGISTER",
            qop: gm_sip::aka::Qop::None,
            nc: "",
            cnonce: "",
            body: b"",
        };
        input.response(Some(res))
    }

    fn subscriber() -> Subscriber {
        Subscriber::new("u@h", &["sip:u@h"], [7; 16], Operator::Op([9; 16]), 0)
    }

    #[test]
    fn sqn_steps_in_both_parts_and_comes_round() {
        let mut one = subscriber();
        one.vector([1; 16]);
        assert_eq!(one.sqn, 1 << 5 | 1);
        for _ in 0..31 {
            one.vector([1; 16]);
        }
        assert_eq!(one.sqn, 32 << 5);
    }

    #[test]
    fn auts_moves_sqn_and_a_forged_one_does_not() {
        let (mut ours, rand) = (subscriber(), [3; 16]);
        let mut functions = ours.functions();
        let sqn = sqn_bytes(0x1234_5678_9abc);
        let ak = functions.f5star(&rand);
        let mac = functions.f1star(&rand, &sqn, &[0, 0]);
        let mut auts = [0; 14];
        auts[..6].copy_from_slice(&sqn);
        auts.iter_mut().zip(ak).for_each(|(s, a)| *s ^= a);
        auts[6..].copy_from_slice(&mac);
        let mut forged = auts;
        forged[13] ^= 1;
        assert!(!ours.resynchronise(&rand, &forged));
        assert_eq!(ours.sqn, 0);
        assert!(ours.resynchronise(&rand, &auts));
        assert_eq!(ours.sqn, 0x1234_5678_9abc);
    }

    #[test]
    fn debug_hides_keys() {
        let mut one = subscriber();
        let shown = format!("{one:?} {:?}", one.vector([1; 16]));
        assert!(!shown.contains('7') && !shown.contains("09"), "{shown}");
    }
}
