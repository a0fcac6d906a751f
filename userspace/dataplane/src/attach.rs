//! Loading the BPF object and attaching its programs, pinned or not.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::xdp::XdpLink;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use gm_sadb::inbound;

use crate::config::TcMode;
use crate::pins::{self, PinDir};
use crate::{Config, Error};

/// The BPF programs as committed; what is attached is what was reviewed.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/prebuilt/gm-xdp.o");

/// XDP on the uplink: classify, precheck, steer.
pub(crate) const XDP_UPLINK: &str = "gm_xdp_uplink";
/// XDP on gm0x: everything IP to a worker.
pub(crate) const XDP_GM0X: &str = "gm_xdp_gm0x";
/// tc ingress of gm0: mark and redirect to the uplink's ingress.
pub(crate) const TC_GM0: &str = "gm_tc_gm0";
/// tc ingress of every other interface: the guard.
pub(crate) const TC_GUARD: &str = "gm_tc_guard";
/// tc egress: on the uplink what is protected goes to gm0, on every other
/// interface that packets leave through it is dropped.
pub(crate) const TC_EGRESS: &str = "gm_tc_egress";

/// Filters on clsact are ours at this priority and handle: first in order,
/// and found again by a successor.
const CLSACT_PRIORITY: u16 = 1;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0x676d);

/// The errno in an error's chain of sources.
pub(crate) fn errno_of(e: &(dyn StdError + 'static)) -> Option<i32> {
    let mut at = Some(e);
    while let Some(e) = at {
        if let Some(n) = e
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(n);
        }
        at = e.source();
    }
    None
}

