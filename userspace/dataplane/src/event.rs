//! What the data plane tells its owner without being asked.

use gm_sadb::SetId;

/// An event. They come through a bounded channel; one that nobody fetches is
/// left out, except that a worker's end always stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A verified packet came from another NAT port: packets of the set go
    /// there from now on.
    EncapPortLearned {
        /// The set.
        set: SetId,
        /// The phone's UDP port, host byte order.
        port: u16,
    },
    /// A router on the way to a phone has said how long packets may be, and
    /// quoted one of this SA's: it sends no longer ones for ten minutes.
    PathMtu {
        /// The set.
        set: SetId,
        /// The outbound SA.
        spi: u32,
        /// Bytes of an IP packet.
        mtu: u16,
    },
    /// An outbound SA comes to the end of its sequence numbers: renew the set.
    SeqLow {
        /// The set.
        set: SetId,
        /// The SA.
        spi: u32,
        /// Numbers left.
        remaining: u64,
    },
    /// An outbound SA has used all its sequence numbers and sends no more.
    Exhausted {
        /// The set.
        set: SetId,
        /// The SA.
        spi: u32,
    },
    /// A worker has panicked and was started again with its SAs.
    WorkerRestarted {
        /// Its number.
        worker: u32,
        /// What it said.
        why: String,
    },
    /// A worker has panicked too often; the others have its work.
    WorkerGone {
        /// Its number.
        worker: u32,
        /// What it said.
        why: String,
    },
    /// The uplink is gone. What is protected is dropped until it is back.
    UplinkGone,
    /// An uplink of the same name is there again and carries what the SAs
    /// protect.
    UplinkBack,
    /// The last worker has stopped; nothing that is protected goes through any more.
    WorkerStopped {
        /// Its number.
        worker: u32,
        /// What it said.
        why: String,
    },
}
