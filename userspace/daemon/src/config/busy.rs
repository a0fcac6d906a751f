//! How long workers look for packets before they sleep.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

/// `busy_poll`: "off", or microseconds as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusyPoll(pub u32);

impl<'de> Deserialize<'de> for BusyPoll {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Micros;
        impl Visitor<'_> for Micros {
            type Value = BusyPoll;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"off\" or microseconds from 1 to 1000000")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<BusyPoll, E> {
                match u32::try_from(number) {
                    Ok(us @ 1..=gm_dataplane::MAX_BUSY_POLL_US) => Ok(BusyPoll(us)),
                    _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BusyPoll, E> {
                match text {
                    "off" => Ok(BusyPoll(0)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Table {
        #[serde(default)]
        busy_poll: BusyPoll,
    }

    fn read(line: &str) -> Result<u32, String> {
        let table: Result<Table, _> = toml::from_str(line);
        table.map(|t| t.busy_poll.0).map_err(|e| e.to_string())
    }

    #[test]
    fn it_is_off_or_microseconds() {
        for (line, want) in [
            ("", 0),
            ("busy_poll = \"off\"", 0),
            ("busy_poll = 1", 1),
            ("busy_poll = 1000000", 1_000_000),
        ] {
            assert_eq!(read(line), Ok(want), "{line}");
        }
        for line in ["0", "-1", "1000001", "true", "\"on\"", "\"50\""] {
            let refused = read(&format!("busy_poll = {line}")).unwrap_err();
            assert!(refused.contains("\"off\" or microseconds"), "{refused}");
        }
    }
}
