//! The uplink program per packet, through BPF_PROG_TEST_RUN: known SAs among
//! 100, 10 000 and 1 000 000, an unknown SPI, and a packet that is not ours.
//!
//! One run, one packet, one SA at random, so that the SA's cache line is as
//! cold as the number of SAs makes it. The time is what the kernel reports; its
//! clock is read around each packet, and `not-ours` shows how much that is.
//! A known SA's packet goes all the way to the redirect, which finds no socket.

use std::time::Duration;

use aya::maps::{Array, HashMap as BpfHash};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use criterion::{Criterion, criterion_group};
use gm_abi::maps::{ABI_VERSION, MODE_TRANS, SPI_BASE, mapped};

const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/prebuilt/gm-xdp.o");
const OURS: [u8; 4] = [203, 0, 113, 5];
/// Where the SPI is in the frame, and the last byte of the destination.
const SPI_AT: usize = 34;
const DST_AT: usize = 33;

fn load(sas: u32) -> Result<Ebpf, Box<dyn std::error::Error>> {
    let slots = sas.next_power_of_two();
    let mut bpf = EbpfLoader::new()
        .map_max_entries("SLOTS", slots)
        .map_max_entries("SLOT_DROPS", slots)
        .load(&std::fs::read(OBJECT)?)?;
    let program: &mut Xdp = bpf
        .program_mut("gm_xdp_uplink")
        .ok_or("no program")?
        .try_into()?;
    program.load()?;

    let mut config = [0; 32];
    config[..4].copy_from_slice(&ABI_VERSION.to_ne_bytes());
    config[4..8].copy_from_slice(&(slots - 1).to_ne_bytes());
    let map = bpf.map_mut("CONFIG").ok_or("no map")?;
    Array::<_, [u8; 32]>::try_from(map)?.set(0, config, 0)?;
    let map = bpf.map_mut("ADDRS").ok_or("no map")?;
    BpfHash::<_, [u8; 16], u32>::try_from(map)?.insert(mapped(OURS), 1, 0)?;

    let map = bpf.map_mut("SLOTS").ok_or("no map")?;
    let mut map = Array::<_, [u8; 64]>::try_from(map)?;
    for slot in 0..sas {
        let mut image = [0; 64];
        image[..4].copy_from_slice(&(SPI_BASE + slot).to_be_bytes());
        image[4..8].copy_from_slice(&(u32::from(MODE_TRANS) | 1 << 8).to_ne_bytes());
        image[8..24].copy_from_slice(&mapped(OURS));
        image[24..28].copy_from_slice(&1000u32.to_ne_bytes());
        image[28..32].copy_from_slice(&64u32.to_ne_bytes());
        map.set(slot, image, 0)?;
    }
    Ok(bpf)
}

/// 128 bytes of ESP with sequence number 990, inside the window.
fn frame() -> Vec<u8> {
    let mut b = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    b.extend([
        0x45, 0, 0, 148, 0, 1, 0x40, 0, 64, 50, 0, 0, 198, 51, 100, 1,
    ]);
    b.extend(OURS);
    b.extend([0; 4]);
    b.extend(990u32.to_be_bytes());
    b.resize(14 + 148, 0xa5);
    b
}

/// Runs the program on `iterations` frames, each changed by `change`.
fn run(bpf: &mut Ebpf, iterations: u64, mut change: impl FnMut(&mut [u8], u64)) -> Duration {
    let program: &mut Xdp = bpf
        .program_mut("gm_xdp_uplink")
        .expect("gm_xdp_uplink")
        .try_into()
        .expect("an XDP program");
    let mut frame = frame();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut total = Duration::ZERO;
    for _ in 0..iterations {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        change(&mut frame, random);
        let options = TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        };
        total += program.test_run(options).expect("test run").duration;
    }
    total
}

fn uplink(c: &mut Criterion) {
    let mut group = c.benchmark_group("xdp-uplink");
    for sas in [100, 10_000, 1_000_000] {
        let mut bpf = load(sas).expect("load the object");
        group.bench_function(format!("known-spi/{sas}"), |b| {
            b.iter_custom(|iterations| {
                run(&mut bpf, iterations, |frame, random| {
                    let spi = SPI_BASE + (random % u64::from(sas)) as u32;
                    frame[SPI_AT..SPI_AT + 4].copy_from_slice(&spi.to_be_bytes());
                })
            });
        });
    }
    let mut bpf = load(10_000).expect("load the object");
    group.bench_function("unknown-spi", |b| {
        b.iter_custom(|iterations| {
            run(&mut bpf, iterations, |frame, random| {
                let spi = 256 + random as u32 % 1_000_000;
                frame[SPI_AT..SPI_AT + 4].copy_from_slice(&spi.to_be_bytes());
            })
        });
    });
    group.bench_function("not-ours", |b| {
        b.iter_custom(|iterations| run(&mut bpf, iterations, |frame, _| frame[DST_AT] = 6));
    });
    group.finish();
}

criterion_group!(benches, uplink);

fn main() {
    if let Err(error) = load(1) {
        #[expect(clippy::print_stdout, reason = "a bench's report goes there")]
        {
            println!("xdp: not measured: needs root and bpf(2): {error}");
        }
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
