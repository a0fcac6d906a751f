//! `gm-ue proxy` and `gm-ue load` against gmespd's edge with its embedded home
//! network: processes of their own in two network namespaces, ESP over XDP
//! between them. SIPp (Debian's sip-tester) is the SIP UE behind the proxy: it
//! computes AKA and the digest with its own code.
#![forbid(unsafe_code)]

#[path = "sipp/lab.rs"]
mod lab;
#[path = "sipp/legacy.rs"]
mod legacy;
#[path = "sipp/load.rs"]
mod load;
#[path = "sipp/proxy.rs"]
mod proxy;
#[path = "sipp/tcp.rs"]
mod tcp;
