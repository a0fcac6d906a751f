//! The laboratory: gmespd in one namespace, gm-ue in the other.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gm_api::control::{Health, SaStatus, Stats};
use gm_tests::netns::{End, NetNs, veth};
use gmespctl::client::Client;

/// The home network's domain.
pub const DOMAIN: &str = "home.test";
/// The P-CSCF's address.
pub const PCSCF: &str = "192.0.2.1";
/// The UE's address on the Gm link.
pub const UE: &str = "192.0.2.10";
/// K, OP and OPc of TS 35.208, test set 3. SIPp takes the octets of K and OP for text:
/// the sets with an octet 5b, an opening bracket, it cannot use.
pub const K: &str = "fec86ba6eb707ed08905757b1bb44b8f";
pub const OP: &str = "dbc59adcb6f9a0ef735477b7fadf8374";
pub const OPC: &str = "1006020f0a478bf6b699f15c062e42b3";

/// Longer than a loaded machine takes, shorter than patience.
const WAIT: Duration = Duration::from_secs(20);

/// A program of this workspace. `cargo build --workspace --bins` makes them; tests/run
/// does that before.
pub fn program(name: &str) -> PathBuf {
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

/// A process that does not outlive the test.
pub struct Process {
    child: Child,
    name: &'static str,
}

impl Process {
    /// Starts it in a namespace; its lines on stdout come out of the channel.
    pub fn start(ns: &NetNs, name: &'static str, args: &[&str]) -> (Process, Receiver<String>) {
        let mut command = Command::new(program(name));
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = ns
            .run(|| command.spawn())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let stdout = child.stdout.take().expect("stdout");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        (Process { child, name }, lines)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, and an orderly end.
    pub fn end(self) {
        let name = self.name;
        let status = self.ended();
        assert!(status.success(), "{name}: {status}");
    }

    /// SIGTERM, and its end.
    pub fn ended(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .arg(&pid)
                .status()
                .expect("kill")
                .success()
        );
        let deadline = Instant::now() + WAIT;
        while self.runs() {
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.wait().expect("a status")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next line that holds `text`.
pub fn line_with(lines: &Receiver<String>, text: &str) -> String {
    let deadline = Instant::now() + WAIT;
    let mut seen = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line.contains(text) => return line,
            Ok(line) => {
                let _ = writeln!(seen, "{line}");
            }
            Err(_) => panic!("no line with {text:?}; there were:\n{seen}"),
        }
    }
}

/// What differs between the labs of the tests.
pub struct Plan {
    /// `[[subscriber]]` tables.
    pub subscribers: String,
    /// Bound of the SAs.
    pub max_sas: u32,
    /// Addresses of the UE's side.
    pub ues: Vec<String>,
    /// Lines of `[edge]`.
    pub edge: &'static str,
    /// The P-CSCF's own address, where phones know it by another one.
    pub own: &'static str,
    /// Lines of `[gm]`.
    pub gm: &'static str,
    /// Lines of `[home]`.
    pub home: &'static str,
}

impl Plan {
    /// One subscriber, `ue1`.
    pub fn one() -> Plan {
        Plan {
            subscribers: format!(
                "[[subscriber]]\nimpi = \"ue1@{DOMAIN}\"\nimpu = [\"sip:ue1@{DOMAIN}\"]\n\
                 k = \"{K}\"\nop = \"{OP}\"\n"
            ),
            max_sas: 64,
            ues: vec![UE.to_owned()],
            edge: "",
            own: PCSCF,
            gm: "",
            home: "",
        }
    }
}

impl Plan {
    /// So many subscribers, ue1 and so on, with one pair of keys; phones have so many
    /// addresses.
    pub fn many(count: usize, addresses: usize) -> Plan {
        Plan {
            subscribers: format!(
                "[[subscriber]]\nimpi = \"ue{{n}}@{DOMAIN}\"\nimpu = \"sip:ue{{n}}@{DOMAIN}\"\n\
                 k = \"{K}\"\nop = \"{OP}\"\ncount = {count}\n"
            ),
            // With room for those that are being registered, and for strangers.
            // All may be under way at once: of one address an eighth of the sets.
            max_sas: (count.max(40) as u32 * 16).next_power_of_two(),
            ues: (10..10 + addresses)
                .map(|n| format!("192.0.2.{n}"))
                .collect(),
            edge: "",
            own: PCSCF,
            gm: "",
            home: "",
        }
    }
}

/// Namespaces, link, gmespd.
pub struct Lab {
    // Processes end before their namespaces.
    _gmespd: Process,
    pub dir: tempfile::TempDir,
    pub ue: NetNs,
    _pcscf: NetNs,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    /// gmespd runs and is well.
    pub fn new(plan: &Plan) -> Lab {
        let (ue, pcscf) = (NetNs::new().expect("root"), NetNs::new().expect("root"));
        let ues: Vec<_> = plan.ues.iter().map(|a| format!("{a}/24")).collect();
        let ues: Vec<_> = ues.iter().map(String::as_str).collect();
        veth(
            End {
                ns: &pcscf,
                name: "p0",
                addresses: &[&format!("{PCSCF}/24")],
            },
            End {
                ns: &ue,
                name: "u0",
                addresses: &ues,
            },
        );
        Lab::on(pcscf, ue, plan)
    }

    /// The same in namespaces that have their interfaces, p0 and u0.
    pub fn on(pcscf: NetNs, ue: NetNs, plan: &Plan) -> Lab {
        let dir = tempfile::tempdir().expect("a directory");
        let (socket, subscribers) = (dir.path().join("c.sock"), dir.path().join("s.toml"));
        write_private(&subscribers, &plan.subscribers);
        let config = dir.path().join("gmespd.toml");
        write_private(
            &config,
            &format!(
                "[gm]\nuplinks = [\"p0\"]\naddresses = [\"{}\"]\nserver_ports = [5066]\n\
                 client_ports = [\"5067-5074\"]\nmax_sas = {}\npin_dir = \"off\"\n{}{}\
                 [control]\nsocket = \"{}\"\n\
                 [edge]\nsip_port = 5060\nport_ps = 5066\nport_pc = \"5067-5074\"\n\
                 home = \"embedded\"\n{}[edge.timers]\nlinger_s = 1\n\
                 [home]\ndomain = \"{DOMAIN}\"\nsubscribers = \"{}\"\n{}\
                 [log]\nlevel = \"warn\"\n",
                plan.own,
                plan.max_sas,
                plan.gm,
                gm_tests::plane::lines(),
                socket.display(),
                plan.edge,
                subscribers.display(),
                plan.home
            ),
        );
        let config = config.display().to_string();
        let args = ["run", "--until-stdin-closes", "--config", &config];
        let (mut gmespd, _) = Process::start(&pcscf, "gmespd", &args);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = Client::new(socket);
        let deadline = Instant::now() + WAIT;
        while runtime.block_on(client.health()).is_err() {
            assert!(gmespd.runs(), "gmespd could not start");
            assert!(Instant::now() < deadline, "gmespd did not start in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        Lab {
            _gmespd: gmespd,
            dir,
            ue,
            _pcscf: pcscf,
            client,
            runtime,
        }
    }

    /// gmespd's health.
    pub fn health(&self) -> Health {
        self.runtime
            .block_on(self.client.health())
            .expect("gmespd answers")
    }

    /// gmespd's SAs.
    pub fn sas(&self) -> Vec<SaStatus> {
        self.runtime
            .block_on(self.client.list())
            .expect("gmespd answers")
    }

    /// One of gmespd's counters.
    pub fn count(&self, reason: &str) -> u64 {
        let stats: Stats = self
            .runtime
            .block_on(self.client.stats())
            .expect("gmespd answers");
        stats.reasons[reason]
    }

    /// Waits until one of gmespd's counters says so much: they are published in turns.
    pub fn counts(&self, reason: &str, least: u64) {
        let deadline = Instant::now() + WAIT;
        while self.count(reason) < least {
            let now = self.count(reason);
            assert!(Instant::now() < deadline, "{reason}: {now}, not {least}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the edge has refused something so often for this reason.
    pub fn refuses(&self, reason: &str, least: u64) {
        let deadline = Instant::now() + WAIT;
        loop {
            let stats: Stats = self
                .runtime
                .block_on(self.client.stats())
                .expect("gmespd answers");
            if stats.refusals.get(reason).is_some_and(|n| *n >= least) {
                return;
            }
            assert!(Instant::now() < deadline, "{reason}: {:?}", stats.refusals);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until gmespd has as many SAs and registrations as that.
    pub fn settles(&self, registrations: usize, sas: usize) {
        let deadline = Instant::now() + WAIT;
        loop {
            let health = self.health();
            if (health.registrations, health.sas) == (registrations, sas) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} registrations, {} SAs instead of {registrations} and {sas}",
                health.registrations,
                health.sas
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs `gm-ue load` with these arguments to its end: exit code and summary.
    pub fn load(&self, args: &[&str]) -> (Option<i32>, serde_json::Value) {
        let config = self.ue_toml("ue{n}", K);
        let mut command = Command::new(program("gm-ue"));
        command
            .args(["load", "--json", "--config", &config])
            .args(args)
            .stdin(Stdio::null());
        let output = self.ue.run(|| command.output()).expect("gm-ue runs");
        let summary = serde_json::from_slice(&output.stdout);
        let words = String::from_utf8_lossy(&output.stderr);
        (
            output.status.code(),
            summary.unwrap_or_else(|e| panic!("no summary: {e}; it said: {words}")),
        )
    }

    /// Writes ue.toml of this user.
    pub fn ue_toml(&self, user: &str, k: &str) -> String {
        let config = self.dir.path().join("ue.toml");
        write_private(
            &config,
            &format!(
                "[ue]\nuplink = \"u0\"\naddress = \"{UE}\"\npcscf = \"{PCSCF}:5060\"\n\
                 domain = \"{DOMAIN}\"\nimpi = \"{user}@{DOMAIN}\"\nimpu = \"sip:{user}@{DOMAIN}\"\n\
                 k = \"{k}\"\nopc = \"{OPC}\"\n"
            ),
        );
        config.display().to_string()
    }

    /// Starts the proxy of ue1 with this K.
    pub fn proxy(&self, k: &str) -> (Process, Receiver<String>) {
        let config = self.ue_toml("ue1", k);
        let args = [
            "proxy",
            "--config",
            &config,
            "--listen",
            "127.0.0.1:5070",
            "--json",
        ];
        let (proxy, lines) = Process::start(&self.ue, "gm-ue", &args);
        line_with(&lines, "\"ready\"");
        (proxy, lines)
    }

    /// A SIPp that runs a scenario of tests/sipp once, as ue1 with this K.
    pub fn sipp(&self, scenario: &str, port: u16, k: &str) -> Sipp {
        let found = Command::new("sipp").arg("-v").output();
        assert!(found.is_ok(), "sipp is missing: apt-get install sip-tester");
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("sipp")
            .join(scenario);
        let subscriber = self.dir.path().join(format!("{port}.csv"));
        let secrets = format!("aka_K=0x{k} aka_OP=0x{OP} aka_AMF=0x8000");
        write_private(
            &subscriber,
            &format!("SEQUENTIAL\nue1;{DOMAIN};[authentication username=ue1@{DOMAIN} {secrets}]\n"),
        );
        let port = port.to_string();
        let messages = self.dir.path().join(format!("{scenario}.{port}.log"));
        let mut command = Command::new("sipp");
        command
            .arg("127.0.0.1:5070")
            .arg("-sf")
            .arg(file)
            .arg("-inf")
            .arg(subscriber)
            .args(["-i", "127.0.0.1", "-p", &port, "-m", "1", "-nostdin"])
            .args(["-key", "contact_port", "5072", "-key", "expires", "600"])
            .args(["-auth_uri", DOMAIN, "-timeout", "30s", "-timeout_error"])
            .args(["-trace_err", "-trace_msg", "-message_file"])
            .arg(&messages)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.ue.run(|| command.spawn()).expect("sipp starts");
        Sipp { child, messages }
    }
}

/// A running SIPp; it ends by its own time-out at the latest.
pub struct Sipp {
    child: Child,
    messages: PathBuf,
}

impl Sipp {
    /// Waits for its end; 0 is a scenario that went as written.
    pub fn ends(self) -> (Option<i32>, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.child.wait_with_output().expect("sipp ends");
        let mut story = String::from_utf8_lossy(&stderr).into_owned();
        story.push_str(&std::fs::read_to_string(&self.messages).unwrap_or_default());
        let screen = String::from_utf8_lossy(&stdout);
        let end = screen.len().saturating_sub(1500);
        story.push_str(screen.get(end..).unwrap_or_default());
        (status.code(), story)
    }

    /// Waits for its end, which must be 0.
    pub fn succeeds(self) {
        let (code, story) = self.ends();
        assert_eq!(code, Some(0), "sipp:\n{story}");
    }
}

/// Writes a file of mode 0600.
pub fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
