//! The laboratory: gmespd and Kamailio in one namespace, phones in the other.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gm_tests::netns::{End, NetNs, veth};
use gmespctl::client::Client;

use crate::common::{DOMAIN, OPC, PCSCF, Plan, Process, UE, program, write_private};

/// Another subscriber's key.
pub const OTHER_K: &str = "0396eb317b6d1c36f19c1c84cd6ffd16";
/// Longer than a loaded machine takes, shorter than patience.
const WAIT: Duration = Duration::from_secs(20);
/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(700);
/// The side towards the core, which Kamailio takes last.
const CORE_PORT: u16 = 5062;

/// The examples, which are what is tested.
fn example(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../userspace/daemon/examples").join(name)
}

/// A value of the block of kamailio.cfg that names what to change.
fn value(config: &str, name: &str) -> String {
    let start = format!("#!substdef \"!{name}!");
    let line = config.lines().find_map(|line| line.strip_prefix(&start));
    let line = line.unwrap_or_else(|| panic!("kamailio.cfg sets no {name}"));
    line.split('!').next().unwrap_or_default().to_owned()
}

/// gmespd.toml names an address, port_ps and port_pc: both proxies have a socket on each.
pub fn assert_the_examples_agree() {
    let read = |name: &str| std::fs::read_to_string(example(name)).expect("an example");
    let (kamailio, opensips) = (read("kamailio.cfg"), read("opensips.cfg"));
    let config: toml::Table = read("gmespd.toml").parse().expect("TOML");
    let (gm, edge) = (&config["gm"], &config["edge"]);
    let address = gm["addresses"][0].as_str().expect("an address");
    let ps = edge["port_ps"].as_integer().expect("a port");
    let pc = edge["port_pc"].as_str().expect("a range");
    let (first, last) = pc.split_once('-').expect("a range");
    let (first, last): (i64, i64) = (first.parse().unwrap(), last.parse().unwrap());
    assert_eq!(value(&kamailio, "GM_IP"), address);
    assert_eq!(value(&kamailio, "PORT_PS"), ps.to_string());
    let door = format!("http://{}", config["control"]["http"].as_str().unwrap());
    assert_eq!(value(&kamailio, "DOOR"), door);
    assert!(opensips.contains(&door));
    assert!(kamailio.contains("listen=udp:GM_IP:PORT_PS"));
    for port in first..=last {
        assert!(kamailio.contains(&format!("listen=udp:GM_IP:{port}\n")));
        assert!(kamailio.contains(&format!("listen=tcp:GM_IP:{port}\n")));
    }
    for port in (first..=last).chain([ps]) {
        assert!(opensips.contains(&format!("socket=udp:{address}:{port}")));
    }
}

/// Where kamailio.cfg sends everything.
fn next_hop() -> String {
    let config = std::fs::read_to_string(example("kamailio.cfg")).expect("the example");
    value(&config, "NEXT_HOP")
}

/// A Kamailio in the foreground. It ends with the test, and its workers with it.
struct Kamailio {
    child: Child,
    log: PathBuf,
}

