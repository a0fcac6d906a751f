//! Output files that appear whole or not at all.
//!
//! What is written goes to a file beside the target, which takes the target's
//! name at the end; an error on the way leaves the target as it was. `-` is
//! standard output. Pipes and devices are written as they are.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Who may read the file once it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// The owner only: plaintext, mode 0600.
    Private,
    /// As the umask says.
    Usual,
}

enum Target {
    Stdout(io::Stdout),
    Direct(File),
    Temporary(NamedTempFile, PathBuf),
}

/// A file being written.
pub struct Output {
    writer: BufWriter<Target>,
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Stdout(stdout) => stdout.write(bytes),
            Target::Direct(file) => file.write(bytes),
            Target::Temporary(file, _) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Stdout(stdout) => stdout.flush(),
            Target::Direct(file) => file.flush(),
            Target::Temporary(file, _) => file.flush(),
        }
    }
}

impl Output {
    /// Begins an output at `path`; nothing is seen there before [`Output::finish`].
    pub fn create(path: &Path, secrecy: Secrecy) -> io::Result<Output> {
        let target = if is_stdio(path) {
            Target::Stdout(io::stdout())
        } else if path.metadata().is_ok_and(|m| !m.is_file()) {
            // A pipe or a device must not be replaced by a file.
            Target::Direct(OpenOptions::new().write(true).open(path)?)
        } else {
            let dir = match path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir,
                _ => Path::new("."),
            };
            let mode = match secrecy {
                Secrecy::Private => 0o600,
                Secrecy::Usual => 0o666,
            };
            let file = tempfile::Builder::new()
                .prefix(".gm-xfrm-")
                .permissions(Permissions::from_mode(mode))
                .tempfile_in(dir)?;
            Target::Temporary(file, path.to_path_buf())
        };
        Ok(Output {
            writer: BufWriter::with_capacity(1 << 16, target),
        })
    }

    /// Makes what was written visible under its name.
    pub fn finish(self) -> io::Result<()> {
        let target = self
            .writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        match target {
            Target::Stdout(mut stdout) => stdout.flush(),
            Target::Direct(mut file) => file.flush(),
            Target::Temporary(file, path) => file.persist(path).map(drop).map_err(|e| e.error),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Whether the path is `-`, standard input or output.
pub fn is_stdio(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether two paths name one file (or both standard output).
pub fn same_file(a: &Path, b: &Path) -> bool {
    if is_stdio(a) || is_stdio(b) {
        return is_stdio(a) && is_stdio(b);
    }
    if a == b {
        return true;
    }
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => a.is_file() && a.dev() == b.dev() && a.ino() == b.ino(),
        _ => match (whole_name(a), whole_name(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
    }
}

/// The path of a file that need not exist, with its directory resolved.
fn whole_name(path: &Path) -> Option<PathBuf> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    Some(dir.canonicalize().ok()?.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plain.pcap");
        std::fs::write(&path, "old").unwrap();

        let mut output = Output::create(&path, Secrecy::Private).unwrap();
        output.write_all(b"new").unwrap();
        output.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        output.finish().unwrap();

        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::create(&dir.path().join("a"), Secrecy::Usual).unwrap();
        output.write_all(b"half").unwrap();
        drop(output);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn one_file_under_two_names_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        assert!(same_file(&a, &dir.path().join("./a")));
        assert!(!same_file(&a, &b));
        std::fs::write(&a, "x").unwrap();
        std::fs::hard_link(&a, &b).unwrap();
        assert!(same_file(&a, &b));
        assert!(same_file(Path::new("-"), Path::new("-")));
        assert!(!same_file(Path::new("/dev/null"), Path::new("/dev/zero")));
    }
}
