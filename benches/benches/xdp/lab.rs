//! Both objects in the kernel: the product's, and the one that drives it.

use std::os::fd::OwnedFd;

use aya::maps::{Array, HashMap as BpfHash, ProgramArray, XskMap};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use gm_abi::maps::{
    ABI_VERSION, Addr, CONFIG_LISTED, CONFIG_SHED_CLEARTEXT, LISTED_ADDRS, MODE_TRANS,
    MODE_UDP_ENC_TUN, SLOT_PUBLISHED, SPI_BASE,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::cases::{Case, ENCAP_PORT, OURS_V4, OURS_V6, PROTECTED, SEEN, TOP, Under};

const PREBUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/prebuilt/");

/// Why something could not be measured.
pub type Problem = Box<dyn std::error::Error>;

/// What a case needs in the kernel.
pub struct Lab {
    /// The object that drives it.
    pub bench: Ebpf,
    xdp: bool,
    /// The product's object.
    pub product: Ebpf,
    _socket: OwnedFd,
}

impl Lab {
    /// Loads both, with as many SAs as the case wants.
    pub fn new(case: &Case) -> Result<Lab, Problem> {
        let slots = case.sas.max(1).next_power_of_two();
        let mut product = EbpfLoader::new()
            .map_max_entries("SLOTS", slots)
            .map_max_entries("SLOT_DROPS", slots)
            .load(&std::fs::read(format!("{PREBUILT}gm-xdp.o"))?)?;
        configure(&mut product, slots, case.uplink)?;
        install(&mut product, case)?;
        let socket = socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        if case.socket {
            let map = product.map_mut("XSK_UPLINK").ok_or("no map")?;
            XskMap::try_from(map)?.set(0, socket.try_clone()?, 0)?;
        }
        let (first, count) = case.spis;
        let mut bench = EbpfLoader::new()
            .override_global("SPI_FIRST", &first, true)
            .override_global("SPI_COUNT", &count, true)
            .override_global("SPI_AT", &case.spi_at, true)
            .map_max_entries("LINES", slots)
            .load(&std::fs::read(format!("{PREBUILT}gm-bench.o"))?)?;
        let xdp = case.under.is_xdp();
        if xdp {
            chain_xdp(&mut bench, &mut product, case)?;
        } else {
            chain_tc(&mut bench, &mut product, case)?;
        }
        Ok(Lab {
            bench,
            xdp,
            product,
            _socket: socket,
        })
    }

    /// Nanoseconds a packet, through the program under test or the other one.
    pub fn run(&mut self, case: &Case, under_test: bool, packets: u32) -> Result<f64, Problem> {
        let options = TestRunOptions {
            data_in: Some(&case.frame),
            repeat: packets,
            ..TestRunOptions::new()
        };
        let name = match (self.xdp, under_test) {
            (true, true) => "gm_bench_xdp",
            (true, false) => "gm_bench_xdp_base",
            (false, true) => "gm_bench_tc",
            (false, false) => "gm_bench_tc_base",
        };
        let program = self.bench.program_mut(name).ok_or("no program")?;
        // The time is the kernel's, of the loop alone, in whole nanoseconds a
        // packet: around a call for XDP it waits for a grace period.
        let ran = if self.xdp {
            let program: &mut Xdp = program.try_into()?;
            program.test_run(options)?
        } else {
            let program: &mut SchedClassifier = program.try_into()?;
            program.test_run(options)?
        };
        let action = ran.return_value;
        if under_test && action != case.action {
            return Err(format!("action {action}, not {}", case.action).into());
        }
        Ok(ran.duration.as_nanos() as f64)
    }
}

/// Of each program: its name, instructions that the verifier has walked, bytes
/// as the kernel keeps it, bytes of machine code.
pub fn sizes() -> Result<Vec<(&'static str, u32, u32, u32)>, Problem> {
    let mut product = Ebpf::load(&std::fs::read(format!("{PREBUILT}gm-xdp.o"))?)?;
    let mut all = Vec::new();
    for name in ["gm_xdp_uplink", "gm_xdp_gm0x"] {
        let program: &mut Xdp = product.program_mut(name).ok_or("no program")?.try_into()?;
        program.load()?;
        all.push((name, program.info()?));
    }
    for name in ["gm_tc_gm0", "gm_tc_guard", "gm_tc_egress"] {
        let program = product.program_mut(name).ok_or("no program")?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        all.push((name, program.info()?));
    }
    let numbers = all.iter().map(|(name, info)| {
        let walked = info.verified_instruction_count().unwrap_or(0);
        let kept = info.size_translated().unwrap_or(0);
        (*name, walked, kept, info.size_jitted())
    });
    Ok(numbers.collect())
}

fn configure(product: &mut Ebpf, slots: u32, uplink: u32) -> Result<(), Problem> {
    let mut config = [0; 32];
    let words = [
        ABI_VERSION,
        slots - 1,
        uplink,
        1,
        0x5eed_c0de,
        u32::from(ENCAP_PORT),
        CONFIG_SHED_CLEARTEXT | CONFIG_LISTED,
        0x0dd5_eed5,
    ];
    for (bytes, word) in config.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    let map = product.map_mut("CONFIG").ok_or("no map")?;
    Array::<_, [u8; 32]>::try_from(map)?.set(0, config, 0)?;
    let map = product.map_mut("ADDRS").ok_or("no map")?;
    let mut map = BpfHash::<_, Addr, u32>::try_from(map)?;
    for addr in [OURS_V4, OURS_V6] {
        map.insert(addr, 1, 0)?;
    }
    let mut listed = [0; 16 * LISTED_ADDRS];
    listed[..16].copy_from_slice(&OURS_V4);
    listed[16..32].copy_from_slice(&OURS_V6);
    let map = product.map_mut("LISTED").ok_or("no map")?;
    Array::<_, [u8; 16 * LISTED_ADDRS]>::try_from(map)?.set(0, listed, 0)?;
    let map = product.map_mut("PORTS").ok_or("no map")?;
    let bit = 1u64 << (PROTECTED % 64);
    Array::<_, u64>::try_from(map)?.set(u32::from(PROTECTED) / 64, bit, 0)?;
    Ok(())
}

/// The SAs: window of 64 at [`TOP`], in which [`SEEN`] was seen.
fn install(product: &mut Ebpf, case: &Case) -> Result<(), Problem> {
    let map = product.map_mut("SLOTS").ok_or("no map")?;
    let mut map = Array::<_, [u8; 64]>::try_from(map)?;
    let mode = if case.in_udp {
        MODE_UDP_ENC_TUN
    } else {
        MODE_TRANS
    };
    let cell = u64::from(SEEN / 32) << 32 | 1 << (SEEN % 32);
    let cell_at = 32 + 8 * (SEEN as usize / 32 % 4);
    let mut image = [0; 64];
    image[4..8].copy_from_slice(&(u32::from(mode) | SLOT_PUBLISHED).to_ne_bytes());
    image[8..24].copy_from_slice(if case.v6 { &OURS_V6 } else { &OURS_V4 });
    image[24..28].copy_from_slice(&TOP.to_ne_bytes());
    image[28..32].copy_from_slice(&64u32.to_ne_bytes());
    image[cell_at..cell_at + 8].copy_from_slice(&cell.to_ne_bytes());
    for slot in 0..case.sas {
        image[..4].copy_from_slice(&(SPI_BASE + slot).to_be_bytes());
        map.set(slot, image, 0)?;
    }
    Ok(())
}

fn chain_xdp(bench: &mut Ebpf, product: &mut Ebpf, case: &Case) -> Result<(), Problem> {
    let load = |bpf: &mut Ebpf, name: &str| -> Result<_, Problem> {
        let program: &mut Xdp = bpf.program_mut(name).ok_or("no program")?.try_into()?;
        program.load()?;
        Ok(program.fd()?.try_clone()?)
    };
    load(bench, "gm_bench_xdp")?;
    load(bench, "gm_bench_xdp_base")?;
    let pass = load(bench, "gm_bench_pass")?;
    let under = match case.under {
        Under::Read => load(bench, "gm_bench_read")?,
        _ => load(product, case.under.name())?,
    };
    let map = bench.map_mut("XDP_NEXT").ok_or("no map")?;
    let mut next = ProgramArray::try_from(map)?;
    next.set(0, &under, 0)?;
    next.set(1, &pass, 0)?;
    Ok(())
}

fn chain_tc(bench: &mut Ebpf, product: &mut Ebpf, case: &Case) -> Result<(), Problem> {
    let load = |bpf: &mut Ebpf, name: &str| -> Result<_, Problem> {
        let program: &mut SchedClassifier =
            bpf.program_mut(name).ok_or("no program")?.try_into()?;
        program.load()?;
        Ok(program.fd()?.try_clone()?)
    };
    load(bench, "gm_bench_tc")?;
    load(bench, "gm_bench_tc_base")?;
    let pass = load(bench, "gm_bench_tc_pass")?;
    let under = load(product, case.under.name())?;
    let map = bench.map_mut("TC_NEXT").ok_or("no map")?;
    let mut next = ProgramArray::try_from(map)?;
    next.set(0, &under, 0)?;
    next.set(1, &pass, 0)?;
    Ok(())
}