impl Kamailio {
    fn start(ns: &NetNs, dir: &Path) -> Kamailio {
        let version = Command::new("kamailio").arg("-v").output();
        assert!(
            version.is_ok_and(|v| v.status.success()),
            "kamailio is missing: apt-get install kamailio kamailio-utils-modules \
             kamailio-extra-modules"
        );
        let log = dir.join("kamailio.log");
        let run = dir.join("kamailio");
        std::fs::create_dir(&run).expect("a directory");
        let mut command = Command::new("kamailio");
        command
            .args(["-DD", "-E", "-f"])
            .arg(example("kamailio.cfg"))
            .arg("-Y")
            .arg(&run)
            .arg("-w")
            .arg(&run)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            // Of a group of its own, so that its workers can be ended with it.
            .process_group(0);
        let child = ns.run(|| command.spawn()).expect("kamailio starts");
        let mut kamailio = Kamailio { child, log };
        let deadline = Instant::now() + WAIT;
        while !ns.run(|| is_bound(CORE_PORT)) {
            let ended = kamailio.child.try_wait().expect("a status");
            let log = kamailio.log();
            assert!(ended.is_none(), "kamailio could not start:\n{log}");
            assert!(Instant::now() < deadline, "kamailio does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        kamailio
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let kill = |signal: &str| {
            let mut command = Command::new("kill");
            let _ = command
                .args([signal, "--", &group])
                .stderr(Stdio::null())
                .status();
        };
        kill("-TERM");
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        kill("-KILL");
        let _ = self.child.wait();
    }
}

/// Whether somebody has this UDP port, in the calling thread's namespace.
fn is_bound(port: u16) -> bool {
    let all = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    let port = format!(":{port:04X}");
    all.lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .any(|local| local.ends_with(&port))
}

/// What a phone has told at its end.
pub struct Told {
    pub code: Option<i32>,
    pub json: serde_json::Value,
    /// Its messages, as --trace full shows them.
    pub trace: String,
}

impl Told {
    /// Registrations that the network has granted.
    pub fn registrations(&self) -> usize {
        self.json["registrations"].as_array().map_or(0, Vec::len)
    }

    /// Why it ended early.
    pub fn failure(&self) -> &str {
        self.json["failure"]["reason"].as_str().unwrap_or_default()
    }
}

/// Who is the core.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// The embedded home network.
    Home,
    /// The same, and every REGISTER is challenged.
    Challenging,
    /// The test, with [`Lab::core`].
    Test,
}

/// Namespaces, link, gmespd, Kamailio.
pub struct Lab {
    // Processes end before their namespaces, Kamailio before gmespd.
    kamailio: Kamailio,
    gmespd: Option<Process>,
    dir: tempfile::TempDir,
    ue: NetNs,
    pcscf: NetNs,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    /// gmespd is well and Kamailio listens.
    pub fn new(core: Core) -> Lab {
        let (ue, pcscf) = (NetNs::new().expect("root"), NetNs::new().expect("root"));
        veth(
            End {
                ns: &pcscf,
                name: "eth1",
                addresses: &[&format!("{PCSCF}/24")],
            },
            End {
                ns: &ue,
                name: "u0",
                addresses: &[&format!("{UE}/24")],
            },
        );
        let dir = tempfile::tempdir().expect("a directory");
        let (config, socket) = configure(dir.path(), core);
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
            kamailio: Kamailio::start(&pcscf, dir.path()),
            gmespd: Some(gmespd),
            dir,
            ue,
            pcscf,
            client,
            runtime,
        }
    }

    /// One of gmespd's counters.
    pub fn count(&self, reason: &str) -> u64 {
        let stats = self.runtime.block_on(self.client.stats());
        stats.expect("gmespd answers").reasons[reason]
    }

