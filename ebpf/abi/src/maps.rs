//! Layouts of BPF map keys and values.
//!
//! `repr(C)`, no `bool`, no padding, addresses and SPIs in network byte order,
//! everything else in the host's. IPv4 addresses are IPv4-mapped IPv6
//! addresses (RFC 4291 2.5.5.2). The sizes are asserted; user space and the
//! BPF object must come from the same source (`ABI_VERSION`).

#[cfg(not(target_arch = "bpf"))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64};

#[cfg(target_arch = "bpf")]
pub(crate) use bpf::{AtomicU32, AtomicU64};

/// The compiler has no usable atomics for the BPF that Linux 6.1 runs: none of
/// 32 bits, and no way to emit a relaxed load. The programs take the pointer
/// and do one volatile load, which is one instruction.
#[cfg(target_arch = "bpf")]
mod bpf {
    /// Stands for `core::sync::atomic::AtomicU32`.
    pub type AtomicU32 = Word<u32>;
    /// Stands for `core::sync::atomic::AtomicU64`.
    pub type AtomicU64 = Word<u64>;

    /// A word that user space or another CPU writes.
    #[repr(transparent)]
    #[derive(Debug, Default)]
    pub struct Word<T>(T);

    impl<T> Word<T> {
        /// Where the word is.
        #[inline(always)]
        pub const fn as_ptr(&self) -> *mut T {
            (&raw const self.0).cast_mut()
        }
    }
}

/// Changes when any layout here changes. Kept in [`Config`]; a loader refuses
/// an object or a pinned map of another version.
pub const ABI_VERSION: u32 = 4;

/// First SPI that gmesp chooses for itself: ten digits, as Annex H wants.
pub const SPI_BASE: u32 = 1_000_000_000;

/// An IPv4-mapped or an IPv6 address, network byte order.
pub type Addr = [u8; 16];

/// `mode` of a [`SaSlot`]: transport mode, raw ESP.
pub const MODE_TRANS: u8 = 1;
/// `mode` of a [`SaSlot`]: UDP-encapsulated tunnel mode.
pub const MODE_UDP_ENC_TUN: u8 = 2;

/// What the BPF programs need to know, one entry in the array map `CONFIG`.
/// Written once before the programs are attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// [`ABI_VERSION`].
    pub abi: u32,
    /// Number of slots less one; the number of slots is a power of two.
    pub slot_mask: u32,
    /// Interface index of the uplink: where opened packets are injected.
    pub uplink: u32,
    /// Interface index of gm0: where outbound packets are taken to.
    pub gm0: u32,
    /// Random non-zero mark of injected packets; unknown outside the host.
    pub cookie: u32,
    /// UDP port of UDP-encapsulated ESP at this host, host byte order; 0: none.
    pub encap_port: u32,
    /// Any of `CONFIG_*`.
    pub flags: u32,
    /// Random: with it a source's place and tag cannot be foreseen
    /// ([`crate::source`]).
    pub seed: u32,
}

/// Flag in [`Config`]: XDP on the uplink runs in the driver, so that it may
/// shed cleartext to protected ports by itself. In generic mode it must not:
/// there it meets the packets again that gm0 injects.
pub const CONFIG_SHED_CLEARTEXT: u32 = 1;

/// Flag in [`Config`]: all addresses of `ADDRS` stand in `LISTED` too, and
/// nobody need look them up by a hash.
pub const CONFIG_LISTED: u32 = 2;

/// Addresses in the only entry of the array map `LISTED`. A place that is all
/// zero has none; an address that stays does not change its place.
pub const LISTED_ADDRS: usize = 4;

/// Key of the hash map `ADDRS`: the local addresses of the Gm link. The value
/// is a `u32` of no meaning.
pub type AddrKey = Addr;

/// Number of `u64` words in the array map `PORTS`: one bit for each of the
/// 65 536 ports, bit `port % 64` of word `port / 64`. A set bit: protected.
pub const PORT_WORDS: u32 = 1024;

/// Key of the hash map `FOREIGN`: inbound SAs whose SPI gmesp did not choose.
/// The value is the slot (`u32`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ForeignKey {
    /// Destination address of the packet (the local end).
    pub dst: Addr,
    /// SPI, network byte order.
    pub spi: [u8; 4],
}

/// Key of the LRU map `OUT_FRAGS`: remembers that the first fragment of an
/// outbound datagram was protected, so that the rest follows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Identification; IPv4's 16 bits are in the low half.
    pub id: u32,
    /// IP protocol.
    pub proto: u32,
}

/// Cells of the window published for XDP: 4 x 32 sequence numbers.
pub const WINDOW_CELLS: usize = 4;

