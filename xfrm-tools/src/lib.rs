//! Offline ESP tools: Annex I keys, pcap open and seal.
#![forbid(unsafe_code)]
