//! The packet of a tc program as [`Bytes`] from its IP header on.
//!
//! It is read by the helper that counts from the network header, so that it
//! does not matter whether the device has an Ethernet header, and whether the
//! kernel took a VLAN tag out of the packet.

use core::{
    mem::MaybeUninit,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET, bpf_xfrm_state},
    helpers::{
        bpf_skb_get_xfrm_state, bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_skb_pull_data,
    },
    programs::TcContext,
};
use gm_abi::wire::{self, Bytes, Found, IPV4, IPV6, IpPacket, SERVICE_VLAN, VLAN};

use crate::frame::bytes;

/// How much of a packet is made readable: link layer, IP, a usual chain of
/// extension headers, ports. What hides its ports further behind is dropped.
const HEADERS: u32 = 256;

/// A packet in the kernel's hands.
pub struct Skb {
    /// The context that the kernel gave to the program.
    pub raw: *mut __sk_buff,
}

impl Skb {
    /// The packet that `ctx` is about, as the kernel has it.
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Skb {
        Skb { raw: ctx.skb.skb }
    }

    /// Makes the packet's headers readable.
    #[inline(always)]
    pub fn pull(&self) {
        let len = self.len() as u32;
        let headers = if len < HEADERS { len } else { HEADERS };
        // SAFETY: `raw` is the program's context. When this fails (no memory)
        // the headers cannot be read, which the callers treat as hidden.
        unsafe { bpf_skb_pull_data(self.raw, headers) };
    }

    /// Reads the packet into `ip`. Whether it is IP. A VLAN tag that the kernel
    /// has left in the packet counts as the beginning of the network layer; it
    /// is stepped over.
    #[inline(always)]
    pub fn read(&self, ip: &mut IpPacket) -> bool {
        let mut kind = self.protocol();
        let mut l3 = 0;
        for _ in 0..wire::MAX_VLAN_TAGS {
            if !matches!(kind, VLAN | SERVICE_VLAN) {
                break;
            }
            let Some([high, low]) = self.get::<2>(l3 + 2) else {
                return false;
            };
            kind = u16::from_be_bytes([high, low]);
            l3 += 4;
        }
        matches!(kind, IPV4 | IPV6) && wire::read_ip(self, l3, ip) == Found::Ip
    }

    /// Whether the kernel takes it for IP (a VLAN tag is beside the packet
    /// when a tc program sees it on ingress).
    #[inline(always)]
    pub fn is_ip(&self) -> bool {
        matches!(self.protocol(), IPV4 | IPV6)
    }

    /// Whether the kernel takes it for a VLAN tag.
    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        matches!(self.protocol(), VLAN | SERVICE_VLAN)
    }

    /// The EtherType, host byte order.
    #[inline(always)]
    pub fn protocol(&self) -> u16 {
        // SAFETY: `raw` is the program's context.
        u16::from_be(unsafe { (*self.raw).protocol } as u16)
    }

    /// The VLAN tag that the kernel keeps beside the packet: its EtherType and
    /// its control information, host byte order.
    #[inline(always)]
    pub fn vlan(&self) -> Option<(u16, u16)> {
        // SAFETY: `raw` is the program's context.
        let (present, proto, tci) = unsafe {
            (
                (*self.raw).vlan_present,
                (*self.raw).vlan_proto,
                (*self.raw).vlan_tci,
            )
        };
        (present != 0).then_some((u16::from_be(proto as u16), tci as u16))
    }

    /// Destination and source address of the Ethernet header.
    #[inline(always)]
    pub fn macs(&self) -> Option<[u8; 12]> {
        let mut macs = [0; 12];
        // SAFETY: `raw` is the program's context, `macs` is as long as said.
        let failed =
            unsafe { bpf_skb_load_bytes(self.raw.cast(), 0, macs.as_mut_ptr().cast(), 12) };
        (failed == 0).then_some(macs)
    }

    /// Index of the interface that it goes through.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: `raw` is the program's context.
        unsafe { (*self.raw).ifindex }
    }

    /// Length in bytes, with the link layer's header.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        // SAFETY: `raw` is the program's context.
        unsafe { (*self.raw).len }
    }

    /// Whether an SA of the kernel's has opened it.
    #[inline(always)]
    pub fn is_from_kernel_sa(&self) -> bool {
        let mut state = MaybeUninit::<bpf_xfrm_state>::uninit();
        // SAFETY: `raw` is the program's context, `state` is as long as said;
        // the helper writes all of it, also when it fails.
        unsafe {
            bpf_skb_get_xfrm_state(
                self.raw,
                0,
                state.as_mut_ptr(),
                size_of::<bpf_xfrm_state>() as u32,
                0,
            ) == 0
        }
    }

    /// The packet's mark.
    #[inline(always)]
    pub fn mark(&self) -> u32 {
        // SAFETY: `raw` is the program's context.
        unsafe { (*self.raw).mark }
    }

    /// Sets the packet's mark.
    #[inline(always)]
    pub fn set_mark(&self, mark: u32) {
        // SAFETY: `raw` is the program's context; tc programs may write it.
        unsafe { (*self.raw).mark = mark }
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]> {
        let mut words = MaybeUninit::<[u64; 2]>::uninit();
        // SAFETY: `raw` is the program's context, `words` has room for `N`
        // bytes (`bytes` asserts that `N` is at most 16). The volatile writes
        // are there because the compiler would call a loop to clear 16 bytes.
        let failed = unsafe {
            let words = words.as_mut_ptr().cast::<u64>();
            write_volatile(words, 0);
            write_volatile(words.add(1), 0);
            bpf_skb_load_bytes_relative(
                self.raw.cast(),
                off as u32,
                words.cast(),
                N as u32,
                BPF_HDR_START_NET,
            )
        };
        // SAFETY: two words on the stack. Volatile, so that they are in
        // registers before the compiler asks whether they mean anything.
        let (low, high) = unsafe {
            let words = words.as_ptr().cast::<u64>();
            (read_volatile(words), read_volatile(words.add(1)))
        };
        (failed == 0).then(|| bytes(low, high))
    }

    /// With the link layer's header, so up to some bytes too many: a length
    /// that contradicts may go unseen here, a read out of bounds does not.
    #[inline(always)]
    fn len(&self) -> usize {
        self.length() as usize
    }
}
