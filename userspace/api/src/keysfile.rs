//! IK and CK from a file or a pipe, so that they need not stand in a process
//! list or a shell's history.
//!
//! Two forms. Lines, in any order, `#` begins a comment, quotes are allowed:
//!
//! ```text
//! ik = d985111ee1a25bb4a1de18528ad453ef
//! ck = 9d657ca83cf0c6d6ad34145f089492b1
//! ```
//!
//! or one JSON object: `{"ik": "HEX", "ck": "HEX"}`.

use gm_esp::keys::{Ck, Ik};
use serde::Deserialize;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Why a keys file cannot be used. Carries no part of its content.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{file}: {what}")]
pub struct KeysFileError {
    file: String,
    what: String,
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Json {
    ik: String,
    ck: String,
}

/// Reads IK and CK, 16 bytes each; `name` is what errors call the file.
pub fn parse(name: &str, text: &str) -> Result<(Ik, Ck), KeysFileError> {
    let pair = if text.trim_start().starts_with('{') {
        json(text)
    } else {
        lines(text)
    };
    pair.map_err(|what| KeysFileError {
        file: name.to_string(),
        what,
    })
}

fn json(text: &str) -> Result<(Ik, Ck), String> {
    // serde_json's own message may quote a value.
    let keys: Json = serde_json::from_str(text).map_err(|e| {
        format!(
            "line {}: must be one JSON object with the strings ik and ck",
            e.line()
        )
    })?;
    Ok((
        Ik::from_bytes(sixteen("ik", &keys.ik)?),
        Ck::from_bytes(sixteen("ck", &keys.ck)?),
    ))
}

fn lines(text: &str) -> Result<(Ik, Ck), String> {
    let (mut ik, mut ck) = (None, None);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(format!("line {number}: must be ik=HEX or ck=HEX"));
        };
        let value = value.trim().trim_matches('"');
        let (name, slot) = match key.trim() {
            "ik" => ("ik", &mut ik),
            "ck" => ("ck", &mut ck),
            _ => return Err(format!("line {number}: must be ik=HEX or ck=HEX")),
        };
        if slot.is_some() {
            return Err(format!("line {number}: {name} is given twice"));
        }
        let bytes = sixteen(name, value).map_err(|what| format!("line {number}: {what}"))?;
        *slot = Some(Zeroizing::new(bytes));
    }
    match (ik, ck) {
        (Some(ik), Some(ck)) => Ok((Ik::from_bytes(*ik), Ck::from_bytes(*ck))),
        (None, _) => Err("ik is missing; write a line ik=HEX".to_string()),
        (_, None) => Err("ck is missing; write a line ck=HEX".to_string()),
    }
}

fn sixteen(name: &str, text: &str) -> Result<[u8; 16], String> {
    let bytes = crate::secret_hex(text, 16).map_err(|what| format!("{name}: {what}"))?;
    let mut array = [0; 16];
    array.copy_from_slice(&bytes);
    Ok(array)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IK: &str = "d985111ee1a25bb4a1de18528ad453ef";
    const CK: &str = "9d657ca83cf0c6d6ad34145f089492b1";

    fn error(text: &str) -> String {
        match parse("keys.txt", text) {
            Ok(_) => panic!("accepted"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn lines_and_json_are_read() {
        for text in [
            format!("ik={IK}\nck={CK}\n"),
            format!(
                "# of the lab\r\n ck = \"{CK}\"\r\n\r\nik= {}  # upper\r\n",
                IK.to_uppercase()
            ),
            format!("{{\"ik\": \"{IK}\", \"ck\": \"{CK}\"}}"),
        ] {
            assert!(parse("keys.txt", &text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_is_repeated() {
        for (text, wanted) in [
            (format!("ik={IK}\n"), "ck is missing"),
            (format!("ck={CK}\n"), "ik is missing"),
            (
                format!("ik={IK}\nck={CK}\nik={IK}\n"),
                "line 3: ik is given twice",
            ),
            (
                format!("ik={IK}\nck={}\n", &CK[..30]),
                "line 2: ck: must be 32",
            ),
            (
                format!("ik={IK}\nck=g{}\n", &CK[1..]),
                "line 2: ck: not hex",
            ),
            (format!("ik={IK}\n{CK}\n"), "line 2: must be"),
            (
                format!("{{\"ik\": \"{IK}\", \"ck\": 5}}"),
                "line 1: must be one JSON",
            ),
            (
                format!("{{\"ik\": \"{IK}\", \"{CK}\": \"\"}}"),
                "line 1: must be one JSON",
            ),
        ] {
            let said = error(&text);
            assert!(
                said.starts_with("keys.txt: ") && said.contains(wanted),
                "{said}"
            );
            assert!(
                !said.contains(&IK[..8]) && !said.contains(&CK[1..8]),
                "{said}"
            );
        }
    }
}
