//! The capture that the wire writes: pcapng, Ethernet, microseconds, mode
//! 0600, because the first messages of a registration cross it in clear.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;

/// An open capture.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
}

impl Capture<BufWriter<File>> {
    /// Makes the file; one that is there already is replaced.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut writer =
            PcapNgWriter::new(BufWriter::new(file)).context("cannot start the capture")?;
        let link = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
        writer
            .write_pcapng_block(link)
            .context("cannot start the capture")?;
        Ok(Capture { writer })
    }
}

impl<W: Write> Capture<W> {
    /// Appends a frame, stamped with the time of the call.
    pub fn write(&mut self, frame: &[u8]) -> Result<()> {
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            original_len: frame.len() as u32,
            data: Cow::Borrowed(frame),
            options: Vec::new(),
        };
        self.writer
            .write_pcapng_block(block)
            .context("cannot write the capture")?;
        Ok(())
    }

    /// Writes what is buffered.
    pub fn finish(self) -> Result<()> {
        self.writer
            .into_inner()
            .flush()
            .context("cannot write the capture")
    }
}
