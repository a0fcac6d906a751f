//! The executor: the one thread that drives gm-sip's edge and carries out what
//! it says, strictly in order. Commands to the data plane are in force before
//! the next message leaves.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::RecvTimeoutError;
use gm_api::control::ApiError;
use gm_dataplane::{Dir, NewSa};
use gm_sip::edge::{Edge, Input, Output};
use gm_sip::{SaSetRequest, SetToken, Transport};

use super::flow::Flow;
use super::sockets::Sockets;
use super::tcp::Connections;
use super::{Arrivals, Arrived, EdgeError, Inbox};
use crate::control::App;

/// Without anything to do: how often the pool of SPIs is looked at.
const TICK: Duration = Duration::from_secs(1);

/// The edge that runs. Dropped, it stops.
pub struct Running {
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Waits for room: the executor is taking messages out.
        let stopped = self.inbox.first.send(Arrived::Stop).is_ok();
        if let Some(thread) = self.thread.take()
            && stopped
        {
            let _ = thread.join();
        }
    }
}

struct Executor {
    app: Arc<App>,
    edge: Edge,
    udp: Sockets,
    tcp: Connections,
    flow: Flow,
    started: Instant,
    /// A refusal of SPIs is logged once, until there are some again.
    short: bool,
}

pub(super) fn start(
    app: Arc<App>,
    edge: Edge,
    (udp, tcp): (Sockets, Connections),
    inbox: Inbox,
    arrived: Arrivals,
) -> Result<Running, EdgeError> {
    let flow = Flow::default();
    let mut executor = Executor {
        app,
        edge,
        udp,
        tcp,
        flow,
        started: Instant::now(),
        short: false,
    };
    // Before the first phone asks.
    executor.refill();
    let thread = std::thread::Builder::new()
        .name("gm-edge".into())
        .spawn(move || {
            let app = Arc::clone(&executor.app);
            // Without it no phone gets in or out: better a restart.
            if catch_unwind(AssertUnwindSafe(|| executor.run(&arrived))).is_err() {
                app.edge_died.notify_one();
            }
        })
        .map_err(|error: io::Error| EdgeError::Thread(error))?;
    Ok(Running {
        inbox,
        thread: Some(thread),
    })
}

impl Executor {
    fn run(&mut self, arrived: &Arrivals) {
        loop {
            match arrived.next(self.patience()) {
                Ok(Arrived::FromUe {
                    local,
                    remote,
                    transport,
                    bytes,
                }) => {
                    self.input(Input::FromUe {
                        local,
                        remote,
                        transport,
                        bytes: &bytes,
                    });
                }
                Ok(Arrived::FromCore { remote, bytes }) => {
                    self.input(Input::FromCore {
                        remote,
                        transport: Transport::Udp,
                        bytes: &bytes,
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Arrived::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = self.now();
            if self.edge.next_timeout().is_some_and(|due| due <= now) {
                self.edge.handle_timeout(now);
                self.carry_out();
            }
            self.refill();
        }
    }

    /// Milliseconds since the edge has started.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn patience(&self) -> Duration {
        match self.edge.next_timeout() {
            Some(due) => Duration::from_millis(due.saturating_sub(self.now())).min(TICK),
            None => TICK,
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.edge.handle(self.now(), input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.edge.poll() {
            match output {
                Output::ToUe(packet) => match packet.transport {
                    Transport::Udp => self.udp.to_ue(packet.local, packet.remote, &packet.bytes),
                    Transport::Tcp => self.tcp.send(packet),
                },
                Output::ToCore { remote, bytes, .. } => self.to_core(remote, &bytes),
                Output::Install(request) => {
                    let set = request.token;
                    let ok = self.install(&request);
                    // Wiped before anything else happens.
                    drop(request);
                    self.edge.handle(self.now(), Input::Installed { set, ok });
                }
                Output::Activate { set } => {
                    self.command(set, "activate", |app, number| app.sets.activate(number));
                }
                Output::Retire { set } => {
                    self.command(set, "retire", |app, number| app.sets.retire(number));
                }
                Output::Remove { set } => {
                    self.command(set, "remove", |app, number| app.sets.remove(number));
                    self.flow.removed(set);
                }
                Output::Event(step) => {
                    if let Some(event) = self.flow.step(&step) {
                        self.flow.log(&step, &event, self.now());
                        self.app.events.send(event);
                    }
                }
            }
            self.app
                .registrations
                .store(self.flow.registrations(), Ordering::Relaxed);
        }
    }

    fn to_core(&self, remote: SocketAddr, bytes: &[u8]) {
        self.udp.to_core(remote, bytes);
    }

    /// All four or none.
    fn install(&mut self, request: &SaSetRequest) -> bool {
        let keys = request.keys();
        let sa = |dir: Dir| {
            let keys = keys.clone();
            move |spec| NewSa {
                spec,
                keys: keys.clone(),
                dir,
                first_seq: None,
            }
        };
        let sas = request.inbound.map(sa(Dir::In)).into_iter();
        let sas = sas.chain(request.outbound.map(sa(Dir::Out))).collect();
        match self.app.sets.install(None, sas) {
            Ok(number) => {
                self.flow.installed(request, number);
                true
            }
            Err(error) => {
                tracing::error!(set = request.token.0, %error, "SAs are not installed");
                for sa in &request.inbound {
                    // Nobody will use it now; there is nothing more to do.
                    let _ = self.app.sets.plane().unreserve(sa.spi);
                }
                false
            }
        }
    }

    /// A command on a set that is installed. One on a set that never was has
    /// nothing to do.
    fn command(
        &self,
        set: SetToken,
        what: &str,
        run: impl FnOnce(&App, u64) -> Result<(), ApiError>,
    ) {
        let Some(number) = self.flow.number(set) else {
            return;
        };
        if let Err(error) = run(&self.app, number) {
            tracing::error!(set = number, %error, "cannot {what} the set");
        }
    }

    /// Keeps SPIs at hand, so that a REGISTER never waits for them.
    fn refill(&mut self) {
        while self.edge.wants_spis() {
            match self.reserve_pair() {
                Ok(pair) => {
                    self.edge.add_spis(pair);
                    self.short = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.short, true) {
                        tracing::warn!(%error, "no SPIs can be reserved; phones may be refused");
                    }
                    return;
                }
            }
        }
    }

    fn reserve_pair(&self) -> Result<[u32; 2], ApiError> {
        let plane = self.app.sets.plane();
        let first = plane.reserve(&[])?;
        match plane.reserve(&[]) {
            Ok(second) => Ok([first, second]),
            Err(error) => {
                plane.unreserve(first)?;
                Err(error)
            }
        }
    }
}
