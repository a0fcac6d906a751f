//! The laboratory: gmespd on the kernel's ESP in one namespace, the phone's kernel in the
//! other.

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use gm_api::control::{ApiError, SaStatus};
use gm_tests::netns::{End, NetNs, veth};
use gmespctl::client::{Client, ClientError};

/// Longer than a loaded machine takes, shorter than patience.
pub const WAIT: Duration = Duration::from_secs(30);
/// In this time a packet that comes at all has come.
pub const SILENCE: Duration = Duration::from_millis(400);

/// The P-CSCF's addresses.
pub const PCSCF: &str = "192.0.2.1";
pub const PCSCF6: &str = "2001:db8::1";
/// The phone's.
pub const UE: &str = "192.0.2.10";
pub const UE6: &str = "2001:db8::10";
/// Protected ports: the P-CSCF's server port and a client port, the phone's two.
pub const PS: u16 = 5066;
pub const PC: u16 = 5067;
pub const UC: u16 = 6001;
pub const US: u16 = 6002;

fn program(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a path");
    let dir = exe
        .parent()
        .and_then(Path::parent)
        .expect("a target directory");
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace --bins",
        path.display()
    );
    path
}

/// Namespaces, a link, and what gmespd is told.
pub struct Lab {
    pub pcscf: NetNs,
    pub ue: NetNs,
    pub dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

/// A running gmespd.
pub struct Daemon(Child);

impl Lab {
    /// Both ends have an address of each family.
    pub fn new() -> Lab {
        let (pcscf, ue) = (NetNs::new().expect("root"), NetNs::new().expect("root"));
        veth(
            End {
                ns: &pcscf,
                name: "p0",
                addresses: &[&format!("{PCSCF}/24"), &format!("{PCSCF6}/64")],
            },
            End {
                ns: &ue,
                name: "u0",
                addresses: &[&format!("{UE}/24"), &format!("{UE6}/64")],
            },
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        Lab {
            pcscf,
            ue,
            dir: tempfile::tempdir().expect("a directory"),
            runtime,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    /// Starts gmespd; when this returns it is ready.
    pub fn start(&self) -> Daemon {
        self.start_with("")
    }

    /// The same with further lines of `[gm]`.
    pub fn start_with(&self, gm: &str) -> Daemon {
        self.start_text(&self.text(gm))
    }

    /// The same by these words, which end in the program.
    pub fn start_as(&self, words: &[&str]) -> Daemon {
        // Its own folder, as a service has one.
        std::os::unix::fs::chown(self.dir.path(), Some(65534), Some(65534)).expect("chown");
        Self::ready(self.spawn_by(words, &self.text("")))
    }

    /// The same with a configuration.
    pub fn start_text(&self, text: &str) -> Daemon {
        Self::ready(self.spawn_text(text))
    }

    fn ready(mut child: Child) -> Daemon {
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(
            line.starts_with("gmespd is ready: data plane kernel, addresses 192.0.2.1"),
            "{line:?}"
        );
        Daemon(child)
    }

    /// Starts gmespd and does not wait.
    pub fn spawn(&self, gm: &str) -> Child {
        self.spawn_text(&self.text(gm))
    }

    fn text(&self, gm: &str) -> String {
        format!(
            "[gm]\ndata_plane = \"kernel\"\naddresses = [\"{PCSCF}\", \"{PCSCF6}\"]\n\
             server_ports = [{PS}]\nclient_ports = [\"{PC}-5074\"]\nmax_sas = 64\n{gm}\
             [control]\nsocket = \"{}\"\n[log]\nlevel = \"error\"\n",
            self.socket().display()
        )
    }

    fn spawn_text(&self, text: &str) -> Child {
        self.spawn_by(&[], text)
    }

    fn spawn_by(&self, words: &[&str], text: &str) -> Child {
        let config = self.dir.path().join("gmespd.toml");
        std::fs::write(&config, text).expect("written");
        let gmespd = program("gmespd");
        let mut command = match words {
            [] => Command::new(gmespd),
            [first, others @ ..] => {
                let mut command = Command::new(first);
                command.args(others).arg(gmespd);
                command
            }
        };
        command
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        self.pcscf.run(|| command.spawn()).expect("gmespd starts")
    }

    /// Runs gmespctl.
    pub fn ctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program("gmespctl"));
        command.arg("--socket").arg(self.socket()).args(args);
        command.output().expect("gmespctl runs")
    }

    /// Asks gmespd.
    pub fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let client = Client::new(self.socket());
        self.runtime.block_on(question(&client))
    }

