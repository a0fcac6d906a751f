//! Every reason to pass, steer, deliver or drop a packet.
//!
//! One variant is one counter is one metric is one word in a report: the BPF
//! programs index the per-CPU counter map with it, the workers count with it,
//! `gmespctl stats` and `gm-xfrm pcap open` print its name.

/// What happens to a packet for a [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Action {
    /// The packet goes on as if gmesp were not there.
    Pass,
    /// The packet is handed to a worker (AF_XDP or the gm0 device).
    Steer,
    /// A worker has done its work on the packet and sent it on.
    Deliver,
    /// The packet ends here.
    Drop,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $action:ident;)+) => {
        /// Why a packet was passed, steered, delivered or dropped.
        ///
        /// The discriminant is the index of the reason's counter. Append only:
        /// a pinned counter map outlives the process that made it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// All reasons in the order of their discriminants.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// Number of reasons, so the size of a counter array.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in reports and metrics, in kebab case.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)+ }
            }

            /// What happens to a packet for this reason.
            pub const fn action(self) -> Action {
                match self { $(Reason::$variant => Action::$action,)+ }
            }

            /// One sentence for the operator: what the packet ran into.
            pub const fn explain(self) -> &'static str {
                match self { $(Reason::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

reasons! {
    // --- pass: not ours -----------------------------------------------------
    /// Not addressed to the Gm link, or nothing that it protects.
    PassOther = "pass-other", Pass;
    /// UDP 4500 with the non-ESP marker (RFC 3948 2.2): left to an IKE daemon.
    PassNonEspMarker = "pass-non-esp-marker", Pass;
    /// A packet that a worker has opened and injected; the guard lets it through.
    PassInjected = "pass-injected", Pass;

    // --- steer: to a worker --------------------------------------------------
    /// ESP for a known SA, handed to a worker.
    SteerEsp = "steer-esp", Steer;
    /// UDP-encapsulated ESP for a known SA, handed to a worker.
    SteerUdpEsp = "steer-udp-esp", Steer;
    /// A fragment to a Gm address, handed to a worker's reassembly.
    SteerFragment = "steer-fragment", Steer;
    /// Outbound traffic that the policy protects, taken before the NIC.
    SteerOutbound = "steer-outbound", Steer;

    // --- deliver: a worker's good ends ---------------------------------------
    /// Opened, checked and handed to the local stack.
    Ok = "ok", Deliver;
    /// Sealed and sent.
    Sealed = "sealed", Deliver;
    /// A fragment kept for reassembly; the datagram is judged when it is whole.
    Fragment = "fragment", Deliver;
    /// A reassembled cleartext datagram for an unprotected port, handed to the local stack.
    ClearReassembled = "clear-reassembled", Deliver;

    // --- drop: inbound, in the order in which it is decided ------------------
    /// Neither protocol 50 nor UDP port 4500 carrying ESP.
    NotEsp = "not-esp", Drop;
    /// Lengths in the headers contradict the packet, or it is too short for its SA.
    Malformed = "malformed", Drop;
    /// NAT keepalive, one byte 0xFF to UDP 4500 (RFC 3948 4): swallowed.
    Keepalive = "keepalive", Drop;
    /// No SA for this destination and SPI.
    UnknownSpi = "unknown-spi", Drop;
    /// Raw ESP on a UDP-enc-tun SA, or UDP-encapsulated ESP on a transport mode SA.
    ModeMismatch = "mode-mismatch", Drop;
    /// A sequence number that was accepted before, or zero.
    Replay = "replay", Drop;
    /// A sequence number left of the replay window.
    Stale = "stale", Drop;
    /// The ICV does not verify: tampered with, or the ends hold different keys.
    BadIcv = "bad-icv", Drop;
    /// Next header 59, a dummy packet (RFC 4303 2.6; TS 33.203 6.2 forbids sending them).
    Dummy = "dummy", Drop;
    /// Opened, but the inner addresses, ports or protocol are not the SA's (RFC 4301 5.2).
    SelectorMismatch = "selector-mismatch", Drop;

    // --- drop: the guard -----------------------------------------------------
    /// Cleartext to a protected port (TS 33.203 7.1): spoofed, or a peer without SAs.
    CleartextProtected = "cleartext-protected", Drop;

    // --- drop: outbound ------------------------------------------------------
    /// Outbound traffic that the policy protects, and no active SA matches.
    OutNoSa = "out-no-sa", Drop;
    /// The outbound sequence number is used up; the SA must be renewed.
    OutSeqExhausted = "out-seq-exhausted", Drop;
    /// The NAT port of the phone is not known yet: nothing verified has come from it.
    OutNoEncapPort = "out-no-encap-port", Drop;
    /// Outbound traffic that cannot be parsed; fail closed.
    OutMalformed = "out-malformed", Drop;
    /// Larger than the packet can be sent, sealed, and not to be fragmented.
    OutTooBig = "out-too-big", Drop;

    // --- drop: reassembly ----------------------------------------------------
    /// A fragment that overlaps another one (RFC 5722).
    FragmentOverlap = "fragment-overlap", Drop;
    /// Fragments of a datagram that did not become whole in time.
    FragmentTimeout = "fragment-timeout", Drop;
    /// Fragments over the bound on memory, in all or for one source.
    FragmentLimit = "fragment-limit", Drop;

    // --- drop: resources -----------------------------------------------------
    /// No free frame; the worker cannot keep up.
    NoFrame = "no-frame", Drop;
    /// A transmit ring is full; the NIC or the local stack cannot keep up.
    RingFull = "ring-full", Drop;
    /// No worker listens on the queue; fail closed.
    NoWorker = "no-worker", Drop;

    // --- ICMP, in the order in which it is decided ---------------------------
    /// An ICMP error about ESP of ours, handed to a worker.
    SteerIcmp = "steer-icmp", Steer;
    /// An ICMP error that says how large a packet may be on the way to the phone: ESP to it is made to fit.
    PathMtu = "path-mtu", Deliver;
    /// An ICMP error that says that ESP of ours has not reached the phone: noted, nothing changes.
    PeerUnreachable = "peer-unreachable", Deliver;
    /// An ICMP error about ESP that no SA has lately sent: forged, or late; or one more than are looked at.
    IcmpUnbelieved = "icmp-unbelieved", Drop;
    /// An ICMP error that quotes, in clear, UDP or TCP of a protected port: on the wire that is ESP, so it is forged.
    ClearIcmp = "clear-icmp", Drop;

    // --- drop: under attack --------------------------------------------------
    /// ICVs for this SA or from this source keep failing: until that ends, ESP that is not from where the phone last was, or is far from its numbers, is not tried.
    IcvLimited = "icv-limited", Drop;
    /// More fragments in a tenth of a second than are taken, in all or from one source.
    FragmentRate = "fragment-rate", Drop;
    /// The worker that has the SA cannot keep up with what other queues hand over to it.
    HandoverFull = "handover-full", Drop;

    // --- pass: somebody else's SAs -------------------------------------------
    /// ESP for no SA of gmesp's, left to the SAs that the kernel has (`kernel_sas`).
    PassKernelSa = "pass-kernel-sa", Pass;
}

impl Reason {
    /// The index of this reason's counter.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Which counter of [`PrefixDrops`](crate::source::PrefixDrops) is this
    /// reason's; `None` for what is no drop. Arithmetic, because the
    /// compiler for BPF would make a table of a `match`, and a table is a map.
    #[inline(always)]
    pub const fn drop_index(self) -> Option<usize> {
        let at = self as usize;
        if at < FIRST_DROP || (at >= FIRST_ICMP && at < FIRST_LATE_DROP) || at >= FIRST_LATE_PASS {
            None
        } else if at < FIRST_ICMP {
            Some(at - FIRST_DROP)
        } else {
            Some(at - FIRST_DROP - (FIRST_LATE_DROP - FIRST_ICMP))
        }
    }

    /// The reason with this counter index.
    pub fn from_index(index: usize) -> Option<Reason> {
        Self::ALL.get(index).copied()
    }
}

/// The reasons from here on to [`FIRST_ICMP`] are drops,
const FIRST_DROP: usize = Reason::NotEsp as usize;
/// those from here on to [`FIRST_LATE_DROP`] are none,
const FIRST_ICMP: usize = Reason::SteerIcmp as usize;
/// those from here on to [`FIRST_LATE_PASS`] are drops again,
const FIRST_LATE_DROP: usize = Reason::IcmpUnbelieved as usize;
/// and the rest are none.
const FIRST_LATE_PASS: usize = Reason::PassKernelSa as usize;

/// Number of reasons to drop a packet.
pub const DROP_COUNT: usize = FIRST_LATE_PASS - FIRST_DROP - (FIRST_LATE_DROP - FIRST_ICMP);

const _: () = {
    let (mut i, mut drops) = (0, 0);
    while i < Reason::COUNT {
        let reason = Reason::ALL[i];
        match reason.drop_index() {
            Some(at) => {
                assert!(matches!(reason.action(), Action::Drop) && at == drops);
                drops += 1;
            }
            None => assert!(!matches!(reason.action(), Action::Drop)),
        }
        i += 1;
    }
    assert!(drops == DROP_COUNT);
};
