//! Ports in the configuration: a number, or a range "a-b".

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// One port or a range of ports, never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl PortRange {
    /// `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ports;
        impl Visitor<'_> for Ports {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535 or a range such as \"5100-5199\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortRange, E> {
                match u16::try_from(number) {
                    Ok(port) if port != 0 => Ok(PortRange(port..=port)),
                    _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
                let refuse = || E::invalid_value(de::Unexpected::Str(text), &self);
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let first: u16 = first.trim().parse().map_err(|_| refuse())?;
                let last: u16 = last.trim().parse().map_err(|_| refuse())?;
                if first == 0 || first > last {
                    return Err(refuse());
                }
                Ok(PortRange(first..=last))
            }
        }
        deserializer.deserialize_any(Ports)
    }
}
