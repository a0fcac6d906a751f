//! Uplink, step 2: the SA, its mode, and what is surely a replay.
//!
//! Nothing is authenticated yet, so nothing is marked here: the worker commits
//! the window after the ICV has verified (RFC 4303 3.4.3). What user space has
//! published may lag behind; it lets a packet through too many, never drops
//! one too many.

use core::ptr::read_volatile;

use gm_abi::{
    maps::{
        Addr, Config, ForeignKey, LIMITED_AHEAD, MODE_TRANS, MODE_UDP_ENC_TUN, SLOT_LIMITED,
        SLOT_PUBLISHED, SLOT_TAG_SHIFT, SPI_BASE, STATE_FRAGMENT_RATE, STATE_LIMITED, SaSlot,
        WINDOW_CELLS,
    },
    source::{ICMP_TOKENS, tag_of},
    verdict::Reason,
    wire::{IpPacket, PlainEsp},
};

use crate::{
    classify::Esp,
    maps::{FOREIGN, FRAGMENT_TOKENS, SLOTS, SOURCE_LIMITS, add, kernel_sas, source_of, state},
};

/// A packet that does not go to a worker.
pub struct Shed {
    /// Why.
    pub reason: Reason,
    /// The SA's slot, where it was found.
    pub slot: Option<u32>,
}

/// Finds the slot of the packet's SA and checks what can be checked without
/// its key. `ip` is the packet's IP header.
#[inline(always)]
pub fn check(esp: &Esp, ip: &IpPacket, config: &Config) -> Result<u32, Shed> {
    let Some((slot, sa)) = find(esp, &ip.dst, config) else {
        let reason = if kernel_sas() {
            Reason::PassKernelSa
        } else {
            Reason::UnknownSpi
        };
        return Err(Shed { reason, slot: None });
    };
    let shed = |reason| Shed {
        reason,
        slot: Some(slot),
    };
    let flags = load(sa.flags.as_ptr());
    let mode = if esp.in_udp {
        MODE_UDP_ENC_TUN
    } else {
        MODE_TRANS
    };
    if flags as u8 != mode {
        return Err(shed(Reason::ModeMismatch));
    }
    if flags & SLOT_PUBLISHED != 0 {
        window(sa, esp.seq).map_err(shed)?
    }
    let sources = state(STATE_LIMITED) != 0;
    if (flags & SLOT_LIMITED != 0 || sources) && is_limited(esp, sa, flags, sources, ip, config) {
        return Err(shed(Reason::IcvLimited));
    }
    Ok(slot)
}

/// The slot of a live SA of ours that takes this packet, where nothing is to be
/// said against it: no limit is in force, and it is no replay. `None`: [`check`]
/// has to look.
#[inline(always)]
pub fn is_plain(esp: &PlainEsp, config: &Config) -> Option<u32> {
    let slot = esp.spi.checked_sub(SPI_BASE)? & config.slot_mask;
    let sa = SLOTS.get(slot)?;
    let dst: *const u64 = sa.dst[0].as_ptr().cast();
    // SAFETY: the four words of the destination, which are aligned for two.
    let (low, high) = unsafe { (read_volatile(dst), read_volatile(dst.add(1))) };
    let mode = if esp.in_udp {
        MODE_UDP_ENC_TUN
    } else {
        MODE_TRANS
    };
    let flags = load(sa.flags.as_ptr());
    if load(sa.spi.as_ptr()) != esp.spi.to_be()
        || [low, high] != esp.dst
        || flags as u8 != mode
        || flags & SLOT_LIMITED != 0
        || flags & SLOT_PUBLISHED != 0 && window(sa, esp.seq).is_err()
        || state(STATE_LIMITED) != 0
    {
        return None;
    }
    Some(slot)
}

/// ICVs of the SA or from the source keep failing: whether this packet is
/// likely to be one of those.
#[inline(always)]
fn is_limited(
    esp: &Esp,
    sa: &SaSlot,
    flags: u32,
    sources: bool,
    ip: &IpPacket,
    config: &Config,
) -> bool {
    let port = match ip.ports {
        Some((port, _)) if esp.in_udp => port,
        _ => 0,
    };
    let known = flags >> SLOT_TAG_SHIFT;
    if known != u32::from(tag_of(&ip.src, port, config.seed)) {
        let limited = flags & SLOT_LIMITED != 0;
        // An SA of which nothing has verified takes anybody's, one at a time. It
        // may be that of a new phone behind the NAT that an attacker is behind:
        // while nobody attacks this SA, the source's limit is not for it.
        if limited && known != 0
            || sources && (limited || known != 0) && is_limited_source(&ip.src, config)
        {
            return true;
        }
    }
    if flags & SLOT_LIMITED == 0 || flags & SLOT_PUBLISHED == 0 {
        return false;
    }
    // In the window it has been found new.
    let top = load(sa.top.as_ptr());
    top != 0 && esp.seq > top && esp.seq - top > LIMITED_AHEAD
}

