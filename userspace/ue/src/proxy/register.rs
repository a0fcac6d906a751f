//! REGISTER of the UE: the offer, the answer to the challenge, and what the
//! network says to them (TS 33.203 clauses 6.1 and 7.2, seen from the UE).

use std::net::{IpAddr, SocketAddr};

use gm_esp::Mode;
use gm_sip::Transport;
use gm_sip::aka::{Challenge, Credentials};
use gm_sip::header::{self, Host, NameAddr, Via};
use gm_sip::message::Message;
use gm_sip::sa_set::{Role, SaSetRequest, SetParams, SetToken, Tunnel};
use gm_sip::sec_agree::{self, Ends, SECURITY_SERVER, SecList, choose_server};
use gm_sip::ue::{AkaFailure, UeFailure, may_be_public};

use super::machine::{Behind, Proxy, ProxyEvent, ProxyOutput};
use super::rewrite;
use super::sets::{ANSWER, AWAIT, Attempt, Held, Set, unreserve};
use super::transactions::Tx;

impl Proxy {
    /// A REGISTER of the UE: sent again as it was, the answer to the challenge
    /// through the new SAs, or a first one with an offer.
    pub(super) fn register(
        &mut self,
        now: u64,
        remote: SocketAddr,
        message: Message,
    ) -> Result<(), &'static str> {
        let via = top_via(&message).ok_or("a REGISTER without Via")?;
        let branch = self.txs.branch(&via);
        if let Some(sent) = self.txs.get(&branch).and_then(|tx| tx.register.clone()) {
            self.out.push_back(ProxyOutput::ToNetwork(sent));
            return Ok(());
        }
        if self.sets.current().is_none() {
            let contact = contact_address(&message).unwrap_or(remote);
            let ip = remote.ip();
            self.ue = Some(Behind { ip, contact });
        } else if let (Some(contact), Some(ue)) = (contact_address(&message), &mut self.ue) {
            ue.contact = contact;
        }
        let credentials = Credentials::from_message(&message);
        let answers = self.sets.attempt.as_ref().is_some_and(|attempt| {
            attempt.installed
                && credentials
                    .as_ref()
                    .is_some_and(|c| c.answers() && c.nonce == attempt.nonce)
        });
        let set = if answers {
            self.sets.pending().cloned()
        } else {
            // AUTS, an empty response or something new: another challenge will come,
            // and it needs an offer of its own (clause 6.1.3, RFC 3329 clause 2.3.1).
            self.begin(now, remote, &message)?;
            self.sets.current().cloned()
        };
        self.send_register(remote, message, &branch, set);
        Ok(())
    }

    fn begin(
        &mut self,
        now: u64,
        remote: SocketAddr,
        message: &Message,
    ) -> Result<(), &'static str> {
        self.sets.abandon(&mut self.out);
        let Some(ends) = self.new_ends() else {
            self.refuse(remote, message, 503, "no SPI or client port is free");
            return Err("no SPI or client port is free");
        };
        let gm = &self.config.gm;
        let over = self.sets.current().map(|s| s.token);
        self.sets.attempt = Some(Attempt {
            client_text: sec_agree::offer_list(&gm.suites, &gm.modes, &ends),
            ends,
            over,
            leaves: header::expires(message) == Some(0),
            answered: false,
            nonce: String::new(),
            set: None,
            installed: false,
            held: None,
            deadline: now + ANSWER,
        });
        let protected = over.is_some();
        self.event(ProxyEvent::Offered { protected });
        Ok(())
    }

    fn send_register(
        &mut self,
        remote: SocketAddr,
        mut message: Message,
        branch: &str,
        set: Option<Set>,
    ) {
        let gm = &self.config.gm;
        let clear = (SocketAddr::new(gm.local, gm.clear_port), gm.pcscf);
        let contact = set
            .as_ref()
            .map_or_else(|| SocketAddr::new(gm.local, gm.server_port), Set::server);
        let (way, sent_by) = match &set {
            Some(set) => (set.way_out(), set.server()),
            None => (clear, clear.0),
        };
        if set.is_none() && message.value("Authorization").is_none() {
            // TS 24.229 clause 5.1.1.2.2: the private identity is there from the start.
            // Through SAs its absence asks for another challenge.
            let (impi, realm) = (&gm.impi, &gm.domain);
            message.push(
                "Authorization",
                &format!("Digest username=\"{impi}\",realm=\"{realm}\",nonce=\"\",uri=\"sip:{realm}\",response=\"\""),
            );
        }
        rewrite::drop_own_routes(&mut message, self.config.listen);
        rewrite::move_contacts(&mut message, contact, |_| true);
        let client = self.sets.attempt.as_ref().map(|a| a.client_text.as_str());
        let verify = set.as_ref().map(|s| s.server_text.as_str());
        rewrite::agree(&mut message, client, verify);
        let back = self.replace_via(&mut message, remote, sent_by, branch, set.is_none());
        if let Some(set) = set.as_ref().filter(|s| self.is_pending(s.token)) {
            self.out.push_back(ProxyOutput::Activate(set.token));
        }
        let packet = self.send_to_network(way, Transport::Udp, &message);
        self.txs.keep(
            branch.to_owned(),
            Tx {
                set: set.map(|s| s.token),
                register: Some(packet),
                ..back
            },
        );
    }

    fn is_pending(&self, token: SetToken) -> bool {
        self.sets.pending().is_some_and(|s| s.token == token)
    }

    /// An answer to a REGISTER.
    pub(super) fn register_answered(&mut self, now: u64, tx: &Tx, mut message: Message) {
        let status = message.status().unwrap_or(500);
        let Some(attempt) = self.sets.attempt.as_mut() else {
            // The answer to a repeated one; all has been said.
            return self.answer_down(tx, message);
        };
        attempt.answered = true;
        if status < 200 {
            return self.answer_down(tx, message);
        }
        let pending = attempt.set.as_ref().map(|s| s.token);
        let refused = match status {
            401 if pending.is_none() => {
                // Taken out here: later the Via is the UE's.
                let received = top_via(&message).and_then(|v| v.received());
                match self.challenged(now, received, tx, &mut message) {
                    Ok(()) => return,
                    Err(reason) => Some(reason),
                }
            }
            // SM6 again, because the UE has repeated its REGISTER.
            401 if tx.set != pending => return self.answer_down(tx, message),
            200..300 if tx.set.is_none() => {
                // In clear anybody can say yes.
                Some("a 200 in clear and without a challenge is not believed".to_owned())
            }
            200..300 if tx.set == pending || pending.is_none() => {
                self.succeeded(now, &message);
                None
            }
            200..300 => None,
            _ => {
                self.sets.abandon(&mut self.out);
                self.failed(format!("the network answered {status}"));
                None
            }
        };
        match refused {
            None => self.answer_down(tx, message),
            Some(reason) => {
                self.sets.abandon(&mut self.out);
                self.restore_via(tx, &mut message);
                self.refuse(tx.back, &message, 500, &reason);
                self.failed(reason);
            }
        }
    }

    /// SM6: keys, choice, set. The UE gets it when its SAs are there.
    fn challenged(
        &mut self,
        now: u64,
        received: Option<IpAddr>,
        tx: &Tx,
        message: &mut Message,
    ) -> Result<(), String> {
        let challenge = Challenge::from_message(message).map_err(|e| format!("the 401: {e}"))?;
        let keys = self
            .aka
            .answer(&challenge.rand, &challenge.autn)
            .map_err(|why| match why {
                AkaFailure::Mac => "the challenge does not verify: K and OP of the proxy must be \
                                    those of the home network's subscriber"
                    .to_owned(),
                AkaFailure::Synchronisation(_) => "the challenge's sequence number is 0".to_owned(),
            })?;
        let list = SecList::from_message(message, SECURITY_SERVER).unwrap_or_default();
        let gm = &self.config.gm;
        let chosen = choose_server(&gm.suites, &gm.modes, &list)
            .map_err(|e| format!("Security-Server of the 401: {e}"))?;
        if self.sets.is_own_spi(chosen.ends) {
            return Err("Security-Server of the 401 has an SPI of ours".into());
        }
        self.sets.spend(&challenge.nonce)?;
        // Over a set the mode stays (M.7.4.1a); in clear received says where we are.
        let public = match self.sets.current() {
            Some(set) => set.params.ue,
            None => received.unwrap_or(gm.local),
        };
        let encapsulated = chosen.mode == Mode::UdpEncTun;
        if public != gm.local && !(encapsulated && chosen.mode_written) {
            return Err("behind a NAT, and the P-CSCF did not choose UDP-enc-tun".into());
        }
        let (local, pcscf) = (gm.local, gm.pcscf.ip());
        if public != local && !may_be_public(public, pcscf) {
            return Err(UeFailure::PublicAddress.to_string());
        }
        let tunnel = Tunnel {
            local,
            remote: pcscf,
            port: gm.encap_port,
        };
        let (replay_window, token) = (gm.replay_window, self.sets.next_token());
        let Some(attempt) = self.sets.attempt.as_mut() else {
            return Ok(());
        };
        let params = SetParams {
            ue: public,
            pcscf,
            ue_ends: attempt.ends,
            pcscf_ends: chosen.ends,
            suite: chosen.suite,
            tunnel: encapsulated.then_some(tunnel),
            replay_window,
        };
        let text: Vec<_> = message
            .lines(SECURITY_SERVER)
            .map(|line| line.value().into_owned())
            .collect();
        attempt.nonce = challenge.nonce;
        attempt.deadline = now + AWAIT;
        attempt.set = Some(Set {
            token,
            params,
            server_text: text.join(", "),
            deadline: now + AWAIT,
        });
        let request = SaSetRequest::new(token, Role::Ue, params, keys.ik.clone(), keys.ck.clone());
        self.prepare_down(tx, message);
        if let Some(attempt) = self.sets.attempt.as_mut() {
            attempt.held = Some(Held {
                remote: tx.back,
                message: message.clone(),
            });
        }
        self.out.push_back(ProxyOutput::Install(Box::new(request)));
        Ok(())
    }

    /// The inbound SAs are live: the UE gets its challenge.
    pub(super) fn installed(&mut self, token: SetToken, ok: bool) {
        let Some(attempt) = &mut self.sets.attempt else {
            return;
        };
        let Some(set) = attempt.set.as_ref().filter(|s| s.token == token) else {
            return;
        };
        let (u, p) = (set.params.ue_ends, set.params.pcscf_ends);
        let event = ProxyEvent::Challenged {
            suite: Proxy::suite_name(set.params.suite),
            ports: [u.port_c, u.port_s, p.port_c, p.port_s],
        };
        attempt.installed = ok;
        let held = attempt.held.take();
        if !ok {
            // Nothing of it is there, and its SPIs are still only reserved.
            let ends = attempt.ends;
            self.sets.attempt = None;
            self.out.push_back(unreserve(&ends));
            let why = "the SAs could not be installed";
            self.failed(why.into());
            if let Some(Held { remote, message }) = held {
                self.refuse(remote, &message, 500, why);
            }
        } else if let Some(Held { remote, message }) = held {
            self.event(event);
            self.send_to_ue(remote, &message);
        }
    }

    /// 200: of SM12, of a refresh that was not challenged, or of a de-REGISTER.
    fn succeeded(&mut self, now: u64, message: &Message) {
        let Some(attempt) = self.sets.attempt.take() else {
            return;
        };
        let authenticated = attempt.set.is_some();
        match attempt.set {
            Some(set) => self.sets.establish(now, set),
            // Without a challenge the offer comes to nothing.
            None => self.out.push_back(unreserve(&attempt.ends)),
        }
        if attempt.leaves {
            self.sets.leave(now);
            self.service_route.clear();
            return self.event(ProxyEvent::Deregistered);
        }
        let server_port = self.config.gm.server_port;
        let expires = header::granted(message, |uri| uri.port == Some(server_port));
        self.sets.prolong(now + u64::from(expires) * 1000);
        let routes = message.elements("Service-Route");
        if !routes.is_empty() {
            self.service_route = routes;
        }
        self.event(ProxyEvent::Registered {
            expires,
            authenticated,
        });
    }

    fn new_ends(&mut self) -> Option<Ends> {
        let gm = &self.config.gm;
        let used = self.sets.ports();
        let barred = [0, 5060, 5061, gm.clear_port, gm.server_port];
        let free: Vec<_> = gm
            .client_ports
            .clone()
            .filter(|p| !used.contains(p) && !barred.contains(p))
            .collect();
        let port_s = gm.server_port;
        let at = (self.random.u32() as usize).checked_rem(free.len())?;
        let port_c = *free.get(at)?;
        let [spi_c, spi_s] = self.spis.pop_front()?;
        Some(Ends {
            spi_c,
            spi_s,
            port_c,
            port_s,
        })
    }
}

/// The topmost Via.
pub(super) fn top_via(message: &Message) -> Option<Via> {
    Via::parse(&message.first_element("Via")?)
}

/// Where the first Contact says that the UE is.
fn contact_address(message: &Message) -> Option<SocketAddr> {
    let contact = NameAddr::parse(&message.first_element("Contact")?)?;
    let uri = contact.parsed_uri()?;
    let ip = uri.host.as_ref().and_then(Host::ip)?;
    Some(SocketAddr::new(ip, uri.port.unwrap_or(5060)))
}
