//! aws-lc-rs.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hmac};

use super::ffi::AwsLcCbc;
use crate::contest::{Contestant, Keys, Op, Packet, Transform};

const HEADER: usize = 8;
const CBC_FRONT: usize = HEADER + 16;
const GCM_FRONT: usize = HEADER + 8;
const ICV_96: usize = 12;
const ICV_128: usize = 16;

/// aws-lc-rs with the keys of all SAs set up.
pub struct AwsLc(Suite);

enum Suite {
    Hmac(Vec<(hmac::Key, Option<AwsLcCbc>)>),
    Gcm(Vec<(LessSafeKey, [u8; 4])>),
    Gmac(Vec<(LessSafeKey, [u8; 4])>),
}

impl AwsLc {
    /// `None` when the library refuses a key, or has no such suite.
    pub fn new(suite: Transform, keys: &[Keys]) -> Option<AwsLc> {
        let mac =
            |keys: &Keys| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &keys.integrity);
        let gcm = |key: &[u8], salt| {
            Some((
                LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).ok()?),
                salt,
            ))
        };
        let keys = keys.iter();
        Some(AwsLc(match suite {
            Transform::HmacSha1Null => Suite::Hmac(keys.map(|keys| (mac(keys), None)).collect()),
            Transform::HmacSha1AesCbc => {
                let both = |keys: &Keys| Some((mac(keys), Some(AwsLcCbc::new(&keys.encryption)?)));
                Suite::Hmac(keys.map(both).collect::<Option<_>>()?)
            }
            Transform::NullAesGcm => Suite::Gcm(
                keys.map(|keys| gcm(&keys.encryption, keys.salt))
                    .collect::<Option<_>>()?,
            ),
            Transform::AesGmacNull => Suite::Gmac(
                keys.map(|keys| gcm(&keys.integrity[..16], keys.salt))
                    .collect::<Option<_>>()?,
            ),
            _ => return None,
        }))
    }
}

impl Contestant for AwsLc {
    fn name(&self) -> &'static str {
        "aws_lc"
    }

    fn run(&mut self, op: Op, batch: &mut [Packet<'_>]) {
        for packet in batch {
            let done = match &self.0 {
                Suite::Hmac(sas) => hmac_packet(&sas[packet.sa], op, packet.esp),
                Suite::Gcm(sas) => gcm_packet(&sas[packet.sa], op, packet.esp, GCM_FRONT),
                Suite::Gmac(sas) => {
                    let covered = packet.esp.len() - ICV_128;
                    gcm_packet(&sas[packet.sa], op, packet.esp, covered)
                }
            };
            packet.ok = done.is_some();
        }
    }
}

fn hmac_packet((mac, cbc): &(hmac::Key, Option<AwsLcCbc>), op: Op, esp: &mut [u8]) -> Option<()> {
    let (covered, icv) = esp.split_last_chunk_mut::<ICV_96>()?;
    let crypt = |covered: &mut [u8]| -> Option<()> {
        if let Some(cbc) = cbc {
            let (front, body) = covered.split_first_chunk_mut::<CBC_FRONT>()?;
            cbc.run(op, *front.last_chunk()?, body);
        }
        Some(())
    };
    match op {
        Op::Seal => {
            crypt(covered)?;
            icv.copy_from_slice(&hmac::sign(mac, covered).as_ref()[..ICV_96]);
            Some(())
        }
        Op::Open => {
            let tag = hmac::sign(mac, covered);
            constant_time::verify_slices_are_equal(&tag.as_ref()[..ICV_96], icv).ok()?;
            crypt(covered)
        }
    }
}

/// `front` bytes are authenticated and not encrypted; with GCM without the IV,
/// which is in the nonce (RFC 4106 5), with GMAC with it (RFC 4543 3.3).
fn gcm_packet(
    (key, salt): &(LessSafeKey, [u8; 4]),
    op: Op,
    esp: &mut [u8],
    front: usize,
) -> Option<()> {
    let (covered, icv) = esp.split_last_chunk_mut::<ICV_128>()?;
    let (front, body) = covered.split_at_mut_checked(front)?;
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(salt);
    nonce[4..].copy_from_slice(front.get(HEADER..GCM_FRONT)?);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let aad = Aad::from(if front.len() == GCM_FRONT {
        &front[..HEADER]
    } else {
        &*front
    });
    match op {
        Op::Seal => {
            let tag = key.seal_in_place_separate_tag(nonce, aad, body).ok()?;
            icv.copy_from_slice(tag.as_ref());
        }
        Op::Open => {
            key.open_in_place_separate_tag(nonce, aad, icv, body).ok()?;
        }
    }
    Some(())
}
