//! The veth pair gm0/gm0x, by rtnetlink.
//!
//! gm0 is the side of the local stack: opened packets come in on it and are
//! redirected to the uplink's ingress, outbound packets are redirected to it.
//! gm0x is the side of the workers: XDP and AF_XDP. Neither has an address.

use std::fs;
use std::io::ErrorKind;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

use crate::lane::Place;
use crate::{Config, Error};

/// What gm0 and gm0x carry as alias, so that a successor knows its own.
const ALIAS: &str = "gmesp";

/// Largest MTU of a veth with XDP on its peer: a page less XDP's headroom
/// (256), the kernel's skb_shared_info (320) and the Ethernet header. Also
/// what fits a frame of 4096 bytes with two headrooms of 256.
pub(crate) const GM0_MTU: u32 = 4096 - 256 - 320 - 14;

/// The interfaces of one data plane, by index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Devices {
    /// The uplink.
    pub uplink: u32,
    /// Bytes of IP that the uplink takes at once.
    pub uplink_mtu: u32,
    /// gm0, the stack's side.
    pub gm0: u32,
    /// gm0x, the workers' side.
    pub gm0x: u32,
    /// gm0 was there: a predecessor was killed, its policy may be in force.
    pub adopted: bool,
    /// The uplink took VLAN tags out of frames before, and is to do so after.
    pub stripped: bool,
}

fn netlink(what: impl Into<String>, e: rtnetlink::Error) -> Error {
    let what = what.into();
    if let rtnetlink::Error::NetlinkError(m) = &e {
        return Error::io(what, m.to_io());
    }
    Error::Netlink {
        what,
        detail: e.to_string(),
    }
}

/// One link, found by name; `None` when there is none.
pub(crate) async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, Error> {
    let mut found = handle.link().get().match_name(name).execute();
    match found.try_next().await {
        Ok(link) => Ok(link),
        Err(rtnetlink::Error::NetlinkError(m)) if m.raw_code() == -nix::libc::ENODEV => Ok(None),
        Err(e) => Err(netlink(format!("look up interface {name}"), e)),
    }
}

/// The MTU in a link message.
pub(crate) fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Mtu(m) => Some(*m),
        _ => None,
    })
}

/// The name in a link message.
pub(crate) fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(n) => Some(n.as_str()),
        _ => None,
    })
}

fn is_ours(link: &LinkMessage) -> bool {
    let alias = link
        .attributes
        .iter()
        .any(|a| matches!(a, LinkAttribute::IfAlias(x) if x == ALIAS));
    let veth = link.attributes.iter().any(|a| {
        matches!(a, LinkAttribute::LinkInfo(infos)
            if infos.iter().any(|i| matches!(i, LinkInfo::Kind(InfoKind::Veth))))
    });
    alias && veth
}

/// Has the uplink leave VLAN tags in the frames: one that it had taken out XDP
/// would not see. A NIC that has no such setting takes none out, as a rule.
/// Whether it took them out before.
pub(crate) fn leave_tags(uplink: &str) -> bool {
    gm_xsk::nic::set_vlan_stripping(uplink, false).unwrap_or(false)
}

/// Has it take them out again.
pub(crate) fn take_tags(uplink: &str) {
    if let Err(e) = gm_xsk::nic::set_vlan_stripping(uplink, true) {
        tracing::warn!("{uplink}: cannot switch VLAN tag stripping on again: {e}");
    }
}

