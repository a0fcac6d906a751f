//! What is told about a packet that is dropped: to its source's counters, and
//! in a sample. The rules are [`gm_abi::source`]'s and [`gm_abi::sample`]'s.

use core::{
    arch::asm,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, helpers::bpf_ktime_get_ns};
use gm_abi::{
    maps::Addr,
    sample::{SAMPLE_ESP, SAMPLE_PORTS, Sample},
    source::{MOST_CREDIT, PREFIX_COUNTERS},
    verdict::Reason,
    wire::IpPacket,
};

use crate::maps::{PREFIXES, SAMPLE_TOKENS, SAMPLES, add, source_of};

/// What is known of a packet beside its IP header.
pub struct Seen {
    /// Which program it is in, one of `PLACE_*`.
    pub place: u8,
    /// Whether it is to leave: then the phone is where it is going.
    pub outbound: bool,
    /// Interface that it came in on, or is to leave through.
    pub ifindex: u32,
    /// Length in bytes.
    pub length: u32,
    /// [`gm_abi::maps::Config::seed`].
    pub seed: u32,
    /// SPI and sequence number.
    pub head: Head,
}

/// SPI and sequence number, where they were there to be read. No `Option`: the
/// compiler would store whatever is in a register for what is not there, and
/// the verifier refuses that.
#[derive(Default)]
pub struct Head {
    /// [`SAMPLE_ESP`] or zero.
    flags: u32,
    spi: u32,
    seq: u32,
}

impl Head {
    /// They are there.
    #[inline(always)]
    pub fn set(&mut self, spi: u32, seq: u32) {
        (self.spi, self.seq) = (spi, seq);
        self.flags = u32::from(SAMPLE_ESP);
    }
}

/// A packet is dropped for `reason`. `ip` is what was read of it. A function
/// of its own, because the stack is small.
#[inline(never)]
pub fn dropped(reason: Reason, ip: &IpPacket, seen: &Seen) {
    let phone = if seen.outbound { &ip.dst } else { &ip.src };
    // Where no IP header was read there is no length of one either.
    if ip.end != 0 {
        by_source(reason, phone, seen.seed);
    }
    sample(reason, ip, seen);
}

#[inline(always)]
fn by_source(reason: Reason, phone: &Addr, seed: u32) {
    let Some(at) = reason.drop_index() else {
        return;
    };
    // The compiler knows how many reasons there are, the verifier does not.
    let at = opaque(at as u64);
    if at >= PREFIX_COUNTERS as u64 {
        return;
    }
    let (prefix, place) = source_of(phone, seed);
    let Some(place) = PREFIXES.get(place) else {
        return;
    };
    let credit_at = place.credit.as_ptr();
    // SAFETY (all of this function): fields of a map value, which stays where
    // it is; `at` is below the number of counters.
    let mut credit = unsafe { read_volatile(credit_at) } as i64;
    if unsafe { read_volatile(place.prefix.as_ptr()) } != prefix {
        if credit > 0 {
            // SAFETY: as above.
            unsafe { add(credit_at, -1) };
            return;
        }
        credit = 0;
        // SAFETY: as above.
        unsafe {
            write_volatile(place.prefix.as_ptr(), 0);
            for counter in &place.drops {
                write_volatile(counter.as_ptr(), 0);
            }
            write_volatile(place.prefix.as_ptr(), prefix);
        }
    }
    // SAFETY: as above.
    unsafe {
        if credit < MOST_CREDIT as i64 {
            write_volatile(credit_at, (credit + 1) as u64);
        }
        add(place.drops[0].as_ptr().add(at as usize), 1);
    }
}

#[inline(always)]
fn sample(reason: Reason, ip: &IpPacket, seen: &Seen) {
    let Some(tokens) = SAMPLE_TOKENS.get_ptr_mut(reason.index() as u32) else {
        return;
    };
    // SAFETY: a map value.
    if unsafe { read_volatile(tokens) } as i64 <= 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { add(tokens, -1) };
    let Some(mut entry) = SAMPLES.reserve::<Sample>(0) else {
        return;
    };
    let mut flags = seen.head.flags as u8;
    let (mut sport, mut dport) = (0, 0);
    if let Some(ports) = ip.ports {
        (sport, dport) = ports;
        flags |= SAMPLE_PORTS;
    }
    entry.write(Sample {
        // SAFETY: a helper without arguments.
        time: unsafe { bpf_ktime_get_ns() },
        src: ip.src,
        dst: ip.dst,
        spi: seen.head.spi,
        seq: seen.head.seq,
        ifindex: seen.ifindex,
        length: seen.length,
        sport,
        dport,
        reason: reason as u8,
        place: seen.place,
        proto: ip.proto,
        flags,
    });
    // Nobody is woken: the reader comes by when it refills the tokens.
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// `word`, of which the compiler knows nothing any more.
#[inline(always)]
fn opaque(word: u64) -> u64 {
    let out;
    // SAFETY: copies a register.
    unsafe {
        asm!(
            "{out} = {word}",
            out = out(reg) out,
            word = in(reg) word,
            options(pure, nomem, nostack),
        );
    }
    out
}
