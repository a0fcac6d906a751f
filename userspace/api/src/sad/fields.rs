//! The values of one `[[sa]]` table, taken out one by one with their types
//! and bounds checked. Strings are zeroized when dropped: any may be a key.

use std::net::IpAddr;

use gm_esp::suite::Suite;
use toml::{Table, Value};
use zeroize::{Zeroize, Zeroizing};

use super::{KEYS, SadError};

/// One table of the file.
pub(super) struct Fields<'f> {
    file: &'f str,
    /// The table's number, from 1.
    pub(super) table: usize,
    values: Table,
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        wipe(&mut self.values);
    }
}

fn wipe(values: &mut Table) {
    for (_, value) in values.iter_mut() {
        wipe_value(value);
    }
}

fn wipe_value(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe_value),
        Value::Table(table) => wipe(table),
        _ => {}
    }
}

/// The `[[sa]]` tables of a file, with no key in them that is not in [`KEYS`].
pub(super) fn tables<'f>(file: &'f str, text: &str) -> Result<Vec<Fields<'f>>, SadError> {
    let mut top: Table = text.parse().map_err(|e| syntax(file, text, &e))?;
    let sa = top.remove("sa");
    let stray = top.keys().next().cloned();
    wipe(&mut top);
    if let Some(key) = stray {
        return Err(SadError::Top {
            file: file.to_string(),
            key: shown(&key).to_string(),
        });
    }
    let values = match sa {
        None => Vec::new(),
        Some(Value::Array(values)) => values,
        Some(mut other) => {
            wipe_value(&mut other);
            return Err(key_error(
                file,
                1,
                "sa",
                "write [[sa]], with two brackets, above each SA",
            ));
        }
    };
    // All tables are taken over before the first is judged, so that an error
    // wipes the rest too.
    let mut stray = None;
    let mut tables = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        match value {
            Value::Table(values) => tables.push(Fields {
                file,
                table: index + 1,
                values,
            }),
            mut other => {
                wipe_value(&mut other);
                stray = stray.or(Some(index + 1));
            }
        }
    }
    if let Some(table) = stray {
        return Err(key_error(file, table, "sa", "must be a table"));
    }
    for fields in &tables {
        if let Some(key) = fields.values.keys().find(|k| !KEYS.contains(&k.as_str())) {
            let what = format!("unknown key; the keys are {}", KEYS.join(", "));
            return Err(fields.error(shown(key), what));
        }
    }
    Ok(tables)
}

/// An unknown key for an error; what is too long for one may be a secret that
/// stands on the wrong side of the equals sign.
fn shown(key: &str) -> &str {
    if key.len() <= 24 { key } else { "(a long key)" }
}

fn key_error(file: &str, table: usize, key: &str, what: impl Into<String>) -> SadError {
    SadError::Key {
        file: file.to_string(),
        table,
        key: key.to_string(),
        what: what.into(),
    }
}

/// The parser's message without the line that it quotes.
fn syntax(file: &str, text: &str, error: &toml::de::Error) -> SadError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = &text.as_bytes()[..at];
    SadError::Syntax {
        file: file.to_string(),
        line: 1 + before.iter().filter(|b| **b == b'\n').count(),
        what: format!("not TOML: {}", error.message()),
    }
}

impl Fields<'_> {
    /// An error at a key of this table.
    pub(super) fn error(&self, key: &str, what: impl Into<String>) -> SadError {
        key_error(self.file, self.table, key, what)
    }

    /// Whether the table still has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The value, or an error that it is missing.
    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, SadError> {
        value.ok_or_else(|| self.error(key, "missing"))
    }

    /// A string.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<Zeroizing<String>>, SadError> {
        match self.values.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(Zeroizing::new(text))),
            Some(mut other) => {
                wipe_value(&mut other);
                Err(self.error(key, "must be a string in quotes"))
            }
        }
    }

    /// true or false.
    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, SadError> {
        match self.values.remove(key) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(value)),
            Some(mut other) => {
                wipe_value(&mut other);
                Err(self.error(key, "must be true or false"))
            }
        }
    }

    /// An integer within bounds, both included.
    pub(super) fn integer(
        &mut self,
        key: &str,
        low: i64,
        high: i64,
    ) -> Result<Option<i64>, SadError> {
        match self.values.remove(key) {
            None => Ok(None),
            Some(Value::Integer(n)) if (low..=high).contains(&n) => Ok(Some(n)),
            Some(mut other) => {
                wipe_value(&mut other);
                Err(self.error(key, format!("must be an integer from {low} to {high}")))
            }
        }
    }

    /// A port.
    pub(super) fn port(&mut self, key: &str) -> Result<Option<u16>, SadError> {
        let port = self.integer(key, 1, u16::MAX.into())?;
        Ok(port.map(|n| n as u16))
    }

    /// Two addresses of one family.
    pub(super) fn addresses(&mut self, src: &str, dst: &str) -> Result<(IpAddr, IpAddr), SadError> {
        let (from, to) = (self.address(src)?, self.address(dst)?);
        if from.is_ipv4() != to.is_ipv4() {
            let what = format!("must be of one family with {src}, both IPv4 or both IPv6");
            return Err(self.error(dst, what));
        }
        Ok((from, to))
    }

    fn address(&mut self, key: &str) -> Result<IpAddr, SadError> {
        let text = self.text(key)?;
        let text = self.required(key, text)?;
        text.parse()
            .map_err(|_| self.error(key, "must be an IPv4 or IPv6 address"))
    }

    /// A key of `len` bytes in hexadecimal.
    pub(super) fn key(&mut self, key: &str, len: usize) -> Result<Zeroizing<Vec<u8>>, SadError> {
        let text = self.text(key)?;
        let text = self.required(key, text)?;
        crate::secret_hex(&text, len).map_err(|what| self.error(key, what))
    }

    /// A key that the suite has (`Some(len)`) or must not have (`None`).
    pub(super) fn key_if(
        &mut self,
        key: &str,
        len: Option<usize>,
        suite: Suite,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, SadError> {
        match len {
            Some(len) => self.key(key, len).map(Some),
            None if self.has(key) => {
                let (alg, ealg) = (suite.alg(), suite.ealg());
                Err(self.error(key, format!("{alg} with {ealg} has no such key")))
            }
            None => Ok(None),
        }
    }
}
