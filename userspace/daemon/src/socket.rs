//! The control socket: one daemon per path, never readable by everybody, and
//! a dead daemon's socket is no obstacle.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, chown, fchmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon is alive behind it.
    #[error(
        "another gmespd{who} serves {}; stop it first, or set another [control] socket",
        socket.display()
    )]
    Busy {
        /// The socket.
        socket: PathBuf,
        /// ` (pid N)` or empty.
        who: String,
    },
    /// Something else is in its place.
    #[error("{} is there and is no socket; move it away, or set another [control] socket", .0.display())]
    NotASocket(PathBuf),
    /// The group does not exist.
    #[error(
        "[control] group: there is no group {0:?}; create it with groupadd --system, or name another"
    )]
    NoGroup(String),
    /// The operating system says no.
    #[error("control socket: {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What came of it.
        error: io::Error,
    },
}

fn at<'a, E: Into<io::Error>>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(E) -> SocketError + 'a {
    move |error| SocketError::Io {
        what,
        path: path.to_owned(),
        error: error.into(),
    }
}

/// The socket as long as the daemon holds it. Dropped, it removes the socket
/// (the lock file stays: removing it would race with the next daemon).
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    inode: u64,
    _lock: File,
}

impl ControlSocket {
    /// Takes the lock, removes a stale socket, and listens with these
    /// permission bits and, where given, this group.
    pub fn bind(
        path: &Path,
        mode: u32,
        group: Option<&str>,
    ) -> Result<(ControlSocket, UnixListener), SocketError> {
        let gid = group.map(group_id).transpose()?;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(at("create", directory))?;
        }
        let lock = lock(path)?;
        remove_stale(path)?;

        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(at("open", path))?;
        let address = SocketAddrUnix::new(path).map_err(at("name", path))?;
        // The mode of the socket itself is the one that bind gives the file:
        // at no time can anybody else connect, whatever the umask.
        fchmod(&socket, Mode::from_raw_mode(0o600)).map_err(at("protect", path))?;
        bind(&socket, &address).map_err(at("bind", path))?;
        if let Some(gid) = gid {
            chown(path, None, Some(gid)).map_err(at("give to the group", path))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(at("set the mode of", path))?;
        listen(&socket, BACKLOG).map_err(at("listen at", path))?;
        let inode = std::fs::symlink_metadata(path)
            .map_err(at("look at", path))?
            .ino();
        let held = ControlSocket {
            path: path.to_owned(),
            inode,
            _lock: lock,
        };
        Ok((held, UnixListener::from(socket)))
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours {
            // At the end nobody is left to tell.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Locks `PATH.lock` until the process ends, however it ends.
fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&lock_path)
        .map_err(at("open", &lock_path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only to be helpful: without it the message is still right.
            let _ = file.read_to_string(&mut pid);
            let pid = pid.trim();
            let who = if pid.is_empty() {
                String::new()
            } else {
                format!(" (pid {pid})")
            };
            return Err(SocketError::Busy {
                socket: path.to_owned(),
                who,
            });
        }
        Err(TryLockError::Error(error)) => return Err(at("lock", &lock_path)(error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(at("write", &lock_path))?;
    Ok(file)
}

/// A socket that nobody serves is removed. We hold the lock, so whoever serves
/// it now is no gmespd with this configuration, and stays.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at("look at", path)(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Busy {
            socket: path.to_owned(),
            who: String::new(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(at("remove the stale", path))
        }
        Err(error) => Err(at("try", path)(error)),
    }
}

fn group_id(name: &str) -> Result<Gid, SocketError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(Gid::from_raw(group.gid.as_raw())),
        _ => Err(SocketError::NoGroup(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_socket_is_private_and_goes_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/control.sock");
        let (held, listener) = ControlSocket::bind(&path, 0o600, None).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join("sub/control.sock.lock")), 0o600);
        UnixStream::connect(&path).unwrap();
        drop((held, listener));
        assert!(!path.exists());
    }

    #[test]
    fn a_group_may_be_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let own = rustix::process::getgid().as_raw().to_string();
        let _held = ControlSocket::bind(&path, 0o660, Some(&own)).unwrap();
        assert_eq!(mode(&path), 0o660);
        let error = ControlSocket::bind(&dir.path().join("t"), 0o660, Some("no such group"));
        assert!(error.unwrap_err().to_string().contains("no such group"));
    }

    #[test]
    fn a_second_daemon_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _held = ControlSocket::bind(&path, 0o600, None).unwrap();
        let error = ControlSocket::bind(&path, 0o600, None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("another gmespd (pid {})", std::process::id())),
            "{error}"
        );
        assert!(path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let stale = dir.path().join("stale");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        ControlSocket::bind(&stale, 0o600, None).unwrap();

        let live = dir.path().join("live");
        let _listener = UnixListener::bind(&live).unwrap();
        let error = ControlSocket::bind(&live, 0o600, None).unwrap_err();
        assert!(matches!(error, SocketError::Busy { .. }), "{error}");

        let file = dir.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        let error = ControlSocket::bind(&file, 0o600, None).unwrap_err();
        assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn the_lock_is_no_way_to_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join("s.lock")).unwrap();
        assert!(ControlSocket::bind(&dir.path().join("s"), 0o600, None).is_err());
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn another_daemons_new_socket_survives_our_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (held, _listener) = ControlSocket::bind(&path, 0o600, None).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "not ours").unwrap();
        drop(held);
        // The inode number may be used again at once; then this cannot tell.
        let reused = !path.exists();
        assert!(reused || std::fs::read_to_string(&path).unwrap() == "not ours");
    }
}
