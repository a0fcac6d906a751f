//! The subscribers of the embedded home network: a TOML file with their keys,
//! so it must be its owner's alone, and no error repeats a value.

use std::collections::HashSet;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gm_api::pattern;
use gm_home::Subscriber;
use gm_home::vectors::{IND_BITS, Operator};
use toml::{Table, Value};
use zeroize::{Zeroize, Zeroizing};

const KEYS: [&str; 9] = [
    "impi", "impu", "k", "opc", "op", "amf", "sqn", "first", "count",
];
/// Subscribers that one table may stand for.
const MOST: u64 = 1_000_000;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", file.display())]
pub struct SubscribersError {
    file: PathBuf,
    what: String,
}

/// Reads the file. It must not be accessible to group or others.
pub fn load(file: &Path) -> Result<Vec<Subscriber>, SubscribersError> {
    let failed = |what: String| SubscribersError {
        file: file.to_owned(),
        what,
    };
    let unreadable = |error| failed(format!("cannot be read: {error}; see [home] subscribers"));
    let mut open = std::fs::File::open(file).map_err(unreadable)?;
    let mode = open.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = file.display();
        return Err(failed(format!(
            "has mode {mode:04o} and holds keys; make it its owner's alone: chmod 0600 {path}"
        )));
    }
    let mut text = Zeroizing::new(String::new());
    open.read_to_string(&mut text).map_err(unreadable)?;
    parse(&text).map_err(failed)
}

fn parse(text: &str) -> Result<Vec<Subscriber>, String> {
    // The parser's message can repeat a value; its place is enough.
    let mut top: Table = text.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = 1 + text
            .as_bytes()
            .iter()
            .take(at)
            .filter(|byte| **byte == b'\n')
            .count();
        format!("line {line}: is not TOML; each subscriber is a table [[subscriber]]")
    })?;
    let tables = top.remove("subscriber");
    let stray = top.keys().next().cloned();
    wipe_table(&mut top);
    let tables = match (tables, stray) {
        (_, Some(key)) => Err(format!(
            "unknown key {key}; the file holds [[subscriber]] only"
        )),
        (Some(Value::Array(tables)), None) if !tables.is_empty() => Ok(tables),
        _ => Err("holds no [[subscriber]]".to_owned()),
    }?;
    let mut subscribers: Vec<Subscriber> = Vec::new();
    let mut known = HashSet::new();
    // Every table is wiped, also after the first error.
    let mut result = Ok(());
    for (index, mut table) in tables.into_iter().enumerate() {
        if result.is_ok() {
            let added = expand(&table).and_then(|new| {
                if new.iter().any(|new| !known.insert(new.impi.clone())) {
                    return Err("impi: is there twice".to_owned());
                }
                subscribers.extend(new);
                Ok(())
            });
            result = added.map_err(|what| format!("[[subscriber]] #{}: {what}", index + 1));
        }
        wipe(&mut table);
    }
    result.map(|()| subscribers)
}

/// One subscriber, or with `count` as many, whose identities have a number in the
/// place of `{n}`.
fn expand(table: &Value) -> Result<Vec<Subscriber>, String> {
    let table = table.as_table().ok_or("must be a table")?;
    let model = subscriber(table)?;
    let number = |key, default| match table.get(key) {
        None => Ok(default),
        Some(Value::Integer(n)) => u64::try_from(*n).map_err(|_| format!("{key}: is below 0")),
        Some(_) => Err(format!("{key}: must be a number")),
    };
    let (first, count) = (number("first", 1)?, number("count", 1)?);
    if !(1..=MOST).contains(&count) {
        return Err(format!("count: must be 1 to {MOST}"));
    }
    let mut names = model.impus.iter().chain([&model.impi]);
    if count > 1 && !names.all(|name| pattern::is_pattern(name)) {
        return Err("count: impi and every impu need {n} where the number goes".to_owned());
    }
    let numbers = first..first.saturating_add(count);
    Ok(numbers
        .map(|n| {
            let mut one = model.clone();
            one.impi = pattern::numbered(&model.impi, n);
            for impu in &mut one.impus {
                *impu = pattern::numbered(impu, n);
            }
            one
        })
        .collect())
}

fn subscriber(table: &Table) -> Result<Subscriber, String> {
    if table.keys().any(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown key; the keys are {}", KEYS.join(", ")));
    }
    let impi = text(table, "impi")?.ok_or("impi: is missing")?;
    let impus = public_identities(table)?;
    let k = hex(table, "k")?.ok_or("k: is missing")?;
    let operator = match (hex(table, "opc")?, hex(table, "op")?) {
        (Some(opc), None) => Operator::Opc(*opc),
        (None, Some(op)) => Operator::Op(*op),
        (None, None) => return Err("opc: is missing; give opc or op".to_owned()),
        (Some(_), Some(_)) => return Err("op: stands beside opc; keep one".to_owned()),
    };
    let sqn = match hex::<6>(table, "sqn")? {
        Some(bytes) => bytes
            .iter()
            .fold(0, |sqn, byte| sqn << 8 | u64::from(*byte)),
        None => sqn_of_now(),
    };
    let mut subscriber = Subscriber::new(impi, &impus, *k, operator, sqn);
    if let Some(amf) = hex(table, "amf")? {
        subscriber.amf = *amf;
    }
    Ok(subscriber)
}

