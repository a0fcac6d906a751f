//! `pcap seal`: every packet that an SA's selectors match is sealed.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::sync::atomic::AtomicU64;

use gm_abi::wire::L3;
use gm_api::sad::Sad;
use gm_esp::{
    BufferedIv, Counter, EncapPorts, InnerFlow, IvSource, PacketBuf, Reason, Sa, Selected,
};

use crate::capture::{Item, Packet, Reader, write_packet};
use crate::fragments::{Fragments, Whole};
use crate::frame::{self, Scratch};
use crate::{SaProblem, ToolError};

/// One SA as a sender holds it.
struct Sender {
    sa: Sa,
    /// The last sequence number used.
    last: AtomicU64,
}

/// Seals packets one after the other, with the SAs of a file.
pub struct Sealer {
    senders: Vec<Sender>,
    fragments: Fragments,
    ivs: Box<dyn IvSource>,
    scratch: Scratch,
    sealed: Vec<u8>,
}

/// What became of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'s> {
    /// Sealed; the packet behind its link header.
    Sealed(&'s [u8]),
    /// No SA's selectors match.
    NoSa,
    /// A fragment that is not the last one of its datagram.
    Fragment,
    /// Not sealed, though an SA matches or might have.
    Failed(Reason),
}

/// What became of all packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets written.
    pub sealed: u64,
    /// Packets that no SA matches.
    pub unmatched: u64,
    /// Fragments kept until the last one of their datagram, which counts as
    /// the datagram.
    pub fragments: u64,
    /// Packets left out because the SA's sequence numbers are used up.
    pub exhausted: u64,
    /// Packets left out because the SA names no UDP port to send to.
    pub no_port: u64,
    /// Packets left out because they are damaged, cut or too long to seal.
    pub unfit: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packets sealed, {} left out: no SA matches",
            self.sealed, self.unmatched
        )?;
        for (count, what) in [
            (self.fragments, "fragments put together, or never whole"),
            (self.exhausted, "left out: sequence numbers used up"),
            (
                self.no_port,
                "left out: SAD.toml names no encap_dport to send to",
            ),
            (self.unfit, "left out: damaged, cut or too long"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}

impl Totals {
    fn add(&mut self, outcome: &Outcome<'_>) {
        let count = match outcome {
            Outcome::Sealed(_) => &mut self.sealed,
            Outcome::NoSa => &mut self.unmatched,
            Outcome::Fragment => &mut self.fragments,
            Outcome::Failed(Reason::OutSeqExhausted) => &mut self.exhausted,
            Outcome::Failed(Reason::OutNoEncapPort) => &mut self.no_port,
            Outcome::Failed(_) => &mut self.unfit,
        };
        *count += 1;
    }
}

impl Sealer {
    /// Sets up every SA of the file, numbering from its `seq` or 1, with IVs
    /// from the operating system.
    ///
    /// # Errors
    /// [`SaProblem`] names the table that gm-esp does not take, or two that
    /// would use the same nonces.
    pub fn new(sad: &Sad) -> Result<Sealer, SaProblem> {
        let mut senders = Vec::with_capacity(sad.entries.len());
        let mut nonces: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, entry) in sad.entries.iter().enumerate() {
            let problem = |what: String| SaProblem::new(sad, entry.table, what);
            // GCM's and GMAC's nonces are salt, SPI and number: one SPI twice
            // with one key would give every nonce twice.
            if entry.spec.suite.transform().has_salt() {
                let same = nonces.entry(entry.spec.spi).or_default();
                let other = same.iter().map(|i| &sad.entries[*i]);
                if let Some(other) = other.into_iter().find(|o| o.keys == entry.keys) {
                    let what = format!(
                        "spi: [[sa]] #{} has this SPI and these keys; \
                         sealing with both would lose the key, give each its own SPI",
                        other.table
                    );
                    return Err(problem(what));
                }
                same.push(at);
            }
            let sa = Sa::new(entry.spec, &entry.keys).map_err(|e| problem(e.to_string()))?;
            let last = AtomicU64::new(entry.seq.map_or(0, |first| first.saturating_sub(1)));
            senders.push(Sender { sa, last });
        }
        Ok(Sealer {
            senders,
            fragments: Fragments::new(),
            ivs: Box::new(BufferedIv::new(random)),
            scratch: Scratch::default(),
            sealed: Vec::new(),
        })
    }

    /// Seals the next packet of the stream with the first SA that matches.
    ///
    /// # Errors
    /// [`ToolError::Output`] when a sealed packet has no place behind the
    /// link header: IPv4 and IPv6 are mixed on a link type that knows one.
    pub fn seal(&mut self, packet: &Packet) -> Result<Outcome<'_>, ToolError> {
        let ip = match frame::parse(packet.link, &packet.data) {
            L3::Ip(ip) => ip,
            L3::NotIp => return Ok(Outcome::NoSa),
            L3::Malformed => return Ok(Outcome::Failed(Reason::OutMalformed)),
        };
        let bytes = frame::ip_bytes(&packet.data, &ip);
        let bytes = match self.fragments.put_together(bytes, &ip, packet.at_ms) {
            Ok(Whole::Packet(bytes)) => bytes,
            Ok(Whole::NotYet) => return Ok(Outcome::Fragment),
            Err(reason) => return Ok(Outcome::Failed(reason)),
        };
        let flow = match gm_abi::wire::parse_ip(bytes, 0) {
            L3::Ip(whole) => InnerFlow::of(&whole),
            _ => return Ok(Outcome::Failed(Reason::OutMalformed)),
        };
        let matching = self.senders.iter().find(|s| s.sa.selector().matches(&flow));
        let Some(sender) = matching else {
            return Ok(Outcome::NoSa);
        };
        let (buffer, start, end) = self.scratch.load(bytes);
        let packet_buf = PacketBuf::new(buffer, start, end);
        let (start, end) = match through(sender, packet_buf, &mut *self.ivs) {
            Ok(range) => range,
            Err(reason) => return Ok(Outcome::Failed(reason)),
        };
        let esp = self.scratch.get(start..end);
        if frame::rewrap(packet.link, &packet.data, &ip, esp, &mut self.sealed) {
            Ok(Outcome::Sealed(&self.sealed))
        } else {
            Err(ToolError::wrong_version())
        }
    }
}

