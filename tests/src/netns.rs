//! Network namespaces for tests: without names, gone with their last user.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace of its own, its loopback up. Nothing of it has a name,
/// so nothing is left behind when it is dropped or the process ends.
#[derive(Debug)]
pub struct NetNs {
    ns: File,
}

/// The calling thread's network namespace.
fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

impl NetNs {
    /// Makes a namespace; needs root.
    pub fn new() -> io::Result<NetNs> {
        let ns = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            current()
        });
        let ns = ns
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))?;
        let ns = NetNs { ns };
        // A router asks for neighbours from its link-local address. While that
        // is still being looked for on the link it cannot, and gives up in the
        // end on packets that a test waits for.
        ns.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/dad_transmits", "0"))?;
        ns.ip("link set lo up");
        Ok(ns)
    }

    /// Runs `f` in a thread in the namespace; threads that it starts are there
    /// too. A panic in it is a panic here.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let there = thread::scope(|s| {
            s.spawn(|| {
                setns(&self.ns, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
                f()
            })
            .join()
        });
        match there {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a program in the namespace and returns what it printed.
    ///
    /// # Panics
    /// When it fails: a test cannot go on then.
    pub fn sh(&self, program: &str, args: &[&str]) -> String {
        let out = self.run(|| Command::new(program).args(args).output());
        let out = out.unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(
            out.status.success(),
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Runs `ip` with these words.
    pub fn ip(&self, words: &str) -> String {
        self.sh("ip", &words.split_whitespace().collect::<Vec<_>>())
    }

    /// The Ethernet address of an interface.
    pub fn mac(&self, name: &str) -> [u8; 6] {
        let link = self.ip(&format!("-o link show {name}"));
        let mut words = link.split_whitespace().skip_while(|w| *w != "link/ether");
        let text = words.nth(1).unwrap_or_else(|| panic!("{link}"));
        let mut mac = [0; 6];
        for (byte, hex) in mac.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(hex, 16).unwrap_or_else(|e| panic!("{text}: {e}"));
        }
        mac
    }

    /// A path that names the namespace as long as this value lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.ns.as_raw_fd())
    }
}

/// One end of a veth pair: name, addresses with prefix lengths.
pub struct End<'a> {
    /// The namespace.
    pub ns: &'a NetNs,
    /// Name of the interface there.
    pub name: &'a str,
    /// Addresses, like `10.0.0.1/24`.
    pub addresses: &'a [&'a str],
}

/// Joins two namespaces by a veth pair, both ends up, addresses usable at once.
pub fn veth(a: End<'_>, b: End<'_>) {
    veth_of(1, a, b);
}

/// The same with so many queues each way.
pub fn veth_of(queues: u32, a: End<'_>, b: End<'_>) {
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    a.ns.ip(&format!(
        "link add {} {queues} type veth peer name {} {queues} netns {}",
        a.name,
        b.name,
        b.ns.path()
    ));
    for end in [&a, &b] {
        for address in end.addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            end.ns
                .ip(&format!("addr add {address} dev {} {nodad}", end.name));
        }
        end.ns.ip(&format!("link set {} up", end.name));
    }
}
