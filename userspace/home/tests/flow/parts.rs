//! A SIM in software, repeatable randomness, and one end's SA database.

use gm_esp::SaSpec;
use gm_sip::aka::Res;
use gm_sip::ue::{Aka, AkaAnswer, AkaFailure};
use gm_sip::{Packet, Randomness, SaSetRequest, SetToken};
use milenage::Milenage;

use crate::world::OPC;

/// Repeatable randomness.
pub struct Steps(pub u64);

impl Randomness for Steps {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            *byte = (self.0 >> 33) as u8;
        }
    }
}

/// A SIM with Milenage; takes only sequence numbers above its own.
pub struct SoftSim {
    pub k: [u8; 16],
    pub sqn: u64,
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
        if number <= self.sqn {
            let own = self.sqn.to_be_bytes();
            let own: [u8; 6] = own[2..].try_into().expect("six bytes");
            let mut auts = [0; 14];
            let ak = functions.f5star(rand);
            (0..6).for_each(|n| auts[n] = own[n] ^ ak[n]);
            auts[6..].copy_from_slice(&functions.f1star(rand, &own, &[0, 0]));
            return Err(AkaFailure::Synchronisation(auts));
        }
        self.sqn = number;
        let res = Res::new(&res).expect("RES");
        Ok(AkaAnswer {
            res,
            ik: gm_esp::Ik::from_bytes(ik),
            ck: gm_esp::Ck::from_bytes(ck),
        })
    }
}

/// One end's SAs.
#[derive(Default)]
pub struct Sas(pub Vec<(SaSetRequest, bool)>);

impl Sas {
    pub fn set(&mut self, token: SetToken, active: bool) {
        self.0
            .iter_mut()
            .filter(|(s, _)| s.token == token)
            .for_each(|(_, a)| *a = active);
    }

    pub fn remove(&mut self, token: SetToken) {
        self.0.retain(|(s, _)| s.token != token);
    }

    pub fn outbound(&self, packet: &Packet) -> Option<(SaSetRequest, SaSpec)> {
        let fits = |s: &&SaSpec| {
            let (src, dst) = (s.selector.src, s.selector.dst);
            let ports = (s.selector.src_port, s.selector.dst_port);
            (src, dst) == (packet.local.ip(), packet.remote.ip())
                && ports == (Some(packet.local.port()), Some(packet.remote.port()))
        };
        let find = |(set, active): &(SaSetRequest, bool)| {
            Some((
                set.clone(),
                *set.outbound.iter().find(fits).filter(|_| *active)?,
            ))
        };
        self.0.iter().find_map(find)
    }

    /// Whether this end opens what the other end has sealed.
    pub fn opens(&self, sealed_with: &SaSetRequest, spec: &SaSpec) -> bool {
        self.0.iter().any(|(set, _)| {
            let same = |own: &SaSpec| {
                (own.spi, own.mode, own.selector, own.suite)
                    == (spec.spi, spec.mode, spec.selector, spec.suite)
            };
            set.inbound.iter().any(same) && set.keys() == sealed_with.keys()
        })
    }
}
