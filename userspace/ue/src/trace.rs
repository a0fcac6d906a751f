//! A trace of a phone's messages for people: an arrow for each, with time,
//! transport, ports, the SA that it went through, and its first line.
//!
//! ```text
//!    0.000  --> UDP  192.0.2.10:5060 > 192.0.2.1:5060  clear  REGISTER sip:home.test SIP/2.0  (1042 bytes)
//!    0.006  <-- UDP  192.0.2.10:5060 < 192.0.2.1:5060  clear  SIP/2.0 401 Unauthorized  (789 bytes)
//!    0.011  --> UDP  192.0.2.10:31104 > 192.0.2.1:5066  ESP 1000000003 null/aes-gcm  REGISTER ...
//! ```

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Instant;

use gm_api::sad::mode_name;
use gm_esp::SaSpec;
use gm_sip::{Message, Packet, SaSetRequest, SetToken, Transport, aka};

use crate::host::Arrival;

/// How much of a message is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Its first line.
    Line,
    /// All of it. Keys that a core has left in are taken out.
    Full,
}

/// Where the lines go.
pub type Sink = Box<dyn Write + Send>;

/// Writes what a phone sends and receives.
pub struct Trace {
    detail: Detail,
    to: Sink,
    /// Time of the first line.
    began: Option<Instant>,
    sas: Vec<(SetToken, SaSpec)>,
}

impl Trace {
    /// A trace whose clock begins with its first line.
    pub fn new(detail: Detail, to: Sink) -> Trace {
        Trace {
            detail,
            to,
            began: None,
            sas: Vec::new(),
        }
    }

    /// From now on messages between these addresses are known to be in ESP.
    pub fn installed(&mut self, request: &SaSetRequest) {
        let all = request.inbound.iter().chain(&request.outbound);
        // The newest first: an older set may have the same ports.
        for spec in all {
            self.sas.insert(0, (request.token, *spec));
        }
    }

    /// The set is gone.
    pub fn removed(&mut self, set: SetToken) {
        self.sas.retain(|(token, _)| *token != set);
    }

    /// A message leaves.
    pub fn sends(&mut self, packet: &Packet) {
        let way = (packet.local, packet.remote);
        let sa = self.sa(packet.local, packet.remote);
        self.line("-->", '>', way, packet.transport, &sa, &packet.bytes);
    }

    /// Something came.
    pub fn receives(&mut self, arrival: &Arrival) {
        match arrival {
            Arrival::Message {
                local,
                remote,
                transport,
                bytes,
            } => {
                let sa = self.sa(*remote, *local);
                self.line("<--", '<', (*local, *remote), *transport, &sa, bytes);
            }
            Arrival::Unreachable { local, remote } => {
                self.note(&format!("TCP  {local} > {remote}  no connection"));
            }
            Arrival::Closed { local, remote } => {
                self.note(&format!("TCP  {local} - {remote}  connection closed"));
            }
        }
    }

    fn sa(&self, from: SocketAddr, to: SocketAddr) -> String {
        let found = self.sas.iter().map(|(_, spec)| spec).find(|spec| {
            let s = &spec.selector;
            (s.src, s.dst) == (from.ip(), to.ip())
                && (s.src_port, s.dst_port) == (Some(from.port()), Some(to.port()))
        });
        match found {
            Some(sa) => format!("ESP {} {} {}", sa.spi, sa.suite, mode_name(sa.mode)),
            None => "clear".into(),
        }
    }

