//! The laboratory: gmespd, asked by gmespctl, in one namespace; phones, a data
//! plane of their own and raw frames, in the other.

use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gm_api::control::{AddRequest, SaStatus, Stats};
use gm_api::drops::{DropLine, DropSample, Explanation, LeftOut, PrefixRow, Verdict};
use gm_api::sad::Sad;
use gm_dataplane::{Config, DataPlane, Dir, NewSa, SetSpec};
use gm_tests::netns::{End, NetNs, veth};
use gm_xsk::LinkSocket;
use gmespctl::client::Client;

use crate::common::{Process, program, write_private};
use crate::phone::{PHONES, PORT_PC, PORT_PS, PORT_UC, PORT_US, Phone, phone, phone6};

/// Keys that must not show up anywhere.
pub const IK: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
pub const CK: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// Other keys.
pub const OTHER: &str = "00112233445566778899aabbccddeeff";
/// What packets carry; must not show up either.
pub const PAYLOAD: &[u8] = b"PRIVATE-TO-THE-PHONE";

/// Longer than a loaded machine takes, shorter than patience.
pub const WAIT: Duration = Duration::from_secs(20);

/// Both sides.
pub struct Lab {
    // Processes end before their namespaces.
    follower: Process,
    lines: Receiver<String>,
    _gmespd: Process,
    pub phones: DataPlane,
    pub wire: LinkSocket,
    socket: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
    pub ue: NetNs,
    pub host: NetNs,
    /// All that was shown to anybody.
    shown: String,
    /// Samples that nobody has asked about yet.
    waiting: Vec<DropSample>,
}

impl Lab {
    /// gmespd runs, gmespctl follows its samples; there is no SA.
    pub fn new() -> Lab {
        let (host, ue) = (NetNs::new().expect("root"), NetNs::new().expect("root"));
        let phones: Vec<Phone> = PHONES.map(phone).chain(PHONES.map(phone6)).collect();
        let length = |a: IpAddr| if a.is_ipv4() { 24 } else { 64 };
        let theirs: Vec<String> = phones
            .iter()
            .map(|p| format!("{}/{}", p.address, length(p.address)))
            .chain(["fd77::2/64".to_owned()])
            .collect();
        let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
        let [p, u] = [(&host, "p0"), (&ue, "u0")];
        veth(
            End {
                ns: p.0,
                name: p.1,
                addresses: &["10.77.0.1/24", "fd77::1/64"],
            },
            End {
                ns: u.0,
                name: u.1,
                addresses: &theirs,
            },
        );
        host.ip("-6 route add fd77:0:0::/48 dev p0");

        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("c.sock");
        let config = dir.path().join("gmespd.toml");
        let text = format!(
            "[gm]\nuplinks = [\"p0\"]\naddresses = [\"10.77.0.1\", \"fd77::1\"]\n\
             server_ports = [{PORT_PS}]\nclient_ports = [{PORT_PC}]\nmax_sas = 64\n\
             pin_dir = \"off\"\n{}[control]\nsocket = \"{}\"\n[log]\nlevel = \"warn\"\n",
            gm_tests::plane::lines(),
            socket.display()
        );
        write_private(&config, &text);
        let config = config.display().to_string();
        let args = ["run", "--until-stdin-closes", "--config", &config];
        let (mut gmespd, _) = Process::start(&host, "gmespd", &args);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = Client::new(&socket);
        let deadline = Instant::now() + WAIT;
        while runtime.block_on(client.health()).is_err() {
            assert!(gmespd.runs(), "gmespd could not start");
            assert!(Instant::now() < deadline, "gmespd did not start in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        let config = Config {
            uplink: "u0".into(),
            addresses: phones.iter().map(|p| p.address).collect(),
            server_ports: vec![PORT_US..=PORT_US],
            client_ports: vec![PORT_UC..=PORT_UC],
            max_sas: 64,
            ..Config::default()
        };
        let plane = ue
            .run(|| DataPlane::start(config))
            .unwrap_or_else(|e| panic!("{e}"));
        let wire = ue.run(|| LinkSocket::bind("u0")).expect("a raw socket");
        let socket = socket.display().to_string();
        let args = ["--socket", &socket, "drops", "--follow", "--json"];
        let (follower, lines) = Process::start(&host, "gmespctl", &args);
        let mut lab = Lab {
            follower,
            lines,
            _gmespd: gmespd,
            phones: plane,
            wire,
            socket,
            client,
            runtime,
            _dir: dir,
            ue,
            host,
            shown: String::new(),
            waiting: Vec::new(),
        };
        lab.follows();
        lab
    }

    /// Waits until the follower gets samples: a phone that nobody asks about
    /// sends ESP that nobody knows.
    fn follows(&mut self) {
        let deadline = Instant::now() + WAIT;
        let stranger = Phone {
            address: [10, 77, 0, 250].into(),
            ..phone(10)
        };
        loop {
            self.send(&stranger.esp(7, 7));
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(_) => break,
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => panic!("gmespctl drops --follow shows nothing"),
            }
        }
        // What was sent before the answer came, and its counters.
        while self.lines.recv_timeout(Duration::from_millis(1500)).is_ok() {}
    }

