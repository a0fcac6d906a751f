//! How long a CPU has worked for somebody, and quantiles.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The clocks of tasks that a CPU works for: a thread of ours by its name, and
/// the kernel's thread for what is left of interrupts. What the kernel does for
/// packets runs on the account of one of them.
pub struct Busy(Vec<ClockId>);

/// Bits of a clock's number (`clock_getcpuclockid(3)`): time on a CPU, of a
/// process or of one thread.
const SCHED: i32 = 2;
const THREAD: i32 = 4;

impl Busy {
    /// Of a thread of this process and of `cpu`'s ksoftirqd. `None`: one of them
    /// is not there, or has no clock that this process may read.
    pub fn of(thread: &str, cpu: usize) -> Option<Busy> {
        let kernel = format!("ksoftirqd/{cpu}");
        let clock = |bits| move |id: i32| ClockId::from_raw((!id << 3) | bits);
        // A thread that has just been made names itself.
        for _ in 0..500 {
            let ours = named("/proc/self/task", thread).map(clock(SCHED | THREAD));
            let kernels = named("/proc", &kernel).map(clock(SCHED));
            let clocks: Vec<ClockId> = ours.chain(kernels).collect();
            if clocks.len() == 2 && clocks.iter().all(|c| clock_gettime(*c).is_ok()) {
                return Some(Busy(clocks));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// So far, to now.
    pub fn time(&self) -> Duration {
        let read = |clock: &ClockId| clock_gettime(*clock).ok().map(Duration::from);
        self.0.iter().filter_map(read).sum()
    }
}

/// Numbers of the tasks in a folder that are called so.
fn named(dir: &str, name: &str) -> impl Iterator<Item = i32> {
    let tasks = fs::read_dir(dir).into_iter().flatten().flatten();
    tasks.filter_map(move |task| {
        let comm = fs::read_to_string(task.path().join("comm")).ok()?;
        let number = task.file_name().to_str()?.parse().ok()?;
        (comm.trim_end() == name).then_some(number)
    })
}

/// The value below which this part of the sorted values is.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
