//! gmespd on Kamailio's host, which keeps its sockets and its SIP; and gm-xfrm.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use gm_api::control::SaStatus;
use gmespctl::client::Client;
use serde_json::Value;

use crate::common::{PCSCF, Process, program, write_private};
use crate::lab::Lab;

/// Longer than an emulated machine takes.
const WAIT: Duration = Duration::from_secs(60);

/// It ends with the test.
pub struct Gm {
    process: Process,
    socket: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Gm {
    /// It leaves the SAs in the kernel alone. Kamailio's ports are those it protects.
    pub fn start(lab: &Lab) -> Gm {
        let (config, socket) = (lab.dir.path().join("gmespd.toml"), lab.dir.path().join("s"));
        let socket = socket.display().to_string();
        write_private(
            &config,
            &format!(
                "[gm]\nuplinks = [\"p0\"]\naddresses = [\"{PCSCF}\"]\nkernel_sas = true\n\
                 server_ports = [\"6100-6103\"]\nclient_ports = [\"5100-5103\"]\n\
                 max_sas = 64\npin_dir = \"off\"\n[control]\nsocket = \"{socket}\"\n\
                 [log]\nlevel = \"warn\"\n"
            ),
        );
        let config = config.display().to_string();
        let args = ["run", "--until-stdin-closes", "--config", &config];
        let (mut process, _) = Process::start(&lab.pcscf, "gmespd", &args);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = Client::new(&socket);
        let deadline = Instant::now() + WAIT;
        while runtime.block_on(client.health()).is_err() {
            assert!(process.runs(), "gmespd could not start");
            assert!(Instant::now() < deadline, "gmespd did not start in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        Gm {
            process,
            socket,
            client,
            runtime,
        }
    }

    /// `gm-xfrm adopt` or `give-back`, to its end: what it tells as JSON.
    pub fn xfrm(&self, words: &[&str]) -> Value {
        let mut command = Command::new(program("gm-xfrm"));
        command
            .args(words)
            .args(["--json", "--socket", &self.socket]);
        let output = command.output().expect("gm-xfrm runs");
        let told = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        println!("gm-xfrm {words:?}: {told}{error}");
        assert!(output.status.success(), "gm-xfrm {words:?}: {error}");
        serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"))
    }

    /// Its SAs.
    pub fn sas(&self) -> Vec<SaStatus> {
        let sas = self.runtime.block_on(self.client.list());
        sas.expect("gmespd answers")
    }

    /// The SA with this SPI.
    pub fn sa(&self, spi: u32) -> SaStatus {
        let mut all = self.sas().into_iter();
        all.find(|sa| sa.sa.spi == spi)
            .unwrap_or_else(|| panic!("gmespd has no SA with SPI {spi}"))
    }

    /// `gmespctl sa del` of every set.
    pub fn remove_all(&self) {
        let sets: BTreeSet<u64> = self.sas().iter().filter_map(|sa| sa.sa.set).collect();
        for set in sets {
            let gone = self.runtime.block_on(self.client.remove_set(set));
            assert_eq!(gone.expect("gmespd removes it").sas, 4);
        }
    }

    /// One of its counters.
    pub fn count(&self, reason: &str) -> u64 {
        let stats = self.runtime.block_on(self.client.stats());
        stats.expect("gmespd answers").reasons[reason]
    }

    /// It has dropped nothing that an SA was for, and nothing for want of one.
    pub fn assert_nothing_dropped(&self) {
        for reason in DROPS {
            assert_eq!(self.count(reason), 0, "{reason}");
        }
    }

    /// An orderly end.
    pub fn end(self) {
        self.process.end();
    }
}

/// What a packet that is lost in a move would count as.
const DROPS: &[&str] = &[
    "unknown-spi",
    "bad-icv",
    "replay",
    "stale",
    "selector-mismatch",
    "cleartext-protected",
    "out-no-sa",
    "out-seq-exhausted",
    "no-frame",
    "ring-full",
    "no-worker",
    "handover-full",
];