/// The states of a packet on its way out (gm-esp's picture). Returns where the
/// sealed packet begins and ends.
fn through(
    sender: &Sender,
    packet: PacketBuf<'_>,
    ivs: &mut dyn IvSource,
) -> Result<(usize, usize), Reason> {
    let counter = Counter(&sender.last);
    let numbered =
        Selected::new(packet, &sender.sa)?.number(&counter, EncapPorts::default(), ivs)?;
    let sealed = gm_esp::outbound::seal_one(gm_engines::reference(), numbered)?;
    Ok((sealed.packet().start(), sealed.packet().end()))
}

/// Random bytes of the operating system. Without them no packet may be sealed,
/// and no input leads there.
fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random numbers");
}

/// Seals a whole capture to `out`, in the input's format.
///
/// # Errors
/// [`ToolError`] says which of the two streams failed.
pub fn capture<R: Read, W: Write>(
    sealer: &mut Sealer,
    input: R,
    out: &mut W,
) -> Result<Totals, ToolError> {
    let mut totals = Totals::default();
    let mut reader = Reader::new(input)?;
    while let Some(item) = reader.next()? {
        let packet = match item {
            Item::Frame(bytes) => {
                out.write_all(&bytes).map_err(ToolError::Output)?;
                continue;
            }
            Item::Packet(packet) => packet,
        };
        let outcome = sealer.seal(&packet)?;
        totals.add(&outcome);
        if let Outcome::Sealed(bytes) = outcome {
            write_packet(out, &packet.stamp, bytes).map_err(ToolError::Output)?;
        }
    }
    Ok(totals)
}
