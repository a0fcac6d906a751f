//! The USIM's half of AKA: Milenage (TS 35.206) with the sequence number
//! check of TS 33.102 6.3.3 and Annex C.

use milenage::Milenage;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bits of the index in a sequence number (TS 33.102 C.1.1.1).
const IND_BITS: u32 = 5;
const INDICES: usize = 1 << IND_BITS;
/// How far a SIM runs ahead when it is told to: less than the jump that a network
/// or a SIM would find strange (TS 33.102 C.2.1, 2^28).
const AHEAD: u64 = 1 << 16;

/// What a successful AKA run gives (TS 33.102 6.3.3).
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Authenticated {
    /// The response, 8 octets with Milenage.
    pub res: [u8; 8],
    /// Cipher key.
    pub ck: [u8; 16],
    /// Integrity key.
    pub ik: [u8; 16],
}

/// Why the USIM does not accept a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// MAC-A does not verify: the challenge is not from the home network.
    #[error("the challenge is not from the home network (its MAC does not verify)")]
    Mac,
    /// The sequence number is not fresh. AUTS lets the home network catch up.
    #[error("the challenge's sequence number is not fresh")]
    Sync {
        /// SQN_MS xor AK* (6 octets) and MAC-S (8 octets).
        auts: [u8; 14],
    },
}

/// OPc, made of K and OP (TS 35.206 clause 4.1).
pub fn opc(k: [u8; 16], op: [u8; 16]) -> [u8; 16] {
    *Milenage::new_with_op(k, op).opc()
}

/// A USIM: the keys of a subscriber and the sequence numbers it has seen.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Usim {
    k: [u8; 16],
    opc: [u8; 16],
    /// Highest SEQ accepted for each index.
    #[zeroize(skip)]
    seen: [u64; INDICES],
    /// Whether to be ahead of the next challenge.
    #[zeroize(skip)]
    ahead: bool,
}

impl Usim {
    /// A USIM that has seen no sequence number yet.
    pub fn new(k: [u8; 16], opc: [u8; 16]) -> Usim {
        Usim {
            k,
            opc,
            seen: [0; INDICES],
            ahead: false,
        }
    }

    /// Runs AKA on a challenge.
    ///
    /// # Errors
    /// [`Refusal`]: a foreign network, or a number that was used before.
    pub fn authenticate(
        &mut self,
        rand: &[u8; 16],
        autn: &[u8; 16],
    ) -> Result<Authenticated, Refusal> {
        let mut milenage = Milenage::new_with_opc(self.k, self.opc);
        let (res, ck, ik, ak) = milenage.f2345(rand);
        let mut sqn = [0; 6];
        for (i, octet) in sqn.iter_mut().enumerate() {
            *octet = autn[i] ^ ak[i];
        }
        let amf = [autn[6], autn[7]];
        let mac = milenage.f1(rand, &sqn, &amf);
        if !bool::from(mac.ct_eq(&autn[8..])) {
            return Err(Refusal::Mac);
        }
        let number = sqn.iter().fold(0u64, |n, octet| n << 8 | u64::from(*octet));
        let (seq, index) = (number >> IND_BITS, (number as usize) % INDICES);
        if std::mem::take(&mut self.ahead) {
            self.seen.fill(seq + AHEAD);
        }
        if seq <= self.seen[index] {
            return Err(Refusal::Sync {
                auts: self.auts(&mut milenage, rand),
            });
        }
        self.seen[index] = seq;
        Ok(Authenticated { res, ck, ik })
    }

    /// Is as if it had seen sequence numbers above that of the next challenge: that one
    /// asks for resynchronisation, and those after it are good again.
    pub fn run_ahead(&mut self) {
        self.ahead = true;
    }

    /// The resynchronisation token (TS 33.102 6.3.3), with the highest number seen.
    fn auts(&self, milenage: &mut Milenage, rand: &[u8; 16]) -> [u8; 14] {
        let highest = (0..INDICES)
            .map(|i| self.seen[i] << IND_BITS | i as u64)
            .max()
            .unwrap_or(0);
        let sqn: [u8; 6] = std::array::from_fn(|i| (highest >> (8 * (5 - i))) as u8);
        let ak = milenage.f5star(rand);
        let mac = milenage.f1star(rand, &sqn, &[0, 0]);
        let mut auts = [0; 14];
        for i in 0..6 {
            auts[i] = sqn[i] ^ ak[i];
        }
        auts[6..].copy_from_slice(&mac);
        auts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // TS 35.208, test set 1.
    fn set1() -> (Usim, [u8; 16]) {
        let h = |s: &str| <[u8; 16]>::try_from(hex::decode(s).unwrap()).unwrap();
        (
            Usim::new(
                h("465b5ce8b199b49faa5f0a2ee238a6bc"),
                h("cd63cb71954a9f4e48a5994e37a02baf"),
            ),
            h("23553cbe9637a89d218ae64dae47bf35"),
        )
    }

    /// AUTN of test set 1: SQN ff9bb4d0b607, AMF b9b9, AK aa689c648370, MAC-A 4a9ffac354dfafb3.
    fn autn1() -> [u8; 16] {
        hex::decode("55f328b43577b9b94a9ffac354dfafb3")
            .unwrap()
            .try_into()
            .unwrap()
    }

    #[test]
    fn test_set_1_authenticates_and_gives_its_keys() {
        let (mut usim, rand) = set1();
        let ok = usim
            .authenticate(&rand, &autn1())
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(hex::encode(ok.res), "a54211d5e3ba50bf");
        assert_eq!(hex::encode(ok.ck), "b40ba9a3c58b2a05bbf0d987b21bf8cb");
        assert_eq!(hex::encode(ok.ik), "f769bcd751044604127672711c6d3441");
    }

    #[test]
    fn the_same_challenge_twice_asks_for_resynchronisation() {
        let (mut usim, rand) = set1();
        assert!(usim.authenticate(&rand, &autn1()).is_ok());
        let Err(Refusal::Sync { auts }) = usim.authenticate(&rand, &autn1()) else {
            panic!("a replayed challenge was accepted")
        };
        // AK* of test set 1 is 451e8beca43b.
        let ak = hex::decode("451e8beca43b").unwrap();
        let sqn: Vec<u8> = (0..6).map(|i| auts[i] ^ ak[i]).collect();
        assert_eq!(hex::encode(sqn), "ff9bb4d0b607");
    }

    #[test]
    fn a_sim_that_runs_ahead_finds_the_network_stale() {
        let (mut usim, rand) = set1();
        usim.run_ahead();
        let Err(Refusal::Sync { auts }) = usim.authenticate(&rand, &autn1()) else {
            panic!("a stale challenge was accepted")
        };
        let ak = hex::decode("451e8beca43b").unwrap();
        let sqn = (0..6).fold(0u64, |n, i| n << 8 | u64::from(auts[i] ^ ak[i]));
        assert_eq!(sqn >> IND_BITS, (0xff9b_b4d0_b607 >> IND_BITS) + AHEAD);
    }

    #[test]
    fn a_challenge_of_another_network_is_refused() {
        let (mut usim, rand) = set1();
        let mut autn = autn1();
        autn[15] ^= 1;
        assert_eq!(usim.authenticate(&rand, &autn).err(), Some(Refusal::Mac));
    }
}