    fn line(
        &mut self,
        arrow: &str,
        direction: char,
        (local, remote): (SocketAddr, SocketAddr),
        transport: Transport,
        sa: &str,
        bytes: &[u8],
    ) {
        let (first, whole) = match Message::parse(bytes) {
            Ok(mut message) => {
                aka::strip_keys(&mut message);
                let text = String::from_utf8_lossy(&message.to_bytes()).into_owned();
                (text.lines().next().unwrap_or_default().to_owned(), text)
            }
            Err(_) if bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | 0 | 0xff)) => {
                ("keepalive".into(), String::new())
            }
            Err(error) => (format!("no SIP: {error}"), String::new()),
        };
        let mut out = format!(
            "{:>8.3}  {arrow} {}  {local} {direction} {remote}  {sa}  {first}  ({} bytes)\n",
            self.elapsed(),
            transport.name(),
            bytes.len()
        );
        if self.detail == Detail::Full {
            for line in whole.lines() {
                let _ = writeln!(out, "            | {}", printable(line));
            }
        }
        self.write(&printable_lines(&out));
    }

    /// Seconds.
    fn elapsed(&mut self) -> f64 {
        let began = self.began.get_or_insert_with(Instant::now);
        began.elapsed().as_secs_f64()
    }

    fn note(&mut self, text: &str) {
        let out = format!("{:>8.3}  --- {text}\n", self.elapsed());
        self.write(&out);
    }

    fn write(&mut self, text: &str) {
        // Nobody may be listening; the phone goes on.
        let _ = self.to.write_all(text.as_bytes());
        let _ = self.to.flush();
    }
}

/// What comes from the network does not move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

fn printable_lines(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| printable(line.trim_end_matches('\n')) + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(detail: Detail, bytes: &[u8]) -> String {
        let paper = Paper::default();
        let mut trace = Trace::new(detail, Box::new(paper.clone()));
        trace.installed(&request());
        trace.receives(&Arrival::Message {
            local: "192.0.2.10:31800".parse().unwrap(),
            remote: "192.0.2.1:5067".parse().unwrap(),
            transport: Transport::Udp,
            bytes: bytes.to_vec(),
        });
        String::from_utf8(paper.0.lock().unwrap().clone()).unwrap()
    }

    fn request() -> SaSetRequest {
        use gm_sip::sa_set::SetParams;
        use gm_sip::sec_agree::Ends;
        let ends = |spi, port_c, port_s| Ends {
            spi_c: spi,
            spi_s: spi + 1,
            port_c,
            port_s,
        };
        let params = SetParams {
            ue: [192, 0, 2, 10].into(),
            pcscf: [192, 0, 2, 1].into(),
            ue_ends: ends(1_000_000_000, 31100, 31800),
            pcscf_ends: ends(1_000_000_002, 5067, 5066),
            suite: gm_esp::Suite::NullAesGcm,
            tunnel: None,
            replay_window: 64,
        };
        let (ik, ck) = (
            gm_esp::Ik::from_bytes([1; 16]),
            gm_esp::Ck::from_bytes([2; 16]),
        );
        SaSetRequest::new(SetToken(1), gm_sip::Role::Ue, params, ik, ck)
    }

    #[test]
    fn a_line_says_the_way_the_sa_and_the_first_line() {
        let line = written(
            Detail::Line,
            b"MESSAGE sip:a@b SIP/2.0\r\nCall-ID: 1\r\n\r\nhi",
        );
        assert!(
            line.ends_with(
                "  <-- UDP  192.0.2.10:31800 < 192.0.2.1:5067  \
                 ESP 1000000001 null/aes-gcm trans  MESSAGE sip:a@b SIP/2.0  (41 bytes)\n"
            ),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
        assert!(written(Detail::Line, b"\r\n\r\n").contains("keepalive"));
        assert!(written(Detail::Line, b"\x1b[2J").contains("no SIP"));
    }

    #[test]
    fn a_whole_message_keeps_nonce_and_response_and_loses_keys() {
        let text = written(
            Detail::Full,
            b"SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"h\",nonce=\"bm9uY2U=\",\
              algorithm=AKAv1-MD5,ik=\"00112233445566778899aabbccddeeff\",ck=\"ffeeddccbbaa99887766554433221100\"\r\n\r\n",
        );
        assert!(
            text.contains("| WWW-Authenticate:") && text.contains("bm9uY2U="),
            "{text}"
        );
        for key in ["00112233445566778899aabbccddeeff", "ffeeddccbbaa9988"] {
            assert!(!text.contains(key), "{text}");
        }
    }

    #[test]
    fn what_strangers_write_stays_text() {
        let text = written(
            Detail::Full,
            b"MESSAGE sip:a@b SIP/2.0\r\nSubject: \x1b[2Jx\r\n\r\n\x1b]0;t\x07",
        );
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
    }
}
