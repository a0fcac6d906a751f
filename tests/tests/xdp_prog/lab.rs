//! The object in the kernel, driven by BPF_PROG_TEST_RUN.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use aya::maps::{Array, HashMap as BpfHash, Map, MapData, PerCpuArray, RingBuf, XskMap};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use gm_abi::maps::{
    ABI_VERSION, Addr, CONFIG_LISTED, CONFIG_SHED_CLEARTEXT, LISTED_ADDRS, PORT_WORDS,
    SLOT_LIMITED, SLOT_PUBLISHED, SLOT_TAG_SHIFT, SPI_BASE, mapped,
};
use gm_abi::sample::Sample;
use gm_abi::source::{place_of, prefix_of};
use gm_abi::verdict::{DROP_COUNT, Reason};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/prebuilt/gm-xdp.o");

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_REDIRECT: u32 = 4;
/// Goes on to the next program.
pub const TC_NEXT: u32 = u32::MAX;
pub const TC_DROP: u32 = 2;
pub const TC_REDIRECT: u32 = 7;

pub const SLOTS: u32 = 1024;
pub const COOKIE: u32 = 0x5eed_c0de;
pub const SEED: u32 = 0x0dd5_eed5;
pub const ENCAP_PORT: u16 = 4500;
/// Protected: 5100 to 5107.
pub const PROTECTED: u16 = 5104;
pub const OURS_V4: Addr = mapped([203, 0, 113, 5]);
pub const OURS_V6: Addr = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// What XDP is told about an SA.
#[derive(Clone, Copy, Debug)]
pub struct Sa {
    pub spi: u32,
    pub dst: Addr,
    pub mode: u8,
    /// `top`, `window`, cells; `None`: not published.
    pub window: Option<(u32, u32, [u64; 4])>,
    /// ICVs keep failing.
    pub limited: bool,
    /// Tag of where the newest verified packet has come from; zero: not known.
    pub tag: u16,
}

impl Sa {
    /// The SA of `slot` with an SPI of our own choice.
    pub fn of_slot(slot: u32, generation: u32, dst: Addr, mode: u8) -> Sa {
        let spi = SPI_BASE + generation * SLOTS + slot;
        Sa {
            spi,
            dst,
            mode,
            window: None,
            limited: false,
            tag: 0,
        }
    }

    fn image(&self) -> [u8; 64] {
        let mut b = [0; 64];
        let (top, window, cells) = self.window.unwrap_or_default();
        let mut flags = u32::from(self.mode) | u32::from(self.tag) << SLOT_TAG_SHIFT;
        if self.window.is_some() {
            flags |= SLOT_PUBLISHED;
        }
        if self.limited {
            flags |= SLOT_LIMITED;
        }
        b[0..4].copy_from_slice(&self.spi.to_be_bytes());
        b[4..8].copy_from_slice(&flags.to_ne_bytes());
        b[8..24].copy_from_slice(&self.dst);
        b[24..28].copy_from_slice(&top.to_ne_bytes());
        b[28..32].copy_from_slice(&window.to_ne_bytes());
        for (i, cell) in cells.iter().enumerate() {
            b[32 + 8 * i..40 + 8 * i].copy_from_slice(&cell.to_ne_bytes());
        }
        b
    }
}

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    pub action: u32,
    /// The frame afterwards; metadata of XDP stands in front of it.
    pub data: Vec<u8>,
    /// The packet's mark afterwards; tc only.
    pub mark: u32,
    /// What was counted, and how often.
    pub counted: Vec<(Reason, u64)>,
}

/// The loaded object.
pub struct Lab {
    pub bpf: Ebpf,
    /// What is in the maps, for a model to look up.
    pub sas: HashMap<(Addr, u32), (u32, Sa)>,
    last: Vec<u64>,
    _socket: OwnedFd,
}

impl Lab {
    /// Loads everything, writes a configuration, and puts a socket where a
    /// worker's would be.
    pub fn new() -> Lab {
        let mut lab = Lab::bare();
        lab.configure(1, 1, &[OURS_V4, OURS_V6]);
        lab.set_socket(true);
        lab
    }

    /// Writes configuration, addresses and ports.
    pub fn configure(&mut self, uplink: u32, gm0: u32, addresses: &[Addr]) {
        let mut config = [0; 32];
        for (i, word) in [
            ABI_VERSION,
            SLOTS - 1,
            uplink,
            gm0,
            COOKIE,
            u32::from(ENCAP_PORT),
            CONFIG_SHED_CLEARTEXT | CONFIG_LISTED,
            SEED,
        ]
        .into_iter()
        .enumerate()
        {
            config[4 * i..4 * i + 4].copy_from_slice(&u32::to_ne_bytes(word));
        }
        self.array::<[u8; 32]>("CONFIG").set(0, config, 0).unwrap();
        for addr in addresses {
            let mut addrs: BpfHash<_, Addr, u32> = self.map("ADDRS").try_into().unwrap();
            addrs.insert(addr, 1, 0).unwrap();
        }
        let mut listed = [0; 16 * LISTED_ADDRS];
        for (place, addr) in listed.as_chunks_mut().0.iter_mut().zip(addresses) {
            *place = *addr;
        }
        assert!(addresses.len() <= LISTED_ADDRS);
        self.array::<[u8; 16 * LISTED_ADDRS]>("LISTED")
            .set(0, listed, 0)
            .unwrap();
        let word = u32::from(PROTECTED) / 64;
        assert!(word < PORT_WORDS);
        let bits = 0xffu64 << (5100 % 64);
        self.array::<u64>("PORTS").set(word, bits, 0).unwrap();
    }

