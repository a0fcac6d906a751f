//! The kernel as the data plane: its own ESP (XFRM) carries the packets, policies that
//! block and a table of nftables guard what is protected.
//!
//! ```text
//! phone ── ESP ──> XFRM: state, ICV, window ──> guard (nft, input) ──> policies ──> socket
//! phone <── ESP ── XFRM: state <── policies <── guard (nft, output) <── socket
//!                    ^                ^
//!                    └── control.rs ──┴─ book.rs (what is there), Sadb (what may be)
//! ```
//!
//! * [`start`](KernelPlane::start) puts the guard ([`guard`]) and the base policies
//!   ([`base`]) in force before anything else, over those of a killed predecessor, whose
//!   SAs it then removes.
//! * Sets of SAs come and go as with XDP, by the rules of the same database
//!   ([`control`]).
//! * [`follow`] hears what happens in the kernel: a phone's port has changed, somebody has
//!   removed what is ours.
//! * [`lost`] says what this data plane does not have.
//!
//! What is ours in the kernel's tables is marked: states by their reqid, policies by their
//! priority, the guard by its name. Nothing else is touched.

mod base;
mod book;
mod control;
mod encap;
mod error;
mod follow;
mod guard;
mod lock;
mod lost;
mod nft;
mod numbers;
mod plane;
mod ports;
mod probe;
mod report;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::channel::{Receiver, bounded};
use gm_dataplane::{Event, Past};
use gm_sadb::Sadb;
use gm_xfrm::kernel::plan::is_our_policy;
use gm_xfrm::kernel::{Xfrm, XfrmError};

use self::book::Book;
use self::control::Control;
use self::guard::Guard;
use self::lock::InstanceLock;
use self::report::{Totals, XfrmStat};

pub use self::error::KernelError;
pub use self::lost::LOST;
pub use self::plane::no_workers;

/// Events that nobody has fetched yet, at most.
const EVENTS: usize = 1024;

/// What this data plane is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses of the Gm link.
    pub addresses: Vec<IpAddr>,
    /// Protected ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Most SAs, a power of two.
    pub max_sas: u32,
    /// Largest replay window of an SA.
    pub replay_window: u32,
    /// Local UDP port of ESP in UDP.
    pub encap_port: u16,
    /// A phone whose NAT has changed the port is followed.
    pub follow_encap_port: bool,
}

/// The data plane. Clones are the same one. When the last one goes, what is in the kernel
/// stays: as after a kill.
#[derive(Clone)]
pub struct KernelPlane {
    shared: Arc<Shared>,
}

/// What the handles and the thread share.
struct Shared {
    control: Mutex<Option<Control>>,
    /// Apart, so that no command waits for nft.
    guard: Mutex<Option<Guard>>,
    events: Receiver<Event>,
    /// The kernel's counters at the start.
    before: XfrmStat,
    _lock: InstanceLock,
}

impl Shared {
    fn control(&self) -> MutexGuard<'_, Option<Control>> {
        // A panic leaves nothing half done that a later command would not repeat.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guard(&self) -> MutexGuard<'_, Option<Guard>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        run: impl FnOnce(&mut Control) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        run(self.control().as_mut().ok_or(KernelError::Down)?)
    }
}

impl KernelPlane {
    /// Puts the policy in force in the network namespace of the calling thread. When it
    /// returns nothing that is protected goes without an SA, and there is none.
    ///
    /// # Errors
    /// [`KernelError`] says what is missing. What a killed predecessor has left stays in
    /// force then; where there was none, nothing is left behind.
    pub fn start(settings: Settings) -> Result<KernelPlane, KernelError> {
        let lock = InstanceLock::take()?;
        let mut xfrm = Xfrm::open()?;
        probe::probe(&mut xfrm, &settings.addresses)?;
        let had = Guard::is_there() || xfrm.policies()?.iter().any(is_our_policy);
        let put = Guard::put(&settings.addresses, settings.ports.iter().cloned());
        let guard = match put {
            Ok(guard) => guard,
            Err(error) => {
                // It may be there all the same, and be what nft could not show.
                if !had {
                    let _ = guard::remove();
                }
                return Err(error);
            }
        };
        match begin(&settings, xfrm, lock, &guard) {
            Ok(begun) => begun.run(guard, had),
            Err(error) => {
                if !had {
                    abandon(&settings, &guard);
                }
                Err(error)
            }
        }
    }

