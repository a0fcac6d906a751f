//! A SIM in software and repeatable randomness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gm_esp::{Ck, Ik};
use gm_sip::Randomness;
use gm_sip::aka::Res;
use gm_sip::ue::{Aka, AkaAnswer, AkaFailure};
use milenage::Milenage;

pub const OPC: [u8; 16] = [0xcd; 16];

/// SplitMix64.
#[derive(Clone)]
pub struct Steps(pub u64);

impl Steps {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

impl Randomness for Steps {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// A SIM with Milenage that takes only sequence numbers above its own, which the
/// test can move.
pub struct SoftSim {
    pub k: [u8; 16],
    pub sqn: Arc<AtomicU64>,
}

impl Aka for SoftSim {
    fn answer(&mut self, rand: &[u8; 16], autn: &[u8; 16]) -> Result<AkaAnswer, AkaFailure> {
        let mut functions = Milenage::new_with_opc(self.k, OPC);
        let (res, ck, ik, ak) = functions.f2345(rand);
        let mut sqn = [0; 6];
        (0..6).for_each(|n| sqn[n] = autn[n] ^ ak[n]);
        if functions.f1(rand, &sqn, &[autn[6], autn[7]])[..] != autn[8..] {
            return Err(AkaFailure::Mac);
        }
        let number = sqn.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let own = self.sqn.load(Ordering::Relaxed);
        if number <= own {
            let own: [u8; 6] = own.to_be_bytes()[2..].try_into().expect("six bytes");
            let ak = functions.f5star(rand);
            let mut auts = [0; 14];
            (0..6).for_each(|n| auts[n] = own[n] ^ ak[n]);
            auts[6..].copy_from_slice(&functions.f1star(rand, &own, &[0, 0]));
            return Err(AkaFailure::Synchronisation(auts));
        }
        self.sqn.store(number, Ordering::Relaxed);
        Ok(AkaAnswer {
            res: Res::new(&res).expect("RES"),
            ik: Ik::from_bytes(ik),
            ck: Ck::from_bytes(ck),
        })
    }
}
