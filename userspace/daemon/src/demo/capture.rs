//! The capture that the wire writes, at the P-CSCF's end: pcapng of mode
//! 0600, because the first messages of a registration cross it in clear.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use gm_dataplane::Direction;

use crate::pcapng;

/// An open capture.
pub struct Capture(BufWriter<File>);

impl Capture {
    /// Makes the file; one that is there already is replaced.
    pub fn create(path: &Path) -> Result<Capture> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut writer = BufWriter::new(file);
        pcapng::write_header(&mut writer, "pc0").context("cannot start the capture")?;
        Ok(Capture(writer))
    }

    /// Appends a frame, stamped with the time of the call; the direction is
    /// the P-CSCF's.
    pub fn write(&mut self, frame: &[u8], direction: Direction) -> Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        pcapng::write_packet(&mut self.0, now, direction, frame)
            .context("cannot write the capture")?;
        Ok(())
    }

    /// Writes what is buffered.
    pub fn finish(mut self) -> Result<()> {
        self.0.flush().context("cannot write the capture")
    }
}
