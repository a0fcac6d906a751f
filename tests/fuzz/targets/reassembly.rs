#![no_main]
#[path = "../props/reassembly.rs"]
mod props;

libfuzzer_sys::fuzz_target!(|data: &[u8]| props::check(data));
