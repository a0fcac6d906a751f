//! The short ways: packets as almost all are, judged in a few dozen
//! instructions. Whatever is not sure here takes the long way, which begins
//! anew; so the short ones only have to be right where they answer.

use core::{mem::MaybeUninit, ptr::read_volatile};

use aya_ebpf::{
    bindings::bpf_hdr_start_off::BPF_HDR_START_NET, helpers::bpf_skb_load_bytes_relative,
};
use gm_abi::{
    maps::{Config, META_ESP, META_OUTBOUND, META_UDP_ESP, Meta, STATE_TRANSIT},
    verdict::Reason,
    wire::{
        self, Bytes, ETH_LEN, ICMP, ICMPV6, IPV4, IPV6, PLAIN_ESP_V4, PLAIN_ESP_V6, PLAIN_FLOW_V4,
        PLAIN_FLOW_V6, PlainEsp, PlainFlow, TCP, UDP, VLAN,
    },
};

use crate::{
    frame::Frame,
    maps::{is_ours, is_protected, kernel_sas, state},
    precheck,
    skb::Skb,
    steer,
};

/// The first `SIZE` bytes from the IP header on, which are known to be there.
struct Head<const SIZE: usize>(usize);

impl<const SIZE: usize> Head<SIZE> {
    /// `None`: they are not all there.
    #[inline(always)]
    fn new(at: usize, end: usize) -> Option<Head<SIZE>> {
        (at + SIZE <= end).then_some(Head(at))
    }
}

impl<const SIZE: usize> Bytes for Head<SIZE> {
    #[inline(always)]
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]> {
        if off + N > SIZE {
            return None;
        }
        let at = self.0 + off;
        // SAFETY: inside the packet or the stack, as the verifier sees for
        // itself. One load each; the machines that run this read words anywhere.
        let word = unsafe {
            match N {
                1 => u64::from(read_volatile(at as *const u8)),
                2 => u64::from(read_volatile(at as *const u16)),
                4 => u64::from(read_volatile(at as *const u32)),
                8 => read_volatile(at as *const u64),
                _ => return None,
            }
        };
        let mut bytes = [0; N];
        bytes.copy_from_slice(&word.to_ne_bytes()[..N]);
        Some(bytes)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        SIZE
    }
}

/// What is sure about a packet of the uplink.
pub enum Uplink {
    /// ESP for a live SA of ours, of which there is nothing to say but that a
    /// worker gets it.
    Esp(Reason, Meta),
    /// Not for the Gm link, or nothing that it protects.
    Other,
    /// Nothing is sure.
    Unsure,
}

/// Uplink: with at most one VLAN tag.
#[inline(always)]
pub fn uplink(frame: &Frame, config: &Config) -> Uplink {
    let Some(link) = Head::<{ ETH_LEN + 4 }>::new(frame.data, frame.end) else {
        return Uplink::Unsure;
    };
    let (mut kind, mut l3) = (ether_type(&link, ETH_LEN - 2), ETH_LEN);
    if kind == VLAN {
        (kind, l3) = (ether_type(&link, ETH_LEN + 2), ETH_LEN + 4);
    }
    let (at, end) = (frame.data + l3, frame.end);
    let encap_port = config.encap_port as u16;
    // What is found is not carried from one step to the next: of what is not
    // there the compiler would store whatever is in a register, and the verifier
    // refuses that.
    match kind {
        IPV4 => {
            if let Some(head) = Head::<PLAIN_ESP_V4>::new(at, end)
                && let Some(esp) = wire::plain_esp_v4(&head, end - at, encap_port)
                && let Some(slot) = precheck::is_plain(&esp, config)
            {
                return steered(&esp, slot, l3);
            }
            match Head::<PLAIN_FLOW_V4>::new(at, end) {
                Some(head) => passed(wire::plain_flow_v4(&head), config),
                None => Uplink::Unsure,
            }
        }
        IPV6 => {
            if let Some(head) = Head::<PLAIN_ESP_V6>::new(at, end)
                && let Some(esp) = wire::plain_esp_v6(&head, end - at, encap_port)
                && let Some(slot) = precheck::is_plain(&esp, config)
            {
                return steered(&esp, slot, l3);
            }
            match Head::<PLAIN_FLOW_V6>::new(at, end) {
                Some(head) => passed(wire::plain_flow_v6(&head), config),
                None => Uplink::Unsure,
            }
        }
        _ => Uplink::Unsure,
    }
}

#[inline(always)]
fn steered(esp: &PlainEsp, slot: u32, l3: usize) -> Uplink {
    let (reason, kind) = if esp.in_udp {
        (Reason::SteerUdpEsp, META_UDP_ESP)
    } else {
        (Reason::SteerEsp, META_ESP)
    };
    Uplink::Esp(reason, steer::note(kind, slot, l3, l3 + esp.esp))
}

#[inline(always)]
fn passed(flow: Option<PlainFlow>, config: &Config) -> Uplink {
    match flow {
        Some(flow) if is_open(&flow, config) => Uplink::Other,
        _ => Uplink::Unsure,
    }
}

