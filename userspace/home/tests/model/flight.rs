//! What is under way between the machines.

use std::net::SocketAddr;

use gm_sip::{Packet, SetToken, Transport};

use crate::plane::Seal;

/// Something under way.
pub enum Flight {
    Up {
        phone: usize,
        source: SocketAddr,
        packet: Packet,
        seal: Option<Seal>,
    },
    Down {
        packet: Packet,
        seal: Option<Seal>,
    },
    ToCore {
        transport: Transport,
        bytes: Vec<u8>,
    },
    FromCore {
        transport: Transport,
        bytes: Vec<u8>,
    },
    /// The data plane's answer; is never lost.
    Installed {
        set: SetToken,
        ok: bool,
    },
}

impl Flight {
    /// One line for a trace.
    pub fn line(&self) -> String {
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|b| *b == b'\r').unwrap_or(0);
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let seal = |s: &Option<Seal>| {
            s.as_ref()
                .map_or(String::new(), |s| format!(" esp {}", s.spec.spi))
        };
        match self {
            Flight::Up {
                source,
                packet,
                seal: s,
                ..
            } => {
                format!(
                    "{source} -> {}{} {}",
                    packet.remote,
                    seal(s),
                    text(&packet.bytes)
                )
            }
            Flight::Down { packet, seal: s } => {
                format!(
                    "{} -> {}{} {}",
                    packet.local,
                    packet.remote,
                    seal(s),
                    text(&packet.bytes)
                )
            }
            Flight::ToCore { bytes, .. } => format!("edge -> core {}", text(bytes)),
            Flight::FromCore { bytes, .. } => format!("core -> edge {}", text(bytes)),
            Flight::Installed { set, ok } => format!("installed {set:?} {ok}"),
        }
    }

    /// A second copy; only of what is in clear over UDP or between edge and core.
    pub fn copy(&self) -> Option<Flight> {
        match self {
            Flight::Up {
                phone,
                source,
                packet,
                seal: None,
            } if packet.transport == Transport::Udp => Some(Flight::Up {
                phone: *phone,
                source: *source,
                packet: packet.clone(),
                seal: None,
            }),
            Flight::Down { packet, seal: None } if packet.transport == Transport::Udp => {
                Some(Flight::Down {
                    packet: packet.clone(),
                    seal: None,
                })
            }
            Flight::ToCore { transport, bytes } => Some(Flight::ToCore {
                transport: *transport,
                bytes: bytes.clone(),
            }),
            Flight::FromCore { transport, bytes } => Some(Flight::FromCore {
                transport: *transport,
                bytes: bytes.clone(),
            }),
            _ => None,
        }
    }

    /// Writes something else into a message; the packet stays authentic.
    pub fn falsify(&mut self, what: u32) {
        let bytes = match self {
            Flight::Up { packet, .. } | Flight::Down { packet, .. } => &mut packet.bytes,
            Flight::ToCore { bytes, .. } | Flight::FromCore { bytes, .. } => bytes,
            Flight::Installed { .. } => return,
        };
        let words: [(&str, &str); 8] = [
            ("response=\"", "response=\"0"),
            ("nonce=\"", "nonce=\"AAAA"),
            ("port-s=", "port-s=1"),
            ("spi-c=", "spi-c=9"),
            ("Security-Verify:", "X-Verify:"),
            ("Security-Client:", "X-Client:"),
            ("alg=hmac-sha-1-96", "alg=aes-gmac"),
            ("Authorization:", "X-Authorization:"),
        ];
        let (from, to) = words[what as usize % words.len()];
        *bytes = String::from_utf8_lossy(bytes)
            .replace(from, to)
            .into_bytes();
    }
}