    /// Waits until gmespd has so many SAs.
    pub fn settles(&self, sas: usize) {
        let deadline = Instant::now() + WAIT;
        loop {
            let health = self.runtime.block_on(self.client.health());
            let health = health.expect("gmespd answers");
            if health.sas == sas {
                return;
            }
            assert!(Instant::now() < deadline, "{} SAs, not {sas}", health.sas);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `gm-ue register` as ue1 with this K and these options, to its end.
    pub fn phone(&self, k: &str, args: &[&str]) -> Told {
        let config = self.dir.path().join("ue.toml");
        write_private(
            &config,
            &format!(
                "[ue]\nuplink = \"u0\"\naddress = \"{UE}\"\npcscf = \"{PCSCF}:5060\"\n\
                 domain = \"{DOMAIN}\"\nimpi = \"ue1@{DOMAIN}\"\nimpu = \"sip:ue1@{DOMAIN}\"\n\
                 k = \"{k}\"\nopc = \"{OPC}\"\n"
            ),
        );
        let mut command = Command::new(program("gm-ue"));
        command
            .args(["register", "--json", "--trace", "full", "--config"])
            .arg(&config)
            .args(args)
            .stdin(Stdio::null());
        let output = self.ue.run(|| command.output()).expect("gm-ue runs");
        let told = Told {
            code: output.status.code(),
            json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            trace: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        // Shown when the test fails.
        println!("{args:?}: {:?} {:#}", told.code, told.json);
        println!("{}\nkamailio:\n{}", told.trace, self.kamailio.log());
        told
    }

    /// gmespd is gone.
    pub fn end_gmespd(&mut self) {
        self.gmespd.take().expect("gmespd runs").end();
    }

    /// The socket of a core that the test plays.
    pub fn core(&self) -> Socket {
        Socket::new(&self.pcscf, &next_hop())
    }

    /// The socket of a phone that speaks in clear.
    pub fn clear(&self) -> Socket {
        Socket::new(&self.ue, &format!("{UE}:0"))
    }

    /// IK and CK are in no line of Kamailio's.
    pub fn assert_no_keys(&self) {
        let log = self.kamailio.log().to_lowercase();
        for word in ["ik=", "ck=", "\"sip\""] {
            assert!(!log.contains(word), "{word}: {log}");
        }
    }
}

/// SIP over UDP, by hand.
pub struct Socket(UdpSocket);

impl Socket {
    fn new(ns: &NetNs, at: &str) -> Socket {
        Socket(ns.run(|| UdpSocket::bind(at)).expect("a socket"))
    }

    /// A request of ue1 to Kamailio, with these header lines besides the usual.
    pub fn request(&self, method: &str, port: u16, lines: &str) {
        let own = self.0.local_addr().expect("an address");
        let text = format!(
            "{method} sip:ue1@{DOMAIN} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {own};branch=z9hG4bK{method}{port}{}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:ue1@{DOMAIN}>;tag=1\r\nTo: <sip:ue1@{DOMAIN}>\r\n\
             Call-ID: {method}{port}\r\nCSeq: 1 {method}\r\nContact: <sip:{own}>\r\n{lines}\
             Content-Length: 0\r\n\r\n",
            lines.len()
        );
        let to = format!("{PCSCF}:{port}");
        self.0.send_to(text.as_bytes(), to).expect("sent");
    }

    /// The answer to a request, with these header lines.
    pub fn answer(&self, request: &str, to: SocketAddr, status: &str, lines: &str) {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for line in request.lines() {
            let copied = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
            if copied.iter().any(|name| line.starts_with(name)) {
                text.push_str(line);
                text.push_str("\r\n");
            }
        }
        text.push_str(lines);
        text.push_str("Content-Length: 0\r\n\r\n");
        self.0.send_to(text.as_bytes(), to).expect("sent");
    }

    /// The next message.
    pub fn hears(&self) -> (String, SocketAddr) {
        let heard = self.within(WAIT).expect("a message");
        println!("{}", heard.0);
        heard
    }

    /// Nothing comes.
    pub fn hears_nothing(&self) {
        let heard = self.within(SILENCE);
        assert!(heard.is_none(), "{heard:?}");
    }

    fn within(&self, time: Duration) -> Option<(String, SocketAddr)> {
        self.0.set_read_timeout(Some(time)).expect("a limit");
        let mut buffer = [0; 65_535];
        let (n, from) = self.0.recv_from(&mut buffer).ok()?;
        Some((String::from_utf8_lossy(&buffer[..n]).into_owned(), from))
    }
}

/// The example's gmespd.toml with this test's paths, and the embedded home network as
/// the core. The token is the one that kamailio.cfg names.
fn configure(dir: &Path, core: Core) -> (String, PathBuf) {
    let kamailio = std::fs::read_to_string(example("kamailio.cfg")).expect("the example");
    let token = dir.join("token");
    write_private(&token, &value(&kamailio, "TOKEN"));
    let subscribers = dir.join("s.toml");
    write_private(&subscribers, &Plan::one().subscribers);
    let socket = dir.join("c.sock");

    let text = std::fs::read_to_string(example("gmespd.toml")).expect("the example");
    let mut config: toml::Table = text.parse().expect("TOML");
    let mut set = |table: &str, key: &str, value: toml::Value| {
        let entry = config.entry(table).or_insert(toml::Table::new().into());
        let table = entry.as_table_mut().expect("a table");
        table.insert(key.into(), value);
    };
    set("gm", "pin_dir", "off".into());
    if gm_tests::plane::is_kernel() {
        set("gm", "data_plane", "kernel".into());
    }
    set("control", "socket", socket.display().to_string().into());
    set("control", "token_file", token.display().to_string().into());
    if core != Core::Test {
        let challenging = core == Core::Challenging;
        let subscribers = subscribers.display().to_string();
        set("home", "domain", DOMAIN.into());
        set("home", "subscribers", subscribers.into());
        set("home", "listen", next_hop().into());
        set("home", "always_challenge", challenging.into());
    }
    set("log", "level", "warn".into());
    let file = dir.join("gmespd.toml");
    write_private(&file, &config.to_string());
    (file.display().to_string(), socket)
}
