//! Calls into C: the shims in `benches/shim`, and what aws-lc-rs has no safe
//! call for.
//!
//! The shims know the libraries' structs from the libraries' own headers. What
//! is shared with them is [`Keys`] and [`Raw`], in `shim.h` as `struct sa_keys` and
//! `struct packet`.

use std::ffi::{CStr, c_char, c_int};
use std::ptr::NonNull;

use aws_lc_sys::{AES_DECRYPT, AES_ENCRYPT, AES_KEY};

use crate::contest::{BATCH, Contestant, Keys, Op, Packet, Transform};

/// A packet as the shims get it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Raw {
    esp: *mut u8,
    len: usize,
    sa: usize,
    ok: c_int,
}

/// ipsec-mb's manager with the keys of all SAs; of the shim.
#[repr(C)]
struct Mb {
    _opaque: [u8; 0],
}

/// OpenSSL's contexts of all SAs; of the shim.
#[repr(C)]
struct Ssl {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn gmb_mb_new(suite: c_int, keys: *const Keys, count: usize) -> *mut Mb;
    fn gmb_mb_free(mb: *mut Mb);
    fn gmb_mb_arch(mb: *const Mb) -> *const c_char;
    fn gmb_mb_version() -> *const c_char;
    fn gmb_mb_can(suite: c_int, way: c_int) -> c_int;
    fn gmb_mb_run(mb: *mut Mb, way: c_int, open: c_int, packets: *mut Raw, count: usize) -> c_int;

    fn gmb_ssl_new(suite: c_int, keys: *const Keys, count: usize) -> *mut Ssl;
    fn gmb_ssl_free(ssl: *mut Ssl);
    fn gmb_ssl_version() -> *const c_char;
    fn gmb_ssl_run(ssl: *const Ssl, open: c_int, packets: *mut Raw, count: usize);
}

/// The suite's number in `shim.h`.
fn number(suite: Transform) -> Option<c_int> {
    match suite {
        Transform::HmacSha1Null => Some(0),
        Transform::HmacSha1AesCbc => Some(1),
        Transform::NullAesGcm => Some(2),
        Transform::AesGmacNull => Some(3),
        _ => None,
    }
}

/// A text of a shim.
///
/// # Safety
/// It is there, ends with a zero byte, and stays.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// Hands a batch to a shim and takes back what was good. The packets are of
/// lengths that the suite `fits`, and of SAs that are there: checked here, for
/// a shim writes where it is told.
fn with_raw(
    suite: Transform,
    sas: usize,
    batch: &mut [Packet<'_>],
    run: impl FnOnce(*mut Raw, usize),
) {
    assert!(batch.len() <= BATCH);
    let mut raw = [Raw {
        esp: std::ptr::null_mut(),
        len: 0,
        sa: 0,
        ok: 0,
    }; BATCH];
    for (raw, packet) in raw.iter_mut().zip(&mut *batch) {
        assert!(packet.sa < sas && suite.fits(packet.esp.len()));
        *raw = Raw {
            esp: packet.esp.as_mut_ptr(),
            len: packet.esp.len(),
            sa: packet.sa,
            ok: 0,
        };
    }
    run(raw.as_mut_ptr(), batch.len());
    for (raw, packet) in raw.iter().zip(batch) {
        packet.ok = raw.ok != 0;
    }
}

/// The ways of `shim/ipsec_mb.c`, by their number.
const WAYS: [&str; 5] = [
    "burst",
    "job by job",
    "cipher and hash bursts",
    "direct",
    "direct gmac",
];

/// Intel's ipsec-mb.
pub struct IpsecMb {
    mb: NonNull<Mb>,
    suite: Transform,
    sas: usize,
    /// Numbers of the ways that can do the suite; the one in use.
    ways: Vec<usize>,
    way: usize,
}

impl IpsecMb {
    /// With the keys of all SAs set up. `None` when the library refuses.
    pub fn new(suite: Transform, keys: &[Keys]) -> Option<IpsecMb> {
        let id = number(suite)?;
        // SAFETY: `keys` are as many as it is told, in the layout of `sa_keys`.
        let mb = unsafe { gmb_mb_new(id, keys.as_ptr(), keys.len()) };
        let ways: Vec<usize> = (0..WAYS.len())
            // SAFETY: takes two numbers.
            .filter(|way| unsafe { gmb_mb_can(id, *way as c_int) } != 0)
            .collect();
        Some(IpsecMb {
            mb: NonNull::new(mb)?,
            suite,
            sas: keys.len(),
            way: *ways.first()?,
            ways,
        })
    }

    /// The instructions that the library has chosen.
    pub fn arch(&self) -> String {
        // SAFETY: the manager lives as long as `self`; the text is a constant.
        unsafe { text(gmb_mb_arch(self.mb.as_ptr())) }
    }
}

impl Contestant for IpsecMb {
    fn name(&self) -> &'static str {
        "ipsec_mb"
    }

    fn ways(&self) -> Vec<&'static str> {
        self.ways.iter().map(|way| WAYS[*way]).collect()
    }

    fn take(&mut self, way: usize) {
        self.way = self.ways[way];
    }

    fn run(&mut self, op: Op, batch: &mut [Packet<'_>]) {
        let open = c_int::from(op == Op::Open);
        with_raw(self.suite, self.sas, batch, |raw, count| {
            // SAFETY: the manager is ours alone; the packets are there, theirs alone,
            // and what `with_raw` has checked.
            let done = unsafe { gmb_mb_run(self.mb.as_ptr(), self.way as c_int, open, raw, count) };
            assert_ne!(done, 0, "ipsec-mb did not do all packets");
        });
    }
}

