//! The phone's public address behind a NAT. Its host does not have it, yet
//! SIP binds to it and inner packets carry it (Annex M.7.1): it goes on the
//! loopback interface for as long as the phone needs it.

use std::net::IpAddr;

use anyhow::{Context, Result};
use rtnetlink::{Error, Handle};
use rustix::io::Errno;

/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;

/// Addresses that the phone has put on the loopback interface.
pub struct Addresses {
    handle: Handle,
    own: Vec<IpAddr>,
    added: Vec<IpAddr>,
    /// Was there before, perhaps from a phone that was killed: it is used, and stays.
    found: Vec<IpAddr>,
}

impl Addresses {
    /// Phones with these addresses of their own. Needs a tokio runtime.
    pub fn new(own: &[IpAddr]) -> Result<Addresses> {
        let (connection, handle, _) = rtnetlink::new_connection().context("no netlink")?;
        tokio::spawn(connection);
        Ok(Addresses {
            handle,
            own: own.to_vec(),
            added: Vec::new(),
            found: Vec::new(),
        })
    }

    /// Makes `address` one of this host's. True if it was not before.
    pub async fn ensure(&mut self, address: IpAddr) -> Result<bool> {
        if self.all().contains(&address) {
            return Ok(false);
        }
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let request = self.handle.address().add(LOOPBACK, address, prefix);
        match request.execute().await {
            Ok(()) => self.added.push(address),
            Err(Error::NetlinkError(e)) if e.raw_code() == -Errno::EXIST.raw_os_error() => {
                tracing::warn!(
                    "{address} is on the loopback interface already and will stay there; \
                     if nobody needs it: ip address del {address}/{prefix} dev lo"
                );
                self.found.push(address);
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot put {address} on the loopback interface"));
            }
        }
        Ok(true)
    }

    /// All addresses that SIP may use.
    pub fn all(&self) -> Vec<IpAddr> {
        let here = self.own.iter().chain(&self.added).chain(&self.found);
        here.copied().collect()
    }

    /// A phone has moved: these are the own ones from now on.
    pub fn set_own(&mut self, own: &[IpAddr]) {
        self.own = own.to_vec();
    }

    /// Takes back what was added.
    pub async fn remove_all(&mut self) {
        for address in self.added.drain(..) {
            if let Err(error) = remove(&self.handle, address).await {
                tracing::warn!("{address} stays on the loopback interface: {error:#}");
            }
        }
    }
}

async fn remove(handle: &Handle, address: IpAddr) -> Result<()> {
    use futures_util::TryStreamExt;
    let mut found = handle
        .address()
        .get()
        .set_link_index_filter(LOOPBACK)
        .set_address_filter(address)
        .execute();
    while let Some(message) = found.try_next().await? {
        handle.address().del(message).execute().await?;
    }
    Ok(())
}