    /// The events. Each goes to one receiver.
    pub fn events(&self) -> Receiver<Event> {
        self.shared.events.clone()
    }

    /// Takes everything out of the kernel: SAs, what blocks, and last the guard. From then
    /// on this host sends in clear again. Idempotent.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is.
    pub fn shutdown(&self) -> Result<(), KernelError> {
        // The thread that watches finds nothing to put back then.
        let guard = self.shared.guard().take();
        let control = self.shared.control().take();
        let stopped = control.map_or(Ok(()), |mut control| control.stop());
        stopped.and(guard.map_or(Ok(()), |guard| guard.remove()))
    }

    /// Lets go and leaves everything as it is, for a process that ends because something
    /// has failed: SAs go on in the kernel, and what is protected and has none is dropped.
    pub fn leave_in_force(&self) {
        drop(self.shared.guard().take());
        drop(self.shared.control().take());
    }
}

/// What has begun and is not watched yet.
struct Begun {
    shared: Shared,
    watch: follow::Ears,
}

impl Begun {
    fn run(self, guard: Guard, had: bool) -> Result<KernelPlane, KernelError> {
        let Begun { shared, watch } = self;
        *shared.guard() = Some(guard);
        let shared = Arc::new(shared);
        if let Err(error) = follow::start(watch, Arc::downgrade(&shared)) {
            let plane = KernelPlane { shared };
            // The first error is the one to tell.
            match had {
                true => plane.leave_in_force(),
                false => drop(plane.shutdown()),
            }
            return Err(error);
        }
        Ok(KernelPlane { shared })
    }
}

/// All but the guard, which is in force: first what blocks, then what a predecessor has
/// left goes.
fn begin(
    settings: &Settings,
    mut xfrm: Xfrm,
    lock: InstanceLock,
    _in_force: &Guard,
) -> Result<Begun, KernelError> {
    let base = base::policies(&settings.addresses, settings.ports.iter().cloned());
    for policy in &base {
        base::put(&mut xfrm, policy)?;
    }
    let old = base::clear(&mut xfrm, &base)?;
    if old > 0 {
        tracing::info!(
            states = old,
            "what a predecessor has left in the kernel is removed"
        );
    }
    let encap = encap::open(&settings.addresses, settings.encap_port)?;
    let mut sadb = Sadb::create(settings.max_sas, settings.replay_window)
        .map_err(|error| KernelError::Io("make the SA region", std::io::Error::other(error)))?;
    let mut seed = [0; 4];
    getrandom::fill(&mut seed)
        .map_err(|error| KernelError::Io("draw random bytes", std::io::Error::other(error)))?;
    sadb.scatter_spis(u32::from_ne_bytes(seed));
    if let Some(problem) = sadb.region().lock_problem() {
        tracing::warn!("{problem}");
    }
    // From here on what others do is heard; what was before has been read.
    let watch = follow::Ears::open()?;
    let (events, heard) = bounded(EVENTS);
    let control = Control {
        settings: settings.clone(),
        sadb,
        xfrm,
        book: Book::new(&base),
        past: Past::default(),
        totals: Totals::default(),
        events,
        encap,
    };
    Ok(Begun {
        shared: Shared {
            control: Mutex::new(Some(control)),
            guard: Mutex::new(None),
            events: heard,
            before: XfrmStat::read(),
            _lock: lock,
        },
        watch,
    })
}

/// Undoes a start that has failed where there was nothing before.
fn abandon(settings: &Settings, guard: &Guard) {
    let removed = || -> Result<(), XfrmError> {
        let mut xfrm = Xfrm::open()?;
        for policy in base::policies(&settings.addresses, settings.ports.iter().cloned()) {
            base::take_away(&mut xfrm, &policy)?;
        }
        Ok(())
    };
    if let Err(error) = removed() {
        tracing::warn!(%error, "policies that block are left in the kernel");
    }
    if let Err(error) = guard.remove() {
        tracing::warn!(%error, "the guard is left in nftables");
    }
}
