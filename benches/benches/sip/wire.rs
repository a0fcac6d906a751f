//! End to end with real sockets: gmespd with XDP and AF_XDP on CPU 0, the home network and
//! `gm-ue load` on CPU 1, in two network namespaces with a veth between them.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::home::{DOMAIN, K, OPC};

const PCSCF: &str = "10.77.0.1";
const HOME: &str = "127.0.0.1:5090";
/// Addresses of the phones' host; gmespd takes 64 unfinished registrations of each.
const ADDRESSES: u32 = 16;

/// What one run gives.
pub struct Rate {
    /// Registrations in a second.
    pub per_second: f64,
    /// Processor time for each, in microseconds: of all of gmespd.
    pub gmespd: f64,
    /// Of its thread gm-edge.
    pub edge: f64,
    /// Of gm-ue.
    pub phones: f64,
    /// Of the home network.
    pub home: f64,
    /// Phones that did not register.
    pub failed: u64,
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM lets gmespd take its devices down.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two namespaces and what is between them; removed at the end.
pub struct Net {
    gm: String,
    ue: String,
    dir: PathBuf,
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.gm, &self.ue] {
            let _ = ip(&["netns", "del", name]);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let out = Command::new("ip").args(args).output();
    let out = out.map_err(|error| format!("ip: {error}"))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&out.stderr)
        )),
    }
}