    pub fn send(&self, frame: &[u8]) {
        self.wire.send(frame).expect("the frame is sent");
    }

    /// Installs a phone's set at gmespd.
    pub fn add(&self, phone: Phone, mode: &str) {
        let request = AddRequest {
            sad: phone.sad(mode, [IK, CK]),
            name: None,
        };
        let added = self.runtime.block_on(self.client.add(&request));
        added.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Installs it at the phone, which may have other keys or other SAs.
    pub fn add_at_phone(&self, sad: &str) {
        let sad = Sad::parse("the phone's", sad).unwrap_or_else(|e| panic!("{e}"));
        let sas = sad.entries.into_iter().map(|entry| {
            let from_phone = entry.spec.selector.src_port == Some(PORT_UC)
                || entry.spec.selector.src_port == Some(PORT_US)
                || entry.spec.selector.dst_port.is_none();
            NewSa {
                spec: entry.spec,
                keys: entry.keys,
                dir: if from_phone { Dir::Out } else { Dir::In },
                first_seq: None,
            }
        });
        let set = SetSpec {
            set: None,
            sas: sas.collect(),
        };
        let id = self.phones.install(set).unwrap_or_else(|e| panic!("{e}"));
        self.phones.activate(id).unwrap();
    }

    /// Both.
    pub fn join(&self, phone: Phone, mode: &str) {
        self.add(phone, mode);
        self.add_at_phone(&phone.sad(mode, [IK, CK]));
    }

    /// The phone's socket on port_uc, and gmespd's host's on port_ps.
    pub fn sockets(&self, phone: Phone) -> (UdpSocket, UdpSocket) {
        let open = |ip: IpAddr, port: u16| {
            let socket = UdpSocket::bind((ip, port)).expect("a socket");
            socket.set_read_timeout(Some(WAIT)).unwrap();
            socket
        };
        let uc = self.ue.run(|| open(phone.address, PORT_UC));
        let ps = self.host.run(|| open(phone.pcscf, PORT_PS));
        (uc, ps)
    }

    /// gmespctl with these arguments.
    pub fn ctl(&mut self, args: &[&str]) -> Output {
        let output = Command::new(program("gmespctl"))
            .args(["--socket", &self.socket])
            .args(args)
            .output()
            .expect("gmespctl runs");
        self.shown += &String::from_utf8_lossy(&output.stdout);
        self.shown += &String::from_utf8_lossy(&output.stderr);
        output
    }

    /// The next line of the stream.
    pub fn line(&mut self, until: Instant) -> Option<DropLine> {
        let left = until.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(left).ok()?;
        self.shown += &line;
        self.shown.push('\n');
        Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}")))
    }

    /// The next samples of a phone for this reason, so many; others wait.
    pub fn samples(&mut self, phone: Phone, reason: &str, n: usize) -> Vec<DropSample> {
        let until = Instant::now() + WAIT;
        loop {
            let wanted =
                |s: &DropSample| [s.src, s.dst].contains(&phone.address) && s.reason == reason;
            if self.waiting.iter().filter(|s| wanted(s)).count() >= n {
                let mut left = n;
                let take = |s: &mut DropSample| {
                    let take = left > 0 && wanted(s);
                    left -= usize::from(take);
                    take
                };
                return self.waiting.extract_if(.., take).collect();
            }
            match self.line(until) {
                Some(DropLine::Sample(sample)) => self.waiting.push(sample),
                Some(DropLine::LeftOut(_)) => {}
                None => panic!("no {n} samples of {reason}: {:#?}", self.waiting),
            }
        }
    }

