//! Fragments put together before a packet is judged.
//!
//! The clock is the capture's: a datagram that is not whole within a minute
//! of its first fragment never will be (RFC 8200 4.5), and its identification
//! may come again for another one.

use gm_abi::wire::IpPacket;
use gm_esp::Reason;
use gm_esp::reassembly::{Datagram, Limits, Pushed, Reassembler};

/// Bounds for a capture with many sources; 256 bytes and a piece a fragment.
const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    per_source_bytes: 16 << 20,
    datagrams: 65_536,
    timeout_ms: 60_000,
};

/// What a packet is after reassembly.
pub(crate) enum Whole<'w> {
    /// An IP packet: it was no fragment, or the last one missing.
    Packet(&'w [u8]),
    /// A fragment of a datagram that is not whole yet.
    NotYet,
}

/// Datagrams that are not whole yet.
pub(crate) struct Fragments {
    waiting: Reassembler,
    /// The datagram that became whole last.
    whole: Option<Datagram>,
    /// The latest time in the capture, which need not be in order.
    now_ms: u64,
}

impl Fragments {
    pub(crate) fn new() -> Fragments {
        Fragments {
            waiting: Reassembler::new(LIMITS),
            whole: None,
            now_ms: 0,
        }
    }

    /// Takes the next packet of a capture, of which `ip` has been read.
    ///
    /// # Errors
    /// Those of [`Reassembler::push`].
    pub(crate) fn put_together<'w>(
        &'w mut self,
        packet: &'w [u8],
        ip: &IpPacket,
        at_ms: u64,
    ) -> Result<Whole<'w>, Reason> {
        if ip.frag.is_none() {
            return Ok(Whole::Packet(packet));
        }
        self.now_ms = self.now_ms.max(at_ms);
        self.waiting.expire(self.now_ms);
        match self.waiting.push(packet, self.now_ms)? {
            Pushed::Stored => Ok(Whole::NotYet),
            Pushed::Whole(datagram) => {
                let datagram = self.whole.insert(datagram);
                Ok(Whole::Packet(datagram.packet()))
            }
        }
    }
}
