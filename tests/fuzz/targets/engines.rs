#![no_main]
#[path = "../props/input.rs"]
mod input;
#[path = "../props/engines.rs"]
mod props;

libfuzzer_sys::fuzz_target!(|data: &[u8]| props::check(data));
