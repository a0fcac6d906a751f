//! gmespd as a process: exit codes, messages, and, as root in a network
//! namespace of its own, start, readiness, rights and a clean end.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use gmespctl::client::Client;

fn gmespd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gmespd"))
        .args(args)
        .output()
        .unwrap()
}

/// Whether GM_TEST_DATA_PLANE asks for the kernel's ESP as the data plane.
fn is_kernel() -> bool {
    std::env::var("GM_TEST_DATA_PLANE").is_ok_and(|plane| plane == "kernel")
}

fn configuration(dir: &Path) -> PathBuf {
    configuration_with(dir, "off")
}

fn configuration_with(dir: &Path, pin_dir: &str) -> PathBuf {
    let plane = if is_kernel() {
        "data_plane = \"kernel\"\n"
    } else {
        ""
    };
    let text = format!(
        "[gm]\nuplinks = [\"gmt0\"]\naddresses = [\"192.0.2.1\"]\nserver_ports = [5066]\n\
         client_ports = [\"5067-5074\"]\nmax_sas = 64\npin_dir = \"{pin_dir}\"\n\
         {plane}[control]\nsocket = \"{}\"\n",
        dir.join("c.sock").display()
    );
    let file = dir.join("gmespd.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_configuration_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = configuration(dir.path()).display().to_string();
    let output = gmespd(&["check", "--config", &file]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("gmespd.toml: good\n"), "{said}");
    assert!(said.contains("engine: "), "{said}");

    std::fs::write(&file, "[gm]\nuplinks = 3\n").unwrap();
    for command in ["check", "run"] {
        let output = gmespd(&[command, "--config", &file]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.contains("gmespd.toml: line 2: [gm] uplinks: invalid type"),
            "{error}"
        );
    }
}

#[test]
fn wrong_use_exits_2() {
    for args in [
        &[][..],
        &["run"],
        &["nonsense"],
        &["check", "--config", "/nowhere"],
    ] {
        assert_eq!(gmespd(args).status.code(), Some(2), "{args:?}");
    }
    let output = gmespd(&["version"]);
    assert!(output.stdout.starts_with(b"gmespd 0."));
}

#[test]
fn a_wrong_log_level_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = configuration(dir.path());
    let output = Command::new(env!("CARGO_BIN_EXE_gmespd"))
        .args(["run", "--config"])
        .arg(&file)
        .env("GMESP_LOG", "loud")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("GMESP_LOG: \"loud\" is no level")
    );
}

/// gmespd in a new network namespace, which ends with it.
struct Running {
    child: Child,
    dir: tempfile::TempDir,
    notified: UnixDatagram,
}

const LINKS: &str = "ip link add gmt0 type veth peer name gmt1 && ip link set lo up \
     && ip addr add 192.0.2.1/24 dev gmt0 && ip link set gmt0 up && ip link set gmt1 up";

