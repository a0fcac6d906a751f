//! Requests of registered phones and of the core, and the ports they travel between.

use gm_sip::{Message, Packet};

use crate::messages::Phone;
use crate::rig::text;

/// A request of a registered phone: from port_uc, Via and Contact name port_us.
pub fn request(phone: &Phone, method: &str, more: &str) -> String {
    let at = phone.server();
    format!(
        "{method} sip:bob@home.example SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{method};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@home.example>;tag=5\r\nTo: <sip:bob@home.example>\r\n\
         Call-ID: {method}1\r\nCSeq: 1 {method}\r\nContact: <sip:alice@{at}>\r\n\
         P-Preferred-Identity: <sip:alice@home.example>\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

/// A request of the core for the phone's Contact.
pub fn from_core(method: &str, phone: &Phone) -> Message {
    Message::request(method, &format!("sip:alice@{}", phone.server()))
        .with("Via", "SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bKcore")
        .with("Max-Forwards", "70")
        .with("From", "<sip:bob@home.example>;tag=1")
        .with("To", "<sip:alice@home.example>")
        .with("Call-ID", "core1")
        .with("CSeq", &format!("1 {method}"))
}

pub fn ways(packets: &[Packet]) -> Vec<(u16, u16)> {
    let way = |p: &Packet| (p.local.port(), p.remote.port());
    packets.iter().map(way).collect()
}

pub fn text_with_uri(message: &Message, uri: &str) -> String {
    let text = text(message);
    let (first, rest) = text.split_once("\r\n").expect("a start line");
    let method = first.split(' ').next().expect("a method");
    format!("{method} {uri} SIP/2.0\r\n{rest}")
}