#[inline(always)]
fn is_limited_source(src: &Addr, config: &Config) -> bool {
    let (prefix, place) = source_of(src, config.seed);
    match SOURCE_LIMITS.get_ptr_mut(place) {
        Some(limited) => load(limited) == prefix,
        None => false,
    }
}

/// Whether one more fragment may come from this source, and in all.
#[inline(always)]
pub fn takes_fragment(src: &Addr, config: &Config) -> bool {
    if state(STATE_FRAGMENT_RATE) == 0 {
        return true;
    }
    let (_, place) = source_of(src, config.seed);
    take(1 + place) && take(0)
}

/// Whether a worker has time for one more ICMP error about ESP: anybody can
/// send them, and what they quote only a worker can judge.
#[inline(always)]
pub fn takes_icmp() -> bool {
    state(STATE_FRAGMENT_RATE) == 0 || take(ICMP_TOKENS)
}

/// Takes a token, if one is left.
#[inline(always)]
fn take(word: u32) -> bool {
    let Some(tokens) = FRAGMENT_TOKENS.get_ptr_mut(word) else {
        return false;
    };
    if load(tokens) as i64 <= 0 {
        return false;
    }
    // SAFETY: a map value.
    unsafe { add(tokens, -1) };
    true
}

/// The slot by index when the SPI is one of ours, else by the map of foreign
/// SPIs. Whole SPI and destination are compared either way.
#[inline(always)]
fn find(esp: &Esp, dst: &Addr, config: &Config) -> Option<(u32, &'static SaSlot)> {
    let spi = esp.spi.to_be_bytes();
    if esp.spi >= SPI_BASE {
        let slot = (esp.spi - SPI_BASE) & config.slot_mask;
        if let Some(sa) = SLOTS.get(slot)
            && matches(sa, spi, dst)
        {
            return Some((slot, sa));
        }
    }
    let key = ForeignKey { dst: *dst, spi };
    // SAFETY: a u32 that user space may replace meanwhile; it is read once.
    let slot = *unsafe { FOREIGN.get(&key) }?;
    let sa = SLOTS.get(slot)?;
    matches(sa, spi, dst).then_some((slot, sa))
}

#[inline(always)]
fn matches(sa: &SaSlot, spi: [u8; 4], dst: &Addr) -> bool {
    let word = |i: usize| u32::from_ne_bytes([dst[i], dst[i + 1], dst[i + 2], dst[i + 3]]);
    spi != [0; 4]
        && load(sa.spi.as_ptr()) == u32::from_ne_bytes(spi)
        && load(sa.dst[0].as_ptr()) == word(0)
        && load(sa.dst[1].as_ptr()) == word(4)
        && load(sa.dst[2].as_ptr()) == word(8)
        && load(sa.dst[3].as_ptr()) == word(12)
}

/// The replay check (RFC 4303 3.4.3), read-only, by the published window.
#[inline(always)]
fn window(sa: &SaSlot, seq: u32) -> Result<(), Reason> {
    if seq == 0 {
        return Err(Reason::Replay);
    }
    let top = load(sa.top.as_ptr());
    if seq > top {
        return Ok(());
    }
    if top - seq >= load(sa.window.as_ptr()) {
        return Err(Reason::Stale);
    }
    let block = seq / 32;
    let cell = load(sa.cells[block as usize % WINDOW_CELLS].as_ptr());
    let seen = (cell >> 32) as u32 == block && cell >> (seq % 32) & 1 != 0;
    if seen { Err(Reason::Replay) } else { Ok(()) }
}

/// Reads a word that user space may write meanwhile: once, whole. Block number
/// and bits of a cell must come from the same load.
#[inline(always)]
fn load<T>(word: *mut T) -> T {
    // SAFETY: the callers pass fields of a slot, which is a map value and so
    // stays where it is.
    unsafe { read_volatile(word) }
}