impl Net {
    /// # Errors
    /// Without root, or without iproute2.
    pub fn new() -> Result<Net, String> {
        let id = std::process::id();
        let dir = std::env::temp_dir().join(format!("gm-bench-sip-{id}"));
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let net = Net {
            gm: format!("gmbs{id}g"),
            ue: format!("gmbs{id}u"),
            dir,
        };
        for name in [&net.gm, &net.ue] {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        let peer = ["peer", "name", "ue0", "netns", &net.ue];
        let veth = ["-n", &net.gm, "link", "add", "pc0", "type", "veth"];
        ip(&[&veth[..], &peer[..]].concat())?;
        ip(&[
            "-n",
            &net.gm,
            "addr",
            "add",
            &format!("{PCSCF}/16"),
            "dev",
            "pc0",
        ])?;
        for n in 1..=ADDRESSES {
            let address = format!("10.77.1.{n}/16");
            ip(&["-n", &net.ue, "addr", "add", &address, "dev", "ue0"])?;
        }
        ip(&["-n", &net.gm, "link", "set", "pc0", "up"])?;
        ip(&["-n", &net.ue, "link", "set", "ue0", "up"])?;
        Ok(net)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        use std::io::Write as _;
        let path = self.dir.join(name);
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        path
    }

    /// A program in a namespace, on one CPU.
    fn command(&self, netns: &str, cpu: u32, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns, "taskset", "-c", &cpu.to_string()]);
        command
            .arg(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// `count` phones register as fast as `concurrent` of them can.
    ///
    /// # Errors
    /// What did not start.
    pub fn run(&self, count: u32, concurrent: u32) -> Result<Rate, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        // target/release/deps/sip-...: the programs are in target/release.
        let built = own
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("."));
        let (gmespd, gm_ue) = (built.join("gmespd"), built.join("gm-ue"));
        for program in [&gmespd, &gm_ue] {
            if !program.exists() {
                let path = program.display();
                return Err(format!(
                    "{path} is not there: cargo build --release -p gmespd -p gm-ue"
                ));
            }
        }
        let socket = self.dir.join("control.sock");
        let _ = fs::remove_file(&socket);
        // Each set takes four SAs; strangers get half of them.
        let max_sas = (count * 16).next_power_of_two().clamp(1024, 1 << 20);
        let config = format!(
            "[gm]\nuplinks = [\"pc0\"]\naddresses = [\"{PCSCF}\"]\nserver_ports = [5066]\n\
             client_ports = [\"5067-5074\"]\nmax_sas = {max_sas}\npin_dir = \"off\"\ncpus = [0]\n\n\
             [control]\nsocket = \"{}\"\n\n\
             [edge]\nsip_port = 5060\nport_ps = 5066\nport_pc = \"5067-5074\"\nnext_hop = \"{HOME}\"\n",
            socket.display()
        );
        let config = self.file("gmespd.toml", &config);
        let hex = |key: [u8; 16]| key.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let ue = format!(
            "[ue]\nuplink = \"ue0\"\naddress = \"10.77.1.1\"\npcscf = \"{PCSCF}:5060\"\n\
             domain = \"{DOMAIN}\"\nimpi = \"ue{{n}}@{DOMAIN}\"\nimpu = \"sip:ue{{n}}@{DOMAIN}\"\n\
             k = \"{}\"\nopc = \"{}\"\n",
            hex(K),
            hex(OPC)
        );
        let ue = self.file("ue.toml", &ue);
        let start = |command: &mut Command| {
            let child = command.spawn().map(Running);
            child.map_err(|error| error.to_string())
        };
        let mut home = self.command(&self.gm, 1, &own);
        let home = start(home.args(["--home", HOME, &count.to_string()]))?;
        let mut daemon = self.command(&self.gm, 0, &gmespd);
        daemon.args(["run", "--config"]).arg(&config);
        daemon.stderr(fs::File::create(self.dir.join("gmespd.log")).map_err(|e| e.to_string())?);
        let mut daemon = start(&mut daemon)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if Instant::now() > deadline || !matches!(daemon.0.try_wait(), Ok(None)) {
                let log = fs::read_to_string(self.dir.join("gmespd.log")).unwrap_or_default();
                return Err(format!("gmespd does not start: {log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let before = [
            spent(daemon.0.id(), None),
            spent(daemon.0.id(), Some("gm-edge")),
        ];
        let home_before = spent(home.0.id(), None);
        let mut load = self.command(&self.ue, 1, &gm_ue);
        load.args([
            "load",
            "--json",
            "--rate",
            "0",
            "--count",
            &count.to_string(),
        ]);
        load.args(["--concurrent", &concurrent.to_string(), "--config"])
            .arg(&ue);
        for n in 1..=ADDRESSES {
            load.args(["--address", &format!("10.77.1.{n}")]);
        }
        let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let load = load.map_err(|error| error.to_string())?;
        let children = children_time();
        let out = load.wait_with_output().map_err(|error| error.to_string())?;
        let phones = children_time() - children;
        let summary: serde_json::Value = serde_json::from_slice(&out.stdout)
            .map_err(|_| format!("gm-ue: {}", String::from_utf8_lossy(&out.stderr)))?;
        let after = [
            spent(daemon.0.id(), None),
            spent(daemon.0.id(), Some("gm-edge")),
        ];
        let home_after = spent(home.0.id(), None);
        let registered = summary["registered"].as_f64().unwrap_or(0.0).max(1.0);
        let us = |seconds: f64| seconds * 1e6 / registered;
        Ok(Rate {
            per_second: summary["per_second"].as_f64().unwrap_or(0.0),
            gmespd: us(after[0] - before[0]),
            edge: us(after[1] - before[1]),
            phones: us(phones),
            home: us(home_after - home_before),
            failed: summary["failed"].as_u64().unwrap_or(0) + u64::from(count) - registered as u64,
        })
    }
}

/// Seconds that the threads of a process have run, of all or of one name.
fn spent(pid: u32, name: Option<&str>) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let of = |task: fs::DirEntry| {
        let comm = fs::read_to_string(task.path().join("comm")).ok()?;
        if name.is_some_and(|name| comm.trim() != name) {
            return None;
        }
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    };
    tasks.flatten().filter_map(of).sum::<f64>() / 1e9
}

/// Seconds that children which have ended have run.
fn children_time() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    // cutime and cstime, in hundredths.
    let ticks = [13, 14].map(|at| {
        fields
            .get(at)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    });
    (ticks[0] + ticks[1]) / 100.0
}
