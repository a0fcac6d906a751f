//! What the demo needs of the machine, asked for before anything is made, so
//! that one line can say what is missing.

use std::fs;
use std::path::Path;

use rustix::net::{AddressFamily, SocketType, socket};

/// The oldest kernel that gmesp is tested on.
const KERNEL: (u32, u32) = (6, 1);

/// One line that names the first thing that is missing and what to do.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some(
            "root is missing: the demo makes network namespaces and loads BPF programs".into(),
        );
    }
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    if !new_enough(&release) {
        let (major, minor) = KERNEL;
        return Some(format!(
            "Linux {major}.{minor} or later is missing: this is {release}"
        ));
    }
    for (path, what) in [
        (
            "/proc/thread-self/ns/net",
            "network namespaces are (CONFIG_NET_NS, and /proc mounted)",
        ),
        (
            "/proc/sys/kernel/unprivileged_bpf_disabled",
            "the bpf system call is (CONFIG_BPF_SYSCALL)",
        ),
    ] {
        if !Path::new(path).exists() {
            return Some(format!("{what} missing in this kernel"));
        }
    }
    if let Err(error) = socket(AddressFamily::XDP, SocketType::RAW, None) {
        return Some(format!(
            "AF_XDP is missing in this kernel (CONFIG_XDP_SOCKETS): {error}"
        ));
    }
    can_administer().err()
}

fn new_enough(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= KERNEL,
        _ => false,
    }
}

/// Root in a container may lack what root on a host has.
fn can_administer() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    for (bit, name) in [
        (12, "CAP_NET_ADMIN"),
        (13, "CAP_NET_RAW"),
        (21, "CAP_SYS_ADMIN"),
        (39, "CAP_BPF"),
    ] {
        if effective >> bit & 1 == 0 {
            return Err(format!(
                "{name} is missing: a container runs this with --privileged"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::new_enough;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, enough) in [
            ("6.1.0-18-amd64", true),
            ("6.18.44", true),
            ("10.0", true),
            ("5.15.0", false),
            ("6.0.9", false),
            ("nonsense", false),
        ] {
            assert_eq!(new_enough(release), enough, "{release}");
        }
    }
}