#[inline(always)]
fn ether_type<const SIZE: usize>(head: &Head<SIZE>, off: usize) -> u16 {
    match head.get::<2>(off) {
        Some(kind) => u16::from_be_bytes(kind),
        None => 0,
    }
}

/// gm0x: the note about a packet without options or extension headers.
#[inline(always)]
pub fn outbound(frame: &Frame) -> Option<Meta> {
    let link = Head::<{ ETH_LEN + 20 }>::new(frame.data, frame.end)?;
    let [first] = link.get::<1>(ETH_LEN)?;
    if ether_type(&link, ETH_LEN - 2) != IPV4 || first != 0x45 {
        return None;
    }
    let meta = steer::note(META_OUTBOUND, 0, ETH_LEN, ETH_LEN + 20);
    Some(meta)
}

/// Who talks to whom in the packet of a tc program, where it is plain.
#[inline(always)]
fn flow(skb: &Skb) -> Option<PlainFlow> {
    let mut room = MaybeUninit::<[u64; 6]>::uninit();
    const { assert!(PLAIN_FLOW_V4 < PLAIN_FLOW_V6 && PLAIN_FLOW_V6 <= 48) };
    let at = room.as_mut_ptr() as usize;
    let load = |size: usize| {
        // SAFETY: `raw` is the program's context, `room` is as long as asserted.
        let failed = unsafe {
            bpf_skb_load_bytes_relative(
                skb.raw.cast(),
                0,
                at as *mut _,
                size as u32,
                BPF_HDR_START_NET,
            )
        };
        failed == 0
    };
    match skb.protocol() {
        IPV4 if load(PLAIN_FLOW_V4) => wire::plain_flow_v4(&Head::<PLAIN_FLOW_V4>(at)),
        IPV6 if load(PLAIN_FLOW_V6) => wire::plain_flow_v6(&Head::<PLAIN_FLOW_V6>(at)),
        _ => None,
    }
}

/// The same of a packet that leaves through the uplink, which is Ethernet: by
/// direct access, as far as its headers lie in one piece.
#[inline(always)]
fn flow_of_uplink(skb: &Skb) -> Option<PlainFlow> {
    // SAFETY: `raw` is the program's context.
    let (data, end) = unsafe { ((*skb.raw).data as usize, (*skb.raw).data_end as usize) };
    let link = Head::<{ ETH_LEN + PLAIN_FLOW_V4 }>::new(data, end)?;
    match ether_type(&link, ETH_LEN - 2) {
        IPV4 => wire::plain_flow_v4(&Head::<PLAIN_FLOW_V4>(data + ETH_LEN)),
        IPV6 => wire::plain_flow_v6(&Head::<PLAIN_FLOW_V6>::new(data + ETH_LEN, end)?),
        _ => None,
    }
}

/// What is sure about a packet that is to leave.
pub enum Egress {
    /// It goes on untouched.
    Leaves,
    /// It is a worker's.
    Taken,
    /// Nothing is sure.
    Unsure,
}

/// Egress.
#[inline(always)]
pub fn egress(skb: &Skb, config: &Config) -> Egress {
    if skb.interface() == config.uplink {
        return match flow_of_uplink(skb) {
            Some(flow) => leaving(&flow, config),
            None => Egress::Unsure,
        };
    }
    match flow(skb) {
        Some(flow) => leaving(&flow, config),
        None => Egress::Unsure,
    }
}

#[inline(always)]
fn leaving(flow: &PlainFlow, config: &Config) -> Egress {
    if !is_ours(&flow.src, config) {
        return Egress::Leaves;
    }
    let shows = shows(flow);
    if shows && is_protected(flow.ports().0) {
        return Egress::Taken;
    }
    if kernel_sas() && state(STATE_TRANSIT) != 0 {
        return Egress::Unsure;
    }
    if shows || is_no_error(flow) {
        Egress::Leaves
    } else {
        Egress::Unsure
    }
}

/// Guard: whether the packet surely goes on untouched.
#[inline(always)]
pub fn enters(skb: &Skb, config: &Config) -> bool {
    match flow(skb) {
        Some(flow) => is_open(&flow, config),
        None => false,
    }
}

/// Whether what comes in is surely not for the Gm link, or nothing that it
/// protects.
#[inline(always)]
fn is_open(flow: &PlainFlow, config: &Config) -> bool {
    if !is_ours(&flow.dst, config) {
        return true;
    }
    let (_, port) = flow.ports();
    let encap = flow.proto == UDP && u32::from(port) == config.encap_port;
    shows(flow) && !encap && !is_protected(port) || is_no_error(flow)
}

/// Whether it has ports.
#[inline(always)]
fn shows(flow: &PlainFlow) -> bool {
    matches!(flow.proto, TCP | UDP)
}

/// Whether it is ICMP and no error, by its type.
#[inline(always)]
fn is_no_error(flow: &PlainFlow) -> bool {
    let [kind, ..] = flow.start;
    match flow.proto {
        ICMP => flow.src[0] == 0 && !matches!(kind, 3 | 4 | 5 | 11 | 12),
        ICMPV6 => flow.src[0] != 0 && kind >= 128,
        _ => false,
    }
}
