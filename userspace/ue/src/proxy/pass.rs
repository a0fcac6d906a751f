//! Everything but REGISTER: requests and answers of the UE through the SAs, those
//! of the network to the UE.

use std::net::SocketAddr;

use gm_sip::header::{self, Host, Uri, Via, via::mark_source};
use gm_sip::message::Message;
use gm_sip::{SetToken, Transport};

use super::machine::{Proxy, ProxyEvent};
use super::register::top_via;
use super::rewrite;
use super::sets::Set;
use super::transactions::Tx;

/// Begins the branch of a request to the UE; the set that it came through follows.
const DOWN: &str = "z9hG4bKgd";

impl Proxy {
    /// A request of the UE, through the set in use.
    pub(super) fn request_up(
        &mut self,
        remote: SocketAddr,
        mut message: Message,
    ) -> Result<(), &'static str> {
        let via = top_via(&message).ok_or("a request without Via")?;
        let Some(set) = self.sets.current().cloned() else {
            if message.method() != Some("ACK") {
                self.refuse(remote, &message, 403, "not registered through this proxy");
            }
            return Err("a request of a UE that is not registered");
        };
        let branch = self.txs.branch(&via);
        rewrite::drop_own_routes(&mut message, self.config.listen);
        if message.value("Route").is_none() {
            self.add_route(&mut message, &set);
        }
        rewrite::move_contacts(&mut message, set.server(), |_| true);
        rewrite::agree(&mut message, None, Some(&set.server_text));
        let tx = self.replace_via(&mut message, remote, set.server(), &branch, false);
        let tx = Tx {
            set: Some(set.token),
            ..tx
        };
        self.txs.keep(branch, tx);
        self.send_to_network(set.way_out(), Transport::Udp, &message);
        self.passed(&message, true);
        Ok(())
    }

    /// P-CSCF and Service-Route for what begins a dialog or stands alone (TS 24.229
    /// clause 5.1.2A.1.1); inside a dialog the UE has the route set.
    fn add_route(&self, message: &mut Message, set: &Set) {
        let mut routes = vec![format!("<sip:{};lr>", set.way_out().1)];
        if header::tag(message, "To").is_none() {
            routes.extend(self.service_route.iter().cloned());
        }
        message.push("Route", &routes.join(", "));
    }

    /// An answer of the network: to REGISTER or to another request of the UE.
    pub(super) fn response_down(
        &mut self,
        now: u64,
        local: SocketAddr,
        remote: SocketAddr,
        message: Message,
    ) -> Result<(), &'static str> {
        let branch = top_via(&message)
            .and_then(|v| v.branch())
            .unwrap_or_default();
        let tx = self
            .txs
            .get(&branch)
            .cloned()
            .ok_or("an answer to no request")?;
        let status = message.status().unwrap_or(500);
        let came = match tx.set {
            Some(token) => self.sets.carries(token, local, remote),
            None => self.sets.carrying(local, remote).is_none(),
        };
        if !came && !self.clear_failure((local, remote), tx.set, status) {
            return Err("an answer not protected as its request was");
        }
        match tx.register {
            Some(_) => self.register_answered(now, &tx, message),
            None => self.answer_down(&tx, message),
        }
        Ok(())
    }

    /// The failure of SM7 comes the way that SM6 came (clause 7.4.1a).
    fn clear_failure(
        &self,
        (local, remote): (SocketAddr, SocketAddr),
        sent: Option<SetToken>,
        status: u16,
    ) -> bool {
        let Some(attempt) = &self.sets.attempt else {
            return false;
        };
        let gm = &self.config.gm;
        let new = sent.is_some() && attempt.set.as_ref().map(|s| s.token) == sent;
        let way = match attempt.over {
            Some(over) => self.sets.carries(over, local, remote),
            None => local == SocketAddr::new(gm.local, gm.clear_port),
        };
        new && way && status >= 400 && status != 401
    }

    /// An answer as the UE knows it: its own Via and Contact, no security agreement.
    pub(super) fn answer_down(&mut self, tx: &Tx, mut message: Message) {
        self.prepare_down(tx, &mut message);
        self.send_to_ue(tx.back, &message);
    }

    pub(super) fn prepare_down(&self, tx: &Tx, message: &mut Message) {
        self.restore_via(tx, message);
        rewrite::disagree(message);
        if let Some(ue) = self.ue {
            rewrite::move_contacts(message, ue.contact, |uri| self.names_us(uri));
        }
    }

    pub(super) fn restore_via(&self, tx: &Tx, message: &mut Message) {
        message.replace_first_element("Via", &tx.via);
    }

    /// A request of the network, only through the set in use or one that ends.
    pub(super) fn request_down(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        transport: Transport,
        mut message: Message,
    ) -> Result<(), &'static str> {
        let pending = self.sets.pending().map(|s| s.token);
        let set = self
            .sets
            .carrying(local, remote)
            .filter(|s| Some(s.token) != pending)
            .ok_or("a request that is not protected as it must be")?;
        let token = set.token.0;
        let branch = top_via(&message)
            .as_ref()
            .and_then(Via::branch)
            .ok_or("a request without Via")?;
        let ue = self.ue.ok_or("a request for no UE")?;
        let uri = message.uri().unwrap_or_default().to_owned();
        if Uri::parse(&uri).is_some_and(|uri| self.names_us(&uri))
            && let Some(moved) = rewrite::move_uri(&uri, ue.contact)
        {
            message.set_uri(&moved);
        }
        rewrite::disagree(&mut message);
        let listen = self.config.listen;
        let mark = match transport {
            Transport::Udp => 'u',
            Transport::Tcp => 't',
        };
        message.insert_top(
            "Via",
            &format!("SIP/2.0/UDP {listen};branch={DOWN}{mark}{token}.{branch}"),
        );
        self.send_to_ue(ue.contact, &message);
        self.passed(&message, false);
        Ok(())
    }

    /// An answer of the UE: back through the set that its request came through.
    pub(super) fn response_up(&mut self, mut message: Message) -> Result<(), &'static str> {
        let branch = top_via(&message)
            .and_then(|v| v.branch())
            .unwrap_or_default();
        let (transport, token) = came_by(&branch).ok_or("an answer of the UE to no request")?;
        let set = self
            .sets
            .get(token)
            .or(self.sets.current())
            .cloned()
            .ok_or("an answer whose SAs are gone")?;
        message.remove_first_element("Via");
        rewrite::move_contacts(&mut message, set.server(), |_| true);
        let way = match transport {
            Transport::Udp => set.way_out(),
            Transport::Tcp => set.way_back(),
        };
        self.send_to_network(way, transport, &message);
        Ok(())
    }

    /// Puts our Via in the UE's place and gives the transaction that brings it back.
    pub(super) fn replace_via(
        &self,
        message: &mut Message,
        remote: SocketAddr,
        sent_by: SocketAddr,
        branch: &str,
        rport: bool,
    ) -> Tx {
        let theirs = message.first_element("Via").unwrap_or_default();
        let rport = if rport { ";rport" } else { "" };
        let ours = format!("SIP/2.0/UDP {sent_by};branch={branch}{rport}");
        message.replace_first_element("Via", &ours);
        let back = Via::parse(&theirs).map_or(remote, |via| via.reply_to(remote));
        Tx {
            via: mark_source(&theirs, remote, false).unwrap_or(theirs),
            back,
            set: None,
            register: None,
        }
    }

    /// Whether a URI is the contact that the network knows.
    fn names_us(&self, uri: &Uri) -> bool {
        let gm = &self.config.gm;
        let ip = uri.host.as_ref().and_then(Host::ip);
        let public = self.sets.in_use().map(|s| s.params.ue);
        let ours = ip == Some(gm.local) || public.into_iter().any(|p| Some(p) == ip);
        ours && uri.port == Some(gm.server_port)
    }

    fn passed(&mut self, message: &Message, up: bool) {
        let method = message.method().unwrap_or_default().to_owned();
        self.event(ProxyEvent::Passed { method, up });
    }
}

/// How a request came to the UE, read out of the branch that it had there.
fn came_by(branch: &str) -> Option<(Transport, SetToken)> {
    let rest = branch.strip_prefix(DOWN)?;
    let transport = match rest.bytes().next()? {
        b'u' => Transport::Udp,
        b't' => Transport::Tcp,
        _ => return None,
    };
    let token = rest.get(1..)?.split('.').next()?.parse().ok()?;
    Some((transport, SetToken(token)))
}
