//! `pcap open`: every packet of a capture gets a verdict, and what could be
//! opened is written.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{Read, Write};
use std::net::IpAddr;

use gm_abi::wire::L3;
use gm_api::sad::Sad;
use gm_esp::{OwnedWindow, PacketBuf, Reason, Received, Sa};

use crate::capture::{Item, Packet, Reader, write_packet};
use crate::fragments::{Fragments, Whole};
use crate::frame::{self, Scratch};
use crate::verdict::{Line, Verdict};
use crate::{SaProblem, ToolError};

/// One SA as a receiver holds it.
struct Receiver {
    sa: Sa,
    window: OwnedWindow,
}

/// Opens packets one after the other, with the SAs of a file.
///
/// All SAs are taken as inbound: a capture shows both directions.
pub struct Opener {
    receivers: Vec<Receiver>,
    by_id: HashMap<(IpAddr, u32), usize>,
    fragments: Fragments,
    scratch: Scratch,
    opened: Vec<u8>,
    count: u64,
}

/// What became of one packet.
pub struct Judged<'o> {
    /// Its line in the report.
    pub line: Line,
    /// With the verdict ok: the opened packet behind its link header.
    pub plain: Option<&'o [u8]>,
}

/// How many packets got which verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals(BTreeMap<Verdict, u64>);

impl Totals {
    /// Packets with this verdict.
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.0.get(&verdict).copied().unwrap_or(0)
    }

    /// All packets.
    pub fn packets(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets", self.packets())?;
        // The good ones first.
        for (at, verdict) in Verdict::ALL.into_iter().rev().enumerate() {
            if self.of(verdict) > 0 || at == 0 {
                let mark = if at == 0 { ": " } else { ", " };
                write!(f, "{mark}{} {verdict}", self.of(verdict))?;
            }
        }
        Ok(())
    }
}

/// Why a packet was not opened, with SPI and sequence number as far as read.
struct Refused {
    head: Option<(u32, u32)>,
    verdict: Verdict,
}

impl Refused {
    fn unread(verdict: Verdict) -> Refused {
        Refused {
            head: None,
            verdict,
        }
    }
}

impl Opener {
    /// Sets up every SA of the file with a fresh replay window: of
    /// `replay_window` packets if given, else of the size that the file says.
    ///
    /// # Errors
    /// [`SaProblem`] names the table that gm-esp does not take.
    pub fn new(sad: &Sad, replay_window: Option<u32>) -> Result<Opener, SaProblem> {
        let mut receivers = Vec::with_capacity(sad.entries.len());
        let mut by_id = HashMap::new();
        for entry in &sad.entries {
            let mut spec = entry.spec;
            spec.replay_window = replay_window.unwrap_or(spec.replay_window);
            let problem = |what: String| SaProblem::new(sad, entry.table, what);
            let sa = Sa::new(spec, &entry.keys).map_err(|e| problem(e.to_string()))?;
            let window =
                OwnedWindow::new(spec.replay_window).map_err(|e| problem(e.to_string()))?;
            by_id.insert((entry.destination(), spec.spi), receivers.len());
            receivers.push(Receiver { sa, window });
        }
        Ok(Opener {
            receivers,
            by_id,
            fragments: Fragments::new(),
            scratch: Scratch::default(),
            opened: Vec::new(),
            count: 0,
        })
    }