impl Drop for IpsecMb {
    fn drop(&mut self) {
        // SAFETY: made by `gmb_mb_new`, and not used again.
        unsafe { gmb_mb_free(self.mb.as_ptr()) }
    }
}

/// OpenSSL 3's EVP.
pub struct OpenSsl {
    ssl: NonNull<Ssl>,
    suite: Transform,
    sas: usize,
}

impl OpenSsl {
    /// With the contexts of all SAs set up. `None` when the library refuses.
    pub fn new(suite: Transform, keys: &[Keys]) -> Option<OpenSsl> {
        // SAFETY: `keys` are as many as it is told, in the layout of `sa_keys`.
        let ssl = unsafe { gmb_ssl_new(number(suite)?, keys.as_ptr(), keys.len()) };
        Some(OpenSsl {
            ssl: NonNull::new(ssl)?,
            suite,
            sas: keys.len(),
        })
    }
}

impl Contestant for OpenSsl {
    fn name(&self) -> &'static str {
        "openssl"
    }

    fn run(&mut self, op: Op, batch: &mut [Packet<'_>]) {
        let open = c_int::from(op == Op::Open);
        with_raw(self.suite, self.sas, batch, |raw, count| {
            // SAFETY: the contexts are ours alone; the packets are there, theirs
            // alone, and what `with_raw` has checked.
            unsafe { gmb_ssl_run(self.ssl.as_ptr(), open, raw, count) }
        });
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        // SAFETY: made by `gmb_ssl_new`, and not used again.
        unsafe { gmb_ssl_free(self.ssl.as_ptr()) }
    }
}

/// aws-lc's AES-128-CBC without padding, which aws-lc-rs does not offer.
pub(super) struct AwsLcCbc {
    encrypt: AES_KEY,
    decrypt: AES_KEY,
}

impl AwsLcCbc {
    pub(super) fn new(key: &[u8; 16]) -> Option<AwsLcCbc> {
        // SAFETY: a struct of integers.
        let mut cbc: AwsLcCbc = unsafe { std::mem::zeroed() };
        // SAFETY: the key has 128 bits, the schedule is the library's own struct.
        let done = unsafe {
            aws_lc_sys::AES_set_encrypt_key(key.as_ptr(), 128, &mut cbc.encrypt)
                | aws_lc_sys::AES_set_decrypt_key(key.as_ptr(), 128, &mut cbc.decrypt)
        };
        (done == 0).then_some(cbc)
    }

    /// In place; `body` is whole blocks.
    pub(super) fn run(&self, op: Op, mut iv: [u8; 16], body: &mut [u8]) {
        assert!(body.len().is_multiple_of(16));
        let (key, way) = match op {
            Op::Seal => (&self.encrypt, AES_ENCRYPT),
            Op::Open => (&self.decrypt, AES_DECRYPT),
        };
        let at = body.as_mut_ptr();
        // SAFETY: in place is allowed, the length is that of `body`, the key was set
        // up for the direction.
        unsafe { aws_lc_sys::AES_cbc_encrypt(at, at, body.len(), key, iv.as_mut_ptr(), way) }
    }
}

pub(super) fn ipsec_mb_version() -> String {
    // SAFETY: the text is a constant of the library.
    unsafe { text(gmb_mb_version()) }
}

pub(super) fn openssl_version() -> String {
    // SAFETY: the text is a constant of the library.
    unsafe { text(gmb_ssl_version()) }
}

pub(super) fn aws_lc_version() -> String {
    // SAFETY: the text is a constant of the library; 0 asks for the version.
    unsafe { text(aws_lc_sys::OpenSSL_version(0)) }
}
