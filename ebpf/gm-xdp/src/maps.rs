//! The maps, shared with user space; their layouts are in [`gm_abi::maps`].

use core::{arch::asm, ptr::read_volatile};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, XskMap},
};
use gm_abi::{
    maps::{
        Addr, CONFIG_LISTED, Config, ForeignKey, FragKey, LISTED_ADDRS, PORT_WORDS, STATE_WORDS,
        SaSlot, SlotDrops,
    },
    sample::SAMPLES_BYTES,
    source::{FRAGMENT_WORDS, PREFIX_PLACES, PrefixDrops, place_of, prefix_of},
    verdict::Reason,
    wire::{IpPacket, Words},
};

/// What the programs need to know; written before they are attached.
#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// The local addresses of the Gm link.
#[map]
pub static ADDRS: HashMap<Words, u32> = HashMap::with_max_entries(256, 0);

/// The same once more where they are few ([`CONFIG_LISTED`]).
#[map]
pub static LISTED: Array<[Words; LISTED_ADDRS]> = Array::with_max_entries(1, 0);

/// The protected local ports, one bit each.
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// The inbound SAs. The loader sets the number, a power of two.
#[map]
pub static SLOTS: Array<SaSlot> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// What was shed for each of them.
#[map]
pub static SLOT_DROPS: Array<SlotDrops> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// The inbound SAs whose SPI gmesp did not choose. Only user space writes it; most
/// hosts have none, so nothing is allocated beforehand.
#[map]
pub static FOREIGN: HashMap<ForeignKey, u32> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Outbound datagrams of which the first fragment was seen; 1: protected.
#[map]
pub static OUT_FRAGS: LruHashMap<FragKey, u32> = LruHashMap::with_max_entries(4096, 0);

/// One counter for each reason.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);

/// What was dropped, by source.
#[map]
pub static PREFIXES: Array<PrefixDrops> = Array::with_max_entries(PREFIX_PLACES, BPF_F_MMAPABLE);

/// The sources that are limited.
#[map]
pub static SOURCE_LIMITS: Array<u64> = Array::with_max_entries(PREFIX_PLACES, BPF_F_MMAPABLE);

/// How many fragments, and ICMP errors about ESP, may come in yet.
#[map]
pub static FRAGMENT_TOKENS: Array<u64> = Array::with_max_entries(FRAGMENT_WORDS, BPF_F_MMAPABLE);

/// How many samples may be made yet, by reason.
#[map]
pub static SAMPLE_TOKENS: Array<u64> =
    Array::with_max_entries(Reason::COUNT as u32, BPF_F_MMAPABLE);

/// What of this is in use.
#[map]
pub static STATE: Array<u64> = Array::with_max_entries(STATE_WORDS, BPF_F_MMAPABLE);

/// Samples of what was dropped.
#[map]
pub static SAMPLES: RingBuf = RingBuf::with_byte_size(SAMPLES_BYTES, 0);

/// The workers' sockets on the uplink, by receive queue.
#[map]
pub static XSK_UPLINK: XskMap = XskMap::with_max_entries(64, 0);

/// The workers' sockets on gm0x, by receive queue.
#[map]
pub static XSK_GM0X: XskMap = XskMap::with_max_entries(64, 0);

/// Whether ESP of SPIs that are not ours is left to SAs that somebody else has
/// put into the kernel. The loader sets it; the verifier takes it for a constant
/// and does not look at what it rules out.
#[unsafe(no_mangle)]
static KERNEL_SAS: u32 = 0;

/// See [`KERNEL_SAS`].
#[inline(always)]
pub fn kernel_sas() -> bool {
    // SAFETY: a static; volatile, or the compiler would take the value for its own.
    unsafe { read_volatile(&raw const KERNEL_SAS) != 0 }
}

/// Where each program keeps what it reads of an IP header, by `PLACE_*`: what
/// the verifier sees come out of a map it knows nothing about. On the stack it
/// would know too much: old ones (Linux 6.1) walk what follows once for each
/// way to get there. A program is not interrupted by itself.
#[map]
static SCRATCH: PerCpuArray<IpPacket> = PerCpuArray::with_max_entries(8, 0);

/// An empty header for the program at `place`.
#[inline(always)]
pub fn scratch(place: u8) -> Option<&'static mut IpPacket> {
    let ip = SCRATCH.get_ptr_mut(u32::from(place))?;
    // SAFETY: this CPU's copy, of which nobody else has a reference while the
    // program runs; it is written before it is read.
    unsafe {
        ip.write(IpPacket::EMPTY);
        Some(&mut *ip)
    }
}

/// Counts one packet for `reason` on this CPU.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason.index() as u32) {
        // SAFETY: the pointer is to a u64 of this CPU's copy of the map; no
        // other program on this CPU runs between load and store.
        unsafe { *counter += 1 };
    }
}

/// Counts one packet that was shed for the SA in `slot`.
#[inline(always)]
pub fn count_slot(slot: u32, reason: Reason) {
    let Some(drops) = SLOT_DROPS.get(slot) else {
        return;
    };
    let counter = match reason {
        Reason::Replay => &drops.replay,
        Reason::Stale => &drops.stale,
        Reason::ModeMismatch => &drops.mode_mismatch,
        Reason::IcvLimited => &drops.icv_limited,
        _ => return,
    };
    // SAFETY: a u64 in the map's value.
    unsafe { add(counter.as_ptr(), 1) };
}

/// Adds `n` atomically: several CPUs may do it at once, and Rust has no
/// fetch_add for BPF.
///
/// # Safety
///
/// `word` is in a map's value.
#[inline(always)]
pub unsafe fn add(word: *mut u64, n: i64) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {n}",
            word = in(reg) word,
            n = in(reg) n,
        );
    }
}

/// A word of `STATE`.
#[inline(always)]
pub fn state(word: u32) -> u64 {
    match STATE.get_ptr(word) {
        // SAFETY: a map value; user space may write it meanwhile.
        Some(word) => unsafe { read_volatile(word) },
        None => 0,
    }
}

/// The source that `addr` belongs to and its place, by [`gm_abi::source`].
#[inline(always)]
pub fn source_of(addr: &Addr, seed: u32) -> (u64, u32) {
    let prefix = prefix_of(addr);
    (prefix, place_of(prefix, seed))
}

/// The configuration; all zero as long as user space has written none.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// Whether `addr` is a local address of the Gm link.
#[inline(always)]
pub fn is_ours(addr: &Words, config: &Config) -> bool {
    if config.flags & CONFIG_LISTED == 0 {
        return ADDRS.get_ptr(addr).is_some();
    }
    let Some(listed) = LISTED.get(0) else {
        return false;
    };
    // The half that differs more first.
    let is = |at: &Words| {
        // SAFETY: words of a map's value; user space may write them meanwhile.
        unsafe { read_volatile(&at[1]) == addr[1] && read_volatile(&at[0]) == addr[0] }
    };
    *addr != [0, 0] && listed.iter().any(is)
}

/// An address of an [`IpPacket`] or of what one quotes, as words.
#[inline(always)]
pub fn words(addr: &Addr) -> Words {
    let at = addr.as_ptr().cast::<u64>();
    // SAFETY: both structures begin with their two addresses and are aligned
    // for words, as gm-abi asserts. Without volatile it would be sixteen loads.
    unsafe { [read_volatile(at), read_volatile(at.add(1))] }
}

/// Whether the local port `port` is one that the policy protects.
#[inline(always)]
pub fn is_protected(port: u16) -> bool {
    match PORTS.get(u32::from(port) / 64) {
        Some(word) => word >> (port % 64) & 1 != 0,
        None => true,
    }
}