    /// Lets the programs look addresses up by the hash alone, as where there are
    /// more than can be listed.
    pub fn unlist(&mut self) {
        let mut config = self.array::<[u8; 32]>("CONFIG").get(&0, 0).unwrap();
        config[24..28].copy_from_slice(&CONFIG_SHED_CLEARTEXT.to_ne_bytes());
        self.array::<[u8; 32]>("CONFIG").set(0, config, 0).unwrap();
        self.array::<[u8; 16 * LISTED_ADDRS]>("LISTED")
            .set(0, [0xff_u8; 16 * LISTED_ADDRS], 0)
            .unwrap();
    }

    /// The same where the kernel's own SAs are tolerated.
    pub fn beside_kernel_sas() -> Lab {
        let mut lab = Lab::loaded(true);
        lab.configure(1, 1, &[OURS_V4, OURS_V6]);
        lab.set_socket(true);
        lab
    }

    /// Loads everything and configures nothing.
    pub fn bare() -> Lab {
        Lab::loaded(false)
    }

    /// The same, with or without tolerance for SAs of the kernel.
    pub fn loaded(kernel_sas: bool) -> Lab {
        let object = std::fs::read(OBJECT).expect("ebpf/prebuilt/gm-xdp.o");
        let mut bpf = EbpfLoader::new()
            .override_global("KERNEL_SAS", &u32::from(kernel_sas), true)
            .map_max_entries("SLOTS", SLOTS)
            .map_max_entries("SLOT_DROPS", SLOTS)
            .load(&object)
            .expect("load the object: these tests need root");
        for name in ["gm_xdp_uplink", "gm_xdp_gm0x"] {
            let program: &mut Xdp = bpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        for name in ["gm_tc_gm0", "gm_tc_guard", "gm_tc_egress"] {
            let program: &mut SchedClassifier = bpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let socket = socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("an AF_XDP socket");
        let last = vec![0; Reason::COUNT];
        Lab {
            bpf,
            sas: HashMap::new(),
            last,
            _socket: socket,
        }
    }

    pub fn map(&mut self, name: &str) -> &mut Map {
        self.bpf
            .map_mut(name)
            .unwrap_or_else(|| panic!("no map {name}"))
    }

    pub fn array<V: aya::Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        self.map(name).try_into().unwrap()
    }

    /// A worker on queue 0 of both devices, or none.
    pub fn set_socket(&mut self, there: bool) {
        for name in ["XSK_UPLINK", "XSK_GM0X"] {
            let socket = self._socket.try_clone().unwrap();
            let mut map: XskMap<_> = self.map(name).try_into().unwrap();
            if there {
                map.set(0, socket, 0).unwrap();
            } else {
                map.unset(0).unwrap();
            }
        }
    }

    pub fn install(&mut self, slot: u32, sa: Sa) {
        self.array::<[u8; 64]>("SLOTS")
            .set(slot, sa.image(), 0)
            .unwrap();
        self.sas.insert((sa.dst, sa.spi), (slot, sa));
    }

    /// Installs an SA whose SPI is not of our choice.
    pub fn install_foreign(&mut self, slot: u32, sa: Sa) {
        let mut key = [0; 20];
        key[..16].copy_from_slice(&sa.dst);
        key[16..].copy_from_slice(&sa.spi.to_be_bytes());
        let mut map: BpfHash<_, [u8; 20], u32> = self.map("FOREIGN").try_into().unwrap();
        map.insert(key, slot, 0).unwrap();
        self.install(slot, sa);
    }

    /// Writes a word of one of the arrays of words.
    pub fn set_word(&mut self, map: &str, at: u32, value: u64) {
        self.array::<u64>(map).set(at, value, 0).unwrap();
    }

    /// Reads one.
    pub fn word(&mut self, map: &str, at: u32) -> u64 {
        self.array::<u64>(map).get(&at, 0).unwrap()
    }

    /// Lets `each` samples be made for each reason.
    pub fn give_samples(&mut self, each: u64) {
        (0..Reason::COUNT as u32).for_each(|at| self.set_word("SAMPLE_TOKENS", at, each));
    }

    /// The samples since the last call.
    pub fn samples(&mut self) -> Vec<Sample> {
        let mut ring = RingBuf::try_from(self.map("SAMPLES")).unwrap();
        let mut samples = Vec::new();
        while let Some(item) = ring.next() {
            assert_eq!(item.len(), size_of::<Sample>());
            samples.push(Sample::from_bytes(&item).expect("a sample"));
        }
        samples
    }

    /// Who has the place of the source of `addr`, its credit, and what was
    /// dropped for it, by [`Reason::drop_index`].
    pub fn place(&mut self, addr: &Addr) -> (u64, u64, [u64; DROP_COUNT]) {
        let at = place_of(prefix_of(addr), SEED);
        let b = self.array::<[u8; 256]>("PREFIXES").get(&at, 0).unwrap();
        let word = |i: usize| u64::from_ne_bytes(b[8 * i..8 * i + 8].try_into().unwrap());
        let drops = std::array::from_fn(|i| word(2 + i));
        (word(0), word(1), drops)
    }

    /// What was dropped for the source of `addr`; nothing when the place is
    /// another one's.
    pub fn dropped_for(&mut self, addr: &Addr) -> Vec<(Reason, u64)> {
        let (prefix, _, drops) = self.place(addr);
        if prefix != prefix_of(addr) {
            return Vec::new();
        }
        let of = |reason: &Reason| Some((*reason, drops[reason.drop_index()?]));
        let all = Reason::ALL.iter().filter_map(of);
        all.filter(|(_, n)| *n > 0).collect()
    }

    /// Replay, stale, mode mismatch, limited of a slot.
    pub fn drops(&mut self, slot: u32) -> [u64; 4] {
        let b = self.array::<[u8; 32]>("SLOT_DROPS").get(&slot, 0).unwrap();
        [0, 8, 16, 24].map(|i| u64::from_ne_bytes(b[i..i + 8].try_into().unwrap()))
    }

    /// All counters, summed over the CPUs.
    pub fn counters(&mut self) -> Vec<u64> {
        let map: PerCpuArray<_, u64> = self.map("COUNTERS").try_into().unwrap();
        (0..Reason::COUNT as u32)
            .map(|i| map.get(&i, 0).unwrap().iter().sum())
            .collect()
    }

    fn counted(&mut self) -> Vec<(Reason, u64)> {
        let now = self.counters();
        let before = std::mem::replace(&mut self.last, now.clone());
        Reason::ALL
            .iter()
            .zip(now.iter().zip(before))
            .filter(|(_, (now, before))| *now != before)
            .map(|(reason, (now, before))| (*reason, now - before))
            .collect()
    }

    /// Runs an XDP program without asking what it counted.
    pub fn xdp_quietly(&mut self, name: &str, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut data = vec![0; frame.len() + 64];
        let program: &mut Xdp = self.bpf.program_mut(name).unwrap().try_into().unwrap();
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut data),
            ..TestRunOptions::new()
        };
        let result = program
            .test_run(options)
            .unwrap_or_else(|e| panic!("{name}, {} bytes: {e:?}", frame.len()));
        data.truncate(result.data_size_out as usize);
        (result.return_value, data)
    }

    pub fn xdp(&mut self, name: &str, frame: &[u8]) -> Ran {
        let (action, data) = self.xdp_quietly(name, frame);
        Ran {
            action,
            data,
            mark: 0,
            counted: self.counted(),
        }
    }

    pub fn uplink(&mut self, frame: &[u8]) -> Ran {
        self.xdp("gm_xdp_uplink", frame)
    }

    /// Runs a tc program on a packet of the interface `lo`.
    pub fn tc(&mut self, name: &str, frame: &[u8], mark: u32) -> Ran {
        self.tc_on(name, frame, mark, 0)
    }

    /// Runs a tc program on a packet of the interface `index`; zero: `lo`.
    pub fn tc_on(&mut self, name: &str, frame: &[u8], mark: u32, index: u32) -> Ran {
        let mut data = vec![0; frame.len() + 64];
        // struct __sk_buff: the mark is its third word, the interface its eleventh.
        let mut ctx = vec![0; 192];
        ctx[40..44].copy_from_slice(&index.to_ne_bytes());
        ctx[8..12].copy_from_slice(&mark.to_ne_bytes());
        let mut ctx_out = vec![0; 512];
        let program: &mut SchedClassifier = self.bpf.program_mut(name).unwrap().try_into().unwrap();
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut data),
            ctx_in: Some(&ctx),
            ctx_out: Some(&mut ctx_out),
            ..TestRunOptions::new()
        };
        let result = program
            .test_run(options)
            .unwrap_or_else(|e| panic!("{name}, {} bytes: {e:?}", frame.len()));
        data.truncate(result.data_size_out as usize);
        let mark = u32::from_ne_bytes(ctx_out[8..12].try_into().unwrap());
        Ran {
            action: result.return_value,
            data,
            mark,
            counted: self.counted(),
        }
    }
}