/// Finds the uplink and makes gm0/gm0x, or takes over a pair that a killed
/// predecessor left (its redirects lead there). The caller holds the lock.
pub(crate) async fn make(handle: &Handle, cfg: &Config) -> Result<Devices, Error> {
    let uplink = find(handle, &cfg.uplink)
        .await?
        .ok_or_else(|| Error::NoInterface(cfg.uplink.clone()))?;
    let (gm0, gm0x) = (cfg.gm0.clone(), cfg.gm0x());

    let old = (find(handle, &gm0).await?, find(handle, &gm0x).await?);
    for (link, name) in [(&old.0, &gm0), (&old.1, &gm0x)] {
        if link.as_ref().is_some_and(|l| !is_ours(l)) {
            return Err(Error::DeviceTaken(name.clone()));
        }
    }
    let lanes = Place::of(uplink.header.index, &cfg.uplink)?.lanes()?;
    let adopt = old.0.is_some() && old.1.is_some();
    if !adopt || !has_queues(&gm0, lanes) || !has_queues(&gm0x, lanes) {
        // Half a pair is nobody's use: a veth goes with its peer. One with
        // other queues than the uplink's goes too; what a predecessor's
        // programs redirect there is dropped meanwhile.
        for link in [old.0, old.1].into_iter().flatten() {
            remove(handle, link.header.index).await?;
        }
        let pair = pair(&gm0, &gm0x, lanes);
        handle
            .link()
            .add(pair)
            .execute()
            .await
            .map_err(|e| netlink(format!("make the veth pair {gm0}/{gm0x}"), e))?;
    }

    let mut index = [0; 2];
    for (name, i) in [&gm0, &gm0x].into_iter().zip(&mut index) {
        // Before the device is up, so that no address is ever made.
        no_ipv6(name)?;
        let set = LinkUnspec::new_with_name(name)
            .mtu(GM0_MTU)
            .arp(false)
            .multicast(false)
            .append_extra_attribute(LinkAttribute::IfAlias(ALIAS.into()))
            .up();
        handle
            .link()
            .set(set.build())
            .execute()
            .await
            .map_err(|e| netlink(format!("set up {name}"), e))?;
        *i = find(handle, name)
            .await?
            .ok_or_else(|| Error::NoInterface(name.clone()))?
            .header
            .index;
    }
    // Otherwise everything that is sent locally carries a partial checksum.
    gm_xsk::nic::set_tx_checksum(&gm0, false)
        .map_err(|e| Error::io(format!("turn transmit checksum offload of {gm0} off"), e))?;
    let stripped = leave_tags(&cfg.uplink);

    Ok(Devices {
        uplink: uplink.header.index,
        uplink_mtu: mtu_of(&uplink).unwrap_or(1500),
        gm0: index[0],
        gm0x: index[1],
        adopted: adopt,
        stripped,
    })
}

/// A pair of which each end has `queues` queues in both directions, for a lane
/// sends and receives on one of its own.
fn pair(gm0: &str, gm0x: &str, queues: u32) -> LinkMessage {
    let both = [
        LinkAttribute::NumTxQueues(queues),
        LinkAttribute::NumRxQueues(queues),
    ];
    let mut peer = LinkUnspec::new_with_name(gm0x).build();
    peer.attributes.extend(both.clone());
    let mut pair = LinkVeth::new(gm0, gm0x)
        .mtu(GM0_MTU)
        .arp(false)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    pair.attributes.extend(both);
    pair
}

/// Whether a device has exactly this many queues in both directions.
fn has_queues(name: &str, queues: u32) -> bool {
    let is = |n: std::io::Result<u32>| n.is_ok_and(|n| n == queues);
    is(gm_xsk::nic::rx_queues(name)) && is(gm_xsk::nic::tx_queues(name))
}

/// Keeps IPv6 off a device. /proc/sys/net is the calling thread's network
/// namespace's; without IPv6 in the kernel there is nothing to do.
fn no_ipv6(name: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    match fs::write(&path, "1") {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        r => r.map_err(|e| Error::io(format!("write {path}"), e)),
    }
}

/// Removes a link; one that is not there is no error.
pub(crate) async fn remove(handle: &Handle, index: u32) -> Result<(), Error> {
    match handle.link().del(index).execute().await {
        Err(rtnetlink::Error::NetlinkError(m)) if m.raw_code() == -nix::libc::ENODEV => Ok(()),
        r => r.map_err(|e| netlink(format!("remove interface {index}"), e)),
    }
}

/// An interface, as far as the programs on it need to know.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether packets leave through it, and not through another interface
    /// below it where they are seen as well.
    pub is_exit: bool,
}

impl Link {
    /// What a link message says.
    pub(crate) fn of(link: &LinkMessage) -> Option<Link> {
        Some(Link {
            index: link.header.index,
            name: name_of(link)?.to_owned(),
            is_exit: link.header.link_layer_type != LinkLayerType::Loopback && !is_stacked(link),
        })
    }
}

/// Whether an interface hands packets to another one of this namespace as they
/// are. Tunnels do not.
fn is_stacked(link: &LinkMessage) -> bool {
    let abroad = |a: &LinkAttribute| matches!(a, LinkAttribute::LinkNetNsId(_));
    let infos = link.attributes.iter().filter_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let mut kinds = infos.flatten().filter_map(|i| match i {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    kinds.any(|kind| match kind {
        InfoKind::Bridge | InfoKind::Bond | InfoKind::Team | InfoKind::Vrf => true,
        InfoKind::Vlan
        | InfoKind::MacVlan
        | InfoKind::MacVtap
        | InfoKind::IpVlan
        | InfoKind::IpVtap => !link.attributes.iter().any(abroad),
        _ => false,
    })
}

/// All links of the namespace.
pub(crate) async fn all(handle: &Handle) -> Result<Vec<Link>, Error> {
    Ok(messages(handle)
        .await?
        .iter()
        .filter_map(Link::of)
        .collect())
}

/// All interfaces, as netlink describes them.
pub(crate) async fn messages(handle: &Handle) -> Result<Vec<LinkMessage>, Error> {
    let found = handle.link().get().execute().try_collect().await;
    found.map_err(|e| netlink("list interfaces", e))
}
