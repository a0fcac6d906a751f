//! Network namespaces of the demo: made, named under /run/netns so that a
//! curious reader can step in (`ip netns exec NAME …`), and removed on drop.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

const DIR: &str = "/run/netns";
const PREFIX: &str = "gmesp-demo";

/// A network namespace that this process has made.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    fd: File,
}

impl Netns {
    /// Makes a namespace named `gmesp-demo-ROLE-PID` with its loopback down.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or when /run/netns cannot be written.
    pub fn create(role: &str) -> Result<Netns> {
        let name = format!("{PREFIX}-{role}-{}", std::process::id());
        let path = Path::new(DIR).join(&name);
        fs::create_dir_all(DIR).with_context(|| format!("cannot make {DIR}"))?;
        File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let made = on_own_thread(|| -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("cannot make a network namespace (needs CAP_SYS_ADMIN)")?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .with_context(|| format!("cannot bind the namespace to {}", path.display()))
        });
        if let Err(error) = made {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let fd = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Netns { name, path, fd })
    }

    /// The name under /run/netns.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` on a thread that lives in this namespace. Sockets made there
    /// stay in the namespace when they are handed out.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_own_thread(|| {
            self.enter()?;
            f()
        })
    }

    /// Starts a program in this namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        // The child is forked from the thread that calls spawn, so it starts
        // in that thread's namespace.
        self.run(|| {
            command
                .spawn()
                .context("cannot start a program of the demo")
        })
    }

    /// Moves the calling thread into this namespace, for good.
    pub fn enter(&self) -> Result<()> {
        setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the namespace {}", self.name))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes what a demo left behind that was killed before it could clean up.
pub fn remove_stale() {
    let Ok(entries) = fs::read_dir(DIR) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|n| n.strip_prefix(PREFIX))
            .and_then(|n| n.rsplit('-').next())
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            remove(&entry.path());
        }
    }
}

fn remove(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

fn on_own_thread<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(f)
            .join()
            .unwrap_or_else(|_| Err(anyhow!("a thread of the demo panicked")))
    })
}