/// An inbound SA as XDP sees it: one cache line in the memory-mapped array map
/// `SLOTS`. User space writes it, XDP only reads.
///
/// The window here is a hint that lags behind the authority (the region's
/// window): XDP drops what it surely knows to be stale or a replay and lets
/// everything else through to the worker (ARCHITECTURE, rule 1). `top` only grows.
/// A cell packs `block << 32 | bits`, where `block = seq / 32` and bit
/// `seq % 32` says that the number was accepted; number `seq` lives in cell
/// `block % WINDOW_CELLS`. A cell that carries another block says nothing.
///
/// `flags` has more writers than one: the control side that installs, the SA's
/// worker (the tag), whoever limits. Change it by compare and exchange.
///
/// To publish a slot, write `spi` last; to take it back, zero `spi` first.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct SaSlot {
    /// SPI, network byte order as read from the packet with a native-endian
    /// load (`u32::from_ne_bytes`); zero: free.
    pub spi: AtomicU32,
    /// Bits 0..8: mode. [`SLOT_PUBLISHED`], [`SLOT_LIMITED`]. Bits 16..32: the
    /// tag ([`crate::source::tag_of`]) of where the newest verified packet has
    /// come from; zero: not known.
    pub flags: AtomicU32,
    /// Destination address, as four native-endian words of its 16 bytes.
    pub dst: [AtomicU32; 4],
    /// Highest sequence number accepted so far.
    pub top: AtomicU32,
    /// Size of the replay window.
    pub window: AtomicU32,
    /// The newest part of the window.
    pub cells: [AtomicU64; WINDOW_CELLS],
}

/// Flag in [`SaSlot`]: the window is published (no ESN).
pub const SLOT_PUBLISHED: u32 = 1 << 8;
/// Flag in [`SaSlot`]: ICVs for this SA keep failing. XDP drops as
/// [`crate::verdict::Reason::IcvLimited`] what has another tag than the slot
/// (where that is known), and, where the window is published, numbers that are
/// neither in the window nor at most [`LIMITED_AHEAD`] above its top.
pub const SLOT_LIMITED: u32 = 1 << 9;
/// Where the tag begins in the flags of a [`SaSlot`].
pub const SLOT_TAG_SHIFT: u32 = 16;
/// How far above the top a number may be while an SA is limited.
pub const LIMITED_AHEAD: u32 = 1024;

/// Number of `u64` words in the memory-mapped array map `STATE`; user space
/// writes them, BPF reads.
pub const STATE_WORDS: u32 = 8;
/// Word of `STATE`: how many sources are in `SOURCE_LIMITS`. Zero: nobody
/// looks there.
pub const STATE_LIMITED: u32 = 0;
/// Word of `STATE`: not zero while somebody refills `FRAGMENT_TOKENS`. Zero:
/// the rate of fragments and of ICMP errors is not limited.
pub const STATE_FRAGMENT_RATE: u32 = 1;
/// Word of `STATE`: not zero while SAs go back to the kernel. Then the ESP that
/// the kernel has sealed takes the way of what a worker seals, so that it does
/// not overtake that. Looked at only where the kernel's SAs are tolerated.
pub const STATE_TRANSIT: u32 = 2;

const _: () = assert!(size_of::<SaSlot>() == 64);
const _: () = assert!(size_of::<Config>() == 32);
const _: () = assert!(size_of::<ForeignKey>() == 20);
const _: () = assert!(size_of::<FragKey>() == 40);
const _: () = assert!(size_of::<Meta>() == 16);
const _: () = assert!(size_of::<SlotDrops>() == 32);

/// What XDP shed for one SA, in the memory-mapped array map `SLOT_DROPS`;
/// XDP adds, user space zeroes when the slot is taken.
#[repr(C)]
#[derive(Debug, Default)]
pub struct SlotDrops {
    /// [`crate::verdict::Reason::Replay`].
    pub replay: AtomicU64,
    /// [`crate::verdict::Reason::Stale`].
    pub stale: AtomicU64,
    /// [`crate::verdict::Reason::ModeMismatch`].
    pub mode_mismatch: AtomicU64,
    /// [`crate::verdict::Reason::IcvLimited`].
    pub icv_limited: AtomicU64,
}

/// `kind` of [`Meta`]: ESP for `slot`.
pub const META_ESP: u8 = 1;
/// `kind` of [`Meta`]: UDP-encapsulated ESP for `slot`.
pub const META_UDP_ESP: u8 = 2;
/// `kind` of [`Meta`]: a fragment; `slot` means nothing.
pub const META_FRAGMENT: u8 = 3;
/// `kind` of [`Meta`]: outbound cleartext; `slot` means nothing.
pub const META_OUTBOUND: u8 = 4;
/// `kind` of [`Meta`]: an ICMP error about ESP of ours; `esp` is the offset of
/// the ICMP header, `slot` means nothing.
pub const META_ICMP: u8 = 5;

/// What XDP tells the worker, in the 16 bytes of metadata in front of the
/// frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The SA's slot.
    pub slot: u32,
    /// Offset of the ESP header (of a fragment, of what is to be sealed, of an
    /// ICMP error: of what follows the IP header) from the start of the frame.
    pub esp: u16,
    /// Offset of the IP header from the start of the frame.
    pub l3: u8,
    /// One of `META_*`.
    pub kind: u8,
    /// [`META_MAGIC`].
    pub magic: u32,
    /// Reserved, zero.
    pub reserved: u32,
}

/// Guards against metadata that is none.
pub const META_MAGIC: u32 = 0x676d_6573;

impl Meta {
    /// Reads the metadata from the bytes in front of a frame.
    pub fn from_bytes(b: [u8; 16]) -> Option<Meta> {
        let word = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let meta = Meta {
            slot: word(0),
            esp: u16::from_ne_bytes([b[4], b[5]]),
            l3: b[6],
            kind: b[7],
            magic: word(8),
            reserved: word(12),
        };
        (meta.magic == META_MAGIC).then_some(meta)
    }
}

/// The IPv4-mapped form of an IPv4 address.
pub const fn mapped(v4: [u8; 4]) -> Addr {
    [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3],
    ]
}
