#![no_main]
#[path = "../props/input.rs"]
mod input;
#[path = "../props/packets.rs"]
mod packets;
#[path = "../props/esp_open.rs"]
mod props;

libfuzzer_sys::fuzz_target!(|data: &[u8]| props::check(data));
