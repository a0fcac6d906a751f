//! The programs around the programs under test, for `benches/benches/xdp.rs`;
//! an object of its own, `prebuilt/gm-bench.o`, that no product loads.
//!
//! BPF_PROG_TEST_RUN repeats one packet, a million times in one call, so that
//! its clock is read once. Each time these programs undo what the last round
//! has done to the packet, draw the SPI that it carries, and go on to the
//! program under test or, by the same way, to one that only passes. What the
//! one takes longer than the other is the verdict's cost.
#![no_std]
#![no_main]
#![allow(missing_docs)]

use core::{
    hint::black_box,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    helpers::{bpf_get_prandom_u32, bpf_xdp_adjust_meta},
    macros::{classifier, map, xdp},
    maps::{Array, ProgramArray},
    programs::{TcContext, XdpContext},
};

/// Behind `gm_bench_xdp` (0) and `gm_bench_xdp_base` (1).
#[map]
static XDP_NEXT: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Behind `gm_bench_tc` (0) and `gm_bench_tc_base` (1).
#[map]
static TC_NEXT: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Entries of 64 bytes each, for `gm_bench_read`: what one read costs.
#[map]
static LINES: Array<[u64; 8]> = Array::with_max_entries(1, 0);

/// The SPIs are the `SPI_COUNT` ones from `SPI_FIRST` on; none: the packet
/// stays as it is. The loader sets these.
#[unsafe(no_mangle)]
static SPI_COUNT: u32 = 0;
#[unsafe(no_mangle)]
static SPI_FIRST: u32 = 0;
/// Where the SPI is in the frame.
#[unsafe(no_mangle)]
static SPI_AT: u32 = 0;

#[inline(always)]
fn global(word: &'static u32) -> u32 {
    // SAFETY: a static; volatile, because the loader changes it.
    unsafe { read_volatile(word) }
}

/// The frame as the program under test has to find it. False: it cannot be.
#[inline(always)]
fn next_frame(ctx: &XdpContext) -> bool {
    // SAFETY: `ctx.ctx` is the context that the kernel gave to the program.
    let noted = unsafe { (*ctx.ctx).data - (*ctx.ctx).data_meta };
    // SAFETY: as above.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, noted as i32) } != 0 {
        return false;
    }
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    let spis = global(&SPI_COUNT);
    if spis == 0 {
        return black_box(random) as u64 <= u32::MAX as u64;
    }
    let spi = global(&SPI_FIRST) + ((random as u64 * spis as u64) >> 32) as u32;
    let at = ctx.data() + global(&SPI_AT) as usize;
    if at + 4 > ctx.data_end() {
        return false;
    }
    // SAFETY: inside the frame, as was just seen.
    unsafe { write_volatile(at as *mut u32, spi.to_be()) };
    true
}

#[xdp]
pub fn gm_bench_xdp(ctx: XdpContext) -> u32 {
    if next_frame(&ctx) {
        // SAFETY: nothing here has a destructor.
        unsafe { XDP_NEXT.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[xdp]
pub fn gm_bench_xdp_base(ctx: XdpContext) -> u32 {
    if next_frame(&ctx) {
        // SAFETY: as above.
        unsafe { XDP_NEXT.tail_call(&ctx, 1) };
    }
    xdp_action::XDP_ABORTED
}

/// Only passes.
#[xdp]
pub fn gm_bench_pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Reads one entry of `LINES`, by the SPI: the least that any program costs
/// which asks a table of that size about a packet.
#[xdp]
pub fn gm_bench_read(ctx: XdpContext) -> u32 {
    let at = ctx.data() + global(&SPI_AT) as usize;
    if at + 4 > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: inside the frame, as was just seen.
    let spi = u32::from_be(unsafe { read_volatile(at as *const u32) });
    match LINES.get_ptr(spi.wrapping_sub(global(&SPI_FIRST))) {
        // SAFETY: a map's value.
        Some(line) if unsafe { read_volatile(line.cast::<u64>()) } == 0 => xdp_action::XDP_PASS,
        _ => xdp_action::XDP_DROP,
    }
}

#[classifier]
pub fn gm_bench_tc(ctx: TcContext) -> i32 {
    // SAFETY: nothing here has a destructor.
    unsafe { TC_NEXT.tail_call(&ctx, 0) };
    0
}

#[classifier]
pub fn gm_bench_tc_base(ctx: TcContext) -> i32 {
    // SAFETY: as above.
    unsafe { TC_NEXT.tail_call(&ctx, 1) };
    0
}

/// Goes on.
#[classifier]
pub fn gm_bench_tc_pass(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// What the kernel reads as the programs' licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here panics.
    loop {}
}
