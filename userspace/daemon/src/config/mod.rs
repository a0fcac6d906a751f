//! gmespd.toml: what the daemon is told. Unknown keys are errors; every error
//! names the file, the table, the key and what to do.

mod busy;
mod check;
mod edge;
mod engine;
mod locate;
mod log;
mod plane;
mod ports;
mod sip;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use busy::BusyPoll;
pub use edge::Edge;
pub use engine::EngineKind;
pub use log::{Log, filter};
pub use plane::PlaneKind;
pub use ports::PortRange;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Gm link: what is protected.
    pub gm: Gm,
    /// The control socket.
    #[serde(default)]
    pub control: Control,
    /// The SIP edge; absent: SAs come over the control socket only.
    pub edge: Option<Edge>,
    /// The embedded home network, for labs.
    pub home: Option<Home>,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
}

/// `[gm]`: the link, the policy that exists before any SA, and the bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gm {
    /// What carries the packets.
    #[serde(default)]
    pub data_plane: PlaneKind,
    /// Interfaces towards the phones; exactly one for now. The kernel's data plane
    /// needs none.
    #[serde(default)]
    pub uplinks: Vec<String>,
    /// Addresses of this host on the Gm link.
    pub addresses: Vec<IpAddr>,
    /// Behind a static 1:1 NAT (a cloud's, Docker's): addresses of this host, each with
    /// the one that phones know it by, as `{ "10.0.0.5" = "198.51.100.7" }`.
    #[serde(default)]
    pub advertised: BTreeMap<IpAddr, IpAddr>,
    /// Protected server ports (port_ps; at a UE port_us).
    pub server_ports: Vec<PortRange>,
    /// Protected client ports (port_pc; at a UE port_uc).
    pub client_ports: Vec<PortRange>,
    /// Upper bound on SAs, a power of two.
    #[serde(default = "defaults::max_sas")]
    pub max_sas: u32,
    /// Width of the replay window in sequence numbers, 32 to 4096.
    #[serde(default = "defaults::replay_window")]
    pub replay_window: u32,
    /// UDP port of UDP-encapsulated ESP.
    #[serde(default = "defaults::encap_port")]
    pub encap_port: u16,
    /// Follow a phone whose NAT has changed the port.
    #[serde(default = "defaults::yes")]
    pub follow_encap_port: bool,
    /// Threads for packets, 1 to the number of the uplink's queues.
    #[serde(default = "defaults::workers")]
    pub workers: u32,
    /// CPU that the first worker is pinned to; the same as `cpus` with one.
    pub cpu: Option<usize>,
    /// CPUs that the workers are pinned to, by number; those beyond the list
    /// are not.
    #[serde(default)]
    pub cpus: Vec<usize>,
    /// How long workers look for packets after the last one before they sleep.
    #[serde(default)]
    pub busy_poll: BusyPoll,
    /// What computes the ciphers and MACs.
    #[serde(default)]
    pub engine: EngineKind,
    /// Directory of the pinned BPF objects, or "off".
    #[serde(default = "defaults::pin_dir")]
    pub pin_dir: PathBuf,
    /// Name of the device through which packets enter the local stack; its
    /// other end gets an `x` behind it.
    #[serde(default = "defaults::gm0")]
    pub gm0: String,
    /// SAs of another P-CSCF in this kernel work beside ours until they are taken over
    /// (`gm-xfrm adopt`). Without this their ESP is dropped.
    #[serde(default)]
    pub kernel_sas: bool,
}

/// `[control]`: the control socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Group that may use it, by name or number; absent: the daemon's.
    pub group: Option<String>,
    /// Permission bits in octal, such as "0660".
    pub mode: String,
    /// Loopback address and port for programs that have no Unix sockets; absent: none.
    pub http: Option<SocketAddr>,
    /// File of the token that opens `http` (mode 0600).
    pub token_file: Option<PathBuf>,
}

