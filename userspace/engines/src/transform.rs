//! The transforms that Annex H of TS 33.203 can signal, or could once, and their
//! sizes.

/// Bytes of the ESP header, SPI and sequence number (RFC 4303 2).
pub const HEADER_LEN: usize = 8;
/// Longest IV of all transforms.
pub const MAX_IV_LEN: usize = 16;
/// Longest ICV of all transforms.
pub const MAX_ICV_LEN: usize = 16;
/// Longest integrity key of all transforms.
pub const MAX_INTEGRITY_KEY_LEN: usize = 20;
/// Longest encryption key of all transforms.
pub const MAX_ENCRYPTION_KEY_LEN: usize = 24;
/// Bytes of the salt of GCM and GMAC (RFC 4106 4).
pub const SALT_LEN: usize = 4;

/// How an SA protects its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// HMAC-SHA-1-96 (RFC 2404), no encryption (RFC 2410).
    HmacSha1Null,
    /// HMAC-SHA-1-96 over AES-128-CBC (RFC 3602).
    HmacSha1AesCbc,
    /// AES-128-GMAC, no encryption (RFC 4543, ENCR_NULL_AUTH_AES_GMAC).
    AesGmacNull,
    /// AES-128-GCM with an ICV of 16 bytes (RFC 4106).
    NullAesGcm,
    /// HMAC-MD5-96 (RFC 2403), no encryption. Legacy.
    HmacMd5Null,
    /// HMAC-MD5-96 over AES-128-CBC. Legacy.
    HmacMd5AesCbc,
    /// HMAC-MD5-96 over 3DES-CBC (RFC 2451). Legacy.
    HmacMd5DesEde3Cbc,
    /// HMAC-SHA-1-96 over 3DES-CBC. Legacy.
    HmacSha1DesEde3Cbc,
}

impl Transform {
    /// All transforms.
    pub const ALL: [Transform; 8] = [
        Transform::HmacSha1Null,
        Transform::HmacSha1AesCbc,
        Transform::AesGmacNull,
        Transform::NullAesGcm,
        Transform::HmacMd5Null,
        Transform::HmacMd5AesCbc,
        Transform::HmacMd5DesEde3Cbc,
        Transform::HmacSha1DesEde3Cbc,
    ];

    /// Bytes of the IV between the ESP header and the payload.
    pub const fn iv_len(self) -> usize {
        match self {
            Transform::HmacSha1Null | Transform::HmacMd5Null => 0,
            Transform::HmacSha1AesCbc | Transform::HmacMd5AesCbc => 16,
            Transform::HmacMd5DesEde3Cbc | Transform::HmacSha1DesEde3Cbc => 8,
            Transform::AesGmacNull | Transform::NullAesGcm => 8,
        }
    }

    /// Bytes of the ICV at the end of the packet.
    pub const fn icv_len(self) -> usize {
        match self {
            Transform::AesGmacNull | Transform::NullAesGcm => 16,
            _ => 12,
        }
    }

    /// Bytes of the cipher's block where it takes whole blocks only (CBC).
    const fn cipher_block(self) -> Option<usize> {
        match self {
            Transform::HmacSha1AesCbc | Transform::HmacMd5AesCbc => Some(16),
            Transform::HmacMd5DesEde3Cbc | Transform::HmacSha1DesEde3Cbc => Some(8),
            _ => None,
        }
    }

    /// Payload, padding and trailer together are a multiple of so many bytes:
    /// the cipher's block, at least four (RFC 4303 2.4).
    pub const fn block(self) -> usize {
        match self.cipher_block() {
            Some(block) => block,
            None => 4,
        }
    }

    /// Bytes of the integrity key; zero where the transform has none.
    pub const fn integrity_key_len(self) -> usize {
        match self {
            Transform::HmacSha1Null | Transform::HmacSha1AesCbc | Transform::HmacSha1DesEde3Cbc => {
                20
            }
            Transform::HmacMd5Null | Transform::HmacMd5AesCbc | Transform::HmacMd5DesEde3Cbc => 16,
            Transform::AesGmacNull => 16,
            Transform::NullAesGcm => 0,
        }
    }

    /// Bytes of the encryption key; zero where the transform has none. The
    /// parity bits of a 3DES key are there, and mean nothing.
    pub const fn encryption_key_len(self) -> usize {
        match self {
            Transform::HmacSha1AesCbc | Transform::HmacMd5AesCbc | Transform::NullAesGcm => 16,
            Transform::HmacMd5DesEde3Cbc | Transform::HmacSha1DesEde3Cbc => 24,
            Transform::HmacSha1Null | Transform::HmacMd5Null | Transform::AesGmacNull => 0,
        }
    }

    /// Whether the nonce is a salt and the packet's IV (GCM and GMAC): with
    /// those one IV used twice under one key loses the key.
    pub const fn has_salt(self) -> bool {
        matches!(self, Transform::AesGmacNull | Transform::NullAesGcm)
    }

    /// Bytes of the smallest packet, SPI to ICV: an empty payload, padded.
    pub const fn min_len(self) -> usize {
        HEADER_LEN + self.iv_len() + self.block() + self.icv_len()
    }

    /// What the length of payload, padding and trailer must be a multiple of for
    /// the cipher.
    pub(crate) const fn alignment(self) -> usize {
        match self.cipher_block() {
            Some(block) => block,
            None => 1,
        }
    }

    /// Whether a packet of `len` bytes, SPI to ICV, can be one of this
    /// transform: long enough, and a whole number of cipher blocks.
    ///
    /// The alignment to four bytes that RFC 4303 2.4 asks of the other
    /// transforms has no meaning for their ciphers and is not judged.
    pub const fn fits(self, len: usize) -> bool {
        if len < self.min_len() {
            return false;
        }
        let body = len - HEADER_LEN - self.iv_len() - self.icv_len();
        body.is_multiple_of(self.alignment())
    }
}