    /// gmespd's own words for what it cannot do.
    pub fn refused<T>(&self, answer: Result<T, ClientError>) -> ApiError {
        match answer {
            Err(ClientError::Refused { error, .. }) => error,
            Err(other) => panic!("another error: {other}"),
            Ok(_) => panic!("an empty success"),
        }
    }

    /// gmespd's SAs.
    pub fn sas(&self) -> Vec<SaStatus> {
        self.ask(async |c| c.list().await).expect("gmespd answers")
    }

    /// One of gmespd's counters.
    pub fn count(&self, reason: &str) -> u64 {
        let stats = self.ask(async |c| c.stats().await).expect("gmespd answers");
        stats.reasons[reason]
    }

    /// Puts a file of SAs into gmespd; its sets' numbers.
    pub fn add(&self, sad: &str) -> Vec<u64> {
        let request = gm_api::control::AddRequest {
            sad: sad.to_owned(),
            name: None,
        };
        let reply = self
            .ask(async |c| c.add(&request).await)
            .expect("installed");
        reply.sets.iter().map(|set| set.set).collect()
    }

    /// Puts a file of SAs into the phone's kernel.
    pub fn peer(&self, what: &str, sad: &str) {
        let file = self.dir.path().join("peer.toml");
        std::fs::write(&file, sad).expect("written");
        let gm_xfrm = program("gm-xfrm");
        self.ue.sh(
            &gm_xfrm.display().to_string(),
            &[what, "--sad", &file.display().to_string()],
        );
    }

    /// The kernel's tables at the P-CSCF, as people read them.
    pub fn tables(&self) -> String {
        let mut all = self.pcscf.ip("xfrm state");
        all += &self.pcscf.ip("xfrm policy");
        all + &self.pcscf.sh("nft", &["list", "ruleset"])
    }

    /// A UDP socket in one of the namespaces.
    pub fn udp(ns: &NetNs, address: &str, port: u16) -> UdpSocket {
        let address: IpAddr = address.parse().expect("an address");
        let socket = ns.run(|| UdpSocket::bind((address, port)));
        let socket = socket.unwrap_or_else(|e| panic!("{address} port {port}: {e}"));
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
        socket
    }
}

impl Daemon {
    /// SIGKILL.
    pub fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("waited for");
    }

    /// Its permitted capabilities.
    pub fn capabilities(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let status = status.expect("a status");
        let held = status
            .lines()
            .find_map(|line| line.strip_prefix("CapPrm:\t"));
        u64::from_str_radix(held.expect("capabilities"), 16).expect("a number")
    }

    /// SIGTERM and an orderly end.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("killed");
        let deadline = Instant::now() + WAIT;
        while self.0.try_wait().expect("a status").is_none() {
            assert!(Instant::now() < deadline, "gmespd does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = self.0.wait().expect("a status");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a socket receives next, and from where; `None`: nothing.
pub fn received(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 65535];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(e) => panic!("{e}"),
    }
}

/// A datagram goes from one to the other and arrives as it was.
pub fn crosses(from: &UdpSocket, to: &UdpSocket, text: &[u8]) {
    let target = to.local_addr().expect("an address");
    from.send_to(text, target)
        .unwrap_or_else(|e| panic!("to {target}: {e}"));
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some((got, _)) = received(to) {
            assert_eq!(got, text);
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{target} has received none of {} bytes",
            text.len()
        );
    }
}

/// A datagram leaves or is refused at once, and does not arrive.
pub fn is_dropped(from: &UdpSocket, to: &UdpSocket) {
    let target = to.local_addr().expect("an address");
    match from.send_to(b"cleartext", target) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
        Err(e) => panic!("to {target}: {e}"),
    }
    assert_eq!(received(to), None, "to {target}");
}
