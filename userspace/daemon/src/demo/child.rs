//! A program that the demo has started: asked to end on drop, and made to
//! when it does not.

use std::process::Child as Process;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a program may take to clean up behind itself.
const GRACE: Duration = Duration::from_secs(5);

/// A running program of the demo.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: Process,
}

impl Child {
    /// Takes charge of a process.
    pub fn new(name: &'static str, process: Process) -> Child {
        Child { name, process }
    }

    /// True while it runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    fn end(&mut self) {
        if !self.alive() {
            return;
        }
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = Instant::now() + GRACE;
        while self.alive() {
            if Instant::now() > deadline {
                tracing::warn!("{} did not end within {GRACE:?} and is killed", self.name);
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}
