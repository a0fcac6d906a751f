//! The data path: XDP and AF_XDP around ESP, with worker threads.
#![forbid(unsafe_code)]
