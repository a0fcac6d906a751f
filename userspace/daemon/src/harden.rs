//! What the process gives up before it holds a key: core dumps, swap, and the
//! capabilities that it does not need. And the one limit that it raises.

use std::path::Path;

use crate::config::PlaneKind;
use caps::{CapSet, Capability, CapsHashSet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the data plane calls a bpffs that it has mounted.
const OWN_MOUNT: &str = "gmesp";

/// No core dump of this process, and its memory stays out of swap. What
/// cannot be had is logged; the daemon works without.
pub fn protect_memory() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be limited to nothing");
    }
    if let Err(error) = gm_xsk::sys::forbid_core_dumps() {
        tracing::warn!(%error, "core dumps cannot be forbidden: keys might reach a disk");
    }
    if let Err(error) = gm_xsk::sys::lock_all_memory() {
        tracing::warn!(
            %error,
            "memory cannot be locked: keys might reach swap; allow it with LimitMEMLOCK=infinity"
        );
    }
}

/// As many open files as the system lets this process have: each interface
/// that is guarded takes two, and one without a guard is open.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files stays as it is; raise it with LimitNOFILE");
    }
}

/// What the daemon needs while it runs:
///
/// | capability | for |
/// |---|---|
/// | NET_ADMIN | devices, attaching BPF programs, AF_XDP |
/// | NET_RAW | AF_XDP, packet sockets |
/// | BPF, PERFMON | loading programs and maps |
/// | IPC_LOCK | locked memory |
/// | NET_BIND_SERVICE | ports below 1024, if configured |
/// | SYS_ADMIN | mounting and unmounting the bpffs, only where it is our own |
///
/// The kernel's data plane loads no programs and has no packet sockets: NET_ADMIN is for
/// XFRM there, and for `nft`, a child of ours, which makes the guard.
fn needed(plane: PlaneKind, pin_dir: Option<&Path>) -> CapsHashSet {
    if plane == PlaneKind::Kernel {
        return CapsHashSet::from([
            Capability::CAP_NET_ADMIN,
            Capability::CAP_IPC_LOCK,
            Capability::CAP_NET_BIND_SERVICE,
        ]);
    }
    let mut keep = CapsHashSet::from([
        Capability::CAP_NET_ADMIN,
        Capability::CAP_NET_RAW,
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
        Capability::CAP_IPC_LOCK,
        Capability::CAP_NET_BIND_SERVICE,
    ]);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if pin_dir.is_some_and(|dir| !on_systems_bpffs(&mounts, dir)) {
        keep.insert(Capability::CAP_SYS_ADMIN);
    }
    keep
}

/// The directory is, or will be, on a bpffs that somebody else has mounted,
/// and who unmounts it, too. `mounts` is /proc/self/mounts.
fn on_systems_bpffs(mounts: &str, dir: &Path) -> bool {
    let bpffs = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (source, at, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "bpf" && dir.starts_with(at)).then_some((at.len(), source))
    });
    bpffs.max().is_some_and(|(_, source)| source != OWN_MOUNT)
}

/// Gives up every capability but those that are needed, for good and for all
/// children. Capabilities belong to threads: to be called while there is one.
/// Whoever has fewer to begin with keeps what he has of them.
pub fn drop_capabilities(
    plane: PlaneKind,
    pin_dir: Option<&Path>,
) -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let keep: CapsHashSet = needed(plane, pin_dir)
        .intersection(&permitted)
        .copied()
        .collect();
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&keep) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    caps::clear(None, CapSet::Inheritable)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_on_files_is_the_highest_there_is() {
        super::raise_file_limit();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    use super::*;

    #[test]
    fn sys_admin_is_kept_only_for_a_mount_of_our_own() {
        let systems = "bpf /sys/fs/bpf bpf rw,nosuid 0 0\n";
        let own = "gmesp /sys/fs/bpf bpf rw 0 0\n";
        let other = "sysfs /sys sysfs rw 0 0\n";
        let dir = Path::new("/sys/fs/bpf/gmesp");
        assert!(on_systems_bpffs(&[other, systems].concat(), dir));
        assert!(!on_systems_bpffs(&[other, own].concat(), dir));
        assert!(!on_systems_bpffs(other, dir));
        assert!(!on_systems_bpffs(systems, Path::new("/run/gmesp/pins")));
        let needed = |plane| needed(plane, None);
        assert!(!needed(PlaneKind::Xdp).contains(&Capability::CAP_SYS_ADMIN));
        assert!(!needed(PlaneKind::Kernel).contains(&Capability::CAP_BPF));
    }

    #[test]
    fn a_thread_gives_up_the_rest() {
        // On a thread of its own: the others keep theirs.
        std::thread::spawn(|| {
            drop_capabilities(PlaneKind::Xdp, None).unwrap();
            for set in [CapSet::Effective, CapSet::Permitted] {
                let left = caps::read(None, set).unwrap();
                assert!(left.is_subset(&needed(PlaneKind::Xdp, None)), "{left:?}");
            }
            assert!(!caps::has_cap(None, CapSet::Permitted, Capability::CAP_SYS_PTRACE).unwrap());
        })
        .join()
        .unwrap();
    }
}