    /// What is left of the stream until nothing has come for a while: samples,
    /// and what was left out.
    pub fn rest(&mut self) -> (Vec<DropSample>, Vec<LeftOut>) {
        let (mut samples, mut left_out) = (Vec::new(), Vec::new());
        while let Some(line) = self.line(Instant::now() + Duration::from_millis(2500)) {
            match line {
                DropLine::Sample(sample) => samples.push(sample),
                DropLine::LeftOut(line) => left_out.push(line),
            }
        }
        (samples, left_out)
    }

    /// The phone's counters by reason, as soon as there are `least` packets.
    pub fn prefix(&mut self, phone: Phone, least: u64) -> PrefixRow {
        let deadline = Instant::now() + WAIT;
        loop {
            let output = self.ctl(&["drops", "--by", "prefix", "--json", "--limit", "1000"]);
            let rows: Vec<PrefixRow> = serde_json::from_slice(&output.stdout).expect("JSON");
            let row = rows.into_iter().find(|row| row.prefix == phone.prefix());
            if let Some(row) = row
                && row.packets >= least
            {
                return row;
            }
            assert!(
                Instant::now() < deadline,
                "{} has no {least} drops",
                phone.prefix()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asserts that so many packets of the phone were dropped, all for this
    /// reason.
    #[track_caller]
    pub fn counted(&mut self, phone: Phone, reason: &str, n: u64) {
        let row = self.prefix(phone, n);
        assert_eq!(
            row.reasons,
            [(reason.to_owned(), n)].into(),
            "{}",
            phone.prefix()
        );
    }

    /// The phone's SA to port_ps, as gmespd has it.
    pub fn sa(&self, phone: Phone) -> SaStatus {
        let rows = self
            .runtime
            .block_on(self.client.list())
            .expect("gmespd answers");
        let spi = phone.spi();
        rows.into_iter()
            .find(|row| row.sa.spi == spi)
            .expect("the SA")
    }

    /// A counter of gmespd.
    pub fn count(&self, reason: &str) -> u64 {
        let stats = self.runtime.block_on(self.client.stats());
        let stats: Stats = stats.expect("gmespd answers");
        stats.reasons[reason]
    }

    /// What gmespctl explain says; its exit code agrees.
    pub fn explain(&mut self, phone: Phone) -> Explanation {
        let address = phone.address.to_string();
        let output = self.ctl(&["explain", &address, "--json"]);
        let said: Explanation = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        let code = match said.verdict {
            Verdict::Fine => 0,
            Verdict::Trouble => 3,
            Verdict::Unknown => 4,
        };
        assert_eq!(output.status.code(), Some(code));
        said
    }

    /// Waits until explain's first finding is this cause; its text and
    /// evidence hold these words.
    #[track_caller]
    pub fn cause(&mut self, phone: Phone, want: &str, words: &[&str]) -> Explanation {
        let deadline = Instant::now() + WAIT;
        loop {
            let said = self.explain(phone);
            let first = &said.findings[0];
            if first.cause == want {
                let all = format!("{}\n{}", first.text, first.evidence.join("\n"));
                for word in words {
                    assert!(all.contains(word), "{word:?} is not in:\n{all}");
                }
                // And people can read it.
                let text = self.ctl(&["explain", &phone.address.to_string()]);
                let text = String::from_utf8(text.stdout).unwrap();
                assert!(text.contains(want), "{text}");
                return said;
            }
            assert!(Instant::now() < deadline, "not {want} but {said:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Nothing that anybody was shown holds a key or what was carried.
    pub fn shows_no_secret(&self) {
        let payload = str::from_utf8(PAYLOAD).unwrap();
        let hex: String = PAYLOAD.iter().map(|b| format!("{b:02x}")).collect();
        let shown = self.shown.to_lowercase();
        for secret in [IK, CK, OTHER, payload, &hex, "a5a5a5a5"] {
            assert!(!shown.contains(&secret.to_lowercase()), "{secret}");
        }
        for part in [IK, CK] {
            // Any eight digits in a row give a key away.
            let mut parts = (0..part.len() - 8).map(|at| &part[at..at + 8]);
            assert!(parts.all(|part| !shown.contains(part)));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        assert!(
            self.follower.runs() || std::thread::panicking(),
            "the follower has ended"
        );
        if std::thread::panicking() {
            return;
        }
        self.shows_no_secret();
    }
}
