//! What phones of one process share: the data plane with its SPIs, the sockets,
//! and the addresses. One phone ([`crate::agent`]), a proxy for somebody else's
//! phone and thousands of phones under load all stand on it.
//!
//! ```text
//!   gm_sip::ue::Ue  <-- phone::Phone -->  Host  -- sockets, TCP connections
//!   (one a phone)       (one a phone)     (one)  -- DataPlane: SAs, SPIs
//!          ^                               |
//!          +------- Arrival, one queue ----+
//! ```
//!
//! SIP sockets exist by local address and port: phones that share one (the port
//! for messages in clear) share the socket, and the caller finds the phone by the
//! message. Ports of a set are open from its install to its removal.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result};
use gm_dataplane::{DataPlane, Dir, NewSa, SetId, SetSpec};
use gm_sip::{Packet, SaSetRequest, Transport};
use tokio::sync::mpsc;

use crate::addresses::Addresses;
use crate::keys_out::KeysOut;
use crate::sockets::Sockets;
use crate::tcp::Connections;

/// What the host is to be.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Interface that leads to the P-CSCF; its driver must know XDP.
    pub uplink: String,
    /// The phones' addresses on that interface.
    pub addresses: Vec<IpAddr>,
    /// Every port_us that a phone may use.
    pub server_ports: Vec<RangeInclusive<u16>>,
    /// Every port_uc that a phone may use.
    pub client_ports: Vec<RangeInclusive<u16>>,
    /// Most SAs at one time, half of them inbound: reserved SPIs are, and two of each set.
    pub max_sas: u32,
    /// What may wait in the queue of arrivals.
    pub queue: usize,
}

impl HostConfig {
    /// For one phone with one address.
    pub fn new(uplink: &str, address: IpAddr) -> HostConfig {
        HostConfig {
            uplink: uplink.to_owned(),
            addresses: vec![address],
            server_ports: Vec::new(),
            client_ports: Vec::new(),
            max_sas: 64,
            queue: 256,
        }
    }
}

/// Something that came from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// One whole message, or a blank datagram.
    Message {
        /// Our address and port.
        local: SocketAddr,
        /// The sender's address and port.
        remote: SocketAddr,
        /// UDP or TCP.
        transport: Transport,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A message over TCP could not be sent: no connection comes up, or there
    /// is none to answer on.
    Unreachable {
        /// Our address and port.
        local: SocketAddr,
        /// The peer's address and port.
        remote: SocketAddr,
    },
    /// A TCP connection has ended.
    Closed {
        /// Our address and port.
        local: SocketAddr,
        /// The peer's address and port.
        remote: SocketAddr,
    },
}

impl Arrival {
    /// Our address and port: by them the phone can be found, except where
    /// phones share one.
    pub fn local(&self) -> SocketAddr {
        match self {
            Arrival::Message { local, .. }
            | Arrival::Unreachable { local, .. }
            | Arrival::Closed { local, .. } => *local,
        }
    }
}

/// The running host.
pub struct Host {
    plane: DataPlane,
    udp: Sockets,
    tcp: Connections,
    addresses: Addresses,
    /// The local addresses that each set needs.
    ports: HashMap<SetId, [SocketAddr; 2]>,
    /// How many sets need each.
    users: HashMap<SocketAddr, usize>,
    keys_out: Option<KeysOut>,
}

impl Host {
    /// Starts the data plane in the caller's network namespace. What arrives
    /// comes out of the queue. `keys_out` gets every set's keys.
    ///
    /// # Errors
    /// What the data plane or the host refuses, and what to do about it.
    pub async fn start(
        config: HostConfig,
        keys_out: Option<&Path>,
    ) -> Result<(Host, mpsc::Receiver<Arrival>)> {
        let keys_out = keys_out.map(KeysOut::create).transpose()?;
        let addresses = Addresses::new(&config.addresses)?;
        let (sender, queue) = mpsc::channel(config.queue.max(1));
        let plane = gm_dataplane::Config {
            uplink: config.uplink,
            addresses: config.addresses,
            server_ports: config.server_ports,
            client_ports: config.client_ports,
            max_sas: config.max_sas,
            ..gm_dataplane::Config::default()
        };
        // The data plane runs a netlink runtime of its own while it starts.
        let plane = tokio::task::spawn_blocking(move || DataPlane::start(plane))
            .await?
            .context("the data path does not start")?;
        let host = Host {
            plane,
            udp: Sockets::new(sender.clone()),
            tcp: Connections::new(sender),
            addresses,
            ports: HashMap::new(),
            users: HashMap::new(),
            keys_out,
        };
        Ok((host, queue))
    }

