//! How long a CPU has worked for somebody, and quantiles.

use std::fs;

/// Nanoseconds that the tasks of a CPU have run: a thread of ours by its name,
/// and the kernel's thread for what is left of interrupts. What the kernel does
/// for packets runs on the account of one of them.
pub struct Busy(Vec<String>);

impl Busy {
    /// Of a thread of this process and of `cpu`'s ksoftirqd.
    pub fn of(thread: &str, cpu: usize) -> Busy {
        let named = |dir: &str, name: &str| -> Vec<String> {
            let tasks = fs::read_dir(dir).into_iter().flatten().flatten();
            let paths = tasks.map(|t| t.path().display().to_string());
            let is = |p: &String| {
                fs::read_to_string(format!("{p}/comm")).is_ok_and(|c| c.trim_end() == name)
            };
            paths.filter(is).map(|p| format!("{p}/schedstat")).collect()
        };
        let mut files = named("/proc/self/task", thread);
        files.extend(named("/proc", &format!("ksoftirqd/{cpu}")));
        Busy(files)
    }

    /// So far.
    pub fn nanos(&self) -> u64 {
        let first = |text: String| text.split(' ').next()?.parse::<u64>().ok();
        let read = |file: &String| fs::read_to_string(file).ok().and_then(first);
        self.0.iter().filter_map(read).sum()
    }
}

/// The value below which this part of the sorted values is.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
