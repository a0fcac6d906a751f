//! The BPF programs around the raw forwarder: gmesp's own, of the committed
//! object, but for the uplink's, which has SAs to look up; there the program of
//! gm0x does what is left (parse, note, redirect to the socket of the queue).

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, XskMap};
use aya::programs::tc::qdisc_add_clsact;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use gm_abi::maps::{ABI_VERSION, CONFIG_LISTED, CONFIG_SHED_CLEARTEXT, LISTED_ADDRS, mapped};
use gm_xsk::nic;

use crate::world::{GM0, OURS, UPLINK, config};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/prebuilt/gm-xdp.o");

/// The mark of injected packets; any but zero.
const COOKIE: u32 = 0x676d_6573;

fn load() -> Result<Ebpf> {
    EbpfLoader::new()
        .map_max_entries("SLOTS", 16)
        .map_max_entries("SLOT_DROPS", 16)
        .load(OBJECT)
        .context("load the BPF object")
}

/// Sends every IP packet that comes in on queue 0 of a device to a socket.
pub struct Redirect(#[expect(dead_code, reason = "held for its Drop")] Ebpf);

impl Redirect {
    /// Attaches it in the calling thread's namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach(device: &str, socket: BorrowedFd<'_>) -> Result<Redirect> {
        let mut bpf = load()?;
        let program: &mut Xdp = bpf
            .program_mut("gm_xdp_gm0x")
            .context("gm_xdp_gm0x")?
            .try_into()?;
        program.load()?;
        program.attach(device, XdpMode::Driver)?;
        let map = bpf.map_mut("XSK_GM0X").context("XSK_GM0X")?;
        XskMap::try_from(map)?.set(0, socket.as_raw_fd(), 0)?;
        Ok(Redirect(bpf))
    }
}

/// The tc programs as gmesp attaches them: injection, guard, egress.
pub struct Around(#[expect(dead_code, reason = "held for its Drop")] Ebpf);

impl Around {
    /// Attaches them in the calling thread's namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach() -> Result<Around> {
        let mut bpf = load()?;
        let words: [u32; 8] = [
            ABI_VERSION,
            15,
            nic::index(UPLINK)?,
            nic::index(GM0)?,
            COOKIE,
            4500,
            CONFIG_SHED_CLEARTEXT | CONFIG_LISTED,
            1,
        ];
        let map = bpf.map_mut("CONFIG").context("CONFIG")?;
        Array::<_, [u32; 8]>::try_from(map)?.set(0, words, 0)?;
        let map = bpf.map_mut("ADDRS").context("ADDRS")?;
        HashMap::<_, [u8; 16], u32>::try_from(map)?.insert(mapped(OURS.octets()), 1, 0)?;
        // As gmesp does with few addresses.
        let mut listed = [0; 16 * LISTED_ADDRS];
        listed[..16].copy_from_slice(&mapped(OURS.octets()));
        let map = bpf.map_mut("LISTED").context("LISTED")?;
        Array::<_, [u8; 16 * LISTED_ADDRS]>::try_from(map)?.set(0, listed, 0)?;
        let mut ports: Array<_, u64> = bpf.map_mut("PORTS").context("PORTS")?.try_into()?;
        for (i, word) in (0u32..).zip(config().port_words()) {
            ports.set(i, word, 0)?;
        }
        for (name, device, side) in [
            ("gm_tc_gm0", GM0, TcAttachType::Ingress),
            ("gm_tc_guard", UPLINK, TcAttachType::Ingress),
            ("gm_tc_egress", UPLINK, TcAttachType::Egress),
        ] {
            let program: &mut SchedClassifier = bpf.program_mut(name).context(name)?.try_into()?;
            program.load()?;
            // Kernels without tcx want it; elsewhere it changes nothing.
            let _ = qdisc_add_clsact(device);
            program.attach(device, side)?;
        }
        Ok(Around(bpf))
    }
}
