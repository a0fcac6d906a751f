//! Overload: what a stranger hears whose message finds no room (RFC 3261 clause 21.5.4).

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gm_sip::Message;
use gm_sip::header::{Via, via::mark_source};

/// Answers in a second: they cost work, and there is none to spare.
const EACH_SECOND: u32 = 200;
/// Seconds after which the phone is to come again.
const AGAIN: &str = "30";

/// Counts the answers.
pub(super) struct Busy(Mutex<(Instant, u32)>);

impl Busy {
    pub(super) fn new() -> Busy {
        Busy(Mutex::new((Instant::now(), 0)))
    }

    /// 503 for a request in clear from `source`, and where it goes; none for what is no
    /// request, and when there were enough of them in this second.
    pub(super) fn answer(&self, source: SocketAddr, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        if !self.has_room() {
            return None;
        }
        let mut request = Message::parse(bytes).ok()?;
        if request.method().is_none_or(|method| method == "ACK") {
            return None;
        }
        let element = request.first_element("Via")?;
        let via = Via::parse(&element)?;
        if let Some(marked) = mark_source(&element, source, false) {
            request.replace_first_element("Via", &marked);
        }
        let to = if via.host.ip() == Some(source.ip()) {
            via.reply_to(source)
        } else {
            source
        };
        let answer = Message::response(&request, 503, "Service Unavailable", "gm");
        let answer = answer
            .with("Retry-After", AGAIN)
            .with("Content-Length", "0");
        Some((to, answer.to_bytes()))
    }

    fn has_room(&self) -> bool {
        // Others are answering: no time to wait for them.
        let Ok(mut count) = self.0.try_lock() else {
            return false;
        };
        if count.0.elapsed() >= Duration::from_secs(1) {
            *count = (Instant::now(), 0);
        }
        count.1 += 1;
        count.1 <= EACH_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_room_is_told_when_to_come_again_but_not_too_many() {
        let busy = Busy::new();
        let source: SocketAddr = "192.0.2.1:40000".parse().unwrap();
        let request = |via: &str| {
            format!("REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP {via}\r\nCall-ID: 1\r\n\r\n")
        };
        for (via, to) in [
            ("192.0.2.1;branch=z", "192.0.2.1:5060"),
            ("192.0.2.1;branch=z;rport", "192.0.2.1:40000"),
            ("10.0.0.1:5060;branch=z", "192.0.2.1:40000"),
        ] {
            let (at, bytes) = busy.answer(source, request(via).as_bytes()).unwrap();
            assert_eq!(at, to.parse().unwrap());
            let answer = Message::parse(&bytes).unwrap();
            assert_eq!(answer.status(), Some(503));
            assert_eq!(answer.value("Retry-After").as_deref(), Some(AGAIN));
        }
        assert!(busy.answer(source, b"SIP/2.0 200 OK\r\n\r\n").is_none());
        assert!(busy.answer(source, b"junk").is_none());
        let text = request("192.0.2.1;branch=z");
        let answers = (0..10_000).filter(|_| busy.answer(source, text.as_bytes()).is_some());
        assert!(answers.count() <= 2 * EACH_SECOND as usize);
    }
}