/// By time (TS 33.102 C.1.1.2), so that a restart does not go back.
fn sqn_of_now() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs() << IND_BITS
}

fn text<'t>(table: &'t Table, key: &str) -> Result<Option<&'t str>, String> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(format!("{key}: must be a string in quotes, not empty")),
    }
}

/// A string or an array of strings.
fn public_identities(table: &Table) -> Result<Vec<&str>, String> {
    let uris: Option<Vec<&str>> = match table.get("impu") {
        Some(Value::String(one)) => Some(vec![one]),
        Some(Value::Array(many)) => many.iter().map(Value::as_str).collect(),
        None => return Err("impu: is missing".to_owned()),
        Some(_) => None,
    };
    let is_uri = |uri: &&str| uri.starts_with("sip:") || uri.starts_with("tel:");
    uris.filter(|uris| !uris.is_empty() && uris.iter().all(is_uri))
        .ok_or_else(|| "impu: must be a URI or an array of URIs, such as \"sip:a@b\"".to_owned())
}

fn hex<const N: usize>(table: &Table, key: &str) -> Result<Option<Zeroizing<[u8; N]>>, String> {
    let Some(digits) = text(table, key)? else {
        return Ok(None);
    };
    let mut bytes = Zeroizing::new([0; N]);
    match hex::decode_to_slice(digits, bytes.as_mut_slice()) {
        Ok(()) => Ok(Some(bytes)),
        Err(_) => Err(format!("{key}: must be {} hexadecimal digits", 2 * N)),
    }
}

fn wipe_table(table: &mut Table) {
    table.iter_mut().for_each(|(_, value)| wipe(value));
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Table(table) => wipe_table(table),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: &str = "465b5ce8b199b49faa5f0a2ee238a6bc";
    const OPC: &str = "cd63cb71954a9f4e48a5994e37a02baf";

    fn one(more: &str) -> String {
        format!(
            "[[subscriber]]\nimpi = \"a@b\"\nimpu = \"sip:a@b\"\nk = \"{K}\"\nopc = \"{OPC}\"\n{more}"
        )
    }

    #[test]
    fn a_subscriber_is_read() {
        let found = parse(&one("amf = \"b9b9\"\nsqn = \"ff9bb4d0b607\"\n")).unwrap();
        let [subscriber] = found.as_slice() else {
            panic!("one")
        };
        assert_eq!(subscriber.amf, [0xb9, 0xb9]);
        assert_eq!(subscriber.sqn, 0xff9b_b4d0_b607);
        assert_eq!(subscriber.impus, ["sip:a@b"]);
    }

    #[test]
    fn the_example_is_read() {
        let found = parse(include_str!("../subscribers.example.toml")).unwrap();
        assert_eq!(found[0].impus.len(), 2);
    }

    #[test]
    fn a_count_stands_for_many_with_numbers_in_their_names() {
        let text = one("count = 2000\nfirst = 7\n").replace("a@b", "a{n:04}@b");
        let found = parse(&text).unwrap();
        assert_eq!(found.len(), 2000);
        assert_eq!(found[0].impi, "a0007@b");
        assert_eq!(found[1999].impus, ["sip:a2006@b"]);
        for (more, wanted) in [
            ("count = 2", "#1: count: impi and every impu need {n}"),
            ("count = 0", "#1: count: must be 1 to 1000000"),
            ("first = \"x\"", "#1: first: must be a number"),
            ("first = -1", "#1: first: is below 0"),
        ] {
            let error = parse(&one(more)).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        // One of the many and a table of its own.
        let twice = format!("{text}{}", one("").replace("a@b", "a0008@b"));
        let error = parse(&twice).unwrap_err();
        assert!(error.contains("#2: impi: is there twice"), "{error}");
    }

    #[test]
    fn without_sqn_it_follows_the_clock() {
        let first = parse(&one("")).unwrap()[0].sqn;
        assert!(first >> IND_BITS > 1_700_000_000);
        assert!(first < 1 << 48);
    }

    #[test]
    fn errors_name_table_and_key_and_no_value() {
        for (text, wanted) in [
            (
                one("").replace(K, "465b"),
                "[[subscriber]] #1: k: must be 32 hexadecimal digits",
            ),
            (
                one("").replace(OPC, "zz"),
                "[[subscriber]] #1: opc: must be 32",
            ),
            (one(&format!("op = \"{OPC}\"")), "#1: op: stands beside opc"),
            (one("").replace("opc =", "#"), "#1: opc: is missing"),
            (one("").replace("impi", "impo"), "#1: unknown key"),
            (one("").replace("sip:a", "a"), "#1: impu: must be a URI"),
            (one("sqn = 5"), "#1: sqn: must be a string"),
            (one(&one("")), "[[subscriber]] #2: impi: is there twice"),
            (one(&format!("x = {K}")), "line 6: is not TOML"),
            (format!("k = \"{K}\""), "unknown key k"),
            (String::new(), "holds no [[subscriber]]"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
            assert!(
                !error.contains("465b") && !error.contains("cd63"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_file_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.toml");
        std::fs::write(&file, one("")).unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let result = load(&file);
            assert_eq!(result.is_ok(), good, "{mode:o}");
            if let Err(error) = result {
                assert!(error.to_string().contains("chmod 0600"), "{error}");
            }
        }
        assert!(load(&dir.path().join("none")).is_err());
    }
}
