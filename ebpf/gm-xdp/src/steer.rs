//! Step 3: the note for the worker, and the way to its socket.

use core::mem::size_of;

use aya_ebpf::{
    bindings::xdp_action, helpers::bpf_xdp_adjust_meta, maps::XskMap, programs::XdpContext,
};
use gm_abi::{
    maps::{META_ESP, META_FRAGMENT, META_ICMP, META_MAGIC, META_OUTBOUND, META_UDP_ESP, Meta},
    wire::IpPacket,
};

use crate::classify::Esp;

/// The note about an ESP packet for the SA in `slot`.
#[inline(always)]
pub fn esp(esp: &Esp, ip: &IpPacket, slot: u32) -> Meta {
    let kind = if esp.in_udp { META_UDP_ESP } else { META_ESP };
    note(kind, slot, ip.l3, esp.at)
}

/// The note about a fragment to a local address.
#[inline(always)]
pub fn fragment(ip: &IpPacket) -> Meta {
    note(META_FRAGMENT, 0, ip.l3, ip.l4)
}

/// The note about an ICMP error.
#[inline(always)]
pub fn icmp(ip: &IpPacket) -> Meta {
    note(META_ICMP, 0, ip.l3, ip.l4)
}

/// The note about a packet that is to be sealed.
#[inline(always)]
pub fn outbound(ip: &IpPacket) -> Meta {
    note(META_OUTBOUND, 0, ip.l3, ip.l4)
}

/// A note. `l3` and `at` are offsets of the IP header and of what follows it.
#[inline(always)]
pub fn note(kind: u8, slot: u32, l3: usize, at: usize) -> Meta {
    Meta {
        slot,
        esp: at as u16,
        l3: l3 as u8,
        kind,
        magic: META_MAGIC,
        reserved: 0,
    }
}

/// Puts `meta` in front of the frame and redirects it to the socket of the
/// queue that it came in on. `None`: there is no socket, or the driver has no
/// room for metadata.
#[inline(always)]
pub fn to_worker(ctx: &XdpContext, sockets: &XskMap, meta: Meta) -> Option<u32> {
    let size = size_of::<Meta>();
    // SAFETY: `ctx.ctx` is the context that the kernel gave to the program.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(size as i32)) } != 0 {
        return None;
    }
    // SAFETY: as above; the three fields were moved by the helper.
    let (at, data) = unsafe { ((*ctx.ctx).data_meta as usize, (*ctx.ctx).data as usize) };
    if at + size > data {
        return None;
    }
    // SAFETY: `at .. at + size` is inside the metadata, which is aligned to
    // four bytes as the kernel demands of its length.
    unsafe { *(at as *mut Meta) = meta };
    // SAFETY: as above.
    let queue = unsafe { (*ctx.ctx).rx_queue_index };
    // Fail closed: without a socket the helper answers the flag.
    match sockets.redirect(queue, u64::from(xdp_action::XDP_DROP)) {
        Ok(action) => Some(action),
        Err(_) => None,
    }
}