/// `[home]`: the embedded home network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Home {
    /// Home network domain name; absent: `[edge] domain`.
    pub domain: Option<String>,
    /// File of the subscribers (mode 0600: it holds their keys).
    pub subscribers: PathBuf,
    /// Loopback address and port that it listens on.
    #[serde(default = "defaults::home_listen")]
    pub listen: SocketAddr,
    /// Every REGISTER is challenged, protected ones too.
    #[serde(default)]
    pub always_challenge: bool,
}

mod defaults {
    use super::{IpAddr, PathBuf, SocketAddr};

    pub(super) fn workers() -> u32 {
        1
    }

    pub(super) fn max_sas() -> u32 {
        4096
    }
    pub(super) fn replay_window() -> u32 {
        64
    }
    pub(super) fn encap_port() -> u16 {
        4500
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn pin_dir() -> PathBuf {
        "/sys/fs/bpf/gmesp".into()
    }
    pub(super) fn gm0() -> String {
        "gm0".into()
    }
    pub(super) fn home_listen() -> SocketAddr {
        SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 5061)
    }
}

impl Default for Control {
    fn default() -> Self {
        Control {
            socket: gm_api::control::DEFAULT_SOCKET.into(),
            group: None,
            mode: "0600".into(),
            http: None,
            token_file: None,
        }
    }
}

/// What is wrong with a configuration, in one line for people.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}{}{}", file.display(), place, what, advice(hint))]
pub struct ConfigError {
    file: PathBuf,
    /// Table and key and, where known, the line; ends in a colon and a blank.
    place: String,
    what: String,
    hint: String,
}

fn advice(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("; {hint}")
    }
}

impl ConfigError {
    fn at(table: &str, key: &str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        let place = format!("[{table}] {key}: ");
        ConfigError {
            file: PathBuf::new(),
            place,
            what: what.into(),
            hint: hint.into(),
        }
    }
}

impl Config {
    /// Reads and checks the file.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            place: String::new(),
            what: format!("cannot be read: {error}"),
            hint: "name the configuration with --config FILE".into(),
        })?;
        Config::parse(&text, file)
    }

    /// Parses and checks `text`; `file` is what errors call it.
    pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
        let config: Config =
            toml::from_str(text).map_err(|error| syntax_error(text, file, &error))?;
        config.check().map_err(|error| ConfigError {
            file: file.to_owned(),
            ..error
        })?;
        Ok(config)
    }
}

impl Config {
    /// What is allowed, and yet worth a line in the log at every start.
    pub fn warnings(&self) -> Vec<String> {
        let edge = self.edge.as_ref().filter(|edge| edge.enabled);
        let mut warnings = edge
            .map(|edge| edge.warnings(&self.gm.addresses))
            .unwrap_or_default();
        if self.gm.data_plane == PlaneKind::Kernel {
            let lost = crate::kernel::LOST.iter();
            warnings.extend(lost.map(|lost| format!("lost with data_plane = \"kernel\": {lost}")));
        }
        warnings
    }
}

fn syntax_error(text: &str, file: &Path, error: &toml::de::Error) -> ConfigError {
    let place = locate::locate(text, error.span());
    let mut words = String::new();
    if let Some(line) = place.line {
        words += &format!("line {line}: ");
    }
    if !place.table.is_empty() {
        words += &format!("[{}] ", place.table);
    }
    if !place.key.is_empty() {
        words += &place.key;
    }
    let words = words.trim_end().trim_end_matches(':');
    let place = if words.is_empty() {
        String::new()
    } else {
        format!("{words}: ")
    };
    let what = error.message().trim().replace('\n', " ");
    let hint = if what.contains("unknown field") {
        "remove the key or correct its name"
    } else if what.contains("missing field") {
        "add the key; gmespd.example.toml shows every one"
    } else {
        "correct the value; gmespd.example.toml shows every key"
    };
    ConfigError {
        file: file.to_owned(),
        place,
        what,
        hint: hint.into(),
    }
}