impl Running {
    fn start() -> Running {
        let dir = tempfile::tempdir().unwrap();
        let file = configuration(dir.path());
        let notify = dir.path().join("notify");
        let notified = UnixDatagram::bind(&notify).unwrap();
        notified
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut child = Command::new("unshare")
            .args(["--net", "--", "sh", "-c"])
            .arg(format!(
                "{LINKS} && exec \"$0\" run --until-stdin-closes --config \"$1\""
            ))
            .arg(env!("CARGO_BIN_EXE_gmespd"))
            .arg(&file)
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let carrier = if is_kernel() {
            "data plane kernel"
        } else {
            "uplink gmt0"
        };
        assert!(
            line.starts_with(&format!("gmespd is ready: {carrier}, addresses 192.0.2.1")),
            "{line:?}"
        );
        Running {
            child,
            dir,
            notified,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    fn told(&self) -> String {
        let mut buffer = [0; 64];
        let n = self.notified.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("gmespd does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "root: network namespace, BPF programs"]
fn starts_gives_up_rights_answers_and_ends_cleanly() {
    let mut daemon = Running::start();
    assert_eq!(daemon.told(), "READY=1");

    let status = format!("/proc/{}/status", daemon.child.id());
    let status = std::fs::read_to_string(status).unwrap();
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapPrm:\t"))
        .unwrap();
    let held = u64::from_str_radix(held, 16).unwrap();
    // SYS_ADMIN (21), SYS_PTRACE (19), DAC_OVERRIDE (1), SETUID (7) are gone.
    assert_eq!(held & (1 << 21 | 1 << 19 | 1 << 1 | 1 << 7), 0, "{held:#x}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new(daemon.socket());
    let health = runtime.block_on(client.health()).unwrap();
    assert_eq!(
        (health.status.as_str(), health.pid),
        ("ok", daemon.child.id())
    );
    let stats = runtime.block_on(client.stats()).unwrap();
    let workers = if is_kernel() { 0 } else { 1 };
    assert!(stats.reasons.contains_key("bad-icv") && stats.workers.len() == workers);

    // A second one with the same configuration is refused and harms nothing.
    let second = gmespd(&[
        "run",
        "--config",
        &daemon.dir.path().join("gmespd.toml").display().to_string(),
    ]);
    assert_eq!(second.status.code(), Some(1));
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(
        error.contains(&format!("another gmespd (pid {})", daemon.child.id())),
        "{error}"
    );
    assert!(runtime.block_on(client.health()).is_ok());

    drop(daemon.child.stdin.take());
    assert_eq!(daemon.end(), Some(0));
    assert_eq!(daemon.told(), "STOPPING=1");
    assert!(!daemon.socket().exists());
}

#[test]
#[ignore = "root: network namespace, BPF programs"]
fn sigterm_ends_it_although_a_client_streams() {
    let mut daemon = Running::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new(daemon.socket());
    let mut events = runtime.block_on(client.events()).unwrap();
    let pid = rustix::process::Pid::from_raw(daemon.child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(daemon.end(), Some(0));
    assert_eq!(runtime.block_on(events.next()).unwrap(), None);
    assert!(!daemon.socket().exists());
}

#[test]
#[ignore = "root: network namespace, BPF programs"]
fn after_a_kill_the_next_one_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let pins = dir.path().join("pins");
    let file = configuration_with(dir.path(), &pins.display().to_string());
    // Mounts of its own, too: what is pinned goes with the namespace. What stays
    // is a pin or, before Linux 6.6, a filter; of the kernel as data plane the policies
    // and the guard.
    let (stay, gone) = if is_kernel() {
        (
            "nft list table inet gmesp; ip xfrm policy",
            "nft list table inet gmesp && exit 4; ip xfrm policy | grep . && exit 3; exit 0",
        )
    } else {
        (
            "ls pins; filters gmt0; filters gm0",
            "ip link show gm0 && exit 5; filters gmt0 | grep gm_tc_ && exit 4; exit 0",
        )
    };
    let script = format!(
        "{LINKS} && config=$1 || exit 9
         start() {{
             rm -f ready; \"$0\" run --config \"$config\" > ready & daemon=$!
             for _ in $(seq 300); do grep -qs ready ready && return; sleep 0.1; done
             exit 8
         }}
         filters() {{ tc filter show dev $1 ingress; tc filter show dev $1 egress; }}
         start; kill -KILL $daemon; wait $daemon
         {{ {stay}; }} | grep -c -e link_ -e gm_tc_ -e 'ipsec missing' -e 'action block' > stays
         start; kill -TERM $daemon; wait $daemon || exit 7
         test ! -e pins || exit 6
         {gone}"
    );
    let output = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--",
            "sh",
            "-c",
            &script,
            env!("CARGO_BIN_EXE_gmespd"),
        ])
        .arg(&file)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    let stays = std::fs::read_to_string(dir.path().join("stays")).unwrap();
    // XDP at both devices, the guard, what injects, what takes from the uplink; or a rule
    // each way and a policy of each protocol each way.
    assert!(stays.trim().parse::<u32>().unwrap() >= 5, "{stays}");
}
