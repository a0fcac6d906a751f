//! SAD.toml and the types of the control interface.
//!
//! * [`sad`]: security associations written by hand, read and checked.
//! * [`keysfile`]: IK and CK from a file or a pipe.
//! * [`control`]: requests and answers of the daemon's HTTP interface.
//! * [`drops`]: the part of it about dropped packets.
//! * [`register`]: the same for a SIP proxy that keeps its own SIP.
//! * [`pattern`]: names of many subscribers in one line.
//! * [`openapi`]: both as a document for programs.
#![forbid(unsafe_code)]

pub mod control;
pub mod drops;
pub mod keysfile;
pub mod openapi;
pub mod pattern;
pub mod register;
pub mod sad;
pub mod transfer;

use zeroize::Zeroizing;

/// Decodes a secret of exactly `len` bytes from hexadecimal digits of either
/// case. The error says what is wrong without repeating any of it.
fn secret_hex(text: &str, len: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    if let Some(at) = text.bytes().position(|b| !b.is_ascii_hexdigit()) {
        return Err(format!(
            "not hex: character {} is no hexadecimal digit",
            at + 1
        ));
    }
    if text.len() != 2 * len {
        return Err(format!(
            "must be {} hexadecimal digits ({len} bytes), not {}",
            2 * len,
            text.len()
        ));
    }
    let mut bytes = Zeroizing::new(vec![0; len]);
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "not hex".to_string())?;
    Ok(bytes)
}
