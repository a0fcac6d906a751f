//! The control side at scale: SA sets, four SAs each, through a data plane with
//! its BPF maps and a worker. How many come and go in a second, how long one
//! takes, and how much memory each takes, by part. Section `scale`.
//!
//! Needs root, for the data plane; says so where it cannot.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a bench's report goes there")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gm_attack::lab::{Lab, Options};
use gm_benches::report::{self, Table};
use gm_benches::stats::Figure;
use gm_benches::{rounds, smoke};
use gm_dataplane::{DataPlane, Dir, NewSa, SetId, SetSpec};
use gm_esp::{Ck, EspKeys, Ik, Mode, Outer, SaSpec, SelProto, Selector, Suite};
use gm_sadb::Sadb;
use serde_json::{Value, json};

/// A million SAs.
const SETS: usize = 250_000;
/// Sets in one call.
const CHUNK: usize = 4096;
/// Sets that come and go alone.
const SINGLE: usize = 2000;

/// How packets travel.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    V4,
    V6,
    Udp,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::V4 => "IPv4",
            Way::V6 => "IPv6",
            Way::Udp => "UDP-enc-tun",
        }
    }
}

/// Inner addresses of phone `n` and of us, and what the NAT shows.
fn addresses(n: u32, way: Way) -> (IpAddr, IpAddr, IpAddr) {
    let phone = |net: u32| IpAddr::V4(Ipv4Addr::from_bits(net << 24 | (n & 0xff_ffff)));
    match way {
        Way::V6 => {
            let [.., high, low] = [0, (n >> 16) as u16, n as u16];
            let phone = Ipv6Addr::new(0xfd77, 1, high, low, 0, 0, 0, 1);
            let us = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
            (phone.into(), us.into(), phone.into())
        }
        _ => (phone(10), IpAddr::from([10, 64, 0, 1]), phone(11)),
    }
}

/// The four SAs of phone `n` (TS 33.203 7.1); `spis` are ours.
fn four(n: u32, way: Way, suite: Suite, spis: [u32; 2]) -> Vec<NewSa> {
    let (phone, us, nat) = addresses(n, way);
    let mut bytes = [0x5a; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    let keys = EspKeys::expand(suite, &Ik::from_bytes(bytes), &Ck::from_bytes(bytes));
    let one = |dir: Dir, spi: u32, here: u16, there: u16| {
        let selector = match dir {
            Dir::In => (phone, us, there, here),
            Dir::Out => (us, phone, here, there),
        };
        let outer = (way == Way::Udp).then_some(match dir {
            Dir::In => Outer {
                src: nat,
                dst: us,
                sport: None,
                dport: Some(4500),
            },
            Dir::Out => Outer {
                src: us,
                dst: nat,
                sport: Some(4500),
                dport: Some(20_000),
            },
        });
        NewSa {
            spec: SaSpec {
                spi,
                mode: if outer.is_some() {
                    Mode::UdpEncTun
                } else {
                    Mode::Trans
                },
                selector: Selector {
                    src: selector.0,
                    dst: selector.1,
                    src_port: Some(selector.2),
                    dst_port: Some(selector.3),
                    proto: SelProto::UdpTcp,
                },
                suite,
                outer,
                esn: false,
                replay_window: 64,
            },
            keys: keys.clone(),
            dir,
            first_seq: None,
        }
    };
    let [pc, ps] = spis;
    // What phones choose: anything.
    let (uc, us) = (1_000 + n.wrapping_mul(8), 1_001 + n.wrapping_mul(8));
    vec![
        one(Dir::In, pc, 5064, 30_001),
        one(Dir::In, ps, 5063, 30_000),
        one(Dir::Out, uc, 5063, 30_000),
        one(Dir::Out, us, 5064, 30_001),
    ]
}

/// Pages of this process, in bytes: its own, and of shared memory.
fn memory() -> Result<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    Ok((line("RssAnon:") * 1024, line("RssShmem:") * 1024))
}