    /// Judges the next packet of the stream.
    ///
    /// # Errors
    /// [`ToolError::Output`] when an opened packet has no place behind the
    /// link header: IPv4 and IPv6 are mixed on a link type that knows one.
    pub fn judge(&mut self, packet: &Packet) -> Result<Judged<'_>, ToolError> {
        let index = self.count;
        self.count += 1;
        let (head, verdict) = match self.open(packet)? {
            Ok(head) => (Some(head), Verdict::Ok),
            Err(refused) => (refused.head, refused.verdict),
        };
        Ok(Judged {
            line: Line {
                index,
                spi: head.map(|(spi, _)| spi),
                seq: head.map(|(_, seq)| seq),
                verdict,
            },
            plain: (verdict == Verdict::Ok).then_some(self.opened.as_slice()),
        })
    }

    /// The whole way of one packet; `self.opened` holds what came of it.
    fn open(&mut self, packet: &Packet) -> Result<Result<(u32, u32), Refused>, ToolError> {
        let ip = match frame::parse(packet.link, &packet.data) {
            L3::Ip(ip) => ip,
            L3::NotIp => return Ok(Err(Refused::unread(Verdict::NotEsp))),
            L3::Malformed => return Ok(Err(Refused::unread(Verdict::Malformed))),
        };
        let bytes = frame::ip_bytes(&packet.data, &ip);
        let bytes = match self.fragments.put_together(bytes, &ip, packet.at_ms) {
            Ok(Whole::Packet(bytes)) => bytes,
            Ok(Whole::NotYet) => return Ok(Err(Refused::unread(Verdict::Fragment))),
            Err(reason) => return Ok(Err(Refused::unread(Verdict::from_reason(reason)))),
        };
        let (buffer, start, end) = self.scratch.load(bytes);
        let (head, start, end) = match through(
            &self.receivers,
            &self.by_id,
            PacketBuf::new(buffer, start, end),
        ) {
            Ok(admitted) => admitted,
            Err(refused) => return Ok(Err(refused)),
        };
        let plain = self.scratch.get(start..end);
        if frame::rewrap(packet.link, &packet.data, &ip, plain, &mut self.opened) {
            Ok(Ok(head))
        } else {
            Err(ToolError::wrong_version())
        }
    }
}

/// The states of a received packet, one after the other (gm-esp's picture).
/// Returns SPI, sequence number and where the plain packet begins and ends.
fn through(
    receivers: &[Receiver],
    by_id: &HashMap<(IpAddr, u32), usize>,
    packet: PacketBuf<'_>,
) -> Result<((u32, u32), usize, usize), Refused> {
    let received =
        Received::parse(packet, gm_esp::EncapPort::Either(4500)).map_err(|r| Refused {
            head: r.spi.zip(r.seq),
            verdict: Verdict::from_reason(r.reason),
        })?;
    let head = (received.spi(), received.seq());
    let refused = |reason: Reason| Refused {
        head: Some(head),
        verdict: Verdict::from_reason(reason),
    };
    let receiver = by_id
        .get(&(received.destination(), head.0))
        .and_then(|at| receivers.get(*at))
        .ok_or_else(|| refused(Reason::UnknownSpi))?;
    let window = receiver.window.window();
    let admitted = received
        .check(&receiver.sa, &window)
        .and_then(|checked| gm_esp::inbound::open_one(gm_engines::reference(), checked))
        .and_then(|opened| opened.commit(&window))
        .and_then(|committed| committed.admit())
        .map_err(refused)?;
    Ok((head, admitted.packet().start(), admitted.packet().end()))
}

/// Opens a whole capture: plain packets to `plain`, in the input's format, and
/// a line of JSON per packet to `report`.
///
/// # Errors
/// [`ToolError`] says which of the three streams failed, or which SA.
pub fn capture<R: Read, P: Write, L: Write>(
    sad: &Sad,
    replay_window: Option<u32>,
    input: R,
    plain: &mut P,
    report: &mut L,
) -> Result<Totals, ToolError> {
    let mut opener = Opener::new(sad, replay_window)?;
    let mut totals = Totals::default();
    let mut reader = Reader::new(input)?;
    while let Some(item) = reader.next()? {
        let packet = match item {
            Item::Frame(bytes) => {
                plain.write_all(&bytes).map_err(ToolError::Output)?;
                continue;
            }
            Item::Packet(packet) => packet,
        };
        let judged = opener.judge(&packet)?;
        *totals.0.entry(judged.line.verdict).or_default() += 1;
        let mut line = serde_json::to_vec(&judged.line).map_err(|e| ToolError::Report(e.into()))?;
        line.push(b'\n');
        report.write_all(&line).map_err(ToolError::Report)?;
        if let Some(bytes) = judged.plain {
            write_packet(plain, &packet.stamp, bytes).map_err(ToolError::Output)?;
        }
    }
    Ok(totals)
}
