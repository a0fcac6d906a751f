//! What a worker does with packets: batches of frames in, frames out, no
//! system call. The ring loop is in `worker.rs`.
//!
//! ```text
//! uplink --inbound()--> check -> open -> commit, publish -> admit --> Out::stack
//!            \--fragments--> put together -> the same, or judged in clear --^
//! gm0x --outbound()--> flow -> select -> number -> seal -> fit ------> Out::wire
//!            \--fragments--> put together -> the same ----------------^
//! ```
//!
//! Batches come divided by owner ([`Hand`]): every SA that a packet of them has is
//! this worker's. Only of a datagram in fragments that is known when it is
//! whole, and then it may have to go on to another worker.
//!
//! Cache lines of an SA that a packet touches, beside its expanded key, which the
//! SAs of a set share; a batch asks for all of them before it needs the first:
//!
//! | | in | out |
//! |---|---|---|
//! | found by slot; by flow | | 1 |
//! | [`Entry`], what the worker has of it, with its [`Sa`](gm_esp::Sa) | 1 | 1 |
//! | [`Ends`](gm_esp::Ends), the addresses, with the key | 1 | 1 |
//! | [`Hot`], numbers and counters | 1 | 1 |
//! | the window's word, XDP's copy of the window | 2 | |
//!
//! Every packet ends with exactly one [`Reason`] counted, and every frame that
//! comes in is in [`Out`] or free again afterwards.

#[cfg(any(test, fuzzing))]
#[path = "process/tests/bench.rs"]
mod bench;
mod emit;
mod ends;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inbound;
mod limits;
#[cfg(feature = "bench")]
pub mod line;
mod number;
mod outbound;
mod path;
mod pieces;
#[cfg(test)]
mod tests;
mod translate;
mod whole;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crossbeam::channel::Sender;
use gm_abi::verdict::Reason;
use gm_engines::Engine;
use gm_esp::reassembly::{Datagram, Limits, Pushed, Reassembler};
use gm_esp::{BufferedIv, Window};
use gm_region::{Hot, Region, prefetch};
use gm_xsk::Frame;

use crate::Event;
use crate::divide::Hand;
use crate::drops::Sampler;
use crate::publish::Published;
use crate::routes::{Buckets, bucket};
use crate::stats::Counters;
use crate::table::{Entry, Table};
use crate::tap::Tap;

pub(crate) use path::Path;
pub(crate) use translate::Advertised;

pub(crate) use limits::Forgeries;

/// Packets that are worked on at a time.
pub(crate) const BATCH: usize = 64;

/// Packets of a batch that is small: most of them are, where little is to do.
const FEW: usize = 8;

/// What the table in the module's documentation says: one line each, the SA in
/// the entry's.
const _: () = assert!(size_of::<Entry>() == LINE && align_of::<Entry>() == LINE);
const _: () = assert!(size_of::<Hot>() == LINE && align_of::<Hot>() == LINE);
const _: () = assert!(size_of::<gm_abi::maps::SaSlot>() == LINE);
const _: () = assert!(size_of::<gm_esp::Ends>() == LINE);

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bounds on the reassembly of one direction. A registration is a few
/// fragments; what is more is an attack or a mistake. The smallest datagrams
/// reach the bound on bytes before that on their number, which is for all
/// sources together.
const LIMITS: Limits = Limits {
    bytes: 4 << 20,
    per_source_bytes: 512 << 10,
    datagrams: 16_384,
    timeout_ms: 15_000,
};

/// Frames on their way out.
#[derive(Default)]
pub(crate) struct Out {
    /// To the uplink.
    pub wire: Vec<Frame>,
    /// To gm0x, so to the local stack.
    pub stack: Vec<Frame>,
}

/// What stays the same as long as the worker lives.
pub(crate) struct Settings {
    /// Local UDP port of encapsulated ESP; 0: none.
    pub encap_port: u16,
    /// Whether a phone whose NAT changes its port is followed (ARCHITECTURE,
    /// reading A-19); its first port is learnt either way.
    pub follow: bool,
    /// The uplink's MTU; others may change it.
    pub uplink_mtu: Arc<AtomicU32>,
    /// gm0's MTU.
    pub gm0_mtu: usize,
    /// Protected local ports, one bit each, as in the map `PORTS`.
    pub ports: Vec<u64>,
    /// What a static NAT in front makes of local addresses.
    pub advertised: Advertised,
    /// ESP that is for no SA here is left to the kernel's.
    pub kernel_sas: bool,
}

impl Settings {
    fn mtu(&self) -> usize {
        self.uplink_mtu.load(Ordering::Relaxed) as usize
    }

    fn protects(&self, port: u16) -> bool {
        self.ports
            .get(usize::from(port) / 64)
            .is_some_and(|w| w >> (port % 64) & 1 == 1)
    }
}

/// What a batch reads while its packets are borrowed.
pub(crate) struct Ctx {
    pub engine: &'static dyn Engine,
    pub region: Arc<Region>,
    pub published: Arc<Published>,
    pub counters: Arc<Counters>,
    /// Where samples of dropped packets go.
    pub sampler: Sampler,
    pub events: Sender<Event>,
    pub settings: Settings,
    pub table: Table,
    /// What keeps forged ICVs from taking all of the worker's time.
    pub forgeries: Forgeries,
    /// When the clock of `now` and of `last_used` began.
    pub begin: Instant,
    /// Milliseconds since then, as of the batch.
    pub now: u64,
}

