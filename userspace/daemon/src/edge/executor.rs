//! The executor: the one thread that drives gm-sip's edge and carries out what
//! it says, strictly in order. Commands to the data plane are in force before
//! the next message leaves.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::RecvTimeoutError;
use gm_sip::edge::{Edge, Input, Output};
use gm_sip::{Packet, SaSetRequest, SetToken, Transport};

use super::names::Names;
use super::sockets::Sockets;
use super::tcp::Connections;
use super::{Arrivals, Arrived, EdgeError, Inbox};
use crate::control::App;
use crate::hands::Hands;

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
        let stopped = self.inbox.stop();
        if let Some(thread) = self.thread.take()
            && stopped
        {
            let _ = thread.join();
        }
    }
}

/// What the executor sends with and asks.
pub(super) struct Ways {
    /// Our address towards the core.
    pub core: SocketAddr,
    pub udp: Sockets,
    pub tcp: Connections,
    pub names: Names,
}

struct Executor {
    hands: Hands,
    edge: Edge,
    ways: Ways,
    /// The connections that a set can have: they end with it.
    connections: HashMap<SetToken, [(SocketAddr, SocketAddr); 2]>,
    started: Instant,
}

pub(super) fn start(
    app: Arc<App>,
    edge: Edge,
    ways: Ways,
    inbox: Inbox,
    arrived: Arrivals,
) -> Result<Running, EdgeError> {
    let mut executor = Executor {
        hands: Hands::new(app),
        edge,
        ways,
        connections: HashMap::new(),
        started: Instant::now(),
    };
    // Before the first phone asks.
    executor.refill();
    let thread = std::thread::Builder::new()
        .name("gm-edge".into())
        .spawn(move || {
            let app = Arc::clone(executor.hands.app());
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
                Ok(Arrived::FromCore {
                    remote,
                    transport,
                    bytes,
                }) => {
                    self.input(Input::FromCore {
                        remote,
                        transport,
                        bytes: &bytes,
                    });
                }
                Ok(Arrived::UnsentToUe {
                    local,
                    remote,
                    bytes,
                }) => {
                    self.input(Input::UnsentToUe {
                        local,
                        remote,
                        bytes: &bytes,
                    });
                }
                Ok(Arrived::UnsentToCore { remote, bytes }) => {
                    self.input(Input::UnsentToCore {
                        remote,
                        bytes: &bytes,
                    });
                }
                Ok(Arrived::Resolved { id, addresses }) => {
                    self.input(Input::Resolved {
                        id,
                        addresses: &addresses,
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
                Output::ToUe(packet) => self.send_ue(packet),
                Output::ToCore {
                    remote,
                    transport,
                    bytes,
                } => self.send_core(remote, transport, bytes),
                Output::Resolve { id, name } => self.ways.names.ask(id, name),
                Output::Install(request) => {
                    let set = request.token;
                    let ok = self.hands.install(&request);
                    if ok {
                        self.connections.insert(set, connections(&request));
                    }
                    // Wiped before anything else happens.
                    drop(request);
                    self.edge.handle(self.now(), Input::Installed { set, ok });
                }
                Output::Activate { set } => self.hands.activate(set),
                Output::Retire { set } => self.hands.retire(set),
                Output::Remove { set } => {
                    for ends in self.connections.remove(&set).into_iter().flatten() {
                        self.ways.tcp.close(ends);
                    }
                    self.hands.remove(set);
                }
                Output::Event(step) => self.hands.tell(&step, self.now()),
            }
            self.hands.count();
        }
    }

    fn send_ue(&mut self, packet: Packet) {
        if packet.transport == Transport::Udp {
            return self
                .ways
                .udp
                .to_ue(packet.local, packet.remote, &packet.bytes);
        }
        if let Err(packet) = self.ways.tcp.send(packet) {
            let unsent = Input::UnsentToUe {
                local: packet.local,
                remote: packet.remote,
                bytes: &packet.bytes,
            };
            self.edge.handle(self.now(), unsent);
        }
    }

    fn send_core(&mut self, remote: SocketAddr, transport: Transport, bytes: Vec<u8>) {
        if transport == Transport::Udp {
            return self.ways.udp.to_core(remote, &bytes);
        }
        let packet = Packet {
            local: self.ways.core,
            remote,
            transport,
            bytes,
        };
        if let Err(packet) = self.ways.tcp.send(packet) {
            let bytes = &packet.bytes;
            let unsent = Input::UnsentToCore { remote, bytes };
            self.edge.handle(self.now(), unsent);
        }
    }

    /// Keeps SPIs at hand, so that a REGISTER never waits for them.
    fn refill(&mut self) {
        while self.edge.wants_spis() {
            match self.hands.reserve_pair() {
                Some(pair) => self.edge.add_spis(pair),
                None => return,
            }
        }
    }
}

/// Ours and the phone's end of the two connections that a set can have (clause 7.1).
fn connections(request: &SaSetRequest) -> [(SocketAddr, SocketAddr); 2] {
    let params = &request.params;
    let (ue, pcscf) = (params.ue_ends, params.pcscf_ends);
    let ends = |own: u16, theirs: u16| {
        (
            SocketAddr::new(params.pcscf, own),
            SocketAddr::new(params.ue, theirs),
        )
    };
    [ends(pcscf.port_s, ue.port_c), ends(pcscf.port_c, ue.port_s)]
}
