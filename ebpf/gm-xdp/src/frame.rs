//! The frame of an XDP program as [`Bytes`], by direct packet access.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use gm_abi::wire::Bytes;

/// The bytes between `data` and `data_end`, of which the parser may look at
/// the first 1023: two VLAN tags, the longest chain of extension headers, and
/// what follows. The verifier wants a bound.
pub struct Frame {
    /// Where the frame begins.
    pub data: usize,
    /// Behind the last byte.
    pub end: usize,
}

impl Frame {
    /// The frame that `ctx` is about. Not valid any more after a helper that
    /// moves the packet.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Frame {
        Frame {
            data: ctx.data(),
            end: ctx.data_end(),
        }
    }
}

/// A function that loads one word of the packet: the word, zero where it is
/// not inside, and whether it is.
///
/// Bound, comparison and load are one piece of assembly, because the compiler
/// takes them apart: it turns `at + 1 > end` into `at >= end`, which tells the
/// verifier nothing, and it uses a value before the check that says whether
/// there is one.
macro_rules! word {
    ($name:ident, $load:literal, $size:literal) => {
        #[inline(always)]
        fn $name(&self, off: usize) -> (u64, bool) {
            if off > 1023 {
                return (0, false);
            }
            let word: u64;
            let inside: u64;
            // SAFETY: reads packet bytes between `data` and `end` only, as the
            // verifier sees for itself.
            unsafe {
                asm!(
                    "{at} = {off}",
                    "{at} &= 1023",
                    "{at} += {data}",
                    "{word} = 0",
                    "{inside} = {at}",
                    concat!("{inside} += ", $size),
                    "if {inside} > {end} goto +3",
                    concat!("{word} = *(", $load, " *)({at} + 0)"),
                    "{inside} = 1",
                    "goto +1",
                    "{inside} = 0",
                    off = in(reg) off,
                    data = in(reg) self.data,
                    end = in(reg) self.end,
                    at = out(reg) _,
                    word = out(reg) word,
                    inside = out(reg) inside,
                    options(pure, readonly, nostack),
                );
            }
            (word, inside != 0)
        }
    };
}

impl Frame {
    word!(word8, "u8", "1");
    word!(word16, "u16", "2");
    word!(word32, "u32", "4");
    word!(word64, "u64", "8");
}

impl Bytes for Frame {
    #[inline(always)]
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]> {
        let (low, low_is) = match N {
            1 => self.word8(off),
            2 => self.word16(off),
            4 => self.word32(off),
            _ => self.word64(off),
        };
        let (high, high_is) = match N {
            1 | 2 | 4 | 8 => (0, true),
            12 => self.word32(off + 8),
            _ => self.word64(off + 8),
        };
        (low_is && high_is).then(|| bytes(low, high))
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.data
    }
}

/// The first `N` of the sixteen bytes of two words, as they are in memory.
#[inline(always)]
pub fn bytes<const N: usize>(low: u64, high: u64) -> [u8; N] {
    const { assert!(matches!(N, 1 | 2 | 4 | 8 | 12 | 16), "no load of this size") };
    let mut bytes = [0; N];
    if N <= 8 {
        bytes.copy_from_slice(&low.to_ne_bytes()[..N]);
    } else {
        bytes[..8].copy_from_slice(&low.to_ne_bytes());
        bytes[8..].copy_from_slice(&high.to_ne_bytes()[..N - 8]);
    }
    bytes
}
