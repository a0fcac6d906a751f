//! What a phone tells (one JSON object a line on stdout) and what it can be
//! told (one command a line on stdin).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::trace::printable;

/// Something that happened to the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UeEvent {
    /// The data path runs and commands are read.
    Ready {
        /// The phone's own address.
        address: IpAddr,
    },
    /// A step of clause 6.1's flow was sent or received.
    Flow {
        /// "SM1", "SM6", "SM7" or "SM12".
        message: String,
        /// The SIP message's first line and what matters of it; no key.
        detail: String,
    },
    /// SM12 said 200: the set is in use.
    Registered {
        /// Annex H's names, `alg/ealg`.
        suite: String,
        /// "trans" or "udp-enc-tun".
        mode: String,
        /// The phone's address as the P-CSCF sees it.
        public_address: IpAddr,
        /// Protected ports: the phone's client and server, the P-CSCF's client and server.
        ports: [u16; 4],
        /// SPIs in the same order: spi_uc, spi_us, spi_pc, spi_ps.
        spis: [u32; 4],
        /// Granted registration time in seconds.
        expires: u32,
        /// Whether there was a challenge; without one the SAs are those of before.
        #[serde(default)]
        authenticated: bool,
    },
    /// A MESSAGE of ours was answered.
    MessageSent {
        /// SIP status; 408 when nobody answered.
        status: u16,
    },
    /// A MESSAGE came in and was answered with 200.
    MessageReceived {
        /// Its From header's value.
        from: String,
        /// Its body.
        body: String,
        /// "udp" or "tcp".
        #[serde(default)]
        transport: String,
    },
    /// The de-registration was confirmed through the SA, and the SAs are gone.
    Deregistered,
    /// No answers came through the SAs: they count as dead, and the next REGISTER
    /// goes in clear.
    Lost,
    /// After a failure the phone begins again by itself.
    Again {
        /// In how many milliseconds.
        wait_ms: u64,
    },
    /// Something came that is not taken.
    Ignored {
        /// Why.
        reason: String,
    },
    /// What was asked for did not work.
    Failed {
        /// Why, and what to look at.
        reason: String,
    },
}

impl fmt::Display for UeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UeEvent::Ready { address } => write!(f, "ready at {address}"),
            UeEvent::Flow { message, detail } => write!(f, "{message:<4} {detail}"),
            UeEvent::Registered {
                suite,
                mode,
                public_address,
                ports,
                spis,
                expires,
                ..
            } => write!(
                f,
                "registered for {expires} s: {suite} {mode}, seen at {public_address}, \
                 ports uc {} us {} pc {} ps {}, SPIs {} {} {} {}",
                ports[0], ports[1], ports[2], ports[3], spis[0], spis[1], spis[2], spis[3]
            ),
            UeEvent::MessageSent { status } => write!(f, "MESSAGE answered with {status}"),
            UeEvent::MessageReceived { from, body, .. } => {
                write!(f, "MESSAGE from {}: {}", printable(from), printable(body))
            }
            UeEvent::Deregistered => f.write_str("de-registered"),
            UeEvent::Lost => f.write_str("no answers through the SAs: they count as dead"),
            UeEvent::Again { wait_ms } => write!(f, "registers again in {wait_ms} ms"),
            UeEvent::Ignored { reason } => write!(f, "ignored: {reason}"),
            UeEvent::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

/// What a phone can be told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `register`
    Register,
    /// `register clear`: in clear although there are SAs
    RegisterInClear,
    /// `message URI TEXT`
    Message {
        /// To whom.
        to: String,
        /// The body.
        text: String,
    },
    /// `deregister`
    Deregister,
    /// `address IP`: the phone has another address, which the host has already.
    Address(IpAddr),
    /// `quit`
    Quit,
}

impl Command {
    /// Parses a line.
    ///
    /// # Errors
    /// A sentence that says which commands there are.
    pub fn parse(line: &str) -> Result<Command, String> {
        let mut words = line.trim().splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("register"), None, None) => Ok(Command::Register),
            (Some("register"), Some("clear"), None) => Ok(Command::RegisterInClear),
            (Some("deregister"), None, None) => Ok(Command::Deregister),
            (Some("quit"), None, None) => Ok(Command::Quit),
            (Some("message"), Some(to), Some(text)) => Ok(Command::Message {
                to: to.to_owned(),
                text: text.to_owned(),
            }),
            (Some("address"), Some(address), None) => address
                .parse()
                .map(Command::Address)
                .map_err(|_| format!("{address:?} is no IP address")),
            _ => Err(
                "commands: register | register clear | message URI TEXT | address IP | deregister | quit".to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_parse() {
        assert_eq!(Command::parse("register\n"), Ok(Command::Register));
        assert_eq!(
            Command::parse("message sip:echo@home.test hello there"),
            Ok(Command::Message {
                to: "sip:echo@home.test".into(),
                text: "hello there".into()
            })
        );
        let moved = Command::Address([192, 0, 2, 9].into());
        assert_eq!(Command::parse("address 192.0.2.9"), Ok(moved));
        assert!(Command::parse("address here").is_err());
        assert!(Command::parse("message sip:x").is_err());
        assert!(Command::parse("").is_err());
    }

    #[test]
    fn what_the_network_writes_moves_no_cursor() {
        let event = UeEvent::MessageReceived {
            from: "<sip:a@b>]0;t".into(),
            body: "one
[2Jtwo"
                .into(),
            transport: "udp".into(),
        };
        let shown = event.to_string();
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.contains("one") && shown.contains("two"), "{shown:?}");
    }

    #[test]
    fn events_survive_json() {
        let event = UeEvent::MessageReceived {
            from: "a".into(),
            body: "b \"c\"\n".into(),
            transport: "tcp".into(),
        };
        let line = serde_json::to_string(&event).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<UeEvent>(&line).unwrap(), event);
    }
}
