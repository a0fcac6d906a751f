//! `gm-ue register` against gmespd's edge with its embedded home network: processes
//! of their own in two network namespaces, ESP over XDP between them. What a phone
//! does right works over UDP and TCP; what it does wrong has its result and its
//! reason at both ends.
#![forbid(unsafe_code)]

#[path = "gm_ue/carried.rs"]
mod carried;
#[path = "gm_ue/ends.rs"]
mod ends;
#[path = "gm_ue/faults.rs"]
mod faults;
#[path = "sipp/lab.rs"]
#[allow(
    dead_code,
    reason = "the laboratory of SIPp has more than is wanted here"
)]
mod lab;
#[path = "gm_ue/phone.rs"]
mod phone;
