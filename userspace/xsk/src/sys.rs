//! What a process that holds keys asks of the kernel.

use std::io;

use rustix::mm::MlockAllFlags;
use rustix::process::DumpableBehavior;

/// No core dump of this process, and no debugger of the same user: keys must
/// not reach a disk or a neighbour. To be called before the first key is read;
/// a change of user or an `exec` may undo it.
///
/// # Errors
///
/// What `prctl` said.
pub fn forbid_core_dumps() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        DumpableBehavior::NotDumpable,
    )?)
}

/// Locks all memory of the process, present and future, so that none of it
/// reaches swap.
///
/// # Errors
///
/// `ENOMEM` or `EPERM`: RLIMIT_MEMLOCK (systemd: `LimitMEMLOCK=infinity`) is
/// too low and the process has no CAP_IPC_LOCK.
pub fn lock_all_memory() -> io::Result<()> {
    Ok(rustix::mm::mlockall(
        MlockAllFlags::CURRENT | MlockAllFlags::FUTURE,
    )?)
}

/// Binds the calling thread to one CPU.
///
/// # Errors
///
/// `InvalidInput` for a CPU number that cannot be, `EINVAL` for one that this
/// process may not use.
pub fn pin_thread(cpu: usize) -> io::Result<()> {
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