/// Bytes of BPF maps that this process holds, as the kernel counts them.
fn maps() -> Result<u64> {
    let mut seen = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        let Ok(text) = std::fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|n| n.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            seen.insert(id, bytes);
        }
    }
    Ok(seen.values().sum())
}

struct Run {
    install: f64,
    activate: f64,
    remove: f64,
    list: f64,
    anon: f64,
    region: f64,
}

/// Installs, activates, lists, removes `sets` sets.
fn run(plane: &DataPlane, sets: usize, way: Way, suite: Suite) -> Result<Run> {
    let mut taken = (Duration::ZERO, Duration::ZERO);
    let mut ids: Vec<SetId> = Vec::with_capacity(sets);
    let before = memory()?;
    let mut n = 0;
    while ids.len() < sets {
        let some = CHUNK.min(sets - ids.len());
        let mut specs = Vec::with_capacity(some);
        for _ in 0..some {
            let spis = [plane.reserve(&[])?.spi, plane.reserve(&[])?.spi];
            let sas = four(n, way, suite, spis);
            specs.push(SetSpec { set: None, sas });
            n += 1;
        }
        let begin = Instant::now();
        let done = plane.install_many(specs);
        taken.0 += begin.elapsed();
        let done: Result<Vec<SetId>, _> = done.into_iter().collect();
        let done = done.context("install")?;
        let begin = Instant::now();
        for activated in plane.activate_many(&done) {
            activated.context("activate")?;
        }
        taken.1 += begin.elapsed();
        ids.extend(done);
    }
    let after = memory()?;
    let begin = Instant::now();
    let mut listed = plane.list_from(SetId(0), 256);
    let mut rows = listed.len();
    while let Some(last) = listed.last() {
        listed = plane.list_from(SetId(last.set.0 + 1), 256);
        rows += listed.len();
    }
    let list = begin.elapsed();
    ensure!(rows == 4 * sets, "{rows} rows of {sets} sets");
    let begin = Instant::now();
    for removed in ids.chunks(CHUNK).flat_map(|some| plane.remove_many(some)) {
        removed.context("remove")?;
    }
    let rate = |taken: Duration| sets as f64 / taken.as_secs_f64();
    let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / sets as f64;
    Ok(Run {
        install: rate(taken.0),
        activate: rate(taken.1),
        remove: rate(begin.elapsed()),
        list: rate(list),
        anon: each(after.0, before.0),
        region: each(after.1, before.1),
    })
}

/// Microseconds that one set takes to be installed, activated, removed, while
/// there are others.
fn single(plane: &DataPlane, suite: Suite) -> Result<[Figure; 3]> {
    let mut taken = [Vec::new(), Vec::new(), Vec::new()];
    for n in 0..rounds(SINGLE) as u32 {
        let spis = [plane.reserve(&[])?.spi, plane.reserve(&[])?.spi];
        let sas = four(n, Way::V4, suite, spis);
        let mut begin = Instant::now();
        let mut lap = || {
            let us = begin.elapsed().as_secs_f64() * 1e6;
            begin = Instant::now();
            us
        };
        let set = plane.install(SetSpec { set: None, sas })?;
        taken[0].push(lap());
        plane.activate(set)?;
        taken[1].push(lap());
        plane.remove(set)?;
        taken[2].push(lap());
    }
    Ok(taken.map(|t| Figure::of(&t)))
}

/// Bytes of the database alone, with SAs and keys, for one set.
fn database(sets: usize, suite: Suite) -> Result<f64> {
    let slots = (4 * sets as u32).next_power_of_two();
    let mut sadb = Sadb::create(slots, 64)?;
    let before = memory()?.0;
    for n in 0..sets as u32 {
        let spis = [sadb.reserve(&[])?.spi, sadb.reserve(&[])?.spi];
        let set = sadb.new_set();
        sadb.install(set, &four(n, Way::V4, suite, spis))?;
        sadb.activate(set)?;
    }
    Ok(memory()?.0.saturating_sub(before) as f64 / sets as f64)
}

