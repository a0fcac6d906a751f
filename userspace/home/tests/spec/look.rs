//! What has happened in a world.

use std::net::SocketAddr;

use gm_sip::edge::{FlowEvent, Refusal};
use gm_sip::message::Message;
use gm_sip::ue::{UeEvent, UeFailure};

use crate::world::{Sent, World};

impl World {
    /// Datagrams from (`up`) or to phones whose text begins so.
    pub fn sent(&self, up: bool, begin: &str) -> Vec<Sent> {
        let wanted = |s: &&Sent| s.up == up && s.text().starts_with(begin);
        self.log.iter().filter(wanted).cloned().collect()
    }

    pub fn last(&self, up: bool, begin: &str) -> Sent {
        let last = self.sent(up, begin).pop();
        last.unwrap_or_else(|| panic!("no {begin} in {:?}", self.log))
    }

    pub fn refusals(&self) -> Vec<Refusal> {
        let refused = |e: &FlowEvent| match e {
            FlowEvent::Refused { why, .. } => Some(*why),
            _ => None,
        };
        self.events.iter().filter_map(refused).collect()
    }

    pub fn failure(&self) -> Option<UeFailure> {
        self.phones[0].events.iter().rev().find_map(|e| match e {
            UeEvent::Failed(failure) => Some(*failure),
            _ => None,
        })
    }

    /// Sets at the first phone and at the edge.
    pub fn sets(&self) -> (usize, usize) {
        (self.phones[0].sas.0.len(), self.edge_sas.0.len())
    }

    /// Requests of the network that the first phone was told of.
    pub fn requests(&self) -> usize {
        let told = |e: &&UeEvent| matches!(e, UeEvent::Request { .. });
        self.phones[0].events.iter().filter(told).count()
    }

    /// Final answers to requests of the first phone.
    pub fn answers(&self) -> Vec<u16> {
        let status = |e: &UeEvent| match e {
            UeEvent::Answered { status, .. } => Some(*status),
            _ => None,
        };
        self.phones[0].events.iter().filter_map(status).collect()
    }

    /// From port_uc to port_ps of the `n`-th set that was installed, as the edge hears it.
    pub fn flow_up(&self, n: usize) -> (SocketAddr, SocketAddr) {
        let p = self.installs[n].params;
        (
            SocketAddr::new(p.ue, p.ue_ends.port_c),
            SocketAddr::new(p.pcscf, p.pcscf_ends.port_s),
        )
    }

    /// From port_pc to port_us of the `n`-th set, as the phone hears it.
    pub fn flow_down(&self, n: usize) -> (SocketAddr, SocketAddr) {
        let p = self.installs[n].params;
        (
            SocketAddr::new(p.pcscf, p.pcscf_ends.port_c),
            SocketAddr::new(p.ue, p.ue_ends.port_s),
        )
    }

    /// port_pc of the `n`-th set.
    pub fn port_pc(&self, n: usize) -> u16 {
        self.installs[n].params.pcscf_ends.port_c
    }

    /// port_uc of the `n`-th set.
    pub fn port_uc(&self, n: usize) -> u16 {
        self.installs[n].params.ue_ends.port_c
    }
}

/// A message with another branch: a new transaction.
pub fn another(text: &str, branch: &str) -> String {
    text.replacen("branch=z9hG4bK", &format!("branch=z9hG4bK{branch}"), 1)
}

/// A response to a request, as if of the edge.
pub fn response(to: &str, code: u16, reason: &str) -> Message {
    let request = Message::parse(to.as_bytes()).expect("SIP");
    Message::response(&request, code, reason, "forged").with("Content-Length", "0")
}
