//! The token that opens the interface over loopback TCP, where the kernel does not
//! say who asks.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Fewest and most characters of a token.
const LENGTH: std::ops::RangeInclusive<usize> = 32..=512;

/// A secret shared with the SIP proxy.
pub struct Token(Zeroizing<String>);

/// Why the file cannot be used. Never repeats what is in it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", file.display())]
pub struct TokenError {
    file: PathBuf,
    what: String,
}

impl Token {
    /// Reads it from the one line of a file that is its owner's alone.
    pub fn read(file: &Path) -> Result<Token, TokenError> {
        let failed = |what: String| TokenError {
            file: file.to_owned(),
            what,
        };
        let unreadable = |error: std::io::Error| {
            failed(format!(
                "cannot be read: {error}; make it with: (umask 077; openssl rand -hex 32 > {})",
                file.display()
            ))
        };
        let open = std::fs::File::open(file).map_err(unreadable)?;
        let mode = open.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(failed(format!(
                "has mode {mode:04o}, and whoever knows the token may install SAs; make it its \
                 owner's alone: chmod 0600 {}",
                file.display()
            )));
        }
        let mut text = Zeroizing::new(String::with_capacity(*LENGTH.end() + 3));
        open.take(*LENGTH.end() as u64 + 2)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Token::new(text.trim_end_matches(['\r', '\n'])).map_err(|what| failed(what.into()))
    }

    fn new(text: &str) -> Result<Token, &'static str> {
        if !LENGTH.contains(&text.len()) {
            return Err("the token must have 32 to 512 characters; openssl rand -hex 32 makes one");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the token must be letters, digits and signs on one line");
        }
        Ok(Token(Zeroizing::new(text.to_owned())))
    }

    /// Whether the request carries it, as `Authorization: Bearer TOKEN`. Takes as long
    /// whatever is wrong with one of the right length.
    pub fn opens(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return false;
        };
        let Some((scheme, token)) = value.to_str().ok().and_then(|v| v.split_once(' ')) else {
            return false;
        };
        let mut token = token.trim().to_owned();
        let same = token.as_bytes().ct_eq(self.0.as_bytes());
        token.zeroize();
        scheme.eq_ignore_ascii_case("bearer") && bool::from(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn only_the_right_token_opens() {
        let token = Token::read(file(&format!("{TOKEN}\n"), 0o600).path()).unwrap();
        assert!(token.opens(&headers(&format!("Bearer {TOKEN}"))));
        assert!(token.opens(&headers(&format!("bearer  {TOKEN}"))));
        for wrong in [
            format!("Basic {TOKEN}"),
            format!("Bearer {}", &TOKEN[1..]),
            format!("Bearer {TOKEN}0"),
            TOKEN.to_owned(),
            "Bearer".to_owned(),
        ] {
            assert!(!token.opens(&headers(&wrong)), "{wrong}");
        }
        assert!(!token.opens(&HeaderMap::new()));
    }

    #[test]
    fn a_token_file_is_its_owners_alone_and_long_enough_and_is_not_repeated() {
        for (text, mode, says) in [
            (TOKEN, 0o640, "chmod 0600"),
            (&TOKEN[1..], 0o600, "32 to 512"),
            ("0123456789abcdef 0123456789abcdef", 0o600, "on one line"),
            ("", 0o600, "32 to 512"),
        ] {
            let error = Token::read(file(text, mode).path()).err().unwrap();
            let error = error.to_string();
            assert!(error.contains(says), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        let error = Token::read(Path::new("/nonexistent/token")).err().unwrap();
        assert!(error.to_string().contains("openssl rand"));
    }
}
