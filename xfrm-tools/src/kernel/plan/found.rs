//! The way back: the SA that a state in the kernel is.

use gm_esp::{EspKeys, Mode, Outer, SaSpec, SelProto, Suite};
use zeroize::Zeroizing;

use super::{AES, DES3, GCM, GMAC, MD5, NULL, SHA1};
use crate::kernel::numbers::Numbers;
use crate::kernel::select::{Ports, Wrap};
use crate::kernel::state::{Algorithms, ESP, ESP_IN_UDP, State};

/// Why a state in the kernel is no SA of Gm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// AH, IPComp and others.
    #[error("it is not ESP")]
    NotEsp,
    /// The state waits for whoever negotiates.
    #[error("its SPI is 0: it is not chosen yet")]
    Spi,
    /// Not transport mode, and not UDP-encapsulated tunnel mode.
    #[error("its mode is neither transport nor tunnel with ESP in UDP")]
    Mode,
    /// No suite of Gm.
    #[error("its algorithms are none of Gm")]
    Algorithms,
    /// The kernel shows zeros.
    #[error("the kernel hides its keys: it is locked down (lockdown=confidentiality)")]
    Hidden,
    /// Its traffic is not between two hosts.
    #[error("its selector has no exact addresses")]
    Selector,
    /// Marks and XFRM interfaces.
    #[error("it has a mark or belongs to an XFRM interface")]
    Mark,
}

/// An SA that is in the kernel. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is; `replay_window` is at least 32, a port of UDP around ESP
    /// that is not known is `None`.
    pub spec: SaSpec,
    /// Its keys.
    pub keys: EspKeys,
    /// Its numbers.
    pub numbers: Numbers,
}

/// The SA that a state is, with the traffic of the state's own selector.
///
/// # Errors
/// [`Unfit`].
pub fn found(state: &State) -> Result<Found, Unfit> {
    let of = &state.selector;
    if !of.src.is_host() || !of.dst.is_host() {
        return Err(Unfit::Selector);
    }
    let exact = |ports: &Ports| match (ports.mask, ports.exact()) {
        (0, _) => Ok(None),
        (_, Some(port)) => Ok(Some(port)),
        _ => Err(Unfit::Selector),
    };
    let selector = gm_esp::Selector {
        src: of.src.addr,
        dst: of.dst.addr,
        src_port: exact(&of.sport)?,
        dst_port: exact(&of.dport)?,
        proto: SelProto::UdpTcp,
    };
    found_with(state, selector)
}

/// [`found`] for a state whose selector says less than its policies do.
///
/// # Errors
/// [`Unfit`].
pub fn found_with(state: &State, selector: gm_esp::Selector) -> Result<Found, Unfit> {
    if state.id.proto != ESP {
        return Err(Unfit::NotEsp);
    }
    // Those below 256 are reserved (RFC 4303 2.1), but some P-CSCFs begin with 100.
    if state.id.spi == 0 {
        return Err(Unfit::Spi);
    }
    if state.mark.is_some() || state.if_id != 0 {
        return Err(Unfit::Mark);
    }
    let (mode, outer) = match (state.wrap, state.encap) {
        (Wrap::Transport, None) => (Mode::Trans, None),
        (Wrap::Tunnel, Some(encap)) if encap.kind == ESP_IN_UDP => {
            let known = |port| (port != 0).then_some(port);
            let outer = Outer {
                src: state.src,
                dst: state.id.dst,
                sport: known(encap.sport),
                dport: known(encap.dport),
            };
            (Mode::UdpEncTun, Some(outer))
        }
        _ => return Err(Unfit::Mode),
    };
    let keys = keys(&state.algorithms)?;
    if state.keys_are_hidden() {
        return Err(Unfit::Hidden);
    }
    let window = state.numbers.window;
    let windows = gm_api::sad::REPLAY_WINDOWS;
    Ok(Found {
        spec: SaSpec {
            spi: state.id.spi,
            mode,
            selector,
            suite: keys.suite(),
            outer,
            esn: state.numbers.esn,
            replay_window: window.clamp(*windows.start(), *windows.end()),
        },
        keys,
        numbers: state.numbers.clone(),
    })
}

/// Suite and keys of a state.
///
/// # Errors
/// [`Unfit::Algorithms`].
pub fn keys(algorithms: &Algorithms) -> Result<EspKeys, Unfit> {
    let unfit = |_| Unfit::Algorithms;
    match algorithms {
        Algorithms {
            aead: Some(aead),
            auth: None,
            crypt: None,
        } if aead.icv_bits == 128 => {
            let (key, salt) = aead
                .key
                .bytes()
                .split_at_checked(16)
                .ok_or(Unfit::Algorithms)?;
            let (suite, integrity, encryption) = match aead.name.as_str() {
                GCM => (Suite::NullAesGcm, None, Some(key)),
                GMAC => (Suite::AesGmacNull, Some(key), None),
                _ => return Err(Unfit::Algorithms),
            };
            EspKeys::explicit(suite, integrity, encryption, Some(salt)).map_err(unfit)
        }
        Algorithms {
            auth: Some(auth),
            crypt: Some(crypt),
            aead: None,
        } if matches!(auth.icv_bits, 0 | 96) => {
            // The kernel also takes the short names, and shows the long ones.
            let suite = match (auth.name.as_str(), crypt.name.as_str()) {
                (SHA1 | "sha1", NULL | "cipher_null") => Suite::HmacSha1Null,
                (SHA1 | "sha1", AES | "aes") => Suite::HmacSha1AesCbc,
                (MD5 | "md5", NULL | "cipher_null") => Suite::HmacMd5Null,
                (MD5 | "md5", AES | "aes") => Suite::HmacMd5AesCbc,
                (MD5 | "md5", DES3 | "des3_ede") => Suite::HmacMd5DesEde3Cbc,
                (SHA1 | "sha1", DES3 | "des3_ede") => Suite::HmacSha1DesEde3Cbc,
                _ => return Err(Unfit::Algorithms),
            };
            let mut integrity = Zeroizing::new(auth.key.bytes().to_vec());
            // Some give IK as it is. HMAC fills its key with zeros anyway
            // (RFC 2104 2), so that Annex I's 32 zero bits change nothing.
            if suite.transform().integrity_key_len() == 20 && integrity.len() == 16 {
                integrity = Zeroizing::new([&integrity[..], &[0; 4]].concat());
            }
            let encryption = crypt.key.bytes();
            let encryption = (!encryption.is_empty()).then_some(encryption);
            EspKeys::explicit(suite, Some(&integrity), encryption, None).map_err(unfit)
        }
        _ => Err(Unfit::Algorithms),
    }
}