    /// Two SPIs for the inbound SAs of one registration.
    ///
    /// # Errors
    /// When no SA is free: more phones than `max_sas` is made for.
    pub fn reserve(&self) -> Result<[u32; 2]> {
        Ok([self.plane.reserve(&[])?.spi, self.plane.reserve(&[])?.spi])
    }

    /// Opens a UDP port for messages in clear.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn listen(&mut self, local: SocketAddr) -> Result<()> {
        self.udp.listen(local).await.map(drop)
    }

    /// Installs a set and opens its ports: UDP on both, TCP connections are
    /// accepted on port_us. Behind a NAT the public address comes onto `lo`.
    ///
    /// # Errors
    /// What was refused; nothing of the set is left then.
    pub async fn install(&mut self, request: &SaSetRequest) -> Result<SetId> {
        let params = &request.params;
        if self.addresses.ensure(params.ue).await? {
            self.plane.set_addresses(&self.addresses.all())?;
        }
        let keys = request.keys();
        let sa = |spec: &gm_esp::SaSpec, dir| NewSa {
            spec: *spec,
            keys: keys.clone(),
            dir,
            first_seq: None,
        };
        let sas = request
            .inbound
            .iter()
            .map(|spec| sa(spec, Dir::In))
            .chain(request.outbound.iter().map(|spec| sa(spec, Dir::Out)))
            .collect();
        if let Some(out) = &mut self.keys_out {
            out.write(request)?;
        }
        let id = self.plane.install(SetSpec { set: None, sas })?;
        let ports = [params.ue_ends.port_c, params.ue_ends.port_s]
            .map(|port| SocketAddr::new(params.ue, port));
        self.ports.insert(id, ports);
        ports
            .iter()
            .for_each(|port| *self.users.entry(*port).or_default() += 1);
        if let Err(error) = self.open(ports).await {
            self.remove(id)?;
            return Err(error);
        }
        Ok(id)
    }

    async fn open(&mut self, [client, server]: [SocketAddr; 2]) -> Result<()> {
        self.udp.listen(client).await?;
        self.udp.listen(server).await?;
        self.tcp.listen(server).await
    }

    /// Lets the set's outbound SAs take over.
    ///
    /// # Errors
    /// Those of the data plane.
    pub fn activate(&self, set: SetId) -> Result<()> {
        Ok(self.plane.activate(set)?)
    }

    /// Stops sending with the set; it still accepts.
    ///
    /// # Errors
    /// Those of the data plane.
    pub fn retire(&self, set: SetId) -> Result<()> {
        Ok(self.plane.retire(set)?)
    }

    /// Ends the set, and closes those of its ports that no other set has.
    ///
    /// # Errors
    /// Those of the data plane.
    pub fn remove(&mut self, set: SetId) -> Result<()> {
        for local in self.ports.remove(&set).into_iter().flatten() {
            let left = self.users.get_mut(&local).map_or(0, |users| {
                *users -= 1;
                *users
            });
            if left == 0 {
                self.users.remove(&local);
                self.udp.close(local);
                self.tcp.close(local);
            }
        }
        Ok(self.plane.remove(set)?)
    }

    /// Closes a port for messages in clear, and its connections. Sending from it opens
    /// it again.
    pub fn close(&mut self, local: SocketAddr) {
        self.udp.close(local);
        self.tcp.close(local);
    }

    /// Sends a message from exactly its local address. What cannot be sent over
    /// UDP is lost, as on any wire; over TCP it comes back as
    /// [`Arrival::Unreachable`].
    pub async fn send(&mut self, packet: &Packet) {
        let (local, remote) = (packet.local, packet.remote);
        match packet.transport {
            Transport::Udp => {
                if let Err(error) = self.udp.send(local, remote, &packet.bytes).await {
                    // SIP repeats what is lost.
                    tracing::warn!("{error:#}");
                }
            }
            Transport::Tcp => self.tcp.send(local, remote, packet.bytes.clone()),
        }
    }

    /// A phone has moved: from now on these are the phones' own addresses.
    ///
    /// # Errors
    /// Those of the data plane.
    pub fn set_addresses(&mut self, own: &[IpAddr]) -> Result<()> {
        self.addresses.set_own(own);
        Ok(self.plane.set_addresses(&self.addresses.all())?)
    }

    /// The data plane, for its counters and its list of SAs.
    pub fn plane(&self) -> &DataPlane {
        &self.plane
    }

    /// Open TCP connections.
    pub fn connections(&self) -> usize {
        self.tcp.len()
    }

    /// Takes everything apart again.
    ///
    /// # Errors
    /// What the data plane could not remove.
    pub async fn stop(mut self) -> Result<()> {
        self.tcp.close_all();
        self.addresses.remove_all().await;
        let plane = self.plane.clone();
        tokio::task::spawn_blocking(move || plane.shutdown())
            .await?
            .context("the data path could not be taken down")
    }
}
