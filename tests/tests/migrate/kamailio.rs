//! A Kamailio in the foreground, with the configuration beside this file.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gm_tests::netns::NetNs;

/// An emulated machine starts its twenty processes in some seconds.
const WAIT: Duration = Duration::from_secs(60);
/// The side towards the core: opened after the protected ports.
const CORE_PORT: u16 = 5062;

/// It ends with the test, and its workers with it.
pub struct Kamailio {
    child: Child,
    log: PathBuf,
}

impl Kamailio {
    /// Starts it in a namespace and waits until it listens.
    pub fn start(ns: &NetNs, dir: &Path) -> Kamailio {
        let version = Command::new("kamailio").arg("-v").output();
        assert!(
            version.is_ok_and(|v| v.status.success()),
            "kamailio is missing: apt-get install kamailio kamailio-ims-modules"
        );
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migrate/kamailio.cfg");
        let (log, run) = (dir.join("kamailio.log"), dir.join("kamailio"));
        std::fs::create_dir_all(&run).expect("a directory");
        let mut command = Command::new("kamailio");
        command
            .args(["-DD", "-E", "-m", "32", "-M", "4", "-f"])
            .arg(here)
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

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An orderly stop.
    pub fn end(mut self) {
        self.signal("-TERM");
        self.wait();
    }

    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.child.id());
        let mut command = Command::new("kill");
        let _ = command
            .args([signal, "--", &group])
            .stderr(Stdio::null())
            .status();
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        self.signal("-TERM");
        self.wait();
        self.signal("-KILL");
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