/// One case, in a process of its own: memory that another one has had is used
/// again, and would not count.
fn case(suite: Suite, way: Way, sets: usize) -> Result<Value> {
    let max_sas = (4 * sets as u32).next_power_of_two();
    let before = maps()?;
    let lab = Lab::new(&Options {
        max_sas,
        ..Options::default()
    })?;
    let of_maps = maps()?.saturating_sub(before) as f64 / f64::from(max_sas) * 4.0;
    let one = run(&lab.plane, sets, way, suite)?;
    let [install, activate, remove] = single(&lab.plane, suite)?;
    let whole = |n: f64| n.round();
    Ok(json!({
        "suite": suite.to_string(),
        "way": way.name(),
        "installed/s": whole(one.install),
        "activated/s": whole(one.activate),
        "listed/s": whole(one.list),
        "removed/s": whole(one.remove),
        "bytes": whole(one.anon + one.region + of_maps),
        "own": whole(one.anon),
        "region": whole(one.region),
        "maps": whole(of_maps),
        "install us": Value::from(install),
        "activate us": Value::from(activate),
        "remove us": Value::from(remove),
    }))
}

const COLUMNS: [&str; 14] = [
    "suite",
    "way",
    "installed/s",
    "activated/s",
    "listed/s",
    "removed/s",
    "bytes",
    "own",
    "region",
    "maps",
    "database",
    "install us",
    "activate us",
    "remove us",
];

fn cases() -> impl Iterator<Item = (String, Suite, Way)> {
    let ways = [Way::V4, Way::V6, Way::Udp];
    let pairs = Suite::ALL
        .into_iter()
        .flat_map(move |s| ways.map(|w| (s, w)));
    pairs.map(|(s, w)| (format!("{s} {}", w.name()), s, w))
}

/// What this bench answers with one more argument, in a process of its own.
fn again(argument: &str) -> Result<Value> {
    let mut process = std::process::Command::new(std::env::current_exe()?);
    process.arg(argument).args(smoke().then_some("--test"));
    let output = process.stderr(std::process::Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{argument} has failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().context("no answer")?;
    Ok(serde_json::from_str(line)?)
}

fn measure() -> Result<()> {
    let sets = if smoke() { 300 } else { SETS };
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(wanted) = args.iter().find_map(|a| a.strip_prefix("--case=")) {
        let found = cases().find(|(name, ..)| name == wanted);
        let (_, suite, way) = found.context("no such case")?;
        println!("{}", case(suite, way, sets)?);
        return Ok(());
    }
    if let Some(wanted) = args.iter().find_map(|a| a.strip_prefix("--database=")) {
        let found = cases().find(|(name, ..)| name == wanted);
        let (_, suite, _) = found.context("no such case")?;
        println!("{}", database(sets, suite)?.round());
        return Ok(());
    }
    let filter = args.iter().find(|a| !a.starts_with('-'));
    let mut table = Table::new(
        "SA sets at scale",
        "Sets of four SAs through one data plane with one worker, 250 000 of them, at most 4096 in \
         a call, SPIs reserved before: sets a second; bytes for each set: the process's own, the region's, the BPF maps' \
         (by what there is room for), and the process's own of the database without a data plane; \
         microseconds of one set alone",
    )
    .columns(&COLUMNS);
    for (name, ..) in cases() {
        let left_out = smoke() && !name.ends_with("UDP-enc-tun");
        if left_out || filter.is_some_and(|f| !name.contains(f.as_str())) {
            continue;
        }
        let mut values = again(&format!("--case={name}"))?;
        values["database"] = again(&format!("--database={name}"))?;
        println!("{values}");
        table = table.row(COLUMNS.map(|c| values[c].clone()));
    }
    report::section("scale", table);
    Ok(())
}

fn main() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("scale: not root: a data plane needs its BPF maps and devices");
        return Ok(());
    }
    measure()
}
