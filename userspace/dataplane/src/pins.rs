//! The pin directory: links and maps that outlive a killed process, so that
//! the policy stays (DESIGN "fail closed").

use std::fs;
use std::io::ErrorKind;
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

/// A directory on a bpffs.
#[derive(Debug)]
pub(crate) struct PinDir {
    dir: PathBuf,
    /// The bpffs is mounted here by gmesp, perhaps by a killed predecessor.
    mounted: bool,
}

impl PinDir {
    /// Makes the directory, and mounts a bpffs there if it is on none.
    pub(crate) fn open(dir: &Path) -> Result<PinDir, Error> {
        let wrong = |detail: String| Error::Pin {
            path: dir.to_path_buf(),
            detail,
        };
        fs::create_dir_all(dir).map_err(|e| wrong(format!("cannot be made: {e}")))?;
        let on_bpffs = statfs(dir)
            .map_err(|e| wrong(format!("cannot be read: {e}")))?
            .filesystem_type()
            == BPF_FS_MAGIC;
        if !on_bpffs {
            mount(
                Some(SOURCE),
                dir,
                Some("bpf"),
                MsFlags::empty(),
                None::<&str>,
            )
            .map_err(|e| {
                wrong(format!(
                    "cannot mount a bpffs there: {e}; mount one at /sys/fs/bpf"
                ))
            })?;
        }
        Ok(PinDir {
            dir: dir.to_path_buf(),
            mounted: is_our_mount(dir),
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

    /// Removes every pin, the mount where it is gmesp's, and the directory.
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
        if self.mounted {
            umount2(&self.dir, MntFlags::MNT_DETACH).map_err(|e| wrong(&self.dir, &e))?;
        }
        // One that holds something of somebody else's stays.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }
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
