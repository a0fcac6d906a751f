#![no_main]
#[path = "../props/sec_agree.rs"]
mod props;

libfuzzer_sys::fuzz_target!(|data: &[u8]| props::check(data));
