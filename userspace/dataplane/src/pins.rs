//! The pin directory: links and maps that outlive a killed process, so that
//! the policy stays (ARCHITECTURE, rule 5).

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::Error;

/// What a mount of gmesp is called in the list of mounts.
const SOURCE: &str = "gmesp";

/// Whether a bpffs of gmesp is mounted at this very directory.
fn is_our_mount(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    mounts.lines().any(|line| {
        let mut words = line.split(' ');
        words.next() == Some(SOURCE) && words.next().map(Path::new) == Some(&dir)
    })
}

/// Where every system has its bpffs, if it has one. The directory is sysfs's,
/// so nothing can be made in it before that is mounted.
const USUAL: &str = "/sys/fs/bpf";

/// A directory on a bpffs.
#[derive(Debug)]
pub(crate) struct PinDir {
    dir: PathBuf,
    /// Where gmesp has mounted the bpffs, perhaps a killed predecessor.
    mounted: Option<PathBuf>,
}

impl PinDir {
    /// Makes the directory, and mounts a bpffs if it is on none: at
    /// /sys/fs/bpf for what is below that, else at the directory itself.
    pub(crate) fn open(dir: &Path) -> Result<PinDir, Error> {
        let wrong = |detail: String| Error::Pin {
            path: dir.to_path_buf(),
            detail,
        };
        let home = match dir.starts_with(USUAL) {
            true => Path::new(USUAL),
            false => dir,
        };
        let make = |dir| fs::create_dir_all(dir).map_err(|e| wrong(format!("cannot be made: {e}")));
        make(home)?;
        let on_bpffs = statfs(home)
            .map_err(|e| wrong(format!("cannot be read: {e}")))?
            .filesystem_type()
            == BPF_FS_MAGIC;
        if !on_bpffs {
            // By default anybody may make something in a bpffs.
            let (source, options) = (Some(SOURCE), Some("mode=0700"));
            mount(source, home, Some("bpf"), MsFlags::empty(), options).map_err(|e| {
                wrong(format!(
                    "cannot mount a bpffs at {}: {e}; do `mount -t bpf bpf {USUAL}` and choose a directory there",
                    home.display()
                ))
            })?;
        }
        make(dir)?;
        if !is_ours_alone(dir) {
            return Err(wrong(
                "belongs to somebody else, who could take the programs away; remove it or choose another".into(),
            ));
        }
        Ok(PinDir {
            dir: dir.to_path_buf(),
            mounted: is_our_mount(home).then(|| home.to_path_buf()),
        })
    }

    /// The directory itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the link called `name` is pinned.
    pub(crate) fn link(&self, name: &str) -> PathBuf {
        self.dir.join(format!("link_{name}"))
    }

    /// Where the map called `name` is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(format!("map_{name}"))
    }

    /// Names of the links that are pinned here.
    pub(crate) fn links(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|e| {
                e.file_name()
                    .to_str()?
                    .strip_prefix("link_")
                    .map(str::to_owned)
            })
            .collect()
    }

    /// Removes every pin, the directory, and the mount where it is gmesp's.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        let wrong = |path: &Path, e: &dyn std::fmt::Display| Error::Pin {
            path: path.to_path_buf(),
            detail: format!("cannot be removed: {e}"),
        };
        for entry in fs::read_dir(&self.dir)
            .map_err(|e| wrong(&self.dir, &e))?
            .flatten()
        {
            let name = entry.file_name();
            let ours = name
                .to_str()
                .is_some_and(|n| n.starts_with("link_") || n.starts_with("map_"));
            if ours {
                remove(&entry.path())?;
            }
        }
        // One that holds something of somebody else's stays, and so does a
        // mount that others use by now.
        let _ = fs::remove_dir(&self.dir);
        if let Some(home) = &self.mounted
            && !is_used(home)
        {
            umount2(home, MntFlags::MNT_DETACH).map_err(|e| wrong(home, &e))?;
            let _ = fs::remove_dir(&self.dir);
        }
        Ok(())
    }
}

/// Whether nobody but root and this process's user can remove what is in a
/// directory.
fn is_ours_alone(dir: &Path) -> bool {
    let sticky = 0o1000;
    fs::metadata(dir).is_ok_and(|m| {
        let owner = m.uid() == 0 || m.uid() == nix::unistd::geteuid().as_raw();
        owner && (m.mode() & 0o022 == 0 || m.mode() & sticky != 0)
    })
}

/// Whether a bpffs holds more than what the kernel puts into each.
fn is_used(home: &Path) -> bool {
    let preloaded = ["maps.debug", "progs.debug"];
    fs::read_dir(home).is_ok_and(|entries| {
        entries.flatten().any(|e| {
            e.file_name()
                .to_str()
                .is_none_or(|n| !preloaded.contains(&n))
        })
    })
}

/// Removes one pin; one that is not there is no error.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::Pin {
            path: path.to_path_buf(),
            detail: format!("cannot be removed: {e}"),
        }),
        _ => Ok(()),
    }
}