impl Ctx {
    fn hot(&self, entry: &Entry) -> Option<&Hot> {
        self.region.slot(entry.slot).map(|s| s.hot())
    }

    fn window(&self, entry: &Entry) -> Option<Window<'_>> {
        let slot = self.region.slot(entry.slot)?;
        Window::new(
            &slot.hot().top,
            slot.window_bits(),
            entry.sa.replay_window(),
        )
        .ok()
    }

    /// Asks for the line of a slot that its packets change.
    fn fetch(&self, slot: u32) {
        if let Some(slot) = self.region.slot(slot) {
            prefetch(slot.hot());
        }
    }

    /// Adds a fragment. The datagram when it is whole now; otherwise the
    /// fragment's end is counted.
    fn put_together(
        &self,
        fragments: &mut Reassembler,
        packet: &[u8],
        outbound: bool,
    ) -> Option<Datagram> {
        let pushed = fragments.push(packet, self.now);
        // Datagrams that had to make room, this one's or older ones.
        self.counters
            .add(Reason::FragmentLimit, fragments.take_evicted());
        match pushed {
            Ok(Pushed::Whole(datagram)) => return Some(datagram),
            Ok(Pushed::Stored) => self.counters.count(Reason::Fragment),
            Err(reason) => self.drop_packet(None, reason, (packet, 0), outbound),
        }
        None
    }

    fn used(&self, hot: &Hot, bytes: usize) {
        Hot::count(&hot.packets, 1);
        Hot::count(&hot.bytes, bytes as u64);
        hot.last_used.store(self.now.max(1), Ordering::Relaxed);
    }

    fn tell(&self, event: Event) {
        // A full channel: nobody listens, and the worker does not wait.
        let _ = self.events.try_send(event);
    }
}

/// The source of CBC's IVs: the operating system's generator.
type Iv = BufferedIv<fn(&mut [u8])>;

/// A worker without its rings.
pub(crate) struct Process {
    pub ctx: Ctx,
    pub tap: Tap,
    /// Hands over what is another worker's.
    pub hand: Hand,
    iv: Iv,
    frags_in: Reassembler,
    frags_out: Reassembler,
    /// What SAs bring in pieces: kept apart from what strangers can send.
    frags_sa: Reassembler,
    /// Identification of the next datagram that is fragmented here.
    ident: u32,
}

impl Process {
    /// A worker with no SAs yet, and no other beside it. `ident` begins
    /// anywhere; random is best.
    pub(crate) fn new(ctx: Ctx, ident: u32) -> Process {
        Process {
            ctx,
            tap: Tap::default(),
            hand: Hand::alone(),
            iv: BufferedIv::new(draw),
            frags_in: Reassembler::new(LIMITS),
            frags_out: Reassembler::new(LIMITS),
            frags_sa: Reassembler::new(LIMITS),
            ident,
        }
    }

    /// One among others.
    pub(crate) fn with_hand(self, hand: Hand) -> Process {
        Process { hand, ..self }
    }

    /// Lets go of datagrams that did not become whole in time, and ends limits
    /// on SAs and sources whose failures have stopped.
    pub(crate) fn expire(&mut self, now: u64) {
        self.ctx.now = now;
        let late = [&mut self.frags_in, &mut self.frags_out, &mut self.frags_sa];
        let late: usize = late.into_iter().map(|f| f.expire(now)).sum();
        self.ctx.counters.add(Reason::FragmentTimeout, late as u64);
        self.ctx.end_limits();
    }

    /// Whether there is anything that time ends.
    pub(crate) fn has_to_expire(&self) -> bool {
        self.reassembly_bytes() > 0 || self.ctx.has_limits()
    }

    /// Bytes of datagrams that are not whole yet.
    pub(crate) fn reassembly_bytes(&self) -> u64 {
        let all = [&self.frags_in, &self.frags_out, &self.frags_sa];
        all.into_iter().map(|f| f.bytes() as u64).sum()
    }
}

/// Datagrams that are not whole yet, on their way to another worker.
pub(crate) struct Halves {
    inbound: Reassembler,
    outbound: Reassembler,
    by_sa: Reassembler,
}

impl Process {
    /// Takes out the datagrams of phones in these buckets.
    pub(crate) fn split_off(&mut self, buckets: &Buckets) -> Halves {
        let from = |src: &_, _: &_| buckets.has(bucket(src));
        Halves {
            inbound: self.frags_in.split_off(from),
            outbound: self.frags_out.split_off(|_, dst| buckets.has(bucket(dst))),
            by_sa: self.frags_sa.split_off(from),
        }
    }

    /// Goes on with datagrams of another worker.
    pub(crate) fn absorb(&mut self, halves: Halves) {
        self.frags_in.absorb(halves.inbound);
        self.frags_out.absorb(halves.outbound);
        self.frags_sa.absorb(halves.by_sa);
    }
}

/// Random bytes, or the end of the worker: a predictable IV is no IV, and the
/// kernel's generator does not fail once it is seeded.
fn draw(bytes: &mut [u8]) {
    if let Err(e) = getrandom::fill(bytes) {
        panic!("the operating system gives no random bytes: {e}");
    }
}
