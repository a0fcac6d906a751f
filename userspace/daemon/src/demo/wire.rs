//! The wire between the phone and the P-CSCF: a thread that carries every
//! frame from one link to the other, writes it to a capture, and plays what a
//! network may put between them: a NAT that can lose its mapping, and an
//! attacker who replays, tampers and spoofs.
//!
//! Nothing of gmesp's data path is used here, so what the capture shows is
//! what a neutral observer sees.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use gm_dataplane::Direction;
use gm_xsk::LinkSocket;
use rustix::event::{PollFd, PollFlags, poll};

use super::capture::Capture;
use super::frame;
use super::links::Mac;
use super::nat::Nat;
use super::netns::Netns;

/// What the network between the two ends is at the moment.
#[derive(Debug)]
pub enum Network {
    /// A plain wire: every frame goes across as it is.
    Plain,
    /// A NAT router: the phone's network is behind one public address.
    Nat(NatSpec),
}

/// Addresses of a NAT network.
#[derive(Clone, Copy, Debug)]
pub struct NatSpec {
    /// The address that the P-CSCF sees.
    pub public: Ipv4Addr,
    /// The phone's own address.
    pub private: Ipv4Addr,
    /// MAC address of the phone's link.
    pub ue_mac: Mac,
    /// MAC address of the P-CSCF's link.
    pub pcscf_mac: Mac,
}

/// What the attacker sends to the P-CSCF.
#[derive(Debug)]
pub enum Attack {
    /// The last ESP packet from the phone, once more.
    Replay,
    /// The last ESP packet from the phone with the next sequence number and
    /// one bit of its payload turned.
    Tamper,
    /// A SIP MESSAGE in clear from the phone's address to a protected port.
    Spoof {
        /// Source and destination as the phone and the P-CSCF use them.
        from: std::net::SocketAddrV4,
        /// The protected server port.
        to: std::net::SocketAddrV4,
    },
}

enum Order {
    Become(Network),
    Rebind,
    Attack(Attack),
    Stop,
}

/// Handle of the wire's thread.
pub struct Wire {
    orders: Sender<(Order, Sender<Result<()>>)>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Wire {
    /// Starts the wire between two links of `netns`.
    ///
    /// # Errors
    /// When the links cannot be opened or the capture cannot be written.
    pub fn start(netns: &Netns, ue: &str, pcscf: &str, capture: Option<&Path>) -> Result<Wire> {
        let (ue, pcscf) = netns.run(|| {
            let open = |name: &str| {
                LinkSocket::bind(name).with_context(|| format!("cannot open the link {name}"))
            };
            Ok((open(ue)?, open(pcscf)?))
        })?;
        let capture = capture.map(Capture::create).transpose()?;
        let (orders, inbox) = channel();
        let run = Run {
            ue,
            pcscf,
            network: Network::Plain,
            nat: None,
            capture,
            last_esp: None,
        };
        let thread = thread::Builder::new()
            .name("demo-wire".into())
            .spawn(move || run.run(&inbox))
            .context("cannot start the wire's thread")?;
        Ok(Wire {
            orders,
            thread: Some(thread),
        })
    }

    /// Changes the network between the two ends.
    pub fn become_network(&self, network: Network) -> Result<()> {
        self.order(Order::Become(network))
    }

    /// Makes the NAT forget its mappings: the next packet from inside leaves
    /// from another public port.
    pub fn rebind(&self) -> Result<()> {
        self.order(Order::Rebind)
    }

    /// Lets the attacker act once.
    pub fn attack(&self, attack: Attack) -> Result<()> {
        self.order(Order::Attack(attack))
    }

    /// Stops the wire; the capture is complete then.
    pub fn stop(mut self) -> Result<()> {
        let stopped = self.order(Order::Stop);
        let joined = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("the wire's thread panicked")),
            None => Ok(()),
        };
        stopped.and(joined)
    }

    fn order(&self, order: Order) -> Result<()> {
        let (reply, done) = channel();
        self.orders
            .send((order, reply))
            .map_err(|_| anyhow!("the wire has stopped"))?;
        done.recv_timeout(Duration::from_secs(5))
            .context("the wire does not answer")?
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let (reply, _) = channel();
            let _ = self.orders.send((Order::Stop, reply));
            let _ = thread.join();
        }
    }
}

struct Run {
    ue: LinkSocket,
    pcscf: LinkSocket,
    network: Network,
    nat: Option<Nat>,
    capture: Option<Capture>,
    /// The last ESP frame (raw or UDP-encapsulated) that the P-CSCF was sent.
    last_esp: Option<Vec<u8>>,
}

