//! The wire capture: a copy of what crosses the uplink, still sealed, into a
//! pcapng file. tcpdump on the uplink sees only what was opened and injected.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use gm_api::control::{ApiError, CaptureReply, CaptureRequest};

use gm_dataplane::TapPacket;

use crate::pcapng;

/// Packets that may wait for the disk; more are missed, never waited for.
const BACKLOG: usize = 8192;
/// Bound on the file unless the request names one: 1 GiB.
const MAX_BYTES: u64 = 1 << 30;
/// What was captured is in the file after this time at the latest.
const FLUSH: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
    missed: AtomicU64,
}

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    file: String,
    counts: Arc<Counts>,
    writer: JoinHandle<io::Result<()>>,
}

impl Capture {
    /// Creates the file, with mode 0600, and starts to write what comes over
    /// the channel. The capture ends when the channel's senders are gone.
    pub fn start(
        request: &CaptureRequest,
        interface: &str,
    ) -> Result<(Capture, Sender<TapPacket>), ApiError> {
        let path = Path::new(&request.file);
        if !path.is_absolute() {
            return Err(
                ApiError::new("bad-request", format!("{:?} is no absolute path", path))
                    .hint("the daemon has a working directory of its own; begin the path with /"),
            );
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| {
                let failed = ApiError::new("capture", format!("{}: {error}", path.display()));
                match error.kind() {
                    io::ErrorKind::AlreadyExists => {
                        failed.hint("name a file that is not there yet")
                    }
                    _ => failed.hint("name a directory that is there and that root may write"),
                }
            })?;
        let mut to = BufWriter::new(file);
        let failed =
            |error: io::Error| ApiError::new("capture", format!("{}: {error}", path.display()));
        let header = pcapng::write_header(&mut to, interface).map_err(failed)?;
        let counts = Arc::new(Counts {
            bytes: AtomicU64::new(header),
            ..Counts::default()
        });
        let (sender, receiver) = bounded(BACKLOG);
        let limit = request.max_bytes.unwrap_or(MAX_BYTES);
        let writer = {
            let counts = Arc::clone(&counts);
            std::thread::Builder::new()
                .name("gm-capture".into())
                .spawn(move || write(to, &receiver, &counts, limit))
                .map_err(failed)?
        };
        Ok((
            Capture {
                file: request.file.clone(),
                counts,
                writer,
            },
            sender,
        ))
    }

    /// The file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where the capture stands.
    pub fn reply(&self) -> CaptureReply {
        CaptureReply {
            file: self.file.clone(),
            packets: self.counts.packets.load(Ordering::Relaxed),
            bytes: self.counts.bytes.load(Ordering::Relaxed),
            missed: self.counts.missed.load(Ordering::Relaxed),
        }
    }

    /// Waits until everything is in the file; `missed` by the data plane are
    /// told too. The senders must be gone, or on their way.
    pub fn finish(self, missed: u64) -> Result<CaptureReply, ApiError> {
        let Capture {
            file,
            counts,
            writer,
        } = self;
        let result = writer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the writer has failed")));
        result.map_err(|error| {
            ApiError::new("capture", format!("{file}: {error}")).hint("is the disk full?")
        })?;
        Ok(CaptureReply {
            file,
            packets: counts.packets.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            missed: counts.missed.load(Ordering::Relaxed) + missed,
        })
    }
}

fn write(
    mut to: BufWriter<std::fs::File>,
    from: &Receiver<TapPacket>,
    counts: &Counts,
    limit: u64,
) -> io::Result<()> {
    loop {
        match from.recv_timeout(FLUSH) {
            Ok(packet) => {
                let size = pcapng::packet_size(packet.frame.len());
                if counts.bytes.load(Ordering::Relaxed).saturating_add(size) > limit {
                    counts.missed.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                pcapng::write_packet(&mut to, packet.at, packet.direction, &packet.frame)?;
                counts.bytes.fetch_add(size, Ordering::Relaxed);
                counts.packets.fetch_add(1, Ordering::Relaxed);
            }
            Err(RecvTimeoutError::Timeout) => to.flush()?,
            Err(RecvTimeoutError::Disconnected) => return to.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn packet(length: usize) -> TapPacket {
        TapPacket {
            at: Duration::from_secs(1_700_000_000),
            direction: gm_dataplane::Direction::In,
            frame: vec![7; length],
        }
    }

    fn request(file: &Path, max_bytes: Option<u64>) -> CaptureRequest {
        CaptureRequest {
            file: file.display().to_string(),
            max_bytes,
        }
    }

    #[test]
    fn the_file_is_private_whole_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.pcapng");
        let (capture, sender) = Capture::start(&request(&file, Some(400)), "eth0").unwrap();
        for _ in 0..5 {
            sender.send(packet(60)).unwrap();
        }
        drop(sender);
        let reply = capture.finish(0).unwrap();
        let metadata = std::fs::metadata(&file).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(metadata.len(), reply.bytes);
        assert!(reply.bytes <= 400, "{reply:?}");
        assert_eq!(reply.packets + reply.missed, 5);
        assert!(reply.packets > 0 && reply.missed > 0, "{reply:?}");
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "precious").unwrap();
        let link = dir.path().join("b");
        std::os::unix::fs::symlink(dir.path().join("c"), &link).unwrap();
        for path in [&file, &link] {
            let error = Capture::start(&request(path, None), "eth0").unwrap_err();
            assert!(error.hint.unwrap().contains("not there yet"));
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        assert!(Capture::start(&request(Path::new("a"), None), "eth0").is_err());
    }
}
