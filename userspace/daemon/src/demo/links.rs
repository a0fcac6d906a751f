//! Links, addresses, routes and neighbours of the demo, over rtnetlink: a
//! Debian base need not have iproute2.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::netns::Netns;

/// A MAC address.
pub type Mac = [u8; 6];

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Interface index in its namespace.
    pub index: u32,
    /// Its MAC address.
    pub mac: Mac,
}

/// Makes a veth pair with one end in each of two namespaces, both up.
pub fn veth(near: &Netns, near_name: &str, far: &Netns, far_name: &str) -> Result<(Link, Link)> {
    let far_fd = far.run(|| {
        std::fs::File::open("/proc/thread-self/ns/net").context("cannot open a namespace")
    })?;
    near.run(|| {
        netlink(async |handle| {
            let peer = far_fd.try_clone()?;
            handle
                .link()
                .add(LinkVeth::new(near_name, far_name).build())
                .execute()
                .await
                .context("cannot make a veth pair")?;
            let far_index = index(&handle, far_name).await?;
            handle
                .link()
                .set(
                    LinkUnspec::new_with_index(far_index)
                        .setns_by_fd(std::os::fd::AsRawFd::as_raw_fd(&peer))
                        .build(),
                )
                .execute()
                .await
                .context("cannot move a veth into its namespace")
        })
    })?;
    Ok((up(near, near_name)?, up(far, far_name)?))
}

/// Sets an interface up, its tx checksum offload off, and tells what it is.
///
/// Frames cross the demo's wire as bytes, so a checksum that a veth would
/// leave for later must be there.
pub fn up(netns: &Netns, name: &str) -> Result<Link> {
    netns.run(|| {
        if name != "lo" {
            gm_xsk::nic::set_tx_checksum(name, false)
                .with_context(|| format!("cannot turn tx checksums off on {name}"))?;
        }
        netlink(async |handle| {
            let index = index(&handle, name).await?;
            handle
                .link()
                .set(LinkUnspec::new_with_index(index).up().build())
                .execute()
                .await
                .with_context(|| format!("cannot set {name} up"))?;
            Ok(Link {
                index,
                mac: mac(&handle, name).await?,
            })
        })
    })
}

/// Adds an address. IPv6 addresses are usable at once (no duplicate address detection).
pub fn address(netns: &Netns, link: Link, address: IpAddr, prefix: u8) -> Result<()> {
    netns.run(|| {
        netlink(async |handle| {
            let mut request = handle.address().add(link.index, address, prefix);
            if address.is_ipv6() {
                use rtnetlink::packet_route::address::{AddressFlags, AddressHeaderFlags};
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
                request.message_mut().attributes.push(
                    rtnetlink::packet_route::address::AddressAttribute::Flags(AddressFlags::Nodad),
                );
            }
            request
                .execute()
                .await
                .with_context(|| format!("cannot add the address {address}"))
        })
    })
}

/// Adds a default route (IPv4) through `gateway`.
pub fn default_route(netns: &Netns, link: Link, gateway: std::net::Ipv4Addr) -> Result<()> {
    netns.run(|| {
        netlink(async |handle| {
            let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(link.index)
                .build();
            handle
                .route()
                .add(route)
                .execute()
                .await
                .context("cannot add a default route")
        })
    })
}

/// Adds a permanent neighbour, so that nobody need answer ARP for it.
pub fn neighbour(netns: &Netns, link: Link, address: IpAddr, mac: Mac) -> Result<()> {
    netns.run(|| {
        netlink(async |handle| {
            handle
                .neighbours()
                .add(link.index, address)
                .link_layer_address(&mac)
                .state(NeighbourState::Permanent)
                .execute()
                .await
                .with_context(|| format!("cannot add the neighbour {address}"))
        })
    })
}

async fn index(handle: &Handle, name: &str) -> Result<u32> {
    Ok(get(handle, name).await?.header.index)
}

async fn mac(handle: &Handle, name: &str) -> Result<Mac> {
    get(handle, name)
        .await?
        .attributes
        .into_iter()
        .find_map(|a| match a {
            LinkAttribute::Address(mac) => mac.try_into().ok(),
            _ => None,
        })
        .ok_or_else(|| anyhow!("{name} has no MAC address"))
}

async fn get(handle: &Handle, name: &str) -> Result<rtnetlink::packet_route::link::LinkMessage> {
    use futures_util::TryStreamExt;
    handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_next()
        .await
        .with_context(|| format!("cannot find the interface {name}"))?
        .ok_or_else(|| anyhow!("there is no interface {name}"))
}

/// Runs `f` with a netlink connection of the calling thread's namespace.
fn netlink<T>(f: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().context("no netlink")?;
        tokio::spawn(connection);
        tokio::time::timeout(Duration::from_secs(10), f(handle))
            .await
            .context("netlink did not answer within 10 s")?
    })
}