impl Run {
    fn run(mut self, inbox: &Receiver<(Order, Sender<Result<()>>)>) -> Result<()> {
        let mut buffer = vec![0; 65_536];
        loop {
            // The time-out bounds how long an order waits.
            let timeout = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 10_000_000,
            };
            let mut fds = [
                PollFd::from_borrowed_fd(self.ue.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.pcscf.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("the wire cannot poll its links"),
            }
            while let Some(length) = receive(&self.ue, &mut buffer)? {
                self.upwards(&mut buffer[..length])?;
            }
            while let Some(length) = receive(&self.pcscf, &mut buffer)? {
                self.downwards(&mut buffer[..length])?;
            }
            while let Ok((order, reply)) = inbox.try_recv() {
                let stop = matches!(order, Order::Stop);
                let _ = reply.send(self.obey(order));
                if stop {
                    return self.capture.take().map_or(Ok(()), Capture::finish);
                }
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Become(network) => {
                self.nat = match &network {
                    Network::Plain => None,
                    Network::Nat(spec) => Some(Nat::new(*spec)),
                };
                self.network = network;
                self.last_esp = None;
                Ok(())
            }
            Order::Rebind => {
                self.nat
                    .as_mut()
                    .ok_or_else(|| anyhow!("no NAT on the wire"))?
                    .rebind();
                Ok(())
            }
            Order::Attack(attack) => self.attack(attack),
            Order::Stop => Ok(()),
        }
    }

    fn upwards(&mut self, bytes: &mut [u8]) -> Result<()> {
        if let Some(nat) = &mut self.nat
            && !nat.outwards(bytes)
        {
            return Ok(());
        }
        if frame::esp_offset(bytes).is_some() {
            self.last_esp = Some(bytes.to_vec());
        }
        self.deliver(bytes)
    }

    fn downwards(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.record(bytes, Direction::Out)?;
        if let Some(nat) = &mut self.nat
            && !nat.inwards(bytes)
        {
            return Ok(());
        }
        send(&self.ue, bytes)
    }

    fn attack(&mut self, attack: Attack) -> Result<()> {
        let last = || {
            self.last_esp
                .clone()
                .ok_or_else(|| anyhow!("no ESP seen on the wire yet"))
        };
        let forged = match attack {
            Attack::Replay => last()?,
            Attack::Tamper => {
                let mut forged = last()?;
                let esp = frame::esp_offset(&forged).context("no ESP in the last ESP frame")?;
                frame::tamper(&mut forged, esp)?;
                forged
            }
            Attack::Spoof { from, to } => {
                let template = last()?;
                frame::udp(&template, from, to, &spoofed_message(from, to))
            }
        };
        self.deliver(&forged)
    }

    fn deliver(&mut self, bytes: &[u8]) -> Result<()> {
        self.record(bytes, Direction::In)?;
        send(&self.pcscf, bytes)
    }

    fn record(&mut self, bytes: &[u8], direction: Direction) -> Result<()> {
        match &mut self.capture {
            Some(capture) => capture.write(bytes, direction),
            None => Ok(()),
        }
    }
}

fn receive(link: &LinkSocket, buffer: &mut [u8]) -> Result<Option<usize>> {
    match link.recv(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock) => Ok(None),
        // A namespace that is torn down takes its links along.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NETDOWN.raw_os_error()) => Ok(None),
        Err(e) => Err(e).context("the wire cannot receive"),
    }
}

fn send(link: &LinkSocket, bytes: &[u8]) -> Result<()> {
    match link.send(bytes) {
        Ok(()) => Ok(()),
        // A wire loses what does not fit; SIP repeats it.
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(e)
            if [rustix::io::Errno::NOBUFS, rustix::io::Errno::NETDOWN]
                .map(|e| Some(e.raw_os_error()))
                .contains(&e.raw_os_error()) =>
        {
            Ok(())
        }
        Err(e) => Err(e).context("the wire cannot send"),
    }
}

fn spoofed_message(from: std::net::SocketAddrV4, to: std::net::SocketAddrV4) -> Vec<u8> {
    format!(
        "MESSAGE sip:echo@home.test SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKspoofed\r\n\
         From: <sip:alice@home.test>;tag=spoof\r\nTo: <sip:echo@home.test>\r\nCall-ID: spoof@{to}\r\n\
         CSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nspoofed"
    )
    .into_bytes()
}
