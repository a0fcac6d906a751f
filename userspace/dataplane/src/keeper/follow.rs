//! Interfaces come, change and go while the data plane runs. Netlink tells,
//! and because it may tell nothing (a full socket) and attaching may fail
//! once, everything is looked at again every few seconds.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::net::if_::if_indextoname;
use rtnetlink::Handle;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Kept;
use crate::devices::{self, Link};

/// How often all interfaces are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);

impl Kept<'_> {
    pub(super) async fn event(
        &mut self,
        payload: NetlinkPayload<RouteNetlinkMessage>,
        handle: &Handle,
    ) {
        match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                self.new_link(&link)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                self.del_link(&link)
            }
            // Events were lost.
            NetlinkPayload::Overrun(_) => self.look(handle).await,
            _ => {}
        }
    }

    /// Looks at every interface; what has all it needs is left alone.
    pub(super) async fn look(&mut self, handle: &Handle) {
        match devices::messages(handle).await {
            Ok(links) => {
                let there: HashSet<u32> = links.iter().map(|link| link.header.index).collect();
                let known = self.guards.keys().chain(self.exits.keys());
                // A list that was made while interfaces changed may lack one.
                let is_gone = |i: &&u32| !there.contains(i) && if_indextoname(**i).is_err();
                let gone: Vec<u32> = known.filter(is_gone).copied().collect();
                gone.into_iter().for_each(|index| self.forget(index));
                links.iter().for_each(|link| self.new_link(link));
            }
            Err(e) => tracing::error!("{e}"),
        }
    }

    fn new_link(&mut self, link: &LinkMessage) {
        // Bridges report their ports a second time, in their own family.
        if link.header.interface_family != AddressFamily::Unspec {
            return;
        }
        if link.header.index == self.devices.uplink
            && let Some(mtu) = devices::mtu_of(link)
        {
            self.mtu.store(mtu, Ordering::Relaxed);
        }
        let Some(link) = Link::of(link) else { return };
        let back = link.name == self.cfg.uplink && link.index != self.devices.uplink;
        if back && !self.exits.contains_key(&link.index) {
            tracing::error!("the uplink {} is another device: start again", link.name);
        }
        if let Err(e) = self.close(&link) {
            tracing::error!("interface {} is open: {e}", link.name);
        }
    }

    fn del_link(&mut self, link: &LinkMessage) {
        if link.header.interface_family != AddressFamily::Unspec {
            return;
        }
        self.forget(link.header.index);
        if link.header.index == self.devices.uplink {
            tracing::error!(
                "the uplink {} is gone: start again when it is back",
                self.cfg.uplink
            );
        }
    }

    /// Lets go of an interface that is gone; another one may get its index.
    fn forget(&mut self, index: u32) {
        let gone = [self.guards.remove(&index), self.exits.remove(&index)];
        for held in gone.into_iter().flatten() {
            if let Err(e) = held.detach() {
                tracing::error!("{e}");
            }
        }
    }
}
