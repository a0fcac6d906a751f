//! What fuzzing has kept against the properties of the fuzz targets of packets
//! (tests/fuzz/props), without fuzzing and on stable Rust. A file there with a
//! name of its own is something that was wrong once.

#[path = "../../../tests/fuzz/each.rs"]
mod each;
#[path = "../../../tests/fuzz/props/esp_open.rs"]
mod esp_open;
#[path = "../../../tests/fuzz/props/input.rs"]
mod input;
#[path = "../../../tests/fuzz/props/packets.rs"]
mod packets;
#[path = "../../../tests/fuzz/props/reassembly.rs"]
mod reassembly;
#[path = "../../../tests/fuzz/props/wire.rs"]
mod wire;

use each::{LEAST, each, tests};

#[test]
fn frames_keep_their_properties() {
    each(&tests().join("fuzz/corpus/wire"), LEAST, wire::check);
}

#[test]
fn sealed_packets_keep_their_properties() {
    each(
        &tests().join("fuzz/corpus/esp_open"),
        LEAST,
        esp_open::check,
    );
}

#[test]
fn fragments_keep_their_properties() {
    each(
        &tests().join("fuzz/corpus/reassembly"),
        LEAST,
        reassembly::check,
    );
}
