//! The reference engine: RustCrypto's crates, one packet after the other.

use aes::cipher::array::{Array, ArraySize};
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InOutBuf,
    InnerIvInit,
};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Nonce, Tag};
use hmac::{Hmac, Mac};
use subtle::ConstantTimeEq;

use crate::key::{Cipher, Form, HmacKey, Inner};
use crate::level;
use crate::transform::HEADER_LEN;
use crate::{Engine, Job};

const GCM_IV_LEN: usize = 8;
const GCM_ICV_LEN: usize = 16;
/// Of HMAC-SHA-1-96 and HMAC-MD5-96.
const HMAC_96_LEN: usize = 12;

/// See [`crate::reference()`].
pub(crate) struct Reference;

impl Engine for Reference {
    fn name(&self) -> &'static str {
        "rustcrypto"
    }

    fn seal(&self, batch: &mut [Job<'_>]) {
        batch.iter_mut().for_each(seal);
    }

    fn open(&self, batch: &mut [Job<'_>]) {
        batch.iter_mut().for_each(open);
    }
}

pub(crate) fn seal(job: &mut Job<'_>) {
    let key = match &job.key.form {
        Form::Reference(key) => key,
        Form::Wide(_) => return level::wide(job, |engine, job| engine.seal(job)),
    };
    job.ok = job.key.fits(job.esp.len())
        && match &**key {
            Inner::Hmac { mac, cipher } => {
                encrypt(cipher, job.esp) && hmac_seal(mac, job.esp, job.seq_hi)
            }
            Inner::AesGmacNull { gcm, salt } => gmac_seal(gcm, &salt.0, job.esp, job.seq_hi),
            Inner::NullAesGcm { gcm, salt } => gcm_seal(gcm, &salt.0, job.esp, job.seq_hi),
        };
}

pub(crate) fn open(job: &mut Job<'_>) {
    let key = match &job.key.form {
        Form::Reference(key) => key,
        Form::Wide(_) => return level::wide(job, |engine, job| engine.open(job)),
    };
    job.ok = job.key.fits(job.esp.len())
        && match &**key {
            Inner::Hmac { mac, cipher } => {
                hmac_verify(mac, job.esp, job.seq_hi) && decrypt(cipher, job.esp)
            }
            Inner::AesGmacNull { gcm, salt } => gmac_verify(gcm, &salt.0, job.esp, job.seq_hi),
            Inner::NullAesGcm { gcm, salt } => gcm_open(gcm, &salt.0, job.esp, job.seq_hi),
        };
}

/// RFC 2404 and 2403: SPI to trailer, the first 96 bits; with ESN the high half
/// follows, untransmitted (RFC 4303 2.2.1).
fn hmac_tag(mac: &HmacKey, covered: &[u8], seq_hi: Option<u32>) -> [u8; HMAC_96_LEN] {
    match mac {
        HmacKey::Sha1(mac) => first_96(mac, covered, seq_hi),
        HmacKey::Md5(mac) => first_96(mac, covered, seq_hi),
    }
}

fn first_96<D>(mac: &Hmac<D>, covered: &[u8], seq_hi: Option<u32>) -> [u8; HMAC_96_LEN]
where
    D: hmac::EagerHash,
    Hmac<D>: Mac + Clone,
{
    let mut mac = mac.clone();
    mac.update(covered);
    if let Some(hi) = seq_hi {
        mac.update(&hi.to_be_bytes());
    }
    let tag = mac.finalize().into_bytes();
    let mut short = [0; HMAC_96_LEN];
    short.copy_from_slice(&tag[..HMAC_96_LEN]);
    short
}

fn hmac_seal(mac: &HmacKey, esp: &mut [u8], seq_hi: Option<u32>) -> bool {
    let (covered, icv) = esp.split_at_mut(esp.len() - HMAC_96_LEN);
    icv.copy_from_slice(&hmac_tag(mac, covered, seq_hi));
    true
}

fn hmac_verify(mac: &HmacKey, esp: &[u8], seq_hi: Option<u32>) -> bool {
    let (covered, icv) = esp.split_at(esp.len() - HMAC_96_LEN);
    hmac_tag(mac, covered, seq_hi).ct_eq(icv).into()
}

fn encrypt(cipher: &Cipher, esp: &mut [u8]) -> bool {
    match cipher {
        Cipher::Null => true,
        Cipher::AesCbc(aes) => cbc_encrypt(aes, esp),
        Cipher::DesEde3Cbc(des) => cbc_encrypt(des, esp),
    }
}

fn decrypt(cipher: &Cipher, esp: &mut [u8]) -> bool {
    match cipher {
        Cipher::Null => true,
        Cipher::AesCbc(aes) => cbc_decrypt(aes, esp),
        Cipher::DesEde3Cbc(des) => cbc_decrypt(des, esp),
    }
}

/// The IV, which is as long as the cipher's block, and the blocks of a CBC
/// packet; `fits` has vouched for the lengths.
fn cbc_parts<N: ArraySize>(esp: &mut [u8]) -> Option<(Array<u8, N>, &mut [u8])> {
    let end = esp.len().checked_sub(HMAC_96_LEN)?;
    let (iv, body) = esp
        .get_mut(HEADER_LEN..end)?
        .split_at_mut_checked(N::USIZE)?;
    Some((Array::try_from(&*iv).ok()?, body))
}

fn cbc_encrypt<C: BlockCipherEncrypt>(cipher: &C, esp: &mut [u8]) -> bool {
    let Some((iv, body)) = cbc_parts::<C::BlockSize>(esp) else {
        return false;
    };
    let (blocks, rest) = InOutBuf::from(body).into_chunks();
    cbc::Encryptor::inner_iv_init(cipher, &iv).encrypt_blocks_inout(blocks);
    rest.is_empty()
}

fn cbc_decrypt<C: BlockCipherDecrypt>(cipher: &C, esp: &mut [u8]) -> bool {
    let Some((iv, body)) = cbc_parts::<C::BlockSize>(esp) else {
        return false;
    };
    let (blocks, rest) = InOutBuf::from(body).into_chunks();
    cbc::Decryptor::inner_iv_init(cipher, &iv).decrypt_blocks_inout(blocks);
    rest.is_empty()
}

/// RFC 4106 4: the salt, then the packet's IV.
fn nonce(salt: &[u8; 4], iv: &[u8]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(salt);
    nonce[4..].copy_from_slice(iv);
    nonce
}

/// RFC 4106 5: SPI and number; with ESN the high half stands between them.
/// The array's first bytes, as many as the second value says.
fn gcm_aad(header: &[u8], seq_hi: Option<u32>) -> ([u8; 12], usize) {
    let mut aad = [0; 12];
    match seq_hi {
        None => {
            aad[..8].copy_from_slice(header);
            (aad, 8)
        }
        Some(hi) => {
            aad[..4].copy_from_slice(&header[..4]);
            aad[4..8].copy_from_slice(&hi.to_be_bytes());
            aad[8..].copy_from_slice(&header[4..]);
            (aad, 12)
        }
    }
}

fn gcm_seal(gcm: &Aes128Gcm, salt: &[u8; 4], esp: &mut [u8], seq_hi: Option<u32>) -> bool {
    let (header, rest) = esp.split_at_mut(HEADER_LEN);
    let (iv, rest) = rest.split_at_mut(GCM_IV_LEN);
    let (body, icv) = rest.split_at_mut(rest.len() - GCM_ICV_LEN);
    let (aad, n) = gcm_aad(header, seq_hi);
    let nonce = Nonce::from(nonce(salt, iv));
    match gcm.encrypt_inout_detached(&nonce, &aad[..n], body.into()) {
        Ok(tag) => {
            icv.copy_from_slice(&tag);
            true
        }
        Err(_) => false,
    }
}

fn gcm_open(gcm: &Aes128Gcm, salt: &[u8; 4], esp: &mut [u8], seq_hi: Option<u32>) -> bool {
    let (header, rest) = esp.split_at_mut(HEADER_LEN);
    let (iv, rest) = rest.split_at_mut(GCM_IV_LEN);
    let Some((body, icv)) = rest.split_last_chunk_mut::<GCM_ICV_LEN>() else {
        return false;
    };
    let (aad, n) = gcm_aad(header, seq_hi);
    let nonce = Nonce::from(nonce(salt, iv));
    gcm.decrypt_inout_detached(&nonce, &aad[..n], body.into(), &Tag::from(*icv))
        .is_ok()
}

fn gmac_seal(gcm: &Aes128Gcm, salt: &[u8; 4], esp: &mut [u8], seq_hi: Option<u32>) -> bool {
    match gmac_tag(gcm, salt, esp, seq_hi) {
        Some(tag) => {
            let at = esp.len() - GCM_ICV_LEN;
            esp[at..].copy_from_slice(&tag);
            true
        }
        None => false,
    }
}

fn gmac_verify(gcm: &Aes128Gcm, salt: &[u8; 4], esp: &mut [u8], seq_hi: Option<u32>) -> bool {
    match gmac_tag(gcm, salt, esp, seq_hi) {
        Some(tag) => tag.ct_eq(&esp[esp.len() - GCM_ICV_LEN..]).into(),
        None => false,
    }
}

/// RFC 4543 3.3: everything from the SPI to the trailer is additional data.
///
/// With ESN the high half stands between SPI and number, and the cipher wants
/// its additional data in one piece: the packet moves up by four bytes into
/// the ICV's room and back again.
fn gmac_tag(
    gcm: &Aes128Gcm,
    salt: &[u8; 4],
    esp: &mut [u8],
    seq_hi: Option<u32>,
) -> Option<[u8; GCM_ICV_LEN]> {
    let end = esp.len().checked_sub(GCM_ICV_LEN)?;
    let nonce = Nonce::from(nonce(salt, esp.get(HEADER_LEN..HEADER_LEN + GCM_IV_LEN)?));
    let mac = |aad: &[u8]| gcm.encrypt_inout_detached(&nonce, aad, (&mut [][..]).into());
    let Some(hi) = seq_hi else {
        return mac(&esp[..end]).ok().map(Into::into);
    };
    let mut displaced = [0; 4];
    displaced.copy_from_slice(&esp[end..end + 4]);
    esp.copy_within(4..end, 8);
    esp[4..8].copy_from_slice(&hi.to_be_bytes());
    let tag = mac(&esp[..end + 4]);
    esp.copy_within(8..end + 4, 4);
    esp[end..end + 4].copy_from_slice(&displaced);
    tag.ok().map(Into::into)
}
