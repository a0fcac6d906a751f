//! gmespd as a process, spoken to over its control socket.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use gm_api::control::{SaStatus, Stats};
use gm_dataplane::Reason;
use gm_tests::netns::NetNs;
use gmespctl::client::Client;

use crate::common::{Process, program, write_private};
use crate::set::{End, Set};

/// Protected ports of the P-CSCF.
pub const PORT_PS: u16 = 5063;
pub const PORT_PC: u16 = 5064;

/// Longer than a loaded emulated machine takes.
pub const WAIT: Duration = Duration::from_secs(30);

/// A running gmespd.
pub struct Gmespd {
    // It ends before its files go.
    _process: Process,
    client: Client,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
    end: End,
}

impl Gmespd {
    /// At one end of the link, with any number of phones' ports where it is the phone.
    pub fn start(ns: &NetNs, end: End, uplink: &str, addresses: &[IpAddr]) -> Gmespd {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("c.sock");
        let config = dir.path().join("gmespd.toml");
        let addresses: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        let (server, client) = match end {
            End::PCscf => (format!("[{PORT_PS}]"), format!("[{PORT_PC}]")),
            End::Ue => ("[\"6200-6299\"]".to_owned(), "[\"6100-6199\"]".to_owned()),
        };
        let text = format!(
            "[gm]\nuplinks = [\"{uplink}\"]\naddresses = [{}]\nserver_ports = {server}\n\
             client_ports = {client}\nmax_sas = 128\nreplay_window = 4096\npin_dir = \"off\"\n{}\
             [control]\nsocket = \"{}\"\n[log]\nlevel = \"warn\"\n",
            addresses.join(", "),
            gm_tests::plane::lines(),
            socket.display()
        );
        write_private(&config, &text);
        let config = config.display().to_string();
        let args = ["run", "--until-stdin-closes", "--config", &config];
        let (mut process, _) = Process::start(ns, "gmespd", &args);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = Client::new(socket);
        let deadline = Instant::now() + WAIT;
        while runtime.block_on(client.health()).is_err() {
            assert!(process.runs(), "gmespd could not start");
            assert!(Instant::now() < deadline, "gmespd did not start in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        Gmespd {
            _process: process,
            client,
            runtime,
            dir,
            end,
        }
    }

    /// `gmespctl sa add`: all of these sets, live at once.
    pub fn add(&self, sets: &[Set]) {
        let file = self.dir.path().join("SAD.toml");
        let text: Vec<String> = sets.iter().map(|set| set.sad(self.end)).collect();
        write_private(&file, &text.concat());
        let out = Command::new(program("gmespctl"))
            .arg("--socket")
            .arg(self.client.socket())
            .args(["sa", "add", "--file"])
            .arg(&file)
            .output()
            .expect("gmespctl runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "gmespctl sa add: {said}");
    }

    /// A set sends no more.
    pub fn retire(&self, set: &Set) {
        let done = self.runtime.block_on(self.client.retire(set.number.into()));
        done.expect("gmespd retires the set");
    }

    /// Removes a set.
    pub fn remove(&self, set: &Set) {
        let gone = self
            .runtime
            .block_on(self.client.remove_set(set.number.into()));
        assert_eq!(gone.expect("gmespd removes the set").sas, 4);
    }

    /// Its SAs.
    pub fn sas(&self) -> Vec<SaStatus> {
        let rows = self.runtime.block_on(self.client.list());
        rows.expect("gmespd answers")
    }

    /// The one with this SPI.
    pub fn sa(&self, spi: u32) -> SaStatus {
        let mut rows = self.sas().into_iter();
        rows.find(|row| row.sa.spi == spi).expect("the SA")
    }

    /// Its counters.
    pub fn stats(&self) -> Stats {
        let stats = self.runtime.block_on(self.client.stats());
        stats.expect("gmespd answers")
    }

    /// One of them; the kernel's data plane does not have all.
    pub fn count(&self, reason: Reason) -> Option<u64> {
        self.stats().reasons.get(reason.name()).copied()
    }

    /// Waits until one of them says so much, and not more, where there is such a counter.
    #[track_caller]
    pub fn counts(&self, reason: Reason, want: u64) {
        let deadline = Instant::now() + WAIT;
        loop {
            let Some(now) = self.count(reason) else {
                assert!(gm_tests::plane::is_kernel(), "no {}", reason.name());
                return;
            };
            if now >= want {
                assert_eq!(now, want, "{}", reason.name());
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{}: {now}, not {want}",
                reason.name()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it knows where in UDP a set's phone is to be found.
    #[track_caller]
    pub fn finds(&self, set: &Set) {
        let [_, to_uc, to_us, _] = set.four();
        let deadline = Instant::now() + WAIT;
        loop {
            let rows = self.sas();
            let known = |spi| {
                rows.iter()
                    .any(|r| r.sa.spi == spi && r.sa.encap_dport.is_some())
            };
            if known(to_uc.spi) && known(to_us.spi) {
                return;
            }
            assert!(Instant::now() < deadline, "the phone's port is not learnt");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What was dropped, by reason, and frames that were lost.
    pub fn dropped(&self) -> BTreeMap<String, u64> {
        let stats = self.stats();
        let drops = Reason::ALL
            .iter()
            .filter(|reason| reason.action() == gm_abi::verdict::Action::Drop);
        let mut dropped: BTreeMap<String, u64> = drops
            .filter_map(|reason| stats.reasons.get_key_value(reason.name()))
            .map(|(name, n)| (name.clone(), *n))
            .filter(|(_, n)| *n > 0)
            .collect();
        let leaked: u64 = stats.workers.iter().map(|w| w.frames_leaked).sum();
        if leaked > 0 {
            dropped.insert("frames-leaked".into(), leaked);
        }
        dropped
    }
}
