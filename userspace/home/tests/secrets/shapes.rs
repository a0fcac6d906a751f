//! What a leaked key could look like.

use std::fmt::Debug;

/// Everything that was said, to be searched.
#[derive(Default)]
pub struct Haystack {
    as_it_is: Vec<u8>,
    lower: Vec<u8>,
}

impl Haystack {
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.as_it_is.extend_from_slice(bytes);
        self.as_it_is.push(b'\n');
        self.lower.extend(bytes.to_ascii_lowercase());
        self.lower.push(b'\n');
    }

    pub fn debug(&mut self, value: &impl Debug) {
        self.bytes(format!("{value:?}\n{value:#?}").as_bytes());
    }

    pub fn len(&self) -> usize {
        self.as_it_is.len()
    }

    /// Panics when the key is there; does not show it.
    pub fn assert_hides(&self, name: &str, key: &[u8]) {
        for (n, shape) in all(key).iter().enumerate() {
            let there = contains(&self.as_it_is, shape)
                || contains(&self.lower, &shape.to_ascii_lowercase());
            assert!(!there, "{name} is shown, shape {n}");
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    // The first byte decides mostly: texts are long, shapes are many.
    let Some(first) = part.first() else {
        return false;
    };
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| b == first) {
        if rest[at..].starts_with(part) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// A key as bytes, hex (whole and in parts), lists of numbers and base64.
pub fn all(key: &[u8]) -> Vec<Vec<u8>> {
    let text = hex::encode(key);
    let each = |f: fn(&u8) -> String, sep: &str| key.iter().map(f).collect::<Vec<_>>().join(sep);
    let mut all = vec![
        key.to_vec(),
        text.clone().into_bytes(),
        text.to_ascii_uppercase().into_bytes(),
        each(|b| format!("{b:02x}"), ":").into_bytes(),
        each(|b| format!("{b:02x}"), " ").into_bytes(),
        each(|b| b.to_string(), ", ").into_bytes(),
        each(|b| b.to_string(), ",").into_bytes(),
        each(|b| format!("0x{b:02x}"), ", ").into_bytes(),
        each(|b| format!("\\x{b:02x}"), "").into_bytes(),
        // Debug on many lines.
        each(|b| format!("    {b},"), "\n").into_bytes(),
    ];
    // Twelve digits of a key are too many already.
    all.extend(
        (0..text.len() - 11)
            .step_by(4)
            .map(|n| text.as_bytes()[n..n + 12].to_vec()),
    );
    // In base64 a key begins at any of three places of a longer text.
    for before in 0..3 {
        let whole = gm_sip::aka::base64::encode(&[&vec![0; before], key].concat());
        let whole = whole.trim_end_matches('=').as_bytes();
        all.push(whole[(before * 8).div_ceil(6)..whole.len() - 1].to_vec());
    }
    all
}
