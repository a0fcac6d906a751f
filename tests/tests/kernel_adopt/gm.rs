//! gmespd beside another P-CSCF, and `gm-xfrm adopt` and `give-back`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use gm_api::control::SaStatus;
use gm_api::transfer::TransferReply;
use gm_dataplane::Reason;
use gm_tests::netns::NetNs;
use gmespctl::client::Client;

use crate::common::{Process, program, write_private};

/// Protected ports of the P-CSCF.
pub const PORT_PS: u16 = 5063;
pub const PORT_PC: u16 = 5064;

/// Longer than a loaded emulated machine takes.
pub const WAIT: Duration = Duration::from_secs(60);

/// A running gmespd that tolerates SAs of the kernel.
pub struct Gmespd {
    // It ends before its files go.
    process: Process,
    client: Client,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Gmespd {
    pub fn start(ns: &NetNs, uplink: &str, addresses: &[IpAddr], pins: Option<&Path>) -> Gmespd {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("gmespd.toml");
        let addresses: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        let text = format!(
            "[gm]\nuplinks = [\"{uplink}\"]\naddresses = [{}]\nserver_ports = [{PORT_PS}]\n\
             client_ports = [{PORT_PC}]\nmax_sas = 128\nkernel_sas = true\npin_dir = \"{}\"\n\
             [control]\nsocket = \"{}\"\n[log]\nlevel = \"warn\"\n",
            addresses.join(", "),
            pins.map_or("off".into(), |dir| dir.display().to_string()),
            dir.path().join("c.sock").display()
        );
        write_private(&config, &text);
        let config = config.display().to_string();
        let args = ["run", "--until-stdin-closes", "--config", &config];
        let (mut process, _) = Process::start(ns, "gmespd", &args);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = Client::new(dir.path().join("c.sock"));
        let deadline = Instant::now() + WAIT;
        while runtime.block_on(client.health()).is_err() {
            assert!(process.runs(), "gmespd could not start");
            assert!(Instant::now() < deadline, "gmespd did not start in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        Gmespd {
            process,
            client,
            runtime,
            dir,
        }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(program("gm-xfrm"));
        command
            .args(words.split_whitespace())
            .args(["--json", "--socket"])
            .arg(self.socket());
        command
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    /// `gm-xfrm` with these words, which does it.
    #[track_caller]
    pub fn xfrm(&self, words: &str) -> TransferReply {
        let out: Output = self.command(words).output().expect("gm-xfrm runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "gm-xfrm {words}: {said}");
        serde_json::from_slice(&out.stdout).expect("JSON")
    }

    /// The same, which does not wait for it.
    pub fn begin(&self, words: &str) -> Child {
        let mut command = self.command(words);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("gm-xfrm runs")
    }

    /// Its end, asked for: how it has gone.
    pub fn end(self) -> ExitStatus {
        self.process.ended()
    }

    /// SIGKILL.
    pub fn kill(self) {
        drop(self.process);
    }

    pub fn list(&self) -> Vec<SaStatus> {
        self.runtime.block_on(self.client.list()).expect("gmespd")
    }

    /// All reasons that have come about.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let stats = self.runtime.block_on(self.client.stats()).expect("gmespd");
        let reasons = stats.reasons.into_iter().filter(|(_, n)| *n > 0);
        reasons.map(|(name, n)| (name.to_string(), n)).collect()
    }

    pub fn count(&self, reason: Reason) -> u64 {
        let stats = self.runtime.block_on(self.client.stats());
        stats.expect("gmespd").reasons[reason.name()]
    }
}
