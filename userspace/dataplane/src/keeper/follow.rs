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

use super::{Kept, is_other};
use crate::Error;
use crate::attach;
use crate::devices::{self, Link};
use crate::supervise::Notice;

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
        let mtu = devices::mtu_of(link);
        let Some(link) = Link::of(link) else { return };
        // Old news: programs are attached by name, and the name may be another
        // device's by now, gm0's even. On clsact one would take the other's place.
        if is_other(&link) {
            return;
        }
        if let Err(e) = self.close(&link) {
            tracing::error!("interface {} is open: {e}", link.name);
            return;
        }
        if link.name == self.cfg.uplink
            && self.devices.uplink == 0
            && !is_other(&link)
            && let Err(e) = self.take_uplink(&link, mtu)
        {
            tracing::error!("the uplink {} is back: {e}", link.name);
        }
    }

    /// Another device has the uplink's name, the one that had it is gone. It is
    /// guarded already and lets nothing out that is protected; now XDP, then
    /// the supervisor opens it by naming it in CONFIG.
    fn take_uplink(&mut self, link: &Link, mtu: Option<u32>) -> Result<(), Error> {
        self.way_out(link.index, &link.name)?;
        self.devices.stripped |= devices::leave_tags(&link.name);
        let Some(ebpf) = &mut self.ebpf else {
            return Ok(());
        };
        let at = (link.index, link.name.as_str());
        let held = attach::attach_xdp(ebpf, attach::XDP_UPLINK, at, self.pins.as_ref())?;
        self.xdp = Some(held);
        self.devices.uplink = link.index;
        if let Some(mtu) = mtu {
            self.mtu.store(mtu, Ordering::Relaxed);
        }
        let index = link.index;
        let _ = self.notices.send(Notice::UplinkBack { index });
        Ok(())
    }

    fn lose_uplink(&mut self) {
        tracing::error!(
            "the uplink {} is gone: what is protected is dropped until it is back",
            self.cfg.uplink
        );
        (self.devices.uplink, self.devices.stripped) = (0, false);
        if let Some(held) = self.xdp.take()
            && let Err(e) = held.detach()
        {
            tracing::error!("{e}");
        }
        let _ = self.notices.send(Notice::UplinkGone);
    }

    fn del_link(&mut self, link: &LinkMessage) {
        if link.header.interface_family != AddressFamily::Unspec {
            return;
        }
        self.forget(link.header.index);
    }

    /// Lets go of an interface that is gone; another one may get its index.
    fn forget(&mut self, index: u32) {
        if index == self.devices.uplink {
            self.lose_uplink();
        }
        let gone = [self.guards.remove(&index), self.exits.remove(&index)];
        for held in gone.into_iter().flatten() {
            if let Err(e) = held.detach() {
                tracing::error!("{e}");
            }
        }
    }
}