/// An error of the BPF library, with the causes that it carries.
pub(crate) fn bpf(what: impl Into<String>, e: &(dyn StdError + 'static)) -> Error {
    let what = what.into();
    match errno_of(e) {
        Some(n @ (nix::libc::EPERM | nix::libc::EACCES)) => {
            return Error::NotPermitted {
                what,
                source: io::Error::from_raw_os_error(n),
            };
        }
        Some(nix::libc::ENOSYS) => {
            return Error::Kernel {
                what,
                detail: e.to_string(),
            };
        }
        _ => {}
    }
    let mut detail = e.to_string();
    let mut at = e.source();
    while let Some(e) = at {
        let text = e.to_string();
        if !detail.contains(&text) {
            detail = format!("{detail}: {text}");
        }
        at = e.source();
    }
    Error::Bpf { what, detail }
}

/// Loads the object with maps of this configuration's size. The maps are new
/// each time: a successor brings its own and swaps the programs in the links,
/// so no version of a map meets a program of another one.
pub(crate) fn load(cfg: &Config) -> Result<Ebpf, Error> {
    // Only inbound SAs are XDP's.
    let slots = inbound(cfg.slots());
    let kernel_sas = u32::from(cfg.kernel_sas);
    EbpfLoader::new()
        .override_global("KERNEL_SAS", &kernel_sas, true)
        .map_max_entries("SLOTS", slots)
        .map_max_entries("SLOT_DROPS", slots)
        .map_max_entries("FOREIGN", slots)
        .load(OBJECT)
        .map_err(|e| bpf("load the BPF object", &e))
}

/// Pins the maps beside the links: with them an operator can read what the
/// attached programs count while no process is there.
pub(crate) fn pin_maps(ebpf: &Ebpf, pins: &PinDir) -> Result<(), Error> {
    // The compiler's own maps have a dot in their names, which bpffs refuses.
    for (name, map) in ebpf.maps().filter(|(name, _)| !name.contains('.')) {
        let path = pins.map(name);
        pins::remove(&path)?;
        map.pin(&path)
            .map_err(|e| bpf(format!("pin {}", path.display()), &e))?;
    }
    Ok(())
}

/// A program's attachment, kept as long as the data plane lives.
pub(crate) enum Held {
    /// A link that goes when it is dropped.
    Link(#[expect(dead_code, reason = "held for its Drop")] FdLink),
    /// A link that stays until its pin is removed.
    Pinned(PathBuf, PinnedLink),
    /// A clsact filter.
    Filter(SchedClassifierLink),
}

impl Held {
    fn keep(link: FdLink, name: &str, pins: Option<&PinDir>) -> Result<Held, Error> {
        let Some(pins) = pins else {
            return Ok(Held::Link(link));
        };
        let path = pins.link(name);
        pins::remove(&path)?;
        let pinned = link
            .pin(&path)
            .map_err(|e| bpf(format!("pin {}", path.display()), &e))?;
        Ok(Held::Pinned(path, pinned))
    }

    /// Where it is pinned.
    pub(crate) fn pin(&self) -> Option<&Path> {
        match self {
            Held::Pinned(path, _) => Some(path),
            Held::Link(_) | Held::Filter(_) => None,
        }
    }

    /// Lets go of the program without detaching it, as far as it can stay
    /// without this process.
    pub(crate) fn leave(self) {
        if let Held::Filter(link) = self {
            // Dropped it would detach.
            std::mem::forget(link);
        }
    }

    /// Detaches the program, also when it is pinned.
    pub(crate) fn detach(self) -> Result<(), Error> {
        match self {
            Held::Pinned(path, _link) => pins::remove(&path),
            Held::Link(_) | Held::Filter(_) => Ok(()),
        }
    }
}

/// Under which name a program's link to an interface is pinned. The index is
/// in it: a link is taken over for the interface that it was made for, and a
/// successor may have another uplink.
pub(crate) fn pin_of(name: &str, index: u32) -> String {
    format!("{name}_{index}")
}

/// The link that a predecessor pinned under this name, if its device lives.
fn predecessor(name: &str, pins: Option<&PinDir>) -> Option<FdLink> {
    PinnedLink::from_pin(pins?.link(name))
        .ok()
        .map(FdLink::from)
}

fn program<'e, P>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut P, Error>
where
    &'e mut P: TryFrom<&'e mut aya::programs::Program, Error = ProgramError>,
{
    let missing = || Error::Bpf {
        what: format!("program {name}"),
        detail: "missing from the BPF object".into(),
    };
    ebpf.program_mut(name)
        .ok_or_else(missing)?
        .try_into()
        .map_err(|e: ProgramError| bpf(format!("program {name}"), &e))
}

/// Puts all programs through the kernel's verifier.
pub(crate) fn verify(ebpf: &mut Ebpf) -> Result<(), Error> {
    for name in [XDP_UPLINK, XDP_GM0X] {
        let p: &mut Xdp = program(ebpf, name)?;
        p.load().map_err(|e| bpf(format!("load {name}"), &e))?;
    }
    for name in [TC_GM0, TC_GUARD, TC_EGRESS] {
        let p: &mut SchedClassifier = program(ebpf, name)?;
        p.load().map_err(|e| bpf(format!("load {name}"), &e))?;
    }
    Ok(())
}

/// Attaches an XDP program in driver mode. In generic mode XDP would meet the
/// opened packets again, and on gm0x it would never see the redirected ones.
pub(crate) fn attach_xdp(
    ebpf: &mut Ebpf,
    name: &str,
    interface: (u32, &str),
    pins: Option<&PinDir>,
) -> Result<Held, Error> {
    let (index, device) = interface;
    let pin = pin_of(name, index);
    let p: &mut Xdp = program(ebpf, name)?;
    let what = || format!("attach {name} to {device}");

    let mut id = None;
    if let Some(old) = predecessor(&pin, pins)
        && let Ok(link) = XdpLink::try_from(old)
    {
        // Fails when the device has gone and come back; then attach anew.
        id = p.attach_to_link(link).ok();
    }
    let id = match id {
        Some(id) => id,
        None => {
            if let Some(pins) = pins {
                pins::remove(&pins.link(&pin))?;
            }
            p.attach_to_if_index(index, XdpMode::Driver)
                .map_err(|e| match errno_of(&e) {
                    Some(nix::libc::EBUSY | nix::libc::EEXIST) => Error::XdpBusy {
                        interface: device.to_owned(),
                    },
                    Some(nix::libc::EOPNOTSUPP | nix::libc::ERANGE | nix::libc::EINVAL) => {
                        Error::XdpUnsupported {
                            interface: device.to_owned(),
                            detail: bpf(what(), &e).to_string(),
                        }
                    }
                    _ => bpf(what(), &e),
                })?
        }
    };
    let link = p.take_link(id).map_err(|e| bpf(what(), &e))?;
    match FdLink::try_from(link) {
        Ok(fd) => Held::keep(fd, &pin, pins),
        Err(e) => Err(bpf(what(), &e)),
    }
}

/// Whether tcx is to be used (kernel 6.6 and later).
pub(crate) fn use_tcx(mode: TcMode) -> bool {
    match mode {
        TcMode::Auto => KernelVersion::current().is_ok_and(|v| v >= KernelVersion::new(6, 6, 0)),
        TcMode::Tcx => true,
        TcMode::Clsact => false,
    }
}

/// Attaches a tc program as the first in order. `pin` names the link.
pub(crate) fn attach_tc(
    ebpf: &mut Ebpf,
    name: &str,
    device: &str,
    side: TcAttachType,
    (tcx, pins, pin): (bool, Option<&PinDir>, &str),
) -> Result<Held, Error> {
    let p: &mut SchedClassifier = program(ebpf, name)?;
    let what = || format!("attach {name} to {device}");
    if !tcx {
        return attach_clsact(p, device, side)
            .map(Held::Filter)
            .map_err(|e| bpf(what(), &e));
    }

    let mut id = None;
    if let Some(old) = predecessor(pin, pins)
        && let Ok(link) = SchedClassifierLink::try_from(old)
    {
        id = p.attach_to_link(link).ok();
    }
    let id = match id {
        Some(id) => id,
        None => {
            if let Some(pins) = pins {
                pins::remove(&pins.link(pin))?;
            }
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            p.attach_with_options(device, side, first)
                .map_err(|e| bpf(what(), &e))?
        }
    };
    let link = p.take_link(id).map_err(|e| bpf(what(), &e))?;
    let fd = FdLink::try_from(link).map_err(|e: LinkError| bpf(what(), &e))?;
    Held::keep(fd, pin, pins)
}

/// A filter on clsact stays when its process is killed, so the successor puts
/// its own program in the same place, without a gap.
fn attach_clsact(
    p: &mut SchedClassifier,
    device: &str,
    side: TcAttachType,
) -> Result<SchedClassifierLink, ProgramError> {
    // There already, as a rule: then the filter's own error says what is wrong.
    let _ = qdisc_add_clsact(device);
    let options = NlOptions {
        priority: CLSACT_PRIORITY,
        handle: CLSACT_HANDLE,
        classid: None,
    };
    let id = match p.attach_with_options(device, side, TcAttachOptions::Netlink(options)) {
        Err(e) if errno_of(&e) == Some(nix::libc::EEXIST) => {
            let old =
                SchedClassifierLink::attached(device, side, CLSACT_PRIORITY, CLSACT_HANDLE, None)
                    .map_err(aya::programs::tc::TcError::IoError)?;
            p.attach_to_link(old)?
        }
        r => r?,
    };
    p.take_link(id)
}
